use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ck_core::{BoxFuture, EntryReader, Error, Expiry, Key, ReadMemory, Result, Version, offload};

use crate::bulk::Fetch;
use crate::error::Fault;
use crate::fleet::{Content, Fleet, Found};

/// An open entry.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Opened>);

struct Opened {
    fleet: Arc<Fleet>,
    key: Key,
    name: String,
    version: Version,
    expiry: Expiry,
    content: Content,
    /// The chunk that was last needed only in part: what is read next often lies in the same one.
    last: Mutex<Option<(usize, Bytes)>>,
}

impl Reader {
    pub(crate) fn new(fleet: Arc<Fleet>, key: Key, name: String, found: Found) -> Self {
        Self(Arc::new(Opened {
            fleet,
            key,
            name,
            version: found.version(),
            expiry: found.expiry,
            content: found.content,
            last: Mutex::default(),
        }))
    }
}

impl EntryReader for Reader {
    fn len(&self) -> u64 {
        match &self.0.content {
            Content::Whole(value) => value.len() as u64,
            Content::Chunks(manifest) => manifest.total_len(),
        }
    }

    fn expiry(&self) -> Expiry {
        self.0.expiry
    }

    fn version(&self) -> Version {
        self.0.version
    }

    fn contiguous(&self) -> Option<&Bytes> {
        match &self.0.content {
            Content::Whole(value) => Some(value),
            Content::Chunks(_) => None,
        }
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let mut parts = self.read_ranges(vec![range]).await?;
            Ok(parts.pop().unwrap_or_default())
        })
    }

    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        let opened = Arc::clone(&self.0);
        Box::pin(async move {
            match &opened.content {
                Content::Whole(value) => {
                    let slice = |range| slice(value, range).map_err(|fault| opened.error(fault));
                    ranges.into_iter().map(slice).collect()
                }
                Content::Chunks(_) => {
                    offload(move || {
                        let read = opened.read_chunks(&ranges);
                        read.map_err(|fault| opened.error(fault))
                    })
                    .await
                }
            }
        })
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        let opened = Arc::clone(&self.0);
        Box::pin(offload(move || {
            let discarded =
                opened
                    .fleet
                    .discard(&opened.name, opened.version, opened.fleet.deadline());
            discarded.map_err(|fault| opened.error(fault))
        }))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("item", &self.0.name)
            .field("len", &self.len())
            .field("expiry", &self.0.expiry)
            .finish_non_exhaustive()
    }
}

impl Opened {
    fn read_chunks(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Fault> {
        let Content::Chunks(manifest) = &self.content else {
            return Ok(Vec::new());
        };
        let mut memories = Vec::with_capacity(ranges.len());
        for range in ranges {
            let len = checked(range, manifest.total_len())?;
            memories.push(ReadMemory::zeroed(len));
        }
        // Each chunk is fetched once, whatever the ranges have of it.
        let mut wanted: BTreeMap<usize, Vec<(usize, &mut [u8])>> = BTreeMap::new();
        for (range, memory) in ranges.iter().zip(&mut memories) {
            let mut rest = memory.as_mut_slice();
            for index in manifest.chunks_of(range.clone()) {
                let chunk = manifest.chunk(index);
                let start = range.start.max(chunk.start);
                let end = range.end.min(chunk.end);
                let (part, later) = rest.split_at_mut(to_usize(end - start));
                rest = later;
                let target = (to_usize(start - chunk.start), part);
                wanted.entry(index).or_default().push(target);
            }
        }
        if let Some((index, chunk)) = self.last()
            && let Some(targets) = wanted.remove(&index)
        {
            for (at, target) in targets {
                target.copy_from_slice(&chunk[at..at + target.len()]);
            }
        }
        let fetches = wanted.into_iter().map(|(index, targets)| {
            let chunk = manifest.chunk(index);
            Fetch {
                name: self.fleet.chunk_name(manifest.generation(), index),
                index,
                len: to_usize(chunk.end - chunk.start),
                targets,
            }
        });
        let keep = |index, chunk| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((index, chunk));
        };
        let deadline = self.fleet.deadline();
        self.fleet.read_chunks(fetches.collect(), &keep, deadline)?;
        Ok(memories.into_iter().map(ReadMemory::freeze).collect())
    }

    fn last(&self) -> Option<(usize, Bytes)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    fn error(&self, fault: Fault) -> Error {
        Error::from(fault)
            .with("key", &self.key)
            .with("store", self.fleet.url())
    }
}

fn slice(value: &Bytes, range: Range<u64>) -> Result<Bytes, Fault> {
    let len = checked(&range, value.len() as u64)?;
    let start = to_usize(range.start);
    Ok(value.slice(start..start + len))
}

/// The length of a range that lies in the entry and in memory.
fn checked(range: &Range<u64>, len: u64) -> Result<usize, Fault> {
    let wanted = range.end.checked_sub(range.start);
    match wanted.and_then(|wanted| usize::try_from(wanted).ok()) {
        Some(wanted) if range.end <= len => Ok(wanted),
        _ => Err(Fault::Range {
            start: range.start,
            end: range.end,
            len,
        }),
    }
}

/// A length that is known to be one of memory.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
