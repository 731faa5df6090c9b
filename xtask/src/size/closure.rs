use std::collections::BTreeSet;

/// Crates that must stay out, with the reason.
struct Absence {
    /// Where; everywhere when empty.
    under: &'static [&'static str],
    /// Names; `*` at the end stands for any rest.
    names: &'static [&'static str],
    reason: &'static str,
}

/// Nothing of ours has it, the command neither.
const NO_OPENSSL: Absence = Absence {
    under: &[],
    names: &["openssl", "openssl-*", "native-tls", "foreign-types"],
    reason: "no system library; TLS is rustls where it is needed",
};

const ABSENCES: &[Absence] = &[
    NO_OPENSSL,
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
        under: &[
            "ck-core",
            "ck-frame",
            "ck-l1",
            "ck-crypto",
            "ck-backend-file",
            "ck-backend-redis",
            "ck-backend-memcached",
        ],
        names: &["arrow-*", "flatbuffers", "lz4_flex", "zstd*"],
        reason: "knows bytes, not tables",
    },
    Absence {
        under: &["ck-core", "ck-frame", "ck-arrow", "ck-l1", "ck-crypto"],
        names: &[
            "tokio*",
            "futures",
            "futures-util",
            "futures-executor",
            "async-*",
        ],
        reason: "runs under any executor, and works without one",
    },
    Absence {
        under: &["ck-core", "ck-frame", "ck-arrow", "ck-l1", "ck-crypto"],
        names: &["rustix", "memmap2", "socket2", "mio"],
        reason: "opens no file and no socket",
    },
    Absence {
        under: &["ck-core", "ck-frame"],
        names: &["libc", "getrandom"],
        reason: "asks nothing of the system",
    },
];

/// What programs may bring all the same, with the reason; of a library with one feature alone, `library+feature`.
const EXCEPTIONS: &[(&[&str], &str, &str)] = &[
    (
        &[
            "ck-backend-redis",
            "ck-backend-redis+tls",
            "ck-cache-all",
            "ck-cache+redis-tls",
            COMMAND,
        ],
        "openssl-probe",
        "rustls-native-certs finds the system's certificates with it; it links nothing",
    ),
    (
        &[
            "ck-backend-redis",
            "ck-backend-redis-plain",
            "ck-backend-redis+*",
            "ck-cache-all",
            "ck-cache-reader",
            "ck-cache+redis*",
        ],
        "rand",
        "the crate redis spreads its retries with it",
    ),
    (
        &["ck-core+tokio"],
        "tokio",
        "the feature hands blocking work to it",
    ),
];

/// The package of the command `ck`.
pub(super) const COMMAND: &str = "ck-cli";

/// The crates of `closure` that must stay out of a program for `library`.
pub(super) fn intruders(program: &str, library: &str, closure: &[String]) -> Vec<String> {
    let rules = ABSENCES
        .iter()
        .filter(|rule| rule.under.is_empty() || rule.under.contains(&library));
    rules
        .flat_map(|rule| rule.broken(program, closure))
        .collect()
}

/// The crates of `closure` that must stay out of the command, which has what programs have and libraries have not.
pub(super) fn intruders_of_command(closure: &[String]) -> Vec<String> {
    NO_OPENSSL.broken(COMMAND, closure)
}

impl Absence {
    /// What there is in `closure`, the crates of `program`, although it must not be.
    fn broken(&self, program: &str, closure: &[String]) -> Vec<String> {
        let found = closure
            .iter()
            .filter(|entry| self.names.iter().any(|names| matches(names, entry)))
            .filter(|entry| !is_excepted(program, entry));
        found
            .map(|entry| format!("{program}: {entry} must stay out: {}", self.reason))
            .collect()
    }
}

fn is_excepted(program: &str, entry: &str) -> bool {
    let mut exceptions = EXCEPTIONS.iter();
    exceptions
        .any(|(of, brings, _)| of.iter().any(|of| matches(of, program)) && matches(brings, entry))
}

/// Whether `entry`, a name and a version, is one of `names`.
pub(super) fn matches(names: &str, entry: &str) -> bool {
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
    fn every_rule_can_fail_wherever_it_holds() {
        for rule in ABSENCES {
            let everywhere: &[_] = if rule.under.is_empty() {
                &["ck-cache"]
            } else {
                rule.under
            };
            for (under, names) in everywhere
                .iter()
                .flat_map(|under| rule.names.iter().map(move |names| (under, names)))
            {
                let entry = format!("{} 1", names.replace('*', "x"));
                assert_eq!(
                    intruders(under, under, std::slice::from_ref(&entry)).len(),
                    1,
                    "{under}: {entry}"
                );
            }
        }
    }

    #[test]
    fn what_knows_no_tables_has_no_arrow() {
        let arrow = ["arrow-buffer 60".to_owned()];
        for library in [
            "ck-l1",
            "ck-crypto",
            "ck-backend-file",
            "ck-backend-redis",
            "ck-backend-memcached",
        ] {
            assert_eq!(intruders(library, library, &arrow).len(), 1, "{library}");
        }
    }

    #[test]
    fn the_command_has_no_openssl_and_what_programs_have() {
        let closure = ["clap 4", "openssl-probe 0.2", "parquet 60"].map(str::to_owned);
        assert_eq!(intruders_of_command(&closure), [""; 0]);
        for name in NO_OPENSSL.names {
            let entry = format!("{} 1", name.replace('*', "sys"));
            let found = intruders_of_command(std::slice::from_ref(&entry));
            assert_eq!(found.len(), 1, "{entry}");
        }
    }
}
