//! What other implementations have encrypted, read through a store: the Python client, in both of its envelopes, and the
//! one that was written from the page, in chunks.

use std::path::{Path, PathBuf};

use arrow_ipc::reader::FileReader;
use ck_cache::{Backend, read_entry};
use ck_cache::{Contents, Encrypted, EncryptionOptions, Key, Keyring, MasterKey, Verification};
use ck_core::block_on;
use ck_crypto::ChunkSealer;
use serde_json::Value;

use super::edits::no_flip_is_read;
use super::support::{Fixture, cache, read};

/// A vector as the manifests list it, in a directory, under its own cache key.
struct Vector {
    listed: Value,
    set: PathBuf,
    fixture: Fixture,
}

impl Vector {
    fn new(set: &Path, listed: &Value) -> Self {
        let mut fixture = Fixture::new(EncryptionOptions::new());
        let text = |name: &str| listed[name].as_str().unwrap();
        let master = MasterKey::from_hex(text("master_key_hex")).unwrap();
        let keys = Keyring::new(&master, &[], text("tenant_id")).unwrap();
        fixture.store = fixture.with(keys, EncryptionOptions::new());
        let stored = std::fs::read(set.join(text("file"))).unwrap();
        fixture.forge(text("cache_key"), &stored);
        Self {
            listed: listed.clone(),
            set: set.to_owned(),
            fixture,
        }
    }

    fn key(&self) -> &str {
        self.listed["cache_key"].as_str().unwrap()
    }

    fn is_read(&self) {
        let store: &Encrypted = &self.fixture.store;
        if let Some(expected) = self.listed["expected"].as_str() {
            let file = std::fs::File::open(self.set.join(expected)).unwrap();
            let expected = FileReader::try_new(file, None).unwrap();
            let found = cache(store).get_table(self.key()).unwrap().unwrap();
            let expected: Vec<_> = expected.map(Result::unwrap).collect();
            assert_eq!(found.batches(), expected);
            return;
        }
        let entry = block_on(store.open(&Key::new(self.key())))
            .unwrap()
            .unwrap();
        let contents = block_on(read_entry(entry, Verification::OnTouch)).unwrap();
        let Contents::MessagePack(document) = contents else {
            panic!("{contents:?}");
        };
        let found = ck_codec::bytestorage::to_json(&document).unwrap();
        assert_eq!(found.to_string(), self.listed["expected_json"].to_string());
    }
}

/// The few vectors of the crate that decrypts them, and all where they are.
fn vectors() -> Vec<Vector> {
    let copies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ck-crypto/tests/vectors");
    let sets = [copies].into_iter().chain(testkit::vectors());
    sets.flat_map(|set| {
        ["manifest.json", "manifest-legacy.json"].map(|manifest| {
            let manifest: Value =
                serde_json::from_slice(&std::fs::read(set.join(manifest)).unwrap()).unwrap();
            let listed = manifest
                .get("vectors")
                .unwrap_or(&manifest)
                .as_array()
                .unwrap();
            let encrypted = listed
                .iter()
                .filter(|vector| vector["kind"].as_str().unwrap().ends_with("-encrypted"));
            let found: Vec<_> = encrypted.map(|vector| Vector::new(&set, vector)).collect();
            assert!(!found.is_empty(), "{}", set.display());
            found
        })
    })
    .flatten()
    .collect()
}

#[test]
fn entries_of_the_python_client_are_read_through_a_store() {
    let vectors = vectors();
    assert!(vectors.len() >= 3);
    for vector in vectors {
        vector.is_read();
        assert_eq!(vector.fixture.store.stats().tampered, 0);
    }
}

#[test]
fn no_flipped_bit_of_them_is_read() {
    for vector in vectors().into_iter().take(3) {
        no_flip_is_read(&vector.fixture, vector.key());
    }
}

/// An entry in chunks laid out as docs/formats.md says, not as the store's writer does it.
fn from_the_page(vector: &Value, keys: &Keyring, head: &[u8], body: &[u8]) -> Vec<u8> {
    let text = |name: &str| vector[name].as_str().unwrap();
    let chunk = usize::try_from(vector["chunk"].as_u64().unwrap()).unwrap();
    let header = format!(
        r#"{{"s": "ck-encrypted", "m": {{}}, "v": "2.0", "ck": {{"layout": 1, "cipher": "AES-256-GCM", "key_fingerprint": "{}", "salt": "{}", "chunk": {chunk}, "head": {}}}}}"#,
        text("fingerprint"),
        text("salt"),
        head.len(),
    );
    let len = u32::try_from(header.len()).unwrap().to_be_bytes();
    let header = [b"CK\x03", &len[..], header.as_bytes()].concat();
    let salt = unhex(text("salt")).try_into().unwrap();
    let mut sealer = ChunkSealer::new(keys, &salt, &header, text("cache_key")).unwrap();
    let mut rest = Vec::new();
    let chunks = body.chunks(chunk);
    let last = chunks.len();
    for (at, plain) in chunks.enumerate() {
        let mut bytes = plain.to_vec();
        let tag = sealer.seal(&mut bytes, at + 1 == last).unwrap();
        rest.extend_from_slice(&bytes);
        rest.extend_from_slice(&tag);
    }
    let mut first = [&(body.len() as u64).to_be_bytes()[..], head].concat();
    let tag = sealer.seal_first(&mut first, body.is_empty()).unwrap();
    [header, first, tag.to_vec(), rest].concat()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn chunks_of_the_second_implementation_are_read_through_a_store() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ck-crypto/tests/chunks.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 9);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let number = |name: &str| usize::try_from(vector["body"][name].as_u64().unwrap()).unwrap();
        let byte = |at| u8::try_from(at * number("step") % 251).unwrap();
        let (head, body) = (unhex(text("head")), (0..number("len")).map(byte));
        let body: Vec<u8> = body.collect();

        let master = MasterKey::from_hex(text("master_key")).unwrap();
        let keys = Keyring::new(&master, &[], text("tenant")).unwrap();
        let stored = from_the_page(vector, &keys, &head, &body);
        let told = |name: &str| {
            vector["entry"]
                .get(name)
                .map(|told| unhex(told.as_str().unwrap()))
        };
        match told("hex") {
            Some(whole) => assert_eq!(stored, whole),
            None => {
                // The tag of the last chunk proves what is between.
                assert_eq!(stored.len() as u64, vector["entry"]["len"]);
                assert!(stored.starts_with(&told("first").unwrap()));
                assert!(stored.ends_with(&told("last").unwrap()));
            }
        }

        let fixture = Fixture::new(EncryptionOptions::new());
        let store = fixture.with(keys, EncryptionOptions::new());
        fixture.forge(text("cache_key"), &stored);
        let found = read(&store, text("cache_key"));
        assert_eq!(found, Some([head, body].concat()), "{}", text("name"));
    }
}
