//! Values of the Python client's default serializer: MessagePack in the store, JSON for people.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use ck_cache::{Error, Key};
use ck_codec::bytestorage::{self, Json};
use ck_frame::Header;
use serde_json::json;

use crate::failure::Failure;
use crate::output;

/// What such a value is called.
pub(crate) const KIND: &str = "a value of the Python client's default serializer";

/// JSON text longer than what a value can have is not read.
const MAX_TEXT_BYTES: u64 = 512 << 20;

/// Longer keys are not recorded in entries, as for tables.
const MAX_RECORDED_KEY: usize = 1024;

/// Head and payload of an entry with the value in a JSON file, or standard input for `-`.
///
/// The header is what the client writes, and the key for listings, which the client ignores.
pub(crate) fn entry(key: &Key, file: &Path) -> Result<(Bytes, Bytes), Failure> {
    let cannot = |why: Error| Failure::other(format_args!("cannot store {}: {why}", name(file)));
    let document = bytestorage::from_json(&read_text(file)?).map_err(cannot)?;
    let payload = bytestorage::encode(&document).map_err(cannot)?;
    let mut header = Header::new("default")
        .with_metadata("format", "msgpack")
        .with_metadata("encoding", "utf-8")
        .with_metadata("compressed", true)
        .with_metadata("original_type", "msgpack");
    if key.as_str().len() <= MAX_RECORDED_KEY {
        header = header.with_extension("ck", json!({"layout": 1, "key": key.as_str()}));
    }
    let head = header.encode().map_err(Error::from)?;
    Ok((head, payload.into()))
}

/// Writes a value as one line of JSON to a file, or standard output for `-` and for none.
pub(crate) fn write_json(output: Option<&Path>, value: Json<'_>) -> Result<(), Failure> {
    output::write_line(output.unwrap_or(Path::new("-")), value)
}

fn read_text(file: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |why: io::Error| Failure::other(format_args!("cannot read {}: {why}", name(file)));
    let too_long = |bytes: u64| {
        Failure::other(format_args!(
            "cannot store {}: at least {bytes} bytes of JSON, and {KIND} has up to {MAX_TEXT_BYTES} (512 MiB)",
            name(file)
        ))
    };
    let mut text = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(MAX_TEXT_BYTES + 1).read_to_end(&mut text);
    if file.as_os_str() == "-" {
        read(&mut io::stdin().lock()).map_err(cannot)?;
    } else {
        let mut from = File::open(file).map_err(cannot)?;
        let len = from.metadata().map_err(cannot)?.len();
        if len > MAX_TEXT_BYTES {
            return Err(too_long(len));
        }
        read(&mut from).map_err(cannot)?;
    }
    match text.len() as u64 {
        ..=MAX_TEXT_BYTES => Ok(text),
        len => Err(too_long(len)),
    }
}

fn name(file: &Path) -> String {
    match file.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}
