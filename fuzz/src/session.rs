//! A session whose target says anything, at any time.

use std::time::Duration;

use srp_initiator::scsi::Cdb;
use srp_initiator::sim::{Span, World, WorldSpec};

/// Steps after which everything has ended.
const STEPS: usize = 100_000;

/// Feeds an engine with commands in flight: each IU is a length byte and as many bytes.
pub(crate) fn hostile(input: &[u8]) {
    let mut world = World::new(WorldSpec {
        arena: 64 << 10,
        max_transfer: 16 << 10,
        queue_size: 4,
        relogin: Some(Span::micros(0, 1000)),
        ..WorldSpec::default()
    });
    let mut requests = vec![world.write(0, 0, 8), world.read(0, 64, 8), world.flush(0)];
    requests.push(world.control(0, 0, Cdb::inquiry(96), 96, Duration::from_secs(3)));
    let mut rest = input;
    while let Some((len, behind)) = rest.split_first() {
        let (iu, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        rest = behind;
        if let Some(qp) = world.qp(0) {
            world.fabric().send_forged(qp, iu.to_vec());
        }
        for _ in 0..4 {
            world.step();
        }
    }
    // What a lying target does to its own data is its business; every request ends all the same, and once.
    let mut steps = 0;
    while steps < STEPS && world.step() {
        steps += 1;
    }
    for request in requests {
        assert!(world.outcome(request).is_some(), "{request:?} has not ended");
    }
    let violations = world.fabric().violations();
    let broken: Vec<_> = violations.iter().filter(|violation| violation.is_ours()).collect();
    assert!(broken.is_empty(), "{}{broken:?}", world.fabric().trace());
}
