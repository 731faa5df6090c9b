//! Typed values in the `ck` cache: how they become bytes, and how they come back without a copy.
//!
//! - [`CacheKey`] is a key that knows the type of its value; [`CacheCodecImpl`] is a type that can be
//!   stored; [`CacheCodec`] is its codec without its name.
//! - Tables, record batches, arrays, [`Tensor`]s and bytes have codecs here; any `serde` type has one
//!   through `MessagePack`.
//! - [`SectionsWriter`] and [`Sections`] are for composite values: a small header, then large parts,
//!   each aligned so that it is used where it lies.
//! - [`Flm`] and [`bytestorage`] read and write the payloads of two Python clients.
//!
//! The bytes are specified in `docs/formats.md`. The crate knows no tiers and no stores.
//!
//! # Features
//!
//! - `messagepack` (default): `MessagePack`, `serde` headers of sections, ByteStorage values as JSON.
#![forbid(unsafe_code)]

mod error;

mod codec;
mod key;

mod align;
mod sections;

mod tensor;
mod tensor_message;
mod tensor_type;

mod values;

#[cfg(feature = "messagepack")]
mod messagepack;

pub mod bytestorage;
mod flm;

pub use codec::{CacheCodec, CacheCodecImpl};
pub use flm::Flm;
pub use key::CacheKey;
#[cfg(feature = "messagepack")]
pub use messagepack::MessagePack;
pub use sections::{Sections, SectionsWriter};
pub use tensor::{Order, Tensor};
