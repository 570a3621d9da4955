//! Targets and networks that fail: every request ends, in time, and nothing is touched that should not be.

mod directed;

use std::time::Duration;

use directed::{ended, failed, finish, limited, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::fabric::{Exposure, WorkError};
use srp_initiator::scsi::BlockError;
use srp_initiator::session::{ChannelError, RequestId};
use srp_initiator::sim::{CreditPolicy, Injection, Odds, Outcome, Span, World, WorldSpec};

/// Reads and writes on all disks.
fn mixed(world: &mut World, disks: u32) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for lun in 0..disks {
        for n in 0..8 {
            ids.push(world.write(lun, n * 64, 32));
            ids.push(world.read(lun, n * 64 + 32, 32));
        }
        ids.push(world.flush(lun));
    }
    ids
}

fn all_ended(world: &World, ids: &[RequestId], why: BlockError) {
    for id in ids {
        match outcome(world, *id) {
            Outcome::Failed(error) => assert_eq!(error, why, "{id:?}"),
            Outcome::Done(_) | Outcome::Read(_) => {}
            other => panic!("{id:?}: {other:?}"),
        }
    }
}

#[test]
fn a_broken_queue_pair_ends_everything_on_it() {
    for micros in (0..2000).step_by(50) {
        let mut world = World::new(spec(2));
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 2);
        run_for(&mut world, Duration::from_micros(micros));
        world.fabric().break_queue_pair(qp);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
    }
}

#[test]
fn a_disconnection_ends_everything_on_the_channel() {
    for micros in (0..2000).step_by(100) {
        let mut world = World::new(spec(2));
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 2);
        run_for(&mut world, Duration::from_micros(micros));
        world.fabric().disconnect(qp);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        assert_eq!(world.failures().len(), 1);
    }
}

#[test]
fn a_cut_is_noticed_by_the_transport_at_the_latest_when_a_command_is_overdue() {
    for micros in (0..2000).step_by(100) {
        let mut world = World::new(spec(1));
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 1);
        run_for(&mut world, Duration::from_micros(micros));
        world.fabric().cut(qp);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        // When everything was acknowledged before the cut, the first SEND after it is an ABORT TASK.
        assert!(ids.iter().all(|id| seconds(ended(&world, *id)) <= 35));
        let expected = |reason: &ChannelError| matches!(reason, ChannelError::Work(WorkError::RetryExceeded));
        assert!(world.failures().iter().all(|(_, reason, _)| expected(reason)));
    }
}

#[test]
fn the_control_side_can_close_a_channel() {
    let mut world = World::new(spec(2));
    let ids = mixed(&mut world, 2);
    run_for(&mut world, Duration::from_micros(300));
    world.close(0);
    finish(&mut world);
    all_ended(&world, &ids, BlockError::Transport);
    assert!(matches!(world.failures(), [(_, ChannelError::Closed, _)]));
}

#[test]
fn the_control_side_can_log_out() {
    for micros in (0..1000).step_by(100) {
        let mut world = World::new(spec(2));
        let ids = mixed(&mut world, 2);
        run_for(&mut world, Duration::from_micros(micros));
        world.log_out(0);
        let late = world.read(0, 1024, 8);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        failed(&world, &[late], BlockError::Transport);
        assert!(matches!(world.failures(), [(_, ChannelError::Closed, _)]));
        assert!(world.fabric().trace().contains("I_LOGOUT"));
    }
    // Nobody acknowledges it: the channel ends all the same.
    let mut spec = spec(1);
    spec.profile.transport_retry = Span::micros(60_000_000, 60_000_000);
    let mut world = World::new(spec);
    let qp = world.qp(0).expect("logged in");
    world.fabric().cut(qp);
    assert!(!world.engine().waits_for_sends());
    world.log_out(0);
    assert!(world.engine().waits_for_sends(), "nothing but its SEND ends it");
    finish(&mut world);
    assert_eq!(seconds(world.failures()[0].2), 5);
}

#[test]
fn all_receives_used_up_do_not_stand_for_a_flush() {
    let mut spec = spec(1);
    spec.profile.drain = Span::micros(50_000, 50_000);
    let mut world = World::new(spec);
    let qp = world.qp(0).expect("logged in");
    (0..4).for_each(|_| {
        world
            .fabric()
            .target_mut()
            .inject(lun(0), Injection::Slow(Duration::from_millis(20)))
    });
    let ids: Vec<_> = (0..4).map(|n| world.read(0, n * 8, 8)).collect();
    run_for(&mut world, Duration::from_millis(1));
    (0..100).for_each(|_| world.fabric().send_raw(qp, vec![0x55; 20]));
    finish(&mut world);
    all_ended(&world, &ids, BlockError::Transport);
    assert!(ended(&world, ids[0]).as_nanos() >= 50_000_000);
}

#[test]
fn a_refused_marker_is_no_proof() {
    let mut world = World::new(spec(1));
    world.fabric().set_odds(Odds {
        refuse_marker: 1000,
        ..Odds::default()
    });
    let ids = mixed(&mut world, 1);
    run_for(&mut world, Duration::from_micros(200));
    world.close(0);
    finish(&mut world);
    all_ended(&world, &ids, BlockError::Transport);
    // The world destroys the queue pair half a second after the failure.
    let last = ids.iter().map(|id| ended(&world, *id).as_nanos()).max().expect("some");
    assert!(last >= 500_000_000);
}

#[test]
fn a_marker_that_an_iu_took_is_no_proof() {
    let mut taken = 0;
    for seed in 1..=60 {
        let mut spec = spec(1);
        spec.seed = seed;
        spec.profile.drain = Span::micros(0, 100_000);
        let mut world = World::new(spec);
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 1);
        run_for(&mut world, Duration::from_micros(200));
        // More than there are receives, and the first one ends the channel.
        (0..100).for_each(|_| world.fabric().send_raw(qp, vec![0x55; 20]));
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        if world.fabric().tally().of("marker taken by an IU") > 0 {
            taken += 1;
            let last = ids.iter().map(|id| ended(&world, *id).as_nanos()).max().expect("some");
            assert!(last >= 500_000_000);
        }
    }
    assert!(taken > 5, "{taken}");
}

#[test]
fn a_logout_by_the_target_ends_the_channel() {
    let mut world = World::new(spec(1));
    let qp = world.qp(0).expect("logged in");
    let ids = mixed(&mut world, 1);
    run_for(&mut world, Duration::from_micros(200));
    world.fabric().log_out(qp);
    finish(&mut world);
    all_ended(&world, &ids, BlockError::Transport);
    assert!(matches!(world.failures(), [(_, ChannelError::TargetLogout(_), _)]));
}

#[test]
fn requests_of_the_target_are_answered() {
    let mut world = World::new(spec(1));
    let qp = world.qp(0).expect("logged in");
    let ids = mixed(&mut world, 1);
    for _ in 0..20 {
        world.fabric().request_credit(qp, 1);
        world.fabric().report_event(qp, lun(0));
        assert_eq!(world.fabric().target().unanswered(qp), 2);
        run_for(&mut world, Duration::from_millis(10));
        assert_eq!(world.fabric().target().unanswered(qp), 0);
    }
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(world.engine().channel_state(qp).expect("open").credits, 128 + 20);
}

#[test]
fn a_flood_of_requests_by_the_target_is_a_protocol_error() {
    let mut world = World::new(spec(1));
    let qp = world.qp(0).expect("logged in");
    let mut event = vec![0; 36];
    event[0] = 0x82;
    (0..30).for_each(|_| world.fabric().send_raw(qp, event.clone()));
    let mut reason = None;
    while reason.is_none() && world.step() {
        reason = world.failures().first().map(|(_, reason, _)| reason.clone());
    }
    assert!(matches!(reason, Some(ChannelError::Protocol(_))), "{reason:?}");
}

#[test]
fn a_response_that_comes_twice_counts_once() {
    let mut world = World::new(limited(4));
    (0..100).for_each(|_| world.fabric().target_mut().inject(lun(0), Injection::Duplicate));
    let ids: Vec<_> = (0..50).map(|n| world.write(0, n * 8, 8)).collect();
    finish(&mut world);
    succeeded(&world, &ids);
    assert!(world.failures().is_empty());
}

#[test]
fn responses_for_commands_that_are_over_change_nothing() {
    let mut world = World::new(limited(3));
    world.fabric().set_odds(Odds {
        stale: 1000,
        ..Odds::default()
    });
    let ids: Vec<_> = (0..50)
        .map(|n| {
            if n % 2 == 0 {
                world.write(0, n * 8, 8)
            } else {
                world.read(0, n * 8, 8)
            }
        })
        .collect();
    finish(&mut world);
    succeeded(&world, &ids);
    assert!(world.failures().is_empty());
}

#[test]
fn unreadable_ius_end_the_channel() {
    let empty_response = vec![0xc1; 35];
    for iu in [Vec::new(), vec![0x55; 20], vec![0xff; 256], empty_response] {
        let mut world = World::new(spec(1));
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 1);
        run_for(&mut world, Duration::from_micros(100));
        world.fabric().send_raw(qp, iu);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        assert!(
            matches!(world.failures(), [(_, ChannelError::Wire(_), _)]),
            "{:?}",
            world.failures()
        );
    }
}

#[test]
fn an_iu_longer_than_agreed_ends_the_channel() {
    let mut world = World::new(spec(1));
    let qp = world.qp(0).expect("logged in");
    let ids = mixed(&mut world, 1);
    run_for(&mut world, Duration::from_micros(100));
    world.fabric().send_raw(qp, vec![0xc1; 257]);
    finish(&mut world);
    all_ended(&world, &ids, BlockError::Transport);
    assert!(matches!(world.failures(), [(_, ChannelError::Work(_), _)]));
}

#[test]
fn a_target_that_gives_no_credit_is_given_up() {
    let mut spec = limited(2);
    spec.target.credit = CreditPolicy::Never;
    let mut world = World::new(spec);
    let ids = [world.read(0, 0, 8), world.read(0, 8, 8), world.flush(0)];
    finish(&mut world);
    succeeded(&world, &ids[..1]);
    failed(&world, &ids[1..], BlockError::Transport);
    assert_eq!(seconds(ended(&world, ids[1])), 30);
}

#[test]
fn removing_a_disk_fails_what_waits_and_ends_what_is_out() {
    let mut world = World::new(WorldSpec {
        queue_size: 2,
        ..spec(2)
    });
    let gone: Vec<_> = (0..10).map(|n| world.read(0, n * 8, 8)).collect();
    let stays: Vec<_> = (0..10).map(|n| world.read(1, n * 8, 8)).collect();
    run_for(&mut world, Duration::from_micros(60));
    world.unplug(0);
    finish(&mut world);
    all_ended(&world, &gone, BlockError::Offline);
    failed(&world, &gone[5..], BlockError::Offline);
    succeeded(&world, &stays);
    let late = world.read(0, 0, 8);
    world.plug(0);
    let back = world.read(0, 8, 8);
    finish(&mut world);
    failed(&world, &[late], BlockError::Offline);
    succeeded(&world, &[back]);
}

#[test]
fn a_refused_command_of_a_removed_disk_ends() {
    for injection in [Injection::Busy, Injection::UnitAttention { asc: 0x29, ascq: 0 }] {
        for micros in (0..600).step_by(20) {
            let mut world = World::new(WorldSpec {
                queue_size: 1,
                ..spec(1)
            });
            world.fabric().target_mut().inject(lun(0), injection);
            let ids = [world.write(0, 0, 8), world.write(0, 8, 8)];
            run_for(&mut world, Duration::from_micros(micros));
            world.unplug(0);
            finish(&mut world);
            all_ended(&world, &ids, BlockError::Offline);
            if injection == Injection::Busy {
                // The disk went before the pause was over.
                failed(&world, &ids[..1], BlockError::Offline);
            }
        }
    }
}

#[test]
fn a_session_comes_back_and_goes_on() {
    let mut world = World::new(WorldSpec {
        relogin: Some(Span::micros(0, 100)),
        ..spec(2)
    });
    for _ in 0..5 {
        let qp = world.qp(0).expect("logged in");
        let ids = mixed(&mut world, 2);
        run_for(&mut world, Duration::from_micros(400));
        world.fabric().break_queue_pair(qp);
        finish(&mut world);
        all_ended(&world, &ids, BlockError::Transport);
        assert!(world.qp(0).is_some_and(|new| new != qp));
    }
    let ids = mixed(&mut world, 2);
    finish(&mut world);
    succeeded(&world, &ids);
}

#[test]
fn a_send_that_is_never_acknowledged_ends_the_channel() {
    for exposure in [Exposure::Pool, Exposure::Window] {
        let mut world = World::new(WorldSpec { exposure, ..spec(1) });
        world.fabric().set_odds(Odds {
            unacknowledged: 1000,
            ..Odds::default()
        });
        let ids = [world.read(0, 0, 8), world.write(0, 64, 8)];
        finish(&mut world);
        // They were answered, and what was answered counts once nothing of theirs is under way.
        succeeded(&world, &ids);
        for id in ids {
            assert_eq!(seconds(ended(&world, id)), 40, "its time, and that of two functions");
        }
        assert!(matches!(world.failures(), [(_, ChannelError::Incomplete(40), _)]));
    }
}
