//! The command `ck`: Arrow tables cached on disk, from the shell.
//!
//! Messages go to standard error, data to standard output. Exit codes: 0 done, 2 usage, 3 miss,
//! 4 corrupt, 5 store unreachable or refused, 1 anything else.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod document;
mod failure;
mod human;
mod input;
mod local_file;
mod output;
mod preview;
mod progress;
mod store;

use std::process::ExitCode;

use crate::args::Invocation;
use crate::failure::Failure;

fn main() -> ExitCode {
    let invocation = match args::parse() {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    use crate::args::Command;
    let store = invocation.store;
    match invocation.command {
        Command::Put(args) => commands::put::run(&store, &args),
        Command::Get(args) => commands::get::run(&store, &args),
        Command::Decode(args) => commands::decode::run(&args),
        Command::Ls(args) => commands::ls::run(&store, &args),
        Command::Stat(args) => commands::stat::run(&store, &args),
        Command::Inspect(args) => commands::inspect::run(&store, &args),
        Command::Verify(args) => commands::verify::run(&store, &args),
        Command::Rm(args) => commands::rm::run(&store, &args),
        Command::Touch(args) => commands::touch::run(&store, &args),
        Command::Du(args) => commands::du::run(&store, &args),
        Command::Prune => commands::prune::run(&store),
        Command::Keygen => commands::keygen::run(),
        Command::Demo(_) if store.encrypts() => Err(Failure::usage(
            "the demo shows what reading in place costs, which nothing encrypted is; leave out --encrypt",
        )),
        Command::Demo(args) => commands::demo::run(&args),
        Command::DemoStep(args) => commands::demo::run_step(&store, &args),
    }
}
