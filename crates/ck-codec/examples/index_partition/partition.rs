//! A partition of a vector index, as a value that can be cached: a small header, the codebook of the
//! product quantiser, and tables of codes.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, RecordBatch, UInt8Array, UInt64Array};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodec, CacheCodecImpl, CacheKey, Order, Sections, SectionsWriter, Tensor};
use ck_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Where a partition lies in its index, and how its codes are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) index: String,
    pub(crate) partition: u32,
    pub(crate) metric: String,
    pub(crate) dimensions: u32,
    pub(crate) sub_vectors: u32,
    /// How many tables follow the codebook.
    pub(crate) tables: u32,
}

/// The value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Partition {
    pub(crate) header: Header,
    /// Sub-vectors × centroids × dimensions of a sub-vector.
    pub(crate) codebook: Tensor,
    /// Row ids and codes, in the pieces in which the rows were added.
    pub(crate) storage: Vec<Table>,
}

impl CacheCodecImpl for Partition {
    const TYPE: &'static str = "example.index-partition";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        let mut sections = SectionsWriter::with_header(writer, &self.header)?;
        sections.tensor(&self.codebook)?;
        for table in &self.storage {
            sections.table(table)?;
        }
        sections.finish()
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        let sections = Sections::parse(data)?;
        let header: Header = sections.header()?;
        if Some(sections.num_parts()) != (header.tables as usize).checked_add(1) {
            let message = "a partition has other parts than its header says";
            return Err(Error::new(ErrorKind::Corrupt, message).with("parts", sections.num_parts()));
        }
        Ok(Self {
            codebook: sections.tensor(0)?,
            storage: (1..sections.num_parts())
                .map(|part| sections.table(part))
                .collect::<Result<_>>()?,
            header,
        })
    }
}

/// The key of a partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionKey {
    pub(crate) index: String,
    pub(crate) partition: u32,
}

impl CacheKey for PartitionKey {
    type Value = Partition;

    fn key(&self) -> Cow<'_, str> {
        format!("index/{}/partition/{}", self.index, self.partition).into()
    }

    fn codec(&self) -> Option<CacheCodec> {
        Some(CacheCodec::of::<Partition>())
    }

    fn heap_bytes(value: &Partition, mapping: Option<&Bytes>) -> u64 {
        let tables = value.storage.iter();
        let tables = tables.map(|table| table.schema_bytes() + table.heap_bytes(mapping));
        let header = value.header.index.capacity() + value.header.metric.capacity();
        header as u64 + value.codebook.heap_bytes(mapping) + tables.sum::<u64>()
    }
}

impl Partition {
    /// A partition of `rows` made-up vectors with 64 dimensions.
    pub(crate) fn sample(partition: u32, rows: usize) -> Result<Self> {
        const SUB_VECTORS: usize = 16;
        const CENTROIDS: usize = 256;
        const WIDTH: usize = 4;
        let shape = [SUB_VECTORS, CENTROIDS, WIDTH];
        let numbers = (0..shape.iter().product::<usize>()).map(|n| (n % 1000) as f32 / 1000.0);
        let numbers: Vec<f32> = numbers.collect();
        let codebook = Tensor::from_values::<Float32Type>(numbers, shape, Order::RowMajor)?;
        let halves = [0..rows / 2, rows / 2..rows].map(|rows| {
            let mut codes = Vec::with_capacity(rows.len() * SUB_VECTORS);
            for row in rows.clone() {
                codes.extend((0..SUB_VECTORS).map(|at| (row * 7 + at) as u8));
            }
            let codes = Arc::new(UInt8Array::from(codes));
            let item = Arc::new(Field::new("item", DataType::UInt8, false));
            let codes = FixedSizeListArray::new(item, SUB_VECTORS as i32, codes, None);
            let ids = UInt64Array::from_iter_values(rows.map(|row| row as u64));
            let columns: [(&str, ArrayRef); 2] =
                [("_rowid", Arc::new(ids)), ("code", Arc::new(codes))];
            RecordBatch::try_from_iter(columns).map(Table::from)
        });
        let storage = halves
            .into_iter()
            .collect::<std::result::Result<Vec<_>, _>>();
        let storage = storage.map_err(|error| {
            Error::new(ErrorKind::Misuse, "the sample is no table").with_source(error)
        })?;
        Ok(Self {
            header: Header {
                index: "embeddings".to_owned(),
                partition,
                metric: "l2".to_owned(),
                dimensions: (SUB_VECTORS * WIDTH) as u32,
                sub_vectors: SUB_VECTORS as u32,
                tables: storage.len() as u32,
            },
            codebook,
            storage,
        })
    }

    /// Where the large parts lie in memory: the codebook, and the columns of the tables.
    pub(crate) fn addresses(&self) -> Vec<*const u8> {
        let mut addresses = vec![self.codebook.data().as_ptr()];
        let columns = self.storage.iter().flat_map(Table::batches);
        for column in columns.flat_map(RecordBatch::columns) {
            let mut todo = vec![column.to_data()];
            while let Some(data) = todo.pop() {
                addresses.extend(data.buffers().iter().map(|buffer| buffer.as_ptr()));
                todo.extend(data.child_data().iter().cloned());
            }
        }
        addresses
    }
}
