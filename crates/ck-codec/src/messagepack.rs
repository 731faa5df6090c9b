use std::io::Write;
use std::marker::PhantomData;

use bytes::Bytes;
use ck_core::Result;
use serde_core::Serialize;
use serde_core::de::{DeserializeOwned, DeserializeSeed};

use crate::align::write;
use crate::codec::CacheCodecImpl;
use crate::error::{damaged, misuse, unsupported};

/// Values nested deeper than this are refused, as JSON readers do.
const MAX_DEPTH: usize = 128;

/// A value of any `serde` type, stored as MessagePack with the names of the fields.
///
/// For small values: they are copied both ways. `VERSION` is that of `T`; raise it when `T` changes so
/// that values of before do not read, or read as something else. All `T` share the stored type
/// `ck.messagepack`; a type that wants its own implements [`CacheCodecImpl`].
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use ck_codec::{CacheCodecImpl, MessagePack};
///
/// let mut stored = Vec::new();
/// MessagePack::<_, 1>((7_u32, "seven".to_owned())).serialize(&mut stored)?;
/// let MessagePack((number, name)) = MessagePack::<(u32, String), 1>::deserialize(&stored.into())?;
/// assert_eq!((number, &*name), (7, "seven"));
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessagePack<T, const VERSION: u32 = 1>(pub T);

impl<T, const VERSION: u32> CacheCodecImpl for MessagePack<T, VERSION>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    const TYPE: &'static str = "ck.messagepack";
    const VERSION: u32 = VERSION;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        write(writer, &to_vec(&self.0)?)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        from_slice(data).map(Self)
    }
}

pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| misuse("a value cannot be written as MessagePack").with_source(error))
}

/// The one value that `data` is.
pub(crate) fn from_slice<T: DeserializeOwned>(data: &[u8]) -> Result<T> {
    from_slice_seed(PhantomData, data)
}

/// What `seed` makes of the one value that `data` is.
pub(crate) fn from_slice_seed<'de, S: DeserializeSeed<'de>>(
    seed: S,
    data: &'de [u8],
) -> Result<S::Value> {
    let mut deserializer = rmp_serde::Deserializer::new(data);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = seed.deserialize(&mut deserializer).map_err(|error| {
        let error_kind = match error {
            rmp_serde::decode::Error::DepthLimitExceeded => {
                unsupported("a value is nested too deeply")
            }
            _ => damaged("a value is not the MessagePack of its type"),
        };
        error_kind.with_source(error)
    })?;
    match *deserializer.get_ref() {
        [] => Ok(value),
        rest => Err(damaged("bytes follow a MessagePack value").with("bytes", rest.len())),
    }
}
