//! Writes a frame whose payload is aligned to 64 bytes, reads it back, and prints its fields.
//!
//! `cargo run -p ck-frame --example frame`
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use bytes::{Bytes, BytesMut};
use ck_frame::{Envelope, FrameError, Header, Probe, probe, read};
use serde_json::json;

fn main() -> Result<(), FrameError> {
    // An entry file has 14 bytes before the frame, and an Arrow payload 8 bytes of checksum before
    // the Arrow file.
    let offset = 14 + 8;
    let reserved = Header::new("arrow")
        .with_metadata("format", "arrow")
        .with_metadata("compressed", false)
        .with_extension("ck", json!({"layout": 1, "hash": "0".repeat(16)}))
        .reserve(64, offset)?;

    // The payload is made, its hash is known at last, and the header is completed in the room kept
    // for it.
    let payload = b"an Arrow file, in earnest";
    let hash = format!("{:016x}", 0x00c0_ffee);
    let head = reserved.patch("ck", json!({"layout": 1, "hash": hash}))?;
    let mut entry = BytesMut::from(&head[..]);
    entry.extend_from_slice(payload);
    let entry: Bytes = entry.freeze();

    // A reader that fetches ranges needs the leading bytes only.
    if let Probe::Ready(Envelope::V3 { payload_offset, .. }) = probe(&head, entry.len() as u64)? {
        let arrow_at = payload_offset + offset;
        println!("head        {payload_offset} bytes, so the Arrow file begins at byte {arrow_at}");
        assert_eq!(arrow_at % 64, 0);
    }

    let frame = read(&entry)?;
    println!("serializer  {}", frame.header.serializer());
    println!("version     {}", frame.header.version());
    for (name, value) in frame.header.metadata() {
        println!("metadata    {name} = {value}");
    }
    if let Some(ck) = frame.header.extension("ck") {
        println!("extension   ck = {ck}");
    }
    println!("payload     {} bytes", frame.payload.len());
    Ok(())
}
