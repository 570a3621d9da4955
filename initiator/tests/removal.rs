//! What is left of a session that was removed has nothing to do with one that comes after it, and what is retired ends.

mod bare;

use std::time::Duration;

use srp_initiator::fabric::{Exposure, QueuePairId, RegionId};
use srp_initiator::scsi::{BlockError, Cdb, Lun};
use srp_initiator::session::{
    ChannelError, ChannelSetup, ControlRequest, DiskSetup, Engine, Event, Fence, Granted, Limits, LunKey, RequestId,
    SessionKey, SlotPlan,
};
use srp_initiator::time::Instant;

fn channel(qp: QueuePairId, session: SessionKey) -> ChannelSetup {
    ChannelSetup {
        qp,
        session,
        granted: Granted {
            request_limit: 64,
            max_it_iu_len: 256,
            max_ti_iu_len: 256,
            immediate_data: 0,
        },
        plan: SlotPlan::new(64, 62),
        read_arena: (RegionId(0), 4 << 20),
        write_arena: (RegionId(1), 4 << 20),
        exposure: Exposure::Pool,
        max_transfer: 1 << 20,
        descriptors: 12,
        fence: Fence::LunReset,
    }
}

#[test]
fn a_new_disk_does_not_inherit_a_command_of_the_control_side() {
    let (qp, old, now) = (QueuePairId(1), SessionKey(1), Instant::from_nanos(1));
    let mut engine = Engine::new(bare::fabric(), Limits::default());
    engine.add_channel(&channel(qp, old));
    engine.submit_control(
        ControlRequest {
            id: RequestId(7),
            session: old,
            lun: Lun::from_index(0),
            cdb: Cdb::test_unit_ready(),
            data_in: 0,
            timeout: Duration::from_secs(5),
        },
        now,
    );
    engine.pump(now);
    assert_eq!(engine.in_flight(), 1);
    let disk = |number| DiskSetup {
        key: LunKey(number),
        session: SessionKey(2),
        lun: Lun::from_index(number),
        block_size: 512,
        blocks: 1 << 20,
    };
    engine.add_disk(&disk(0));
    // It is still with the target when its session is forgotten.
    engine.close_channel(qp, ChannelError::Closed, now);
    engine.remove_session(old);
    engine.add_disk(&disk(1));
    let state = engine.disk_state(LunKey(1)).expect("known");
    assert_eq!(state.commands, 0);
    engine.destroyed(qp, now);
    let mut ended = Vec::new();
    while let Some(event) = engine.next_event() {
        if let Event::Reply { id, result } = event {
            ended.push((id, result));
        }
    }
    assert_eq!(ended, [(RequestId(7), Err(BlockError::Transport))]);
    assert_eq!(engine.requests(), 0);
}

#[test]
fn a_channel_that_is_retired_ends_though_nothing_is_asked_for() {
    let (qp, now) = (QueuePairId(1), Instant::from_nanos(1));
    let mut engine = Engine::new(bare::fabric(), Limits::default());
    engine.add_channel(&channel(qp, SessionKey(1)));
    engine.pump(now);
    assert_eq!(engine.deadline(), None);
    engine.retire(qp, now);
    let limit = now + Limits::default().retirement;
    assert_eq!(engine.deadline(), Some(limit), "whoever drives it has to come back");
    engine.pump(limit);
    let failed = |event| matches!(event, Event::ChannelFailed { qp: other, .. } if other == qp);
    assert!(engine.next_event().is_some_and(failed));
}
