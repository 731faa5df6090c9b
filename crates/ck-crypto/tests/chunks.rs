//! Guards against entries in chunks that others could not read or that give something else than what was encrypted:
//! the vectors of a second implementation (`chunks.py`), and damage of every kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ck_core::ErrorKind;
use ck_crypto::{ChunkOpener, ChunkSealer, Fingerprint, Keyring, MasterKey, Salt, TAG_BYTES};
use common::{master, unhex};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use serde_json::Value;

type Tag = [u8; TAG_BYTES];

/// Encrypted chunks with their tags.
type Chunks = Vec<(Vec<u8>, Tag)>;

#[test]
fn what_is_encrypted_is_what_the_second_implementation_encrypts() {
    for vector in vectors() {
        let fingerprint = vector.keys().fingerprint().to_string();
        assert_eq!(fingerprint, vector.fingerprint, "{}", vector.name);
        vector.entry();
    }
}

#[test]
fn the_key_of_an_entry_is_the_one_that_the_second_implementation_derives() {
    for vector in vectors() {
        let (header, plain) = (vector.header(), vector.plain());
        let is_last = u8::from(plain.len() == 1);
        let len = |field: &[u8]| u32::try_from(field.len()).unwrap().to_be_bytes();
        let cache_key = vector.cache_key.as_bytes();
        let bound = [
            &len(&header)[..],
            &header,
            &len(cache_key),
            cache_key,
            &[0; 8],
            &[is_last],
        ];
        let nonce = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, is_last];

        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &vector.entry_key).unwrap());
        let mut first = vector.entry()[header.len()..][..plain[0].len() + TAG_BYTES].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::from(bound.concat()), &mut first);
        assert_eq!(opened.unwrap(), plain[0], "{}", vector.name);
    }
}

#[test]
fn entries_of_the_second_implementation_are_read_from_computed_places_in_any_order() {
    for vector in vectors() {
        let (keys, header, body) = (vector.keys(), vector.header(), vector.body());
        let entry = vector.entry();
        let payload = &entry[header.len()..];
        let named = Fingerprint::parse(&vector.fingerprint).unwrap();
        let opener = ChunkOpener::new(&keys, named, &vector.salt, &header, &vector.cache_key);
        let opener = opener.unwrap();
        let last = body.len().div_ceil(vector.chunk);
        let body_start = 8 + vector.head.len() + TAG_BYTES;
        assert_eq!(payload.len(), body_start + body.len() + TAG_BYTES * last);

        // Backwards where they lie, then forwards with each chunk's bytes moved to the front.
        let backwards = (0..=last).rev().map(|index| (index, 0));
        let forwards = (0..=last).map(|index| (index, 7 + 33 * index));
        let plain = vector.plain();
        for (index, shift) in backwards.chain(forwards) {
            let start = match index {
                0 => 0,
                _ => body_start + (index - 1) * (vector.chunk + TAG_BYTES),
            };
            let expected = &plain[index];
            let (bytes, rest) = payload[start..].split_at(expected.len());
            let tag = rest[..TAG_BYTES].try_into().unwrap();
            let mut buffer = [&vec![0xee; shift][..], bytes].concat();
            let opened = opener.open(index as u64, index == last, &mut buffer, shift, tag);
            opened.unwrap();
            let found = &buffer[..expected.len()];
            assert_eq!(found, expected, "{} {index}", vector.name);
        }
    }
}

#[test]
fn any_single_flipped_bit_is_found() {
    let keys = Keyring::new(&master(1), &[], "acme").unwrap();
    let plain = [&b"the head"[..], b"some rows", b"", b"the last"].map(Vec::from);
    let (header, salt) = (*b"a header", [7; 32]);
    let sealed = seal(&keys, &salt, &header, "user:1", &plain);
    let open = |header: &[u8], cache_key: &str, salt: &Salt, chunks: &Chunks, index: usize| {
        open_all(&keys, salt, header, cache_key, chunks)[index].clone()
    };
    assert_eq!(
        open(&header, "user:1", &salt, &sealed, 1).unwrap(),
        plain[1]
    );
    for index in 0..plain.len() {
        for at in 0..8 * (plain[index].len() + TAG_BYTES) {
            let mut damaged = sealed.clone();
            let (bytes, tag) = &mut damaged[index];
            flip(bytes.iter_mut().chain(tag), at);
            let found = open(&header, "user:1", &salt, &damaged, index);
            assert_eq!(found, Err(ErrorKind::Tampered), "chunk {index}, bit {at}");
        }
        for at in 0..8 * header.len() {
            let mut damaged = header;
            flip(&mut damaged, at);
            let found = open(&damaged, "user:1", &salt, &sealed, index);
            assert_eq!(found, Err(ErrorKind::Tampered), "header, bit {at}");
        }
        for at in 0..8 * salt.len() {
            let mut damaged = salt;
            flip(&mut damaged, at);
            let found = open(&header, "user:1", &damaged, &sealed, index);
            assert_eq!(found, Err(ErrorKind::Tampered), "salt, bit {at}");
        }
        for other in ["", "user:", "user:2", "user:1 ", "User:1", "user:1\0"] {
            let found = open(&header, other, &salt, &sealed, index);
            assert_eq!(found, Err(ErrorKind::Tampered), "{other}");
        }
    }
}

#[test]
fn previous_keys_read_and_unknown_keys_are_tampering() {
    let old = Keyring::new(&master(1), &[], "acme").unwrap();
    let plain = [&b"head"[..], b"rows"].map(Vec::from);
    let (salt, header) = ([3; 32], b"header");
    let sealed = seal(&old, &salt, header, "k", &plain);
    let open = |keys: &Keyring, named| {
        let opener = ChunkOpener::new(keys, named, &salt, header, "k").map_err(|e| e.kind())?;
        open_one(&opener, 1, true, &sealed[1])
    };

    for previous in [
        vec![master(1)],
        vec![master(2), master(3), master(1)],
        vec![master(1), master(2), master(3)],
    ] {
        let rotated = Keyring::new(&master(9), &previous, "acme").unwrap();
        assert_eq!(open(&rotated, old.fingerprint()).unwrap(), plain[1]);
        // No other key is tried than the one that is named.
        let wrong = open(&rotated, rotated.fingerprint());
        assert_eq!(wrong, Err(ErrorKind::Tampered));
        // And what it encrypts itself, the old keys cannot read.
        assert!(!old.has(rotated.fingerprint()));
    }
    let without = Keyring::new(&master(9), &[master(2)], "acme").unwrap();
    assert_eq!(open(&without, old.fingerprint()), Err(ErrorKind::Tampered));
    let nobodys = Fingerprint::parse(&"0".repeat(32)).unwrap();
    assert_eq!(open(&old, nobodys), Err(ErrorKind::Tampered));
}

#[test]
fn indices_and_places_out_of_range_are_tampering() {
    let keys = Keyring::new(&master(1), &[], "acme").unwrap();
    let (salt, header) = ([3; 32], b"header");
    let sealed = seal(&keys, &salt, header, "k", &[b"head".to_vec(), vec![]]);
    let opener = ChunkOpener::new(&keys, keys.fingerprint(), &salt, header, "k").unwrap();
    for index in [2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX] {
        let found = open_one(&opener, index, true, &sealed[1]);
        assert_eq!(found, Err(ErrorKind::Tampered), "{index}");
    }
    let (bytes, tag) = &sealed[0];
    for start in [1, 3, 4, 5, 1000, usize::MAX] {
        let found = opener.open(0, false, &mut bytes.clone(), start, *tag);
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Tampered, "{start}");
    }
    // An empty chunk has a tag too, and may stand at the very end of the buffer.
    let (bytes, tag) = &sealed[1];
    assert!(bytes.is_empty());
    opener.open(1, true, &mut [0; 5], 5, *tag).unwrap();
}

/// An entry: what its keys are made of, what it is bound to, and the plain bytes of its chunks.
#[derive(Debug, Clone)]
struct Entry {
    master: u8,
    tenant: String,
    salt: Salt,
    header: Vec<u8>,
    cache_key: String,
    plain: Vec<Vec<u8>>,
}

impl Entry {
    fn keys(&self) -> Keyring {
        Keyring::new(&master(self.master), &[], &self.tenant).unwrap()
    }

    fn seal(&self) -> Chunks {
        seal(
            &self.keys(),
            &self.salt,
            &self.header,
            &self.cache_key,
            &self.plain,
        )
    }

    fn opener(&self) -> ChunkOpener {
        let keys = self.keys();
        ChunkOpener::new(
            &keys,
            keys.fingerprint(),
            &self.salt,
            &self.header,
            &self.cache_key,
        )
        .unwrap()
    }

    /// What each of `chunks` gives when this is the entry that is asked for.
    fn open(&self, chunks: &Chunks) -> Vec<Result<Vec<u8>, ErrorKind>> {
        open_all(
            &self.keys(),
            &self.salt,
            &self.header,
            &self.cache_key,
            chunks,
        )
    }
}

prop_compose! {
    fn entry()(
        master in any::<u8>(),
        tenant in "[a-z0-9é-]{1,12}",
        salt in any::<Salt>(),
        header in prop::collection::vec(any::<u8>(), 0..40),
        cache_key in ".{0,12}",
        plain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 1..6),
    ) -> Entry {
        Entry { master, tenant, salt, header, cache_key, plain }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x434b),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn chunks_come_back_in_any_order_from_any_place(
        entry in entry(),
        order in prop::collection::vec((any::<Index>(), 0..100_usize), 0..12),
    ) {
        let (sealed, opener) = (entry.seal(), entry.opener());
        let last = sealed.len() - 1;
        for (index, shift) in order {
            let index = index.index(sealed.len());
            let ((bytes, tag), plain) = (&sealed[index], &entry.plain[index]);
            prop_assert_eq!(bytes.len(), plain.len());
            let mut buffer = [&vec![0xee; shift][..], bytes].concat();
            opener.open(index as u64, index == last, &mut buffer, shift, *tag).unwrap();
            prop_assert_eq!(&buffer[..plain.len()], plain);
        }
    }

    #[test]
    fn a_chunk_at_another_place_is_tampering(entry in entry(), wrong in any::<u64>(), near in 0..8_u64) {
        let (sealed, opener) = (entry.seal(), entry.opener());
        let last = sealed.len() as u64 - 1;
        for (index, chunk) in (0..).zip(&sealed) {
            for wrong in [wrong, wrong % (1 << 32), near] {
                for is_last in [false, true] {
                    if (wrong, is_last) != (index, index == last) {
                        let found = open_one(&opener, wrong, is_last, chunk);
                        prop_assert_eq!(found, Err(ErrorKind::Tampered));
                    }
                }
            }
            let found = open_one(&opener, index, index != last, chunk);
            prop_assert_eq!(found, Err(ErrorKind::Tampered));
        }
    }

    #[test]
    fn missing_repeated_and_exchanged_chunks_are_tampering(entry in entry(), a in any::<Index>(), b in any::<Index>()) {
        let sealed = entry.seal();
        let (a, b) = (a.index(sealed.len()), b.index(sealed.len()));
        let is_whole = |chunks: &Chunks| entry.open(chunks).iter().all(Result::is_ok);
        prop_assert!(is_whole(&sealed));

        // The chunk in front of those that were cut off would be the last one then.
        for len in 1..sealed.len() {
            prop_assert_eq!(&entry.open(&sealed[..len].to_vec())[len - 1], &Err(ErrorKind::Tampered));
        }
        let mut longer = sealed.clone();
        longer.insert(a, sealed[b].clone());
        prop_assert!(!is_whole(&longer));
        let mut shorter = sealed.clone();
        shorter.remove(a);
        prop_assert!(shorter.is_empty() || !is_whole(&shorter));
        if a != b {
            let mut exchanged = sealed.clone();
            exchanged.swap(a, b);
            let found = entry.open(&exchanged);
            prop_assert_eq!(&found[a], &Err(ErrorKind::Tampered));
            prop_assert_eq!(&found[b], &Err(ErrorKind::Tampered));
        }
    }

    #[test]
    fn damaged_bytes_are_tampering(entry in entry(), index in any::<Index>(), bit in any::<Index>(), cut in any::<Index>()) {
        let (mut sealed, opener) = (entry.seal(), entry.opener());
        let index = index.index(sealed.len());
        let is_last = index == sealed.len() - 1;
        let open = |chunk: &(Vec<u8>, Tag)| open_one(&opener, index as u64, is_last, chunk);
        let chunk = &mut sealed[index];
        prop_assert_eq!(open(chunk).unwrap(), &entry.plain[index][..]);

        let mut longer = chunk.clone();
        longer.0.push(0);
        prop_assert_eq!(open(&longer), Err(ErrorKind::Tampered));
        if !chunk.0.is_empty() {
            let mut shorter = chunk.clone();
            shorter.0.truncate(cut.index(chunk.0.len()));
            prop_assert_eq!(open(&shorter), Err(ErrorKind::Tampered));
        }
        let bit = bit.index(8 * (chunk.0.len() + TAG_BYTES));
        flip(chunk.0.iter_mut().chain(&mut chunk.1), bit);
        prop_assert_eq!(open(chunk), Err(ErrorKind::Tampered));
    }

    #[test]
    fn an_entry_that_differs_in_anything_is_another_one(
        entry in entry(),
        other in entry(),
        header in (any::<Index>(), 1..=u8::MAX),
    ) {
        let mut others = vec![
            Entry { master: other.master, ..entry.clone() },
            Entry { tenant: other.tenant, ..entry.clone() },
            Entry { salt: other.salt, ..entry.clone() },
            Entry { header: other.header, ..entry.clone() },
            Entry { cache_key: other.cache_key, ..entry.clone() },
            Entry { header: [&entry.header[..], b"\0"].concat(), ..entry.clone() },
            Entry { cache_key: format!("{}\0", entry.cache_key), ..entry.clone() },
            Entry { tenant: format!("{}\0", entry.tenant), ..entry.clone() },
        ];
        if !entry.header.is_empty() {
            let mut changed = entry.clone();
            let (at, bits) = header;
            let at = at.index(changed.header.len());
            changed.header[at] ^= bits;
            others.push(changed);
        }
        let sealed = entry.seal();
        for other in others {
            let same = |a: &Entry, b: &Entry| {
                (a.master, &a.tenant, a.salt, &a.header, &a.cache_key)
                    == (b.master, &b.tenant, b.salt, &b.header, &b.cache_key)
            };
            for found in other.open(&sealed) {
                prop_assert_eq!(found.is_ok(), same(&entry, &other));
                prop_assert!(found.is_ok() || found == Err(ErrorKind::Tampered));
            }
        }
    }

    #[test]
    fn bytes_that_move_between_header_and_cache_key_are_tampering(
        text in "[a-z]{2,20}",
        a in any::<Index>(),
        b in any::<Index>(),
    ) {
        let (a, b) = (a.index(text.len() + 1), b.index(text.len() + 1));
        let keys = Keyring::new(&master(1), &[], "acme").unwrap();
        let salt = [1; 32];
        let sealed = seal(&keys, &salt, &text.as_bytes()[..a], &text[a..], &[b"head".to_vec()]);
        let found = &open_all(&keys, &salt, &text.as_bytes()[..b], &text[b..], &sealed)[0];
        prop_assert_eq!(found.is_ok(), a == b);
        prop_assert!(a == b || found == &Err(ErrorKind::Tampered));
    }
}

/// Encrypts all chunks: the first one last, as a writer has to.
fn seal(keys: &Keyring, salt: &Salt, header: &[u8], cache_key: &str, plain: &[Vec<u8>]) -> Chunks {
    let mut sealer = ChunkSealer::new(keys, salt, header, cache_key).unwrap();
    let mut sealed = vec![(Vec::new(), [0; TAG_BYTES])];
    for (at, chunk) in plain.iter().enumerate().skip(1) {
        let mut bytes = chunk.clone();
        let tag = sealer.seal(&mut bytes, at == plain.len() - 1).unwrap();
        sealed.push((bytes, tag));
    }
    let mut first = plain[0].clone();
    let tag = sealer.seal_first(&mut first, plain.len() == 1).unwrap();
    sealed[0] = (first, tag);
    sealed
}

/// What each of `chunks` gives, taken for all chunks of an entry.
fn open_all(
    keys: &Keyring,
    salt: &Salt,
    header: &[u8],
    cache_key: &str,
    chunks: &Chunks,
) -> Vec<Result<Vec<u8>, ErrorKind>> {
    let opener = ChunkOpener::new(keys, keys.fingerprint(), salt, header, cache_key).unwrap();
    let last = chunks.len() - 1;
    let open = |(index, chunk)| open_one(&opener, index as u64, index == last, chunk);
    chunks.iter().enumerate().map(open).collect()
}

fn open_one(
    opener: &ChunkOpener,
    index: u64,
    is_last: bool,
    (bytes, tag): &(Vec<u8>, Tag),
) -> Result<Vec<u8>, ErrorKind> {
    let mut buffer = bytes.clone();
    opener
        .open(index, is_last, &mut buffer, 0, *tag)
        .map_err(|error| error.kind())?;
    Ok(buffer)
}

fn flip<'a>(bytes: impl IntoIterator<Item = &'a mut u8>, bit: usize) {
    *bytes.into_iter().nth(bit / 8).unwrap() ^= 1 << (bit % 8);
}

/// One of `chunks.json`.
struct Vector {
    name: String,
    master: MasterKey,
    tenant: String,
    cache_key: String,
    salt: Salt,
    chunk: usize,
    head: Vec<u8>,
    body_len: usize,
    body_step: usize,
    fingerprint: String,
    entry_key: Vec<u8>,
    /// The whole entry, or what tells it from others.
    told: Value,
}

fn vectors() -> Vec<Vector> {
    let vectors: Value = serde_json::from_str(include_str!("chunks.json")).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 9);
    let read = |vector: &Value| {
        let text = |name| vector[name].as_str().unwrap().to_owned();
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        Vector {
            name: text("name"),
            master: MasterKey::from_hex(&text("master_key")).unwrap(),
            tenant: text("tenant"),
            cache_key: text("cache_key"),
            salt: unhex(&text("salt")).try_into().unwrap(),
            chunk: number(&vector["chunk"]),
            head: unhex(&text("head")),
            body_len: number(&vector["body"]["len"]),
            body_step: number(&vector["body"]["step"]),
            fingerprint: text("fingerprint"),
            entry_key: unhex(&text("entry_key")),
            told: vector["entry"].clone(),
        }
    };
    vectors.iter().map(read).collect()
}

impl Vector {
    fn keys(&self) -> Keyring {
        Keyring::new(&self.master, &[], &self.tenant).unwrap()
    }

    /// The frame up to its payload.
    fn header(&self) -> Vec<u8> {
        let salt: String = self.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            r#"{{"s": "ck-encrypted", "m": {{}}, "v": "2.0", "ck": {{"layout": 1, "cipher": "AES-256-GCM", "key_fingerprint": "{}", "salt": "{salt}", "chunk": {}, "head": {}}}}}"#,
            self.fingerprint,
            self.chunk,
            self.head.len(),
        );
        let len = u32::try_from(text.len()).unwrap().to_be_bytes();
        [b"CK\x03", &len[..], text.as_bytes()].concat()
    }

    fn body(&self) -> Vec<u8> {
        let byte = |at| u8::try_from(at * self.body_step % 251).unwrap();
        (0..self.body_len).map(byte).collect()
    }

    /// The plain bytes of all chunks.
    fn plain(&self) -> Vec<Vec<u8>> {
        let body = self.body();
        let mut first = (body.len() as u64).to_be_bytes().to_vec();
        first.extend_from_slice(&self.head);
        let rest = body.chunks(self.chunk).map(Vec::from);
        [first].into_iter().chain(rest).collect()
    }

    /// The whole entry as `ck-crypto` makes it, which is the one that the second implementation has made.
    fn entry(&self) -> Vec<u8> {
        let mut entry = self.header();
        let plain = self.plain();
        for (bytes, tag) in seal(&self.keys(), &self.salt, &entry, &self.cache_key, &plain) {
            entry.extend_from_slice(&bytes);
            entry.extend_from_slice(&tag);
        }
        let told = |name| unhex(self.told[name].as_str().unwrap());
        if self.told.get("hex").is_some() {
            assert_eq!(entry, told("hex"), "{}", self.name);
            return entry;
        }
        assert_eq!(entry.len() as u64, self.told["len"], "{}", self.name);
        assert!(entry.starts_with(&told("first")), "{}", self.name);
        assert!(entry.ends_with(&told("last")), "{}", self.name);
        let hash = digest(&SHA256, &entry);
        assert_eq!(hash.as_ref(), told("sha256"), "{}", self.name);
        entry
    }
}
