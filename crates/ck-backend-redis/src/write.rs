use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ck_core::{BoxFuture, EntryWriter, Outcome, Rejection, Result, WriteOptions};
use ck_frame::Manifest;

use crate::catalogue::limit_bytes;
use crate::connection::{Connection, int, length};
use crate::engine::Task;
use crate::error::Fault;
use crate::name;
use crate::pool::Borrowed;
use crate::publish::{Content, Done, publish, publish_at_once, unix_millis};
use crate::read::PREFIX;
use crate::store::Store;
use crate::upload::{Lines, Upload};

/// How much is gathered before it is sent.
const PIECE: usize = 256 << 10;

/// The most bytes that are gathered to see how long an entry is, and the first parts of one that is longer.
const GATHER: usize = 4 << 20;

/// Transfers up to this size share the connection of the small operations.
const SMALL: usize = 64 << 10;

/// An entry being written. The work is done on the store's threads, and what is half done goes with it
/// when the caller goes away.
pub(crate) struct Writer {
    store: Arc<Store>,
    entry: Arc<str>,
    /// `None` after a failure.
    draft: Option<Draft>,
}

impl Writer {
    pub(crate) fn create(
        store: &Arc<Store>,
        entry: String,
        options: WriteOptions,
    ) -> Result<ControlFlow<Rejection, Self>, Fault> {
        let draft = match Draft::begin(store, entry, options)? {
            ControlFlow::Continue(draft) => draft,
            ControlFlow::Break(rejection) => return Ok(ControlFlow::Break(rejection)),
        };
        Ok(ControlFlow::Continue(Self {
            store: Arc::clone(store),
            entry: Arc::clone(&draft.entry),
            draft: Some(draft),
        }))
    }
}

/// Writes an entry of which all is at hand.
pub(crate) async fn put(
    store: &Arc<Store>,
    entry: String,
    head: Bytes,
    body: Vec<Bytes>,
    options: WriteOptions,
) -> Result<Outcome> {
    let bytes = head.len() as u64 + sum(&body);
    // The length is known, whatever the caller says.
    let options = options.with_size_hint(Some(bytes));
    let begun = Draft::begin(store, entry.clone(), options);
    let mut draft = match begun.map_err(|fault| store.error(&entry, fault))? {
        ControlFlow::Continue(draft) => draft,
        ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
    };
    // At once on the store's threads: the way there and back takes as long as the server does.
    let work = async move {
        match draft.write(body).await? {
            ControlFlow::Continue(()) => draft.commit(head).await,
            ControlFlow::Break(rejection) => Ok(Outcome::Rejected(rejection)),
        }
    };
    store.run(&entry, bytes, work).await
}

impl EntryWriter for Writer {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        let draft = self.draft.take();
        let bytes = draft.as_ref().map_or(0, Draft::unsent) + sum(&parts);
        let work = async move {
            let mut draft = draft.ok_or(Fault::WriterBroken)?;
            let flow = draft.write(parts).await?;
            Ok((draft, flow))
        };
        Box::pin(async move {
            let (draft, flow) = self.store.run(&self.entry, bytes, work).await?;
            // After a rejection there is nothing more to do than to clean up.
            self.draft = flow.is_continue().then_some(draft);
            Ok(flow)
        })
    }

    fn commit(mut self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        let draft = self.draft.take();
        let bytes = draft.as_ref().map_or(0, Draft::left);
        let work = async move { draft.ok_or(Fault::WriterBroken)?.commit(head).await };
        Box::pin(async move { self.store.run(&self.entry, bytes, work).await })
    }
}

struct Draft {
    store: Arc<Store>,
    entry: Arc<str>,
    options: WriteOptions,
    generation: u128,
    /// Taken, and not yet sent.
    pending: VecDeque<Bytes>,
    pending_len: usize,
    /// Bytes of the entry so far, head included.
    total: u64,
    parts: Vec<Part>,
    connection: Option<Borrowed>,
    /// The last part, as long as bytes of it are missing.
    upload: Option<Upload>,
    /// Left by the parts before that.
    lines: Lines,
    /// How many parts there are.
    begun: Arc<AtomicUsize>,
    /// Keeps what is written alive while the caller makes the next bytes.
    renewal: Option<Task<()>>,
    /// Whether there may be something on the server that nobody needs.
    debris: bool,
}

/// A temporary key.
struct Part {
    name: Arc<str>,
    /// Of what was sent, or of the head.
    len: u64,
}

impl Draft {
    fn begin(
        store: &Arc<Store>,
        entry: String,
        options: WriteOptions,
    ) -> Result<ControlFlow<Rejection, Self>, Fault> {
        let draft = Self {
            store: Arc::clone(store),
            entry: entry.into(),
            options,
            generation: name::random()?,
            pending: VecDeque::new(),
            pending_len: 0,
            total: options.head_len as u64,
            parts: Vec::new(),
            connection: None,
            upload: None,
            lines: Lines::default(),
            begun: Arc::default(),
            renewal: None,
            debris: false,
        };
        Ok(match draft.refusal(options.size_hint.unwrap_or(0)) {
            Some(rejection) => ControlFlow::Break(rejection),
            None => ControlFlow::Continue(draft),
        })
    }

    fn unsent(&self) -> u64 {
        self.pending_len as u64
    }

    /// How many bytes a commit has to move.
    fn left(&self) -> u64 {
        let upload = self.upload.as_ref().map_or(0, Upload::left);
        let again = if self.is_scattered() {
            2 * self.total
        } else {
            0
        };
        self.unsent() + upload + again
    }

    /// Whether the entry, all of which is here, is to be one value and was begun as something else.
    fn is_scattered(&self) -> bool {
        let missing = self.upload.as_ref().map_or(0, Upload::left);
        let begun_as_one = match self.parts.len() {
            0 => true,
            1 => missing == self.unsent(),
            _ => false,
        };
        !begun_as_one && self.total <= self.store.settings.single_value_bytes
    }

    /// How long the entry will be, as far as known; `last` when all of it is here.
    fn expected(&self, last: bool) -> Option<u64> {
        let hint = self.options.size_hint.filter(|&hint| hint >= self.total);
        if last { Some(self.total) } else { hint }
    }

    /// Why an entry of so many bytes is not taken.
    fn refusal(&self, bytes: u64) -> Option<Rejection> {
        let limit = self.store.settings.value_limit_bytes;
        (bytes > limit).then_some(Rejection::ValueTooLarge { bytes, limit })
    }

    /// How much is gathered before it is sent: all of an entry that has less is published at once.
    fn piece(&self) -> usize {
        let single = usize::try_from(self.store.settings.single_value_bytes);
        single.unwrap_or(PIECE).min(PIECE)
    }

    /// How much must be gathered before some of it is sent.
    fn threshold(&self) -> usize {
        if !self.parts.is_empty() || self.expected(false).is_some() {
            return self.piece();
        }
        // Perhaps there is no more, and the entry is one value.
        let settings = &self.store.settings;
        let most = settings.single_value_bytes.max(settings.chunk_bytes);
        usize::try_from(most).unwrap_or(GATHER).min(GATHER)
    }

    /// How long the next part of an entry of this length may become, and how much of that the head takes.
    fn next_limit(&self, expected: Option<u64>) -> (u64, u64) {
        let settings = &self.store.settings;
        // The head goes to where it belongs at the end.
        let taken = match self.parts.len() {
            0 => self.options.head_len as u64,
            _ => 0,
        };
        let limit = match expected {
            // What it says too much has to be filled up at the end.
            None => settings
                .chunk_bytes
                .min((self.total / 8).max(GATHER as u64)),
            Some(len) if self.parts.is_empty() && len <= settings.single_value_bytes => len,
            Some(_) => settings.chunk_bytes,
        };
        (limit.max(taken + 1), taken)
    }

    async fn write(&mut self, parts: Vec<Bytes>) -> Result<ControlFlow<Rejection>, Fault> {
        self.total += sum(&parts);
        if let Some(rejection) = self.refusal(self.total) {
            return Ok(ControlFlow::Break(rejection));
        }
        for part in parts {
            self.pending_len += part.len();
            self.pending.push_back(part);
            while self.pending_len >= self.threshold() {
                let sent = self.send(false).await;
                if let Some(rejection) = self.no_room(sent).await? {
                    return Ok(ControlFlow::Break(rejection));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn commit(mut self, head: Bytes) -> Result<Outcome, Fault> {
        let promised = self.options.head_len;
        if head.len() != promised {
            return Err(Fault::HeadLength {
                promised,
                got: head.len(),
            });
        }
        let published = if self.parts.is_empty() && self.pending_len <= self.piece() {
            self.publish_at_once(head).await
        } else {
            self.publish_written(&head).await
        };
        let outcome = published.as_ref().map(|_| ()).map_err(Clone::clone);
        if let Some(rejection) = self.no_room(outcome).await? {
            return Ok(Outcome::Rejected(rejection));
        }
        match published? {
            Done::Yes { old_start } => {
                self.debris = false;
                self.store.drop_parts(&self.entry, &old_start);
                let bytes = self.total;
                Ok(Outcome::Stored { bytes })
            }
            Done::No => Ok(Outcome::Rejected(Rejection::Superseded)),
            Done::Lost => Err(Fault::PartLost),
        }
    }

    /// Turns "the server has no room" into a rejection.
    async fn no_room(&self, outcome: Result<(), Fault>) -> Result<Option<Rejection>, Fault> {
        match outcome {
            Ok(()) => Ok(None),
            Err(fault) if fault.is_out_of_memory() => Ok(Some(Rejection::StoreFull {
                bytes: self.total,
                limit: limit_bytes(&self.store).await?,
            })),
            Err(fault) if fault.is_too_long() => Ok(Some(Rejection::ValueTooLarge {
                bytes: self.total,
                limit: self.parts.last().map_or(0, |part| part.len),
            })),
            Err(fault) => Err(fault),
        }
    }

    /// An entry of which nothing was sent yet: one round trip.
    async fn publish_at_once(&mut self, head: Bytes) -> Result<Done, Fault> {
        self.pending.push_front(head);
        let bytes = self.pending.make_contiguous();
        let temp = name::of_part(&self.store.settings.prefix, &self.entry, self.generation, 0);
        let (expiry, mode) = (self.options.expiry, self.options.mode);
        let (entry, temp, bytes) = (&*self.entry, &*temp, &*bytes);
        // Not done twice: under a mode the second time would find the first one's entry.
        let work = |mut connection: Connection| async move {
            publish_at_once(&mut connection, entry, temp, bytes, expiry, mode).await
        };
        if bytes.iter().map(Bytes::len).sum::<usize>() <= SMALL {
            self.store.small(false, work).await
        } else {
            let borrowed = self.store.live_bulk().await?;
            let done = work(borrowed.clone()).await?;
            borrowed.give_back();
            Ok(done)
        }
    }

    async fn publish_written(&mut self, head: &[u8]) -> Result<Done, Fault> {
        let scattered = self.is_scattered();
        if scattered {
            if !self.assemble(head).await? {
                return Ok(Done::Lost);
            }
        } else {
            while self.pending_len > 0 {
                self.send(true).await?;
            }
        }
        let surplus = self.end_upload().await?;
        if let Some(renewal) = self.renewal.take() {
            renewal.end().await;
        }
        let Some(mut connection) = self.connection.take() else {
            return Err(Fault::WriterBroken);
        };
        if surplus > 0
            && let Some(part) = self.parts.last()
        {
            cut(&mut connection, &part.name, part.len, surplus).await?;
        }
        let one = match &self.parts[..] {
            [part] => Some((part, head)),
            [.., whole] if scattered => Some((whole, &[][..])),
            _ => None,
        };
        let done = if let Some((part, head)) = one {
            let total = part.len;
            let content = Content::Written { total, head };
            let (expiry, mode) = (self.options.expiry, self.options.mode);
            publish(
                &mut connection,
                &self.entry,
                &part.name,
                &content,
                expiry,
                mode,
            )
            .await?
        } else {
            self.publish_chunks(&mut connection, head).await?
        };
        connection.give_back();
        Ok(done)
    }

    /// Makes one value of the parts and of what is not yet sent, which becomes the last part; the others are
    /// removed. `false` when one of them is gone.
    ///
    /// The bytes pass through the client once more, because the server would move them all at a time, or
    /// move a value that grows again and again, and nobody else would be answered meanwhile.
    async fn assemble(&mut self, head: &[u8]) -> Result<bool, Fault> {
        if self.upload.is_some() {
            self.send_to_upload().await?;
            self.end_upload().await?;
        }
        let Some(connection) = &mut self.connection else {
            return Err(Fault::WriterBroken);
        };
        let (prefix, total) = (&self.store.settings.prefix, self.total);
        let name: Arc<str> = name::of_part(prefix, &self.entry, name::random()?, 0).into();
        let lines = std::mem::take(&mut self.lines);
        let whole = Upload::begin(&self.store, lines, connection, Arc::clone(&name), total);
        let mut whole = whole.await?;
        whole.write(head).await?;
        let mut taken = head.len() as u64;
        for part in &self.parts {
            if !whole.copy(&part.name, taken..part.len).await? {
                return Ok(false);
            }
            taken = 0;
            let unlink = redis::cmd("UNLINK").arg(&*part.name).take();
            connection.query(&unlink).await?;
        }
        for bytes in std::mem::take(&mut self.pending) {
            whole.write(&bytes).await?;
        }
        self.pending_len = 0;
        self.parts.push(Part { name, len: total });
        whole.finish().await?;
        Ok(true)
    }

    /// Publishes a manifest, and only then lets the chunks live as long as it: a writer that is killed
    /// in between leaves nothing for long.
    async fn publish_chunks(
        &mut self,
        connection: &mut Connection,
        head: &[u8],
    ) -> Result<Done, Fault> {
        let lengths = self.parts.iter().map(|part| u32::try_from(part.len));
        let lengths: Vec<_> = lengths.collect::<Result<_, _>>().map_err(unwritable)?;
        let manifest = Manifest::new(self.generation, lengths).map_err(unwritable)?;
        let manifest = manifest.encode().map_err(unwritable)?;
        if manifest.len() > PREFIX {
            return Err(unwritable("too many chunks; raise `chunk_bytes`"));
        }
        let mut commands = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let mut command = redis::cmd("STRLEN");
            if index == 0 && !head.is_empty() {
                command = redis::cmd("SETRANGE");
                command.arg(&*part.name).arg(0).arg(head);
            } else {
                command.arg(&*part.name);
            }
            commands.push(command);
        }
        let answers = connection.query_each(commands).await?;
        for (part, answer) in self.parts.iter().zip(&answers) {
            if length(answer)? != part.len {
                return Ok(Done::Lost);
            }
        }
        let temp = format!("{}:m", self.parts[0].name);
        let manifest = [manifest];
        let content = Content::AtOnce(&manifest);
        let (expiry, mode) = (self.options.expiry, self.options.mode);
        // From here on the chunks may belong to the entry: without an answer only their time to live may
        // remove them.
        self.debris = false;
        let done = match publish(connection, &self.entry, &temp, &content, expiry, mode).await {
            Err(fault) if fault.is_lost_connection() && self.holds(&manifest[0]).await? => {
                Done::Yes {
                    old_start: Vec::new(),
                }
            }
            done => done?,
        };
        self.debris = !matches!(done, Done::Yes { .. });
        if let Done::Yes { .. } = done {
            // In the order in which the renewal spoke to the server, so that this is the last word.
            let expiry = self.options.expiry;
            let parts = self.parts.iter();
            let commands: Vec<_> = parts.map(|part| expire(&part.name, expiry)).collect();
            let extended = self.store.small(true, |mut connection| {
                let commands = commands.clone();
                async move { connection.query_each(commands).await }
            });
            for answer in extended.await? {
                int(&answer)?;
            }
        }
        Ok(done)
    }

    /// Whether the entry is these very bytes.
    async fn holds(&self, value: &[u8]) -> Result<bool, Fault> {
        let entry = &*self.entry;
        let found = self.store.small(true, |mut connection| async move {
            let mut command = redis::cmd("GETRANGE");
            command.arg(entry).arg(0).arg(value.len());
            crate::connection::bytes(connection.query(&command).await?)
        });
        Ok(found.await? == value)
    }

    /// Sends some of what was gathered; `last` when nothing comes after that.
    async fn send(&mut self, last: bool) -> Result<(), Fault> {
        if self.upload.is_none() {
            self.begin_part(last).await?;
        }
        self.send_to_upload().await
    }

    async fn begin_part(&mut self, last: bool) -> Result<(), Fault> {
        let expected = self.expected(last);
        let (limit, taken) = self.next_limit(expected);
        let len = match expected {
            Some(len) => {
                let placed: u64 = self.parts.iter().map(|part| part.len).sum();
                limit.min(len - placed)
            }
            None => limit,
        };
        let connection = match &self.connection {
            Some(borrowed) => borrowed,
            None => {
                let borrowed = self.store.live_bulk().await?;
                self.renewal = Some(self.renew());
                self.connection.insert(borrowed)
            }
        };
        let (prefix, index) = (&self.store.settings.prefix, self.parts.len());
        let name: Arc<str> = name::of_part(prefix, &self.entry, self.generation, index).into();
        let lines = std::mem::take(&mut self.lines);
        let upload = Upload::begin(&self.store, lines, connection, Arc::clone(&name), len).await?;
        self.parts.push(Part { name, len: taken });
        self.begun.store(self.parts.len(), Ordering::Relaxed);
        self.upload.insert(upload).skip(taken).await
    }

    /// Sends at most what the upload still misses.
    async fn send_to_upload(&mut self) -> Result<(), Fault> {
        let (Some(upload), Some(part)) = (&mut self.upload, self.parts.last_mut()) else {
            return Err(Fault::WriterBroken);
        };
        let len = usize::try_from(upload.left()).unwrap_or(usize::MAX);
        let len = len.min(self.pending_len);
        for bytes in take(&mut self.pending, len) {
            upload.write(&bytes).await?;
        }
        self.pending_len -= len;
        part.len += len as u64;
        if upload.left() == 0 {
            self.end_upload().await?;
        }
        Ok(())
    }

    /// Ends the upload, if there is one. It may be shorter than was said: then it is filled up, and this is
    /// how much of it is too much.
    async fn end_upload(&mut self) -> Result<u64, Fault> {
        let Some(mut upload) = self.upload.take() else {
            return Ok(0);
        };
        let surplus = upload.left();
        upload.skip(surplus).await?;
        self.debris = true;
        self.lines = upload.finish().await?;
        Ok(surplus)
    }

    /// Renews the time to live of what is written, until it is dropped.
    fn renew(&self) -> Task<()> {
        let store = Arc::clone(&self.store);
        let (entry, generation) = (Arc::clone(&self.entry), self.generation);
        let (begun, ttl_ms) = (Arc::clone(&self.begun), store.settings.temp_ttl_ms);
        Task::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(ttl_ms / 3)).await;
                // Keys that are not there yet are not made.
                for index in 0..begun.load(Ordering::Relaxed) {
                    let name = name::of_part(&store.settings.prefix, &entry, generation, index);
                    let renew = store.small(true, |mut connection| {
                        let command = redis::cmd("PEXPIRE").arg(&name).arg(ttl_ms).take();
                        async move { int(&connection.query(&command).await?) }
                    });
                    match tokio::time::timeout(store.settings.deadline(0), renew).await {
                        Ok(Ok(_)) => {}
                        // An outage: the next round tries again.
                        _ => break,
                    }
                }
            }
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.debris {
            return;
        }
        let names: Vec<_> = self
            .parts
            .iter()
            .map(|part| Arc::clone(&part.name))
            .collect();
        let renewal = self.renewal.take();
        let store = Arc::clone(&self.store);
        let deadline = self.store.settings.deadline(0);
        self.store.engine.detach(deadline, async move {
            if let Some(renewal) = renewal {
                renewal.end().await;
            }
            let unlink = |name: &Arc<str>| redis::cmd("UNLINK").arg(&**name).take();
            let commands: Vec<_> = names.iter().map(unlink).collect();
            let removed = store.small(true, |mut connection| {
                let commands = commands.clone();
                async move { connection.query_each(commands).await }
            });
            if let Err(fault) = removed.await {
                tracing::debug!(%fault, "what a writer left dies by its time to live");
            }
        });
    }
}

/// Removes the last `surplus` bytes of a temporary key, which leaves `len`.
async fn cut(connection: &mut Connection, name: &str, len: u64, surplus: u64) -> Result<(), Fault> {
    const CUT: &str = r"
if redis.call('STRLEN', KEYS[1]) == tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1), 'KEEPTTL')
end
return 1
";
    let mut command = redis::cmd("EVAL");
    command
        .arg(CUT)
        .arg(1)
        .arg(name)
        .arg(len)
        .arg(len + surplus);
    connection.query(&command).await.map(|_one| ())
}

/// The command that lets a key live until then.
pub(crate) fn expire(name: &str, expiry: ck_core::Expiry) -> redis::Cmd {
    if expiry.is_never() {
        return redis::cmd("PERSIST").arg(name).take();
    }
    let mut command = redis::cmd("PEXPIREAT");
    command.arg(name).arg(unix_millis(expiry)).take()
}

/// Takes the first `len` bytes.
fn take(from: &mut VecDeque<Bytes>, mut len: usize) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while len > 0
        && let Some(mut part) = from.pop_front()
    {
        if part.len() > len {
            from.push_front(part.split_off(len));
        }
        len -= part.len();
        taken.push(part);
    }
    taken
}

fn sum(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

fn unwritable(error: impl std::fmt::Display) -> Fault {
    Fault::Manifest(error.to_string())
}
