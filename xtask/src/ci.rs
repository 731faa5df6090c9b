use std::thread;
use std::time::{Duration, Instant};

use crate::cmd::Cmd;
use crate::report::Table;
use crate::workspace::{Metadata, root};
use crate::{Result, interop, memtest, size, test, tidy, unknown_argument};

pub(crate) const USAGE: &str = "ci
    What `.ci/run` runs: format, lints, documentation, each library crate alone without features,
    the benchmarks' own checks, test, tidy, memtest --quick --dev and interop, and size beside them. All of them run,
    even after a failure.
";

type Step = (&'static str, fn() -> Result<()>);

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(unknown_argument(arg));
    }
    let mut table = Table::new(&["step", "seconds", "result"]);
    let mut failures = Vec::new();
    let mut note = |name: &str, took: Duration, result: Result<()>| {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        table.row([
            name.to_owned(),
            format!("{:.1}", took.as_secs_f64()),
            verdict.to_owned(),
        ]);
        if let Err(error) = result {
            eprintln!("error: {name}: {error}");
            failures.push(format!("{name}: {error}"));
        }
    };
    let start = Instant::now();
    let before: &[Step] = &[
        ("fmt", fmt),
        ("clippy", clippy),
        ("doc", doc),
        ("alone and benches", alone_and_benches),
    ];
    let after: &[Step] = &[
        ("tidy", || tidy::run(&[])),
        ("memtest", || {
            memtest::run(&["--quick", "--dev"].map(str::to_owned))
        }),
        ("interop", || interop::run(&[])),
    ];
    // In a directory of its own, with what the others leave of two processors: compilers and tests wait a lot.
    let size = thread::spawn(|| timed("size, beside the others", || size::run(&[])));
    // Most of it is waiting for downloads. Whether it went well is seen by the step that needs it.
    let packages = thread::spawn(interop::environment);
    for &(name, step) in before {
        let (took, result) = timed(name, step);
        note(name, took, result);
    }
    let (took, (summary, result)) = timed("test", || test::all(&[]));
    note("test", took, result);
    drop(packages.join());
    for &(name, step) in after {
        let (took, result) = timed(name, step);
        note(name, took, result);
    }
    let panicked = |_| (Duration::ZERO, Err("panicked".to_owned()));
    let (took, result) = size.join().unwrap_or_else(panicked);
    note("size", took, result);
    table.row([
        "all".to_owned(),
        format!("{:.1}", start.elapsed().as_secs_f64()),
    ]);
    println!("\n{}", table.text());
    summary.iter().for_each(|line| println!("{line}"));
    if failures.is_empty() {
        Ok(())
    } else {
        Err(format!("failed\n{}", failures.join("\n")))
    }
}

fn timed<T>(name: &str, step: impl FnOnce() -> T) -> (Duration, T) {
    println!("\n=== {name}");
    let start = Instant::now();
    let result = step();
    (start.elapsed(), result)
}

fn fmt() -> Result<()> {
    component("rustfmt", "fmt")?;
    Cmd::cargo().args(["fmt", "--all", "--check"]).run()
}

fn clippy() -> Result<()> {
    component("clippy", "clippy")?;
    let scope = ["clippy", "--workspace", "--all-targets", "--all-features"];
    Cmd::cargo()
        .args(scope)
        .args(["--", "-D", "warnings"])
        .run()
}

fn doc() -> Result<()> {
    Cmd::cargo()
        .args(["doc", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// Side by side, each in a directory of its own: one of them compiles one crate after the other.
fn alone_and_benches() -> Result<()> {
    let benches = thread::spawn(benches);
    let alone = alone().map_err(|error| format!("alone: {error}"));
    let panicked = |_| Err("panicked".to_owned());
    let benches = benches.join().unwrap_or_else(panicked);
    let benches = benches.map_err(|error| format!("benches: {error}"));
    match (alone, benches) {
        (Err(alone), Err(benches)) => Err(format!("{alone}\n{benches}")),
        (alone, benches) => alone.and(benches),
    }
}

/// Each library crate builds alone, with the fewest features.
fn alone() -> Result<()> {
    for package in Metadata::load()?.libraries() {
        println!("{}", package.name);
        Cmd::cargo()
            .args([
                "clippy",
                "--lib",
                "--no-default-features",
                "--package",
                &package.name,
            ])
            .args(["--", "-D", "warnings"])
            .run()?;
    }
    Ok(())
}

/// What measures is a workspace of its own, which the other steps do not see. Everything in it compiles, and the
/// rule that judges curves can fail. Nothing is measured, so nothing is optimised, and hardly anything built.
fn benches() -> Result<()> {
    let cargo = || Cmd::cargo().dir(root().join("benches"));
    // Without --all, which would format the crates outside of it that it depends on.
    cargo().args(["fmt", "--check"]).run()?;
    Cmd::cargo()
        .dir(root().join("fuzz"))
        .args(["fmt", "--check"])
        .run()?;
    cargo()
        .args(["clippy", "--workspace", "--bins", "--tests", "--benches"])
        .args(["--", "-D", "warnings"])
        .run()?;
    cargo().args(["test", "--package", "growth"]).run()
}

/// Installs a component of the toolchain when its cargo command is missing.
fn component(name: &str, subcommand: &str) -> Result<()> {
    if Cmd::cargo().args([subcommand, "--version"]).succeeds() {
        return Ok(());
    }
    Cmd::new("rustup").args(["component", "add", name]).run()
}
