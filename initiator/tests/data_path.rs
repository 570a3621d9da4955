//! Requests that end as they should: data, credit, buffers, order, and statuses that are healed inside.

mod directed;

use std::time::Duration;

use directed::{ended, finish, limited, lun, outcome, run_for, seconds, spec, succeeded};
use srp_initiator::scsi::{BlockError, Cdb};
use srp_initiator::session::{BlockOperation, Limits, LunKey, RequestId};
use srp_initiator::sim::{CreditPolicy, Injection, Outcome, Span, World, WorldSpec, fill_block};

#[test]
fn a_write_is_on_the_disk_and_a_read_returns_it() {
    let mut world = World::new(spec(1));
    let write = world.write(0, 10, 16);
    finish(&mut world);
    assert_eq!(outcome(&world, write), Outcome::Done(16 * 512));
    let read = world.read(0, 10, 16);
    let flush = world.flush(0);
    finish(&mut world);
    let mut expected = vec![0; 16 * 512];
    for (lba, block) in (10..).zip(expected.chunks_mut(512)) {
        fill_block(block, lun(0), lba, write.0);
    }
    assert_eq!(outcome(&world, read), Outcome::Read(expected));
    assert_eq!(outcome(&world, flush), Outcome::Done(0));
    assert_eq!(world.fabric().target().executed(lun(0)), (1, 1, 1));
}

#[test]
fn both_ends_of_the_disk_and_nothing_beyond() {
    let mut world = World::new(spec(1));
    let good = [world.write(0, 0, 1), world.write(0, 2047, 1), world.read(0, 1, 512)];
    let bad = [
        world.read(0, 2048, 1),
        world.read(0, 2047, 2),
        world.read(0, u64::MAX, 1),
        world.read(0, 5, 0),
        world.read(0, 6, 513),
    ];
    finish(&mut world);
    directed::failed(&world, &bad, BlockError::Invalid);
    succeeded(&world, &good);
    assert_eq!(world.fabric().target().executed(lun(0)), (1, 2, 0));
}

#[test]
fn large_transfers_arrive_whole() {
    let mut world = World::new(WorldSpec {
        arena: 1 << 20,
        max_transfer: 1 << 20,
        ..spec(1)
    });
    let write = world.write(0, 0, 2048);
    finish(&mut world);
    let read = world.read(0, 0, 2048);
    finish(&mut world);
    assert_eq!(outcome(&world, write), Outcome::Done(1 << 20));
    assert!(matches!(outcome(&world, read), Outcome::Read(data) if data.len() == 1 << 20));
}

#[test]
fn requests_wait_for_credit() {
    // Two credits, one of them for task management: one command at a time.
    let mut world = World::new(limited(2));
    let ids: Vec<_> = (0..40).map(|n| world.read(0, n * 4, 4)).collect();
    let qp = world.qp(0).expect("logged in");
    for _ in 0..200 {
        world.step();
        assert!(world.engine().in_flight() <= 1);
    }
    finish(&mut world);
    succeeded(&world, &ids);
    let state = world.engine().channel_state(qp).expect("open");
    assert_eq!((state.credits, state.commands), (2, 0));
    assert!(state.zero_credit > 0);
}

#[test]
fn requests_wait_for_buffers() {
    let mut world = World::new(WorldSpec {
        arena: 64 << 10,
        max_transfer: 64 << 10,
        ..spec(2)
    });
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(world.read(0, n * 128, 128));
        ids.push(world.write(1, n * 128, 128));
    }
    finish(&mut world);
    succeeded(&world, &ids);
}

#[test]
fn a_full_arena_is_no_matter_of_the_other_direction() {
    for write in [false, true] {
        let ask = |world: &mut World, write: bool, disk, lba, blocks| match write {
            true => world.write(disk, lba, blocks),
            false => world.read(disk, lba, blocks),
        };
        let mut world = World::new(WorldSpec {
            arena: 128 << 10,
            max_transfer: 64 << 10,
            ..spec(4)
        });
        let slow = Injection::Slow(Duration::from_secs(20));
        (0..2).for_each(|_| world.fabric().target_mut().inject(lun(0), slow));
        let held = [ask(&mut world, write, 0, 0, 128), ask(&mut world, write, 0, 128, 8)];
        run_for(&mut world, Duration::from_millis(2));
        let long = ask(&mut world, write, 1, 0, 128);
        let other_way = ask(&mut world, !write, 2, 0, 8);
        // There is room for it, and it came later.
        let short = ask(&mut world, write, 3, 0, 8);
        finish(&mut world);
        succeeded(&world, &held);
        succeeded(&world, &[long, other_way, short]);
        assert_eq!(seconds(ended(&world, other_way)), 0, "write: {write}");
        assert!(seconds(ended(&world, long)) >= 20 && seconds(ended(&world, short)) >= 20);
    }
}

#[test]
fn those_that_pass_do_not_take_the_turn_of_one_that_waits_for_a_buffer() {
    // Two commands at a time. The second read waits for the buffer of the first, while writes use what credit there is.
    let mut spec = WorldSpec {
        arena: 64 << 10,
        max_transfer: 64 << 10,
        ..spec(3)
    };
    spec.target.request_limit = 3;
    let mut world = World::new(spec);
    let target = world.fabric().target_mut();
    target.inject(lun(0), Injection::Slow(Duration::from_secs(1)));
    let slow = Injection::Slow(Duration::from_millis(10));
    (0..200).for_each(|_| target.inject(lun(2), slow));
    let reads = [world.read(0, 0, 128), world.read(1, 0, 128)];
    let writes: Vec<_> = (0..200).map(|n| world.write(2, n * 8, 8)).collect();
    finish(&mut world);
    succeeded(&world, &reads);
    succeeded(&world, &writes);
    let [first, second] = reads.map(|id| ended(&world, id).as_nanos() / 1_000_000);
    assert!(second < first + 50, "{first} ms, {second} ms");
    let passed = writes.iter().filter(|id| ended(&world, **id) < ended(&world, reads[0]));
    assert!(passed.count() > 50);
}

#[test]
fn requests_sent_again_do_not_wait_for_the_buffer_they_hold() {
    // The refused read holds the whole arena; the other unit's read is in front of it.
    let mut world = World::new(WorldSpec {
        arena: 64 << 10,
        max_transfer: 64 << 10,
        ..spec(2)
    });
    world.fabric().target_mut().inject(lun(0), Injection::Busy);
    let first = world.read(0, 0, 128);
    let second = world.read(1, 0, 128);
    finish(&mut world);
    succeeded(&world, &[first, second]);
}

#[test]
fn flushes_sent_again_do_not_bar_what_holds_the_buffer() {
    // Both come back in one pass: the flush stands before the read that holds the whole arena.
    let mut spec = WorldSpec {
        arena: 64 << 10,
        max_transfer: 64 << 10,
        ..spec(2)
    };
    spec.profile.partial_polls = false;
    spec.profile.reaction = Span::micros(5000, 5000);
    let mut world = World::new(spec);
    let attention = Injection::UnitAttention { asc: 0x29, ascq: 0 };
    (0..2).for_each(|_| world.fabric().target_mut().inject(lun(0), attention));
    let first = [world.flush(0), world.read(0, 0, 128)];
    run_for(&mut world, Duration::from_millis(6));
    let second = world.read(1, 0, 128);
    finish(&mut world);
    succeeded(&world, &first);
    succeeded(&world, &[second]);
}

#[test]
fn the_buffer_of_a_request_that_ends_in_its_queue_serves_the_next() {
    let mut world = World::new(WorldSpec {
        arena: 64 << 10,
        max_transfer: 64 << 10,
        ..spec(2)
    });
    world.fabric().target_mut().inject(lun(0), Injection::Busy);
    let first = world.read(0, 0, 128);
    let second = world.read(1, 0, 128);
    run_for(&mut world, Duration::from_millis(50));
    // The first waits for the end of its pause; with its disk it goes, and its buffer with it.
    world.unplug(0);
    finish(&mut world);
    directed::failed(&world, &[first], BlockError::Offline);
    succeeded(&world, &[second]);
}

#[test]
fn credit_comes_back_in_every_way_the_standard_allows() {
    for credit in [
        CreditPolicy::Each,
        CreditPolicy::Batch(7),
        CreditPolicy::Wobble,
        CreditPolicy::ByRequest,
    ] {
        for request_limit in [2, 3, 20] {
            let mut spec = limited(request_limit);
            spec.target.credit = credit;
            let mut world = World::new(spec);
            let ids: Vec<_> = (0..60)
                .map(|n| {
                    if n % 2 == 0 {
                        world.read(0, n * 8, 8)
                    } else {
                        world.write(0, n * 8, 8)
                    }
                })
                .collect();
            finish(&mut world);
            succeeded(&world, &ids);
        }
    }
}

#[test]
fn credit_taken_back_while_data_is_copied_counts() {
    let mut spec = limited(3);
    spec.profile.copy = Span::micros(5000, 5000);
    let mut world = World::new(spec);
    let qp = world.qp(0).expect("logged in");
    let ids = [world.write(0, 0, 8), world.write(0, 8, 8)];
    run_for(&mut world, Duration::from_millis(1));
    world.fabric().request_credit(qp, -2);
    run_for(&mut world, Duration::from_millis(100));
    assert!(ids.iter().all(|id| world.outcome(*id).is_none()));
    world.fabric().request_credit(qp, 2);
    finish(&mut world);
    succeeded(&world, &ids);
}

#[test]
fn data_that_cannot_be_supplied_frees_the_credit_for_others() {
    let mut world = World::new(WorldSpec {
        unsupplied: 1000,
        ..limited(2)
    });
    let ids = [world.write(0, 0, 8), world.write(0, 8, 8), world.write(0, 16, 8)];
    finish(&mut world);
    directed::failed(&world, &ids, BlockError::Io);
    assert_eq!(world.fabric().target().executed(lun(0)), (0, 0, 0));
}

#[test]
fn a_slow_caller_is_not_a_slow_target() {
    let mut spec = spec(1);
    spec.profile.copy = Span::micros(40_000_000, 40_000_000);
    let mut world = World::new(spec);
    let write = world.write(0, 0, 8);
    run_for(&mut world, Duration::from_secs(20));
    world
        .fabric()
        .target_mut()
        .inject(lun(0), Injection::Slow(Duration::from_secs(25)));
    let flush = world.flush(0);
    finish(&mut world);
    succeeded(&world, &[write, flush]);
    assert!(world.failures().is_empty());
}

#[test]
fn unit_attention_is_not_the_callers_business() {
    let mut spec = spec(1);
    spec.target.attention_at_login = true;
    for descriptor_sense in [false, true] {
        spec.target.descriptor_sense = descriptor_sense;
        let mut world = World::new(spec.clone());
        let ids = [world.write(0, 0, 8), world.read(0, 100, 8), world.flush(0)];
        world
            .fabric()
            .target_mut()
            .inject(lun(0), Injection::UnitAttention { asc: 0x3f, ascq: 0x0e });
        finish(&mut world);
        succeeded(&world, &ids);
    }
}

#[test]
fn busy_and_task_set_full_are_tried_again_after_a_pause() {
    for injection in [Injection::Busy, Injection::TaskSetFull] {
        let mut world = World::new(spec(1));
        (0..5).for_each(|_| world.fabric().target_mut().inject(lun(0), injection));
        let write = world.write(0, 0, 8);
        finish(&mut world);
        succeeded(&world, &[write]);
        let millis = ended(&world, write).as_nanos() / 1_000_000;
        assert!((500..600).contains(&millis), "five pauses of 100 ms: {millis} ms");
    }
}

#[test]
fn a_unit_that_is_busy_for_long_is_waited_for() {
    let mut world = World::new(spec(1));
    (0..400).for_each(|_| world.fabric().target_mut().inject(lun(0), Injection::Busy));
    let write = world.write(0, 0, 8);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert_eq!(seconds(ended(&world, write)), 40, "400 pauses of 100 ms");
}

#[test]
fn a_unit_whose_refusals_ask_for_no_pause_is_given_up() {
    let attention = Injection::UnitAttention { asc: 0x29, ascq: 0 };
    let mut world = World::new(spec(1));
    (0..1000).for_each(|_| world.fabric().target_mut().inject(lun(0), attention));
    let write = world.write(0, 0, 8);
    finish(&mut world);
    directed::failed(&world, &[write], BlockError::Timeout);
    assert_eq!(seconds(ended(&world, write)), 0);
}

/// Where reads and writes of a world began, in the order they were sent.
fn sent(world: &mut World) -> Vec<u64> {
    let trace = world.fabric().trace();
    let commands = trace.lines().filter(|line| line.contains("-> CMD"));
    let lbas = commands.filter_map(|line| line.split_once("lba=")?.1.split(' ').next()?.parse().ok());
    lbas.collect()
}

#[test]
fn what_is_sent_again_keeps_its_order() {
    for injection in [Injection::UnitAttention { asc: 0x29, ascq: 0 }, Injection::Busy] {
        let mut spec = spec(1);
        // All answers are heard in one pass.
        spec.profile.partial_polls = false;
        spec.profile.reaction = Span::micros(5000, 5000);
        let mut world = World::new(spec);
        (0..4).for_each(|_| world.fabric().target_mut().inject(lun(0), injection));
        let mut ids: Vec<_> = (0..4).map(|n| world.read(0, n * 8, 8)).collect();
        run_for(&mut world, Duration::from_millis(6));
        // Behind those that were there before, too.
        ids.extend([world.read(0, 32, 8), world.read(0, 40, 8)]);
        finish(&mut world);
        succeeded(&world, &ids);
        let mut sent = sent(&mut world);
        assert_eq!(sent[..4], [0, 8, 16, 24]);
        sent.retain(|lba| *lba < 32);
        assert_eq!(sent[4..], [0, 8, 16, 24], "{injection:?}");
    }
}

#[test]
fn writes_sent_again_do_not_overtake_reads() {
    let mut spec = limited(3);
    spec.profile.partial_polls = false;
    spec.profile.reaction = Span::micros(5000, 5000);
    let mut world = World::new(spec);
    let attention = Injection::UnitAttention { asc: 0x29, ascq: 0 };
    (0..2).for_each(|_| world.fabric().target_mut().inject(lun(0), attention));
    // Two at a time: the others wait, and those that are refused stand before them.
    let ids = [
        world.write(0, 0, 8),
        world.read(0, 8, 8),
        world.write(0, 16, 8),
        world.read(0, 24, 8),
    ];
    finish(&mut world);
    succeeded(&world, &ids);
    let mut again: Vec<u64> = sent(&mut world).split_off(2);
    again.truncate(2);
    again.sort_unstable();
    assert_eq!(again, [0, 8]);
}

#[test]
fn a_unit_with_a_short_task_set_is_given_what_it_takes() {
    let mut spec = spec(2);
    spec.target.task_set = Some(4);
    // Reads only, so that all are at the target at once.
    let mut world = World::new(spec);
    let short: Vec<_> = (0..400).map(|n| world.read(0, n * 4, 4)).collect();
    finish(&mut world);
    succeeded(&world, &short);
    let refused = world.fabric().target().refused();
    assert!((1..200).contains(&refused), "{refused} of 400 refused");
    assert!(world.engine().disk_state(LunKey(0)).expect("known").depth.is_some());
    assert_eq!(world.engine().disk_state(LunKey(1)).expect("known").depth, None);
    // The unit grows: so does what it is given, until nothing limits it.
    world.fabric().target_mut().profile_mut().task_set = None;
    let mut depth = Some(0);
    for round in 0..400 {
        let ids: Vec<_> = (0..100).map(|n| world.read(0, n * 4, 4)).collect();
        finish(&mut world);
        succeeded(&world, &ids);
        let now = world.engine().disk_state(LunKey(0)).expect("known").depth;
        assert!(now.is_none() || now >= depth, "round {round}: {depth:?}, then {now:?}");
        depth = now;
    }
    assert_eq!(depth, None);
}

#[test]
fn what_rested_at_a_limit_goes_on_when_that_is_lifted() {
    // One of 600 commands at once is refused: the unit is given 300, which is lifted after as many that went well.
    let mut spec = limited(700);
    (spec.queue_size, spec.arena) = (600, 4 << 20);
    let mut world = World::new(spec);
    world.fabric().target_mut().inject(lun(0), Injection::TaskSetFull);
    for number in 1..600 {
        // Answered one by one, so that nothing else wakes the queue together with the answer that lifts the limit.
        let slow = Injection::Slow(Duration::from_millis(number));
        world.fabric().target_mut().inject(lun(0), slow);
    }
    let ids: Vec<_> = (0..1000).map(|n| world.read(0, n, 1)).collect();
    run_for(&mut world, Duration::from_millis(200));
    let state = world.engine().disk_state(LunKey(0)).expect("known");
    assert_eq!(state.depth, Some(300));
    assert!((301..600).contains(&state.commands), "{} commands out", state.commands);
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(world.engine().disk_state(LunKey(0)).expect("known").depth, None);
    let last = ids.iter().map(|&id| ended(&world, id)).max().expect("some");
    assert_eq!(seconds(last), 0, "none waited until something else woke its queue");
}

#[test]
fn a_target_that_stays_busy_is_given_up() {
    let limits = Limits {
        busy: Duration::from_secs(10),
        ..Limits::default()
    };
    let mut world = World::new(WorldSpec { limits, ..spec(1) });
    (0..1000).for_each(|_| world.fabric().target_mut().inject(lun(0), Injection::Busy));
    let write = world.write(0, 0, 8);
    finish(&mut world);
    directed::failed(&world, &[write], BlockError::Timeout);
    assert_eq!(seconds(ended(&world, write)), 10);
    assert!(world.failures().is_empty());
}

#[test]
fn waiting_for_ones_turn_is_no_error() {
    // One command at a time, each of which takes 25 s: the last waits for far longer than one may be retried.
    let mut world = World::new(limited(2));
    let slow = Injection::Slow(Duration::from_secs(25));
    (0..12).for_each(|_| world.fabric().target_mut().inject(lun(0), slow));
    let ids: Vec<_> = (0..12).map(|n| world.read(0, n * 4, 4)).collect();
    finish(&mut world);
    succeeded(&world, &ids);
    assert_eq!(seconds(ended(&world, ids[11])), 300);
}

#[test]
fn a_request_to_be_sent_again_waits_no_longer_than_its_time() {
    let limits = Limits {
        busy: Duration::from_secs(10),
        ..Limits::default()
    };
    let mut world = World::new(WorldSpec { limits, ..limited(2) });
    world.fabric().target_mut().inject(lun(0), Injection::Busy);
    let slow = Injection::Slow(Duration::from_secs(20));
    world.fabric().target_mut().inject(lun(0), slow);
    let refused = world.write(0, 0, 8);
    let next = world.read(0, 64, 8);
    finish(&mut world);
    directed::failed(&world, &[refused], BlockError::Timeout);
    assert_eq!(seconds(ended(&world, refused)), 10);
    succeeded(&world, &[next]);
}

#[test]
fn a_control_request_that_cannot_be_sent_ends_in_its_time() {
    let mut world = World::new(limited(2));
    let slow = Injection::Slow(Duration::from_secs(20));
    world.fabric().target_mut().inject(lun(0), slow);
    let read = world.read(0, 0, 8);
    run_for(&mut world, Duration::from_secs(1));
    let asked = world.control(0, 0, Cdb::test_unit_ready(), 0, Duration::from_secs(3));
    finish(&mut world);
    assert_eq!(outcome(&world, asked), Outcome::Reply(Err(BlockError::Timeout)));
    assert_eq!(seconds(ended(&world, asked)), 4);
    succeeded(&world, &[read]);
}

#[test]
fn a_short_read_returns_what_came() {
    let mut world = World::new(spec(1));
    let write = world.write(0, 0, 8);
    finish(&mut world);
    world.fabric().target_mut().inject(lun(0), Injection::Short(1000));
    let read = world.read(0, 0, 8);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert!(matches!(outcome(&world, read), Outcome::Read(data) if data.len() == 4096 - 1000));
}

#[test]
fn a_short_write_is_an_error() {
    let mut world = World::new(spec(1));
    world.fabric().target_mut().inject(lun(0), Injection::Short(512));
    let write = world.write(0, 0, 8);
    finish(&mut world);
    directed::failed(&world, &[write], BlockError::Io);
}

#[test]
fn errors_of_the_medium_and_of_the_request_reach_the_caller() {
    let mut world = World::new(spec(1));
    world.fabric().target_mut().inject(
        lun(0),
        Injection::Check {
            key: 3,
            asc: 0x11,
            ascq: 0,
        },
    );
    let read = world.read(0, 0, 8);
    finish(&mut world);
    world.fabric().target_mut().inject(lun(0), Injection::Refused);
    let refused = world.read(0, 0, 8);
    finish(&mut world);
    directed::failed(&world, &[read], BlockError::Medium);
    directed::failed(&world, &[refused], BlockError::Io);
    assert!(world.failures().is_empty());
}

#[test]
fn small_writes_carry_their_data_as_far_as_granted() {
    // Asked for, granted at all, the longest IU granted: the longest write that goes without RDMA.
    for (asked, granted, max_request_len, most) in [
        (8192, true, 8276, 8192),
        (4096, true, 8276, 4096),
        (8192, true, 68 + 1024, 1024),
        (8192, false, 8276, 0),
        (0, true, 8276, 0),
    ] {
        let mut spec = spec(1);
        spec.immediate_data = asked;
        spec.target.immediate_data = granted;
        spec.target.max_request_len = max_request_len;
        for blocks in [1, 2, 3, 8, 9, 16, 17] {
            let mut world = World::new(spec.clone());
            let write = world.write(0, 5, blocks);
            finish(&mut world);
            let read = world.read(0, 5, blocks);
            finish(&mut world);
            succeeded(&world, &[write, read]);
            let by_rdma = world.fabric().trace().contains("RDMA READ");
            assert_eq!(by_rdma, blocks * 512 > most, "{blocks} blocks, {most} bytes granted");
        }
    }
}

#[test]
fn logical_units_take_turns() {
    let mut spec = spec(2);
    spec.target.request_limit = 3;
    let mut world = World::new(spec);
    let many: Vec<_> = (0..50).map(|n| world.read(0, n * 8, 8)).collect();
    let few: Vec<_> = (0..5).map(|n| world.read(1, n * 8, 8)).collect();
    finish(&mut world);
    succeeded(&world, &many);
    let last = few.iter().map(|id| ended(&world, *id)).max().expect("some");
    let before = many.iter().filter(|id| ended(&world, **id) < last).count();
    assert!(
        before <= 8,
        "{before} of the long queue ended before the fifth of the short one"
    );
}

#[test]
fn fua_is_passed_on() {
    let mut world = World::new(spec(1));
    let write = world.submit(0, BlockOperation::Write { fua: true }, 0, 8);
    finish(&mut world);
    succeeded(&world, &[write]);
    assert!(world.fabric().trace().contains("WRITE(10) FUA"));
}

/// A unit that is slow holds a block of an arena that has room for a large request in pieces only.
fn crowded(descriptors: u16) -> (World, [RequestId; 2]) {
    let mut world = World::new(WorldSpec {
        arena: 128 << 10,
        max_transfer: 128 << 10,
        descriptors,
        ..spec(2)
    });
    for _ in 0..2 {
        let slow = Injection::Slow(Duration::from_secs(20));
        world.fabric().target_mut().inject(lun(0), slow);
    }
    let held = [world.read(0, 0, 8), world.write(0, 100, 8)];
    run_for(&mut world, Duration::from_millis(2));
    let write = world.write(1, 0, 192);
    run_for(&mut world, Duration::from_secs(1));
    let read = world.read(1, 500, 192);
    finish(&mut world);
    succeeded(&world, &held);
    succeeded(&world, &[write, read]);
    (world, [write, read])
}

#[test]
fn what_no_free_block_holds_goes_in_pieces() {
    let (mut world, ids) = crowded(12);
    for id in ids {
        assert!(ended(&world, id).as_nanos() < 2_000_000_000, "it waited");
    }
    assert_eq!(world.fabric().tally().of("data in several pieces"), 2);
}

#[test]
fn data_is_in_no_more_pieces_than_a_send_slot_describes() {
    // Of 128 blocks of 8 KiB every other one is free: 512 KiB in 64 pieces, of which a slot of 512 bytes holds 27.
    for (send_slot, waits) in [(u32::MAX, false), (512, true)] {
        let mut spec = WorldSpec {
            arena: 1 << 20,
            max_transfer: 1 << 20,
            queue_size: 200,
            descriptors: 255,
            send_slot,
            ..spec(2)
        };
        spec.target.request_limit = 200;
        let mut world = World::new(spec);
        for number in 0..128 {
            let slow = Injection::Slow(Duration::from_secs(20 * (number % 2)));
            world.fabric().target_mut().inject(lun(0), slow);
        }
        let small: Vec<_> = (0..128).map(|n| world.read(0, n * 16, 16)).collect();
        run_for(&mut world, Duration::from_millis(100));
        let large = world.read(1, 0, 1024);
        finish(&mut world);
        succeeded(&world, &small);
        succeeded(&world, &[large]);
        assert_eq!(seconds(ended(&world, large)) >= 20, waits, "{send_slot} bytes");
        assert!(waits || world.fabric().tally().of("data in several pieces") == 1);
    }
}

#[test]
fn where_pieces_are_not_wanted_it_waits() {
    let (mut world, ids) = crowded(1);
    for id in ids {
        assert!(ended(&world, id).as_nanos() > 19_000_000_000, "where was it put?");
    }
    assert_eq!(world.fabric().tally().of("data in several pieces"), 0);
}
