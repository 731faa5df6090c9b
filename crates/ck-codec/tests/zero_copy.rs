//! Guards against decoding that copies: what comes out must lie inside of what went in.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod common;

use arrow_array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{Flm, Sections, SectionsWriter, Tensor};
use common::{aligned, assert_inside, batch, buffers, loaded, placed, stored, table, tensor};

fn buffers_of(batches: &[RecordBatch]) -> Vec<arrow_buffer::Buffer> {
    let columns = batches.iter().flat_map(RecordBatch::columns);
    columns.flat_map(|column| buffers(&**column)).collect()
}

#[test]
fn every_buffer_of_a_decoded_value_lies_inside_of_the_stored_bytes() {
    let bytes = stored(table());
    let found: Table = loaded(&bytes).unwrap();
    assert_eq!(found, table());
    assert_inside(&bytes, &buffers_of(found.batches()));

    let bytes = stored(batch());
    let found: RecordBatch = loaded(&bytes).unwrap();
    assert_eq!(found, batch());
    assert_inside(&bytes, &buffers_of(&[found]));

    for column in batch().columns() {
        let bytes = stored::<ArrayRef>(column.clone());
        let found: ArrayRef = loaded(&bytes).unwrap();
        assert_eq!(&found, column);
        assert_inside(&bytes, &buffers(&*found));
    }

    let bytes = stored(tensor());
    let found: Tensor = loaded(&bytes).unwrap();
    assert_eq!(found, tensor());
    assert_inside(&bytes, &[found.data().clone()]);

    let bytes = stored(Bytes::from_static(b"bytes"));
    let found: Bytes = loaded(&bytes).unwrap();
    assert_inside(&bytes, &[found.into()]);
}

#[test]
fn parts_of_a_composite_value_lie_inside_of_the_stored_bytes() {
    let mut written = Vec::new();
    let mut sections = SectionsWriter::new(&mut written, b"header").unwrap();
    sections.table(&table()).unwrap();
    sections.bytes(b"raw").unwrap();
    sections.tensor(&tensor()).unwrap();
    sections.finish().unwrap();
    let bytes = aligned(&written);
    let sections = Sections::parse(&bytes).unwrap();
    assert_inside(&bytes, &buffers_of(sections.table(0).unwrap().batches()));
    assert_inside(&bytes, &[sections.buffer(1).unwrap()]);
    assert_inside(&bytes, &[sections.tensor(2).unwrap().data().clone()]);
    assert_inside(&bytes, &[sections.header_bytes().clone().into()]);
    for part in 0..sections.num_parts() {
        assert_eq!(sections.part(part).unwrap().as_ptr() as usize % 64, 0);
    }
}

#[test]
fn flm_payloads_that_are_placed_well_are_not_copied() {
    for value in [
        Flm::Tensor(tensor()),
        Flm::Table(table()),
        Flm::Batch(batch()),
        Flm::Array(batch().column(0).clone()),
    ] {
        let payload = value.to_bytes().unwrap();
        assert_eq!(payload[Flm::VALUE_START..].as_ptr() as usize % 64, 0);
        assert_eq!(Flm::aligned(&payload).unwrap().as_ptr(), payload.as_ptr());
        let found = Flm::decode(&payload).unwrap();
        assert_eq!(found, value);
        assert_inside(&payload, &parts_of(&found));
        // Behind a marker at an aligned address, numbers are misaligned: they come back by a copy.
        let misplaced = aligned(&payload);
        assert_eq!(Flm::decode(&misplaced).unwrap(), value);
        let again = Flm::aligned(&misplaced).unwrap();
        assert_inside(&again, &parts_of(&Flm::decode(&again).unwrap()));
    }
    let pickle = Bytes::from_static(b"FLM\0cloudpickle");
    let Flm::CloudPickle(found) = Flm::decode(&pickle).unwrap() else {
        unreachable!("a pickle");
    };
    assert_inside(&pickle, &[found.into()]);
}

fn parts_of(value: &Flm) -> Vec<arrow_buffer::Buffer> {
    match value {
        Flm::Tensor(tensor) => vec![tensor.data().clone()],
        Flm::Table(table) => buffers_of(table.batches()),
        Flm::Batch(batch) => buffers_of(std::slice::from_ref(batch)),
        Flm::Array(array) => buffers(&**array),
        _ => vec![],
    }
}

#[test]
fn segments_of_flm_payloads_are_the_buffers_of_the_source() {
    let tensor = tensor();
    let mut segments = Vec::new();
    let encoded = Flm::Tensor(tensor.clone()).encode(|segment| {
        segments.push(segment);
        Ok(())
    });
    encoded.unwrap();
    assert_eq!(segments.last().unwrap().as_ptr(), tensor.data().as_ptr());

    let numbers: ArrayRef = std::sync::Arc::new(arrow_array::Int64Array::from_iter_values(0..100));
    let mut segments = Vec::new();
    let encoded = Flm::Array(numbers.clone()).encode(|segment| {
        segments.push(segment);
        Ok(())
    });
    encoded.unwrap();
    let at = numbers.to_data().buffers()[0].as_ptr();
    assert!(segments.iter().any(|segment| segment.as_ptr() == at));
}

#[test]
fn misaligned_values_come_back_by_a_copy() {
    for lead in [1, 2, 4, 8, 33] {
        let moved = |bytes: Bytes| placed(&bytes, lead);
        assert_eq!(loaded::<Table>(&moved(stored(table()))).unwrap(), table());
        assert_eq!(
            loaded::<Tensor>(&moved(stored(tensor()))).unwrap(),
            tensor()
        );
        let column = batch().column(0).clone();
        let found: ArrayRef = loaded(&moved(stored::<ArrayRef>(column.clone()))).unwrap();
        assert_eq!(&found, &column);
    }
}
