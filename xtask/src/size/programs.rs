use crate::workspace::Metadata;

/// A program whose size counts: a library crate with a set of features, as somebody would use it.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: String,
    /// The library crate it is for.
    pub(super) library: String,
    /// Its source is `xtask/size/SOURCE.rs`.
    pub(super) source: String,
    /// `None` for those of the crate itself.
    pub(super) features: Option<&'static [&'static str]>,
    /// The most bytes it may have, whatever the baseline, with the reason.
    pub(super) budget: Option<(u64, &'static str)>,
}

impl Program {
    /// What is wrong with a program of so many bytes, whatever its baseline.
    pub(super) fn beyond_budget(&self, bytes: u64) -> Option<String> {
        let (most, reason) = self.budget.filter(|(most, _)| bytes > *most)?;
        let name = &self.name;
        Some(format!(
            "{name}: {bytes} bytes, above its budget of {most}: {reason}"
        ))
    }
}

/// Programs beside the one of each library crate with its default features.
struct Choice {
    name: &'static str,
    library: &'static str,
    source: &'static str,
    features: &'static [&'static str],
    budget: Option<(u64, &'static str)>,
}

impl Choice {
    /// A table put and got with these features of the facade. A name with a `+` says what a feature costs beside the
    /// default ones.
    const fn of_cache(name: &'static str, features: &'static [&'static str]) -> Self {
        Self {
            name,
            library: "ck-cache",
            source: "ck-cache",
            features,
            budget: None,
        }
    }
}

const CHOICES: &[Choice] = &[
    Choice {
        name: "ck-backend-redis-plain",
        library: "ck-backend-redis",
        source: "ck-backend-redis",
        features: &[],
        budget: None,
    },
    Choice::of_cache("ck-cache-process", &[]),
    Choice::of_cache("ck-cache+memcached", &["default", "memcached"]),
    Choice {
        name: "ck-cache+encryption",
        library: "ck-cache",
        source: "encrypted",
        features: &["default", "encryption"],
        budget: None,
    },
    Choice {
        name: "ck-cache-reader",
        library: "ck-cache",
        source: "reader",
        features: &["file", "redis"],
        budget: Some((
            6_000_000,
            "a program that reads cached tables from files and Redis fits where programs must be small",
        )),
    },
    Choice::of_cache(
        "ck-cache-all",
        &[
            "encryption",
            "file",
            "memcached",
            "metrics",
            "redis-cluster",
            "redis-sentinel",
            "redis-tls",
            "tokio",
        ],
    ),
];

/// All of them.
pub(super) fn all(metadata: &Metadata) -> Vec<Program> {
    let own = metadata.libraries().map(|package| Program {
        name: package.name.clone(),
        library: package.name.clone(),
        source: package.name.clone(),
        features: None,
        budget: None,
    });
    let chosen = CHOICES.iter().map(|choice| Program {
        name: choice.name.to_owned(),
        library: choice.library.to_owned(),
        source: choice.source.to_owned(),
        features: Some(choice.features),
        budget: choice.budget,
    });
    own.chain(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_cached_tables_has_six_million_bytes_and_no_more() {
        let all = all(&Metadata::load().unwrap());
        let reader = all.iter().find(|one| one.name == "ck-cache-reader");
        let reader = reader.unwrap();
        assert_eq!(reader.features, Some(&["file", "redis"][..]));
        assert_eq!(reader.beyond_budget(6_000_000), None);
        let problem = reader.beyond_budget(6_000_001).unwrap();
        assert!(
            problem.contains("6000001 bytes, above its budget of 6000000"),
            "{problem}"
        );
    }

    #[test]
    fn a_program_without_a_budget_is_never_beyond_it() {
        let all = all(&Metadata::load().unwrap());
        let free = all.iter().find(|one| one.budget.is_none()).unwrap();
        assert_eq!(free.beyond_budget(u64::MAX), None);
    }
}
