//! The matrix of stages: every operation on every store, with every codec, of every kind of table.

use ck_cache::Compression;

use crate::server::Kind;
use crate::tables::{self, Make};

/// One cell of the matrix, named `STORE-OP-CODEC-SOURCE`, and `-encrypted` where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) store: Store,
    pub(crate) op: Op,
    pub(crate) codec: Codec,
    pub(crate) source: Source,
    pub(crate) encrypted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A directory, its entries mapped.
    File,
    /// A directory, its entries read into memory.
    Pread,
    Redis,
    Memcached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A table in memory into the store.
    Put,
    /// Every batch, one after the other.
    Batches,
    /// The table at once.
    Whole,
    /// Some columns.
    Project,
    /// A thousand rows in the middle, or a MiB of wide ones.
    Rows,
    /// Every hash.
    Verify,
    /// Tables through the process's own tier, one after the other.
    Churn,
    /// One load for all who ask.
    Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Numeric,
    Nested,
    Dictionary,
    Strings,
    Skewed,
    Views,
}

const STORES: [Store; 4] = [Store::File, Store::Pread, Store::Redis, Store::Memcached];

const OPS: [Op; 8] = [
    Op::Put,
    Op::Batches,
    Op::Whole,
    Op::Project,
    Op::Rows,
    Op::Verify,
    Op::Churn,
    Op::Load,
];

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

const SOURCES: [Source; 6] = [
    Source::Numeric,
    Source::Nested,
    Source::Dictionary,
    Source::Strings,
    Source::Skewed,
    Source::Views,
];

/// The product of all axes, but for puts and loads with `pread`, which are those of the file store.
pub(crate) fn cells() -> impl Iterator<Item = Cell> {
    let stores_and_ops = STORES.into_iter().flat_map(|s| OPS.map(|op| (s, op)));
    let kinds = CODECS.into_iter().flat_map(|c| SOURCES.map(|s| (c, s)));
    let all = stores_and_ops.flat_map(move |(store, op)| {
        let cells = kinds.clone().map(move |(codec, source)| Cell {
            store,
            op,
            codec,
            source,
            encrypted: false,
        });
        cells.flat_map(|cell| {
            let encrypted = true;
            [cell, Cell { encrypted, ..cell }]
        })
    });
    all.filter(|cell| cell.store != Store::Pread || !matches!(cell.op, Op::Put | Op::Load))
}

impl Cell {
    pub(crate) fn name(self) -> String {
        let (store, op) = (self.store.name(), self.op.name());
        let kind = if self.encrypted { "-encrypted" } else { "" };
        format!(
            "{store}-{op}-{}-{}{kind}",
            self.codec.name(),
            self.source.name()
        )
    }

    /// The put that leaves what this cell reads; the cell itself where it reads what it has put.
    pub(crate) fn home(self) -> Self {
        if self.op.is_of_process() {
            return self;
        }
        let store = self.store_of_puts();
        let op = Op::Put;
        Self { store, op, ..self }
    }

    /// A diagonal: a third of all entries, so that each store meets each codec and each source.
    ///
    /// Of the reads of an entry it takes every other one, in turn; of what is encrypted, half of the sources; of what
    /// takes a table through the process again and again, one source.
    pub(crate) fn is_quick(self) -> bool {
        let (store, source) = (self.store_of_puts() as usize, self.source as usize);
        let entry = (store + source) % CODECS.len() == self.codec as usize;
        if self.op.is_of_process() {
            let turn =
                2 * (self.store as usize + usize::from(self.encrypted)) + self.op as usize + 1;
            return entry && source == turn % SOURCES.len();
        }
        let turn = (self.store as usize + self.op as usize + source / 2).is_multiple_of(2);
        let source = !self.encrypted || source.is_multiple_of(2) == (store % 2 == 0);
        entry && source && (self.op == Op::Put || turn)
    }

    fn store_of_puts(self) -> Store {
        match self.store {
            Store::Pread => Store::File,
            store => store,
        }
    }
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Pread => "pread",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }

    /// The server that it needs.
    pub(crate) fn server(self) -> Option<Kind> {
        match self {
            Self::File | Self::Pread => None,
            Self::Redis => Some(Kind::Redis),
            Self::Memcached => Some(Kind::Memcached),
        }
    }
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Batches => "batches",
            Self::Whole => "whole",
            Self::Project => "project",
            Self::Rows => "rows",
            Self::Verify => "verify",
            Self::Churn => "churn",
            Self::Load => "load",
        }
    }

    /// Whether it makes its tables itself and takes them through the process's own tier.
    fn is_of_process(self) -> bool {
        matches!(self, Self::Churn | Self::Load)
    }
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd(3),
        }
    }
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Nested => "nested",
            Self::Dictionary => "dictionary",
            Self::Strings => "strings",
            Self::Skewed => "skewed",
            Self::Views => "views",
        }
    }

    pub(crate) fn make(self) -> Make {
        match self {
            Self::Numeric => tables::numeric,
            Self::Nested => tables::nested,
            Self::Dictionary => tables::dictionary,
            Self::Strings => tables::strings,
            Self::Skewed => tables::skewed,
            Self::Views => tables::views,
        }
    }

    /// How many rows [`Op::Rows`] reads.
    pub(crate) fn rows(self) -> u64 {
        match self {
            Self::Skewed => 10,
            _ => 1000,
        }
    }

    /// The columns that [`Op::Project`] reads.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Numeric => &["c6", "c1", "c3"],
            Self::Nested => &["items"],
            Self::Dictionary => &["city", "price"],
            Self::Strings => &["comment"],
            Self::Skewed => &["id"],
            Self::Views => &["mode", "price"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_whole_product_and_every_read_has_its_put() {
        let all: Vec<_> = cells().collect();
        assert_eq!(all.len(), 2 * (4 * 8 * 3 * 6 - 2 * 3 * 6));
        assert!(all.iter().all(|cell| all.contains(&cell.home())));
        let mut names: Vec<_> = all.iter().map(|cell| cell.name()).collect();
        assert!(names.contains(&"redis-put-zstd-nested".to_owned()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn the_quick_selection_has_every_pair_of_a_store_with_another_axis() {
        let quick: Vec<_> = cells().filter(|cell| cell.is_quick()).collect();
        assert!(quick.len() < cells().count() / 4);
        for cell in cells() {
            let with = |same: fn(&Cell, &Cell) -> bool| {
                let of_store =
                    |one: &&Cell| (one.store, one.encrypted) == (cell.store, cell.encrypted);
                quick.iter().filter(of_store).any(|one| same(one, &cell))
            };
            assert!(with(|a, b| a.op == b.op), "{}", cell.name());
            assert!(with(|a, b| a.codec == b.codec), "{}", cell.name());
            let same_source = cell.encrypted || with(|a, b| a.source == b.source);
            assert!(same_source, "{}", cell.name());
        }
    }
}
