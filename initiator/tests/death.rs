//! A daemon that dies, and the one that takes its place.

mod directed;

use std::time::Duration;

use directed::{finish, lun, run_for, spec, succeeded};
use srp_initiator::sim::{Injection, Span, World, WorldSpec};

/// A write with its data in the command is at the target, slow, when the daemon dies; another one of the same blocks
/// follows it.
fn overtaken(fence: bool) -> Result<(), String> {
    let mut world = World::new(WorldSpec {
        immediate_data: 8192,
        relogin: Some(Span::micros(0, 1000)),
        ..spec(2)
    });
    let slow = Injection::Slow(Duration::from_secs(20));
    world.fabric().target_mut().inject(lun(0), slow);
    let first = world.write(0, 0, 8);
    let elsewhere = world.read(1, 0, 8);
    run_for(&mut world, Duration::from_millis(5));
    assert!(world.outcome(first).is_none());
    world.kill_daemon(fence);
    world.run_for(Duration::from_secs(5))?;
    succeeded(&world, &[first, elsewhere]);
    let second = world.write(0, 0, 8);
    world.run_until_idle(Duration::from_secs(600))?;
    succeeded(&world, &[second]);
    Ok(())
}

#[test]
fn a_fence_comes_before_what_had_not_ended() {
    overtaken(true).expect("nothing is overtaken");
}

#[test]
fn without_a_fence_it_would_be_seen() {
    let report = overtaken(false).expect_err("a write may be carried out twice");
    assert!(report.contains("fence rule"), "{report}");
}

#[test]
fn everything_goes_on_at_any_moment() {
    for micros in (0..3000).step_by(30) {
        let mut world = World::new(spec(2));
        let mut ids = Vec::new();
        for n in 0..16 {
            ids.push(world.write(n % 2, u64::from(n) * 64, 32));
            ids.push(world.read(n % 2, u64::from(n) * 64 + 32, 32));
        }
        ids.push(world.flush(0));
        run_for(&mut world, Duration::from_micros(micros));
        world.kill_daemon(true);
        run_for(&mut world, Duration::from_millis(1));
        // Nobody is there: the block layer waits.
        let late = world.write(0, 1500, 8);
        finish(&mut world);
        succeeded(&world, &ids);
        succeeded(&world, &[late]);
        assert!(world.failures().is_empty());
    }
}
