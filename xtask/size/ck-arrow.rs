//! Reads a table entry from the standard input, a projection of it, and encodes that again.
use std::io::{Read, Write};
use std::sync::Arc;

use ck_arrow::{EncodeOptions, Encoder, TableReader, Verification};
use ck_core::{MemoryEntry, block_on};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let entry = Arc::new(MemoryEntry::new(input));
    let table = block_on(TableReader::open(entry, Verification::OnTouch))?.project(&[0])?;
    let mut encoder = Encoder::new(table.schema(), EncodeOptions::new())?;
    let mut body = Vec::new();
    for batch in table.batches() {
        encoder.push(batch?)?;
        while let Some(segment) = encoder.next_segment()? {
            body.extend(segment);
        }
    }
    encoder.end();
    while let Some(segment) = encoder.next_segment()? {
        body.extend(segment);
    }
    let mut output = std::io::stdout().lock();
    output.write_all(&encoder.finish()?.head)?;
    body.iter().try_for_each(|part| output.write_all(part))?;
    Ok(())
}
