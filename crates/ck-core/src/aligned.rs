use bytes::Bytes;

/// Zero-copy Arrow decoding wants buffers to start at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Reads `len` bytes into fresh memory whose first byte lies at a multiple of 64.
///
/// `fill` gets the zeroed memory to fill. Backends use this for reads from files and sockets, so that
/// column buffers can be decoded where they lie.
///
/// # Memory
///
/// One allocation of `len + 63` bytes.
///
/// # Errors
///
/// Whatever `fill` returns.
///
/// # Examples
///
/// ```
/// let bytes = ck_core::aligned_bytes(3, |memory| {
///     memory.copy_from_slice(b"abc");
///     Ok::<_, std::convert::Infallible>(())
/// })?;
/// assert_eq!(&bytes[..], b"abc");
/// assert_eq!(bytes.as_ptr() as usize % 64, 0);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
pub fn aligned_bytes<E>(
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Bytes, E> {
    if len == 0 {
        return Ok(Bytes::new());
    }
    let mut memory = vec![0_u8; len + ALIGNMENT - 1];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    fill(&mut memory[start..start + len])?;
    Ok(Bytes::from(memory).slice(start..start + len))
}
