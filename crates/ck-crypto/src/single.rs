use ck_core::{Error, ErrorKind, Result};
use ring::aead::{Aad, NONCE_LEN, Nonce};

use crate::keyring::{Fingerprint, Keyring};
use crate::master::random;
use crate::{TAG_BYTES, WrongTag, tampered};

/// What the tag of an entry of the Python client proves beside the bytes: its place, and what its header says of it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The key that the entry is stored under, with all prefixes.
    pub cache_key: &'a str,
    /// The `format` of the header's metadata.
    pub format: &'a str,
    /// The `compressed` of the metadata.
    pub compressed: bool,
    /// The `original_type` of the metadata, if it has one.
    pub original_type: Option<&'a str>,
}

impl Context<'_> {
    fn aad(&self, tenant: &str) -> Result<Vec<u8>> {
        let compressed = if self.compressed { "True" } else { "False" };
        let original_type = self.original_type.filter(|text| !text.is_empty());
        let fields = [tenant, self.cache_key, self.format, compressed];
        let mut aad = vec![3];
        for field in fields.into_iter().chain(original_type) {
            let len = u32::try_from(field.len()).map_err(|_| {
                Error::new(
                    ErrorKind::Misuse,
                    "a key or a header is too long to be bound to an entry",
                )
                .with("bytes", field.len())
            })?;
            aad.extend_from_slice(&len.to_be_bytes());
            aad.extend_from_slice(field.as_bytes());
        }
        Ok(aad)
    }
}

impl Keyring {
    /// Encrypts the bytes of `parts` at once, as the Python client does: a random nonce (12 bytes), the encrypted bytes,
    /// the tag (16).
    ///
    /// One key may encrypt 2³² entries this way, so that random nonces repeat with a probability below 2⁻³²
    /// (NIST SP 800-38D, 8.3).
    ///
    /// # Memory
    ///
    /// The result.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] above 64 GiB, [`ErrorKind::Permanent`] when the system has no random bytes.
    pub fn seal(&self, context: &Context<'_>, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let aad = context.aad(self.tenant())?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + bytes + TAG_BYTES);
        sealed.extend_from_slice(&nonce);
        parts.iter().for_each(|part| sealed.extend_from_slice(part));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.current().single_shot.get();
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut sealed[NONCE_LEN..]);
        let tag = tag.map_err(|_| {
            Error::new(
                ErrorKind::TooLarge,
                "more bytes than can be encrypted at once",
            )
            .with("bytes", bytes)
        })?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Decrypts in place what [`Keyring::seal`] or the Python client has made; the plain bytes are a part of `sealed`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Tampered`] when no key here has this fingerprint, and when the bytes are not what was encrypted with
    /// it in this context. What `sealed` holds then means nothing.
    pub fn open<'a>(
        &self,
        fingerprint: Fingerprint,
        context: &Context<'_>,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        let key = self
            .find(fingerprint)
            .ok_or_else(|| unknown_key(fingerprint))?;
        let aad = context.aad(self.tenant())?;
        let Some((nonce, encrypted)) = sealed.split_first_chunk_mut() else {
            return Err(tampered("an encrypted entry is shorter than its nonce"));
        };
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .single_shot
            .get()
            .open_in_place(nonce, Aad::from(&aad), encrypted);
        opened.map_err(|_| {
            tampered("the bytes are not what was encrypted under this key").with_source(WrongTag)
        })
    }
}

pub(crate) fn unknown_key(fingerprint: Fingerprint) -> Error {
    tampered("the entry was encrypted with a key that is not here")
        .with("key_fingerprint", fingerprint)
}
