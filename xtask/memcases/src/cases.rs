//! The stages that are measured: the cells of the matrix, and what stands beside them.

mod cell;
mod command;
mod limited;
mod peer;
mod process;
mod selftest;
mod special;
mod wide;

use std::path::PathBuf;

use ck_cache::Compression;
use ck_cache::blocking::Cache;
use serde_json::{Value, json};

use self::wide::Place;
use crate::matrix::{self, Cell};
use crate::probe::Figures;
use crate::server::Kind;
use crate::{Result, tables};

/// One stage, measured in a process of its own.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The case whose directory and server this one goes on with.
    after: Option<String>,
    /// The server that has to run.
    server: Option<Kind>,
    /// Which runs it is part of.
    part: Part,
    /// The size of its source, where that is always the same.
    bytes: Option<u64>,
    run: Box<Stage>,
}

type Stage = dyn Fn(&Setting) -> Result<Figures>;

/// Which runs a case is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Quick,
    Default,
    Full,
    /// Other systems, which have no ceilings.
    Peers,
}

/// What a case is given.
pub(crate) struct Setting {
    /// The size of its source.
    pub(crate) bytes: u64,
    /// Its directory, empty at first.
    pub(crate) dir: PathBuf,
    /// The URL of its server.
    pub(crate) server: Option<String>,
}

impl Setting {
    /// The store of this case.
    fn store(&self) -> Result<Cache> {
        Ok(Cache::open(&self.url())?)
    }

    /// Its server, or else its directory.
    fn url(&self) -> String {
        self.server.clone().unwrap_or_else(|| self.directory())
    }

    fn server(&self) -> Result<&str> {
        Ok(self.server.as_deref().ok_or("no server")?)
    }

    fn directory(&self) -> String {
        format!("file:{}/store", self.dir.display())
    }
}

/// The key of the table that puts store and reads read.
const TABLE: &str = "table";

const ZSTD: Compression = Compression::Zstd(3);

/// What a child that hoards is told to do.
const HOARD: &str = "hoard";

/// The work of a child of a case.
pub(crate) fn inside(work: &str, setting: &Setting) -> Result<Figures> {
    match work {
        HOARD => selftest::hoard(setting),
        _ => limited::inside(work, setting),
    }
}

impl Case {
    /// All of them; a case comes after the one that it goes on with.
    pub(crate) fn all() -> Vec<Self> {
        let cells = matrix::cells().map(Self::cell);
        cells.chain(special()).chain(peers()).collect()
    }

    pub(crate) fn run(&self, setting: &Setting) -> Result<Figures> {
        (self.run)(setting)
    }

    pub(crate) fn json(&self) -> Value {
        let part = match self.part {
            Part::Quick => "quick",
            Part::Default => "default",
            Part::Full => "full",
            Part::Peers => "peers",
        };
        json!({
            "case": self.name,
            "after": self.after,
            "server": self.server.map(Kind::name),
            "part": part,
            "bytes": self.bytes,
        })
    }

    fn cell(cell: Cell) -> Self {
        let home = cell.home();
        Self {
            after: (home != cell).then(|| home.name()),
            server: cell.store.server(),
            part: if cell.is_quick() {
                Part::Quick
            } else {
                Part::Full
            },
            ..Self::new(&cell.name(), move |setting| cell::run(cell, setting))
        }
    }

    fn new(name: &str, run: impl Fn(&Setting) -> Result<Figures> + 'static) -> Self {
        Self {
            name: name.to_owned(),
            after: None,
            server: None,
            part: Part::Quick,
            bytes: None,
            run: Box::new(run),
        }
    }

    fn after(self, home: &str) -> Self {
        let after = Some(home.to_owned());
        Self { after, ..self }
    }

    fn with(self, server: Kind) -> Self {
        let server = Some(server);
        Self { server, ..self }
    }

    fn of_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    fn of_bytes(self, bytes: u64) -> Self {
        let bytes = Some(bytes);
        Self { bytes, ..self }
    }
}

/// What has no place in the matrix.
fn special() -> Vec<Case> {
    let new = |name, run: fn(&Setting) -> Result<Figures>| Case::new(name, run);
    let mut cases = vec![
        new("put-reader", special::put_reader),
        new("open-mapped", special::open).after("file-put-none-numeric"),
        new("sum-column-mapped", special::sum_column).after("file-put-none-numeric"),
        new("ck-arrow", |s| command::round_trip(s, "arrow")).after("file-put-none-numeric"),
        new("ck-parquet", |s| command::round_trip(s, "parquet"))
            .after("file-put-none-strings")
            .of_part(Part::Default),
        new("ck-large-batches-numeric", |s| {
            command::put_large_batches(s, tables::numeric)
        }),
        new("ck-large-batches-strings", |s| {
            command::put_large_batches(s, tables::strings)
        }),
        new("ck-large-batches-views", |s| {
            command::put_large_batches(s, tables::views)
        }),
        new("redis-project-wide", |s| {
            wide::project(Place::Server(Kind::Redis), s)
        }),
        new("memcached-project-wide", |s| {
            wide::project(Place::Server(Kind::Memcached), s)
        }),
        new("pread-project-wide", |s| wide::project(Place::File, s)),
        new("redis-project-wide-encrypted", |s| {
            wide::project_encrypted(Place::Server(Kind::Redis), s)
        }),
        new("memcached-project-wide-encrypted", |s| {
            wide::project_encrypted(Place::Server(Kind::Memcached), s)
        }),
        new("pread-project-wide-encrypted", |s| {
            wide::project_encrypted(Place::File, s)
        }),
        new("l1-slices", process::slices),
        new("l1-empty", process::empty)
            .of_bytes(256 << 20)
            .of_part(Part::Default),
        new("l1-empty-million", process::empty)
            .of_bytes(1 << 30)
            .of_part(Part::Default),
        new("l1-churn", process::churn),
        new("l1-churn-file", process::churn_of_store),
        new("l1-churn-redis", process::churn_of_store)
            .with(Kind::Redis)
            .of_part(Part::Default),
        new("l1-churn-memcached", process::churn_of_store)
            .with(Kind::Memcached)
            .of_part(Part::Default),
        new("l1-churn-redis-none", process::churn_of_store_uncompressed)
            .with(Kind::Redis)
            .of_part(Part::Default),
        new(
            "l1-churn-memcached-none",
            process::churn_of_store_uncompressed,
        )
        .with(Kind::Memcached)
        .of_part(Part::Default),
        new("load-file", process::load),
        new("load-redis", process::load).with(Kind::Redis),
        new("load-memcached", process::load).with(Kind::Memcached),
        new("mixed-300mb", limited::cached).of_bytes(limited::FRAME),
        new("mixed-300mb-redis", limited::cached)
            .with(Kind::Redis)
            .of_bytes(limited::FRAME)
            .of_part(Part::Default),
        new("mixed-300mb-memcached", limited::cached)
            .with(Kind::Memcached)
            .of_bytes(limited::FRAME)
            .of_part(Part::Default),
        new("selftest-nothing", selftest::nothing),
        new("selftest-buffering", selftest::buffering),
        new("selftest-max", selftest::large_buffer),
        new("selftest-slope", selftest::leaking),
        new("selftest-ratio", selftest::busy),
        new("selftest-min", selftest::idle),
        new("selftest-resident", special::sum_all).after("file-put-none-numeric"),
        new("selftest-resident-min", special::sum_half).after("file-put-none-numeric"),
        new("selftest-open", special::open_slowly)
            .after("file-put-none-numeric")
            .of_part(Part::Full),
        new("selftest-command", command::hoard),
        new("selftest-left", selftest::left),
        new("selftest-beyond", selftest::copy),
        new("selftest-transfer", wide::fetch_all),
        new("selftest-limit", limited::buffered).of_bytes(limited::FRAME),
    ];
    cases.extend(transfers());
    cases.extend(gets());
    cases
}

/// What tasks leave behind that get tables of each store; quick runs take one of them.
fn gets() -> impl Iterator<Item = Case> {
    const QUICK: &str = "gets-file-zstd";
    let stores = [None, Some(Kind::Redis), Some(Kind::Memcached)];
    let codecs = [("none", Compression::None), ("zstd", ZSTD)];
    let all = stores
        .into_iter()
        .flat_map(move |store| codecs.map(|codec| (store, codec)));
    all.map(|(store, (codec, compression))| {
        let name = format!("gets-{}-{codec}", store.map_or("file", Kind::name));
        let part = if name == QUICK {
            Part::Quick
        } else {
            Part::Default
        };
        let case = Case::new(&name, move |setting| {
            process::gets_of_tasks(setting, compression)
        });
        let case = case.of_part(part);
        match store {
            Some(kind) => case.with(kind),
            None => case,
        }
    })
}

/// What batches and ranges of rows move over the wire; quick runs take one of each.
fn transfers() -> impl Iterator<Item = Case> {
    type Read = fn(Kind, Compression, &Setting) -> Result<Figures>;
    const READS: [(&str, Read); 2] = [("batches", wide::batches), ("rows", wide::rows)];
    const CODECS: [(&str, Compression); 2] = [("none", Compression::None), ("zstd", ZSTD)];
    const QUICK: [&str; 2] = [
        "redis-transfer-batches-zstd",
        "memcached-transfer-rows-none",
    ];
    let kinds = [Kind::Redis, Kind::Memcached].into_iter();
    let reads = kinds.flat_map(|kind| READS.map(|read| (kind, read)));
    let all = reads.flat_map(|read| CODECS.map(|codec| (read, codec)));
    all.map(|((kind, (read, run)), (codec, compression))| {
        let name = format!("{}-transfer-{read}-{codec}", kind.name());
        let part = match QUICK.contains(&name.as_str()) {
            true => Part::Quick,
            false => Part::Default,
        };
        let case = Case::new(&name, move |setting| run(kind, compression, setting));
        case.of_part(part).of_bytes(256 << 20)
    })
}

fn peers() -> impl Iterator<Item = Case> {
    const HOME: &str = "peer-put-arrow-ipc-none";
    let others = peer::WORKS.iter().map(|&(work, codec)| {
        let name = format!("peer-{work}-{codec}");
        Case::new(&name, move |s| peer::python(s, work, codec)).after(HOME)
    });
    let all = std::iter::once(Case::new(HOME, peer::arrow_ipc)).chain(others);
    all.map(|case| case.of_part(Part::Peers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_case_comes_after_its_home() {
        let all = Case::all();
        for (i, case) in all.iter().enumerate() {
            assert!(
                all[..i].iter().all(|other| other.name != case.name),
                "{}",
                case.name
            );
            let home = case.after.as_ref().map(|home| {
                let home = all[..i].iter().find(|other| other.name == *home);
                home.map(|home| (home.server, home.after.is_none()))
            });
            assert!(
                home.is_none_or(|home| home == Some((case.server, true))),
                "{}",
                case.name
            );
        }
    }
}
