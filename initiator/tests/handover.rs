//! Sessions whose channels are spread over reactors: requests go where a channel is, and come back.

mod directed;

use std::time::Duration;

use directed::{NOT_RESET, ended, failed, finish, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::fabric::QueuePairId;
use srp_initiator::scsi::{BlockError, Cdb, Lun};
use srp_initiator::session::{BlockOperation, ControlRequest, Event, Fence, RequestId, SessionKey};
use srp_initiator::sim::{Function, Injection, Outcome, Span, World, WorldSpec};
use srp_initiator::time::Instant;

const WRITE: BlockOperation = BlockOperation::Write { fua: false };
const NEVER: Injection = Injection::Swallow { executed: false };

/// A session with one channel on each of so many reactors.
fn shared(reactors: usize, disks: u32) -> WorldSpec {
    let mut spec = spec(disks);
    spec.reactors = reactors;
    spec.sessions[0].channels = reactors;
    spec
}

/// Reads, writes and flushes on all reactors.
fn mixed(world: &mut World, reactors: usize, disks: u32) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for number in 0..disks {
        for n in 0..16 {
            let reactor = n as usize % reactors;
            ids.push(world.submit_at(reactor, number, WRITE, n * 64, 32));
            ids.push(world.submit_at(reactor, number, BlockOperation::Read, n * 64 + 32, 32));
        }
        ids.extend((0..reactors).map(|reactor| world.submit_at(reactor, number, BlockOperation::Flush, 0, 0)));
    }
    ids
}

fn qp(world: &World, reactor: usize) -> QueuePairId {
    world.qp_of(0, reactor).expect("a channel")
}

fn handed_over(world: &mut World) -> u64 {
    let tally = world.fabric().tally();
    tally.of("request handed over") + tally.of("write of unknown fate handed over")
}

#[test]
fn each_reactor_serves_its_own() {
    let mut world = World::new(shared(4, 2));
    let ids = mixed(&mut world, 4, 2);
    run_for(&mut world, Duration::from_micros(60));
    for reactor in 0..4 {
        let qp = qp(&world, reactor);
        let state = world.engine_of(reactor).channel_state(qp).expect("open");
        assert!(state.commands > 0, "reactor {reactor}");
    }
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(handed_over(&mut world), 0);
}

#[test]
fn nothing_fails_until_the_last_channel_is_gone() {
    for micros in (50..1500).step_by(100) {
        for first in 0..4 {
            let mut world = World::new(shared(4, 2));
            for lost in (0..4).map(|n| (first + n) % 4) {
                let ids = mixed(&mut world, 4, 2);
                run_for(&mut world, Duration::from_micros(micros));
                let qp = qp(&world, lost);
                world.fabric().break_queue_pair(qp);
                finish(&mut world);
                if world.qps(0).is_empty() {
                    let over = |id: &&RequestId| matches!(outcome(&world, **id), Outcome::Failed(_));
                    let lost: Vec<_> = ids.iter().filter(over).copied().collect();
                    failed(&world, &lost, BlockError::Transport);
                } else {
                    succeeded(&world, &ids);
                }
            }
            assert!(handed_over(&mut world) > 0);
            let ids = mixed(&mut world, 4, 2);
            finish(&mut world);
            failed(&world, &ids, BlockError::Transport);
        }
    }
}

#[test]
fn a_reactor_without_a_channel_has_its_requests_served_by_another() {
    let mut world = World::new(shared(2, 1));
    let lost = qp(&world, 0);
    world.fabric().break_queue_pair(lost);
    finish(&mut world);
    for _ in 0..3 {
        let before = handed_over(&mut world);
        let ids = mixed(&mut world, 2, 1);
        finish(&mut world);
        succeeded(&world, &ids);
        // Half of all, and one flush of two.
        assert_eq!(handed_over(&mut world) - before, 17);
    }
    let tally = world.fabric().tally();
    assert_eq!(
        (tally.of("request sent back"), tally.of("request ends elsewhere")),
        (0, 51)
    );
}

#[test]
fn refused_channels_are_done_without() {
    let mut spec = shared(4, 2);
    spec.target.multichannel = false;
    let mut world = World::new(spec);
    assert_eq!(world.qps(0).len(), 1);
    let ids: Vec<_> = (0..32).map(|n| world.write(0, n * 32, 32)).collect();
    finish(&mut world);
    succeeded(&world, &ids);
    // The disk has queues only where there was a channel when it was made.
    assert_eq!(handed_over(&mut world), 0);
}

#[test]
fn channels_refused_later_are_done_without() {
    let mut spec = shared(4, 2);
    spec.relogin = Some(Span::micros(1000, 1000));
    let mut world = World::new(spec);
    world.fabric().target_mut().profile_mut().multichannel = false;
    for lost in 0..3 {
        let lost = qp(&world, lost);
        world.fabric().break_queue_pair(lost);
        let ids = mixed(&mut world, 4, 2);
        finish(&mut world);
        succeeded(&world, &ids);
    }
    assert_eq!(world.qps(0), [qp(&world, 3)]);
}

/// A write of unknown fate where only another reactor has a channel.
fn doubtful(spec: WorldSpec, prepare: impl FnOnce(&mut World)) -> (World, RequestId, RequestId) {
    let submit = |world: &mut World| {
        let write = world.submit_at(0, 0, WRITE, 0, 1);
        (write, world.submit_at(0, 0, BlockOperation::Read, 8, 8))
    };
    directed::doubtful(spec, submit, prepare)
}

#[test]
fn a_write_of_unknown_fate_waits_for_a_reset_at_the_sibling() {
    let mut spec = shared(2, 2);
    // With its data in the command the write is carried out also when its connection is gone.
    spec.immediate_data = 8192;
    let (mut world, write, read) = doubtful(spec, |_| {});
    succeeded(&world, &[write, read]);
    let sibling = qp(&world, 1);
    assert_eq!(world.engine_of(1).channel_state(sibling).expect("open").resets, 1);
    assert_eq!(world.fabric().tally().of("write of unknown fate handed over"), 1);
    assert_eq!([write, read].map(|id| seconds(ended(&world, id))), [2, 0]);
    // One after the reset, and none before.
    assert_eq!(world.fabric().target().executed(lun(0)).1, 1);
    let trace = world.fabric().trace();
    let at = |what: &str| trace.rfind(what).expect("in the trace");
    assert!(at("LOGICAL UNIT RESET") < at("WRITE("));
}

#[test]
fn without_a_reset_a_write_of_unknown_fate_fails() {
    let mut spec = shared(2, 2);
    spec.immediate_data = 8192;
    let mut with_others = spec.clone();
    with_others.fence = Fence::Relogin;
    let (mut world, write, read) = doubtful(with_others, |_| {});
    failed(&world, &[write], BlockError::Transport);
    succeeded(&world, &[read]);
    assert_eq!(world.fabric().tally().of("write of unknown fate handed over"), 0);
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

#[test]
fn a_reset_that_is_answered_when_its_unit_runs_again_counts() {
    let late = Function::Late(Duration::from_secs(80));
    let (world, write, read) = doubtful(shared(2, 2), |world| world.fabric().target_mut().arrange(late));
    succeeded(&world, &[write, read]);
    // The pause before the reset, and its answer.
    assert_eq!(seconds(ended(&world, write)), 82);
}

#[test]
fn a_write_that_joins_others_in_waiting_for_a_reset_has_its_time() {
    let mut world = World::new(shared(3, 3));
    let slow = Injection::Slow(Duration::from_secs(25));
    for number in [0, 1, 2, 2] {
        world.fabric().target_mut().inject(lun(number), slow);
    }
    let mut writes: Vec<_> = (0..3).map(|number| world.submit_at(1, number, WRITE, 0, 8)).collect();
    writes.push(world.submit_at(0, 2, WRITE, 64, 8));
    run_for(&mut world, Duration::from_millis(2));
    // A channel has room for two functions: the third unit's turn comes nine seconds later.
    for seconds in [9, 9, 3] {
        let late = Function::Late(Duration::from_secs(seconds));
        world.fabric().target_mut().arrange(late);
    }
    let lost = qp(&world, 1);
    world.fabric().break_queue_pair(lost);
    run_for(&mut world, Duration::from_secs(5));
    let lost = qp(&world, 0);
    world.fabric().break_queue_pair(lost);
    finish(&mut world);
    succeeded(&world, &writes);
    let seconds: Vec<u64> = writes.iter().map(|id| seconds(ended(&world, *id))).collect();
    assert_eq!(seconds.iter().max(), Some(&14));
    let sibling = qp(&world, 2);
    assert_eq!(world.engine_of(2).channel_state(sibling).expect("open").resets, 3);
}

#[test]
fn all_channels_lost_at_once_ends_without_going_to_and_fro() {
    for (reactors, most) in [(2, 1), (4, 3)] {
        for micros in (0..600).step_by(40) {
            let mut spec = shared(reactors, 2);
            // Each takes the others to be there for as long as they do not send something back.
            spec.tell = Span::micros(1_000_000, 1_000_000);
            let mut world = World::new(spec);
            let ids = mixed(&mut world, reactors, 2);
            run_for(&mut world, Duration::from_micros(micros));
            for reactor in 0..reactors {
                let lost = qp(&world, reactor);
                world.fabric().break_queue_pair(lost);
            }
            run_for(&mut world, Duration::from_millis(100));
            let late = mixed(&mut world, reactors, 2);
            run_for(&mut world, Duration::from_millis(100));
            let over = |ids: &[RequestId]| ids.iter().all(|id| world.outcome(*id).is_some());
            assert!(over(&ids) && over(&late));
            failed(&world, &late, BlockError::Transport);
            let sent = handed_over(&mut world);
            assert!(sent > 0 && sent <= most * (ids.len() + late.len()) as u64, "{sent}");
            finish(&mut world);
        }
    }
}

#[test]
fn a_channel_that_is_back_serves_what_is_made_there() {
    let mut spec = shared(2, 1);
    spec.relogin = Some(Span::micros(5000, 5000));
    let mut world = World::new(spec);
    let lost = qp(&world, 0);
    world.fabric().break_queue_pair(lost);
    run_for(&mut world, Duration::from_millis(4));
    assert_eq!(world.qp_of(0, 0), None);
    let away = mixed(&mut world, 2, 1);
    run_for(&mut world, Duration::from_millis(10));
    let back = qp(&world, 0);
    assert_ne!(back, lost);
    finish(&mut world);
    succeeded(&world, &away);
    let before = handed_over(&mut world);
    assert!(before > 0);
    let ids = mixed(&mut world, 2, 1);
    run_for(&mut world, Duration::from_micros(60));
    assert!(world.engine_of(0).channel_state(back).expect("open").commands > 0);
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(handed_over(&mut world), before);
    assert_eq!(world.failures().len(), 1, "MULTI ended no other channel");
}

#[test]
fn what_comes_back_is_served_by_a_channel_that_is_back() {
    let mut spec = shared(2, 1);
    spec.relogin = Some(Span::micros(5000, 5000));
    // It is on its way for longer than a channel is gone.
    spec.mail = Span::micros(20_000, 20_000);
    let mut world = World::new(spec);
    let lost = qp(&world, 0);
    world.fabric().break_queue_pair(lost);
    run_for(&mut world, Duration::from_millis(4));
    let id = world.submit_at(0, 0, BlockOperation::Read, 0, 8);
    run_for(&mut world, Duration::from_millis(10));
    assert_eq!(handed_over(&mut world), 1);
    world.fabric().target_mut().profile_mut().multichannel = false;
    let sibling = qp(&world, 1);
    world.fabric().break_queue_pair(sibling);
    finish(&mut world);
    succeeded(&world, &[id]);
    assert_eq!(world.fabric().tally().of("request sent back"), 1);
    assert_eq!(handed_over(&mut world), 1);
}

#[test]
fn an_answer_of_before_does_not_speak_against_a_channel_of_after() {
    let mut elsewhere = 0;
    for seed in 1..=8 {
        let mut spec = shared(2, 1);
        spec.seed = seed;
        spec.relogin = Some(Span::micros(5000, 5000));
        (spec.mail, spec.tell) = (Span::micros(20_000, 20_000), Span::micros(0, 0));
        let mut world = World::new(spec);
        world.fabric().target_mut().profile_mut().multichannel = false;
        let lost = qp(&world, 0);
        world.fabric().break_queue_pair(lost);
        run_for(&mut world, Duration::from_millis(1));
        let id = world.submit_at(0, 0, BlockOperation::Read, 0, 8);
        // It comes to the sibling when that has just lost its channel, and back when one of the two has a new one.
        run_for(&mut world, Duration::from_millis(18));
        world.close(0);
        run_for(&mut world, Duration::from_millis(1));
        assert!(world.qps(0).is_empty());
        finish(&mut world);
        succeeded(&world, &[id]);
        let tally = world.fabric().tally();
        assert_eq!(tally.of("request sent back"), 1);
        if world.qp_of(0, 1).is_some() {
            elsewhere += 1;
            assert_eq!(world.fabric().tally().of("bounce of an older list of siblings"), 1);
            let later = world.submit_at(0, 0, BlockOperation::Read, 0, 8);
            finish(&mut world);
            succeeded(&world, &[later]);
        }
    }
    assert!(elsewhere > 0, "only on the reactor of the request");
}

#[test]
fn a_session_that_was_removed_stays_so() {
    let mut world = World::new(shared(2, 1));
    let (gone, engine) = (SessionKey(9), world.engine_of(1));
    engine.set_elsewhere(gone, true);
    engine.remove_session(gone);
    engine.set_elsewhere(gone, false);
    let request = ControlRequest {
        id: RequestId(1),
        session: gone,
        lun: Lun::default(),
        cdb: Cdb::test_unit_ready(),
        data_in: 0,
        timeout: Duration::from_secs(1),
    };
    engine.submit_control(request, Instant::default());
    let (id, result) = (RequestId(1), Err(BlockError::Transport));
    assert_eq!(engine.next_event(), Some(Event::Reply { id, result }));
}

#[test]
fn a_daemon_that_dies_takes_all_reactors_along() {
    for micros in (0..3000).step_by(60) {
        let mut spec = shared(4, 2);
        spec.relogin = Some(Span::micros(0, 1000));
        let mut world = World::new(spec);
        let ids = mixed(&mut world, 4, 2);
        run_for(&mut world, Duration::from_micros(micros));
        world.kill_daemon(true);
        finish(&mut world);
        succeeded(&world, &ids);
        assert_eq!(world.qps(0).len(), 4);
        assert!(world.failures().is_empty());
    }
}

#[test]
fn a_unit_that_is_stuck_takes_no_other_with_it() {
    let operations = [BlockOperation::Read, WRITE];
    for ((reactors, each), operation) in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)]
        .into_iter()
        .flat_map(|shape| operations.map(|operation| (shape, operation)))
    {
        let channels = reactors * each;
        let mut spec = shared(reactors, 2);
        spec.sessions[0].channels = channels;
        spec.relogin = Some(Span::micros(200_000, 300_000));
        let mut world = World::new(spec);
        let before = world.qps(0).to_vec();
        // Neither its commands nor the functions about them are answered, on any channel.
        let mut ids = Vec::new();
        for channel in 0..channels {
            world.fabric().target_mut().inject(lun(0), NEVER);
            (0..2).for_each(|_| world.fabric().target_mut().arrange(Function::Silent { done: false }));
            // As much as one channel's turn is, so that each has one of them.
            ids.push(world.submit_at(channel % reactors, 0, operation, channel as u64 * 128, 128));
        }
        let mut others = Vec::new();
        for step in 0..100 {
            run_for(&mut world, Duration::from_millis(500));
            for reactor in 0..reactors {
                let place = reactor as u64 * 512 + step % 16 * 8;
                let made = world.now();
                others.push((made, world.submit_at(reactor, 1, WRITE, place, 8)));
                others.push((made, world.submit_at(reactor, 1, BlockOperation::Read, place + 256, 8)));
            }
        }
        finish(&mut world);
        let taken = |(made, id): (Instant, RequestId)| {
            succeeded(&world, &[id]);
            ended(&world, id).saturating_since(made)
        };
        let slowest = others.into_iter().map(taken);
        let slowest = slowest.max();
        assert!(
            slowest < Some(Duration::from_millis(100)),
            "{reactors} reactors, {each} channels each: {slowest:?}"
        );
        assert_eq!(world.qps(0).len(), channels);
        assert!(world.qps(0).iter().all(|qp| !before.contains(qp)));
        assert_eq!(world.fabric().tally().of("channel stuck"), channels as u64);
        // What it did not answer is sent again over the new channels.
        succeeded(&world, &ids);
        assert!(ids.iter().all(|id| (41..45).contains(&seconds(ended(&world, *id)))));
    }
}
