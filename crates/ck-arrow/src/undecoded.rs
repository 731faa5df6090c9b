use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::Fields;
use bytes::Bytes;
use ck_core::{Result, offload};

use crate::buffer_pool::{BufferPool, Room};
use crate::content::Content;
use crate::decode::{Dictionaries, Memory, Part};
use crate::hash::xxh3;
use crate::message::{Message, damaged};

/// Work on fewer bytes than this is not worth a hop to another thread.
const OFFLOAD_BYTES: u64 = 256 * 1024;

/// Columns of one block whose stored bytes are at hand.
#[derive(Debug)]
pub(crate) struct Undecoded {
    pub(crate) content: Arc<Content>,
    /// Of the block, dictionaries first.
    pub(crate) number: usize,
    pub(crate) rows: u64,
    pub(crate) message: Message,
    /// Of all columns of the block.
    pub(crate) fields: Fields,
    pub(crate) dictionaries: Dictionaries,
    pub(crate) checks: Vec<Check>,
    pub(crate) parts: Vec<Part>,
    /// Of each part, once they were taken.
    pub(crate) rooms: Vec<Vec<Option<Room>>>,
    /// Where memory comes from whose size had to be proved first.
    pub(crate) pool: Option<BufferPool>,
    pub(crate) wanted: Box<[usize]>,
    pub(crate) is_aligned: bool,
    /// How many bytes have to be hashed or decompressed.
    pub(crate) work: u64,
}

/// A unit of integrity and the hash that it was stored with.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) unit: usize,
    pub(crate) bytes: Bytes,
    pub(crate) hash: u64,
}

impl Undecoded {
    /// Takes the memory for all columns from the heap of this thread, if that was not done yet.
    pub(crate) fn reserve(&mut self, pool: Option<&BufferPool>) {
        if self.message.compression.is_none() || !self.rooms.is_empty() {
            return;
        }
        let rooms = |part: &Part| part.rooms(&self.message, pool);
        self.rooms = self.parts.iter().map(rooms).collect();
        self.pool = pool.cloned();
    }

    /// The columns, in the order in which they were wanted, verified and decoded here and now.
    pub(crate) fn decode(self) -> Result<Vec<ArrayRef>> {
        for check in &self.checks {
            if xxh3(&check.bytes) != check.hash {
                return Err(
                    damaged("a column does not have the hash it was stored with")
                        .with("unit", check.unit),
                );
            }
            self.content.is_verified(self.number, check.unit);
        }
        let mut found = Vec::new();
        let rooms = self
            .rooms
            .into_iter()
            .chain(std::iter::repeat_with(Vec::new));
        for (part, rooms) in self.parts.iter().zip(rooms) {
            let arrays = part.decode(
                &self.fields,
                &self.message,
                &self.dictionaries,
                self.is_aligned,
                Memory {
                    rooms,
                    pool: self.pool.as_ref(),
                },
            )?;
            found.extend(part.columns.iter().copied().zip(arrays));
        }
        found.sort_by_key(|(column, _)| *column);
        let array = |column: &usize| {
            let place = found
                .binary_search_by_key(column, |(column, _)| *column)
                .ok()?;
            Some(Arc::clone(&found[place].1))
        };
        let arrays = self.wanted.iter().map(array).collect::<Option<Vec<_>>>();
        arrays.ok_or_else(|| damaged("a batch lacks a column"))
    }

    /// As [`Undecoded::decode`], away from async threads when there is much to do.
    pub(crate) async fn arrays(mut self, pool: Option<&BufferPool>) -> Result<Vec<ArrayRef>> {
        if pool.is_some() || self.work >= OFFLOAD_BYTES {
            self.reserve(pool);
        }
        if self.work >= OFFLOAD_BYTES {
            offload(move || self.decode()).await
        } else {
            self.decode()
        }
    }
}
