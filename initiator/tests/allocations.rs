//! A command allocates nothing, however many disks there are.

mod bare;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bare::Load;

struct Counting;

thread_local! {
    /// Of this thread: the test harness has others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn none_per_command() {
    for disks in [1, 1024] {
        for write in [false, true] {
            let mut load = Load::new(disks);
            // Tables grow to the largest number of requests under way, and stay.
            assert_eq!(load.run(4096, 128, write), 4096);
            for depth in [1, 32, 128] {
                let before = ALLOCATIONS.get();
                assert_eq!(load.run(4096, depth, write), 4096);
                let made = ALLOCATIONS.get() - before;
                assert_eq!(made, 0, "{disks} disks, depth {depth}, write: {write}");
            }
        }
    }
}
