//! Commands that are not answered in time: aborted, reset, given up; and answers that come all the same.

mod directed;

use std::time::Duration;

use directed::{ended, failed, finish, limited, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::scsi::{BlockError, Cdb};
use srp_initiator::session::{ChannelError, ChannelState, Fence, UnitFunction};
use srp_initiator::sim::{Function, Injection, Outcome, Span, World};
use srp_initiator::wire::TaskResponse;

const STUCK: Injection = Injection::Swallow { executed: false };

fn state(world: &mut World) -> ChannelState {
    let qp = world.qp(0).expect("logged in");
    world.engine().channel_state(qp).expect("open")
}

fn stuck(world: &mut World, count: u32) {
    (0..count).for_each(|_| world.fabric().target_mut().inject(lun(0), STUCK));
}

#[test]
fn an_overdue_command_is_aborted_and_sent_again() {
    for executed in [false, true] {
        let mut world = World::new(spec(1));
        let swallow = Injection::Swallow { executed };
        world.fabric().target_mut().inject(lun(0), swallow);
        let write = world.write(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[write]);
        assert_eq!(seconds(ended(&world, write)), 30);
        let state = state(&mut world);
        assert_eq!((state.aborts, state.resets, state.credits), (1, 0, 128));
        assert!(world.failures().is_empty());
    }
}

#[test]
fn an_unanswered_abort_is_followed_by_a_reset() {
    for done in [false, true] {
        let mut world = World::new(spec(1));
        stuck(&mut world, 1);
        world.fabric().target_mut().arrange(Function::Silent { done });
        let write = world.write(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[write]);
        assert_eq!(seconds(ended(&world, write)), 35);
        let state = state(&mut world);
        assert_eq!((state.aborts, state.resets), (1, 1));
    }
}

#[test]
fn a_target_without_abort_is_asked_for_a_reset_at_once() {
    let mut world = World::new(spec(1));
    stuck(&mut world, 1);
    let refusal = Function::Answered(TaskResponse::NotSupported);
    world.fabric().target_mut().arrange(refusal);
    let read = world.read(0, 0, 8);
    finish(&mut world);
    succeeded(&world, &[read]);
    assert_eq!(seconds(ended(&world, read)), 30);
    assert_eq!(state(&mut world).resets, 1);
}

#[test]
fn only_complete_counts() {
    for result in [
        TaskResponse::Failed,
        TaskResponse::InvalidFields,
        TaskResponse::Missing,
        TaskResponse::Other(1),
    ] {
        let mut world = World::new(spec(1));
        stuck(&mut world, 1);
        world.fabric().target_mut().arrange(Function::Answered(result));
        let write = world.write(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[write]);
        assert_eq!(seconds(ended(&world, write)), 35, "{result}: the reset follows");

        let mut world = World::new(spec(1));
        stuck(&mut world, 1);
        (0..2).for_each(|_| world.fabric().target_mut().arrange(Function::Answered(result)));
        let write = world.write(0, 0, 8);
        finish(&mut world);
        failed(&world, &[write], BlockError::Transport);
        assert!(matches!(world.failures(), [(_, ChannelError::Timeout(30), _)]));
    }
}

#[test]
fn a_channel_whose_target_ends_nothing_is_given_up() {
    // The last ten seconds are for a successor, which nobody makes here.
    for (fence, after) in [(Fence::LunReset, 50), (Fence::Relogin, 45)] {
        let mut spec = spec(2);
        spec.fence = fence;
        let mut world = World::new(spec);
        stuck(&mut world, 1);
        (0..2).for_each(|_| world.fabric().target_mut().arrange(Function::Silent { done: false }));
        let lost = world.write(0, 0, 8);
        let other = world.read(1, 0, 8);
        finish(&mut world);
        failed(&world, &[lost], BlockError::Transport);
        succeeded(&world, &[other]);
        assert_eq!(seconds(ended(&world, lost)), after);
        assert!(matches!(world.failures(), [(_, ChannelError::Timeout(30), _)]));
        let late = world.read(0, 0, 8);
        finish(&mut world);
        failed(&world, &[late], BlockError::Transport);
    }
}

#[test]
fn an_answer_that_crosses_the_abort_counts() {
    // The command ends around the moment its abort is sent, or while the target says that there is no such task.
    for micros in (0..1500).step_by(30) {
        let mut world = World::new(spec(1));
        let time = Duration::from_secs(30).saturating_sub(Duration::from_micros(700)) + Duration::from_micros(micros);
        world.fabric().target_mut().inject(lun(0), Injection::Slow(time));
        let write = world.write(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[write]);
        assert_eq!((state(&mut world).credits, state(&mut world).resets), (128, 0));
    }
    let mut world = World::new(spec(1));
    let slow = Injection::Slow(Duration::from_secs(33));
    world.fabric().target_mut().inject(lun(0), slow);
    let refusal = Function::Answered(TaskResponse::Failed);
    world.fabric().target_mut().arrange(refusal);
    let write = world.write(0, 0, 8);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert_eq!(seconds(ended(&world, write)), 33);
    assert_eq!(state(&mut world).resets, 0);
}

#[test]
fn a_response_behind_the_abort_changes_nothing() {
    let mut world = World::new(limited(3));
    stuck(&mut world, 2);
    (0..2).for_each(|_| world.fabric().target_mut().arrange(Function::DoneWithResponse));
    let ids = [world.write(0, 0, 8), world.read(0, 8, 8), world.write(0, 16, 8)];
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(state(&mut world).credits, 3);
}

#[test]
fn the_credit_that_is_kept_is_for_task_management() {
    let mut world = World::new(limited(2));
    stuck(&mut world, 1);
    let ids = [world.write(0, 0, 8), world.read(0, 8, 8)];
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(seconds(ended(&world, ids[0])), 30);
}

#[test]
fn without_any_credit_the_channel_is_given_up() {
    let mut world = World::new(limited(2));
    let qp = world.qp(0).expect("logged in");
    stuck(&mut world, 1);
    let write = world.write(0, 0, 8);
    run_for(&mut world, Duration::from_secs(1));
    world.fabric().request_credit(qp, -1);
    finish(&mut world);
    failed(&world, &[write], BlockError::Transport);
    assert_eq!(seconds(ended(&world, write)), 50);
}

#[test]
fn many_overdue_commands_are_over_as_soon_as_one() {
    for fate in [Function::Done, Function::Late(Duration::from_millis(900))] {
        let mut world = World::new(spec(1));
        stuck(&mut world, 30);
        (0..60).for_each(|_| world.fabric().target_mut().arrange(fate));
        let ids: Vec<_> = (0..30).map(|n| world.write(0, n * 8, 8)).collect();
        finish(&mut world);
        succeeded(&world, &ids);
        assert!(ids.iter().all(|id| seconds(ended(&world, *id)) < 40));
        assert!(world.failures().is_empty());
    }
}

#[test]
fn a_reset_is_not_about_other_units_nor_about_later_commands() {
    let mut world = World::new(spec(2));
    stuck(&mut world, 1);
    let slow = Injection::Slow(Duration::from_secs(12));
    let refusal = Function::Answered(TaskResponse::NotSupported);
    world.fabric().target_mut().arrange(refusal);
    // The reset itself takes its time: what is sent behind it meanwhile is not concerned.
    let late = Function::Late(Duration::from_secs(3));
    world.fabric().target_mut().arrange(late);
    let write = world.write(0, 0, 8);
    run_for(&mut world, Duration::from_secs(29));
    world.fabric().target_mut().inject(lun(1), slow);
    let other = world.write(1, 0, 8);
    run_for(&mut world, Duration::from_millis(2500));
    let later = world.write(0, 8, 8);
    finish(&mut world);
    succeeded(&world, &[write, other, later]);
    assert_eq!(seconds(ended(&world, other)), 41);
    assert_eq!(seconds(ended(&world, later)), 31);
    assert_eq!(seconds(ended(&world, write)), 33);
}

#[test]
fn a_command_the_target_never_answers_ends_after_all() {
    let mut world = World::new(spec(1));
    stuck(&mut world, 100);
    let write = world.write(0, 0, 8);
    finish(&mut world);
    failed(&world, &[write], BlockError::Timeout);
    assert_eq!(seconds(ended(&world, write)), 120);
    assert!(world.failures().is_empty());
}

#[test]
fn a_control_command_is_reported_at_its_limit() {
    let mut world = World::new(spec(1));
    world.fabric().target_mut().hang_control(1);
    let limit = Duration::from_secs(3);
    let late = Function::Late(Duration::from_secs(2));
    world.fabric().target_mut().arrange(late);
    let inquiry = world.control(0, 0, Cdb::inquiry(96), 96, limit);
    run_for(&mut world, Duration::from_secs(4));
    assert_eq!(outcome(&world, inquiry), Outcome::Reply(Err(BlockError::Timeout)));
    assert_eq!(seconds(ended(&world, inquiry)), 3);
    assert!(state(&mut world).bytes_in_use > 0, "the target may still touch it");
    finish(&mut world);
    assert_eq!((state(&mut world).bytes_in_use, state(&mut world).aborts), (0, 1));
}

#[test]
fn everybody_is_told_in_time_whichever_command_the_ladder_is_about() {
    let mut world = World::new(spec(1));
    world.fabric().target_mut().hang_control(4);
    (0..2).for_each(|_| world.fabric().target_mut().arrange(Function::Silent { done: false }));
    let ids = [3, 4, 8, 16].map(|limit| {
        let id = world.control(0, 0, Cdb::inquiry(96), 96, Duration::from_secs(limit));
        (id, limit)
    });
    finish(&mut world);
    for (id, limit) in ids {
        assert_eq!(outcome(&world, id), Outcome::Reply(Err(BlockError::Timeout)));
        assert_eq!(seconds(ended(&world, id)), limit);
    }
}

#[test]
fn complete_is_proof_also_when_it_comes_late() {
    let mut world = World::new(spec(1));
    stuck(&mut world, 1);
    let late = Function::Late(Duration::from_secs(6));
    world.fabric().target_mut().arrange(late);
    world.fabric().target_mut().arrange(Function::Silent { done: false });
    let write = world.write(0, 0, 8);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert_eq!(seconds(ended(&world, write)), 36);
    assert!(world.failures().is_empty());
}

#[test]
fn a_reset_counts_for_all_it_ended_when_its_cause_was_answered_meanwhile() {
    let mut world = World::new(spec(1));
    let slow = Injection::Slow(Duration::from_secs(31));
    world.fabric().target_mut().inject(lun(0), slow);
    stuck(&mut world, 1);
    let refusal = Function::Answered(TaskResponse::NotSupported);
    world.fabric().target_mut().arrange(refusal);
    let late = Function::Late(Duration::from_secs(2));
    world.fabric().target_mut().arrange(late);
    let answered = world.write(0, 0, 8);
    run_for(&mut world, Duration::from_secs(20));
    let ended_by_reset = world.write(0, 8, 8);
    finish(&mut world);
    succeeded(&world, &[answered, ended_by_reset]);
    assert_eq!(seconds(ended(&world, answered)), 31);
    assert_eq!(seconds(ended(&world, ended_by_reset)), 32);
}

#[test]
fn the_control_side_can_manage_a_units_tasks() {
    for function in [
        UnitFunction::AbortTaskSet,
        UnitFunction::ClearTaskSet,
        UnitFunction::Reset,
    ] {
        let mut world = World::new(spec(2));
        stuck(&mut world, 1);
        let ids = [world.write(0, 0, 8), world.read(1, 0, 8)];
        run_for(&mut world, Duration::from_secs(1));
        let managed = world.manage(0, 0, function);
        finish(&mut world);
        assert_eq!(outcome(&world, managed), Outcome::Task(Ok(TaskResponse::Complete)));
        // What it ended was sent again at once.
        succeeded(&world, &ids);
        assert_eq!(seconds(ended(&world, ids[0])), 1);

        let refusal = Function::Answered(TaskResponse::NotSupported);
        world.fabric().target_mut().arrange(refusal);
        let refused = world.manage(0, 0, function);
        finish(&mut world);
        assert_eq!(outcome(&world, refused), Outcome::Task(Ok(TaskResponse::NotSupported)));
        world.fabric().target_mut().arrange(Function::Silent { done: true });
        let silent = world.manage(0, 0, function);
        finish(&mut world);
        assert_eq!(outcome(&world, silent), Outcome::Task(Err(BlockError::Timeout)));
        let lost = world.manage(0, 0, function);
        world.close(0);
        let late = world.manage(0, 0, function);
        finish(&mut world);
        assert_eq!(outcome(&world, lost), Outcome::Task(Err(BlockError::Transport)));
        assert_eq!(outcome(&world, late), Outcome::Task(Err(BlockError::Transport)));
    }
}

#[test]
fn each_of_two_resets_ends_what_was_sent_before_it() {
    // The first is done and answered, and a response of the ended command comes behind it; the second is silent.
    let mut world = World::new(spec(1));
    stuck(&mut world, 1);
    world.fabric().target_mut().arrange(Function::DoneWithResponse);
    world.fabric().target_mut().arrange(Function::Silent { done: true });
    let write = world.write(0, 0, 8);
    run_for(&mut world, Duration::from_secs(1));
    let first = world.manage(0, 0, UnitFunction::Reset);
    let second = world.manage(0, 0, UnitFunction::Reset);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert_eq!(seconds(ended(&world, write)), 1);
    assert_eq!(outcome(&world, first), Outcome::Task(Ok(TaskResponse::Complete)));
    assert_eq!(outcome(&world, second), Outcome::Task(Err(BlockError::Timeout)));
}

#[test]
fn what_an_abandoned_disk_has_at_the_target_is_overdue_at_once() {
    let silent = [Function::Silent { done: false }; 2];
    for (fates, after) in [(&silent[..0], 2), (&silent[..1], 7), (&silent[..], 17)] {
        let mut spec = spec(2);
        spec.relogin = Some(Span::micros(200_000, 300_000));
        let mut world = World::new(spec);
        stuck(&mut world, 3);
        fates.iter().for_each(|fate| world.fabric().target_mut().arrange(*fate));
        let ids = [world.write(0, 0, 8), world.read(0, 8, 8), world.flush(0)];
        let other = world.read(1, 0, 8);
        run_for(&mut world, Duration::from_secs(2));
        world.abandon(0);
        let late = world.read(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[other]);
        failed(&world, &[late], BlockError::Offline);
        for id in ids {
            assert!(matches!(outcome(&world, id), Outcome::Failed(_)));
            assert!(seconds(ended(&world, id)) <= after, "{} s", seconds(ended(&world, id)));
        }
        let fine = world.write(1, 0, 8);
        finish(&mut world);
        succeeded(&world, &[fine]);
    }
}
