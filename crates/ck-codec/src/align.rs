use std::io::Write;

use bytes::Bytes;
use ck_core::Result;

use crate::error::not_written;

/// Where parts of values start: at multiples of what Arrow recommends for buffers.
pub(crate) const ALIGNMENT: usize = 64;

const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Zeros from `len` to the next multiple of 64.
pub(crate) fn padding(len: u64) -> &'static [u8] {
    // A remainder of 64 fits.
    let beyond = usize::try_from(len % ALIGNMENT as u64).unwrap_or(0);
    if beyond == 0 { &[] } else { &ZEROS[beyond..] }
}

/// Writes a segment.
pub(crate) fn write(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(not_written)
}

/// The segments one after the other, with byte `at` of the whole at a multiple of 64 in memory.
pub(crate) fn gathered(segments: &[Bytes], at: usize) -> Result<Bytes> {
    let lead = at.next_multiple_of(ALIGNMENT) - at;
    let len: usize = segments.iter().map(Bytes::len).sum();
    let bytes = ck_core::aligned_bytes(lead + len, |memory| {
        let mut rest = &mut memory[lead..];
        segments
            .iter()
            .try_for_each(|segment| rest.write_all(segment))
    });
    Ok(bytes.map_err(not_written)?.slice(lead..))
}
