//! What the store holds. memcached has no list of its items: it goes through its hash table and names all of
//! them, entries, chunks and leases, of every client.

use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ck_core::{Cursor, EntryInfo, Page, Usage};
use ck_frame::Manifest;

use crate::bulk::Fetch;
use crate::command::{self, Meta};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::fleet::Fleet;
use crate::server::{Again, Use};
use crate::{names, time};

/// Entries on a page, unless their heads have more bytes than [`PAGE_BYTES`].
const PAGE_ENTRIES: usize = 4_096;
const PAGE_BYTES: usize = 8 << 20;
/// Names that are held while entries are counted.
const COUNTED: usize = 1 << 16;
/// Questions on the way at a time.
const WINDOW: usize = 256;
/// One walk at a time: how long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(10);

impl Fleet {
    /// The entries of one server, in the order of their names, from where `cursor` says.
    ///
    /// A page takes a walk through all items of the server, so that nothing has to be kept between two.
    pub(crate) fn list(&self, cursor: Option<&Cursor>, head_bytes: usize) -> Result<Page, Fault> {
        let (server, after) = match cursor {
            None => (0, String::new()),
            Some(cursor) => parse(cursor)
                .filter(|(server, _)| *server < self.servers.len())
                .ok_or(Fault::Cursor)?,
        };
        let most = (PAGE_BYTES / head_bytes.max(1)).clamp(16, PAGE_ENTRIES);
        let names = self.entries_after(server, &after, most)?;
        let next = if names.len() == most {
            names.last().map(|last| (server, last.clone()))
        } else {
            Some((server + 1, String::new()))
        };
        let mut page = Page {
            entries: Vec::with_capacity(names.len()),
            next: next
                .filter(|(server, _)| *server < self.servers.len())
                .map(|(server, name)| cursor_at(server, &name)),
        };
        for (name, meta) in self.known(server, names)? {
            page.entries.extend(self.info(name, &meta, head_bytes)?);
        }
        Ok(page)
    }

    /// The entries and their bytes, without the chunks that belong to none.
    pub(crate) fn usage(&self) -> Result<Usage, Fault> {
        let mut usage = Usage::new();
        for server in 0..self.servers.len() {
            let mut after = Some(String::new());
            while let Some(last) = after {
                let names = self.entries_after(server, &last, COUNTED)?;
                after = names.last().filter(|_| names.len() == COUNTED).cloned();
                for (name, meta) in self.known(server, names)? {
                    if let Some(info) = self.info(name, &meta, 0)? {
                        usage.entries += 1;
                        usage.bytes += info.bytes;
                    }
                }
            }
        }
        // Known since the walks.
        let limits = self.servers.iter().map(|server| server.memory());
        usage.limit_bytes = Some(limits.sum()).filter(|&bytes| bytes > 0);
        Ok(usage)
    }

    /// The names of entries on a server that come after this one: the first `most` in their order.
    fn entries_after(&self, server: usize, after: &str, most: usize) -> Result<Vec<String>, Fault> {
        let deadline = self.deadline();
        loop {
            let mut first = BinaryHeap::new();
            let walked = self.servers[server].run(Use::Bulk, Again::No, deadline, |wire| {
                first.clear();
                command::walk(wire, |name| {
                    let is_ours = names::key_of(&self.settings.prefix, &name).is_some()
                        // What lies elsewhere since servers came or went is found by nobody.
                        && self.index_of(&name) == server;
                    if is_ours && name.as_str() > after {
                        first.push(name);
                        if first.len() > most {
                            first.pop();
                        }
                    }
                })
            })?;
            if walked {
                let mut names = first.into_sorted_vec();
                names.dedup();
                return Ok(names);
            }
            if deadline.left().is_none_or(|left| left <= PAUSE) {
                let server = self.servers[server].name().clone();
                return Err(Fault::WalkBusy { server });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What the server says of those items that are live.
    fn known(&self, server: usize, names: Vec<String>) -> Result<Vec<(String, Meta)>, Fault> {
        let mut metas = Vec::with_capacity(names.len());
        let deadline = self.deadline().plus(names.len() as u64 * WINDOW as u64);
        for window in names.chunks(WINDOW) {
            let answers = self.servers[server].run(Use::Small, Again::Yes, deadline, |wire| {
                let commands: String = window
                    .iter()
                    .map(|name| command::head_command(name))
                    .collect();
                wire.write(commands.as_bytes())?;
                let answers = window.iter().map(|_| command::known(wire));
                answers.collect::<Result<Vec<_>, Fault>>()
            })?;
            metas.extend(answers);
        }
        let found = names.into_iter().zip(metas);
        let found = found.filter_map(|(name, meta)| Some((name, meta?)));
        Ok(found
            .filter(|(_, meta)| !time::expiry(meta).is_expired())
            .collect())
    }

    /// All about one entry; `None` when it is gone or torn.
    fn info(
        &self,
        name: String,
        meta: &Meta,
        head_bytes: usize,
    ) -> Result<Option<EntryInfo>, Fault> {
        let deadline = self.deadline();
        let (bytes, head) = if time::is_manifest(meta) {
            let Some(manifest) = self.peek_manifest(&name, deadline)? else {
                return Ok(None);
            };
            let head = match self.head_of_chunks(&manifest, head_bytes as u64, deadline) {
                Err(Fault::ChunkGone { .. } | Fault::ChunkLength { .. }) => return Ok(None),
                head => head?,
            };
            (manifest.total_len(), head)
        } else if head_bytes > 0 {
            let Some(item) = self.peek(&name, head_bytes as u64, deadline)? else {
                return Ok(None);
            };
            (item.meta.size, item.value)
        } else {
            (meta.size, Bytes::new())
        };
        let key = names::key_of(&self.settings.prefix, &name).flatten();
        let info = EntryInfo::new(name, bytes)
            .with_expiry(time::expiry(meta))
            .with_last_used(time::last_used(meta))
            .with_head(head);
        Ok(Some(match key {
            Some(key) => info.with_key(key),
            None => info,
        }))
    }

    /// The first bytes of an entry in chunks.
    fn head_of_chunks(
        &self,
        manifest: &Manifest,
        head_bytes: u64,
        deadline: Deadline,
    ) -> Result<Bytes, Fault> {
        let len = head_bytes.min(manifest.total_len());
        let mut head = BytesMut::zeroed(usize::try_from(len).unwrap_or(usize::MAX));
        let mut rest = &mut head[..];
        let mut fetches = Vec::new();
        for index in manifest.chunks_of(0..len) {
            let chunk = manifest.chunk(index);
            let chunk_len = usize::try_from(chunk.end - chunk.start).unwrap_or(usize::MAX);
            let (part, later) = rest.split_at_mut(rest.len().min(chunk_len));
            rest = later;
            fetches.push(Fetch {
                name: self.chunk_name(manifest.generation(), index),
                index,
                len: chunk_len,
                targets: vec![(0, part)],
            });
        }
        self.read_chunks(fetches, &|_, _| {}, deadline)?;
        Ok(head.freeze())
    }
}

/// The number of the server, then the name behind which the next page begins.
fn cursor_at(server: usize, name: &str) -> Cursor {
    let server = u32::try_from(server).unwrap_or(u32::MAX);
    Cursor([&server.to_be_bytes(), name.as_bytes()].concat().into())
}

fn parse(cursor: &Cursor) -> Option<(usize, String)> {
    let (server, name) = cursor.0.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok()?;
    let server = usize::try_from(u32::from_be_bytes(*server)).ok()?;
    Some((server, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        assert_eq!(parse(&cursor_at(3, "a:b")), Some((3, "a:b".to_owned())));
        assert_eq!(parse(&cursor_at(0, "")), Some((0, String::new())));
        for bytes in [&b""[..], b"\0\0\0", b"\0\0\0\0\xff"] {
            assert_eq!(parse(&Cursor(Bytes::copy_from_slice(bytes))), None);
        }
    }
}
