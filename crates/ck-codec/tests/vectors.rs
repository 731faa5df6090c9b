//! Guards against payloads of the Python clients that are refused, or read as something else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type};
use arrow_array::{ArrowPrimitiveType, RecordBatch};
use bytes::Bytes;
use ck_arrow::{TableReader, Verification};
use ck_codec::{Flm, Order, Tensor};
use ck_core::{ErrorKind, MemoryEntry, block_on};
use serde_json::{Value, json};

/// The few vectors beside this file, and all of them where they exist.
fn vector_sets() -> Vec<PathBuf> {
    let few = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    [few].into_iter().chain(testkit::vectors()).collect()
}

/// The payloads of a directory, with what the manifest says of each.
fn vectors(directory: &str) -> Vec<(Value, PathBuf, Bytes)> {
    let mut found = Vec::new();
    for set in vector_sets() {
        let manifest = std::fs::read(set.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        for vector in manifest["vectors"].as_array().unwrap() {
            let file = vector["file"].as_str().unwrap();
            if file.starts_with(directory) {
                let bytes = std::fs::read(set.join(file)).unwrap();
                found.push((vector.clone(), set.clone(), bytes.into()));
            }
        }
    }
    assert!(found.len() >= 9, "{directory}: {} vectors", found.len());
    found
}

#[test]
fn flm_payloads_are_what_the_manifest_says() {
    for (expected, set, payload) in vectors("flm/") {
        let value = Flm::decode(&payload).unwrap();
        let kind = match &value {
            Flm::Tensor(tensor) => {
                assert_tensor(tensor, &expected);
                "tensor"
            }
            Flm::Table(table) => {
                assert_rows(table.batches(), &set, &expected);
                "table"
            }
            Flm::Batch(batch) => {
                assert_rows(std::slice::from_ref(batch), &set, &expected);
                "batch"
            }
            Flm::Array(array) => {
                let values: Vec<_> = array.as_primitive::<Int64Type>().iter().collect();
                assert_eq!(json!(values), expected["expected_json"]);
                "array"
            }
            Flm::CloudPickle(pickle) => {
                assert_eq!(pickle, &payload.slice(4..));
                "cloudpickle"
            }
            Flm::Unmarked(pickle) => {
                assert_eq!(pickle, &payload);
                "unprefixed"
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, expected["type"], "{expected}");
    }
}

fn assert_tensor(tensor: &Tensor, expected: &Value) {
    assert_eq!(json!(tensor.shape()), expected["shape"]);
    let is_fortran = expected["fortran"].as_bool().unwrap();
    assert_eq!(tensor.order() == Order::ColumnMajor, is_fortran);
    let values = match expected["dtype"].as_str().unwrap() {
        "float64" => in_row_order::<Float64Type, _>(tensor, |value| value),
        "float32" => in_row_order::<Float32Type, _>(tensor, f64::from),
        "float16" => in_row_order::<Float16Type, _>(tensor, f64::from),
        "int32" => in_row_order::<Int32Type, _>(tensor, f64::from),
        "uint8" => in_row_order::<UInt8Type, _>(tensor, f64::from),
        other => panic!("{other}"),
    };
    assert_eq!(json!(values), expected["values_c_order"]);
}

fn in_row_order<T: ArrowPrimitiveType, F: Fn(T::Native) -> f64>(
    tensor: &Tensor,
    as_f64: F,
) -> Vec<f64> {
    let values = tensor.values::<T>().unwrap();
    let mut indices = vec![vec![]];
    for len in tensor.shape() {
        let longer = |index: Vec<usize>| (0..*len).map(move |at| [&index[..], &[at]].concat());
        indices = indices.into_iter().flat_map(longer).collect();
    }
    let positions = indices.iter().map(|index| tensor.position(index).unwrap());
    positions.map(|position| as_f64(values[position])).collect()
}

fn assert_rows(batches: &[RecordBatch], set: &Path, expected: &Value) {
    let file = std::fs::read(set.join(expected["expected"].as_str().unwrap())).unwrap();
    let entry = Arc::new(MemoryEntry::new(file));
    let table = block_on(TableReader::open(entry, Verification::Full)).unwrap();
    let wanted = block_on(table.read_all()).unwrap();
    let rows =
        |batches: &[RecordBatch]| -> usize { batches.iter().map(RecordBatch::num_rows).sum() };
    assert_eq!(rows(batches), rows(&wanted));
    for (column, field) in table.schema().fields().iter().enumerate() {
        assert_eq!(batches[0].schema().field(column), &**field);
        let cells = |batches: &[RecordBatch]| -> Vec<arrow_array::ArrayRef> {
            let columns = batches.iter().map(|batch| batch.column(column));
            columns
                .flat_map(|column| (0..column.len()).map(|row| column.slice(row, 1)))
                .collect()
        };
        assert!(
            cells(batches) == cells(&wanted),
            "{expected}: column {column}"
        );
    }
}

#[test]
fn flm_payloads_that_are_written_read_as_they_were() {
    for (expected, _, payload) in vectors("flm/") {
        let value = Flm::decode(&payload).unwrap();
        match value {
            Flm::CloudPickle(_) | Flm::Unmarked(_) => assert!(value.to_bytes().is_err()),
            _ => assert_eq!(
                Flm::decode(&value.to_bytes().unwrap()).unwrap(),
                value,
                "{expected}"
            ),
        }
    }
}

#[test]
fn other_markers_are_unsupported_or_none() {
    for kind in 5..=255 {
        let payload = Bytes::from_owner([b'F', b'L', b'M', kind, 1]);
        let error = Flm::decode(&payload).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    for payload in [&b""[..], b"FLM", b"flm\x01", b"\x80\x05FLM\x01"] {
        let payload = Bytes::from_static(payload);
        assert_eq!(Flm::decode(&payload).unwrap(), Flm::Unmarked(payload));
    }
}

#[cfg(feature = "messagepack")]
#[test]
fn bytestorage_values_are_what_the_manifest_says_and_are_written_alike() {
    use ck_codec::bytestorage;

    for (expected, _, frame) in vectors("bytestorage/") {
        let frame = ck_frame::read(&frame).unwrap();
        let document = bytestorage::decode(&frame.payload).unwrap();
        let text = bytestorage::to_json(&document).unwrap().to_string();
        assert_eq!(text, expected["expected_json"].to_string());
        assert_eq!(bytestorage::from_json(text.as_bytes()).unwrap(), document);
        let written = bytestorage::encode(&document).unwrap();
        assert_eq!(bytestorage::decode(&written).unwrap(), document);
        assert_eq!(written, frame.payload, "{expected}");
    }
}
