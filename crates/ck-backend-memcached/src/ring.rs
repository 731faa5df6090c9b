//! Which server has a key: the choice that pymemcache's `HashClient` makes.

/// The index of the server among `names` (`"host:port"`) that has this key: the one for which the hash of
/// `"name-key"` is highest (rendezvous hashing). Servers that come or go move no other keys than theirs.
pub(crate) fn choose<'a>(names: impl IntoIterator<Item = &'a str>, key: &str) -> usize {
    let mut text = String::with_capacity(64 + key.len());
    let mut best: Option<(u32, &str, usize)> = None;
    for (index, name) in names.into_iter().enumerate() {
        text.clear();
        text.push_str(name);
        text.push('-');
        text.push_str(key);
        let score = murmur3(text.as_bytes());
        // The same score: the greater name, as there.
        if best.is_none_or(|(most, other, _)| (score, name) > (most, other)) {
            best = Some((score, name, index));
        }
    }
    best.map_or(0, |(_, _, index)| index)
}

/// MurmurHash3, 32 bits, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |word: u32| {
        word.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let (words, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for &word in words {
        hash ^= mix(u32::from_le_bytes(word));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let mut word = [0; 4];
        word[..tail.len()].copy_from_slice(tail);
        hash ^= mix(u32::from_le_bytes(word));
    }
    // The algorithm takes the length modulo 2^32; names and keys are far shorter.
    hash ^= u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_pymemcache() {
        // pymemcache.client.murmur3.murmur3_32 of pymemcache 4.0.0.
        for (text, hash) in [
            ("", 0x0000_0000_u32),
            ("a", 0x3c25_69b2_u32),
            ("ab", 0x9bbf_d75f_u32),
            ("abc", 0xb3dd_93fa_u32),
            ("abcd", 0x43ed_676a_u32),
            ("hello, world", 0x149b_bb7f_u32),
            ("10.0.0.1:11211-some/key", 0xcc65_333a_u32),
        ] {
            assert_eq!(murmur3(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn servers_are_those_of_pymemcache() {
        // RendezvousHash(nodes).get_node(f"key:{i}") of pymemcache 4.0.0.
        let nodes = ["10.0.0.1:11211", "10.0.0.2:11211", "cache-3:11212"];
        let expected = [
            1, 2, 1, 2, 0, 2, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 2, 2, 0, 1, 0, 0, 1, 2,
        ];
        for (i, &expected) in expected.iter().enumerate() {
            assert_eq!(choose(nodes, &format!("key:{i}")), expected, "key:{i}");
        }
    }

    #[test]
    fn a_server_more_takes_keys_and_moves_no_others() {
        let nodes: Vec<String> = (0..5).map(|i| format!("cache-{i}:11211")).collect();
        let choose =
            |count: usize, key: &str| choose(nodes[..count].iter().map(String::as_str), key);
        let mut moved = 0;
        for i in 0..5_000 {
            let key = format!("some/key/{i}");
            let (before, after) = (choose(4, &key), choose(5, &key));
            assert!(before == after || after == 4);
            moved += usize::from(before != after);
        }
        assert!((800..1_200).contains(&moved), "{moved} of 5000 moved");
    }
}
