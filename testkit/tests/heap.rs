//! Guards the counts that other tests rely on: a byte missed here is a leak or a copy missed there.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::hint::black_box;
use std::thread;

use testkit::heap::{self, CountingAllocator};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
fn the_peak_of_a_thread_is_what_it_held_at_once() {
    let (peak, _) = heap::peak_here_of(|| (vec![0_u8; MIB], vec![1_u8; 2 * MIB]));
    assert_eq!(peak, 3 * MIB);
    let (peak, ()) = heap::peak_here_of(|| (0..3).for_each(|_| drop(black_box(vec![0_u8; MIB]))));
    assert_eq!(peak, MIB);
}

#[test]
fn what_a_thread_holds_goes_back_to_where_it_was() {
    let before = heap::live_here();
    let mut block = vec![0_u8; MIB];
    block.reserve_exact(MIB);
    assert_eq!(heap::live_here() - before, 2 * MIB);
    block.truncate(KIB);
    block.shrink_to_fit();
    assert_eq!(heap::live_here() - before, KIB);
    drop(block);
    assert_eq!(heap::live_here(), before);
}

#[test]
fn a_block_counts_twice_while_it_grows() {
    let mut block = vec![0_u8; MIB];
    let (peak, ()) = heap::peak_here_of(|| block.reserve_exact(2 * MIB));
    assert_eq!(peak, 3 * MIB);
}

#[test]
fn what_cannot_be_had_shows_in_the_peak_and_is_not_held() {
    let before = heap::live_here();
    let mut block = vec![0_u8; KIB];
    let huge = isize::MAX as usize / 2;
    let (peak, results) = heap::peak_here_of(|| {
        let new = Vec::<u8>::new().try_reserve_exact(huge);
        [new, block.try_reserve_exact(huge)]
    });
    assert!(results.iter().all(Result::is_err));
    assert!(peak >= huge, "{peak}");
    assert_eq!(heap::live_here() - before, KIB);
}

#[test]
fn the_process_has_what_all_threads_hold() {
    let _alone = heap::alone();
    const SIZE: usize = 64 * MIB;
    let before = heap::live();
    let (peak, block) = heap::peak_of(|| {
        thread::spawn(|| {
            drop(black_box(vec![0_u8; SIZE]));
            vec![0_u8; SIZE / 2]
        })
        .join()
        .unwrap()
    });
    // The other tests hold less than this beside it.
    const SLACK: usize = 16 * MIB;
    assert!((SIZE - SLACK..SIZE + SLACK).contains(&peak), "{peak}");
    let held = heap::live() - before;
    assert!(
        (SIZE / 2 - SLACK..SIZE / 2 + SLACK).contains(&held),
        "{held}"
    );
    let here = heap::live_here();
    drop(block);
    assert_eq!(here - heap::live_here(), SIZE / 2, "freed here");
    assert!(heap::live() < before + SLACK);
    heap::reset_peak();
    assert!(heap::peak() < before + SLACK);
}
