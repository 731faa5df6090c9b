//! Measures the memory of one stage per process: `memcases CASE BYTES DIR`.
//!
//! A case builds its source, starts a [`probe::Probe`], runs the stage, and prints its peaks as one
//! line of JSON. `memcases list` names the cases. `cargo xtask memtest` runs them all and holds the
//! figures against `xtask/ceilings.toml`.
#![allow(clippy::print_stdout, reason = "a command prints its results")]

mod cases;
mod probe;
mod rss;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use testkit::heap::CountingAllocator;

use crate::cases::{CASES, Setting};

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
            for case in CASES {
                println!("{}", json!({ "case": case.name, "after": case.after }));
            }
            Ok(())
        }
        [name, bytes, dir] => {
            let case = CASES.iter().find(|case| case.name == name);
            let case = case.ok_or_else(|| format!("no case {name:?}"))?;
            let setting = Setting {
                bytes: bytes.parse()?,
                dir: PathBuf::from(dir),
            };
            let metrics = (case.run)(&setting)?;
            println!(
                "{}",
                json!({ "case": name, "bytes": setting.bytes, "metrics": metrics })
            );
            Ok(())
        }
        _ => Err("usage: memcases list | memcases CASE BYTES DIR".into()),
    }
}
