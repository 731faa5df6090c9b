//! Measures the memory of one stage per process: `memcases CASE BYTES DIR [URL]`.
//!
//! A case builds its source, or takes what the case before it has left, starts a [`probe::Probe`], runs the
//! stage, and prints its peaks and its memory over time as one line of JSON. `memcases list` names the cases,
//! `memcases serve` runs a server for them. `cargo xtask memtest` runs them all and holds the figures
//! against `xtask/ceilings.toml`.
#![allow(clippy::print_stdout, reason = "a command prints its results")]

mod cases;
mod matrix;
mod probe;
mod rss;
mod series;
mod server;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use memtables::{digest, tables};
use serde_json::json;
use testkit::heap::CountingAllocator;

use crate::cases::{Case, Setting};
use crate::probe::Figures;

/// Counts as the resident size does, which the cases measure beside it.
#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::in_place();

type Error = Box<dyn std::error::Error>;
type Result<T, E = Error> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for case in Case::all() {
                println!("{}", case.json());
            }
            Ok(())
        }
        ["serve", kind, bytes] => server::serve(kind, bytes.parse()?),
        ["inside", work, ref setting @ ..] => {
            print(work, &cases::inside(work, &parse(setting)?)?);
            Ok(())
        }
        [name, ref setting @ ..] if !setting.is_empty() => {
            let case = Case::all().into_iter().find(|case| case.name == name);
            let case = case.ok_or_else(|| format!("no case {name:?}"))?;
            print(name, &case.run(&parse(setting)?)?);
            Ok(())
        }
        _ => Err("usage: memcases list | serve KIND BYTES | CASE BYTES DIR [URL]".into()),
    }
}

fn parse(setting: &[&str]) -> Result<Setting> {
    let (bytes, dir, server) = match *setting {
        [bytes, dir] => (bytes, dir, None),
        [bytes, dir, server] => (bytes, dir, Some(server.to_owned())),
        _ => return Err("expected BYTES DIR [URL]".into()),
    };
    Ok(Setting {
        bytes: bytes.parse()?,
        dir: PathBuf::from(dir),
        server,
    })
}

fn print(case: &str, figures: &Figures) {
    println!(
        "{}",
        json!({ "case": case, "metrics": figures.metrics, "series": figures.series })
    );
}
