use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cachekit::backend::{Backend as _, file::FileBackend as Peer};
use ck_backend_file::{Durability, FileBackend};
use ck_cache::{Cache, PutOptions};

use crate::Result;
use crate::report::{Report, Series};

/// Small byte entries, against the crate `cachekit-rs` with its file backend, both under tokio.
///
/// The peer always syncs the file but never the directory, so that after a power loss its rename may
/// be undone. At equal durability the directory is synced behind it.
pub(crate) fn compare(report: &mut Report, dir: &Path, rounds: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(compare_async(report, dir, rounds))
}

async fn compare_async(report: &mut Report, dir: &Path, rounds: usize) -> Result<()> {
    let store = |name: &str, durability| -> Result<Cache> {
        let backend = FileBackend::builder(dir.join(name)).durability(durability).build()?;
        Ok(Cache::new(std::sync::Arc::new(backend)))
    };
    let synced = store("synced", Durability::Synced)?;
    let fast = store("fast", Durability::Fast)?;
    let peer_dir = dir.join("peer");
    let peer = Peer::builder().cache_dir(&peer_dir).build()?;
    let options = PutOptions::new().with_ttl(Duration::from_secs(3600));
    let ttl = Some(Duration::from_secs(3600));
    for (size, name) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB")] {
        let value = Bytes::from(vec![7_u8; size]);
        let mut times: [Series; 6] = Default::default();
        let [put_synced, put_fast, put_peer, get_ours, get_peer, put_peer_only] = &mut times;
        // What one side leaves unsynced the other would have to wait for: the unsynced store has
        // a loop of its own, and the other two take turns in going first.
        for round in 0..rounds * 30 {
            // Half of the puts replace an entry.
            let key = format!("key {}", round / 2);
            for turn in 0..2 {
                if turn == round % 2 {
                    let start = Instant::now();
                    synced.put_bytes(key.as_str(), value.clone(), &options).await?.stored()?;
                    put_synced.add(start.elapsed());
                    continue;
                }
                let owned = value.to_vec();
                let start = Instant::now();
                peer.set(&key, owned, ttl).await?;
                put_peer_only.add(start.elapsed());
                let dir = peer_dir.clone();
                tokio::task::spawn_blocking(move || std::fs::File::open(dir)?.sync_all()).await??;
                put_peer.add(start.elapsed());
            }
        }
        for round in 0..rounds * 300 {
            let key = format!("key {}", round / 2 % (rounds * 15));
            let start = Instant::now();
            fast.put_bytes(key.as_str(), value.clone(), &options).await?.stored()?;
            put_fast.add(start.elapsed());
        }
        for round in 0..rounds * 300 {
            let key = format!("key {}", round % (rounds * 15));
            let start = Instant::now();
            let found = fast.get_bytes(key.as_str()).await?.ok_or("a miss")?;
            get_ours.add(start.elapsed());
            assert_eq!(found.len(), size);
            let start = Instant::now();
            let found = peer.get(&key).await?.ok_or("a miss")?;
            get_peer.add(start.elapsed());
            assert_eq!(found.len(), size);
        }
        report.latency(&format!("put {name}, synced / cachekit-rs + sync of the directory"), put_synced, put_peer, ">= 1");
        report.latency(&format!("put {name}, synced / cachekit-rs (file synced only)"), put_synced, put_peer_only, "");
        report.latency(&format!("put {name}, fast / cachekit-rs (file synced only)"), put_fast, put_peer_only, "");
        report.latency(&format!("get {name} / cachekit-rs"), get_ours, get_peer, ">= 1");
    }
    Ok(())
}
