use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ck_core::{
    BoxFuture, EntryReader, EntryWriter, Error, ErrorKind, Expiry, Key, Lease, Outcome, Rejection,
    Result, Version, pass_on,
};

use super::{Guard, What, len_of};

pub(super) fn guard_reader(
    guard: &Guard,
    key: &Key,
    inner: Arc<dyn EntryReader>,
) -> Arc<dyn EntryReader> {
    Arc::new(Reader {
        guard: guard.clone(),
        key: key.clone(),
        inner,
    })
}

pub(super) fn guard_writer(
    guard: &Guard,
    key: &Key,
    inner: Box<dyn EntryWriter>,
) -> Box<dyn EntryWriter> {
    Box::new(Writer {
        guard: guard.clone(),
        key: key.clone(),
        inner: Some(inner),
        written: 0,
    })
}

pub(super) fn guard_lease(guard: &Guard, key: &Key, inner: Box<dyn Lease>) -> Box<dyn Lease> {
    Box::new(Held {
        guard: guard.clone(),
        key: key.clone(),
        inner: Arc::new(Mutex::new(Some(inner))),
    })
}

struct Reader {
    guard: Guard,
    key: Key,
    inner: Arc<dyn EntryReader>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl EntryReader for Reader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn expiry(&self) -> Expiry {
        self.inner.expiry()
    }

    fn version(&self) -> Version {
        self.inner.version()
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.inner.contiguous()
    }

    fn is_mapped(&self) -> bool {
        self.inner.is_mapped()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        if self.inner.contiguous().is_some() {
            return self.inner.read(range);
        }
        let bytes = len(&range);
        let what = What::reads("read", &self.key).moving(bytes);
        Box::pin(self.guard.repeat(what, move || {
            let (inner, range) = (Arc::clone(&self.inner), range.clone());
            self.pass_on(bytes, async move { inner.read(range).await })
        }))
    }

    fn read_overhead(&self, len: u64) -> u64 {
        self.inner.read_overhead(len)
    }

    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        if self.inner.contiguous().is_some() {
            return self.inner.read_ranges(ranges);
        }
        let bytes = ranges
            .iter()
            .fold(0_u64, |sum, range| sum.saturating_add(len(range)));
        let what = What::reads("read", &self.key).moving(bytes);
        let in_one_piece = if ranges.len() == 1 { bytes } else { 0 };
        Box::pin(self.guard.repeat(what, move || {
            let (inner, ranges) = (Arc::clone(&self.inner), ranges.clone());
            self.pass_on(in_one_piece, async move { inner.read_ranges(ranges).await })
        }))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        let what = What::writes("discard", &self.key);
        Box::pin(self.guard.repeat(what, || {
            let inner = Arc::clone(&self.inner);
            async move { inner.discard().await }
        }))
    }
}

impl Reader {
    /// A read of so many bytes that another thread may do for the caller.
    fn pass_on<F: Future>(&self, bytes: u64, read: F) -> impl Future<Output = F::Output> + use<F> {
        pass_on(bytes.saturating_add(self.inner.read_overhead(bytes)), read)
    }
}

fn len(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

struct Writer {
    guard: Guard,
    key: Key,
    /// Gone when a write failed, was late, or was given up.
    inner: Option<Box<dyn EntryWriter>>,
    written: u64,
}

impl Writer {
    fn gone(&self) -> Error {
        Error::new(
            ErrorKind::Misuse,
            "an earlier write of this entry failed or was given up: drop the writer and start anew",
        )
        .with("store", &self.guard.0.url)
        .with("key", &self.key)
    }
}

impl EntryWriter for Writer {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        Box::pin(async move {
            let Some(mut inner) = self.inner.take() else {
                return Err(self.gone());
            };
            let bytes = len_of(&parts);
            let what = What::writes("write", &self.key).moving(bytes);
            let written = async move {
                let flow = inner.write(parts).await?;
                Ok((inner, flow))
            };
            let (inner, flow) = self.guard.once(what, written).await?;
            self.inner = Some(inner);
            self.written = self.written.saturating_add(bytes);
            Ok(flow)
        })
    }

    fn commit(mut self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        Box::pin(async move {
            let Some(inner) = self.inner.take() else {
                return Err(self.gone());
            };
            let bytes = self.written.saturating_add(head.len() as u64);
            let what = What::writes("commit", &self.key).moving(bytes);
            self.guard.once(what, inner.commit(head)).await
        })
    }
}

struct Held {
    guard: Guard,
    key: Key,
    /// Empty while it is being renewed, and for good when a renewal was given up on its way.
    inner: Arc<Mutex<Option<Box<dyn Lease>>>>,
}

impl Lease for Held {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        let what = What::writes("renew a lease", &self.key);
        Box::pin(self.guard.repeat(what, || {
            let cell = Arc::clone(&self.inner);
            async move {
                let Some(mut lease) = take(&cell) else {
                    return Ok(false);
                };
                let renewed = lease.renew().await;
                // If the lease was dropped meanwhile, this is the last of it.
                *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
                renewed
            }
        }))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let Some(lease) = take(&self.inner) else {
                return Ok(());
            };
            let what = What::writes("release a lease", &self.key);
            self.guard.once(what, lease.release()).await
        })
    }
}

fn take(cell: &Mutex<Option<Box<dyn Lease>>>) -> Option<Box<dyn Lease>> {
    cell.lock().unwrap_or_else(PoisonError::into_inner).take()
}
