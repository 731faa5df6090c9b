use ck_core::{Error, ErrorKind, Result};
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, Tag};

use crate::keyring::{Fingerprint, Keyring, expand};
use crate::master::random;
use crate::secret::{Wiped, aead};
use crate::single::unknown_key;
use crate::{TAG_BYTES, WrongTag, tampered};

/// Bytes of the salt that makes the key of an entry.
pub const SALT_BYTES: usize = 32;

/// Separates the keys of this version from those of others.
const INFO: &[u8] = b"ck-chunks v1";

/// The most chunks of an entry: an index has 32 bits.
const MOST_CHUNKS: u64 = 1 << 32;

/// The random bytes that make the key of an entry its own.
pub type Salt = [u8; SALT_BYTES];

/// The cipher of one entry that consists of chunks: each has a tag of its own, so it can be read alone.
///
/// The key is derived from the tenant's by a random salt, and the nonce of a chunk is its index, so no pair of key and
/// nonce occurs twice. A tag proves the chunk's bytes, its index, whether it is the last one, the entry's header, and the
/// cache key. The form follows STREAM ([Hoang, Reyhanitabar, Rogaway, Vizár 2015](https://eprint.iacr.org/2015/189)).
#[derive(Debug)]
struct Cipher {
    key: Wiped<LessSafeKey>,
    /// Header and cache key, each after its length.
    aad: Vec<u8>,
}

/// Encrypts the chunks of one entry, from chunk 1 on; chunk 0 comes last, because it holds what is known last.
///
/// # Examples
///
/// ```
/// use ck_crypto::{ChunkOpener, ChunkSealer, Keyring, MasterKey, new_salt};
///
/// let keys = Keyring::new(&MasterKey::generate()?, &[], "acme")?;
/// let salt = new_salt()?;
/// let mut sealer = ChunkSealer::new(&keys, &salt, b"header", "key")?;
/// let mut chunk = *b"rows";
/// let tag = sealer.seal(&mut chunk, true)?;
/// let mut head = *b"head";
/// let head_tag = sealer.seal_first(&mut head, false)?;
///
/// let opener = ChunkOpener::new(&keys, keys.fingerprint(), &salt, b"header", "key")?;
/// opener.open(1, true, &mut chunk, 0, tag)?;
/// assert_eq!(&chunk, b"rows");
/// assert!(opener.open(0, true, &mut head, 0, head_tag).is_err());
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ChunkSealer {
    cipher: Cipher,
    next: u64,
    /// The process that began the entry: in a fork of it the next index would be the same.
    process: u32,
}

/// Decrypts the chunks of one entry, in any order.
#[derive(Debug)]
pub struct ChunkOpener {
    cipher: Cipher,
}

/// A new salt from the system's random source.
///
/// # Errors
///
/// [`ErrorKind::Permanent`] when the system has no random bytes.
pub fn new_salt() -> Result<Salt> {
    let mut salt = [0; SALT_BYTES];
    random(&mut salt)?;
    Ok(salt)
}

impl ChunkSealer {
    /// For an entry with this header under this cache key. `salt` is used for no other entry ([`new_salt`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a header or key of 4 GiB or more.
    pub fn new(keys: &Keyring, salt: &Salt, header: &[u8], cache_key: &str) -> Result<Self> {
        let root = keys.current().chunks.bytes();
        let cipher = Cipher::new(root, salt, header, cache_key)?;
        Ok(Self {
            cipher,
            next: 1,
            process: std::process::id(),
        })
    }

    /// Encrypts the next chunk in place; its tag.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] after 2³² - 1 chunks, and for one above 64 GiB; [`ErrorKind::Misuse`] in another process
    /// than the one that began the entry, which goes on with it.
    pub fn seal(&mut self, chunk: &mut [u8], is_last: bool) -> Result<[u8; TAG_BYTES]> {
        self.check_process()?;
        let index = self.next;
        self.next += 1;
        self.cipher.seal(index, is_last, chunk)
    }

    fn check_process(&self) -> Result<()> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Misuse,
            "an entry cannot be written on in a fork of the process that began it; begin it anew",
        ))
    }

    /// Encrypts chunk 0 in place; its tag. It is the last one when there is no other.
    ///
    /// # Errors
    ///
    /// As [`ChunkSealer::seal`].
    pub fn seal_first(self, chunk: &mut [u8], is_last: bool) -> Result<[u8; TAG_BYTES]> {
        self.check_process()?;
        self.cipher.seal(0, is_last, chunk)
    }
}

impl ChunkOpener {
    /// For an entry that says of itself that it was encrypted with this key and salt, which has this header and was
    /// found under this cache key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Tampered`] when the key is not here; as [`ChunkSealer::new`].
    pub fn new(
        keys: &Keyring,
        fingerprint: Fingerprint,
        salt: &Salt,
        header: &[u8],
        cache_key: &str,
    ) -> Result<Self> {
        let key = keys
            .find(fingerprint)
            .ok_or_else(|| unknown_key(fingerprint))?;
        let cipher = Cipher::new(key.chunks.bytes(), salt, header, cache_key)?;
        Ok(Self { cipher })
    }

    /// Decrypts chunk `index`, whose encrypted bytes are those of `buffer` from `start` on; its plain bytes are the first
    /// ones of `buffer` then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Tampered`] when this is not what was encrypted as this chunk of this entry. What `buffer` holds then
    /// means nothing.
    pub fn open(
        &self,
        index: u64,
        is_last: bool,
        buffer: &mut [u8],
        start: usize,
        tag: [u8; TAG_BYTES],
    ) -> Result<()> {
        let wrong = || {
            tampered("a chunk of the entry is not what was encrypted under this key")
                .with("chunk", index)
                .with_source(WrongTag)
        };
        if index >= MOST_CHUNKS || start > buffer.len() {
            return Err(wrong());
        }
        let (aad, nonce) = self.cipher.place(index, is_last);
        let key = self.cipher.key.get();
        key.open_in_place_separate_tag(nonce, Aad::from(&aad), Tag::from(tag), buffer, start..)
            .map_err(|_| wrong())?;
        Ok(())
    }
}

impl Cipher {
    fn new(root: &[u8], salt: &Salt, header: &[u8], cache_key: &str) -> Result<Self> {
        let mut aad = Vec::with_capacity(8 + header.len() + cache_key.len() + 9);
        for field in [header, cache_key.as_bytes()] {
            let len = u32::try_from(field.len()).map_err(|_| {
                Error::new(
                    ErrorKind::Misuse,
                    "a key or a header is too long to be bound to an entry",
                )
                .with("bytes", field.len())
            })?;
            aad.extend_from_slice(&len.to_be_bytes());
            aad.extend_from_slice(field);
        }
        let key = aead(&expand(root, salt, INFO)?);
        let key = key.ok_or_else(|| Error::new(ErrorKind::Permanent, "a key could not be used"))?;
        Ok(Self { key, aad })
    }

    /// What chunk `index` is bound to, and its nonce.
    fn place(&self, index: u64, is_last: bool) -> (Vec<u8>, Nonce) {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(is_last);
        let mut aad = Vec::with_capacity(self.aad.len() + 9);
        aad.extend_from_slice(&self.aad);
        aad.extend_from_slice(&index.to_be_bytes());
        aad.push(u8::from(is_last));
        (aad, Nonce::assume_unique_for_key(nonce))
    }

    fn seal(&self, index: u64, is_last: bool, chunk: &mut [u8]) -> Result<[u8; TAG_BYTES]> {
        let too_large = || {
            Error::new(
                ErrorKind::TooLarge,
                "an entry has more chunks than can be encrypted",
            )
        };
        if index >= MOST_CHUNKS {
            return Err(too_large());
        }
        let (aad, nonce) = self.place(index, is_last);
        let sealed = self
            .key
            .get()
            .seal_in_place_separate_tag(nonce, Aad::from(&aad), chunk);
        let sealed = sealed.map_err(|_| too_large())?;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(sealed.as_ref());
        Ok(tag)
    }
}
