//! What each feature brings by itself: the crates of each library with no feature, and with each one alone.
//!
//! Nothing is built for that. The sets of features whose programs are built and weighed are in `programs.rs`.

use super::{closure, tree};
use crate::Result;
use crate::cmd::Cmd;
use crate::workspace::{Metadata, Package};

/// Crates that come with some features of a library alone.
struct Belonging {
    library: &'static str,
    /// As in [`closure::matches`].
    names: &'static [&'static str],
    features: &'static [&'static str],
}

const BELONGINGS: &[Belonging] = &[
    Belonging {
        library: "ck-core",
        names: &["tokio"],
        features: &["tokio"],
    },
    Belonging {
        library: "ck-backend-file",
        names: &["tokio"],
        features: &["tokio"],
    },
    Belonging {
        library: "ck-backend-memcached",
        names: &["tokio"],
        features: &["tokio"],
    },
    Belonging {
        library: "ck-backend-redis",
        names: &["rustls*", "tokio-rustls", "ring"],
        features: &["tls"],
    },
    Belonging {
        library: "ck-cache",
        names: &["memmap2", "ck-backend-file"],
        features: &["file"],
    },
    Belonging {
        library: "ck-cache",
        names: &["ck-backend-memcached"],
        features: &["memcached"],
    },
    Belonging {
        library: "ck-cache",
        names: &["redis", "mio", "ck-backend-redis"],
        features: &["redis", "redis-cluster", "redis-sentinel", "redis-tls"],
    },
    Belonging {
        library: "ck-cache",
        names: &["rustls*", "tokio-rustls"],
        features: &["redis-tls"],
    },
    Belonging {
        library: "ck-cache",
        names: &["ck-crypto"],
        features: &["encryption"],
    },
    Belonging {
        library: "ck-cache",
        names: &["ring"],
        features: &["encryption", "redis-tls"],
    },
    Belonging {
        library: "ck-cache",
        names: &["metrics"],
        features: &["metrics"],
    },
    Belonging {
        library: "ck-codec",
        names: &["rmp", "rmp-serde"],
        features: &["messagepack"],
    },
];

/// What the features of the libraries bring and must not, and what stands above that no longer holds.
pub(super) fn intruders(metadata: &Metadata) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for library in metadata.libraries() {
        found.extend(judge(&library.name, "", &crates(library, "")?));
        for feature in &library.features {
            found.extend(judge(&library.name, feature, &crates(library, feature)?));
        }
    }
    Ok(found)
}

/// Every other crate that is compiled for a library with this feature alone, or with none.
fn crates(library: &Package, feature: &str) -> Result<Vec<String>> {
    let tree = tree(Cmd::cargo().arg("tree"), &library.name)
        .args(["--no-default-features", "--features", feature])
        .output()?;
    Ok(closure::parse(&tree, &[&library.name]))
}

fn judge(library: &str, feature: &str, crates: &[String]) -> Vec<String> {
    let name = format!("{library}+{feature}");
    let mut found = closure::intruders(&name, library, crates);
    for rule in BELONGINGS.iter().filter(|rule| rule.library == library) {
        let belongs = rule.features.contains(&feature);
        for names in rule.names {
            let mut brought = crates.iter().filter(|entry| closure::matches(names, entry));
            match brought.next() {
                Some(entry) if !belongs => found.push(format!(
                    "{name}: {entry} must come with {} alone",
                    rule.features.join(", ")
                )),
                None if belongs => found.push(format!(
                    "{name}: does not bring {names}, as xtask/src/size/features.rs says"
                )),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a library that brings exactly these crates with this feature.
    fn found(library: &str, feature: &str, crates: &[&str]) -> String {
        let crates: Vec<_> = crates.iter().map(|name| format!("{name} 1")).collect();
        judge(library, feature, &crates).join("\n")
    }

    #[test]
    fn what_belongs_to_a_feature_may_come_with_no_other() {
        for rule in BELONGINGS {
            for names in rule.names {
                let name = names.replace('*', "-x");
                let wrong = format!("{name} 1 must come with {} alone", rule.features.join(", "));
                assert!(found(rule.library, "", &[&name]).contains(&wrong), "{name}");
                for feature in rule.features {
                    let found = found(rule.library, feature, &[&name]);
                    assert!(!found.contains(&wrong), "{found}");
                }
            }
        }
    }

    #[test]
    fn a_rule_about_what_a_feature_does_not_bring_is_reported() {
        for rule in BELONGINGS {
            for (feature, names) in rule.features.iter().zip(rule.names) {
                let wrong = format!("does not bring {names},");
                assert!(
                    found(rule.library, feature, &[]).contains(&wrong),
                    "{feature}"
                );
            }
        }
    }

    #[test]
    fn the_features_of_the_libraries_bring_what_they_may_and_no_more() {
        assert_eq!(intruders(&Metadata::load().unwrap()).unwrap(), [""; 0]);
    }

    #[test]
    fn what_must_stay_out_is_found_with_each_feature() {
        let found = found("ck-cache", "file", &["parquet"]);
        assert!(
            found.contains("ck-cache+file: parquet 1 must stay out"),
            "{found}"
        );
    }
}
