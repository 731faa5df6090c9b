use bytes::Bytes;
use ck_cache::{ErrorKind, PutOptions};

use super::support::{Fixture, batch, plain};

#[test]
fn bytes_of_any_size_come_back() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    for len in [0, 1, 1000, 64 << 10, 3 << 20] {
        let bytes: Bytes = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
        assert!(
            cache
                .put_bytes("b", bytes.clone(), &PutOptions::new())
                .unwrap()
                .is_stored()
        );
        assert_eq!(cache.get_bytes("b").unwrap().unwrap(), bytes);
        assert!(cache.verify("b").unwrap());
    }
    assert!(cache.get_bytes("missing").unwrap().is_none());
}

#[test]
fn every_flipped_bit_of_a_byte_entry_is_found() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let value = Bytes::from_static(b"a value that matters");
    let _ = cache
        .put_bytes("b", value.clone(), &PutOptions::new())
        .unwrap();
    let file = std::fs::read(&fixture.entry_files()[0]).unwrap();
    let payload = file.len() - value.len();
    for at in 14..file.len() {
        let _ = cache
            .put_bytes("b", value.clone(), &PutOptions::new())
            .unwrap();
        fixture.damage(|bytes| bytes[at] ^= 1);
        match cache.get_bytes("b") {
            Ok(None) => assert!(cache.stat("b").unwrap().is_none(), "still there: {at}"),
            // A changed name of the serializer or of the key says nothing of the payload.
            Ok(Some(found)) => assert!(found == value && at < payload, "{at}"),
            Err(error) => assert!(
                error.kind() == ErrorKind::Unsupported && at < payload,
                "{error}"
            ),
        }
    }
    assert!(cache.stats().corrupt > value.len() as u64);
}

#[test]
fn tables_and_bytes_are_not_taken_for_each_other() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let _ = cache.put_bytes("bytes", "b", &PutOptions::new()).unwrap();
    let _ = cache.put_table("table", batch(0, 10), &plain()).unwrap();
    assert_eq!(
        cache.open_table("bytes").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        cache.get_table("bytes").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        cache.get_bytes("table").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert!(cache.get_bytes("bytes").unwrap().is_some());
    assert!(cache.get_table("table").unwrap().is_some());
}
