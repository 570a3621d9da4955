//! Memory windows: each command opens its bytes, and closes them before it is over.

mod directed;

use std::time::Duration;

use directed::{ended, failed, finish, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::fabric::{Exposure, WorkError};
use srp_initiator::scsi::{BlockError, Cdb};
use srp_initiator::session::{ChannelError, RequestId};
use srp_initiator::sim::{Function, Injection, Odds, Outcome, World, WorldSpec};

fn windows(disks: u32) -> WorldSpec {
    WorldSpec {
        exposure: Exposure::Window,
        ..spec(disks)
    }
}

fn mixed(world: &mut World) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for n in 0..16 {
        ids.push(world.write(0, n * 64, 1 + u32::try_from(n).unwrap_or(0)));
        ids.push(world.read(0, n * 64 + 32, 1 + u32::try_from(n).unwrap_or(0)));
    }
    ids.push(world.flush(0));
    ids
}

#[test]
fn every_command_with_data_opens_one() {
    let mut world = World::new(windows(1));
    let ids = mixed(&mut world);
    let inquiry = world.control(0, 0, Cdb::inquiry(96), 96, Duration::from_secs(1));
    finish(&mut world);
    succeeded(&world, &ids);
    assert!(matches!(outcome(&world, inquiry), Outcome::Reply(Ok(reply)) if !reply.data.is_empty()));
    // Not the flush.
    assert_eq!(world.fabric().tally().of("window opened"), 33);
}

#[test]
fn data_in_the_command_needs_none() {
    let mut world = World::new(WorldSpec {
        immediate_data: 8192,
        ..windows(1)
    });
    let ids = [world.write(0, 0, 8), world.write(0, 8, 32), world.read(0, 64, 8)];
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(world.fabric().tally().of("window opened"), 2);
}

#[test]
fn a_command_ended_by_the_target_closes_its_window_before_it_is_sent_again() {
    let mut world = World::new(windows(1));
    for executed in [false, true] {
        world
            .fabric()
            .target_mut()
            .inject(lun(0), Injection::Swallow { executed });
    }
    world.fabric().target_mut().arrange(Function::Silent { done: false });
    let ids = [world.write(0, 0, 64), world.read(0, 64, 64)];
    finish(&mut world);
    succeeded(&world, &ids);
    assert!(ids.iter().all(|id| seconds(ended(&world, *id)) >= 30));
    assert_eq!(world.fabric().tally().of("window opened"), 4);
    assert!(world.failures().is_empty());
}

#[test]
fn a_target_that_comes_back_later_is_refused() {
    // Its access may get to us before its answer does, and then it is no write any more that went well.
    let mut later = 0;
    for seed in 1..=20 {
        let mut world = World::new(WorldSpec { seed, ..windows(1) });
        world.fabric().set_odds(Odds {
            trespass: 1000,
            ..Odds::default()
        });
        let write = world.write(0, 0, 64);
        finish(&mut world);
        later += u32::from(matches!(outcome(&world, write), Outcome::Done(_)));
        let tally = world.fabric().tally();
        let tried = tally.of("access outside of any window, refused")
            + tally.of("access beyond need, still within the command's window");
        assert_eq!(tried, 1);
    }
    assert!(later > 5, "{later}");
}

#[test]
fn a_window_that_cannot_be_opened_ends_the_channel() {
    let mut world = World::new(windows(1));
    world.fabric().set_odds(Odds {
        fail_bind: 1000,
        ..Odds::default()
    });
    let ids = [world.write(0, 0, 64), world.read(0, 64, 64)];
    finish(&mut world);
    failed(&world, &ids, BlockError::Transport);
    let [(_, reason, _)] = world.failures() else {
        panic!("{:?}", world.failures());
    };
    assert_eq!(*reason, ChannelError::Work(WorkError::Bind));
}

#[test]
fn a_lost_channel_ends_what_had_windows() {
    for micros in (0..2000).step_by(20) {
        let mut world = World::new(windows(1));
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world);
        run_for(&mut world, Duration::from_micros(micros));
        world.fabric().break_queue_pair(qp);
        finish(&mut world);
        for id in &ids {
            assert!(
                !matches!(outcome(&world, *id), Outcome::Failed(error) if error != BlockError::Transport),
                "{id:?}"
            );
        }
    }
}

#[test]
fn a_closing_has_to_be_heard_of() {
    // A sleeper that waits for answers alone would miss it.
    for count in [1, 3, 40] {
        let mut world = World::new(windows(1));
        let reads: Vec<_> = (0..count).map(|n| world.read(0, n * 8, 8)).collect();
        let mut waited = false;
        while reads.iter().any(|read| world.outcome(*read).is_none()) {
            assert!(world.step());
            waited |= world.engine().waits_for_sends();
        }
        assert!(waited);
        finish(&mut world);
        assert!(!world.engine().waits_for_sends());
    }
}
