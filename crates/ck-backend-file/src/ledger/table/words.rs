//! Where each word of the ledger file lies, and how words are taken apart.

use crate::layout::Name;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"CKLEDGER");
pub(super) const VERSION: u64 = 1;

pub(super) const HEADER_BYTES: u64 = 4096;
pub(super) const HEADER_WORDS: usize = 512;
pub(super) const SLOT_BYTES: u64 = 64;
pub(super) const SLOT_WORDS: usize = 8;
/// The header page and 64 slots.
pub(super) const FIRST_LEN: u64 = 8192;

/// Words of the header.
pub(super) mod head {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    /// Slots that were ever in use; also the number of hash buckets.
    pub(crate) const SLOTS: usize = 2;
    pub(crate) const ENTRIES: usize = 3;
    pub(crate) const ENTRY_BYTES: usize = 4;
    pub(crate) const RESERVED_BYTES: usize = 5;
    /// First and last of the entries, least recently used first.
    pub(crate) const USES: usize = 6;
    /// First and last of the writers, oldest first.
    pub(crate) const WRITERS: usize = 7;
    pub(crate) const FREE: usize = 8;
    /// 0 at rest, 1 while links change, 2 while the file named by the intent changes too.
    pub(crate) const STATE: usize = 9;
    /// Two words of name, then a token.
    pub(crate) const INTENT: usize = 10;
    pub(crate) const BOOT: usize = 13;
    pub(crate) const RECONCILED_AT: usize = 15;
    pub(crate) const RECONCILED_MTIME: usize = 16;
    pub(crate) const RECONCILE_NANOS: usize = 17;
    pub(crate) const EPOCH: usize = 18;
    pub(crate) const WRITERS_CHECKED_AT: usize = 19;
    /// A check over all words that say how slots are linked and what they come to.
    pub(crate) const SEAL: usize = 20;
    pub(crate) const SEALED: [usize; 7] = [
        SLOTS,
        ENTRIES,
        ENTRY_BYTES,
        RESERVED_BYTES,
        USES,
        WRITERS,
        FREE,
    ];
}

/// Words of a slot.
pub(super) mod field {
    pub(crate) const NAME: usize = 0;
    /// Bytes of the file; of a writer: bytes reserved.
    pub(crate) const SIZE: usize = 2;
    pub(crate) const LAST_USED: usize = 3;
    /// The file's inode; of a writer: its token.
    pub(crate) const INODE: usize = 4;
    /// Low half: previous in its list. High half: next.
    pub(crate) const LIST: usize = 5;
    /// Low half: next in its bucket. High half: first of the bucket that has this slot's number.
    pub(crate) const HASH: usize = 6;
    /// Low half: state in the low byte, above it a check over name, size, inode and state. High half:
    /// the epoch of the last reconcile that saw the file.
    pub(crate) const STATE: usize = 7;
}

pub(super) const AT_REST: u64 = 0;
pub(super) const LINKS_CHANGE: u64 = 1;
pub(super) const FILE_CHANGES: u64 = 2;

pub(super) const FREE: u32 = 0;
pub(super) const ENTRY: u32 = 1;
pub(super) const WRITER: u32 = 2;

/// The ledger contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

pub(crate) type Checked<T> = Result<T, Damaged>;

/// A slot number, from 1; 0 stands for none in links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(super) u32);

impl Slot {
    pub(super) fn from_link(link: u32) -> Option<Self> {
        (link != 0).then_some(Self(link))
    }
}

pub(super) fn link(slot: Option<Slot>) -> u32 {
    slot.map_or(0, |slot| slot.0)
}

/// A number that depends on every bit of `words`. It guards against accidents, not against malice:
/// whoever can write the ledger can remove the entries themselves.
pub(super) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x243f_6a88_85a3_08d3, |sum, word| {
        let sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^ sum >> 32
    })
}

pub(super) fn index(slot: Slot, field: usize) -> Checked<usize> {
    let number = slot
        .0
        .checked_sub(1)
        .and_then(|number| usize::try_from(number).ok());
    Ok(HEADER_WORDS + number.ok_or(Damaged)? * SLOT_WORDS + field)
}

/// Names are hashes already: their first word serves as one.
pub(super) fn words_of(name: Name) -> [u64; 2] {
    let number = u128::from_le_bytes(name.0);
    let word = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    [word(number), word(number >> 64)]
}

pub(super) fn name_of(first: u64, second: u64) -> Name {
    Name((u128::from(second) << 64 | u128::from(first)).to_le_bytes())
}

pub(super) fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap_or_default()
}

pub(super) fn high(word: u64) -> u32 {
    low(word >> 32)
}

pub(super) fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
