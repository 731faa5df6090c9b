//! Guards against writing that collects values first, and reading that copies them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod common;

use std::any::Any;
use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, TimeUnit};
use ck_arrow::Table;
use ck_codec::{CacheCodec, CacheCodecImpl, Flm, Order, Sections, SectionsWriter, Tensor};
use common::{aligned, loaded, stored};
use testkit::heap::{CountingAllocator, alone, live_here, peak_of};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// What writing and reading may take, of values of 16 MiB: handles, metadata.
const SMALL: usize = 128 << 10;

/// A writer that keeps nothing but the count.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Six batches of 2.5 MiB.
fn large_table() -> Table {
    let rows = 128 << 10;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let text = (0..rows).map(|row| format!("{row:08}"));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(text));
    let batch = RecordBatch::try_from_iter([("n", numbers), ("t", text)]).unwrap();
    let batches = vec![batch; 6];
    Table::new(batches[0].schema(), batches).unwrap()
}

fn large_tensor() -> Tensor {
    let values: Vec<i64> = (0..2 << 20).collect();
    Tensor::from_values::<Int64Type>(values, [2, 1 << 20], Order::RowMajor).unwrap()
}

#[test]
fn values_are_written_from_where_they_lie() {
    let _alone = alone();
    let (table, tensor) = (large_table(), large_tensor());
    let check = |what: &str, write: &dyn Fn(&mut Counted)| {
        let mut sink = Counted(0);
        let (peak, ()) = peak_of(|| write(&mut sink));
        assert!(peak < SMALL, "{what}: {peak} bytes");
        assert!(sink.0 > 15 << 20, "{what}: {} bytes written", sink.0);
    };
    check("a table", &|sink| table.serialize(sink).unwrap());
    check("a tensor", &|sink| tensor.serialize(sink).unwrap());
    check("FLM of a table", &|sink| {
        Flm::Table(table.clone()).write(sink).unwrap()
    });
    check("FLM of a tensor", &|sink| {
        Flm::Tensor(tensor.clone()).write(sink).unwrap()
    });
    check("sections", &|sink| {
        let mut sections = SectionsWriter::new(sink, b"header").unwrap();
        sections.table(&table).unwrap();
        sections.tensor(&tensor).unwrap();
        sections.bytes(tensor.data()).unwrap();
        sections.finish().unwrap();
    });
    let erased: Arc<dyn Any + Send + Sync> = Arc::new(table.clone());
    let codec = CacheCodec::of::<Table>();
    check("a codec", &|sink| codec.serialize(&erased, sink).unwrap());
}

#[test]
fn values_are_read_where_they_lie() {
    let _alone = alone();
    let (table, tensor) = (stored(large_table()), stored(large_tensor()));
    let (peak, found) = peak_of(|| loaded::<Table>(&table).unwrap());
    assert!(peak < SMALL, "a table: {peak} bytes");
    assert_eq!(found.num_rows(), 6 * (128 << 10));
    let (peak, _) = peak_of(|| loaded::<Tensor>(&tensor).unwrap());
    assert!(peak < SMALL, "a tensor: {peak} bytes");

    let mut written = Vec::new();
    let mut sections = SectionsWriter::new(&mut written, b"header").unwrap();
    sections.bytes(&table).unwrap();
    sections.bytes(&tensor).unwrap();
    sections.finish().unwrap();
    let written = aligned(&written);
    let (peak, found) = peak_of(|| {
        let sections = Sections::parse(&written).unwrap();
        (
            loaded::<Table>(&sections.part(0).unwrap()),
            loaded::<Tensor>(&sections.part(1).unwrap()),
        )
    });
    assert!(peak < SMALL, "sections: {peak} bytes");
    assert!(found.0.is_ok() && found.1.is_ok());
}

#[cfg(feature = "messagepack")]
#[test]
fn json_of_many_small_values_takes_the_document_and_no_tree() {
    use ck_codec::bytestorage;

    let _alone = alone();
    let text = format!("[{}[]]", "1,{\"a\":null},".repeat(1 << 20));
    let (peak, document) = peak_of(|| bytestorage::from_json(text.as_bytes()).unwrap());
    // Vectors double as they grow: the document, and the lengths of its maps.
    let most = 3 * document.len() + 3 * (4 << 20);
    assert!(peak < most, "{peak} bytes");
    let (peak, ()) = peak_of(|| {
        let json = bytestorage::to_json(&document).unwrap();
        write!(Counted(0), "{json}").unwrap();
    });
    assert!(peak < SMALL, "{peak} bytes");
    assert_eq!(bytestorage::to_json(&document).unwrap().to_string(), text);
}

/// Fails unless a tensor says what making it made this thread hold, within a tenth or a few words.
#[track_caller]
fn says_what_it_holds(what: &str, make: impl FnOnce() -> Tensor) {
    let before = live_here();
    let tensor = make();
    let held = live_here() - before;
    let said = usize::try_from(tensor.heap_bytes(None)).unwrap();
    // What owns borrowed bytes has a few words that the tensor does not know.
    assert!(
        said.abs_diff(held) <= held / 10 + 300,
        "{what}: {said} bytes said, {held} held"
    );
}

#[test]
fn tensors_say_what_they_hold() {
    let _alone = alone();
    for len in [1_usize, 10, 1000, 1 << 20] {
        let make = || {
            let values = vec![7_i64; len];
            Tensor::from_values::<Int64Type>(values, [len, 1], Order::RowMajor).unwrap()
        };
        says_what_it_holds(&format!("{len} values"), make);
        let bytes = stored(make());
        says_what_it_holds(&format!("{len} stored values"), || {
            loaded(&aligned(&bytes)).unwrap()
        });
    }
    // No values, and nothing but dimensions.
    let make = || {
        let shape = [vec![0], vec![1; 10_000]].concat();
        Tensor::from_values::<Int64Type>(Vec::new(), shape, Order::RowMajor).unwrap()
    };
    says_what_it_holds("many dimensions", make);
    let bytes = stored(make());
    says_what_it_holds("many stored dimensions", || {
        loaded(&aligned(&bytes)).unwrap()
    });
    assert!(loaded::<Tensor>(&bytes).unwrap().heap_bytes(Some(&bytes)) < 90_000);
    let zone = "z".repeat(10_000);
    says_what_it_holds("a long name of a time zone", || {
        let data_type = DataType::Timestamp(TimeUnit::Second, Some(zone.as_str().into()));
        Tensor::new(data_type, [1], Order::RowMajor, vec![7_i64].into()).unwrap()
    });
}
