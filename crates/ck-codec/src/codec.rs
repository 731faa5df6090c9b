use std::any::Any;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use ck_core::Result;

use crate::align::{ALIGNMENT, padding, write};
use crate::error::{damaged, misuse, unsupported};

/// A type that can be stored: how it becomes bytes, and how it comes back.
///
/// `deserialize` should borrow from what it is given: slices of `data` share its memory, so Arrow
/// buffers and tensors need no copy. `data` starts at a multiple of 64 in memory when the store can
/// arrange that (mapped files and buffered reads of this project do); a value must also come back from
/// misaligned bytes, if by a copy.
///
/// The type and the version are stored with each value by [`CacheCodec`]. Values of another type or
/// version are misses, never decoded.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use bytes::Bytes;
/// use ck_codec::CacheCodecImpl;
/// use ck_core::{Error, ErrorKind, Result};
///
/// struct Name(String);
///
/// impl CacheCodecImpl for Name {
///     const TYPE: &'static str = "example.name";
///     const VERSION: u32 = 1;
///
///     fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
///         writer.write_all(self.0.as_bytes())
///             .map_err(|error| Error::new(ErrorKind::Transient, "cannot write").with_source(error))
///     }
///
///     fn deserialize(data: &Bytes) -> Result<Self> {
///         let text = std::str::from_utf8(data)
///             .map_err(|error| Error::new(ErrorKind::Corrupt, "a name is not text").with_source(error))?;
///         Ok(Self(text.to_owned()))
///     }
/// }
/// ```
pub trait CacheCodecImpl: Sized + Send + Sync + 'static {
    /// What the type is called where it is stored, at most 255 bytes. Never changed, never given to
    /// another type: the name in Rust does not do.
    const TYPE: &'static str;

    /// The version of the bytes. Raised when they change in a way that older code cannot read.
    const VERSION: u32;

    /// Writes the value. Large parts are written from where they lie.
    ///
    /// # Errors
    ///
    /// Those of the writer, and [`Unsupported`](ck_core::ErrorKind::Unsupported) for a value that has no
    /// stored form.
    fn serialize(&self, writer: &mut dyn Write) -> Result<()>;

    /// The value of what `serialize` wrote, borrowing from `data`.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ck_core::ErrorKind::Corrupt) for bytes that `serialize` cannot have written. Never
    /// panics, and takes no memory that `data` merely claims to need.
    fn deserialize(data: &Bytes) -> Result<Self>;
}

/// How values of one type are stored, without naming the type: two function pointers.
///
/// The contract is that of Lance's codec of the same name: a value is an `Arc<dyn Any>`, so tiers and
/// stores handle values of all types alike.
///
/// Stored values start with their type and its version, see `docs/formats.md`, "Typed values"; what
/// the type itself writes starts at a multiple of 64 from there.
///
/// # Examples
///
/// ```
/// use std::any::Any;
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use ck_codec::{CacheCodec, Tensor};
/// use ck_core::ErrorKind;
///
/// let codec = CacheCodec::of::<Bytes>();
/// let value: Arc<dyn Any + Send + Sync> = Arc::new(Bytes::from_static(b"any bytes"));
/// let mut stored = Vec::new();
/// codec.serialize(&value, &mut stored)?;
///
/// let stored = Bytes::from(stored);
/// let value = codec.deserialize(&stored)?;
/// assert_eq!(value.downcast_ref::<Bytes>().map(|bytes| &bytes[..]), Some(&b"any bytes"[..]));
///
/// let other = CacheCodec::of::<Tensor>().deserialize(&stored);
/// assert_eq!(other.unwrap_err().kind(), ErrorKind::Unsupported);
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CacheCodec {
    type_name: &'static str,
    version: u32,
    /// Given value, label and writer; `None` for a value of another type.
    serialize: Serialize,
    deserialize: fn(&Bytes) -> Result<Value>,
}

/// A value without its type.
type Value = Arc<dyn Any + Send + Sync>;

type Serialize = fn(&Value, &[u8], &mut dyn Write) -> Option<Result<()>>;

impl CacheCodec {
    /// The codec of a type.
    #[must_use]
    pub const fn of<T: CacheCodecImpl>() -> Self {
        Self {
            type_name: T::TYPE,
            version: T::VERSION,
            serialize: |value, label, writer| {
                let value = value.downcast_ref::<T>()?;
                Some(write(writer, label).and_then(|()| value.serialize(writer)))
            },
            deserialize: |data| Ok(Arc::new(T::deserialize(data)?)),
        }
    }

    /// What the type is called where it is stored: [`CacheCodecImpl::TYPE`].
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The version of its bytes: [`CacheCodecImpl::VERSION`].
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Writes type, version and value.
    ///
    /// A writer that wants its own [`ck_core::Error`] to come back wraps it into the
    /// [`io::Error`](std::io::Error).
    ///
    /// # Errors
    ///
    /// [`Misuse`](ck_core::ErrorKind::Misuse) for a value of another type, before anything is written;
    /// else those of [`CacheCodecImpl::serialize`].
    pub fn serialize(
        &self,
        value: &Arc<dyn Any + Send + Sync>,
        writer: &mut dyn Write,
    ) -> Result<()> {
        let label = Label::of(self)?;
        (self.serialize)(value, &label, writer).unwrap_or_else(|| {
            Err(misuse("a codec was given a value of another type").with("type", self.type_name))
        })
    }

    /// Reads a value, which borrows from `data`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ck_core::ErrorKind::Unsupported) for a value of another type or version,
    /// [`Corrupt`](ck_core::ErrorKind::Corrupt) for anything else that is not what was written. To a
    /// cache, both are misses.
    pub fn deserialize(&self, data: &Bytes) -> Result<Arc<dyn Any + Send + Sync>> {
        let (label, body) = Label::parse(data)?;
        if (label.type_name, label.version) != (self.type_name.as_bytes(), self.version) {
            let found = String::from_utf8_lossy(label.type_name);
            return Err(
                unsupported("the stored value is of another type or version")
                    .with("stored", format_args!("{found} {}", label.version))
                    .with(
                        "wanted",
                        format_args!("{} {}", self.type_name, self.version),
                    ),
            );
        }
        (self.deserialize)(&data.slice(body..))
    }
}

const MAGIC: &[u8; 4] = b"CKTV";
const LABEL_VERSION: u8 = 1;
const FIXED_LEN: usize = 12;

/// What stands before each value.
struct Label<'a> {
    type_name: &'a [u8],
    version: u32,
}

impl<'a> Label<'a> {
    fn of(codec: &CacheCodec) -> Result<Vec<u8>> {
        let name_len = u8::try_from(codec.type_name.len()).ok();
        let Some(name_len) = name_len.filter(|len| *len > 0) else {
            return Err(misuse("the name of a stored type has 1 to 255 bytes")
                .with("type", codec.type_name));
        };
        let mut label = Vec::with_capacity(FIXED_LEN + codec.type_name.len() + ALIGNMENT);
        label.extend_from_slice(MAGIC);
        label.extend_from_slice(&[LABEL_VERSION, name_len, 0, 0]);
        label.extend_from_slice(&codec.version.to_le_bytes());
        label.extend_from_slice(codec.type_name.as_bytes());
        label.extend_from_slice(padding(label.len() as u64));
        Ok(label)
    }

    /// The label, and where the value starts.
    fn parse(data: &'a [u8]) -> Result<(Self, usize)> {
        let not_a_value = || damaged("the bytes are no typed value");
        let (fixed, rest) = data
            .split_first_chunk::<FIXED_LEN>()
            .ok_or_else(not_a_value)?;
        let [
            m0,
            m1,
            m2,
            m3,
            label_version,
            name_len,
            _,
            _,
            v0,
            v1,
            v2,
            v3,
        ] = *fixed;
        if [m0, m1, m2, m3] != *MAGIC {
            return Err(not_a_value());
        }
        if label_version != LABEL_VERSION {
            return Err(unsupported("the stored value is of a later format")
                .with("label_version", label_version));
        }
        let type_name = rest.get(..name_len.into()).ok_or_else(not_a_value)?;
        let body = (FIXED_LEN + type_name.len()).next_multiple_of(ALIGNMENT);
        if body > data.len() {
            return Err(not_a_value());
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        Ok((Self { type_name, version }, body))
    }
}
