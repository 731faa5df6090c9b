use std::thread;

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
    // Half of the time they wait: for servers, for deadlines, for each other.
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    let (mut summary, tests) = Cmd::cargo()
        .args(["nextest", "run"])
        .args(scope)
        .args(["--test-threads", &threads.to_string()])
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
