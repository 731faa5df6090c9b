//! Reads an envelope from the standard input and writes it as a frame again.
use std::io::{Read, Write};

use ck_frame::{Header, read};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let frame = read(&input.into())?;
    let header = Header::new(frame.header.serializer()).with_metadata("format", "arrow");
    let mut output = std::io::stdout().lock();
    output.write_all(&header.encode()?)?;
    output.write_all(&frame.payload)?;
    Ok(())
}
