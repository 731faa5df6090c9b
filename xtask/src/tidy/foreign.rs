use crate::workspace::Package;

/// Licences that a binary of this project may carry.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Dependencies come from crates.io, under a licence that asks for no more than a notice.
pub(super) fn problems(foreign: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in foreign {
        let Package {
            name,
            version,
            license,
            source,
            ..
        } = package;
        if source.as_deref() != Some(REGISTRY) {
            problems.push(format!(
                "{name} {version}: comes from {source:?}, not from crates.io"
            ));
        }
        let license = license.as_deref().unwrap_or("no licence");
        if !accepted(license) {
            problems.push(format!(
                "{name} {version}: its licence ({license}) is not in xtask/src/tidy/foreign.rs"
            ));
        }
    }
    problems
}

/// Whether an SPDX expression can be met. Enough of it for what crates write: alternatives, and
/// parentheses around them.
fn accepted(expression: &str) -> bool {
    let every_part = |choice: &str| {
        choice
            .split(" AND ")
            .all(|part| LICENCES.contains(&part.trim()))
    };
    match expression.split_once('(') {
        None => expression
            .replace('/', " OR ")
            .split(" OR ")
            .any(every_part),
        Some((before, rest)) => {
            let Some((inner, after)) = rest.split_once(')') else {
                return false;
            };
            let outer = before.trim().trim_end_matches("AND").trim();
            let outer = if outer.is_empty() {
                after.trim().trim_start_matches("AND").trim()
            } else {
                outer
            };
            accepted(inner) && (outer.is_empty() || accepted(outer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::crates::tests::package;

    fn from_registry() -> Package {
        Package {
            source: Some(REGISTRY.to_owned()),
            ..package("bytes", &[])
        }
    }

    #[test]
    fn the_usual_licences_are_accepted() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR Apache-2.0",
            "Unlicense OR MIT",
            "GPL-3.0 OR Zlib",
        ] {
            assert!(accepted(good), "{good}");
        }
        for good in [
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "MIT AND BSD-3-Clause",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert!(accepted(good), "{good}");
        }
        assert_eq!(problems(&[from_registry()]), [""; 0]);
    }

    #[test]
    fn a_licence_that_asks_for_more_is_a_problem() {
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "GPL-3.0 AND (MIT)",
            "(MIT",
            "",
        ] {
            assert!(!accepted(bad), "{bad}");
        }
        let package = Package {
            license: None,
            ..from_registry()
        };
        assert!(problems(&[package])[0].contains("no licence"));
    }

    #[test]
    fn a_dependency_from_elsewhere_is_a_problem() {
        let package = Package {
            source: Some("git+https://example.org/bytes".to_owned()),
            ..from_registry()
        };
        assert!(problems(&[package])[0].contains("not from crates.io"));
    }
}
