use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};
use ck_frame::Manifest;
use testkit::Memcached;

use crate::Result;
use crate::series::{Series, time};

/// What is written at a time, as the encoder gives it out.
const PIECE: usize = 8 << 20;

/// Put and whole get, beside the bare client that writes and reads the same chunks and holds them.
pub(crate) fn run(mib: usize, rounds: usize) -> Result<()> {
    let len = mib << 20;
    let server = Memcached::start_with(&["-m", &(mib * 4 + 256).to_string()]);
    let store = MemcachedBackend::open([server.addr().to_string()])?;
    let bare = bare(&server)?;
    let (key, bytes) = (Key::new("table"), pattern(len));
    put(&store, &key, &bytes)?;
    let cut = chunks(&bare, key.as_str(), &bytes)?;
    println!(
        "{mib} MiB in {} chunks, medians of {rounds} interleaved rounds",
        cut.len()
    );

    let mut series = [(); 4].map(|()| Series::default());
    let [ours_put, bare_put, ours_get, bare_get] = &mut series;
    for round in 0..rounds {
        // Room for the new one: what was replaced lives a little longer.
        block_on(store.remove(&key))?;
        for (name, _) in &cut {
            bare.delete(name)?;
        }
        for turn in 0..2 {
            if turn == round % 2 {
                ours_put.add(time(|| put(&store, &key, &bytes))?);
            } else {
                bare_put.add(time(|| write(&bare, &cut))?);
            }
        }
        for turn in 0..2 {
            if turn == round % 2 {
                ours_get.add(time(|| {
                    assert_eq!(get(&store, &key)?.len(), len);
                    Ok(())
                })?);
            } else {
                bare_get.add(time(|| {
                    assert_eq!(read(&bare, &cut)?.iter().map(Vec::len).sum::<usize>(), len);
                    Ok(())
                })?);
            }
        }
    }
    assert!(get(&store, &key)? == bytes && read(&bare, &cut)?.concat() == bytes);
    println!("| work | ours | bare client | times as fast | bound |");
    println!("|---|---|---|---|---|");
    for (work, ours, bare) in [
        ("put", ours_put, bare_put),
        ("whole get", ours_get, bare_get),
    ] {
        let rate = |series: &Series| mib as f64 / series.median().as_secs_f64();
        println!(
            "| {work} {mib} MiB | {:.0} MiB/s | {:.0} MiB/s | {:.2} | >= 0.7 |",
            rate(ours),
            rate(bare),
            rate(ours) / rate(bare)
        );
    }
    Ok(())
}

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
