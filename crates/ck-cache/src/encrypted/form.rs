//! What the headers of encrypted entries say.

use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};
use ck_crypto::{Fingerprint, Keyring, SALT_BYTES, Salt, TAG_BYTES};
use ck_frame::{Envelope, Header, Probe};
use serde_json::{Value, json};

use super::options::EncryptionOptions;
use super::tampered;
use crate::cache::EXTENSION;
use crate::contents::{ENCRYPTED, PYTHON_DEFAULT};

/// The name of the cipher in headers.
const CIPHER: &str = "AES-256-GCM";

/// The longest plain head that is believed.
const MOST_HEAD_BYTES: u64 = 2 << 20;

/// Bytes before the plain head in chunk 0: the length of the body.
pub(super) const LENGTH_BYTES: usize = 8;

pub(super) enum Form {
    /// That of the Python client; the header unless it is spread over the entry.
    SingleShot(Option<Header>),
    Chunked(Chunked),
}

/// What the header of an entry in chunks says.
pub(super) struct Chunked {
    /// The bytes up to the payload, to which all chunks are bound.
    pub(super) header: Bytes,
    pub(super) fingerprint: Fingerprint,
    pub(super) salt: Salt,
    pub(super) chunk_bytes: u64,
    /// Bytes of the plain head.
    pub(super) head_len: u64,
}

impl Form {
    /// The form of an entry that begins with `head`, in which the whole header is.
    pub(super) fn of(head: &Bytes, entry_len: u64) -> Result<Self> {
        let plain = || tampered("the entry is not encrypted");
        match ck_frame::probe(head, entry_len) {
            Ok(Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            })) => {
                if header.serializer() == ENCRYPTED {
                    let offset = usize::try_from(payload_offset).unwrap_or(usize::MAX);
                    let raw = head.get(..offset).ok_or_else(plain)?;
                    let form = Chunked::read(&header, head.slice_ref(raw));
                    return form.map(Self::Chunked).ok_or_else(|| {
                        tampered("the header of an encrypted entry is not one that is written")
                    });
                }
                if says_encrypted(&header) {
                    Ok(Self::SingleShot(Some(header)))
                } else {
                    Err(plain())
                }
            }
            // Only the whole of it tells.
            Ok(Probe::Ready(Envelope::Legacy)) => Ok(Self::SingleShot(None)),
            Ok(Probe::NeedBytes(_)) => Err(plain()),
            Err(error) => Err(plain().with_source(error)),
        }
    }
}

impl Chunked {
    /// A new form under the key of `keys` that encrypts.
    pub(super) fn new(
        keys: &Keyring,
        chunk_bytes: u32,
        head_len: usize,
        salt: Salt,
    ) -> Result<Self> {
        if head_len as u64 > MOST_HEAD_BYTES {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the head of an entry is too long to be encrypted",
            )
            .with("bytes", head_len)
            .with("most", MOST_HEAD_BYTES));
        }
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let header = Header::new(ENCRYPTED).with_extension(
            EXTENSION,
            json!({
                "layout": 1,
                "cipher": CIPHER,
                "key_fingerprint": keys.fingerprint().to_string(),
                "salt": hex(&salt),
                "chunk": chunk_bytes,
                "head": head_len,
            }),
        );
        Ok(Self {
            header: header.encode()?,
            fingerprint: keys.fingerprint(),
            salt,
            chunk_bytes: chunk_bytes.into(),
            head_len: head_len as u64,
        })
    }

    fn read(header: &Header, raw: Bytes) -> Option<Self> {
        let fields = header.extension(EXTENSION)?.as_object()?;
        let text = |name| fields.get(name).and_then(Value::as_str);
        let number = |name| fields.get(name).and_then(Value::as_u64);
        if number("layout") != Some(1) || text("cipher") != Some(CIPHER) {
            return None;
        }
        let digits = text("salt")?.as_bytes();
        let mut salt = [0; SALT_BYTES];
        if digits.len() != 2 * salt.len() {
            return None;
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        for (byte, pair) in salt.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        let (chunk_bytes, head_len) = (number("chunk")?, number("head")?);
        let is_credible =
            EncryptionOptions::allows_chunks_of(chunk_bytes) && head_len <= MOST_HEAD_BYTES;
        is_credible.then_some(Self {
            header: raw,
            fingerprint: Fingerprint::parse(text("key_fingerprint")?)?,
            salt,
            chunk_bytes,
            head_len,
        })
    }

    /// Where chunk 1 starts in the entry.
    pub(super) fn body_start(&self) -> u64 {
        self.header.len() as u64 + LENGTH_BYTES as u64 + self.head_len + TAG_BYTES as u64
    }

    /// Bytes of the entry whose plain body has `body_len` bytes.
    pub(super) fn entry_len(&self, body_len: u64) -> Option<u64> {
        let tags = body_len
            .div_ceil(self.chunk_bytes)
            .checked_mul(TAG_BYTES as u64)?;
        self.body_start().checked_add(body_len)?.checked_add(tags)
    }
}

/// What a header in the Python client's form says of its payload.
pub(super) struct Described {
    pub(super) fingerprint: Fingerprint,
    pub(super) format: String,
    pub(super) compressed: bool,
    pub(super) original_type: Option<String>,
    /// The header of the plain entry.
    pub(super) plain: Header,
}

pub(super) fn says_encrypted(header: &Header) -> bool {
    header.metadata().get("encrypted").and_then(Value::as_bool) == Some(true)
}

impl Described {
    /// Reads a header; every field that a tag does not prove must be the one that is written.
    pub(super) fn read(header: &Header, keys: &Keyring) -> Result<Self> {
        const KNOWN: [&str; 8] = [
            "format",
            "encoding",
            "compressed",
            "original_type",
            "encrypted",
            "tenant_id",
            "encryption_algorithm",
            "key_fingerprint",
        ];
        let wrong = || tampered("the header of an encrypted entry is not one that is written");
        if !says_encrypted(header) {
            return Err(tampered("the entry is not encrypted"));
        }
        let metadata = header.metadata();
        let text = |name| metadata.get(name).and_then(Value::as_str);
        let unknown = metadata.keys().any(|name| !KNOWN.contains(&&**name));
        if unknown
            || header.version() != "2.0"
            || header.extension(EXTENSION).is_some()
            || text("encoding") != Some("utf-8")
            || text("encryption_algorithm") != Some(CIPHER)
        {
            return Err(wrong());
        }
        if text("tenant_id") != Some(keys.tenant()) {
            return Err(tampered("the entry is another tenant's"));
        }
        let format = text("format").ok_or_else(wrong)?;
        let serializer = header.serializer();
        if !is_written_as(serializer, format) {
            return Err(wrong());
        }
        let compressed = metadata.get("compressed").and_then(Value::as_bool);
        let original_type = match metadata.get("original_type") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => return Err(wrong()),
        };
        let plain = ["format", "encoding", "compressed", "original_type"]
            .into_iter()
            .fold(Header::new(serializer), |header, name| {
                match metadata.get(name) {
                    Some(value) => header.with_metadata(name, value.clone()),
                    None => header,
                }
            });
        let fingerprint = text("key_fingerprint").and_then(Fingerprint::parse);
        Ok(Self {
            fingerprint: fingerprint.ok_or_else(wrong)?,
            format: format.to_owned(),
            compressed: compressed.ok_or_else(wrong)?,
            original_type,
            plain,
        })
    }

    /// What the Python client would read of a plain entry with this header; `None` when it would not, or when something
    /// of it would be lost.
    pub(super) fn of_plain(header: &Header, keys: &Keyring) -> Option<Self> {
        let metadata = header.metadata();
        let text = |name| metadata.get(name).and_then(Value::as_str);
        let format = text("format")?;
        let known = ["format", "encoding", "compressed", "original_type"];
        if metadata.keys().any(|name| !known.contains(&&**name)) {
            return None;
        }
        let is_stale_some_time = header
            .extension(EXTENSION)
            .is_some_and(|own| own.get("stale").is_some());
        if is_stale_some_time
            || !is_written_as(header.serializer(), format)
            || text("encoding") != Some("utf-8")
        {
            return None;
        }
        Some(Self {
            fingerprint: keys.fingerprint(),
            format: format.to_owned(),
            compressed: metadata.get("compressed")?.as_bool()?,
            original_type: Some(text("original_type")?.to_owned()),
            plain: header.clone(),
        })
    }

    /// The header of the encrypted entry, as the Python client writes it.
    pub(super) fn encode(&self, keys: &Keyring) -> Result<Bytes> {
        let header = Header::new(self.plain.serializer())
            .with_metadata("format", self.format.as_str())
            .with_metadata("encoding", "utf-8")
            .with_metadata("compressed", self.compressed)
            .with_metadata("original_type", self.original_type.as_deref())
            .with_metadata("encrypted", true)
            .with_metadata("tenant_id", keys.tenant())
            .with_metadata("encryption_algorithm", CIPHER)
            .with_metadata("key_fingerprint", self.fingerprint.to_string());
        Ok(header.encode()?)
    }
}

impl Described {
    /// Whether it is a value of the Python client, which nobody else reads.
    pub(super) fn is_python_value(&self) -> bool {
        self.format == "msgpack"
    }
}

/// Whether a serializer of the Python client writes this format: the name is not proven by a tag, the format is.
fn is_written_as(serializer: &str, format: &str) -> bool {
    match format {
        "arrow" => ["arrow", "ArrowSerializer"].contains(&serializer),
        "msgpack" => PYTHON_DEFAULT.contains(&serializer),
        _ => false,
    }
}
