//! A command allocates nothing, however many disks there are.

mod bare;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bare::Load;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                assert_eq!(load.run(4096, depth, write), 4096);
                let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
                assert_eq!(made, 0, "{disks} disks, depth {depth}, write: {write}");
            }
        }
    }
}
