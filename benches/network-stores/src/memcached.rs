use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};
use ck_frame::Manifest;
use testkit::Memcached;

use crate::Result;

/// What is written at a time, as the encoder gives it out.
const PIECE: usize = 8 << 20;

pub(crate) fn bare(server: &Memcached) -> Result<memcache::Client> {
    let url = format!(
        "memcache://{}?protocol=ascii&tcp_nodelay=true",
        server.addr()
    );
    Ok(memcache::Client::connect(url)?)
}

/// The chunks that an entry was cut into, under names of the bare client's own.
pub(crate) fn chunks(
    bare: &memcache::Client,
    item: &str,
    entry: &Bytes,
) -> Result<Vec<(String, Bytes)>> {
    let manifest: Vec<u8> = bare.get(item)?.ok_or("no such entry")?;
    let manifest = Manifest::decode(&manifest)?.ok_or("the entry is one item")?;
    let mut cut = Vec::new();
    for index in 0..manifest.chunk_count() {
        let chunk = manifest.chunk(index);
        let chunk = usize::try_from(chunk.start)?..usize::try_from(chunk.end)?;
        cut.push((format!("bare:{index}"), entry.slice(chunk)));
    }
    Ok(cut)
}

pub(crate) fn write(bare: &memcache::Client, chunks: &[(String, Bytes)]) -> Result<()> {
    for (name, chunk) in chunks {
        bare.set(name, &chunk[..], 0)?;
    }
    Ok(())
}

pub(crate) fn read(bare: &memcache::Client, chunks: &[(String, Bytes)]) -> Result<Vec<Vec<u8>>> {
    let read = chunks
        .iter()
        .map(|(name, _)| Ok(bare.get(name)?.ok_or("a chunk is gone")?));
    read.collect()
}

pub(crate) fn put(store: &MemcachedBackend, key: &Key, bytes: &Bytes) -> Result<()> {
    let parts = (0..bytes.len()).step_by(PIECE);
    let parts = parts
        .map(|at| bytes.slice(at..bytes.len().min(at + PIECE)))
        .collect();
    block_on(store.put(key, Bytes::new(), parts, WriteOptions::new()))?.stored()?;
    Ok(())
}

pub(crate) fn get(store: &MemcachedBackend, key: &Key) -> Result<Bytes> {
    let entry = block_on(store.open(key))?.ok_or("the entry is gone")?;
    Ok(block_on(entry.read(0..entry.len()))?)
}

pub(crate) fn pattern(len: usize) -> Bytes {
    let words =
        (0..len as u64 / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.collect::<Vec<u8>>().into()
}
