//! What the Python client has encrypted, in both of its envelopes, read through a store.

use std::path::{Path, PathBuf};

use arrow_ipc::reader::FileReader;
use ck_cache::{Backend, read_entry};
use ck_cache::{Contents, Encrypted, EncryptionOptions, Key, Keyring, MasterKey, Verification};
use ck_core::block_on;
use serde_json::Value;

use super::edits::no_flip_is_read;
use super::support::{Fixture, cache};

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
