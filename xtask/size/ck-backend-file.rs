//! Stores the standard input in a directory and reads it back.
use std::io::{Read, Write};

use ck_backend_file::FileBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let dir = std::env::args_os()
        .nth(1)
        .ok_or("the directory is missing")?;
    let store = FileBackend::builder(dir).build()?;
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
