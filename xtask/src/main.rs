//! Drives tests, tidiness, sizes, memory suites and interoperability: `cargo xtask help`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command prints its results")]

mod bench;
mod ci;
mod cmd;
mod debian;
mod interop;
mod memtest;
mod plot;
mod python;
mod report;
mod scaling;
mod size;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

/// What a step gives back; the error says what failed.
type Result<T> = std::result::Result<T, String>;

/// The problems that a check found, one line each below what to do about them.
fn list(advice: &str, problems: &[String]) -> String {
    let count = problems.len();
    format!("{count} problems{advice}\n{}", problems.join("\n"))
}

struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "test",
        usage: test::USAGE,
        run: test::run,
    },
    Command {
        name: "tidy",
        usage: tidy::USAGE,
        run: tidy::run,
    },
    Command {
        name: "size",
        usage: size::USAGE,
        run: size::run,
    },
    Command {
        name: "memtest",
        usage: memtest::USAGE,
        run: memtest::run,
    },
    Command {
        name: "scaling",
        usage: scaling::USAGE,
        run: scaling::command,
    },
    Command {
        name: "bench",
        usage: bench::USAGE,
        run: bench::run,
    },
    Command {
        name: "interop",
        usage: interop::USAGE,
        run: interop::run,
    },
    Command {
        name: "ci",
        usage: ci::USAGE,
        run: ci::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = args
        .split_first()
        .map_or(("help", &[][..]), |(name, rest)| (name, rest));
    if matches!(name, "help" | "-h" | "--help") || rest.iter().any(|arg| arg == "--help") {
        help(name);
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("error: no command {name:?}; see `cargo xtask help`");
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the usage of `name`, or of every command.
fn help(name: &str) {
    let one = COMMANDS.iter().filter(|command| command.name == name);
    let chosen: Vec<_> = if one.clone().count() == 0 {
        COMMANDS.iter().collect()
    } else {
        one.collect()
    };
    for command in chosen {
        println!("cargo xtask {}", command.usage);
    }
}

/// Refuses what a command does not know.
fn unknown_argument(arg: &str) -> String {
    format!("unknown argument {arg:?}; see `cargo xtask help`")
}
