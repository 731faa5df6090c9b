use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ck_backend_file::{FileBackend, ReadMode};
use ck_cache::blocking::Cache;
use ck_cache::{Backend, Encrypted, EncryptionOptions, Key, Keyring, MasterKey};
use ck_core::{ErrorKind, WriteOptions, block_on};
use tempfile::TempDir;

use super::map_store::MapStore;

pub(crate) const TENANT: &str = "acme";

/// A directory, and the encrypted store in it.
pub(crate) struct Fixture {
    dir: TempDir,
    /// What lies in the directory, as it is stored.
    pub(crate) raw: Arc<dyn Backend>,
    pub(crate) store: Encrypted,
}

impl Fixture {
    pub(crate) fn new(options: EncryptionOptions) -> Self {
        Self::reading(options, ReadMode::default())
    }

    pub(crate) fn reading(options: EncryptionOptions, mode: ReadMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raw = FileBackend::builder(dir.path()).read_mode(mode).build();
        Self::over(Arc::new(raw.unwrap()), dir, options)
    }

    /// In memory, where a hundred thousand forgeries take a few seconds; the directory stays empty.
    pub(crate) fn in_memory(options: EncryptionOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::over(Arc::new(MapStore::default()), dir, options)
    }

    fn over(raw: Arc<dyn Backend>, dir: TempDir, options: EncryptionOptions) -> Self {
        let store = Encrypted::new(Arc::clone(&raw), keys(1, &[], TENANT), options).unwrap();
        Self { dir, raw, store }
    }

    /// The same directory with other keys or options.
    pub(crate) fn with(&self, keys: Keyring, options: EncryptionOptions) -> Encrypted {
        Encrypted::new(Arc::clone(&self.raw), keys, options).unwrap()
    }

    pub(crate) fn cache(&self) -> Cache {
        cache(&self.store)
    }

    /// The bytes of an entry as they are stored.
    pub(crate) fn stored(&self, key: &str) -> Vec<u8> {
        self.find(key)
            .unwrap_or_else(|| panic!("no entry under {key}"))
    }

    pub(crate) fn find(&self, key: &str) -> Option<Vec<u8>> {
        let entry = block_on(self.raw.open(&Key::new(key))).unwrap()?;
        Some(block_on(entry.read(0..entry.len())).unwrap().to_vec())
    }

    /// Cuts the file of the only entry to so many bytes, under its readers.
    pub(crate) fn cut(&self, bytes: u64) {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        let files = files.map(|file| file.unwrap());
        let is_entry =
            |file: &std::fs::DirEntry| !file.file_name().to_string_lossy().starts_with('.');
        let mut entries = files.filter(is_entry);
        let (entry, more) = (entries.next().unwrap(), entries.next());
        assert!(more.is_none());
        let file = std::fs::File::options().write(true).open(entry.path());
        file.unwrap().set_len(bytes).unwrap();
    }

    /// Puts bytes into the store as they are.
    pub(crate) fn forge(&self, key: &str, bytes: &[u8]) {
        let bytes = vec![Bytes::copy_from_slice(bytes)];
        let put = block_on(
            self.raw
                .put(&Key::new(key), Bytes::new(), bytes, WriteOptions::new()),
        );
        put.unwrap().stored().unwrap();
    }
}

pub(crate) fn cache(store: &Encrypted) -> Cache {
    ck_cache::Cache::builder(Arc::new(store.clone()))
        .l1_bytes(0)
        .build()
        .blocking()
}

/// Keys made of one byte each.
pub(crate) fn keys(current: u8, previous: &[u8], tenant: &str) -> Keyring {
    let key = |byte: &u8| MasterKey::from_hex(&format!("{byte:02x}").repeat(32)).unwrap();
    let previous: Vec<_> = previous.iter().map(key).collect();
    Keyring::new(&key(&current), &previous, tenant).unwrap()
}

/// Chunks of 4 KiB, whatever the size.
pub(crate) fn in_chunks() -> EncryptionOptions {
    EncryptionOptions::new()
        .with_chunk_bytes(4096)
        .with_chunked_above(0)
}

/// All bytes of an entry; `None` for a miss, at once or when it is read.
pub(crate) fn read(store: &Encrypted, key: &str) -> Option<Vec<u8>> {
    let entry = block_on(store.open(&Key::new(key))).unwrap()?;
    match block_on(entry.read(0..entry.len())) {
        Ok(bytes) => Some(bytes.to_vec()),
        Err(error) if error.kind() == ErrorKind::Corrupt => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Parts of an entry, read together; `None` for a miss.
pub(crate) fn read_parts(
    store: &Encrypted,
    key: &str,
    ranges: Vec<Range<u64>>,
) -> Option<Vec<Bytes>> {
    let entry = block_on(store.open(&Key::new(key))).unwrap()?;
    match block_on(entry.read_ranges(ranges)) {
        Ok(parts) => Some(parts),
        Err(error) if error.kind() == ErrorKind::Corrupt => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Stores a plain entry: `head` of it comes last.
pub(crate) fn put(store: &Encrypted, key: &str, head: &[u8], body: &[u8]) {
    let options = WriteOptions::new().with_head_len(head.len());
    let body = body.chunks(1000).map(Bytes::copy_from_slice).collect();
    let put = block_on(store.put(&Key::new(key), Bytes::copy_from_slice(head), body, options));
    put.unwrap().stored().unwrap();
}

/// Bytes that differ at every place.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .take(len)
        .collect()
}
