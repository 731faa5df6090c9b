//! What an encrypted entry shows without its key.

use std::io::Write;

use ck_cache::EncryptedInfo;
use ck_core::EntryReader;
use serde_json::json;

use super::{expires_unix_seconds, header_json};
use crate::args::KeyArgs;
use crate::failure::Failure;
use crate::human;

pub(super) fn print(
    out: &mut impl Write,
    args: &KeyArgs,
    entry: &dyn EntryReader,
    info: &EncryptedInfo,
) -> Result<(), Failure> {
    let header = header_json(&info.header);
    if args.json {
        let found = json!({
            "key": args.key,
            "bytes": entry.len(),
            "expires_unix_seconds": expires_unix_seconds(entry),
            "encrypted": true,
            "key_fingerprint": info.key_fingerprint.as_deref(),
            "plain_bytes": info.plain_bytes,
            "chunks": info.chunks.map(|(chunks, _)| chunks),
            "chunk_bytes": info.chunks.map(|(_, bytes)| bytes),
            "header": header,
        });
        writeln!(out, "{found:#}")?;
        return Ok(());
    }
    let bytes = |len: u64| format!("{} ({len} bytes)", human::bytes(len));
    let form = match info.chunks {
        None => "at once".to_owned(),
        Some((chunks, len)) => format!(
            "in {} of {len} bytes",
            human::count(chunks, "chunk", "chunks")
        ),
    };
    writeln!(out, "encrypted   {form}")?;
    let fingerprint = info.key_fingerprint.as_deref().unwrap_or("none");
    writeln!(out, "key         {}", human::printable(fingerprint))?;
    writeln!(out, "size        {}", bytes(entry.len()))?;
    writeln!(out, "plain       {}", bytes(info.plain_bytes))?;
    writeln!(out, "expires in  {}", human::expires_in(entry.expiry()))?;
    writeln!(out, "header      {}", human::printable(&header.to_string()))?;
    writeln!(
        out,
        "nothing of this is proven without the key: --encrypt, with CACHEKIT_MASTER_KEY"
    )?;
    Ok(())
}
