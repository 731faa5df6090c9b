//! Stores an entry in a directory, reads it back, gives it an expiry, and lists what is there.
//!
//! `cargo run -p ck-backend-file --example file_store [DIR]`

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use ck_backend_file::FileBackend;
use ck_core::{Backend, Expiry, Key, Outcome, WriteOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => dir.into(),
        None => std::env::temp_dir().join("ck-example-store"),
    };
    let store = FileBackend::builder(dir)
        .limit_bytes(64 << 20)
        .limit_entries(1_000)
        .build()?;
    pollster::block_on(tour(&store))?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn tour(store: &FileBackend) -> ck_core::Result<()> {
    println!("store    {}", store.url());
    let key = Key::new("greetings/2026");

    let body = vec![Bytes::from("hello, "), Bytes::from("world")];
    match store
        .put(&key, Bytes::new(), body, WriteOptions::new())
        .await?
    {
        Outcome::Stored { bytes } => println!("put      {bytes} bytes on disk"),
        Outcome::Rejected(why) => println!("put      {why}"),
    }

    if let Some(entry) = store.open(&key).await? {
        let bytes = entry.read(7..entry.len()).await?;
        println!(
            "get      {:?} (from byte 7)",
            String::from_utf8_lossy(&bytes)
        );
    }

    let touched = store
        .touch(&key, Expiry::after(Duration::from_secs(3_600))?)
        .await?;
    println!("touch    {touched}");
    if let Some(info) = store.stat(&key).await? {
        let left = info.expiry.remaining().unwrap_or_default();
        println!(
            "stat     {} bytes, {} s left, file {}",
            info.bytes,
            left.as_secs(),
            info.id
        );
    }

    let mut cursor = None;
    loop {
        let page = store.list(cursor, 5).await?;
        for info in page.entries {
            println!(
                "list     {} {} bytes, starts {:?}",
                info.id, info.bytes, info.head
            );
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let usage = store.usage().await?;
    println!("usage    {} entries, {} bytes", usage.entries, usage.bytes);
    println!("remove   {}", store.remove(&key).await?);
    Ok(())
}
