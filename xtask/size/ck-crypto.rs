//! Encrypts a text in a chunk and decrypts it again.
use ck_crypto::{ChunkOpener, ChunkSealer, Keyring, MasterKey, new_salt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = Keyring::new(&MasterKey::generate()?, &[], "size")?;
    let salt = new_salt()?;
    let mut text = std::env::args().next().unwrap_or_default().into_bytes();
    let tag = ChunkSealer::new(&keys, &salt, b"header", "key")?.seal(&mut text, true)?;
    let opener = ChunkOpener::new(&keys, keys.fingerprint(), &salt, b"header", "key")?;
    opener.open(1, true, &mut text, 0, tag)?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
