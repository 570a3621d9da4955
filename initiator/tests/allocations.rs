//! A command allocates nothing, however many disks there are.

mod bare;

use bare::Load;
use srp_initiator::fabric::Exposure;

#[test]
fn none_per_command() {
    for (disks, exposure) in [(1, Exposure::Pool), (1024, Exposure::Pool), (1, Exposure::Window)] {
        for write in [false, true] {
            let mut load = Load::new(disks, exposure);
            // Tables grow to the largest number of requests under way, and stay.
            assert_eq!(load.run(4096, 128, write), 4096);
            for depth in [1, 32, 128] {
                let made = allocation_counter::measure(|| assert_eq!(load.run(4096, depth, write), 4096));
                assert_eq!(
                    made.count_total, 0,
                    "{disks} disks, {exposure:?}, depth {depth}, write: {write}"
                );
            }
        }
    }
}
