//! What the tests of this crate share.

use ck_crypto::MasterKey;

/// The bytes that `text` spells in hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// Some master key, another one for each number.
pub(crate) fn master(number: u8) -> MasterKey {
    MasterKey::from_hex(&format!("{number:02x}").repeat(32)).unwrap()
}
