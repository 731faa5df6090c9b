//! Stores the standard input in memcached servers and reads it back.
use std::io::{Read, Write};

use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let url = std::env::args().nth(1).ok_or("the server is missing")?;
    let store = MemcachedBackend::open([url])?;
    let key = Key::new("key");
    let outcome = store.put(
        &key,
        Default::default(),
        vec![input.into()],
        WriteOptions::new(),
    );
    block_on(outcome)?.stored()?;
    if let Some(entry) = block_on(store.open(&key))? {
        let bytes = block_on(entry.read(0..entry.len()))?;
        std::io::stdout().write_all(&bytes)?;
    }
    Ok(())
}
