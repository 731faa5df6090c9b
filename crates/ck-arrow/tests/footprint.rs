//! Guards the promise of `Table::heap_bytes`: within a tenth of what the allocator says, from tables of no
//! rows to large ones, however they came to be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch, StringViewArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{
    Codec, EncodeOptions, Interner, Table, TableReader, Verification, decode_ipc_stream,
    encode_ipc_stream,
};
use ck_core::{BoxFuture, EntryReader, Expiry, Result, block_on};
use common::generate::{Rng, batch};
use common::{encode, open, open_mock, types};
use testkit::heap::{CountingAllocator, alone, live_here as live};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]))
}

/// All types side by side.
fn all_columns() -> SchemaRef {
    let field = |(i, data_type)| Field::new(format!("c{i}"), data_type, true);
    let fields: Vec<Field> = types::all().into_iter().enumerate().map(field).collect();
    Arc::new(Schema::new(fields))
}

/// What does not fit, of many.
#[derive(Default)]
struct Misfits(Vec<String>);

impl Misfits {
    /// Compares what a table says with what it made the allocator hold.
    fn check(&mut self, what: &str, said: u64, held: usize) {
        let share = said as f64 / held as f64;
        if !(0.9..=1.1).contains(&share) {
            self.0
                .push(format!("{what}: {said} said, {held} held, {share:.3}"));
        }
    }

    fn measure(&mut self, what: &str, make: impl FnOnce() -> Table) {
        let before = live();
        let table = make();
        let held = live() - before;
        self.check(what, table.heap_bytes(None), held);
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn tables_of_every_type_and_size_say_what_they_hold() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    for data_type in types::all() {
        let schema = one_column(&data_type);
        for rows in [0, 1, 10, 100, 5_000] {
            misfits.measure(&format!("{rows} rows of {data_type}"), || {
                Table::new(Arc::clone(&schema), vec![batch(&schema, rows, &mut Rng(1))]).unwrap()
            });
        }
    }
    misfits.none();
}

#[test]
fn compacted_slices_of_every_type_say_what_they_hold() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    for data_type in types::all() {
        let schema = one_column(&data_type);
        for rows in [1, 50] {
            misfits.measure(&format!("{rows} rows cut out of {data_type}"), || {
                let large = batch(&schema, 8_000, &mut Rng(2));
                let slice = Table::from(large.slice(5_000, rows));
                slice.compacted().unwrap_or(slice)
            });
        }
    }
    misfits.none();
}

#[test]
fn tables_of_many_batches_say_what_they_hold() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    let schema = all_columns();
    for (batches, rows) in [(0, 0), (1, 0), (30, 0), (30, 3), (10, 500)] {
        misfits.measure(&format!("{batches} batches of {rows} rows"), || {
            let parts = (0..batches).map(|n| batch(&schema, rows, &mut Rng(n)));
            Table::new(Arc::clone(&schema), parts.collect()).unwrap()
        });
        misfits.measure(&format!("{batches} slices of {rows} rows"), || {
            let whole = batch(&schema, rows * batches as usize, &mut Rng(5));
            let parts = (0..batches as usize).map(|n| whole.slice(n * rows, rows));
            Table::new(Arc::clone(&schema), parts.collect()).unwrap()
        });
    }
    misfits.none();
}

#[test]
fn decoded_tables_say_what_they_hold() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    let mut schemas: Vec<SchemaRef> = types::all().iter().map(one_column).collect();
    schemas.push(all_columns());
    for schema in &schemas {
        for rows in [0, 3, 200, 1_000] {
            let source = batch(schema, rows, &mut Rng(3));
            for codec in [Codec::None, Codec::Lz4] {
                let options = EncodeOptions::new()
                    .with_codec(codec)
                    .with_batch_bytes(256 << 10);
                let bytes = encode(std::slice::from_ref(&source), options);
                let what = match schema.fields().len() {
                    1 => schema.field(0).data_type().to_string(),
                    _ => "all types".to_owned(),
                };
                let what = format!("{rows} rows of {what}, {codec:?}");
                decoded(&mut misfits, &what, &bytes, Arc::clone(schema));
            }
        }
    }
    misfits.none();
}

fn decoded(misfits: &mut Misfits, what: &str, bytes: &Bytes, schema: SchemaRef) {
    let read = |reader: &TableReader| {
        // The entry's copy of the schema goes, as it does in a cache where others have the same.
        let interner = Interner::new();
        let first = Table::new(Arc::clone(&schema), Vec::new()).unwrap();
        let (_first, _use) = interner.intern(first, |_| Some(()));
        let table = block_on(reader.read_table()).unwrap();
        interner
            .intern(table, |_| panic!("an equal schema is known"))
            .0
    };
    // What is mapped was there before, and stays.
    let mapping = Arc::new(Mapped(common::aligned(bytes)));
    let before = live();
    let reader = block_on(TableReader::open(
        Arc::clone(&mapping) as _,
        Verification::OnTouch,
    ));
    let mapped = read(&reader.unwrap());
    let held = live() - before;
    misfits.check(&format!("{what}, mapped"), mapped.heap_bytes(None), held);
    let borrows = what.ends_with("None") && mapped.batches().iter().any(has_bytes);
    if borrows {
        assert_eq!(mapped.mapped_bytes(), bytes.len() as u64, "{what}");
    }
    drop((mapped, mapping));

    let before = live();
    let entry = common::aligned(bytes);
    let whole = read(&open(&entry, Verification::OnTouch).unwrap());
    drop(entry);
    let held = live() - before;
    misfits.check(
        &format!("{what}, in one piece"),
        whole.heap_bytes(None),
        held,
    );
    drop(whole);

    let (entry, reader) = open_mock(bytes);
    let pieces = read(&reader);
    let said = pieces.heap_bytes(None);
    drop((entry, reader));
    let with = live();
    drop(pieces);
    let held = with - live();
    if what == "3 rows of all types, Lz4" {
        // Dictionaries are compressed and the batch is not, so that some is taken for pieces that is not.
        assert!(
            (held..held * 5 / 4).contains(&(said as usize)),
            "{said} {held}"
        );
        return;
    }
    misfits.check(&format!("{what}, in pieces"), said, held);
}

fn has_bytes(batch: &RecordBatch) -> bool {
    let of_column = |column: &ArrayRef| column.get_buffer_memory_size() > 0;
    batch.columns().iter().any(of_column)
}

/// An entry that says it is mapped.
#[derive(Debug)]
struct Mapped(Bytes);

impl EntryReader for Mapped {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let range = range.start as usize..range.end as usize;
        Box::pin(ready(Ok(self.0.slice(range))))
    }

    fn contiguous(&self) -> Option<&Bytes> {
        Some(&self.0)
    }

    fn is_mapped(&self) -> bool {
        true
    }

    fn expiry(&self) -> Expiry {
        Expiry::NEVER
    }
}

#[test]
fn shared_dictionaries_and_views_stay_shared_and_count_once() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    let text: Vec<String> = (0..20_000)
        .map(|n| format!("a text that is not inlined, number {n}"))
        .collect();
    let dictionary: DictionaryArray<Int32Type> = text.iter().map(String::as_str).collect();
    let views = StringViewArray::from_iter_values(&text);
    let columns: [(&str, ArrayRef); 2] = [("d", Arc::new(dictionary)), ("v", Arc::new(views))];
    for (name, column) in columns {
        let whole = RecordBatch::try_from_iter([(name, column)]).unwrap();
        let parts: Vec<RecordBatch> = (0..200).map(|n| whole.slice(n * 100, 1)).collect();
        let before = live();
        let slices = Table::new(whole.schema(), parts.clone());
        let few = slices.unwrap().compacted().unwrap();
        misfits.check(name, few.heap_bytes(None), live() - before);
        assert_eq!(few.batches(), parts);
        assert!(
            few.heap_bytes(None) < 200_000,
            "{name}: {}",
            few.heap_bytes(None)
        );
        if name == "d" {
            let values = |batch: &RecordBatch| {
                let column: &DictionaryArray<Int32Type> =
                    batch.column(0).as_any().downcast_ref().unwrap();
                Arc::clone(column.values())
            };
            let first = values(&few.batches()[0]);
            assert_eq!(first.len(), 200);
            assert!(
                few.batches()
                    .iter()
                    .all(|batch| Arc::ptr_eq(&values(batch), &first))
            );
        }
        // All of it as slices: nothing to let go of but what the builders had to spare.
        let all: Vec<RecordBatch> = (0..200).map(|n| whole.slice(n * 100, 100)).collect();
        let table = Table::new(whole.schema(), all).unwrap();
        let before = table.heap_bytes(None);
        let after = table.compacted().unwrap_or(table);
        assert!(after.heap_bytes(None) <= before, "{name}");
    }
    misfits.none();
}

#[test]
fn a_schema_counts_while_tables_use_it_and_is_gone_with_the_last() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    let wide = |n: usize| {
        let types = types::all();
        let field = |i: usize| {
            let metadata = [("unit".to_owned(), format!("m{n}"))];
            let field = Field::new(format!("column {i}"), types[i % types.len()].clone(), true);
            match i % 3 {
                0 => field.with_metadata(std::collections::HashMap::from(metadata)),
                _ => field,
            }
        };
        let fields: Vec<Field> = (0..100).map(field).collect();
        Schema::new(fields)
    };
    drop(types::all());
    let interner = Interner::new();
    let start = live();
    for round in 0..3 {
        let before = live();
        let mut charged = 0;
        let tables: Vec<_> = (0..500)
            .map(|n| {
                let schema = Arc::new(wide(n % 50));
                let table = Table::new(schema, Vec::new()).unwrap();
                interner.intern(table, |bytes| {
                    charged += bytes;
                    Some(())
                })
            })
            .collect();
        let list = tables.capacity() * size_of_val(&tables[0]);
        let held = live() - before - list;
        let own: u64 = tables.iter().map(|(table, _)| table.heap_bytes(None)).sum();
        misfits.check(&format!("schemas, round {round}"), charged + own, held);
        drop(tables);
        let left = live() - before.min(live());
        assert!(left < 20_000, "{left} bytes are left");
    }
    let left = live() - start;
    assert!(left < 20_000, "{left} bytes are left");
    misfits.none();
}

#[test]
fn tables_out_of_streams_say_what_they_hold() {
    let _alone = alone();
    let mut misfits = Misfits::default();
    let mut schemas: Vec<SchemaRef> = types::all().iter().map(one_column).collect();
    schemas.push(all_columns());
    for schema in &schemas {
        for (batches, rows) in [(1, 0), (1, 3), (40, 1), (3, 200)] {
            let source = (0..batches).map(|n| batch(schema, rows, &mut Rng(n)));
            let source = Table::new(Arc::clone(schema), source.collect()).unwrap();
            let mut stream = Vec::new();
            let written = encode_ipc_stream(&source, |segment| {
                stream.extend_from_slice(&segment);
                Ok(())
            });
            if written.is_err() {
                continue;
            }
            drop(source);
            let interner = Interner::new();
            let first = Table::new(Arc::clone(schema), Vec::new()).unwrap();
            let (_first, _use) = interner.intern(first, |_| Some(()));
            let what = format!(
                "{batches} batches of {rows} rows of {:?}",
                schema.field(0).data_type()
            );
            misfits.measure(&what, || {
                let table = decode_ipc_stream(&common::aligned(&stream)).unwrap();
                interner
                    .intern(table, |_| panic!("an equal schema is known"))
                    .0
            });
        }
    }
    misfits.none();
}

#[test]
fn equal_schemas_of_every_type_become_one() {
    let _alone = alone();
    let interner = Interner::new();
    for data_type in types::all() {
        let make = || {
            let schema = one_column(&data_type);
            Table::new(Arc::clone(&schema), vec![batch(&schema, 3, &mut Rng(1))]).unwrap()
        };
        let (first, _use) = interner.intern(make(), |_| Some(()));
        let (second, used) = interner.intern(make(), |_| panic!("{data_type} is known"));
        assert!(used.is_some() && Arc::ptr_eq(first.schema(), second.schema()));
        for batch in second.batches() {
            assert!(
                Arc::ptr_eq(first.schema(), batch.schema_ref()),
                "{data_type}"
            );
        }
        assert_eq!(first, second);
    }
}
