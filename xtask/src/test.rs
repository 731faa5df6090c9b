use std::{env, thread};

use crate::cmd::Cmd;
use crate::{Result, debian};

pub(crate) const USAGE: &str = "test [ARGS]
    Runs every test of the workspace with all features, documentation included, with
    cargo-nextest where it is installed. Servers that tests start are installed where that is allowed.
    ARGS go to the test runner, a part of a name for one.
";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let (summary, result) = all(args);
    println!();
    summary.iter().for_each(|line| println!("{line}"));
    result
}

/// Runs all tests; the lines are the runners' own summaries.
pub(crate) fn all(args: &[String]) -> (Vec<String>, Result<()>) {
    if let Err(error) = debian::servers() {
        return (Vec::new(), Err(error));
    }
    let scope = ["--workspace", "--all-features", "--no-fail-fast"];
    if !Cmd::cargo().args(["nextest", "--version"]).succeeds() {
        println!("cargo-nextest is not installed; using `cargo test`");
        return Cmd::cargo()
            .arg("test")
            .args(scope)
            .args(args)
            .tee(is_summary);
    }
    let (mut summary, tests) = Cmd::cargo()
        .args(["nextest", "run"])
        .args(scope)
        .args(threads(args).filter(|_| env::var_os("NEXTEST_TEST_THREADS").is_none()))
        .args(args)
        .tee(is_summary);
    let (doc_summary, doc_tests) = Cmd::cargo()
        .args(["test", "--doc"])
        .args(scope)
        .args(args)
        .tee(is_summary);
    summary.extend(doc_summary);
    (summary, tests.and(doc_tests))
}

/// How many tests run at a time, unless that was said: half of the time they wait, for servers, for deadlines, for each
/// other.
fn threads(args: &[String]) -> Option<String> {
    let is_said = |arg: &String| {
        let options = ["-j", "--jobs", "--test-threads"];
        options.iter().any(|option| arg.starts_with(option))
    };
    if args.iter().any(is_said) {
        return None;
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Some(format!("--test-threads={}", 2 * cores))
}

/// Builds the programs and examples of the workspace in the way of the tests, with the features that only
/// tests turn on: once these are built, little is left to do.
pub(crate) fn programs() -> Result<()> {
    let scope = ["--workspace", "--all-features"];
    let targets = ["--bins", "--examples", "--tests"];
    Cmd::cargo().arg("build").args(scope).args(targets).run()
}

/// Whether `line` sums up a run. Crates without any test print a line too, which is dropped; so is
/// what failing tests printed, which nextest shows indented.
fn is_summary(line: &str) -> bool {
    line.trim_start().starts_with("Summary [")
        || line.starts_with("test result: ") && !line.contains(" 0 passed; 0 failed; 0 ignored")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_threads_stands() {
        let ours =
            |args: &[&str]| threads(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        assert!(ours(&["put"]).is_some_and(|option| option.starts_with("--test-threads=")));
        for args in [
            &["-j1"][..],
            &["-j", "1"],
            &["--jobs=1"],
            &["put", "--test-threads", "1"],
        ] {
            assert_eq!(ours(args), None, "{args:?}");
        }
    }

    #[test]
    fn the_summaries_of_both_runners_are_recognised() {
        assert!(is_summary(
            "     Summary [   0.391s] 24 tests run: 24 passed, 0 skipped"
        ));
        assert!(is_summary(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
        ));
        assert!(is_summary(
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured"
        ));
        assert!(!is_summary(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured"
        ));
        assert!(!is_summary(
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured"
        ));
        assert!(!is_summary(
            "        PASS [   0.003s] ck-core key::tests::empty_keys_are_refused"
        ));
    }
}
