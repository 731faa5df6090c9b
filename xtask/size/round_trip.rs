//! What the programs of the stores have in common.
use std::io::{Read, Write};

use ck_core::{Backend, Key, WriteOptions, block_on};

/// Stores the standard input and reads it back.
pub fn run(store: &impl Backend) -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
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
