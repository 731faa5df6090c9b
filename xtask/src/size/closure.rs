use std::collections::BTreeSet;

/// Crates that must stay out, with the reason.
struct Absence {
    /// Where; everywhere when empty.
    under: &'static [&'static str],
    /// Names; `*` at the end stands for any rest.
    names: &'static [&'static str],
    reason: &'static str,
}

const ABSENCES: &[Absence] = &[
    Absence {
        under: &[],
        names: &["openssl", "openssl-*", "native-tls", "foreign-types"],
        reason: "no system library; TLS is rustls where it is needed",
    },
    Absence {
        under: &[],
        names: &[
            "arrow",
            "arrow-arith",
            "arrow-ord",
            "arrow-row",
            "arrow-string",
            "arrow-csv",
            "arrow-json",
            "parquet",
            "csv",
        ],
        reason: "the library stores tables, it does not compute on them or convert files; that is the command's",
    },
    Absence {
        under: &[],
        names: &[
            "clap",
            "clap_*",
            "indicatif",
            "console",
            "tpchgen",
            "tpchgen-*",
            "tracing-subscriber",
            "anyhow",
        ],
        reason: "parts of a program, not of a library",
    },
    Absence {
        under: &[],
        names: &[
            "regex",
            "regex-*",
            "lazy_static",
            "rand",
            "reqwest",
            "serde_derive",
        ],
        reason: "the standard library or a few lines do",
    },
    Absence {
        under: &["ck-core", "ck-frame", "ck-backend-file"],
        names: &["arrow-*", "flatbuffers", "lz4_flex", "zstd*"],
        reason: "knows bytes, not tables",
    },
    Absence {
        under: &["ck-core", "ck-frame", "ck-arrow"],
        names: &[
            "tokio*",
            "futures",
            "futures-util",
            "futures-executor",
            "async-*",
        ],
        reason: "runs under any executor, and encodes without one",
    },
    Absence {
        under: &["ck-core", "ck-frame", "ck-arrow"],
        names: &["rustix", "memmap2", "socket2", "mio"],
        reason: "opens no file and no socket",
    },
    Absence {
        under: &["ck-core", "ck-frame"],
        names: &["libc", "getrandom"],
        reason: "asks nothing of the system",
    },
];

/// What programs may bring all the same, with the reason.
const EXCEPTIONS: &[(&[&str], &str, &str)] = &[
    (
        &["ck-backend-redis", "ck-cache-all"],
        "openssl-probe",
        "rustls-native-certs finds the system's certificates with it; it links nothing",
    ),
    (
        &[
            "ck-backend-redis",
            "ck-backend-redis-plain",
            "ck-cache-all",
            "ck-cache-reader",
        ],
        "rand",
        "the crate redis spreads its retries with it",
    ),
];

/// The crates of `closure` that must stay out of a program for `library`.
pub(super) fn intruders(program: &str, library: &str, closure: &[String]) -> Vec<String> {
    let rules = ABSENCES
        .iter()
        .filter(|rule| rule.under.is_empty() || rule.under.contains(&library));
    rules
        .flat_map(|rule| {
            let found = closure
                .iter()
                .filter(|entry| rule.names.iter().any(|names| matches(names, entry)))
                .filter(|entry| !is_excepted(program, entry));
            found.map(|entry| format!("{program}: {entry} must stay out: {}", rule.reason))
        })
        .collect()
}

fn is_excepted(program: &str, entry: &str) -> bool {
    let mut exceptions = EXCEPTIONS.iter();
    exceptions.any(|(of, brings, _)| of.contains(&program) && matches(brings, entry))
}

/// Whether `entry`, a name and a version, is one of `names`.
fn matches(names: &str, entry: &str) -> bool {
    let name = entry.split(' ').next().unwrap_or(entry);
    names
        .strip_suffix('*')
        .map_or(name == names, |start| name.starts_with(start))
}

/// The crates in the output of `cargo tree --prefix none --format {p}`, apart from `own`, each with
/// the part of its version that tells incompatible ones apart.
pub(super) fn parse(tree: &str, own: &[&str]) -> Vec<String> {
    let mut crates = BTreeSet::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next())
            && !own.contains(&name)
        {
            crates.insert(format!("{name} {}", series(version)));
        }
    }
    crates.into_iter().collect()
}

/// `1` for v1.2.3, `0.4` for v0.4.5.
fn series(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    match (parts.next(), parts.next()) {
        (Some("0"), Some(minor)) => format!("0.{minor}"),
        (major, _) => major.unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_is_read_from_cargo_tree() {
        let tree = "size-ck-frame v0.0.0 (/t/size)\nck-frame v0.1.0 (/crates/ck-frame)\nbytes v1.12.1\n\
                    thiserror v2.0.1\nthiserror-impl v2.0.1 (proc-macro)\nbytes v1.12.1\nbase64 v0.23.1 (*)\n";
        let closure = parse(tree, &["size-ck-frame", "ck-frame"]);
        assert_eq!(
            closure,
            ["base64 0.23", "bytes 1", "thiserror 2", "thiserror-impl 2"]
        );
    }

    #[test]
    fn two_incompatible_versions_are_two_crates() {
        assert_eq!(
            parse(
                "getrandom v0.3.4\ngetrandom v0.4.1\ngetrandom v0.4.1\n",
                &[]
            )
            .len(),
            2
        );
    }

    #[test]
    fn what_must_stay_out_is_found_where_it_must() {
        let closure: Vec<_> = ["arrow-array 60", "bytes 1"].map(str::to_owned).into();
        assert_eq!(intruders("ck-cache", "ck-cache", &closure), [""; 0]);
        let found = intruders("ck-core", "ck-core", &closure);
        assert_eq!(
            found,
            ["ck-core: arrow-array 60 must stay out: knows bytes, not tables"]
        );
        let closure = ["rand 0.10".to_owned()];
        assert_eq!(intruders("ck-cache-reader", "ck-cache", &closure), [""; 0]);
        assert_eq!(intruders("ck-cache", "ck-cache", &closure).len(), 1);
    }

    #[test]
    fn every_rule_can_fail() {
        for rule in ABSENCES {
            let under = rule.under.first().copied().unwrap_or("ck-cache");
            for names in rule.names {
                let entry = format!("{} 1", names.replace('*', "x"));
                assert_eq!(
                    intruders(under, under, std::slice::from_ref(&entry)).len(),
                    1,
                    "{entry}"
                );
            }
        }
    }
}
