//! Guards against a stored form that changes: entries of before must read, or say that they do not.
//! The files are pinned by hash (`cargo xtask tidy`).
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{Sections, SectionsWriter, Tensor};
use common::{aligned, batch, loaded, stored, table, tensor};

fn golden(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    aligned(&std::fs::read(path).unwrap())
}

/// A composite value without anything that Arrow lays out.
fn plain_sections() -> Vec<u8> {
    let mut written = Vec::new();
    let mut sections = SectionsWriter::new(&mut written, b"a small header").unwrap();
    sections.bytes(b"first").unwrap();
    sections.bytes(b"").unwrap();
    sections.bytes(&[7; 64]).unwrap();
    sections.bytes(b"last").unwrap();
    sections.finish().unwrap();
    written
}

#[test]
fn composite_values_are_written_as_ever() {
    assert_eq!(golden("sections/plain.bin"), plain_sections());
}

#[test]
fn composite_values_of_before_are_read() {
    let sections = Sections::parse(&golden("sections/plain.bin")).unwrap();
    assert_eq!(&sections.header_bytes()[..], b"a small header");
    let parts = (0..sections.num_parts()).map(|part| sections.part(part).unwrap());
    assert_eq!(
        parts.collect::<Vec<_>>(),
        [&b"first"[..], b"", &[7; 64], b"last"]
    );

    let sections = Sections::parse(&golden("sections/arrow.bin")).unwrap();
    assert_eq!(sections.num_parts(), 2);
    assert_eq!(sections.tensor(0).unwrap(), tensor());
    assert_eq!(sections.table(1).unwrap(), table());
}

#[cfg(feature = "messagepack")]
#[test]
fn serde_headers_are_written_and_read_as_ever() {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Header {
        name: String,
        numbers: Vec<u32>,
        scale: Option<f32>,
    }

    let header = Header {
        name: "partition".to_owned(),
        numbers: vec![1, 200, 70_000],
        scale: Some(0.5),
    };
    let mut written = Vec::new();
    let sections = SectionsWriter::with_header(&mut written, &header).unwrap();
    sections.finish().unwrap();
    assert_eq!(golden("sections/header.bin"), written);
    let sections = Sections::parse(&aligned(&written)).unwrap();
    assert_eq!(sections.header::<Header>().unwrap(), header);
    let error = sections.header::<Vec<u8>>().unwrap_err();
    assert_eq!(error.kind(), ck_core::ErrorKind::Corrupt);
}

#[test]
fn typed_values_of_before_are_read() {
    let bytes = Bytes::from_static(b"bytes");
    assert_eq!(golden("typed/ck.bytes.bin"), stored(bytes.clone()));
    assert_eq!(
        loaded::<Bytes>(&golden("typed/ck.bytes.bin")).unwrap(),
        bytes
    );
    assert_eq!(
        loaded::<Table>(&golden("typed/ck.table.bin")).unwrap(),
        table()
    );
    assert_eq!(
        loaded::<RecordBatch>(&golden("typed/ck.batch.bin")).unwrap(),
        batch()
    );
    let found: ArrayRef = loaded(&golden("typed/ck.array.bin")).unwrap();
    assert_eq!(&found, batch().column(0));
    assert_eq!(
        loaded::<Tensor>(&golden("typed/ck.tensor.bin")).unwrap(),
        tensor()
    );
}
