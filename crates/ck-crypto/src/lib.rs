//! Encryption of cached values with AES-256-GCM, in two forms.
//!
//! - **At once** ([`Keyring::seal`], [`Keyring::open`]): what the Python client writes and reads. The whole value is in
//!   memory, and nothing of it can be read alone.
//! - **In chunks** ([`ChunkSealer`], [`ChunkOpener`]): for values of any size. Each chunk has a tag, so one can be read
//!   alone, and memory stays at a chunk; the tags together prove that none is missing, moved or of another entry.
//!
//! Keys come from a [`MasterKey`] by HKDF-SHA256, one for each tenant and form; a [`Keyring`] holds the one that encrypts
//! and previous ones that only decrypt. Key material is wiped when it is dropped and never shown. The crate knows
//! neither stores nor headers: what is bound to the bytes is the caller's to say. The bytes are specified in
//! docs/formats.md, the limits of the nonces argued in docs/design.md.
//!
//! The cipher is that of `ring`, which uses the processor's instructions for AES and multiplication where it has them.
//!
//! # Examples
//!
//! ```
//! use ck_crypto::{Context, Keyring, MasterKey};
//!
//! let keys = Keyring::new(&MasterKey::generate()?, &[], "acme")?;
//! let context = Context { cache_key: "user:1", format: "msgpack", compressed: true, original_type: None };
//! let mut sealed = keys.seal(&context, &[b"pass", b"word"])?;
//! assert_eq!(keys.open(keys.fingerprint(), &context, &mut sealed.clone())?, b"password");
//! sealed[20] ^= 1;
//! assert!(keys.open(keys.fingerprint(), &context, &mut sealed).is_err());
//! # Ok::<(), ck_core::Error>(())
//! ```
#![deny(unsafe_code)]

mod chunks;
mod keyring;
mod master;
mod secret;
mod single;

pub use chunks::{ChunkOpener, ChunkSealer, SALT_BYTES, Salt, new_salt};
pub use keyring::{DEFAULT_TENANT, Fingerprint, Keyring};
pub use master::MasterKey;
pub use single::Context;

use ck_core::{Error, ErrorKind};

/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// Bytes that an entry encrypted at once has beside its value: nonce and tag.
pub const OVERHEAD_BYTES: usize = 12 + TAG_BYTES;

/// The source of errors of kind [`ErrorKind::Tampered`] that say that a tag was tried with a key that is here, and did
/// not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongTag;

impl std::fmt::Display for WrongTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the tag does not fit")
    }
}

impl std::error::Error for WrongTag {}

fn tampered(message: &str) -> Error {
    Error::new(ErrorKind::Tampered, message)
}
