use std::path::Path;

use crate::Result;
use crate::workspace::{Package, files_under, read, root};

const MAX_LINES: usize = 700;

/// The files that may have unsafe code: one that maps files, one that gives
/// freed memory back, one that wipes keys and a test
/// that forks, and the allocator of memory tests.
const UNSAFE_FILES: &[&str] = &[
    "crates/ck-backend-file/src/mmap.rs",
    "crates/ck-crypto/src/secret.rs",
    "crates/ck-crypto/tests/nonces.rs",
    "crates/ck-core/src/heap.rs",
    "testkit/src/heap.rs",
];

/// Left-overs, written so that this file does not contain them.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("#[", "ignore"), "a test that does not run"),
    (concat!(", ", "ignore)]"), "a test that does not run"),
    (concat!("```", "ignore"), "an example that is not compiled"),
];

/// Problems in the sources of one package.
pub(super) fn of(package: &Package) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for dir in ["src", "tests", "examples", "benches"] {
        for path in files_under(&package.dir.join(dir))? {
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap_or(&path);
                problems.extend(in_file(name, &read(&path)?));
            }
        }
    }
    Ok(problems)
}

fn in_file(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = path.display();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!(
            "{name}: {lines} lines, more than {MAX_LINES}; split it"
        ));
    }
    let may_be_unsafe = UNSAFE_FILES.iter().any(|file| path == Path::new(file));
    for (number, line) in (1..).zip(text.lines()) {
        for (leftover, what) in LEFTOVERS {
            if line.contains(leftover) {
                problems.push(format!("{name}:{number}: {leftover} ({what})"));
            }
        }
        if !may_be_unsafe && lowers_unsafe_lint(line) {
            problems.push(format!(
                "{name}:{number}: unsafe code is allowed only in {}",
                UNSAFE_FILES.join(", ")
            ));
        }
    }
    problems
}

/// Whether `line` changes the lint that keeps unsafe code out of the workspace.
fn lowers_unsafe_lint(line: &str) -> bool {
    let line = line.trim();
    let lint = concat!("unsafe_", "code");
    let alone = line.trim_end_matches(',') == lint;
    let lowered = ["allow", "expect", "warn"]
        .iter()
        .any(|level| line.contains(&format!("{level}({lint}")));
    alone || lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        in_file(Path::new(path), text)
    }

    #[test]
    fn ordinary_code_is_fine() {
        let text = "#![forbid(unsafe_code)]\n/// Not to be ignored.\nfn main() {}\n";
        assert_eq!(check("src/main.rs", text), [""; 0]);
        assert_eq!(check("src/main.rs", &"\n".repeat(MAX_LINES)), [""; 0]);
    }

    #[test]
    fn a_long_file_is_a_problem() {
        assert!(check("src/a.rs", &"\n".repeat(MAX_LINES + 1))[0].contains("701 lines"));
    }

    #[test]
    fn every_leftover_is_a_problem() {
        for (leftover, _) in LEFTOVERS {
            let found = check("src/a.rs", &format!("fn f() {{\n    {leftover}\n"));
            assert_eq!(found.len(), 1, "{leftover}");
            assert!(found[0].starts_with("src/a.rs:2: "), "{found:?}");
        }
    }

    #[test]
    fn unsafe_code_outside_its_files_is_a_problem() {
        let lint = concat!("unsafe_", "code");
        for text in [
            format!("#![allow({lint})]"),
            format!("#![expect(\n    {lint},\n    reason = \"\""),
        ] {
            assert_eq!(check("crates/ck-core/src/lib.rs", &text).len(), 1, "{text}");
            assert_eq!(check(UNSAFE_FILES[0], &text), [""; 0]);
        }
    }
}
