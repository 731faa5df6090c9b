//! Names and bytes of entry files, as the existing Python and Rust clients define them.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use ck_core::{Expiry, Key};

/// Bytes before the entry in its file.
pub(crate) const HEADER_LEN: usize = 14;
/// Where the expiry lies in the file.
pub(crate) const EXPIRY_OFFSET: u64 = 6;
/// Bit 0 of the flags: the entry holds Arrow data that can be mapped.
const MAPPABLE: u16 = 1;

const MAGIC: [u8; 2] = *b"CK";
const VERSION: u8 = 1;
const NAME_HEX: usize = 32;
const TEMP_MARK: &[u8] = b".tmp.";
const LEASE_PREFIX: &str = ".ck-lease-";

/// The BLAKE2b-128 hash of a key. Its lower-case hex form is the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) [u8; 16]);

impl Name {
    pub(crate) fn of(key: &Key) -> Self {
        Self(Blake2b::<U16>::digest(key.as_str().as_bytes()).into())
    }

    /// The name spelled by exactly 32 lower-case hex digits.
    pub(crate) fn parse(file_name: &[u8]) -> Option<Self> {
        let hex: &[u8; NAME_HEX] = file_name.try_into().ok()?;
        let mut name = [0; 16];
        for (byte, pair) in name.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(name))
    }

    /// The name of the file that stands for the lease of this entry. Hidden, so that other systems
    /// do not take it for an entry.
    pub(crate) fn lease_name(self) -> String {
        format!("{LEASE_PREFIX}{self}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; NAME_HEX];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// What tells two writers of one key apart: the process id in the high half, a number that starts at
/// random and counts up in the low half. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u64);

impl Token {
    pub(crate) fn fresh() -> Self {
        static NEXT: OnceLock<AtomicU32> = OnceLock::new();
        let next = NEXT.get_or_init(|| AtomicU32::new(random_u32()));
        let count = next.fetch_add(1, Ordering::Relaxed);
        Self(u64::from(std::process::id()) << 32 | u64::from(count))
    }

    /// The name of the writer's temporary file: `{hash}.tmp.{pid}.{16 hex digits}`.
    pub(crate) fn temp_name(self, name: Name) -> String {
        format!("{name}.tmp.{}.{:016x}", self.0 >> 32, self.0)
    }
}

/// The standard library's hasher keys are random per process; nothing here needs more than that.
fn random_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    u32::try_from(RandomState::new().hash_one(0) & 0xffff_ffff).unwrap_or_default()
}

/// What a file in the directory is, by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Entry(Name),
    /// The temporary file of one of our writers.
    OurTemp(Name, Token),
    /// The temporary file of a writer of another system.
    OtherTemp,
    /// The lease of the entry.
    Lease(Name),
    /// Nothing of ours: hidden, or named otherwise.
    Stranger,
}

impl FileKind {
    pub(crate) fn of(file_name: &[u8]) -> Self {
        if let Some(name) = Name::parse(file_name) {
            return Self::Entry(name);
        }
        if let Some(hex) = file_name.strip_prefix(LEASE_PREFIX.as_bytes()) {
            return Name::parse(hex).map_or(Self::Stranger, Self::Lease);
        }
        let Some((hex, rest)) = file_name.split_at_checked(NAME_HEX) else {
            return Self::Stranger;
        };
        let (Some(name), Some(tail)) = (Name::parse(hex), rest.strip_prefix(TEMP_MARK)) else {
            return Self::Stranger;
        };
        match parse_token(tail) {
            Some(token) => Self::OurTemp(name, token),
            None => Self::OtherTemp,
        }
    }
}

/// `{pid}.{16 hex digits}` whose two halves agree. Other systems write decimal nanoseconds there.
fn parse_token(tail: &[u8]) -> Option<Token> {
    let tail = std::str::from_utf8(tail).ok()?;
    let (pid, hex) = tail.split_once('.')?;
    let token = u64::from_str_radix(hex, 16).ok()?;
    (hex.len() == 16 && pid.parse() == Ok(token >> 32)).then_some(Token(token))
}

/// The 14 bytes before an entry.
pub(crate) fn header(expiry: Expiry, mappable: bool) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = VERSION;
    bytes[4..6].copy_from_slice(&(u16::from(mappable) * MAPPABLE).to_be_bytes());
    bytes[6..].copy_from_slice(&expiry.unix_seconds().to_be_bytes());
    bytes
}

/// What the first bytes of an entry file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// An entry of a kind we read; it may be expired.
    Known(Expiry),
    /// An entry transformed in a way we do not know: a miss that must stay where it is.
    Foreign,
    /// Short, or not an entry at all: to be removed.
    Damaged,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let Some(&[m0, m1, version, reserved, f0, f1, ref expiry @ ..]) =
            bytes.first_chunk::<HEADER_LEN>()
        else {
            return Self::Damaged;
        };
        if [m0, m1] != MAGIC || version != VERSION {
            return Self::Damaged;
        }
        if reserved != 0 || u16::from_be_bytes([f0, f1]) & !MAPPABLE != 0 {
            return Self::Foreign;
        }
        Self::Known(Expiry::from_unix_seconds(u64::from_be_bytes(*expiry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_python_client() {
        // hashlib.blake2b(b"...", digest_size=16).hexdigest()
        let key = Key::new("ns:app:func:m.f:args:abc:v1");
        assert_eq!(
            Name::of(&key).to_string(),
            "bcb35ae6f64fa65b2770ab3af631b1ce"
        );
        let name = Name::of(&Key::new(""));
        assert_eq!(name.to_string(), "cae66941d9efbd404e4d88758ea67670");
        assert_eq!(Name::parse(name.to_string().as_bytes()), Some(name));
    }

    #[test]
    fn only_lower_case_hashes_and_their_temporary_files_are_ours() {
        let name = Name::of(&Key::new("a"));
        let token = Token::fresh();
        let kind = |text: &str| FileKind::of(text.as_bytes());
        assert_eq!(kind(&name.to_string()), FileKind::Entry(name));
        assert_eq!(kind(&token.temp_name(name)), FileKind::OurTemp(name, token));
        assert_eq!(
            kind(&format!("{name}.tmp.7.1700000000000000000")),
            FileKind::OtherTemp
        );
        assert_eq!(
            kind(&format!("{name}.tmp.7.1700000000000000000.3")),
            FileKind::OtherTemp
        );
        assert_eq!(kind(&name.lease_name()), FileKind::Lease(name));
        for stranger in [
            "",
            ".ck-ledger",
            ".ck-lease-",
            &format!("{}0", name.lease_name()),
            "README",
            &name.to_string().to_uppercase(),
            &format!("{name}0"),
        ] {
            assert_eq!(kind(stranger), FileKind::Stranger, "{stranger}");
        }
    }

    #[test]
    fn a_header_reads_back_and_damage_is_told_from_what_we_do_not_know() {
        let expiry = Expiry::from_unix_seconds(0x0102_0304_0506_0708);
        let plain = header(expiry, false);
        assert_eq!(
            plain,
            *b"CK\x01\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08"
        );
        assert_eq!(Header::parse(&plain), Header::Known(expiry));
        let flagged = header(Expiry::NEVER, true);
        assert_eq!(flagged[4..6], [0, 1]);
        assert_eq!(Header::parse(&flagged), Header::Known(Expiry::NEVER));

        for len in 0..HEADER_LEN {
            assert_eq!(Header::parse(&plain[..len]), Header::Damaged);
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = plain;
            bytes[at] = byte;
            Header::parse(&bytes)
        };
        assert_eq!(with(0, b'X'), Header::Damaged);
        assert_eq!(with(2, 2), Header::Damaged);
        assert_eq!(with(3, 1), Header::Foreign);
        assert_eq!(with(4, 1), Header::Foreign);
        assert_eq!(with(5, 2), Header::Foreign);
        assert_eq!(Header::parse(&[0; 64]), Header::Damaged);
    }
}
