//! Arrow tables as cache entries: bounded encoding, lazy verified decoding, memory accounting.
//!
//! An entry is a `CK` frame (see `ck-frame`) around an Arrow IPC *file* that every Arrow reader can
//! read, plus what makes it a good cache entry: hashes of each column of each batch, so that nothing is
//! hashed that is not used, and positions that let a mapped entry be used where it lies. The bytes are
//! specified in `docs/formats.md`.
//!
//! - [`Encoder`] turns record batches into an entry, segment by segment, in bounded memory.
//! - [`TableReader`] reads entries lazily: by batch, by column, by row range.
//! - [`encode_ipc_stream`] and [`decode_ipc_stream`] are for tables inside other values.
//! - [`Table::heap_bytes`] and [`retained_bytes`] tell what tables keep in memory, [`Table::compacted`] and
//!   [`compact`] let go of what they do not use, and an [`Interner`] has them share their schemas.
//!
//! The crate does not know where bytes live: it writes segments and reads any
//! [`ck_core::EntryReader`].
#![forbid(unsafe_code)]

mod compression;
mod options;

mod codec;
mod dictionary;
mod encode;
mod gather;

mod buffer_pool;
mod measure;
mod nested;
mod output;
mod pool;
mod record;
mod slice;
mod tidy;

mod extent;
mod hash;
mod head;
mod index;
mod message;

mod content;
mod decode;
mod fetch;
mod footer;
mod layout;
mod locate;
mod reader;
mod stored_batch;
mod stream;
mod undecoded;
mod window;

mod footprint;

mod compact;
mod intern;
mod ipc_stream;
mod table;

pub use compact::compact;
pub use compression::{Codec, Compression};
pub use encode::{Encoded, Encoder};
pub use footprint::retained_bytes;
pub use intern::{Interned, Interner};
pub use ipc_stream::{decode_ipc_stream, encode_ipc_stream};
pub use layout::{BlockLayout, Layout, UnitLayout};
pub use options::EncodeOptions;
pub use reader::{Batches, TableReader, Verification, Windows};
pub use stored_batch::StoredBatch;
pub use stream::TableStream;
pub use table::Table;
