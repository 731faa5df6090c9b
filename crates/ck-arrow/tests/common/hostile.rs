//! What the guards against hostile bytes share: small tables, damage to their bytes, and the verdict on many
//! cases.

use std::sync::Arc;

use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::generate::Rng;

pub(crate) fn two_columns(data_type: &DataType) -> SchemaRef {
    let field = |name| Field::new(name, data_type.clone(), true);
    Arc::new(Schema::new(vec![field("a"), field("b")]))
}

/// Dictionaries may grow from batch to batch.
pub(crate) fn write_options(compression: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap()
        .with_dictionary_handling(DictionaryHandling::Delta)
}

/// What a reader may allocate for this many bytes.
pub(crate) fn most(len: usize, is_lz4: bool) -> usize {
    // A block of LZ4 has up to 8 MiB, and its reader keeps two of them.
    len * 64 + (4 << 20) + if is_lz4 { 17 << 20 } else { 0 }
}

/// Damages some bytes the way an attacker would: at random, at words, with telling numbers or with those of
/// other places. `place` picks where, below a length; the bytes before `from` stay.
pub(crate) fn damage(
    bytes: &mut Vec<u8>,
    from: usize,
    rng: &mut Rng,
    place: impl Fn(&mut Rng, usize) -> usize,
) {
    const WORDS: [u64; 14] = [
        0,
        1,
        2,
        7,
        63,
        255,
        1 << 20,
        i32::MAX as u64,
        u32::MAX as u64,
        1 << 40,
        (1 << 40) + 1,
        i64::MAX as u64,
        u64::MAX,
        1 << 63,
    ];
    for _ in 0..1 + rng.below(3) {
        let span = bytes.len() - from;
        if span < 16 {
            return;
        }
        let at = from + place(rng, span);
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => bytes[at] = bytes[at].wrapping_add([1, 255, 4, 252][rng.below(4)]),
            3 | 4 => {
                let at = at - at % 4;
                let word = WORDS[rng.below(WORDS.len())].to_le_bytes();
                let len = [4, 8][rng.below(2)].min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&word[..len]);
            }
            5 => {
                let (other, len) = (from + rng.below(span), 1 + rng.below(32));
                let len = len.min(bytes.len() - at).min(bytes.len() - other);
                bytes.copy_within(other..other + len, at);
            }
            _ if rng.one_in(8) => bytes.truncate(at),
            _ => bytes[at] = 0,
        }
    }
}

/// Half of the damage goes to the last bytes, where a file has its metadata.
pub(crate) fn mostly_at_the_end(rng: &mut Rng, span: usize) -> usize {
    if rng.one_in(2) {
        rng.below(span)
    } else {
        span - 1 - rng.below(span.min(700))
    }
}

/// What came of many cases.
#[derive(Default)]
pub(crate) struct Cases {
    pub(crate) all: usize,
    /// Those that gave a table.
    pub(crate) read: usize,
    /// Those that gave a table of both batches.
    pub(crate) whole: usize,
    failures: Vec<String>,
}

impl Cases {
    /// Notes a case: how many batches were read or why that is a failure, and what it took. An original
    /// has two batches.
    pub(crate) fn note(
        &mut self,
        what: &str,
        is_original: bool,
        result: Result<usize, String>,
        peak: usize,
        most: usize,
    ) {
        self.all += 1;
        match result {
            Err(failure) => self.failures.push(format!("{what}: {failure}")),
            Ok(batches) if is_original && batches != 2 => {
                self.failures
                    .push(format!("{what}: the original is not read"));
            }
            Ok(batches) => {
                self.read += usize::from(batches > 0);
                self.whole += usize::from(batches == 2);
            }
        }
        if peak > most {
            self.failures
                .push(format!("{what}: {peak} bytes, more than {most}"));
        }
    }

    /// Fails unless all went well; says the first failures.
    #[track_caller]
    pub(crate) fn assert_none_failed(&self) {
        let failures = &self.failures;
        assert!(
            failures.is_empty(),
            "{} failures:\n{}",
            failures.len(),
            failures[..failures.len().min(20)].join("\n")
        );
    }
}
