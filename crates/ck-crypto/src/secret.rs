//! Key material: wiped when it is dropped, and never shown.
#![allow(
    unsafe_code,
    reason = "the keys of ring do not wipe themselves; kept as plain bytes they can be wiped"
)]

use std::fmt;
use std::mem::MaybeUninit;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key of AES-256.
pub(crate) const KEY_BYTES: usize = 32;

/// Bytes of which a key is derived, or a key.
#[derive(Clone)]
pub(crate) struct Secret(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl Secret {
    /// Has `fill` write the bytes where they stay, so that no copy is left elsewhere.
    pub(crate) fn new<E>(
        fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut secret = Self(Box::new(Zeroizing::new([0; KEY_BYTES])));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A `T` that is wiped when it is dropped. What moved it here may have left copies on the stack.
pub(crate) struct Wiped<T>(Box<MaybeUninit<T>>);

impl<T> Wiped<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(MaybeUninit::new(value)))
    }

    pub(crate) fn get(&self) -> &T {
        // SAFETY: `new` has written the value, and only `drop` overwrites it.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        const {
            assert!(
                !std::mem::needs_drop::<T>(),
                "wiping it would skip its drop"
            );
        }
        self.0.zeroize();
    }
}

impl<T> fmt::Debug for Wiped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped")
    }
}

/// A key of AES-256-GCM, ready for use; `None` when the cipher does not take it, which it does.
pub(crate) fn aead(key: &Secret) -> Option<Wiped<LessSafeKey>> {
    let key = UnboundKey::new(&AES_256_GCM, key.bytes()).ok()?;
    Some(Wiped::new(LessSafeKey::new(key)))
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Shows what memory holds at the moment it is freed.
    struct Showing;

    #[global_allocator]
    static HEAP: Showing = Showing;

    thread_local! {
        /// Blocks of this size are shown.
        static SIZE: Cell<usize> = const { Cell::new(0) };
        static SHOWN: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    // SAFETY: The system's allocator does all the work.
    unsafe impl GlobalAlloc for Showing {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: The caller keeps to the contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            if SIZE.try_with(Cell::get) == Ok(layout.size()) {
                // SAFETY: The block is as long as its layout says, and the only ones shown were overwritten just now.
                let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
                SIZE.set(0);
                SHOWN.with_borrow_mut(|shown| shown.push(bytes.to_vec()));
                SIZE.set(layout.size());
            }
            // SAFETY: The caller keeps to the contract.
            unsafe { System.dealloc(at, layout) };
        }
    }

    /// What the blocks of `size` bytes held that this thread freed while `work` ran.
    fn seen_when_freed(size: usize, work: impl FnOnce()) -> Vec<Vec<u8>> {
        SIZE.set(size);
        work();
        SIZE.set(0);
        SHOWN.take()
    }

    fn secret() -> Secret {
        let fill = |bytes: &mut [u8; KEY_BYTES]| {
            *bytes = [0xab; KEY_BYTES];
            Ok::<_, ()>(())
        };
        Secret::new(fill).unwrap()
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let shown = format!("{:?} {:#?}", secret(), aead(&secret()).unwrap());
        assert_eq!(shown, "Secret Wiped");
    }

    #[test]
    fn what_is_dropped_is_wiped_where_it_lay() {
        let wiped = Wiped::new([0xab_u8; 600]);
        assert_eq!(wiped.get(), &[0xab; 600]);
        assert_eq!(seen_when_freed(600, || drop(wiped)), [vec![0; 600]]);
        let secret = secret();
        let freed = seen_when_freed(KEY_BYTES, || drop(secret));
        assert_eq!(freed, [vec![0; KEY_BYTES]]);
        let key = aead(&self::secret()).unwrap();
        let freed = seen_when_freed(size_of::<LessSafeKey>(), || drop(key));
        assert_eq!(freed, [vec![0; size_of::<LessSafeKey>()]]);
    }
}
