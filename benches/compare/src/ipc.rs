//! Tables in Arrow files through the crate arrow-ipc alone.

use std::fs::File;
use std::hash::Hasher;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, FileReaderBuilder, read_footer_length};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{CompressionType, root_as_footer};
use bytes::Bytes;
use memmap2::Mmap;
use twox_hash::XxHash3_64;

use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd(i32),
}

/// Writes a file; with `hash`, through an xxh3 of all bytes, which is returned.
pub(crate) fn write(table: &[RecordBatch], path: &Path, codec: Codec, hash: bool) -> Result<u64> {
    let file = File::create(path)?;
    if !hash {
        encode(table, BufWriter::new(file), codec)?;
        return Ok(0);
    }
    let sink = Hashing {
        hash: XxHash3_64::new(),
        file,
    };
    Ok(
        encode(table, BufWriter::with_capacity(1 << 20, sink), codec)?
            .hash
            .finish(),
    )
}

/// Writes into `sink` and returns it.
pub(crate) fn encode<W: Write>(
    table: &[RecordBatch],
    sink: BufWriter<W>,
    codec: Codec,
) -> Result<W> {
    let compression = match codec {
        Codec::None => None,
        Codec::Lz4 => Some(CompressionType::LZ4_FRAME),
        Codec::Zstd(_) => Some(CompressionType::ZSTD),
    };
    let mut options = IpcWriteOptions::default().try_with_compression(compression)?;
    if let Codec::Zstd(level) = codec {
        options = options.try_with_compression_level(Some(level))?;
    }
    let mut writer = FileWriter::try_new_with_options(sink, &table[0].schema(), options)?;
    for batch in table {
        writer.write(batch)?;
    }
    writer.finish()?;
    let sink = writer.into_inner()?;
    sink.into_inner().map_err(|error| error.into_error().into())
}

struct Hashing {
    hash: XxHash3_64,
    file: File,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.write(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What a reader proves of the bytes before it uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    None,
    /// The xxh3 of the whole file.
    File,
    /// The xxh3 of each buffer of the columns that are read.
    Columns,
}

/// Maps a file and decodes what is asked for in place.
pub(crate) fn map(
    path: &Path,
    columns: Option<&[usize]>,
    proof: Proof,
) -> Result<Vec<RecordBatch>> {
    let file = File::open(path)?;
    // SAFETY: nothing truncates the file while this program runs.
    let map = unsafe { Mmap::map(&file)? };
    decode(Buffer::from(Bytes::from_owner(map)), columns, proof)
}

/// Reads a file into memory at once and decodes what is asked for.
pub(crate) fn read(
    path: &Path,
    columns: Option<&[usize]>,
    proof: Proof,
) -> Result<Vec<RecordBatch>> {
    decode(Buffer::from_vec(std::fs::read(path)?), columns, proof)
}

/// Reads batch by batch, with the crate's own reader.
pub(crate) fn read_batches(path: &Path, columns: Option<&[usize]>) -> Result<Vec<RecordBatch>> {
    let mut builder = FileReaderBuilder::new();
    if let Some(columns) = columns {
        builder = builder.with_projection(columns.to_vec());
    }
    Ok(builder
        .build(File::open(path)?)?
        .collect::<std::result::Result<_, _>>()?)
}

pub(crate) fn decode(
    file: Buffer,
    columns: Option<&[usize]>,
    proof: Proof,
) -> Result<Vec<RecordBatch>> {
    if proof == Proof::File {
        std::hint::black_box(XxHash3_64::oneshot(&file));
    }
    let trailer = file.len() - 10;
    let footer_len = read_footer_length(file[trailer..].try_into()?)?;
    let footer =
        root_as_footer(&file[trailer - footer_len..trailer]).map_err(|error| error.to_string())?;
    let schema = try_fb_to_schema(footer.schema().ok_or("no schema")?)?;
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    if let Some(columns) = columns {
        decoder = decoder.with_projection(columns.to_vec());
    }
    let block_of = |block: &arrow_ipc::Block| {
        let len = block.bodyLength() as usize + block.metaDataLength() as usize;
        file.slice_with_length(block.offset() as usize, len)
    };
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &block_of(block))?;
    }
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let batch = decoder
            .read_record_batch(block, &block_of(block))?
            .ok_or("no batch")?;
        if proof == Proof::Columns {
            batch
                .columns()
                .iter()
                .for_each(|column| hash(&column.to_data()));
        }
        batches.push(batch);
    }
    Ok(batches)
}

fn hash(array: &arrow_data::ArrayData) {
    for buffer in array.buffers() {
        std::hint::black_box(XxHash3_64::oneshot(buffer));
    }
    array.child_data().iter().for_each(hash);
}
