//! Buffers in their compressed form.
//!
//! Format: each buffer is its plain length as i64 LE, then the compressed bytes; a length of -1 says
//! that plain bytes follow. <https://arrow.apache.org/docs/format/Columnar.html#compression>

use std::io::Read;

use arrow_buffer::Buffer;
use arrow_ipc::CompressionType;
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};
use lz4_flex::frame::FrameDecoder;

use crate::compression::Codec;
use crate::message::damaged;

/// What stands before the bytes of a buffer that is stored plain.
const PLAIN: i64 = -1;
const PLAIN_PREFIX: [u8; PREFIX] = PLAIN.to_le_bytes();

const PREFIX: usize = size_of::<i64>();

/// Buffers from this size on whose like did not shrink are first tried on samples: random keys and
/// floats never shrink, and finding that out by compressing all of them takes most of the time of a put.
const SAMPLED: usize = 256 * 1024;
const SAMPLE: usize = 16 * 1024;

/// Buffers of batches of the same size differ by less, mostly.
const SCRATCH_STEP: usize = 64 * 1024;

/// A claimed length beyond this multiple of the compressed bytes is not believed in advance.
const CREDIBLE_RATIO: usize = 64;

impl Codec {
    pub(crate) fn ipc(self) -> Option<CompressionType> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(CompressionType::LZ4_FRAME),
            Self::Zstd(_) => Some(CompressionType::ZSTD),
        }
    }
}

/// Compresses buffers, with its tables and its memory kept from one to the next.
pub(crate) struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Where compressed bytes arise, before it is known how many there are: a whole buffer with zstd, a block with
    /// lz4.
    scratch: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(codec: Codec) -> Result<Self> {
        let zstd = match codec {
            Codec::Zstd(level) => Some(zstd::bulk::Compressor::new(level).map_err(failed)?),
            _ => None,
        };
        Ok(Self {
            codec,
            zstd,
            scratch: Vec::new(),
        })
    }

    /// The buffer as it is stored, in pieces. An empty buffer stays empty.
    ///
    /// `was_plain` says that its like in the batch before did not shrink.
    pub(crate) fn compress(&mut self, buffer: &Buffer, was_plain: bool) -> Result<Vec<Bytes>> {
        if buffer.is_empty() {
            return Ok(vec![]);
        }
        if buffer.len() < SAMPLED || !was_plain || self.shrinks(buffer)? {
            let compressed = self.frame(buffer)?;
            if length(&compressed) < PREFIX + buffer.len() {
                return Ok(compressed);
            }
        }
        Ok(vec![
            Bytes::from_static(&PLAIN_PREFIX),
            bytes_of(buffer.clone()),
        ])
    }

    /// Whether samples from the start, the middle and the end get smaller by at least 3 %.
    fn shrinks(&mut self, buffer: &[u8]) -> Result<bool> {
        let middle = buffer.len() / 2;
        let starts = [0, middle - middle % 64, buffer.len() - SAMPLE];
        let mut bytes = 0;
        for start in starts {
            bytes += length(&self.frame(&buffer[start..start + SAMPLE])?);
        }
        Ok(bytes < starts.len() * SAMPLE / 100 * 97)
    }

    /// The plain length and the compressed bytes.
    fn frame(&mut self, plain: &[u8]) -> Result<Vec<Bytes>> {
        let prefix = (plain.len() as u64).to_le_bytes();
        let bound = match self.codec {
            Codec::Zstd(_) => PREFIX + zstd::zstd_safe::compress_bound(plain.len()),
            _ => LZ4_ROOM + lz4_flex::block::get_maximum_output_size(plain.len().min(LZ4_BLOCK)),
        };
        if self.scratch.len() < bound {
            // Not grown: that would hold both at once, and take twice as much to be ready for more.
            self.scratch = Vec::new();
            self.scratch = vec![0; bound.next_multiple_of(SCRATCH_STEP)];
        }
        let Some(zstd) = &mut self.zstd else {
            return lz4_frame(prefix, plain, &mut self.scratch);
        };
        let out = &mut self.scratch[PREFIX..];
        let written = zstd.compress_to_buffer(plain, out).map_err(failed)?;
        self.scratch[..PREFIX].copy_from_slice(&prefix);
        Ok(vec![Bytes::copy_from_slice(
            &self.scratch[..PREFIX + written],
        )])
    }
}

/// Whether a buffer, as it is stored, did not shrink.
pub(crate) fn is_plain(pieces: &[Bytes]) -> bool {
    // A compressed one has its prefix and its first bytes in one piece.
    pieces
        .first()
        .is_some_and(|first| *first == PLAIN_PREFIX[..])
}

fn length(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

/// The heads of LZ4 frames of independent blocks without checksums: the magic, the settings, their check; and the most
/// bytes of a block. <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>
const LZ4_HEADS: [([u8; 7], usize); 4] = [
    ([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82], 64 << 10),
    ([0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb], 256 << 10),
    ([0x04, 0x22, 0x4d, 0x18, 0x60, 0x60, 0x51], 1 << 20),
    ([0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73], 4 << 20),
];
/// What is written. Matches reach back 64 KiB, so larger blocks compress hardly better, and each thread takes memory for
/// one.
const LZ4_HEAD: [u8; 7] = LZ4_HEADS[2].0;
const LZ4_BLOCK: usize = LZ4_HEADS[2].1;
const LZ4_END: [u8; 4] = [0; 4];
/// Marks a block that is stored plain.
const LZ4_PLAIN: u32 = 1 << 31;
/// What stands around the block of a frame that has no other.
const LZ4_ROOM: usize = PREFIX + LZ4_HEAD.len() + LZ4_WORD + LZ4_END.len();
/// The length of a block, which stands before it.
const LZ4_WORD: usize = size_of::<u32>();

/// The blocks of an LZ4 frame, a piece each: the first begins with `prefix` and the head, the last has the end.
/// They arise in `scratch`, which has room for one.
///
/// The blocks are compressed from where they lie; the encoder for streams would copy them first.
fn lz4_frame(prefix: [u8; PREFIX], plain: &[u8], scratch: &mut [u8]) -> Result<Vec<Bytes>> {
    let blocks = plain.len().div_ceil(LZ4_BLOCK);
    let mut pieces = Vec::with_capacity(blocks);
    for (i, block) in plain.chunks(LZ4_BLOCK).enumerate() {
        let mut end = 0;
        let mut add = |bytes: &[u8]| {
            scratch[end..][..bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        if i == 0 {
            add(&prefix);
            add(&LZ4_HEAD);
        }
        let (head, body) = scratch[end..].split_at_mut(LZ4_WORD);
        let compressed = lz4_flex::block::compress_into(block, body)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let (len, mark) = if compressed < block.len() {
            (compressed, 0)
        } else {
            body[..block.len()].copy_from_slice(block);
            (block.len(), LZ4_PLAIN)
        };
        // A block has at most 1 MiB.
        let word = u32::try_from(len).unwrap_or(0) | mark;
        head.copy_from_slice(&word.to_le_bytes());
        end += LZ4_WORD + len;
        if i + 1 == blocks {
            scratch[end..][..LZ4_END.len()].copy_from_slice(&LZ4_END);
            end += LZ4_END.len();
        }
        pieces.push(Bytes::copy_from_slice(&scratch[..end]));
    }
    Ok(pieces)
}

/// Decompresses blocks of at most `most` bytes, which follow one of [`LZ4_HEADS`], into `plain`; how many bytes they have.
///
/// They come out where they belong. The decoder for streams takes two blocks of memory first, for every buffer,
/// however small it is.
fn lz4_blocks(mut blocks: &[u8], most: usize, plain: &mut [u8]) -> Result<usize> {
    let cut_off = || damaged("a compressed buffer ends within a block");
    let mut end = 0;
    loop {
        let (head, rest) = blocks.split_first_chunk().ok_or_else(cut_off)?;
        let word = u32::from_le_bytes(*head);
        if word == 0 && rest.is_empty() {
            return Ok(end);
        }
        let len = usize::try_from(word & !LZ4_PLAIN).unwrap_or(usize::MAX);
        let (block, rest) = rest.split_at_checked(len).ok_or_else(cut_off)?;
        let room = plain.len() - end;
        let out = &mut plain[end..][..room.min(most)];
        end += if word & LZ4_PLAIN == 0 {
            let written = lz4_flex::block::decompress_into(block, out);
            written.map_err(|error| damaged_frame(std::io::Error::other(error)))?
        } else {
            let out = out.get_mut(..len);
            let out =
                out.ok_or_else(|| damaged("a compressed buffer holds more than it claims"))?;
            out.copy_from_slice(block);
            len
        };
        blocks = rest;
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compressor({:?})", self.codec)
    }
}

/// What a stored buffer says of itself.
#[derive(Clone, Copy)]
pub(crate) enum Stored<'a> {
    Plain(&'a [u8]),
    Compressed { plain_len: usize, bytes: &'a [u8] },
}

impl<'a> Stored<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::Plain(bytes));
        }
        let (prefix, bytes) = bytes
            .split_first_chunk()
            .ok_or_else(|| damaged("a compressed buffer is shorter than its own prefix"))?;
        match i64::from_le_bytes(*prefix) {
            PLAIN => Ok(Self::Plain(bytes)),
            len => match usize::try_from(len) {
                Ok(plain_len) => Ok(Self::Compressed { plain_len, bytes }),
                Err(_) => {
                    Err(damaged("a compressed buffer claims a negative length").with("length", len))
                }
            },
        }
    }
}

/// Decompresses buffers, with its tables kept from one to the next.
pub(crate) struct Decompressor {
    codec: CompressionType,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    pub(crate) fn new(codec: CompressionType) -> Result<Self> {
        let zstd = match codec {
            CompressionType::LZ4_FRAME => None,
            CompressionType::ZSTD => Some(zstd::bulk::Decompressor::new().map_err(failed)?),
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "unknown compression in an Arrow batch",
                )
                .with("codec", other.0));
            }
        };
        Ok(Self { codec, zstd })
    }

    /// Whether memory for `plain_len` bytes may be taken before they have been seen.
    pub(crate) fn is_credible(plain_len: usize, compressed_len: usize) -> bool {
        plain_len / CREDIBLE_RATIO <= compressed_len || plain_len <= 1 << 20
    }

    /// Decompresses into memory of exactly the plain length.
    pub(crate) fn decompress_into(&mut self, compressed: &[u8], plain: &mut [u8]) -> Result<()> {
        let written = match &mut self.zstd {
            Some(zstd) => zstd
                .decompress_to_buffer(compressed, plain)
                .map_err(damaged_frame)?,
            None => match lz4_head(compressed) {
                Some((blocks, most)) => lz4_blocks(blocks, most, plain)?,
                None => {
                    let mut decoder = FrameDecoder::new(compressed);
                    decoder.read_exact(plain).map_err(damaged_frame)?;
                    plain.len() + decoder.read(&mut [0]).map_err(damaged_frame)?
                }
            },
        };
        if written == plain.len() {
            return Ok(());
        }
        Err(
            damaged("a compressed buffer does not have the length it claims")
                .with("length", plain.len()),
        )
    }

    /// Decompresses into memory that grows as bytes arrive, for claims that are not credible.
    pub(crate) fn decompress_growing(
        &mut self,
        compressed: &[u8],
        plain_len: usize,
    ) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        let limit = plain_len as u64 + 1;
        match self.codec {
            CompressionType::ZSTD => {
                let decoder =
                    zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged_frame)?;
                decoder
                    .take(limit)
                    .read_to_end(&mut plain)
                    .map_err(damaged_frame)?;
            }
            _ => {
                FrameDecoder::new(compressed)
                    .take(limit)
                    .read_to_end(&mut plain)
                    .map_err(damaged_frame)?;
            }
        }
        if plain.len() == plain_len {
            return Ok(plain);
        }
        Err(
            damaged("a compressed buffer does not have the length it claims")
                .with("length", plain_len),
        )
    }
}

/// The bytes of an Arrow buffer, shared.
pub(crate) fn bytes_of(buffer: Buffer) -> Bytes {
    if buffer.is_empty() {
        Bytes::new()
    } else {
        Bytes::from_owner(buffer)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Permanent, "a column buffer cannot be compressed").with_source(error)
}

/// What follows the head of a frame, and how large its blocks may be; `None` for frames that are made otherwise.
fn lz4_head(frame: &[u8]) -> Option<(&[u8], usize)> {
    let mut heads = LZ4_HEADS.iter();
    heads.find_map(|(head, most)| Some((frame.strip_prefix(head)?, *most)))
}

fn damaged_frame(error: std::io::Error) -> Error {
    damaged("a compressed buffer cannot be decompressed").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(codec: Codec, plain: &[u8]) -> (usize, Vec<u8>) {
        let pieces = Compressor::new(codec)
            .unwrap()
            .compress(&Buffer::from(plain), true)
            .unwrap();
        let stored = pieces.concat();
        let plain_again = match Stored::of(&stored).unwrap() {
            Stored::Plain(bytes) => bytes.to_vec(),
            Stored::Compressed { plain_len, bytes } => {
                let mut decompressor = Decompressor::new(codec.ipc().unwrap()).unwrap();
                let mut out = vec![0; plain_len];
                decompressor.decompress_into(bytes, &mut out).unwrap();
                assert_eq!(
                    decompressor.decompress_growing(bytes, plain_len).unwrap(),
                    out
                );
                out
            }
        };
        (stored.len(), plain_again)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(&mut next)
            .flatten()
            .take(len)
            .collect()
    }

    #[test]
    fn buffers_come_back_as_they_were() {
        for codec in [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(9)] {
            for plain in [
                vec![],
                vec![7],
                vec![1; 5_000_000],
                noise(1000),
                noise(SAMPLED + 5),
                vec![1; LZ4_BLOCK - 1],
                vec![1; LZ4_BLOCK],
                vec![1; LZ4_BLOCK + 1],
                vec![1; 2 * LZ4_BLOCK],
                [noise(LZ4_BLOCK), vec![1; LZ4_BLOCK]].concat(),
                [vec![1; LZ4_BLOCK], noise(LZ4_BLOCK)].concat(),
            ] {
                assert_eq!(round_trip(codec, &plain).1, plain);
            }
        }
    }

    #[test]
    fn noise_is_stored_plain_and_repetition_small() {
        for codec in [Codec::Lz4, Codec::Zstd(1)] {
            let plain = noise(SAMPLED);
            assert_eq!(round_trip(codec, &plain).0, PREFIX + plain.len());
            assert!(round_trip(codec, &vec![3; SAMPLED]).0 < SAMPLED / 50);
            let mut compressor = Compressor::new(codec).unwrap();
            let mut is_stored_plain = |plain: Vec<u8>| {
                let pieces = compressor.compress(&Buffer::from(plain), false).unwrap();
                is_plain(&pieces)
            };
            assert!(is_stored_plain(noise(SAMPLED)));
            assert!(!is_stored_plain(vec![3; 3 * LZ4_BLOCK]));
            assert!(!is_stored_plain(vec![]));
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_or_goes_on_is_refused() {
        let plain = [vec![1; LZ4_BLOCK], noise(1000)].concat();
        let pieces = Compressor::new(Codec::Lz4)
            .unwrap()
            .compress(&Buffer::from(&plain[..]), false)
            .unwrap();
        assert_eq!(pieces.len(), 2);
        let frame = &pieces.concat()[PREFIX..];
        let mut decompressor = Decompressor::new(CompressionType::LZ4_FRAME).unwrap();
        let mut out = vec![0; plain.len()];
        decompressor.decompress_into(frame, &mut out).unwrap();
        assert_eq!(out, plain);
        for cut in (0..20).chain((frame.len() - 1010..frame.len()).step_by(100)) {
            assert!(
                decompressor
                    .decompress_into(&frame[..cut], &mut out)
                    .is_err(),
                "{cut}"
            );
        }
        for more in [&[0][..], &LZ4_END, &LZ4_HEAD] {
            let longer = [frame, more].concat();
            assert!(decompressor.decompress_into(&longer, &mut out).is_err());
        }
    }

    #[test]
    fn one_compressor_takes_small_and_large_buffers_in_any_order() {
        for codec in [Codec::Lz4, Codec::Zstd(1)] {
            let mut compressor = Compressor::new(codec).unwrap();
            let mut decompressor = Decompressor::new(codec.ipc().unwrap()).unwrap();
            for len in [100, 3 * LZ4_BLOCK + 7, 70_000, LZ4_BLOCK, 1] {
                let plain = [noise(len / 2), vec![9; len - len / 2 + 100]].concat();
                let buffer = Buffer::from(&plain[..]);
                let stored = compressor.compress(&buffer, false).unwrap().concat();
                let mut out = vec![0; plain.len()];
                decompressor
                    .decompress_into(&stored[PREFIX..], &mut out)
                    .unwrap();
                assert_eq!(out, plain);
            }
        }
    }

    #[test]
    fn frames_with_other_settings_are_read_too() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let plain = [vec![1; 3_000_000], noise(2_000_000)].concat();
        for (size, most) in [
            (BlockSize::Max64KB, 64 << 10),
            (BlockSize::Max256KB, 256 << 10),
            (BlockSize::Max1MB, 1 << 20),
            (BlockSize::Max4MB, 4 << 20),
            // What the crates of Arrow choose.
            (BlockSize::Auto, 4 << 20),
        ] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                let info = FrameInfo::new().block_size(size).block_mode(mode);
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                std::io::Write::write_all(&mut encoder, &plain).unwrap();
                let frame = encoder.finish().unwrap();
                let mut out = vec![0; plain.len()];
                let mut decompressor = Decompressor::new(CompressionType::LZ4_FRAME).unwrap();
                decompressor.decompress_into(&frame, &mut out).unwrap();
                assert_eq!(out, plain);
                let straight = (mode == BlockMode::Independent).then_some(most);
                assert_eq!(lz4_head(&frame).map(|(_, most)| most), straight);
            }
        }
    }

    #[test]
    fn a_wrong_claim_of_length_is_refused() {
        for codec in [Codec::Lz4, Codec::Zstd(1)] {
            let stored = Compressor::new(codec)
                .unwrap()
                .compress(&Buffer::from(&[5_u8; 1000][..]), false)
                .unwrap();
            let compressed = &stored.concat()[PREFIX..];
            let mut decompressor = Decompressor::new(codec.ipc().unwrap()).unwrap();
            for claim in [0, 999, 1001] {
                assert!(
                    decompressor
                        .decompress_into(compressed, &mut vec![0; claim])
                        .is_err()
                );
                assert!(decompressor.decompress_growing(compressed, claim).is_err());
            }
            assert!(
                decompressor
                    .decompress_growing(compressed, 1 << 50)
                    .is_err()
            );
        }
    }
}
