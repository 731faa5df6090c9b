//! What tables keep in memory, every allocation once.

use std::mem::{size_of, size_of_val};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, FieldRef, Fields, Metadata, Schema, SchemaRef, UnionMode};
use bytes::Bytes;

/// The two counters in front of what an [`Arc`] holds.
const COUNTERS: usize = 2 * size_of::<usize>();

/// What a [`Buffer`] shares with its slices besides the bytes: counters, address, length and how to free them.
const BUFFER_HEADER: usize = COUNTERS + 5 * size_of::<usize>();

/// The same of a buffer that borrows from [`Bytes`].
const BORROWED_HEADER: usize = BUFFER_HEADER + COUNTERS + size_of::<Bytes>();

/// A node of a `BTreeMap` of strings, and how many pairs it holds, about.
const MAP_NODE: usize = 544;
const PAIRS_OF_NODE: usize = 8;

/// The same of a buffer that borrows a piece read for it: with what [`ck_core::aligned_bytes`] adds.
const PIECE_HEADER: usize = BORROWED_HEADER + 3 * size_of::<usize>() + 63;

/// A place in the list of children of a struct inside of another array that was decoded, and inside of every
/// dense union: Arrow makes these out of array data, and turns the list of the children's data into that of their
/// arrays where it lies.
const DECODED_CHILD: usize = size_of::<ArrayData>();

/// How a table came to be, which tells what its buffers borrow.
#[derive(Debug, Clone, Default)]
pub(crate) enum Backing {
    /// Made by somebody, no matter how.
    #[default]
    Unknown,
    /// Decoded out of an entry at these addresses of the heap: one borrowed buffer keeps all of it.
    Heap(Range<usize>),
    /// Decoded out of an entry mapped to these addresses: no part of that counts as heap.
    Mapped(Range<usize>),
    /// Decoded out of pieces, each read for it.
    Pieces,
    /// Decompressed into memory of its own.
    Copied,
}

impl Backing {
    pub(crate) fn heap(entry: &Bytes) -> Self {
        Self::Heap(addresses(entry))
    }

    pub(crate) fn mapped(entry: &Bytes) -> Self {
        Self::Mapped(addresses(entry))
    }
}

fn addresses(entry: &Bytes) -> Range<usize> {
    let start = entry.as_ptr().addr();
    start..start + entry.len()
}

/// Bytes of memory that batches keep alive, each allocation once: buffers, the arrays around them and the
/// list of columns, without the schema.
///
/// Counts the whole of every buffer they share, not just the rows they show: a one-row slice of a large
/// batch retains the large batch. Buffers that overlap, as those decoded out of one mapping or one
/// message do, are counted by what they cover together. Mapped bytes are included; see
/// [`Table::heap_bytes`](crate::Table::heap_bytes) for a count without them.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch};
/// use ck_arrow::retained_bytes;
///
/// let column = Arc::new(Int64Array::from_iter_values(0..1000)) as _;
/// let batch = RecordBatch::try_from_iter([("n", column)])?;
/// let row = batch.slice(0, 1);
/// assert!(retained_bytes([&row]) >= 8000);
/// assert!(retained_bytes([&batch, &row]) < 9000);
/// # Ok::<(), arrow_schema::ArrowError>(())
/// ```
pub fn retained_bytes<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> usize {
    let mut footprint = Footprint::default();
    let mut schemas = Footprint::default();
    for batch in batches {
        footprint.add_schema(batch.schema_ref());
        schemas.add_schema(batch.schema_ref());
        footprint.add_batch(batch);
    }
    footprint.bytes().saturating_sub(schemas.bytes())
}

/// Bytes of memory that the buffers of these batches keep alive, each allocation once.
pub(crate) fn buffer_bytes(batches: &[RecordBatch]) -> usize {
    let mut footprint = Footprint::default();
    batches.iter().for_each(|batch| footprint.add_batch(batch));
    footprint.regions.retain(|region| region.header > 0);
    footprint.aside = 0;
    footprint.bytes()
}

/// Bytes of memory that a table of these batches keeps alive, without its schema: of the heap, and mapped.
pub(crate) fn table_bytes(
    schema: &SchemaRef,
    batches: &Arc<Vec<RecordBatch>>,
    backing: &Backing,
) -> (usize, usize) {
    let mut footprint = Footprint {
        backing: Some(backing),
        ..Footprint::default()
    };
    footprint.add_schema(schema);
    let of_schema = footprint.bytes();
    footprint.add_shared(Arc::as_ptr(batches).addr(), size_of::<Vec<RecordBatch>>());
    let list = batches.capacity() * size_of::<RecordBatch>();
    footprint.add(batches.as_ptr().addr(), list);
    for batch in batches.iter() {
        // Another copy of the same schema.
        footprint.add_schema(batch.schema_ref());
        footprint.add_batch(batch);
    }
    let heap = footprint.bytes().saturating_sub(of_schema);
    (heap, footprint.mapped)
}

/// Bytes of memory that a schema takes.
pub(crate) fn schema_bytes(schema: &SchemaRef) -> usize {
    let mut footprint = Footprint::default();
    footprint.add_schema(schema);
    footprint.bytes()
}

/// Regions of memory.
#[derive(Default)]
struct Footprint<'a> {
    backing: Option<&'a Backing>,
    regions: Vec<Region>,
    /// Bytes that have no address to know them by.
    aside: usize,
    /// Bytes of the mapping, if any buffer borrows from it.
    mapped: usize,
    /// Among the children of a dense union.
    in_union: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Region {
    start: usize,
    end: usize,
    /// Besides the bytes between: 0, or that of a buffer.
    header: usize,
}

impl Footprint<'_> {
    fn add(&mut self, start: usize, bytes: usize) {
        if bytes > 0 {
            let end = start.saturating_add(bytes);
            let header = 0;
            self.regions.push(Region { start, end, header });
        }
    }

    /// What an [`Arc`] holds.
    fn add_shared(&mut self, start: usize, bytes: usize) {
        self.add(start.saturating_sub(COUNTERS), COUNTERS + bytes);
    }

    fn add_batch(&mut self, batch: &RecordBatch) {
        self.add(
            batch.columns().as_ptr().addr(),
            size_of_val(batch.columns()),
        );
        batch
            .columns()
            .iter()
            .for_each(|column| self.add_array(column, false));
    }

    /// `is_inner` when it is a child of something else than a batch or a struct.
    fn add_array(&mut self, array: &ArrayRef, is_inner: bool) {
        self.add_shared(Arc::as_ptr(array).addr(), size_of_val(&**array));
        self.add_parts(array, is_inner);
    }

    /// What lies outside of the array's own struct.
    fn add_parts(&mut self, array: &dyn Array, is_inner: bool) {
        self.add_type(array.data_type());
        self.add_buffers(array);
        match array.data_type() {
            DataType::List(_) => self.add_array(array.as_list::<i32>().values(), true),
            DataType::LargeList(_) => self.add_array(array.as_list::<i64>().values(), true),
            DataType::ListView(_) => self.add_array(array.as_list_view::<i32>().values(), true),
            DataType::LargeListView(_) => {
                self.add_array(array.as_list_view::<i64>().values(), true)
            }
            DataType::FixedSizeList(_, _) => {
                self.add_array(array.as_fixed_size_list().values(), true)
            }
            DataType::Dictionary(_, _) => self.add_array(array.as_any_dictionary().values(), true),
            DataType::Map(_, _) => self.add_parts(array.as_map().entries(), true),
            DataType::Struct(_) => {
                let columns = array.as_struct().columns();
                let is_decoded = !matches!(self.backing, None | Some(Backing::Unknown));
                let child = if self.in_union || is_inner && is_decoded {
                    DECODED_CHILD
                } else {
                    size_of::<ArrayRef>()
                };
                self.add(columns.as_ptr().addr(), columns.len() * child);
                columns
                    .iter()
                    .for_each(|column| self.add_array(column, is_inner));
            }
            DataType::Union(fields, mode) => {
                let slots = fields
                    .iter()
                    .map(|(id, _)| usize::try_from(i16::from(id) + 1).unwrap_or(0));
                self.aside += slots.max().unwrap_or(0) * size_of::<Option<ArrayRef>>();
                // A slice of a sparse one has new lists.
                let outer = self.in_union;
                self.in_union |= *mode == UnionMode::Dense;
                for (id, _) in fields.iter() {
                    self.add_array(array.as_union().child(id), true);
                }
                self.in_union = outer;
            }
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.add_array(array.as_run::<Int16Type>().values(), true),
                DataType::Int32 => self.add_array(array.as_run::<Int32Type>().values(), true),
                _ => self.add_array(array.as_run::<Int64Type>().values(), true),
            },
            DataType::Utf8View => self.add_list(array.as_string_view().data_buffers()),
            DataType::BinaryView => self.add_list(array.as_binary_view().data_buffers()),
            _ => {}
        }
    }

    fn add_buffers(&mut self, array: &dyn Array) {
        let data = array.to_data();
        let ends = match data.data_type() {
            DataType::RunEndEncoded(_, _) => data.child_data()[0].buffers(),
            _ => &[],
        };
        for buffer in data.buffers().iter().chain(ends) {
            self.add_buffer(buffer, 1);
        }
        // Of the array itself: its data leaves out validity without nulls.
        if let Some(nulls) = array.nulls() {
            self.add_buffer(nulls.buffer(), 0);
        }
    }

    /// Of those who share the buffer, `clones` are none of the arrays.
    fn add_buffer(&mut self, buffer: &Buffer, clones: usize) {
        let start = buffer.data_ptr().as_ptr().addr();
        let bytes = buffer.capacity();
        if bytes == 0 {
            // Nothing has no address: the header is shared out among all who have it.
            let users = buffer.strong_count().saturating_sub(clones).max(1);
            self.aside += BUFFER_HEADER / users;
            return;
        }
        let (bytes, header) = match self.backing {
            Some(Backing::Heap(entry)) if entry.contains(&start) => {
                self.add(entry.start, entry.len());
                (bytes, BORROWED_HEADER)
            }
            Some(Backing::Mapped(entry)) if entry.contains(&start) => {
                self.mapped = entry.len();
                (0, BORROWED_HEADER)
            }
            Some(Backing::Pieces) => (bytes, PIECE_HEADER),
            _ => (bytes, BUFFER_HEADER),
        };
        let end = start.saturating_add(bytes);
        self.regions.push(Region { start, end, header });
    }

    fn add_list(&mut self, buffers: &Arc<[Buffer]>) {
        self.add_shared(buffers.as_ptr().addr(), size_of_val(&**buffers));
    }

    fn add_schema(&mut self, schema: &SchemaRef) {
        self.add_shared(Arc::as_ptr(schema).addr(), size_of::<Schema>());
        self.add_fields(&schema.fields);
        self.add_metadata(&schema.metadata);
    }

    fn add_fields(&mut self, fields: &Fields) {
        self.add_shared(fields.as_ptr().addr(), size_of_val(&**fields));
        fields.iter().for_each(|field| self.add_field(field));
    }

    fn add_field(&mut self, field: &FieldRef) {
        self.add_shared(Arc::as_ptr(field).addr(), size_of::<Field>());
        self.add(field.name().as_ptr().addr(), field.name().capacity());
        self.add_type(field.data_type());
        self.add_metadata(field.metadata());
    }

    fn add_metadata(&mut self, metadata: &Metadata) {
        let Some(map) = metadata.as_arc() else {
            return;
        };
        let nodes = map.len().div_ceil(PAIRS_OF_NODE) * MAP_NODE;
        self.add_shared(Arc::as_ptr(map).addr(), size_of_val(&**map) + nodes);
        for text in map.iter().flat_map(|(name, value)| [name, value]) {
            self.add(text.as_ptr().addr(), text.capacity());
        }
    }

    fn add_type(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Timestamp(_, Some(zone)) => self.add_shared(zone.as_ptr().addr(), zone.len()),
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::FixedSizeList(field, _)
            | DataType::Map(field, _) => self.add_field(field),
            DataType::Struct(fields) => self.add_fields(fields),
            DataType::Union(fields, _) => {
                let mut list = fields
                    .iter()
                    .map(|(_, field)| std::ptr::from_ref(field).addr());
                if let Some(first) = list.next() {
                    self.add_shared(first, fields.len() * size_of::<(i8, FieldRef)>());
                }
                fields.iter().for_each(|(_, field)| self.add_field(field));
            }
            DataType::Dictionary(keys, values) => {
                for inner in [&**keys, &**values] {
                    self.add(std::ptr::from_ref(inner).addr(), size_of_val(inner));
                }
                self.add_type(values);
            }
            DataType::RunEndEncoded(ends, values) => {
                self.add_field(ends);
                self.add_field(values);
            }
            _ => {}
        }
    }

    /// The length of their union, with the header of each buffer.
    fn bytes(&mut self) -> usize {
        self.regions.sort_unstable();
        self.regions.dedup();
        let mut covered = 0;
        let mut reached = 0;
        let mut headed = None;
        for region in &self.regions {
            covered += region.end.saturating_sub(region.start.max(reached));
            reached = reached.max(region.end);
            if region.header > 0 && headed != Some(region.start) {
                covered += region.header;
                headed = Some(region.start);
            }
        }
        covered + self.aside
    }
}
