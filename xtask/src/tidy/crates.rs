use crate::Result;
use crate::workspace::{Package, files_under, read};

/// What each crate may use of the others: dependencies point inward.
const DIRECTION: &[(&str, &[&str])] = &[
    ("ck-core", &[]),
    ("ck-frame", &["ck-core"]),
    ("ck-arrow", &["ck-core", "ck-frame"]),
    ("ck-codec", &["ck-core", "ck-arrow"]),
    ("ck-l1", &["ck-core"]),
    ("ck-crypto", &["ck-core"]),
    ("ck-backend-file", &["ck-core"]),
    ("ck-backend-redis", &["ck-core", "ck-frame"]),
    ("ck-backend-memcached", &["ck-core", "ck-frame"]),
    (
        "ck-cache",
        &[
            "ck-core",
            "ck-frame",
            "ck-arrow",
            "ck-codec",
            "ck-l1",
            "ck-crypto",
            "ck-backend-file",
            "ck-backend-redis",
            "ck-backend-memcached",
        ],
    ),
    (
        "ck-cli",
        &[
            "ck-core",
            "ck-frame",
            "ck-arrow",
            "ck-codec",
            "ck-backend-file",
            "ck-cache",
        ],
    ),
    (
        "memcases",
        &[
            "ck-core",
            "ck-arrow",
            "ck-backend-file",
            "ck-cache",
            "memtables",
            "testkit",
        ],
    ),
    ("memtables", &[]),
    ("testkit", &[]),
    ("xtask", &[]),
];

/// Whether `package` uses only what the table allows. Its tests may also use what stands beside it,
/// but nothing that stands above it.
pub(super) fn direction(package: &Package, members: &[Package]) -> Vec<String> {
    let Some(allowed) = allowed(&package.name) else {
        return vec![format!(
            "{}: is not in the table of dependencies (xtask/src/tidy/crates.rs)",
            package.name
        )];
    };
    let inner = |name: &str| members.iter().any(|member| member.name == name);
    package
        .dependencies
        .iter()
        .filter(|dependency| {
            inner(&dependency.name) && !allowed.contains(&dependency.name.as_str())
        })
        .filter(|dependency| {
            let stands_above =
                self::allowed(&dependency.name).is_some_and(|its| its.contains(&&*package.name));
            let is_itself = dependency.name == package.name;
            !dependency.dev || stands_above && !is_itself
        })
        .map(|dependency| format!("{}: must not depend on {}", package.name, dependency.name))
        .collect()
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    DIRECTION
        .iter()
        .find(|(crate_name, _)| *crate_name == name)
        .map(|(_, allowed)| *allowed)
}

/// The library crates that have unsafe code, in one file each.
const HAVE_UNSAFE: [&str; 3] = ["ck-backend-file", "ck-core", "ck-crypto"];

/// What the rules for a library crate look at.
pub(super) struct Library {
    name: String,
    manifest: String,
    lib_rs: String,
    examples: usize,
}

impl Library {
    pub(super) fn load(package: &Package) -> Result<Self> {
        let examples = files_under(&package.dir.join("examples"))?;
        Ok(Self {
            name: package.name.clone(),
            manifest: read(&package.dir.join("Cargo.toml"))?,
            lib_rs: read(&package.dir.join("src/lib.rs"))?,
            examples: examples
                .iter()
                .filter(|path| path.extension().is_some_and(|e| e == "rs"))
                .count(),
        })
    }
}

pub(super) fn library(library: &Library) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |holds: bool, problem: &str| {
        if !holds {
            problems.push(format!("{}: {problem}", library.name));
        }
    };
    expect(library.examples > 0, "has no example (examples/*.rs)");
    expect(
        inherits_lints(&library.manifest),
        "does not take the lints of the workspace (`[lints] workspace = true`)",
    );
    expect(
        HAVE_UNSAFE.contains(&library.name.as_str())
            || library.lib_rs.contains("#![forbid(unsafe_code)]"),
        "lacks #![forbid(unsafe_code)]",
    );
    problems
}

fn inherits_lints(manifest: &str) -> bool {
    let table = manifest.parse::<toml::Table>().unwrap_or_default();
    table
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool)
        == Some(true)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::workspace::Dependency;

    /// A package with the given dependencies; `dev:` marks those of tests.
    pub(in crate::tidy) fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |text: &&str| match text.strip_prefix("dev:") {
            Some(name) => Dependency {
                name: name.to_owned(),
                dev: true,
                optional: false,
            },
            None => Dependency {
                name: (*text).to_owned(),
                dev: false,
                optional: false,
            },
        };
        Package {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            source: None,
            dir: "/nowhere".into(),
            dependencies: dependencies.iter().map(dependency).collect(),
            features: Vec::new(),
            is_library: true,
        }
    }

    fn check(name: &str, dependencies: &[&str]) -> Vec<String> {
        let members: Vec<_> = DIRECTION
            .iter()
            .map(|(member, _)| package(member, &[]))
            .collect();
        direction(&package(name, dependencies), &members)
    }

    #[test]
    fn dependencies_may_point_inward() {
        assert_eq!(
            check(
                "ck-arrow",
                &["ck-core", "ck-frame", "bytes", "dev:ck-backend-file"]
            ),
            [""; 0]
        );
        assert_eq!(check("ck-core", &["bytes", "dev:ck-core"]), [""; 0]);
    }

    #[test]
    fn a_dependency_that_points_outward_is_a_problem() {
        assert_eq!(
            check("ck-core", &["ck-frame"]),
            ["ck-core: must not depend on ck-frame"]
        );
        assert_eq!(
            check("ck-frame", &["dev:ck-cache"]),
            ["ck-frame: must not depend on ck-cache"]
        );
        assert_eq!(
            check("ck-arrow", &["ck-backend-file"]),
            ["ck-arrow: must not depend on ck-backend-file"]
        );
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_a_problem() {
        assert!(check("ck-moon", &[])[0].contains("is not in the table"));
    }

    fn good() -> Library {
        Library {
            name: "ck-frame".to_owned(),
            manifest: "[lints]\nworkspace = true\n".to_owned(),
            lib_rs: "#![forbid(unsafe_code)]".to_owned(),
            examples: 1,
        }
    }

    #[test]
    fn a_library_without_example_lints_or_forbidden_unsafe_is_a_problem() {
        assert_eq!(library(&good()), [""; 0]);
        let found = library(&Library {
            examples: 0,
            ..good()
        });
        assert_eq!(found, ["ck-frame: has no example (examples/*.rs)"]);
        let found = library(&Library {
            manifest: "[lints]\nworkspace = false\n".to_owned(),
            ..good()
        });
        assert!(found[0].contains("lints"), "{found:?}");
        let found = library(&Library {
            lib_rs: "#![deny(unsafe_code)]".to_owned(),
            ..good()
        });
        assert_eq!(found, ["ck-frame: lacks #![forbid(unsafe_code)]"]);
    }

    #[test]
    fn only_some_may_do_without_forbidden_unsafe() {
        let store = Library {
            name: HAVE_UNSAFE[0].to_owned(),
            lib_rs: String::new(),
            ..good()
        };
        assert_eq!(library(&store), [""; 0]);
    }
}
