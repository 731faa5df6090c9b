//! Memory mappings behind safe functions: the only unsafe code of the crate.
#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe; the argument stands at each block"
)]

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::AsRawFd;

/// Maps the first `len` bytes of an entry file for reading.
///
/// The mapping outlives the descriptor, and keeps the file's blocks while others replace or unlink it.
pub(crate) fn map_entry(file: impl AsFd, len: usize) -> io::Result<Bytes> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: entry files are written aside, renamed into place and never changed or shortened while
    // they have a name, apart from the eight expiry bytes, which lie before the entry and are never
    // read through the mapping. The format requires this of every writer.
    let map = unsafe { MmapOptions::new().len(len).map(fd) }?;
    Ok(Bytes::from_owner(map))
}

/// A file mapped for reading and writing, shared with other processes, seen as 64-bit words.
///
/// Words are little-endian in the file. Every access is bounds-checked and atomic, so whatever other
/// processes do to the words, this process reads numbers and nothing worse.
#[derive(Debug)]
pub(crate) struct SharedWords {
    map: MmapRaw,
}

impl SharedWords {
    /// Maps the first `len` bytes of `file`, which must have that many.
    pub(crate) fn map(file: impl AsFd, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(len)
            .map_raw(file.as_fd().as_raw_fd())?;
        Ok(Self { map })
    }

    /// The number of whole words.
    pub(crate) fn len(&self) -> usize {
        self.map.len() / size_of::<u64>()
    }

    /// The word at `index`; `None` beyond the end.
    pub(crate) fn load(&self, index: usize) -> Option<u64> {
        // Acquire and Release keep the program's order of stores, so that a process killed between
        // two of them leaves the first without the second, never the other way round.
        Some(u64::from_le(
            self.words().get(index)?.load(Ordering::Acquire),
        ))
    }

    /// Sets the word at `index`; `None` beyond the end.
    pub(crate) fn store(&self, index: usize, value: u64) -> Option<()> {
        self.words()
            .get(index)?
            .store(value.to_le(), Ordering::Release);
        Some(())
    }

    fn words(&self) -> &[AtomicU64] {
        let start = self.map.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is readable and writable for `map.len()` bytes as long as `self` lives,
        // starts at a page boundary (so it is aligned for a word), and this process reaches it only
        // through these atomics. Every bit pattern is a valid word.
        unsafe { std::slice::from_raw_parts(start, self.len()) }
    }
}
