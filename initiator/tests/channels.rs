//! Sessions of several channels: used in turn, lost one by one, and writes of unknown fate.

mod directed;

use std::time::Duration;

use directed::{NOT_RESET, ended, failed, finish, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::scsi::{BlockError, Cdb};
use srp_initiator::session::{Fence, RequestId};
use srp_initiator::sim::{CreditPolicy, Function, Injection, Odds, Outcome, Span, World, WorldSpec};

fn with_channels(channels: usize, disks: u32) -> WorldSpec {
    let mut spec = spec(disks);
    spec.sessions[0].channels = channels;
    spec
}

fn mixed(world: &mut World, disks: u32) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for lun in 0..disks {
        for n in 0..16 {
            ids.push(world.write(lun, n * 64, 32));
            ids.push(world.read(lun, n * 64 + 32, 32));
        }
        ids.push(world.flush(lun));
    }
    ids
}

#[test]
fn all_channels_are_used() {
    let mut world = World::new(with_channels(3, 1));
    let qps = world.qps(0).to_vec();
    assert_eq!(qps.len(), 3);
    let ids = mixed(&mut world, 1);
    run_for(&mut world, Duration::from_micros(60));
    for qp in qps {
        assert!(world.engine().channel_state(qp).expect("open").commands > 0, "{qp:?}");
    }
    finish(&mut world);
    succeeded(&world, &ids);
}

#[test]
fn a_channel_has_its_turn_until_it_was_sent_much() {
    // Sixteen of 4 KiB, or one of 64.
    for (count, blocks, on_first) in [(24, 8, 16), (2, 128, 1), (3, 64, 2)] {
        let mut world = World::new(with_channels(2, 1));
        let ids: Vec<_> = (0..count).map(|n| world.read(0, n * 8, blocks)).collect();
        let qps = world.qps(0).to_vec();
        let commands = qps
            .iter()
            .map(|qp| world.engine().channel_state(*qp).expect("open").commands);
        let [first, second] = commands.collect::<Vec<_>>()[..] else {
            panic!("two channels")
        };
        let sent = [first, second].map(u64::from);
        assert_eq!(sent, [on_first, count - on_first], "{count} of {blocks} blocks");
        finish(&mut world);
        succeeded(&world, &ids);
    }
}

#[test]
fn questions_go_over_one_channel_each() {
    let mut world = World::new(with_channels(3, 1));
    world.read(0, 0, 8);
    for _ in 0..3 {
        world.control(0, 0, Cdb::test_unit_ready(), 0, Duration::from_secs(3));
    }
    run_for(&mut world, Duration::from_micros(50));
    let qps = world.qps(0).to_vec();
    let commands = |qp| world.engine().channel_state(qp).expect("open").commands;
    assert_eq!(qps.into_iter().map(commands).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn a_refused_channel_is_done_without() {
    let mut spec = with_channels(4, 2);
    spec.target.multichannel = false;
    let mut world = World::new(spec);
    assert_eq!(world.qps(0).len(), 1);
    let ids = mixed(&mut world, 2);
    finish(&mut world);
    succeeded(&world, &ids);
}

#[test]
fn as_long_as_one_channel_lives_nothing_fails() {
    for micros in (50..1500).step_by(50) {
        let mut world = World::new(with_channels(4, 2));
        for left in (1..=4).rev() {
            assert_eq!(world.qps(0).len(), left);
            let ids = mixed(&mut world, 2);
            run_for(&mut world, Duration::from_micros(micros));
            if left > 1 {
                let qp = world.qps(0)[left / 2];
                world.fabric().break_queue_pair(qp);
            }
            finish(&mut world);
            succeeded(&world, &ids);
        }
        let qp = world.qp(0).expect("the last");
        let ids = mixed(&mut world, 2);
        world.fabric().break_queue_pair(qp);
        finish(&mut world);
        assert!(
            ids.iter()
                .any(|id| outcome(&world, *id) == Outcome::Failed(BlockError::Transport))
        );
    }
}

/// A write of unknown fate where the session has another channel.
fn doubtful(spec: WorldSpec, prepare: impl FnOnce(&mut World)) -> (World, RequestId, RequestId) {
    let submit = |world: &mut World| {
        // Both are small, and on the first channel.
        let write = world.write(0, 0, 1);
        run_for(world, Duration::from_millis(2));
        (write, world.read(0, 8, 8))
    };
    directed::doubtful(spec, submit, prepare)
}

#[test]
fn a_write_of_unknown_fate_waits_for_a_reset() {
    let mut spec = with_channels(2, 2);
    // With its data in the command the write is carried out also when its connection is gone.
    spec.immediate_data = 8192;
    let (mut world, write, read) = doubtful(spec, |_| {});
    succeeded(&world, &[write, read]);
    let survivor = world.qps(0)[0];
    assert_eq!(world.engine().channel_state(survivor).expect("open").resets, 1);
    // Only the write waits until the target has taken up what it may have received.
    assert_eq!([write, read].map(|id| seconds(ended(&world, id))), [2, 0]);
}

#[test]
fn a_reset_does_not_overtake_the_write_it_fences() {
    let mut resets = 0;
    for micros in (40..400).step_by(40) {
        for seed in 1..=60 {
            let mut spec = with_channels(2, 1);
            spec.seed = seed;
            // With its data in the command the write is carried out also when its queue pair is gone.
            spec.immediate_data = 8192;
            spec.profile.drain = Span::micros(0, 5);
            (spec.profile.late, spec.profile.backlog) = (Span::micros(0, 800_000), Span::micros(0, 800_000));
            let mut world = World::new(spec);
            // Some are on the wire when the queue pair breaks, or lie at the target.
            let (late, backlog) = if seed % 2 == 0 { (300, 0) } else { (0, 300) };
            let odds = Odds {
                late,
                backlog,
                ..Odds::default()
            };
            world.fabric().set_odds(odds);
            let writes: Vec<_> = (0..8).map(|n| world.write(0, n * 8, 8)).collect();
            run_for(&mut world, Duration::from_micros(micros));
            let first = world.qps(0)[0];
            world.fabric().break_queue_pair(first);
            world.fabric().set_odds(Odds::default());
            finish(&mut world);
            succeeded(&world, &writes);
            let survivor = world.qps(0)[0];
            resets += world.engine().channel_state(survivor).expect("open").resets;
        }
    }
    assert!(resets > 300, "{resets}");
}

#[test]
fn without_a_reset_a_write_of_unknown_fate_fails() {
    let mut spec = with_channels(2, 2);
    spec.immediate_data = 8192;
    let mut shared = spec.clone();
    shared.fence = Fence::Relogin;
    let (world, write, read) = doubtful(shared, |_| {});
    failed(&world, &[write], BlockError::Transport);
    succeeded(&world, &[read]);
    for fate in NOT_RESET {
        let (world, write, read) = doubtful(spec.clone(), |world| world.fabric().target_mut().arrange(fate));
        failed(&world, &[write], BlockError::Transport);
        succeeded(&world, &[read]);
        // While there is no answer there may be one, as long as the write has time.
        let most = if matches!(fate, Function::Silent { .. }) {
            121
        } else {
            3
        };
        assert!(seconds(ended(&world, write)) < most);
        assert_eq!(seconds(ended(&world, read)), 0);
    }
}

/// Two channels that take one command each and no more, with an arena for one request each, made anew a second after
/// they are lost; the first has had its command, on the second a read of unit 0 was refused and holds the arena.
fn spent() -> (World, RequestId) {
    let mut spec = with_channels(2, 2);
    spec.target.request_limit = 2;
    spec.target.credit = CreditPolicy::Never;
    (spec.arena, spec.max_transfer) = (64 << 10, 64 << 10);
    spec.relogin = Some(Span::micros(1_000_000, 1_000_000));
    let mut world = World::new(spec);
    let first = world.read(0, 0, 128);
    run_for(&mut world, Duration::from_secs(1));
    succeeded(&world, &[first]);
    let attention = Injection::UnitAttention { asc: 0x29, ascq: 0 };
    world.fabric().target_mut().inject(lun(0), attention);
    let refused = world.read(0, 128, 128);
    run_for(&mut world, Duration::from_secs(1));
    (world, refused)
}

#[test]
fn one_that_holds_a_buffer_of_a_channel_without_credit_goes_to_another() {
    let (mut world, refused) = spent();
    let first = world.qps(0)[0];
    world.fabric().break_queue_pair(first);
    run_for(&mut world, Duration::from_secs(2));
    succeeded(&world, &[refused]);
}

#[test]
fn nothing_goes_behind_a_logout_while_there_is_another_channel() {
    // At any moment: with data being copied in, with refused writes that come back with their buffer.
    for micros in (0..1500).step_by(30) {
        let mut world = World::new(with_channels(2, 2));
        for number in 0..2 {
            (0..6).for_each(|_| {
                world
                    .fabric()
                    .target_mut()
                    .inject(lun(number), Injection::UnitAttention { asc: 0x29, ascq: 0 })
            });
        }
        let ids = mixed(&mut world, 2);
        run_for(&mut world, Duration::from_micros(micros));
        world.log_out(0);
        finish(&mut world);
        succeeded(&world, &ids);
    }
}
