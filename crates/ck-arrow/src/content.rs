use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Fields, SchemaRef};
use bytes::Bytes;
use ck_core::{EntryReader, Error, ErrorKind, Result, offload};
use ck_frame::Header;

use crate::decode::{Dictionaries, Part, arrays};
use crate::extent::extents;
use crate::fetch::{Fetched, Run, runs_of_buffers, runs_of_units};
use crate::footer::{Footer, TRAILER_LEN, footer_len};
use crate::footprint::Backing;
use crate::gather::concat;
use crate::hash::{Hashes, xxh3};
use crate::head::Seal;
use crate::index::{Block, Index};
use crate::locate::{Located, locate};
use crate::message::{ALIGNMENT, DictionaryHead, Message, damaged};
use crate::output::dictionary_fields;
use crate::reader::Verification;
use crate::undecoded::{Check, Undecoded};
use crate::window::{self, Window, can_cut};

/// How much of an entry is held at a time while it is hashed as a whole.
const STEP: u64 = 4 << 20;

/// An open table: everything that its readers share.
#[derive(Debug)]
pub(crate) struct Content {
    entry: Arc<dyn EntryReader>,
    /// Where the IPC file starts in the entry.
    start: u64,
    checksum: Option<u64>,
    pub(crate) header: Option<Header>,
    pub(crate) seal: Option<Seal>,
    pub(crate) schema: SchemaRef,
    pub(crate) index: Index,
    verification: Verification,
    verified: Verified,
    dictionaries: Mutex<Dictionaries>,
}

impl Content {
    pub(crate) async fn open(
        entry: Arc<dyn EntryReader>,
        verification: Verification,
    ) -> Result<Self> {
        let Located {
            entry,
            start,
            checksum,
            seal,
            header,
        } = locate(entry).await?;
        let len = entry.len() - start;
        let source = Source {
            entry: &*entry,
            start,
        };
        let is_foreign = seal.is_none();
        // Entries of other writers have no hashes of their parts: they are proved as a whole, first.
        if let Some(checksum) = checksum
            && (verification == Verification::Full
                || is_foreign && verification == Verification::OnTouch)
        {
            source.check(len, checksum).await?;
        }
        let (schema, index) = match seal {
            Some(seal) => source.sealed(len, seal).await?,
            None => source.foreign(len).await?,
        };
        // What was hashed as a whole is good for as long as it stays where it is; what has to be fetched
        // again may be damaged, or replaced, by then.
        let is_in_place = entry.contiguous().is_some();
        let verification = match verification {
            Verification::Full if is_in_place => Verification::Off,
            Verification::Full | Verification::OnTouch => Verification::OnTouch,
            Verification::Off => Verification::Off,
        };
        Ok(Self {
            verified: Verified::new(&index),
            entry,
            start,
            checksum,
            header,
            seal,
            schema,
            index,
            verification,
            dictionaries: Mutex::default(),
        })
    }

    fn source(&self) -> Source<'_> {
        Source {
            entry: &*self.entry,
            start: self.start,
        }
    }

    /// What decoded columns borrow.
    pub(crate) fn backing(&self) -> Backing {
        if (0..self.index.batches.len()).all(|place| self.is_compressed(place) == Some(true)) {
            return Backing::Copied;
        }
        match self.entry.contiguous() {
            Some(entry) if self.entry.is_mapped() => Backing::mapped(entry),
            Some(entry) => Backing::heap(entry),
            None => Backing::Pieces,
        }
    }

    /// Bytes that reading the columns `wanted` of a batch fetches. For entries of other writers, which say
    /// only in the batch where its columns lie, all of its bytes.
    pub(crate) fn fetched_bytes(&self, place: usize, wanted: &[usize]) -> u64 {
        let block = &self.index.batches[place];
        let metadata = match block.inline.is_empty() {
            true => u64::from(block.metadata_len),
            false => 0,
        };
        let columns = match block.units.is_empty() {
            true => block.body_len,
            false => {
                let runs = runs_of_units(&block.units, wanted);
                runs.iter().map(|run| run.span.len).sum()
            }
        };
        metadata.saturating_add(columns)
    }

    /// Whether a batch is compressed; `None` where only the batch itself says it.
    pub(crate) fn is_compressed(&self, place: usize) -> Option<bool> {
        let message = Message::parse_flatbuffer(&self.index.batches[place].inline);
        let message = message.ok().flatten()?;
        Some(message.compression.is_some())
    }

    /// Whether every byte was hashed when the entry was written, and a hash is there to compare with.
    pub(crate) fn has_checksum(&self) -> bool {
        self.checksum.is_some()
    }

    /// Compares the checksum of the whole.
    pub(crate) async fn check(&self) -> Result<()> {
        match self.checksum {
            Some(checksum) => {
                self.source()
                    .check(self.entry.len() - self.start, checksum)
                    .await
            }
            None => Ok(()),
        }
    }

    /// Brings the columns `wanted` of a batch.
    pub(crate) async fn fetch_batch(
        self: &Arc<Self>,
        place: usize,
        wanted: &[usize],
    ) -> Result<Undecoded> {
        let block = &self.index.batches[place];
        let fields = self.schema.fields();
        let dictionaries = self
            .dictionaries(wanted.iter().map(|column| &*fields[*column]))
            .await?;
        let named = |error: Error| error.with("batch", place);
        let fetched = self.fetch(block, fields, wanted).await.map_err(named)?;
        if fetched.message.dictionary.is_some() || fetched.message.rows != block.rows {
            return Err(named(damaged("a batch is not what the index says")));
        }
        let number = self.index.dictionaries.len() + place;
        self.undecoded(number, fetched, fields.clone(), wanted, dictionaries)
            .map_err(named)
    }

    /// The columns `wanted` of the first rows of `rows`, a range within a batch that starts at a multiple of
    /// eight: as many as take `bytes`, or eight. `None` when the batch has to be read as a whole.
    pub(crate) async fn window(
        self: &Arc<Self>,
        place: usize,
        wanted: &[usize],
        schema: &SchemaRef,
        rows: Range<u64>,
        bytes: u64,
    ) -> Result<Option<RecordBatch>> {
        let block = &self.index.batches[place];
        // Where nothing is copied, or hashes prove whole columns only, parts are worth nothing.
        let is_proved = self.seal.is_some() && self.verification != Verification::Off;
        if block.body_len <= bytes || self.entry.contiguous().is_some() || is_proved {
            return Ok(None);
        }
        let message = self
            .message(block)
            .await
            .map_err(|error| error.with("batch", place))?;
        let fields = self.schema.fields();
        let can_cut = |column: &usize| can_cut(fields[*column].data_type(), &message);
        if message.compression.is_some() || !wanted.iter().all(can_cut) {
            return Ok(None);
        }
        if message.dictionary.is_some() || message.rows != block.rows {
            return Err(damaged("a batch is not what the index says").with("batch", place));
        }
        let dictionaries = self
            .dictionaries(wanted.iter().map(|column| &*fields[*column]))
            .await?;
        let extents = extents(fields, &message, true)?;
        let (source, body) = (self.source(), block.body());
        let share = |rows: u64, bytes: u64, of: u64| {
            u64::try_from(u128::from(rows) * u128::from(bytes) / u128::from(of)).unwrap_or(rows)
        };
        let mut count = share(block.rows, bytes, block.body_len);
        let windows = loop {
            count = (count - count % window::STEP)
                .max(window::STEP)
                .min(rows.end - rows.start);
            let mut windows = Vec::with_capacity(wanted.len());
            for column in wanted {
                let rows = rows.start..rows.start + count;
                let data_type = fields[*column].data_type();
                let window =
                    Window::plan(&source, body, &message, &extents[*column], data_type, rows);
                windows.push(window.await.map_err(|error| error.with("batch", place))?);
            }
            let planned: u64 = windows.iter().map(Window::bytes).sum();
            if planned <= bytes || count <= window::STEP {
                break windows;
            }
            // Rows wider than the batch's average.
            count = (count / 2).min(share(count, bytes, planned));
        };
        let mut columns = Vec::with_capacity(wanted.len());
        for (column, window) in wanted.iter().zip(windows) {
            let (message, data) = window.load(&source, body, count).await?;
            let field = Fields::from(vec![Arc::clone(&fields[*column])]);
            let arrays = arrays(field, &message, &data, &dictionaries, true);
            columns.extend(arrays.map_err(|error| error.with("batch", place))?);
        }
        assemble(place, schema, columns, count).map(Some)
    }

    /// The message of a block: from the index, or from its place.
    async fn message(&self, block: &Block) -> Result<Message> {
        let bytes = match block.inline.is_empty() {
            true => Some(self.source().read(block.metadata()).await?),
            false => None,
        };
        self.parse(block, bytes)
    }

    /// The message of a block, from what stands in its place, or else from the index.
    fn parse(&self, block: &Block, bytes: Option<Bytes>) -> Result<Message> {
        let message = match bytes {
            Some(bytes) => {
                if self.seal.is_some()
                    && self.verification == Verification::OnTouch
                    && xxh3(&bytes) != block.metadata_hash
                {
                    return Err(damaged(
                        "the metadata of a batch does not have the hash it was stored with",
                    ));
                }
                Message::parse(&bytes)?
            }
            None => Message::parse_flatbuffer(&block.inline)?,
        };
        let message = message.ok_or_else(|| damaged("a block holds no batch"))?;
        message.check_body(block.body_len)?;
        Ok(message)
    }

    /// Brings the message of a block and the bytes of columns: at once where the index says where they are.
    async fn fetch<'a>(
        &self,
        block: &'a Block,
        fields: &Fields,
        wanted: &[usize],
    ) -> Result<Fetched<'a>> {
        let range = |run: &Run| block.body() + run.span.offset..block.body() + run.span.end();
        let (message, runs, bytes) = if block.units.is_empty() {
            let message = self.message(block).await?;
            let runs = runs_of_buffers(&message, &extents(fields, &message, false)?, wanted);
            let ranges = runs.iter().map(range).collect();
            (message, runs, self.source().read_all(ranges).await?)
        } else {
            let runs = runs_of_units(&block.units, wanted);
            let mut ranges: Vec<_> = runs.iter().map(range).collect();
            let is_apart = block.inline.is_empty();
            if is_apart {
                ranges.push(block.metadata());
            }
            let mut bytes = self.source().read_all(ranges).await?;
            let metadata = if is_apart { bytes.pop() } else { None };
            (self.parse(block, metadata)?, runs, bytes)
        };
        Ok(Fetched {
            block,
            message,
            runs,
            bytes,
        })
    }

    /// What there is to verify and to decode of one block for the columns `wanted`.
    fn undecoded(
        self: &Arc<Self>,
        number: usize,
        fetched: Fetched<'_>,
        fields: Fields,
        wanted: &[usize],
        dictionaries: Dictionaries,
    ) -> Result<Undecoded> {
        let Fetched {
            block,
            message,
            runs,
            bytes,
        } = fetched;
        let extents = extents(&fields, &message, false)?;
        let mut parts = Vec::with_capacity(runs.len());
        let mut checks = Vec::new();
        let mut work = 0;
        let is_in_place = self.entry.contiguous().is_some();
        for (run, bytes) in runs.into_iter().zip(bytes) {
            if self.seal.is_some() && self.verification == Verification::OnTouch {
                for unit in run
                    .units
                    .filter(|unit| !(is_in_place && self.verified.has(number, *unit)))
                {
                    let span = block.units[unit].span;
                    work += span.len;
                    let start = span.offset - run.span.offset;
                    checks.push(Check {
                        unit,
                        bytes: slice(&bytes, start..start + span.len)?,
                        hash: block.units[unit].hash,
                    });
                }
            }
            work += message.compression.map_or(0, |_| bytes.len() as u64);
            let extents = run
                .columns
                .iter()
                .map(|column| extents[*column].clone())
                .collect();
            parts.push(Part {
                columns: run.columns,
                extents,
                span: run.span,
                bytes,
            });
        }
        let is_aligned = self.seal.is_some()
            && parts.iter().all(|part| {
                part.bytes.is_empty() || part.bytes.as_ptr().align_offset(ALIGNMENT) == 0
            });
        Ok(Undecoded {
            content: Arc::clone(self),
            number,
            rows: block.rows,
            message,
            fields,
            dictionaries,
            checks,
            parts,
            rooms: Vec::new(),
            pool: None,
            wanted: wanted.into(),
            is_aligned,
            work,
        })
    }

    /// Notes that a unit has the hash it was stored with.
    pub(crate) fn is_verified(&self, block: usize, unit: usize) {
        self.verified.set(block, unit);
    }

    /// The dictionaries that these fields need, loaded when they are not yet.
    async fn dictionaries<'a>(
        self: &Arc<Self>,
        fields: impl Iterator<Item = &'a Field>,
    ) -> Result<Dictionaries> {
        let mut needed = Vec::new();
        fields.for_each(|field| needed_dictionaries(field, &mut needed));
        let mut found = Dictionaries::new();
        for (id, values) in needed {
            let known = self.loaded().get(&id).cloned();
            let array = match known {
                Some(array) => Some(array),
                None => self.load(id, &values, &found).await?,
            };
            if let Some(array) = array {
                self.loaded().insert(id, Arc::clone(&array));
                found.insert(id, array);
            }
        }
        Ok(found)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Dictionaries> {
        self.dictionaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All values of a dictionary; `None` when the file has none, because all its rows are null.
    async fn load(
        self: &Arc<Self>,
        id: i64,
        values: &DataType,
        inner: &Dictionaries,
    ) -> Result<Option<ArrayRef>> {
        let mut pieces: Vec<ArrayRef> = Vec::new();
        for (place, block) in self.index.dictionaries.iter().enumerate() {
            if block.dictionary.is_none_or(|head| head.id != id) {
                continue;
            }
            let named = |error: Error| error.with("dictionary", id);
            let fields = dictionary_fields(values);
            let fetched = self.fetch(block, &fields, &[0]).await.map_err(named)?;
            if fetched.message.dictionary != block.dictionary {
                return Err(named(damaged("a dictionary is not what the index says")));
            }
            if block.dictionary.is_some_and(|head| !head.is_delta) {
                pieces.clear();
            }
            let undecoded = self.undecoded(place, fetched, fields, &[0], inner.clone());
            let undecoded = undecoded.map_err(named)?;
            pieces.extend(undecoded.arrays(None).await.map_err(named)?);
        }
        match pieces.as_slice() {
            [] => Ok(None),
            pieces => concat(pieces).map(Some).map_err(|error| {
                damaged("the parts of a dictionary do not fit together").with_source(error)
            }),
        }
    }
}

pub(crate) fn assemble(
    place: usize,
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: u64,
) -> Result<RecordBatch> {
    let rows = usize::try_from(rows)
        .map_err(|_| damaged("a batch has more rows than memory can count"))?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| {
        damaged("a batch does not fit its schema")
            .with("batch", place)
            .with_source(error)
    })
}

/// The dictionaries inside a field, inner ones first, each with the type of its values.
pub(crate) fn needed_dictionaries(field: &Field, needed: &mut Vec<(i64, DataType)>) {
    let mut inner = |field: &Field| needed_dictionaries(field, needed);
    match field.data_type() {
        DataType::Dictionary(_, values) => {
            needed_dictionaries(&Field::new("", values.as_ref().clone(), true), needed);
            #[expect(deprecated, reason = "the decoder finds dictionaries by this number")]
            needed.extend(field.dict_id().map(|id| (id, values.as_ref().clone())));
        }
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => inner(field),
        DataType::Struct(fields) => fields.iter().for_each(|field| inner(field)),
        DataType::Union(fields, _) => fields.iter().for_each(|(_, field)| inner(field)),
        DataType::RunEndEncoded(_, field) => inner(field),
        _ => {}
    }
}

/// The IPC file inside an entry.
pub(crate) struct Source<'a> {
    entry: &'a dyn EntryReader,
    start: u64,
}

impl Source<'_> {
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let range = self.start + range.start..self.start + range.end;
        match self.entry.contiguous() {
            Some(bytes) => slice(bytes, range),
            None => self.entry.read(range).await,
        }
    }

    async fn read_all(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let ranges = ranges
            .into_iter()
            .map(|range| self.start + range.start..self.start + range.end);
        match self.entry.contiguous() {
            Some(bytes) => ranges.map(|range| slice(bytes, range)).collect(),
            None => self.entry.read_ranges(ranges.collect()).await,
        }
    }

    /// Hashes the whole IPC file and compares.
    async fn check(&self, len: u64, checksum: u64) -> Result<()> {
        let mut hashes = Hashes::new();
        let mut at = 0;
        while at < len {
            let bytes = self.read(at..(at + STEP).min(len)).await?;
            at += bytes.len() as u64;
            hashes = offload(move || {
                hashes.add(&bytes);
                hashes
            })
            .await;
        }
        if hashes.whole() == checksum {
            return Ok(());
        }
        Err(
            damaged("the entry does not have the hash it was stored with")
                .with("stored", format_args!("{checksum:016x}"))
                .with("found", format_args!("{:016x}", hashes.whole())),
        )
    }

    /// Schema and index of an entry of ours.
    async fn sealed(&self, len: u64, seal: Seal) -> Result<(SchemaRef, Index)> {
        if seal.tail_offset.checked_add(seal.tail_len) != Some(len) {
            return Err(
                damaged("the entry does not have the length it was stored with")
                    .with(
                        "stored",
                        format_args!("{}+{}", seal.tail_offset, seal.tail_len),
                    )
                    .with("found", len),
            );
        }
        let tail = self.read(seal.tail_offset..len).await?;
        if xxh3(&tail) != seal.tail_hash {
            return Err(damaged(
                "the tail of the entry does not have the hash it was stored with",
            ));
        }
        let trailer = tail
            .len()
            .checked_sub(TRAILER_LEN)
            .ok_or_else(|| damaged("the tail is too short"))?;
        let footer_start = trailer.checked_sub(footer_len(&tail[trailer..])?);
        let footer_start =
            footer_start.ok_or_else(|| damaged("the footer is longer than the tail"))?;
        let footer = Footer::parse(&tail[footer_start..trailer], len)?;
        let index = Index::decode(&tail[..footer_start], len, footer.schema.fields().len())?;
        Ok((footer.schema, index))
    }

    /// Schema and blocks of an entry of another writer, whose batches have to be asked for their rows.
    async fn foreign(&self, len: u64) -> Result<(SchemaRef, Index)> {
        let trailer = len
            .checked_sub(TRAILER_LEN as u64)
            .ok_or_else(|| damaged("an Arrow file is too short"))?;
        let footer_len = footer_len(&self.read(trailer..len).await?)? as u64;
        let footer_start = trailer.checked_sub(footer_len);
        let footer_start =
            footer_start.ok_or_else(|| damaged("the footer is longer than the Arrow file"))?;
        let footer = Footer::parse(&self.read(footer_start..trailer).await?, len)?;
        let mut index = Index {
            dictionaries: footer.dictionaries,
            batches: footer.batches,
        };
        for block in index.dictionaries.iter_mut().chain(&mut index.batches) {
            let metadata = self.read(block.metadata()).await?;
            let message = Message::parse(&metadata)?
                .ok_or_else(|| damaged("a block of the Arrow file holds no batch"))?;
            block.rows = message.rows;
            block.dictionary = message.dictionary;
        }
        let is_dictionary = |block: &Block| matches!(block.dictionary, Some(DictionaryHead { .. }));
        if !index.dictionaries.iter().all(is_dictionary) || index.batches.iter().any(is_dictionary)
        {
            return Err(damaged(
                "a dictionary stands among the batches or the other way round",
            ));
        }
        Ok((footer.schema, index))
    }
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Result<Bytes> {
    match (usize::try_from(range.start), usize::try_from(range.end)) {
        (Ok(start), Ok(end)) if start <= end && end <= bytes.len() => Ok(bytes.slice(start..end)),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "the entry ends before the bytes asked for",
        )
        .with("wanted", format_args!("{}..{}", range.start, range.end))
        .with("entry_bytes", bytes.len())),
    }
}

/// Which units have been hashed and found good. Entries never change, so once is enough where they lie
/// in memory.
#[derive(Debug)]
struct Verified {
    /// Where the units of each block start in `bits`; dictionaries first.
    starts: Vec<usize>,
    bits: Vec<AtomicU64>,
}

impl Verified {
    fn new(index: &Index) -> Self {
        let mut units = 0;
        let blocks = index.dictionaries.iter().chain(&index.batches);
        let starts = blocks.map(|block| {
            units += block.units.len();
            units - block.units.len()
        });
        let starts = starts.collect();
        Self {
            starts,
            bits: (0..units.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn has(&self, block: usize, unit: usize) -> bool {
        let bit = self.starts[block] + unit;
        self.bits[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
    }

    fn set(&self, block: usize, unit: usize) {
        let bit = self.starts[block] + unit;
        self.bits[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }
}
