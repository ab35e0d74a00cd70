//! The allocator that counts, and the bound that every target keeps: memory follows the bytes of
//! the input, never a number that is written in it.
//!
//! Counted is what Rust code asks for, per thread. What libzstd takes by itself is not seen here;
//! its window is bounded where it is called (`batch::decompress`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that any input may take.
const FREE_BYTES: usize = 1 << 20;

/// Bytes that each byte of the input may take on top.
const RATIO: usize = 16;

/// Counts the bytes in use and their peak.
struct Counting;

thread_local! {
    // Signed: one thread can free what another allocated.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counters neither allocate nor
// have destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(NOW.get()));
        // SAFETY: the caller's promise about `layout` is the one that is needed here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get() - layout.size() as isize);
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs what an input of so many bytes makes the broker do, and gives its result.
///
/// Panics if it has more than 16 times the input plus 1 MiB in use at once.
pub fn bounded<T>(input_bytes: usize, run: impl FnOnce() -> T) -> T {
    bounded_with(input_bytes, 0, run)
}

/// The same with `extra_bytes` more, for which the caller has a reason.
pub fn bounded_with<T>(input_bytes: usize, extra_bytes: usize, run: impl FnOnce() -> T) -> T {
    let (peak, result) = peak_of(run);
    let bound = RATIO * input_bytes + FREE_BYTES + extra_bytes;
    assert!(
        peak <= bound,
        "{input_bytes} bytes of input took {peak} bytes of memory, at most {bound} are allowed"
    );
    result
}

/// The most that was in use at once during `run`, in bytes beyond what was in use before.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = NOW.get();
    PEAK.set(before);
    let result = run();
    ((PEAK.get() - before).max(0) as usize, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_input_is_allowed() {
        bounded(1000, || vec![0u8; 16_000 + FREE_BYTES]);
    }

    #[test]
    #[should_panic(expected = "1000 bytes of input took")]
    fn what_follows_a_number_is_not() {
        bounded(1000, || vec![0u8; 16_001 + FREE_BYTES]);
    }
}
