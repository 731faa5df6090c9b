//! The names of items. An entry has the name that the Python client gives it: prefix and key.

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use ck_core::Key;

/// The longest name that memcached takes.
const LONGEST: usize = 250;
/// Of entries whose key cannot be a name: the BLAKE2b-128 hash of the key follows in hex.
const HASHED: &str = "ckh:";
/// Of chunks: generation and index follow.
const CHUNK: &str = "ckc:";
/// Of leases: the BLAKE2b-128 hash of the key follows in hex.
const LEASE: &str = "ckl:";

/// The longest prefix that leaves room for all names.
pub(crate) const LONGEST_PREFIX: usize = 150;

/// Whether memcached's text protocol can carry the text, and every client takes it: visible ASCII.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The item of an entry, or of its manifest.
pub(crate) fn entry(prefix: &str, key: &Key) -> String {
    let text = key.as_str();
    let is_ours = [HASHED, CHUNK, LEASE]
        .iter()
        .any(|mark| text.starts_with(mark));
    let fits = prefix.len() + text.len() <= LONGEST;
    if fits && !text.is_empty() && is_plain(text) && !is_ours {
        return format!("{prefix}{text}");
    }
    format!("{prefix}{HASHED}{}", hash(key))
}

/// Whether an item of this name is an entry or its manifest, and which key it has. Of a hashed key nothing is
/// known.
pub(crate) fn key_of(prefix: &str, name: &str) -> Option<Option<Key>> {
    let text = name.strip_prefix(prefix)?;
    if !is_plain(name) || text.is_empty() || text.starts_with(CHUNK) || text.starts_with(LEASE) {
        return None;
    }
    Some((!text.starts_with(HASHED)).then(|| Key::new(text)))
}

/// The item of a chunk.
pub(crate) fn chunk(prefix: &str, generation: u128, index: usize) -> String {
    format!("{prefix}{CHUNK}{}", ck_frame::chunk_name(generation, index))
}

/// The item of a key's lease.
pub(crate) fn lease(prefix: &str, key: &Key) -> String {
    format!("{prefix}{LEASE}{}", hash(key))
}

fn hash(key: &Key) -> String {
    use std::fmt::Write;
    let hash = Blake2b::<U16>::digest(key.as_str().as_bytes());
    hash.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_memcached_takes_are_names_as_they_are() {
        let longest = "k".repeat(250);
        for text in ["a", "ns:f:mod.func:args:0123:1s", "%2e~", &longest] {
            assert_eq!(entry("", &Key::new(text)), text);
        }
        assert_eq!(entry("app:", &Key::new("a")), "app:a");
    }

    #[test]
    fn other_keys_are_hashed() {
        // hashlib.blake2b(b"a b", digest_size=16).hexdigest()
        let hashed = entry("p:", &Key::new("a b"));
        assert_eq!(hashed, "p:ckh:acc9227cc02e5f5c13e74125bce89499");
        let long = "k".repeat(251);
        let fits_alone = "k".repeat(249);
        for text in ["", " ", "a\n", "\0", "\u{7f}", "ключ", "a\tb", &long] {
            assert!(entry("", &Key::new(text)).starts_with("ckh:"), "{text:?}");
        }
        assert!(entry("p:", &Key::new(fits_alone.as_str())).starts_with("p:ckh:"));
    }

    #[test]
    fn no_key_is_named_like_a_chunk_a_lease_or_another_hashed_key() {
        for text in ["ckc:0:1", "ckl:x", &entry("", &Key::new("a b"))] {
            let name = entry("", &Key::new(text));
            assert_ne!(name, text);
            assert!(name.starts_with("ckh:"));
        }
    }

    #[test]
    fn entries_are_told_from_chunks_leases_and_what_has_another_prefix() {
        let key = Key::new("a");
        assert_eq!(key_of("p:", &entry("p:", &key)), Some(Some(key.clone())));
        assert_eq!(key_of("p:", &entry("p:", &Key::new("a b"))), Some(None));
        for name in [
            chunk("p:", 1, 1),
            lease("p:", &key),
            entry("q:", &key),
            "p:".to_owned(),
            "p:ключ".to_owned(),
        ] {
            assert_eq!(key_of("p:", &name), None, "{name}");
        }
    }

    #[test]
    fn all_names_fit_behind_the_longest_prefix() {
        let prefix = "p".repeat(LONGEST_PREFIX);
        let key = Key::new("x".repeat(1_000));
        for name in [
            entry(&prefix, &key),
            chunk(&prefix, u128::MAX, usize::MAX),
            lease(&prefix, &key),
        ] {
            assert!(name.len() <= LONGEST, "{name}");
        }
    }
}
