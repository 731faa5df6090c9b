//! Guards against entries of other writers that are refused, or read as something else: real output of
//! the Python clients, and files of arrow-ipc's own writer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::{DictionaryHandling, FileWriter, IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::Verification;
use ck_core::{ErrorKind, block_on};
use ck_frame::Header;
use common::generate::{Rng, batch};
use common::{
    assert_same_rows, assert_same_schema, first_difference, open, open_mock, read, types,
};
use serde_json::Value;

/// Bytes of a file entry before its frame.
const FILE_HEADER: usize = 14;

/// The few vectors beside this file, and all of them where they exist.
fn vector_sets() -> Vec<PathBuf> {
    let few = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    [few].into_iter().chain(testkit::vectors()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// All vectors of a set, as the manifests describe them.
fn vectors(set: &Path) -> Vec<Value> {
    let current = json(&set.join("manifest.json"));
    let mut vectors = current["vectors"].as_array().unwrap().clone();
    vectors.extend(
        json(&set.join("manifest-legacy.json"))
            .as_array()
            .unwrap()
            .iter()
            .cloned(),
    );
    vectors
}

fn file(set: &Path, name: &str) -> Bytes {
    common::aligned(
        &std::fs::read(set.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

/// Reads an Arrow file with arrow-ipc itself.
fn by_arrow(bytes: &Bytes) -> (SchemaRef, Vec<RecordBatch>) {
    let reader = FileReader::try_new(Cursor::new(bytes.clone()), None).unwrap();
    (reader.schema(), reader.map(Result::unwrap).collect())
}

#[track_caller]
fn assert_reads_as(bytes: &Bytes, expected: &(SchemaRef, Vec<RecordBatch>), what: &str) {
    for verification in [Verification::OnTouch, Verification::Full, Verification::Off] {
        let found = read(bytes, verification).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_same_schema(&found.0, &expected.0, what);
        assert_same_rows(&found.1, &expected.1, what);
    }
    let (_, table) = open_mock(bytes);
    assert_eq!(
        table.num_rows() as usize,
        common::rows(&expected.1),
        "{what}"
    );
    assert!(!table.layout().is_sealed, "{what}");
    assert_same_rows(&block_on(table.read_all()).unwrap(), &expected.1, what);
    block_on(table.verify()).unwrap();
}

#[test]
fn every_vector_of_a_table_gives_the_expected_table() {
    for set in vector_sets() {
        let mut seen = [0; 3];
        for vector in vectors(&set) {
            let (name, kind) = (
                vector["file"].as_str().unwrap(),
                vector["kind"].as_str().unwrap(),
            );
            let (place, skip) = match kind {
                "ck-frame-v3" => (0, 0),
                "file-backend-entry" => (1, FILE_HEADER),
                "legacy-base64-json-envelope" => (2, 0),
                _ => continue,
            };
            let Some(expected) = vector["expected"].as_str() else {
                continue;
            };
            let expected = by_arrow(&file(&set, expected));
            assert_reads_as(&file(&set, name).slice(skip..), &expected, name);
            seen[place] += 1;
        }
        assert!(
            seen.iter().all(|seen| *seen >= 3),
            "{seen:?} in {}",
            set.display()
        );
    }
}

#[test]
fn pandas_metadata_of_the_writers_is_kept() {
    let set = &vector_sets()[0];
    for name in [
        "frames/categorical.none.ck",
        "frames/categorical.zstd.ck",
        "legacy/categorical.raw.json",
    ] {
        let (schema, _) = read(&file(set, name), Verification::OnTouch).unwrap();
        assert!(
            schema.metadata()["pandas"].contains("index_columns"),
            "{name}"
        );
    }
}

#[test]
fn expected_tables_are_bare_files_and_read_as_such() {
    for set in vector_sets() {
        let mut names: Vec<String> = vectors(&set)
            .iter()
            .filter(|vector| !vector["kind"].as_str().unwrap().starts_with("flm"))
            .filter_map(|vector| Some(vector["expected"].as_str()?.to_owned()))
            .filter(|name| set.join(name).exists())
            .collect();
        names.sort();
        names.dedup();
        assert!(names.len() >= 4);
        for name in names {
            let bytes = file(&set, &name);
            assert_reads_as(&bytes, &by_arrow(&bytes), &name);
        }
    }
}

#[test]
fn every_bad_vector_gives_a_typed_error() {
    for set in vector_sets() {
        let mut seen = 0;
        for vector in vectors(&set) {
            let name = vector["file"].as_str().unwrap();
            let bytes = match vector["kind"].as_str().unwrap() {
                "malformed" | "bitflip" => file(&set, name),
                _ => continue,
            };
            seen += 1;
            for verification in [Verification::OnTouch, Verification::Full] {
                match read(&bytes, verification) {
                    Ok(found) => {
                        let expected = vector["expected"]
                            .as_str()
                            .unwrap_or_else(|| panic!("{name} was read"));
                        let expected = by_arrow(&file(&set, expected));
                        assert_same_schema(&found.0, &expected.0, name);
                        assert_eq!(first_difference(&found.1, &expected.1), None, "{name}");
                    }
                    Err(error) => {
                        let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
                        assert!(kinds.contains(&error.kind()), "{name}: {error:?}");
                        // Payload and checksum of this vector start here.
                        if vector["at"].as_u64().is_some_and(|at| at >= 170) {
                            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
                        }
                    }
                }
            }
        }
        assert!(seen >= 12, "{seen}");
    }
}

#[test]
fn values_that_are_no_tables_are_unsupported_and_say_what_they_are() {
    for set in vector_sets() {
        let mut seen = 0;
        for vector in vectors(&set) {
            let (name, kind) = (
                vector["file"].as_str().unwrap(),
                vector["kind"].as_str().unwrap(),
            );
            let is_table = kind == "ck-frame-v3" && vector["serializer"] == "arrow";
            if is_table
                || [
                    "malformed",
                    "bitflip",
                    "file-backend-entry",
                    "legacy-base64-json-envelope",
                ]
                .contains(&kind)
            {
                continue;
            }
            seen += 1;
            let error = open(&file(&set, name), Verification::OnTouch).expect_err(name);
            if kind.ends_with("encrypted") {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error:?}");
                assert!(error.to_string().contains("encrypted"), "{name}: {error}");
            } else if kind == "ck-frame-v3" {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error:?}");
                assert!(error.to_string().contains("default"), "{name}: {error}");
            } else {
                assert!(
                    [ErrorKind::Corrupt, ErrorKind::Unsupported].contains(&error.kind()),
                    "{name}: {error:?}"
                );
            }
        }
        assert!(seen >= 3, "{seen}");
    }
}

/// A file as arrow-ipc writes it.
fn written(schema: &SchemaRef, batches: &[RecordBatch], options: IpcWriteOptions) -> Bytes {
    let mut writer = FileWriter::try_new_with_options(Vec::new(), schema, options).unwrap();
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    common::aligned(&writer.into_inner().unwrap())
}

fn write_options(alignment: usize, compression: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5)
        .unwrap()
        .try_with_compression(compression)
        .unwrap()
        .with_dictionary_handling(DictionaryHandling::Delta)
}

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", data_type.clone(), true),
        Field::new("b", data_type.clone(), true),
    ]))
}

#[test]
fn files_of_the_arrow_writer_read_whatever_their_alignment_and_compression() {
    for data_type in types::all() {
        let schema = one_column(&data_type);
        let whole = batch(&schema, 150, &mut Rng(1));
        let batches = [whole.slice(0, 64), whole.slice(64, 0), whole.slice(64, 86)];
        for alignment in [8, 64] {
            for compression in [
                None,
                Some(CompressionType::LZ4_FRAME),
                Some(CompressionType::ZSTD),
            ] {
                let bytes = written(&schema, &batches, write_options(alignment, compression));
                let what = format!("{data_type}, {alignment}, {compression:?}");
                assert_reads_as(&bytes, &(Arc::clone(&schema), vec![whole.clone()]), &what);

                let part = open(&bytes, Verification::OnTouch)
                    .unwrap()
                    .select(&["b"])
                    .unwrap();
                let found = block_on(part.rows(60..70).unwrap().read_all()).unwrap();
                assert_same_rows(&found, &[whole.project(&[1]).unwrap().slice(60, 10)], &what);
            }
        }
    }
}

#[test]
fn files_of_the_previous_metadata_version_read_too() {
    for legacy_framing in [false, true] {
        // Run-end arrays came after version 4; arrow-ipc itself cannot read the ones it writes.
        for data_type in types::all()
            .into_iter()
            .filter(|t| !t.to_string().contains("RunEndEncoded"))
        {
            let schema = one_column(&data_type);
            let whole = batch(&schema, 50, &mut Rng(2));
            let options =
                IpcWriteOptions::try_new(64, legacy_framing, MetadataVersion::V4).unwrap();
            let bytes = written(&schema, std::slice::from_ref(&whole), options);
            let expected = by_arrow(&bytes);
            assert_same_rows(
                &expected.1,
                &[whole],
                &format!("{data_type} by the Arrow reader"),
            );
            assert_reads_as(&bytes, &expected, &data_type.to_string());
        }
    }
}

#[test]
fn delta_dictionaries_of_the_arrow_writer_are_joined() {
    let values = ["red", "green", "blue", "black", "white", "grey"];
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(
        "d",
        types::dictionary(DataType::Int32, DataType::Utf8),
        true,
    )]));
    let batch = |known: usize, keys: &[i32]| {
        let values: ArrayRef = Arc::new(arrow_array::StringArray::from(values[..known].to_vec()));
        let keys = arrow_array::Int32Array::from(keys.to_vec());
        let column: ArrayRef = Arc::new(arrow_array::DictionaryArray::new(keys, values));
        RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap()
    };
    let batches = [
        batch(2, &[0, 1, 1]),
        batch(4, &[3, 2, 0]),
        batch(6, &[5, 4, 1]),
        batch(6, &[0, 0]),
    ];
    for compression in [None, Some(CompressionType::ZSTD)] {
        let bytes = written(&schema, &batches, write_options(8, compression));
        assert_reads_as(&bytes, &(Arc::clone(&schema), batches.to_vec()), "deltas");
        let layout = open(&bytes, Verification::OnTouch).unwrap().layout();
        assert_eq!(
            layout
                .dictionaries
                .iter()
                .map(|block| block.rows)
                .collect::<Vec<_>>(),
            [2, 2, 2]
        );
    }
}

#[test]
fn frames_of_other_writers_are_verified_before_use_when_they_have_a_checksum() {
    let schema = one_column(&DataType::Int64);
    let whole = batch(&schema, 1000, &mut Rng(3));
    let ipc = written(
        &schema,
        std::slice::from_ref(&whole),
        write_options(64, None),
    );
    let checksum = twox_hash::XxHash3_64::oneshot(&ipc).to_be_bytes();
    let head = Header::new("arrow")
        .with_metadata("format", "arrow")
        .encode()
        .unwrap();
    let checksummed = [&head[..], &checksum, &ipc].concat();
    let expected = (schema, vec![whole]);
    assert_reads_as(
        &common::aligned(&checksummed),
        &expected,
        "checksummed frame",
    );
    assert_reads_as(
        &common::aligned(&[&head[..], &ipc].concat()),
        &expected,
        "frame",
    );
    assert_reads_as(
        &common::aligned(&[&checksum[..], &ipc].concat()),
        &expected,
        "checksummed payload",
    );

    // Somewhere in the values; opening must notice, not the first read.
    let mut damaged = checksummed;
    damaged[head.len() + 8 + 1000] ^= 1;
    let damaged = common::aligned(&damaged);
    for verification in [Verification::OnTouch, Verification::Full] {
        assert_eq!(
            open(&damaged, verification).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    let table = open(&damaged, Verification::Off).unwrap();
    assert_eq!(
        block_on(table.verify()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn an_arrow_stream_is_not_a_file_and_refused() {
    let schema = one_column(&DataType::Int64);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch(&schema, 10, &mut Rng(4))).unwrap();
    writer.finish().unwrap();
    let stream = writer.into_inner().unwrap();
    let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
    assert!(
        kinds.contains(
            &open(&common::aligned(&stream), Verification::OnTouch)
                .unwrap_err()
                .kind()
        )
    );
    let head = Header::new("arrow").encode().unwrap();
    let framed = common::aligned(&[&head[..], &stream].concat());
    assert!(kinds.contains(&open(&framed, Verification::OnTouch).unwrap_err().kind()));
}

#[test]
fn both_names_that_the_python_client_gives_its_tables_are_known() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let bytes = std::fs::read(vectors.join("frames/empty.none.ck")).unwrap();
    let payload = ck_frame::read(&bytes.into()).unwrap().payload;
    let kind_under = |serializer: &str| {
        let header = Header::new(serializer).encode().unwrap();
        let entry = ck_core::MemoryEntry::new([&header[..], &payload].concat());
        let table = ck_arrow::TableReader::open(Arc::new(entry), Verification::OnTouch);
        block_on(table).map(drop).map_err(|error| error.kind())
    };
    assert_eq!(kind_under("arrow"), Ok(()));
    assert_eq!(kind_under("ArrowSerializer"), Ok(()));
    assert_eq!(kind_under("default"), Err(ErrorKind::Unsupported));
}
