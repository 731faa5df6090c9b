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

/// Programs beside the one of each library crate with its default features.
struct Choice {
    name: &'static str,
    library: &'static str,
    source: &'static str,
    features: &'static [&'static str],
    budget: Option<(u64, &'static str)>,
}

const CHOICES: &[Choice] = &[
    Choice {
        name: "ck-backend-redis-plain",
        library: "ck-backend-redis",
        source: "ck-backend-redis",
        features: &[],
        budget: None,
    },
    Choice {
        name: "ck-cache-process",
        library: "ck-cache",
        source: "ck-cache",
        features: &[],
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
    Choice {
        name: "ck-cache-all",
        library: "ck-cache",
        source: "ck-cache",
        features: &[
            "encryption",
            "file",
            "memcached",
            "metrics",
            "redis-cluster",
            "redis-sentinel",
            "redis-tls",
            "tokio",
        ],
        budget: None,
    },
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
