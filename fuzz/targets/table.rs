//! Entries with tables, Arrow files of others, and Arrow streams: a table of valid arrays, or a typed error.
//!
//! Hashes are not checked, or nothing but them would be fuzzed.
#![no_main]

use std::panic;
use std::sync::{Arc, Once};

use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use ck_arrow::{TableReader, Verification, decode_ipc_stream};
use ck_core::{Error, ErrorKind, MemoryEntry, Result, block_on};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Panics of the Arrow decoder are caught and become errors: only one that gets out of the library counts.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let bytes = Bytes::copy_from_slice(bytes);
    check(read(&bytes, Verification::Off));
    check(read(&bytes, Verification::OnTouch));
    check(decode_ipc_stream(&bytes).map(|table| table.batches().to_vec()));
});

fn read(bytes: &Bytes, verification: Verification) -> Result<Vec<RecordBatch>> {
    let entry = Arc::new(MemoryEntry::new(bytes.clone()));
    let table = block_on(TableReader::open(entry, verification))?;
    drop(table.layout());
    let batches = block_on(table.read_all())?;
    if table.num_rows() > 3 && table.schema().fields().len() > 1 {
        let part = table.project(&[1])?.rows(1..3)?;
        drop(block_on(part.read_all()));
    }
    Ok(batches)
}

fn check(result: Result<Vec<RecordBatch>>) {
    match result {
        Ok(batches) => {
            for column in batches.iter().flat_map(RecordBatch::columns) {
                column.to_data().validate_full().expect("a valid array");
            }
        }
        Err(error) => check_kind(&error),
    }
}

fn check_kind(error: &Error) {
    let expected = [
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::TooLarge,
    ];
    assert!(expected.contains(&error.kind()), "{error:?}");
}
