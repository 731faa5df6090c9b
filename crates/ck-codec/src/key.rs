use std::borrow::Cow;

use bytes::Bytes;

use crate::codec::CacheCodec;

/// A key that knows the type of its value.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use bytes::Bytes;
/// use ck_codec::{CacheCodec, CacheKey};
///
/// struct Thumbnail { image: u64 }
///
/// impl CacheKey for Thumbnail {
///     type Value = Bytes;
///
///     fn key(&self) -> Cow<'_, str> {
///         format!("thumbnail/{}", self.image).into()
///     }
///
///     fn codec(&self) -> Option<CacheCodec> {
///         Some(CacheCodec::of::<Bytes>())
///     }
///
///     fn heap_bytes(value: &Bytes, mapping: Option<&Bytes>) -> u64 {
///         // All of it is borrowed.
///         if mapping.is_some() { 0 } else { value.len() as u64 }
///     }
/// }
/// # assert_eq!(Thumbnail { image: 7 }.key(), "thumbnail/7");
/// ```
pub trait CacheKey {
    /// What the key stands for.
    type Value: Send + Sync + 'static;

    /// The key as text. Keys of different types share one space: include what tells them apart.
    fn key(&self) -> Cow<'_, str>;

    /// How the value is stored.
    ///
    /// Without a codec, which is the default, the value lives in the process only and is never sent to
    /// a store. The codec is that of [`CacheKey::Value`]; another one's values are refused.
    fn codec(&self) -> Option<CacheCodec> {
        None
    }

    /// The bytes on the heap that live as long as the value: what the in-process tier charges for it,
    /// beyond key and overhead. An allocation shared by parts of the value counts once, with its
    /// capacity rather than its length. Buffers that a value borrows from stored bytes count as well: it
    /// keeps them, and with a part of [`Sections`](crate::Sections) all of the entry.
    ///
    /// Except those that lie in `mapping`: that is a file mapped into the process, which the value was
    /// decoded out of, and no memory of the process.
    ///
    /// There is no default: a value that is charged too little breaks the budget of the tier.
    fn heap_bytes(value: &Self::Value, mapping: Option<&Bytes>) -> u64;
}
