use std::fmt;

use ck_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

/// The fewest bytes of a master key.
const LEAST_BYTES: usize = 32;

/// The secret that all keys are derived from.
///
/// It is wiped when it is dropped, and neither `Debug` nor an error shows any of it.
///
/// # Examples
///
/// ```
/// use ck_crypto::MasterKey;
///
/// let key = MasterKey::generate()?;
/// assert_eq!(MasterKey::from_hex(&key.to_hex())?, key);
/// assert!(MasterKey::from_hex("c0ffee").is_err());
/// assert_eq!(format!("{key:?}"), "MasterKey");
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MasterKey(Zeroizing<Vec<u8>>);

impl MasterKey {
    /// A new key of 32 bytes from the system's random source.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permanent`] when the system has no random bytes.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; LEAST_BYTES]);
        random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The key that `text` spells in hexadecimal digits, two for a byte; ASCII white space is ignored, as in the Python client.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there are fewer than 64 digits, an odd number of them, or something that is no
    /// digit. The error says where, and not what.
    pub fn from_hex(text: &str) -> Result<Self> {
        let text = text.trim();
        let wrong = |message: &str| Error::new(ErrorKind::Misuse, message);
        let digit = |(at, char): (usize, char)| {
            let digit = char.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit.ok_or_else(|| {
                wrong("a master key consists of hexadecimal digits, and one character is none")
                    .with("position", at + 1)
            })
        };
        let mut digits = Zeroizing::new(Vec::with_capacity(text.len()));
        let chars = text.chars().enumerate();
        for char in chars.filter(|(_, char)| !char.is_ascii_whitespace()) {
            digits.push(digit(char)?);
        }
        if digits.len() % 2 != 0 || digits.len() < 2 * LEAST_BYTES {
            return Err(wrong(
                "a master key has 64 hexadecimal digits or more, two for each byte; `ck keygen` makes one",
            )
            .with("digits", digits.len()));
        }
        let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
        Ok(Self(Zeroizing::new(bytes.collect())))
    }

    /// The key in hexadecimal digits, wiped when dropped.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Zeroizing::new(String::with_capacity(2 * self.0.len()));
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        text
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In constant time.
impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        let differing = self
            .0
            .iter()
            .zip(other.0.iter())
            .fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == other.0.len() && std::hint::black_box(differing) == 0
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Fills `bytes` from the system's random source: the same in no two processes, forks and restarts.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(ErrorKind::Permanent, "the system gives no random bytes").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_text_is_refused_and_not_shown() {
        let long = "ab".repeat(32);
        for (text, what) in [
            ("", "digits: 0"),
            (&long[2..], "digits: 62"),
            (&format!("{long}a"), "digits: 65"),
            (&format!("{}xyz", &long[3..]), "position: 62"),
            (&format!("{}é{long}", &long[..4]), "position: 5"),
        ] {
            let error = MasterKey::from_hex(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(what), "{shown}");
            assert!(!shown.contains("abab") && !shown.contains("xy"), "{shown}");
        }
        let key = MasterKey::from_hex(&format!(" {} {}\n", &long[..2], long[2..].to_uppercase()))
            .unwrap();
        assert_eq!(*key.to_hex(), long);
    }

    #[test]
    fn generated_keys_differ() {
        let (a, b) = (
            MasterKey::generate().unwrap(),
            MasterKey::generate().unwrap(),
        );
        assert_ne!(a, b);
        assert_eq!(a.bytes().len(), 32);
    }
}
