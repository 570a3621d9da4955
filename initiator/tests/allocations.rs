//! A command allocates nothing, however many disks there are.

mod bare;

use bare::Load;

#[test]
fn none_per_command() {
    for disks in [1, 1024] {
        for write in [false, true] {
            let mut load = Load::new(disks);
            // Tables grow to the largest number of requests under way, and stay.
            assert_eq!(load.run(4096, 128, write), 4096);
            for depth in [1, 32, 128] {
                let made = allocation_counter::measure(|| assert_eq!(load.run(4096, depth, write), 4096));
                assert_eq!(made.count_total, 0, "{disks} disks, depth {depth}, write: {write}");
            }
        }
    }
}
