//! Many chunks at once: over several connections, and on each without waiting for every answer.

use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ck_core::Expiry;
use ck_frame::Manifest;

use crate::cutter::{self, Chunk};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::fleet::Fleet;
use crate::server::{Again, Use};
use crate::wire::Wire;
use crate::{command, time};

/// Bytes on the way on one connection.
const WINDOW_BYTES: usize = 1 << 20;
/// Commands on the way on one connection.
const WINDOW_COMMANDS: usize = 256;
/// It takes this many bytes to be worth another connection.
const LANE_BYTES: u64 = 4 << 20;
/// A command without a value counts as so many bytes.
const COMMAND_BYTES: u64 = 64;

/// How long a chunk lives that belongs to no entry yet, in seconds. A writer renews it.
pub(crate) const DRAFT_SECONDS: i64 = 300;
/// How long readers of a replaced entry can still read it, in seconds.
const GRACE_SECONDS: i64 = 30;
/// How much longer than its manifest a chunk lives, in seconds: longer than reading takes.
const CHUNK_EXTRA: u64 = 60;

/// When chunks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Now,
    /// After a time in which readers can finish.
    Soon,
}

/// What a chunk is read into.
pub(crate) struct Fetch<'a> {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) len: usize,
    /// Where in the chunk, and to where. Places in a chunk may overlap.
    pub(crate) targets: Vec<(usize, &'a mut [u8])>,
}

impl Fleet {
    /// Stores chunks that belong to no entry yet.
    pub(crate) fn write_chunks(
        &self,
        chunks: Vec<(String, Chunk)>,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let jobs = chunks.into_iter().map(|(name, chunk)| {
            let len = cutter::len(&chunk) as u64 + COMMAND_BYTES;
            (self.index_of(&name), len, (name, chunk))
        });
        self.spread(jobs.collect(), deadline, |wire, jobs| write(wire, &jobs))
    }

    /// Reads chunks. Those that are needed only in part are given to `keep` whole.
    pub(crate) fn read_chunks(
        &self,
        chunks: Vec<Fetch<'_>>,
        keep: &(dyn Fn(usize, Bytes) + Sync),
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let jobs = chunks.into_iter().map(|fetch| {
            let len = fetch.len as u64 + COMMAND_BYTES;
            (self.index_of(&fetch.name), len, fetch)
        });
        self.spread(jobs.collect(), deadline, |wire, jobs| {
            read(wire, jobs, keep)
        })
    }

    /// Lets the chunks live a little longer than an entry with this expiry; how many of them are gone.
    pub(crate) fn keep_chunks(
        &self,
        manifest: &Manifest,
        expiry: Expiry,
        deadline: Deadline,
    ) -> Result<usize, Fault> {
        let names =
            (0..manifest.chunk_count()).map(|index| self.chunk_name(manifest.generation(), index));
        self.touch_chunks(names, time::ttl(expiry, CHUNK_EXTRA), deadline)
    }

    /// Gives chunks a time to live; how many of them are gone.
    pub(crate) fn touch_chunks(
        &self,
        names: impl Iterator<Item = String>,
        ttl: i64,
        deadline: Deadline,
    ) -> Result<usize, Fault> {
        let missing = AtomicUsize::new(0);
        self.command_chunks(
            names,
            deadline,
            |name| command::touch_command(name, ttl),
            |wire| {
                if !command::touched(wire)? {
                    missing.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            },
        )?;
        Ok(missing.into_inner())
    }

    /// Lets go of the chunks of an entry that is no longer there. What cannot be reached expires, or makes
    /// room for others as what nobody reads does.
    pub(crate) fn end_chunks(&self, manifest: &Manifest, ending: Ending, deadline: Deadline) {
        let names =
            (0..manifest.chunk_count()).map(|index| self.chunk_name(manifest.generation(), index));
        self.end_chunks_named(names, ending, deadline);
    }

    pub(crate) fn end_chunks_named(
        &self,
        names: impl Iterator<Item = String>,
        ending: Ending,
        deadline: Deadline,
    ) {
        let ended = match ending {
            Ending::Soon => self
                .touch_chunks(names, GRACE_SECONDS, deadline)
                .map(|_| ()),
            Ending::Now => self.command_chunks(names, deadline, command::delete_command, |wire| {
                command::done(wire).map(|_| ())
            }),
        };
        if let Err(fault) = ended {
            tracing::debug!(%fault, "chunks are left to expire");
        }
    }

    fn command_chunks(
        &self,
        names: impl Iterator<Item = String>,
        deadline: Deadline,
        text: impl Fn(&str) -> String + Sync,
        answer: impl Fn(&mut Wire) -> Result<(), Fault> + Sync,
    ) -> Result<(), Fault> {
        let jobs = names.map(|name| (self.index_of(&name), COMMAND_BYTES, name));
        self.spread(jobs.collect(), deadline, |wire, names| {
            let mut unanswered = 0;
            for window in names.chunks(WINDOW_COMMANDS) {
                let commands: String = window.iter().map(|name| text(name)).collect();
                wire.write(commands.as_bytes())?;
                // While the server works on this window the answers to the one before are read.
                for _ in 0..unanswered {
                    answer(wire)?;
                }
                unanswered = window.len();
            }
            for _ in 0..unanswered {
                answer(wire)?;
            }
            Ok(())
        })
    }

    /// Shares jobs, each with its server and bytes, among connections, and works on all of them at once.
    fn spread<J: Send>(
        &self,
        jobs: Vec<(usize, u64, J)>,
        deadline: Deadline,
        work: impl Fn(&mut Wire, Vec<J>) -> Result<(), Fault> + Sync,
    ) -> Result<(), Fault> {
        let mut of_server: Vec<(u64, Vec<(u64, J)>)> =
            self.servers.iter().map(|_| (0, Vec::new())).collect();
        let mut total = 0;
        for (server, bytes, job) in jobs {
            let (sum, jobs) = &mut of_server[server];
            *sum += bytes;
            total += bytes;
            jobs.push((bytes, job));
        }
        // All of them share the machine's network, so each has the time that all bytes take.
        let deadline = deadline.plus(total);
        let mut lanes: Vec<(usize, Vec<J>)> = Vec::new();
        for (server, (sum, jobs)) in of_server.into_iter().enumerate() {
            let spare = self.servers[server].spare(Use::Bulk);
            let most = spare.min(self.lanes).max(1) as u64;
            let count = (sum / LANE_BYTES).clamp(1, most);
            let share = sum.div_ceil(count).max(1);
            let mut lane = Vec::new();
            let mut filled = 0;
            for (bytes, job) in jobs {
                lane.push(job);
                filled += bytes;
                if filled >= share {
                    lanes.push((server, std::mem::take(&mut lane)));
                    filled = 0;
                }
            }
            if !lane.is_empty() {
                lanes.push((server, lane));
            }
        }
        let run = |server: usize, jobs: Vec<J>| self.lane(server, deadline, jobs, &work);
        let Some((server, jobs)) = lanes.pop() else {
            return Ok(());
        };
        let failed = Mutex::new(None);
        let fail = |fault: Fault| {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            // The first one: those that follow from it say less.
            failed.get_or_insert(fault);
        };
        std::thread::scope(|scope| {
            for (server, jobs) in lanes {
                // The system gives no thread: one after the other, then.
                let job = Mutex::new(Some(jobs));
                let job = std::sync::Arc::new(job);
                let theirs = std::sync::Arc::clone(&job);
                let (run, fail) = (&run, &fail);
                let take = move |job: &Mutex<Option<Vec<J>>>| {
                    let jobs = job.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(Err(fault)) = jobs.map(|jobs| run(server, jobs)) {
                        fail(fault);
                    }
                };
                let thread = std::thread::Builder::new().name("ck-memcached".to_owned());
                if thread.spawn_scoped(scope, move || take(&theirs)).is_err() {
                    take(&job);
                }
            }
            if let Err(fault) = run(server, jobs) {
                fail(fault);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn lane<J>(
        &self,
        server: usize,
        deadline: Deadline,
        jobs: Vec<J>,
        work: &impl Fn(&mut Wire, Vec<J>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut jobs = Some(jobs);
        self.servers[server].run(Use::Bulk, Again::No, deadline, |wire| {
            jobs.take().map_or(Ok(()), |jobs| work(wire, jobs))
        })
    }
}

/// Sends values, a window at a time.
fn write(wire: &mut Wire, jobs: &[(String, Chunk)]) -> Result<(), Fault> {
    let stored = |wire: &mut Wire, count: usize| {
        for _ in 0..count {
            command::done(wire)?;
        }
        Ok(())
    };
    let mut unanswered = 0;
    let mut rest = jobs;
    while !rest.is_empty() {
        let (mut bytes, mut count) = (0, 0);
        while count < rest.len() && count < WINDOW_COMMANDS && bytes < WINDOW_BYTES {
            bytes += cutter::len(&rest[count].1);
            count += 1;
        }
        let (window, later) = rest.split_at(count);
        let commands: Vec<String> = window
            .iter()
            .map(|(name, chunk)| command::set_command(name, cutter::len(chunk), DRAFT_SECONDS))
            .collect();
        let mut slices = Vec::new();
        for ((_, chunk), command) in window.iter().zip(&commands) {
            slices.push(IoSlice::new(command.as_bytes()));
            slices.extend(chunk.iter().map(|piece| IoSlice::new(piece)));
            slices.push(IoSlice::new(b"\r\n"));
        }
        wire.write_all(&mut slices)?;
        stored(wire, unanswered)?;
        unanswered = count;
        rest = later;
    }
    stored(wire, unanswered)
}

/// Asks for values ahead of reading them.
fn read(
    wire: &mut Wire,
    jobs: Vec<Fetch<'_>>,
    keep: &(dyn Fn(usize, Bytes) + Sync),
) -> Result<(), Fault> {
    let lens: Vec<usize> = jobs.iter().map(|fetch| fetch.len).collect();
    let commands: Vec<String> = jobs
        .iter()
        .enumerate()
        .map(|(number, fetch)| command::value_command(&fetch.name, number as u64))
        .collect();
    let (mut asked, mut ahead) = (0, 0);
    for (number, fetch) in jobs.into_iter().enumerate() {
        // Half of the window is read before more is asked for, in one go.
        if asked == number || (ahead < WINDOW_BYTES && asked - number < WINDOW_COMMANDS / 2) {
            let first = asked;
            while asked < commands.len()
                && asked - number < WINDOW_COMMANDS
                && (ahead < 2 * WINDOW_BYTES || asked == number)
            {
                ahead += lens[asked];
                asked += 1;
            }
            wire.write(commands[first..asked].concat().as_bytes())?;
        }
        let Some(found) = command::value(wire, number as u64)? else {
            return Err(Fault::ChunkGone { chunk: fetch.name });
        };
        if found != fetch.len {
            return Err(Fault::ChunkLength {
                chunk: fetch.name,
                found: found as u64,
                expected: fetch.len as u64,
            });
        }
        ahead -= found;
        receive(wire, fetch, keep)?;
        wire.end_of_value()?;
    }
    Ok(())
}

fn receive(
    wire: &mut Wire,
    mut fetch: Fetch<'_>,
    keep: &(dyn Fn(usize, Bytes) + Sync),
) -> Result<(), Fault> {
    if let [(0, target)] = fetch.targets.as_mut_slice()
        && target.len() == fetch.len
    {
        return wire.fill(target);
    }
    let mut whole = vec![0; fetch.len];
    wire.fill(&mut whole)?;
    for (at, target) in fetch.targets {
        target.copy_from_slice(&whole[at..at + target.len()]);
    }
    keep(fetch.index, whole.into());
    Ok(())
}
