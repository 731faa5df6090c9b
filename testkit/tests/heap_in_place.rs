//! Guards the count of blocks that stay in place. A binary of its own, for its allocator.

use testkit::heap::{self, CountingAllocator};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::in_place();

#[test]
fn a_block_that_grows_in_place_counts_once() {
    let mut block = vec![0_u8; 1 << 20];
    let before = heap::live_here();
    let (peak, ()) = heap::peak_here_of(|| block.reserve_exact(2 << 20));
    assert_eq!(peak, 2 << 20);
    assert_eq!(heap::live_here() - before, 2 << 20);
}
