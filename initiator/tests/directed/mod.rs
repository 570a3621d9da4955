//! What the directed tests have in common: a small world, and ways to bring it about.
#![allow(dead_code, reason = "every test binary uses some of them")]

use std::time::Duration;

use srp_initiator::scsi::{BlockError, Lun};
use srp_initiator::session::RequestId;
use srp_initiator::sim::{DiskSpec, Function, Injection, Outcome, SessionSpec, TargetProfile, World, WorldSpec};
use srp_initiator::time::Instant;
use srp_initiator::wire::TaskResponse;

pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A world with so many disks on one session.
pub(crate) fn spec(disks: u32) -> WorldSpec {
    let mut spec = WorldSpec::default();
    let disk = |number| DiskSpec {
        lun: lun(number),
        block_size: 512,
        blocks: 2048,
    };
    spec.target.disks = (0..disks).map(disk).collect();
    spec.sessions = vec![SessionSpec {
        luns: (0..disks).collect(),
        ..spec.sessions[0].clone()
    }];
    spec
}

/// A world with one disk and this request limit.
pub(crate) fn limited(request_limit: i32) -> WorldSpec {
    let spec = spec(1);
    WorldSpec {
        target: TargetProfile {
            request_limit,
            ..spec.target
        },
        ..spec
    }
}

/// The LUN of a number, as on the wire.
pub(crate) fn lun(number: u32) -> u64 {
    Lun::from_index(number).0
}

/// What becomes of a LOGICAL UNIT RESET that fences nothing.
pub(crate) const NOT_RESET: [Function; 3] = [
    Function::Answered(TaskResponse::Failed),
    Function::Answered(TaskResponse::NotSupported),
    Function::Silent { done: false },
];

/// A write and a read that the target is slow to carry out, both with it when the first channel breaks. `submit` puts
/// them on that channel, `prepare` says what the target does then.
pub(crate) fn doubtful(
    spec: WorldSpec,
    submit: impl FnOnce(&mut World) -> (RequestId, RequestId),
    prepare: impl FnOnce(&mut World),
) -> (World, RequestId, RequestId) {
    let mut world = World::new(spec);
    let slow = Injection::Slow(Duration::from_secs(20));
    (0..2).for_each(|_| world.fabric().target_mut().inject(lun(0), slow));
    let first = world.qp_of(0, 0).expect("a channel");
    let (write, read) = submit(&mut world);
    run_for(&mut world, Duration::from_millis(2));
    prepare(&mut world);
    world.fabric().break_queue_pair(first);
    finish(&mut world);
    (world, write, read)
}

/// Runs to the end.
pub(crate) fn finish(world: &mut World) {
    if let Err(report) = world.run_until_idle(LONG) {
        panic!("{report}");
    }
}

pub(crate) fn run_for(world: &mut World, time: Duration) {
    if let Err(report) = world.run_for(time) {
        panic!("{report}");
    }
}

pub(crate) fn outcome(world: &World, id: RequestId) -> Outcome {
    world
        .outcome(id)
        .unwrap_or_else(|| panic!("{id:?} has not ended"))
        .0
        .clone()
}

pub(crate) fn ended(world: &World, id: RequestId) -> Instant {
    world.outcome(id).unwrap_or_else(|| panic!("{id:?} has not ended")).1
}

pub(crate) fn failed(world: &World, ids: &[RequestId], why: BlockError) {
    for id in ids {
        assert_eq!(outcome(world, *id), Outcome::Failed(why), "{id:?}");
    }
}

/// All of them ended well.
pub(crate) fn succeeded(world: &World, ids: &[RequestId]) {
    for id in ids {
        let outcome = outcome(world, *id);
        assert!(
            matches!(outcome, Outcome::Done(_) | Outcome::Read(_)),
            "{id:?}: {outcome:?}"
        );
    }
}

/// Seconds, whole, between the start and an event.
pub(crate) fn seconds(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000_000
}
