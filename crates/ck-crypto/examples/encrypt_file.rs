//! Encrypts a file in chunks, and reads a part of it back by decrypting only the chunks that hold it.
//!
//! `cargo run -p ck-crypto --example encrypt_file [FILE]`; without a file it makes up 10 MB.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

use ck_crypto::{ChunkOpener, ChunkSealer, Keyring, MasterKey, SALT_BYTES, TAG_BYTES, new_salt};

const CHUNK: usize = 65_536;
/// Where chunk 1 starts: behind the salt and chunk 0, which holds the length in 8 bytes.
const START: usize = SALT_BYTES + 8 + TAG_BYTES;

/// What every chunk is bound to beside its place. A reader has to know both.
const HEADER: &[u8] = b"encrypt_file, version 1";
const NAME: &str = "the name under which the entry is kept";

fn main() -> Result<(), Box<dyn Error>> {
    let plain = match std::env::args_os().nth(1) {
        Some(path) => fs::read(path)?,
        None => b"some text ".repeat(1_000_000),
    };
    // A real program keeps its master key, and reads it by `Keyring::from_env`.
    let keys = Keyring::new(&MasterKey::generate()?, &[], "acme")?;
    let mut file = tempfile::tempfile()?;
    write(&mut file, &keys, &plain)?;
    let stored = file.metadata()?.len();
    println!("{} bytes are {stored} encrypted ones", plain.len());
    let middle = plain.len() / 2..plain.len().min(plain.len() / 2 + 100_000);
    assert_eq!(read(&mut file, &keys, middle.clone())?, plain[middle]);
    Ok(())
}

fn write(file: &mut File, keys: &Keyring, plain: &[u8]) -> Result<(), Box<dyn Error>> {
    let (salt, last) = (new_salt()?, plain.len().div_ceil(CHUNK)); // No two entries share a salt.
    let mut sealer = ChunkSealer::new(keys, &salt, HEADER, NAME)?;
    file.seek(SeekFrom::Start(START as u64))?;
    for (index, chunk) in (1..).zip(plain.chunks(CHUNK)) {
        let mut chunk = chunk.to_vec();
        let tag = sealer.seal(&mut chunk, index == last)?;
        file.write_all(&[&chunk[..], &tag].concat())?;
    }
    // Chunk 0 comes last, because it holds what may be known last.
    let mut first = (plain.len() as u64).to_be_bytes();
    let tag = sealer.seal_first(&mut first, last == 0)?;
    file.rewind()?;
    file.write_all(&[&salt[..], &first, &tag].concat())?;
    Ok(())
}

fn read(file: &mut File, keys: &Keyring, range: Range<usize>) -> Result<Vec<u8>, Box<dyn Error>> {
    let (mut salt, mut first, mut tag) = ([0; SALT_BYTES], [0; 8], [0; TAG_BYTES]);
    file.rewind()?;
    for part in [&mut salt[..], &mut first, &mut tag] {
        file.read_exact(part)?;
    }
    let opener = ChunkOpener::new(keys, keys.fingerprint(), &salt, HEADER, NAME)?;
    let is_last = file.metadata()?.len() == START as u64;
    opener.open(0, is_last, &mut first, 0, tag)?;
    let len = usize::try_from(u64::from_be_bytes(first))?;

    let chunks = range.start / CHUNK..range.end.div_ceil(CHUNK);
    let start = START + chunks.start * (CHUNK + TAG_BYTES);
    let mut found = Vec::new();
    file.seek(SeekFrom::Start(start as u64))?;
    for index in chunks.clone() {
        let mut chunk = vec![0; CHUNK.min(len - index * CHUNK)];
        file.read_exact(&mut chunk)?;
        file.read_exact(&mut tag)?;
        let is_last = index + 1 == len.div_ceil(CHUNK);
        opener.open(index as u64 + 1, is_last, &mut chunk, 0, tag)?;
        found.extend_from_slice(&chunk);
    }
    println!("for {range:?}, {} chunks were decrypted", chunks.len());
    Ok(found[range.start - chunks.start * CHUNK..][..range.len()].to_vec())
}
