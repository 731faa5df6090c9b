//! Guards against entries of the Python client that are not read, against entries that it could not read, and against
//! damage and exchange that are not noticed. `tests/vectors` holds real output of cachekit 0.24.1 and 0.6.1; the full
//! collection beside the repository is read too where it exists, and must exist in CI.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ck_core::ErrorKind;
use ck_crypto::{Context, Fingerprint, Keyring, MasterKey, OVERHEAD_BYTES};
use common::{master, unhex};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;
use twox_hash::XxHash3_64;

const NONCE_BYTES: usize = 12;

#[test]
fn entries_of_the_python_client_are_decrypted() {
    for vector in vectors() {
        let plain = vector.open(&vector.keys(), &vector.context()).unwrap();
        assert_eq!(plain.len(), vector.sealed.len() - OVERHEAD_BYTES);
        match &*vector.format {
            // A checksum, then an Arrow IPC file.
            "arrow" => {
                let (hash, file) = plain.split_first_chunk().unwrap();
                assert_eq!(XxHash3_64::oneshot(file), u64::from_be_bytes(*hash));
                assert!(file.starts_with(b"ARROW1\0\0") && file.ends_with(b"ARROW1"));
            }
            // ByteStorage: in MessagePack an array of four, the first of which is bytes.
            "msgpack" => assert_eq!(plain[0], 0x94, "{}", vector.file),
            other => panic!("{}: nobody knows what {other} is", vector.file),
        }
    }
}

#[test]
fn previous_keys_decrypt_entries_of_the_python_client() {
    for vector in vectors() {
        let rotated = Keyring::new(&master(1), &[master(2), vector.master()], &vector.tenant);
        let rotated = rotated.unwrap();
        assert_ne!(rotated.fingerprint(), vector.fingerprint);
        vector.open(&rotated, &vector.context()).unwrap();
    }
}

#[test]
fn any_single_flipped_bit_is_found() {
    for vector in vectors() {
        let keys = vector.keys();
        let mut damaged = vector.sealed.clone();
        for at in 0..8 * damaged.len() {
            damaged.copy_from_slice(&vector.sealed);
            damaged[at / 8] ^= 1 << (at % 8);
            let found = keys.open(vector.fingerprint, &vector.context(), &mut damaged);
            let found = found.map_err(|error| error.kind());
            assert_eq!(found, Err(ErrorKind::Tampered), "{}: bit {at}", vector.file);
        }
    }
}

#[test]
fn entries_that_are_cut_or_longer_are_tampering() {
    for vector in vectors() {
        let (keys, context) = (vector.keys(), vector.context());
        let open = |mut bytes: Vec<u8>| {
            let found = keys.open(vector.fingerprint, &context, &mut bytes);
            found.map(drop).map_err(|error| error.kind())
        };
        for len in 0..vector.sealed.len() {
            let (front, back) = (
                &vector.sealed[..len],
                &vector.sealed[vector.sealed.len() - len..],
            );
            assert_eq!(open(front.to_vec()), Err(ErrorKind::Tampered), "{len}");
            assert_eq!(open(back.to_vec()), Err(ErrorKind::Tampered), "{len}");
        }
        for more in [&[0][..], &[0; 16], b"more"] {
            let longer = [&vector.sealed, more].concat();
            assert_eq!(open(longer), Err(ErrorKind::Tampered), "{more:?}");
        }
    }
}

#[test]
fn an_entry_in_another_context_is_tampering() {
    for vector in vectors() {
        let right = vector.context();
        let shorter = &right.cache_key[1..];
        let longer = format!("{}\0", right.cache_key);
        let upper = right.format.to_uppercase();
        for wrong in ["", shorter, &longer, "user:124:credentials"] {
            let wrong = Context {
                cache_key: wrong,
                ..right
            };
            vector.refuses(&vector.keys(), &wrong);
        }
        for wrong in ["", "json", &upper] {
            let wrong = Context {
                format: wrong,
                ..right
            };
            vector.refuses(&vector.keys(), &wrong);
        }
        let uncompressed = Context {
            compressed: !right.compressed,
            ..right
        };
        vector.refuses(&vector.keys(), &uncompressed);
        for wrong in [None, Some(""), Some("pickle"), Some(&*upper)] {
            let wrong = Context {
                original_type: wrong,
                ..right
            };
            vector.refuses(&vector.keys(), &wrong);
        }
    }
}

#[test]
fn an_entry_of_another_tenant_or_key_is_tampering() {
    for vector in vectors() {
        let right = vector.context();
        for tenant in ["default", "00000000-0000-0000-0000-000000000002"] {
            let keys = Keyring::new(&vector.master(), &[], tenant).unwrap();
            vector.refuses(&keys, &right);
            // Also when the entry is made to name a key that is here.
            let mut sealed = vector.sealed.clone();
            let found = keys.open(keys.fingerprint(), &right, &mut sealed);
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Tampered);
        }
        let longer = MasterKey::from_hex(&format!("{}aa", *vector.master().to_hex())).unwrap();
        for key in [master(1), longer] {
            let keys = Keyring::new(&key, &[], &vector.tenant).unwrap();
            vector.refuses(&keys, &right);
            let mut sealed = vector.sealed.clone();
            let found = keys.open(keys.fingerprint(), &right, &mut sealed);
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Tampered);
        }
        // The right key is here, and another one is named: it is not tried.
        let both = Keyring::new(&vector.master(), &[master(1)], &vector.tenant).unwrap();
        let nobodys = Fingerprint::parse(&"0".repeat(32)).unwrap();
        for named in [fingerprint(1, &vector.tenant), nobodys] {
            let mut sealed = vector.sealed.clone();
            let found = both.open(named, &right, &mut sealed);
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Tampered);
        }
    }
}

#[test]
fn keys_and_associated_data_are_what_the_format_says() {
    // Master key, tenant, key for the purpose `encryption`, fingerprint. Computed by the standard library of Python:
    //
    //     salt = b"cachekit_v1_" + b"\x0aencryption" + len(tenant).to_bytes(2, "big") + tenant
    //     key = hmac.digest(hmac.digest(salt, master, "sha256"), b"encryption\x01", "sha256")
    //     fingerprint = hashlib.sha256(b"key_fingerprint_v1" + key).digest()[:16]
    let ascending: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let forty: String = (0xa0..0xc8).map(|byte| format!("{byte:02x}")).collect();
    for (master, tenant, key, fingerprint) in [
        (
            "aa".repeat(32),
            "00000000-0000-0000-0000-000000000001",
            "bfdf67ce7ad34bd994df9b61c157fd0619b5aca43c0e45f9aeecf19ca74cb814",
            "1dc64d1e146a47691b36083b01385ee0",
        ),
        (
            ascending.clone(),
            "default",
            "c5e86e5b07aef4007cf2b95d6d47941d3d81cd38c33546ee12324e8ffa641bda",
            "1f42496441f47a81c6957e116519f95b",
        ),
        (
            forty,
            "default",
            "e1cb08b17100bd7da6decc4bf6dc743a75282eec47c78a772b3acebc3a990092",
            "41334ffdc54049a43929706a1c12b0f9",
        ),
        (
            ascending.clone(),
            "größe",
            "42e6abd0dd1a23c148d847b52e4889a81015b8325ec6f0a63bd228d6fcf9c759",
            "8e5ff9280330d480a8923feef2c82220",
        ),
        (
            ascending,
            &"t".repeat(65_535),
            "c053ef23c6c99baf1231698f083bd6853b15b0ec83dee182642a7987898e41b8",
            "577de68aa0904613ba03e759465d40c5",
        ),
    ] {
        let keys = Keyring::new(&MasterKey::from_hex(&master).unwrap(), &[], tenant).unwrap();
        assert_eq!(keys.fingerprint().to_string(), fingerprint);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &unhex(key)).unwrap());
        for original_type in [Some("arrow"), Some(""), None] {
            let context = Context {
                cache_key: "clé:1",
                format: "arrow",
                compressed: original_type.is_some(),
                original_type,
            };
            let sealed = keys.seal(&context, &[b"some ", b"rows"]).unwrap();
            let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().unwrap();
            let mut fields = vec![tenant, "clé:1", "arrow"];
            fields.push(if context.compressed { "True" } else { "False" });
            fields.extend(original_type.filter(|name| !name.is_empty()));
            let mut bound = vec![3];
            for field in fields {
                bound.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
                bound.extend_from_slice(field.as_bytes());
            }
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let mut sealed = sealed.to_vec();
            let opened = key.open_in_place(nonce, Aad::from(bound), &mut sealed);
            assert_eq!(opened.unwrap(), b"some rows");
        }
    }
}

#[test]
fn the_copied_vectors_are_those_of_the_collection() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let found: Vec<_> = vectors_in(&copies());
    assert_eq!(found.len(), 3);
    let originals = vectors_in(&collection);
    for copy in found {
        let is_same = |original: &&Vector| original.file == copy.file;
        let original = originals.iter().find(is_same).unwrap();
        assert_eq!(load(&copies(), &copy.file), load(&collection, &copy.file));
        assert_eq!(original.listed, copy.listed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x434b),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn what_is_encrypted_is_decrypted(
        (tenant, place) in (any_tenant(), place()),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5),
        key in 1..=u8::MAX,
    ) {
        let keys = Keyring::new(&master(key), &[], &tenant).unwrap();
        let rotated = Keyring::new(&master(0), &[master(key)], &tenant).unwrap();
        let slices: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        let sealed = keys.seal(&place.context(), &slices).unwrap();
        let plain = parts.concat();
        prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
        for keys in [&keys, &rotated] {
            let mut sealed = sealed.clone();
            let opened = keys.open(fingerprint(key, &tenant), &place.context(), &mut sealed);
            prop_assert_eq!(&opened.unwrap()[..], &plain[..]);
        }
        // The same bytes in the same place are encrypted to other ones.
        let again = keys.seal(&place.context(), &slices).unwrap();
        prop_assert_ne!(&again[..NONCE_BYTES], &sealed[..NONCE_BYTES]);
        prop_assert_ne!(&again[NONCE_BYTES..], &sealed[NONCE_BYTES..]);
    }

    #[test]
    fn an_entry_opens_in_its_own_place_only(
        (tenant, place) in (any_tenant(), place()),
        (other_tenant, other) in (any_tenant(), place()),
        chosen in any::<[bool; 5]>(),
    ) {
        let pick = |i: usize, own: &String, other: &String| if chosen[i] { own.clone() } else { other.clone() };
        let mixed = Place {
            cache_key: pick(0, &place.cache_key, &other.cache_key),
            format: pick(1, &place.format, &other.format),
            compressed: if chosen[2] { place.compressed } else { other.compressed },
            original_type: if chosen[3] { place.original_type.clone() } else { other.original_type },
        };
        let mixed_tenant = pick(4, &tenant, &other_tenant);
        let keys = Keyring::new(&master(1), &[], &tenant).unwrap();
        let mut sealed = keys.seal(&place.context(), &[b"rows"]).unwrap();
        let keys = Keyring::new(&master(1), &[], &mixed_tenant).unwrap();
        let found = keys.open(keys.fingerprint(), &mixed.context(), &mut sealed).map_err(|e| e.kind());
        if (&mixed, &mixed_tenant) == (&place, &tenant) {
            prop_assert_eq!(&found.unwrap()[..], b"rows");
        } else {
            prop_assert_eq!(found, Err(ErrorKind::Tampered));
        }
    }

    #[test]
    fn bytes_that_move_between_fields_are_tampering(
        text in "[a-z]{3,20}",
        a in any::<[Index; 2]>(),
        b in any::<[Index; 2]>(),
    ) {
        let cut = |at: [Index; 2]| {
            let mut at = at.map(|at| at.index(text.len() + 1));
            at.sort_unstable();
            Place {
                cache_key: text[..at[0]].to_owned(),
                format: text[at[0]..at[1]].to_owned(),
                compressed: true,
                original_type: Some(text[at[1]..].to_owned()),
            }
        };
        let (a, b) = (cut(a), cut(b));
        let keys = Keyring::new(&master(1), &[], "acme").unwrap();
        let mut sealed = keys.seal(&a.context(), &[b"rows"]).unwrap();
        let found = keys.open(keys.fingerprint(), &b.context(), &mut sealed).map_err(|e| e.kind());
        if a == b {
            prop_assert!(found.is_ok());
        } else {
            prop_assert_eq!(found, Err(ErrorKind::Tampered));
        }
    }
}

/// A [`Context`] that owns its text.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    cache_key: String,
    format: String,
    compressed: bool,
    original_type: Option<String>,
}

impl Place {
    fn context(&self) -> Context<'_> {
        Context {
            cache_key: &self.cache_key,
            format: &self.format,
            compressed: self.compressed,
            original_type: self.original_type.as_deref(),
        }
    }
}

fn any_tenant() -> impl Strategy<Value = String> {
    ".{1,12}"
}

fn place() -> impl Strategy<Value = Place> {
    let original_type = prop::option::of(".{1,8}");
    (".{0,12}", ".{0,8}", any::<bool>(), original_type).prop_map(
        |(cache_key, format, compressed, original_type)| Place {
            cache_key,
            format,
            compressed,
            original_type,
        },
    )
}

fn fingerprint(key: u8, tenant: &str) -> Fingerprint {
    Keyring::new(&master(key), &[], tenant)
        .unwrap()
        .fingerprint()
}

/// An entry of the Python client, and what its manifest and its header say of it.
struct Vector {
    file: String,
    listed: Value,
    tenant: String,
    cache_key: String,
    format: String,
    compressed: bool,
    original_type: String,
    fingerprint: Fingerprint,
    sealed: Vec<u8>,
}

impl Vector {
    fn new(set: &Path, listed: &Value) -> Self {
        let text = |name: &str| listed[name].as_str().unwrap().to_owned();
        let frame = ck_frame::read(&load(set, &text("file"))).unwrap();
        let metadata = frame.header.metadata();
        let field = |name: &str| metadata[name].as_str().unwrap().to_owned();
        if let Some(expected) = listed.get("metadata") {
            assert_eq!(*expected, Value::from(metadata.clone()));
        }
        assert_eq!(field("tenant_id"), text("tenant_id"));
        assert_eq!(field("encryption_algorithm"), "AES-256-GCM");
        Self {
            file: text("file"),
            listed: listed.clone(),
            tenant: text("tenant_id"),
            cache_key: text("cache_key"),
            format: field("format"),
            compressed: metadata["compressed"].as_bool().unwrap(),
            original_type: field("original_type"),
            fingerprint: Fingerprint::parse(&field("key_fingerprint")).unwrap(),
            sealed: frame.payload.to_vec(),
        }
    }

    fn master(&self) -> MasterKey {
        MasterKey::from_hex(self.listed["master_key_hex"].as_str().unwrap()).unwrap()
    }

    fn keys(&self) -> Keyring {
        let keys = Keyring::new(&self.master(), &[], &self.tenant).unwrap();
        assert_eq!(keys.fingerprint(), self.fingerprint);
        keys
    }

    fn context(&self) -> Context<'_> {
        Context {
            cache_key: &self.cache_key,
            format: &self.format,
            compressed: self.compressed,
            original_type: Some(&self.original_type),
        }
    }

    fn open(&self, keys: &Keyring, context: &Context<'_>) -> Result<Vec<u8>, ErrorKind> {
        let mut sealed = self.sealed.clone();
        let opened = keys.open(self.fingerprint, context, &mut sealed);
        opened
            .map(|plain| plain.to_vec())
            .map_err(|error| error.kind())
    }

    fn refuses(&self, keys: &Keyring, context: &Context<'_>) {
        let found = self.open(keys, context);
        assert_eq!(
            found,
            Err(ErrorKind::Tampered),
            "{}: {context:?}",
            self.file
        );
    }
}

/// The few vectors beside this file, and all of them where they exist.
fn vectors() -> Vec<Vector> {
    let sets = [copies()].into_iter().chain(testkit::vectors());
    sets.flat_map(|set| vectors_in(&set)).collect()
}

fn vectors_in(set: &Path) -> Vec<Vector> {
    let mut found = Vec::new();
    for manifest in ["manifest.json", "manifest-legacy.json"] {
        let manifest: Value = serde_json::from_slice(&load(set, manifest)).unwrap();
        let listed = manifest.get("vectors").unwrap_or(&manifest);
        for vector in listed.as_array().unwrap() {
            if vector["kind"].as_str().unwrap().ends_with("-encrypted") {
                found.push(Vector::new(set, vector));
            }
        }
    }
    assert!(
        found.len() >= 3,
        "{}: {} vectors",
        set.display(),
        found.len()
    );
    found
}

fn copies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn load(set: &Path, name: &str) -> Bytes {
    let path = set.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Bytes::from(bytes)
}
