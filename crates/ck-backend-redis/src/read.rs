use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ck_core::{BoxFuture, EntryReader, Expiry, Result, Version};
use ck_frame::Manifest;

use crate::aligned::Aligned;
use crate::connection::{Connection, bytes, length};
use crate::engine::Task;
use crate::error::Fault;
use crate::found::Found;
use crate::identity::Identity;
use crate::pace::{Pace, timed};
use crate::publish::{Done, ask_identity, read_identity, remove};
use crate::store::Store;

/// How much of an entry is fetched when it is opened. Entries up to this size are whole then. Manifests
/// are not longer.
pub(crate) const PREFIX: usize = 64 << 10;

/// The most bytes that are asked for at a time. The server answers nobody else while it copies them.
const PIECE: u64 = 48 << 10;

/// The most ranges in one question.
const RANGES: usize = 256;

/// Transfers up to this size share the connection of the small operations.
const SMALL: u64 = 64 << 10;

/// An entry of which the server told how it begins.
pub(crate) struct Entry {
    place: Place,
    version: Version,
    len: u64,
    expiry: Expiry,
    /// The first bytes, aligned; all of them when the entry is small.
    prefix: Bytes,
}

/// Where the bytes of an entry are.
#[derive(Clone)]
struct Place {
    store: Arc<Store>,
    entry: Arc<str>,
    identity: Arc<Identity>,
    chunks: Option<Arc<Chunks>>,
}

struct Chunks {
    manifest: Manifest,
    /// On the server.
    names: Vec<Arc<str>>,
}

impl Entry {
    pub(crate) async fn open(store: Arc<Store>, entry: &str) -> Result<Option<Self>, Fault> {
        let Some(found) = Found::get(&store, entry, PREFIX).await? else {
            return Ok(None);
        };
        let identity = found.identity();
        let version = identity.version();
        let manifest = match Manifest::decode(&found.prefix) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::warn!(%error, entry, "not a manifest, although it begins as one");
                return Ok(None);
            }
        };
        let mut place = Place {
            store,
            entry: entry.into(),
            identity: Arc::new(identity),
            chunks: None,
        };
        let (len, prefix) = match manifest {
            None => (found.len, Aligned::copy(&found.prefix)),
            Some(manifest) => {
                let names = place.store.part_names(entry, &manifest);
                let chunks = Arc::new(Chunks {
                    names: names.into_iter().map(Into::into).collect(),
                    manifest,
                });
                let Some(prefix) = chunks.check(&place.store).await? else {
                    return Ok(None);
                };
                let len = chunks.manifest.total_len();
                place.chunks = Some(chunks);
                (len, prefix)
            }
        };
        Ok(Some(Self {
            place,
            version,
            len,
            expiry: found.expiry,
            prefix,
        }))
    }

    fn is_whole(&self) -> bool {
        self.prefix.len() as u64 == self.len
    }

    /// What of `range` is at hand, or `None` when it must be fetched.
    fn at_hand(&self, range: &Range<u64>) -> Result<Option<Bytes>, Fault> {
        if range.start > range.end || range.end > self.len {
            return Err(Fault::Range {
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
        else {
            return Ok(None);
        };
        Ok(if start == end {
            Some(Bytes::new())
        } else if end > self.prefix.len() {
            None
        } else if self.is_whole() {
            Some(self.prefix.slice(start..end))
        } else {
            Some(Aligned::copy(&self.prefix[start..end]))
        })
    }

    async fn read_all(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let mut parts = Vec::with_capacity(ranges.len());
        let mut wanted = Vec::new();
        for (index, range) in ranges.into_iter().enumerate() {
            let at_hand = self.at_hand(&range);
            let part = at_hand.map_err(|fault| self.place.error(fault))?;
            if part.is_none() {
                wanted.push((index, range));
            }
            parts.push(part.unwrap_or_default());
        }
        if wanted.is_empty() {
            return Ok(parts);
        }
        let total = wanted
            .iter()
            .map(|(_, range)| range.end - range.start)
            .sum();
        let indices: Vec<_> = wanted.iter().map(|(index, _)| *index).collect();
        let ranges: Arc<[_]> = wanted.into_iter().map(|(_, range)| range).collect();
        let place = self.place.clone();
        let in_one_piece = if ranges.len() == 1 { total } else { 0 };
        let fetched = ck_core::pass_on(in_one_piece, place.clone().fetch(ranges, total));
        let fetched = place.store.run(&place.entry, total, fetched).await?;
        for (index, part) in indices.into_iter().zip(fetched) {
            parts[index] = part;
        }
        Ok(parts)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.place.entry)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl EntryReader for Entry {
    fn len(&self) -> u64 {
        self.len
    }

    fn expiry(&self) -> Expiry {
        self.expiry
    }

    fn version(&self) -> Version {
        self.version
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.is_whole().then_some(&self.prefix)
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let parts = self.read_all(vec![range]).await?;
            Ok(parts.into_iter().next().unwrap_or_default())
        })
    }

    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        Box::pin(self.read_all(ranges))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        let place = self.place.clone();
        Box::pin(async move {
            let Place {
                store,
                entry,
                identity,
                ..
            } = place.clone();
            let discard = async move {
                let remove = store.small(true, |mut connection| {
                    let (entry, identity) = (&entry, &identity);
                    async move { remove(&mut connection, entry, Some(identity)).await }
                });
                let Done::Yes { old_start } = remove.await? else {
                    return Ok(false);
                };
                store.drop_parts(&entry, &old_start);
                Ok(true)
            };
            place.store.run(&place.entry, 0, discard).await
        })
    }
}

impl Place {
    fn error(&self, fault: Fault) -> ck_core::Error {
        self.store.error(&self.entry, fault)
    }

    /// The bytes of the ranges, `total` in all.
    async fn fetch(self, ranges: Arc<[Range<u64>]>, total: u64) -> Result<Vec<Bytes>, Fault> {
        let store = Arc::clone(&self.store);
        let work = |connection| self.clone().fetch_over(connection, Arc::clone(&ranges));
        if total <= SMALL {
            store.small(true, work).await
        } else {
            store.bulk(work).await
        }
    }

    async fn fetch_over(
        self,
        connection: Connection,
        ranges: Arc<[Range<u64>]>,
    ) -> Result<Vec<Bytes>, Fault> {
        let mut gathered = Vec::with_capacity(ranges.len());
        for range in &*ranges {
            let len = usize::try_from(range.end - range.start);
            gathered.push(Aligned::new(len.map_err(|_| Fault::Reply {
                wanted: "a range that fits into memory",
            })?));
        }
        let mut questions = self.questions(&ranges).into_iter();
        let (mut asked, mut pace) = (VecDeque::new(), Pace::new(PIECE, 2));
        loop {
            while asked.len() < pace.most()
                && let Some(question) = questions.next()
            {
                let (place, connection) = (self.clone(), connection.clone());
                let ask = async move { timed(question.ask(place, connection)).await };
                asked.push_back(Task::spawn(ask));
            }
            let Some(first) = asked.pop_front() else {
                break;
            };
            let (parts, took) = first.join().await??;
            pace.note(took);
            for (index, part) in parts {
                if !gathered[index].push(&part) {
                    return Err(Fault::Replaced);
                }
            }
        }
        let finished = gathered.into_iter().map(Aligned::finish);
        finished.collect::<Option<_>>().ok_or(Fault::Replaced)
    }

    /// What to ask the server, in the order in which the bytes are wanted.
    fn questions(&self, ranges: &[Range<u64>]) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            let mut start = range.start;
            while start < range.end {
                let (chunk, within) = match &self.chunks {
                    None => (None, 0..u64::MAX),
                    Some(chunks) => {
                        let chunk = chunks.manifest.chunks_of(start..start + 1).start;
                        (Some(chunk), chunks.manifest.chunk(chunk))
                    }
                };
                let mut room = PIECE;
                let joins = questions.last().is_some_and(|last| {
                    room = PIECE - last.bytes;
                    last.chunk == chunk && room > 0 && last.ranges.len() < RANGES
                });
                if !joins {
                    room = PIECE;
                    questions.push(Question {
                        chunk,
                        ranges: Vec::new(),
                        bytes: 0,
                    });
                }
                let end = range.end.min(within.end).min(start + room);
                if let Some(question) = questions.last_mut() {
                    let part = start - within.start..end - within.start;
                    question.ranges.push((index, part));
                    question.bytes += end - start;
                }
                start = end;
            }
        }
        questions
    }
}

/// Some ranges of one value, which are answered together.
struct Question {
    /// Of which chunk; `None` for an entry that has none.
    chunk: Option<usize>,
    /// Of which of the wanted ranges they are a part, and where they are in the value.
    ranges: Vec<(usize, Range<u64>)>,
    bytes: u64,
}

impl Question {
    async fn ask(
        self,
        place: Place,
        mut connection: Connection,
    ) -> Result<Vec<(usize, Vec<u8>)>, Fault> {
        let mut pipeline = redis::pipe();
        let name = match (self.chunk, &place.chunks) {
            (Some(chunk), Some(chunks)) => Arc::clone(&chunks.names[chunk]),
            // The name says nothing about which entry it is: the same moment must.
            _ => {
                pipeline.atomic();
                ask_identity(&mut pipeline, &place.entry);
                Arc::clone(&place.entry)
            }
        };
        for (_, range) in &self.ranges {
            let command = pipeline.cmd("GETRANGE").arg(&*name);
            command.arg(range.start).arg(range.end - 1);
        }
        let mut answers = match connection.query_all(&pipeline).await {
            Err(fault) if fault.is_foreign() => return Err(Fault::Replaced),
            answers => answers?.into_iter(),
        };
        if self.chunk.is_none() && read_identity(&mut answers)? != *place.identity {
            return Err(Fault::Replaced);
        }
        let mut parts = Vec::with_capacity(self.ranges.len());
        for ((index, range), answer) in self.ranges.into_iter().zip(answers) {
            let part = bytes(answer)?;
            if part.len() as u64 != range.end - range.start {
                return Err(match self.chunk {
                    Some(chunk) => Fault::ChunkLost { chunk },
                    None => Fault::Replaced,
                });
            }
            parts.push((index, part));
        }
        Ok(parts)
    }
}

impl Chunks {
    /// The first bytes of the entry, or `None` when a chunk is missing.
    async fn check(&self, store: &Store) -> Result<Option<Bytes>, Fault> {
        let mut commands = vec![redis::cmd("GETRANGE")];
        commands[0].arg(&*self.names[0]).arg(0).arg(PREFIX - 1);
        for name in &self.names {
            commands.push(redis::cmd("STRLEN").arg(&**name).take());
        }
        let ask = store.small(true, |mut connection| {
            let commands = commands.clone();
            async move { connection.query_each(commands).await }
        });
        let mut answers = match ask.await {
            Err(fault) if fault.is_foreign() => return Ok(None),
            answers => answers?.into_iter(),
        };
        let Some(prefix) = answers.next() else {
            return Ok(None);
        };
        for (chunk, answer) in answers.enumerate() {
            let wanted = self.manifest.chunk(chunk);
            if length(&answer)? != wanted.end - wanted.start {
                return Ok(None);
            }
        }
        let prefix = bytes(prefix)?;
        let first = self.manifest.chunk(0).end.min(PREFIX as u64);
        Ok((prefix.len() as u64 == first).then(|| Aligned::copy(&prefix)))
    }
}
