//! Payloads of values: FLM, ByteStorage, tensors, typed sections. A value, or a typed error; and what is read is
//! written again to the same effect.
#![no_main]

use std::panic;
use std::sync::Once;

use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodec, Flm, Sections, Tensor, bytestorage};
use ck_core::{Error, ErrorKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Panics of the Arrow decoder are caught and become errors: only one that gets out of the library counts.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let bytes = Bytes::copy_from_slice(bytes);

    match bytestorage::decode(&bytes) {
        Ok(document) => {
            let again = bytestorage::encode(&document).expect("it was read");
            assert_eq!(
                bytestorage::decode(&again).expect("it was written"),
                document
            );
        }
        Err(error) => check(&error),
    }
    match Flm::decode(&bytes) {
        Ok(value) => drop(value.to_bytes()),
        Err(error) => check(&error),
    }
    match Sections::parse(&bytes) {
        Ok(sections) => {
            for part in 0..sections.num_parts().min(64) {
                drop(sections.part(part));
                drop(sections.tensor(part));
                drop(sections.table(part));
            }
        }
        Err(error) => check(&error),
    }
    drop(CacheCodec::of::<Table>().deserialize(&bytes));
    drop(CacheCodec::of::<Tensor>().deserialize(&bytes));
});

fn check(error: &Error) {
    let expected = [
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::TooLarge,
    ];
    assert!(expected.contains(&error.kind()), "{error:?}");
}
