use ck_core::Key;

use crate::error::Fault;

/// How a cluster finds the node of a key.
const SLOTS: u16 = 16_384;

/// Names of what is being written, and of chunks, begin so, after the store's prefix. No entry should.
pub(crate) const PART: &str = "ck:part:";
/// Names of leases end so, as those of the Python client's locks do.
pub(crate) const LOCK: &str = ":lock";
/// Characters of a lease's token, ours and the Python client's.
pub(crate) const TOKEN_LEN: usize = 32;

/// The name of an entry's value on the server.
pub(crate) fn of_entry(prefix: &str, key: &Key) -> String {
    format!("{prefix}{key}")
}

/// The name of an entry's lease.
pub(crate) fn of_lease(entry: &str) -> String {
    format!("{entry}{LOCK}")
}

/// The name of a part of `entry` while it is written, and for good when the entry has several.
///
/// The first lies in the slot of the entry itself, so that it can be renamed to it. The others lie
/// anywhere, whatever braces the entry's name has.
pub(crate) fn of_part(prefix: &str, entry: &str, generation: u128, index: usize) -> String {
    let chunk = ck_frame::chunk_name(generation, index);
    let key = entry.strip_prefix(prefix).unwrap_or(entry);
    if index == 0 {
        format!("{prefix}{PART}{{{}}}:{chunk}:{key}", tag_for(entry))
    } else {
        format!("{prefix}{PART}{{{chunk}}}:{key}")
    }
}

/// Whether this names a part of an entry.
pub(crate) fn is_part(prefix: &str, name: &[u8]) -> bool {
    let rest = name.strip_prefix(prefix.as_bytes());
    rest.is_some_and(|rest| rest.starts_with(PART.as_bytes()))
}

/// The entry and the generation of a part.
pub(crate) fn owner(prefix: &str, part: &[u8]) -> Option<(String, u128)> {
    let part = std::str::from_utf8(part).ok()?;
    let rest = part.strip_prefix(prefix)?.strip_prefix(PART)?;
    let (tag, rest) = rest.strip_prefix('{')?.split_once("}:")?;
    let generation = |text: &str| {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
    };
    // The first part has the generation after the tag, the others in it.
    let mut words = rest.splitn(3, ':');
    if let (Some(hex), Some("0"), Some(key)) = (words.next(), words.next(), words.next())
        && let Some(generation) = generation(hex)
    {
        return Some((format!("{prefix}{key}"), generation));
    }
    let generation = generation(tag.split_once(':')?.0)?;
    Some((format!("{prefix}{rest}"), generation))
}

/// 128 random bits.
pub(crate) fn random() -> Result<u128, Fault> {
    let mut random = [0; 16];
    match getrandom::fill(&mut random) {
        Ok(()) => Ok(u128::from_le_bytes(random)),
        Err(error) => Err(Fault::Random(error.to_string())),
    }
}

/// A lease's token.
pub(crate) fn token() -> Result<String, Fault> {
    Ok(format!("{:032x}", random()?))
}

/// `text` with the characters that mean something to `SCAN MATCH` taken literally.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A text without braces that lies in the same slot as `name`, so that a name with this text as its hash
/// tag does too.
fn tag_for(name: &str) -> String {
    let hashed = hash_tag(name);
    if !hashed.is_empty() && !hashed.contains('}') {
        return hashed.to_owned();
    }
    // Any number that happens to lie there: one in 16384 does.
    let slot = slot(hashed);
    let mut number = 0_u32;
    loop {
        let tag = number.to_string();
        if self::slot(&tag) == slot {
            return tag;
        }
        number += 1;
    }
}

/// Where in a cluster the key `name` lies.
#[cfg(feature = "cluster")]
pub(crate) fn slot_of(name: &str) -> u16 {
    slot(hash_tag(name))
}

/// The part of `name` that decides its slot: what lies between the first `{` and the first `}` after it,
/// if that is something; else everything.
fn hash_tag(name: &str) -> &str {
    name.split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(name)
}

/// CRC-16/XMODEM of a hash tag, as the Redis cluster specification has it.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let carry = crc & 0x8000 != 0;
            (crc << 1) ^ if carry { 0x1021 } else { 0 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot(hash_tag("{user1000}.following")), slot("user1000"));
        assert_eq!(hash_tag("foo{}{bar}"), "foo{}{bar}");
        assert_eq!(hash_tag("foo{{bar}}zap"), "{bar");
        assert_eq!(hash_tag("foo{bar}{zap}"), "bar");
    }

    #[test]
    fn tokens_are_hexadecimal_and_differ() {
        let tokens = [token().unwrap(), token().unwrap()];
        assert_ne!(tokens[0], tokens[1]);
        for token in tokens {
            assert_eq!(token.len(), TOKEN_LEN);
            assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    proptest! {
        #[test]
        fn a_temporary_name_lies_in_the_slot_of_its_entry(entry in "[a-c{}é]{0,8}", prefix in "[ab:]{0,3}") {
            let entry = format!("{prefix}{entry}");
            let temp = of_part(&prefix, &entry, 255, 0);
            prop_assert_eq!(slot(hash_tag(&temp)), slot(hash_tag(&entry)), "{}", temp);
            for index in [0, 1, 70] {
                let part = of_part(&prefix, &entry, 1 << 100, index);
                prop_assert!(is_part(&prefix, part.as_bytes()));
                prop_assert_eq!(owner(&prefix, part.as_bytes()), Some((entry.clone(), 1 << 100)));
            }
        }
    }
}
