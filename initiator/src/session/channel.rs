//! One channel of a session: its credits, its slots, and what of ours the target may still touch.

use std::collections::VecDeque;

pub use srp_addressing::Fence;

use super::buffer::ArenaSpace;
use super::due::NEVER;
use super::login::Granted;
use super::mutation::{Mutated, Mutation};
use super::request::SessionKey;
use super::slots::{SendSlot, SlotPlan};
use super::start::Transfer;
use super::task::Ladder;
use crate::fabric::{Exposure, QueuePairId, RegionId, WorkError};
use crate::time::Instant;
use crate::wire::WireError;
use crate::wire::command::Command;

/// A logged-in queue pair, as handed to the engine.
#[derive(Clone, Debug)]
pub struct ChannelSetup {
    /// The queue pair; its slots number as `plan` says, none posted.
    pub qp: QueuePairId,
    /// The session it belongs to.
    pub session: SessionKey,
    /// What the login granted.
    pub granted: Granted,
    /// The slots.
    pub plan: SlotPlan,
    /// The arena targets write to, and its length.
    pub read_arena: (RegionId, u32),
    /// The arena targets read from, and its length.
    pub write_arena: (RegionId, u32),
    /// How targets reach them.
    pub exposure: Exposure,
    /// The longest data buffer of one command.
    pub max_transfer: u32,
    /// How many pieces of an arena a command's data may be in, as far as its IU and its send slot have room
    /// (`cmd_sg_entries`). 1 where the caller takes an extent for contiguous.
    pub descriptors: u16,
    /// Whether logical units may be reset: before a write of unknown fate is sent again, and when they do not answer.
    pub fence: Fence,
}

impl ChannelSetup {
    /// A command's IU is no longer than the target takes, nor than its slot. A window is open on one piece.
    fn pieces(&self, send_slot: usize) -> usize {
        let longest = send_slot.min(self.granted.max_it_iu_len as usize);
        let room = longest.saturating_sub(Command::INDIRECT_LEN) / Command::DESCRIPTOR_LEN;
        match self.exposure {
            Exposure::Pool => room.min(self.descriptors.into()),
            Exposure::Window => 1,
        }
    }
}

/// Why a channel went down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// A work request failed.
    #[error("connection lost: {0}")]
    Work(#[from] WorkError),
    /// The target sent something unreadable.
    #[error("protocol error by the target: {0}")]
    Wire(#[from] WireError),
    /// The target sent something out of place.
    #[error("protocol error by the target: {0}")]
    Protocol(&'static str),
    /// A command was not answered in time.
    #[error("a command was not answered within {0} s, nor could it be ended")]
    Timeout(u64),
    /// The SEND of a command, or the closing of its window, does not complete though the target has answered.
    #[error("a command was answered, and its work requests did not complete within {0} s")]
    Incomplete(u64),
    /// SRP_T_LOGOUT.
    #[error("the target logged out: {0}")]
    TargetLogout(String),
    /// The control side closed it, or was told of a disconnect.
    #[error("closed")]
    Closed,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) qp: QueuePairId,
    pub(super) session: SessionKey,
    /// Index into the engine's sessions.
    pub(super) session_index: usize,
    pub(super) credits: i64,
    /// Commands that took their credit but are not sent yet: the caller is copying their data in.
    pub(super) unsent: u32,
    pub(super) plan: SlotPlan,
    pub(super) slots: Vec<SendSlot>,
    pub(super) free_commands: Vec<u16>,
    pub(super) free_tasks: Vec<u16>,
    pub(super) free_answers: Vec<u16>,
    /// Answers owed to the target, waiting for a slot: encoded opcode and tag.
    pub(super) owed_answers: VecDeque<(AnswerKind, u64)>,
    /// SENDs, and closings of windows. Openings come back with the SEND behind them.
    pub(super) sends_posted: u32,
    /// Commands and functions posted so far.
    pub(super) posted: u64,
    pub(super) receives_posted: u32,
    pub(super) read_space: ArenaSpace,
    pub(super) write_space: ArenaSpace,
    /// Commands that ended with data the caller is copying out.
    pub(super) returned: u32,
    /// No command is overdue before this.
    pub(super) next_check: Instant,
    pub(super) max_it_iu_len: u32,
    pub(super) immediate_data: u32,
    pub(super) exposure: Exposure,
    pub(super) max_transfer: u32,
    /// How many pieces a command's data may be in.
    pub(super) pieces: usize,
    /// Commands whose data was in several.
    pub(super) in_pieces: u64,
    /// It takes commands: until it ends, or an SRP_I_LOGOUT was sent over it.
    pub(super) serving: bool,
    pub(super) closing: Option<ChannelError>,
    /// SRP_I_LOGOUT was sent, or another channel took its place; it ends then at the latest.
    pub(super) leaving: Option<Instant>,
    /// The marker came back flushed.
    pub(super) flushed: bool,
    /// Its queue pair was destroyed, and its memory may be gone.
    pub(super) destroyed: bool,
    /// By when the target has to give credit.
    pub(super) starved: Option<Instant>,
    /// Times a command met no credit.
    pub(super) zero_credit: u64,
    pub(super) fence: Fence,
    /// What is being done about an overdue command.
    pub(super) ladder: Option<Ladder>,
    /// Functions sent: ABORT TASK, LOGICAL UNIT RESET.
    pub(super) aborts: u64,
    pub(super) resets: u64,
    pub(super) mutated: Mutated,
}

/// Which answer the target is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    Credit,
    AsyncEvent,
}

impl Channel {
    /// With send slots of so many bytes.
    pub(super) fn new(setup: &ChannelSetup, send_slot: usize, session_index: usize, mutated: Mutated) -> Self {
        let plan = setup.plan;
        Self {
            qp: setup.qp,
            session: setup.session,
            session_index,
            credits: i64::from(setup.granted.request_limit),
            unsent: 0,
            plan,
            slots: vec![SendSlot::FREE; usize::from(plan.sends)],
            free_commands: (0..plan.commands).rev().collect(),
            owed_answers: VecDeque::with_capacity(plan.answers().len()),
            free_tasks: plan.tasks().collect(),
            free_answers: plan.answers().collect(),
            sends_posted: 0,
            posted: 0,
            receives_posted: 0,
            read_space: ArenaSpace::new(setup.read_arena.0, setup.read_arena.1, setup.max_transfer),
            write_space: ArenaSpace::new(setup.write_arena.0, setup.write_arena.1, setup.max_transfer),
            returned: 0,
            next_check: NEVER,
            max_it_iu_len: setup.granted.max_it_iu_len,
            immediate_data: setup.granted.immediate_data,
            exposure: setup.exposure,
            max_transfer: setup.max_transfer,
            pieces: setup.pieces(send_slot),
            in_pieces: 0,
            serving: true,
            closing: None,
            leaving: None,
            flushed: false,
            destroyed: false,
            starved: None,
            zero_credit: 0,
            fence: setup.fence,
            ladder: None,
            aborts: 0,
            resets: 0,
            mutated,
        }
    }

    /// The arena that data goes through.
    #[inline(always)]
    pub(super) fn space(&mut self, transfer: Transfer) -> Option<&mut ArenaSpace> {
        match transfer {
            Transfer::None => None,
            Transfer::ToInitiator(_) => Some(&mut self.read_space),
            Transfer::ToTarget(_) => Some(&mut self.write_space),
        }
    }

    /// Whether a logical unit may be reset over it.
    pub(super) fn may_reset(&self) -> bool {
        self.fence == Fence::LunReset || self.mutated.is(Mutation::SharedReset)
    }

    /// Whether what it is sent still gets to the target.
    pub(super) fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// The slot of the marker: posted when the channel ends.
    pub(super) fn marker(&self) -> u16 {
        self.plan.receives - 1
    }

    /// Nothing of ours can be touched by the target any more (the DMA rule): the marker was flushed and all work
    /// requests have come back, or there is no queue pair any more.
    pub(super) fn is_quiet(&self) -> bool {
        let proven = self.flushed || self.mutated.is(Mutation::NoMarker);
        let sends = self.sends_posted == 0 || self.mutated.is(Mutation::SendsNotAwaited);
        self.closing.is_some() && proven && sends && self.receives_posted == 0
    }

    /// The queue pair was destroyed: no completion will come.
    pub(super) fn destroyed(&mut self) {
        self.flushed = true;
        self.destroyed = true;
        self.sends_posted = 0;
        self.receives_posted = 0;
    }

    /// Notes that a command waits for credit that nothing under way can bring.
    pub(super) fn starve(&mut self, limit: Instant) {
        if self.credits <= 1 && self.commands_out() == 0 && self.starved.is_none() {
            self.starved = Some(limit);
        }
    }

    /// The target has given no credit for as long as it may take.
    pub(super) fn is_starved(&self, now: Instant) -> bool {
        self.credits <= 1 && self.starved.is_some_and(|limit| limit <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::slots::Window;

    fn channel(limit: i32) -> Channel {
        let granted = Granted {
            request_limit: limit,
            max_it_iu_len: 276,
            max_ti_iu_len: 256,
            immediate_data: 0,
        };
        Channel::new(
            &ChannelSetup {
                qp: QueuePairId(1),
                session: SessionKey(1),
                granted,
                plan: SlotPlan::new(limit, 62),
                read_arena: (RegionId(0), 1 << 20),
                write_arena: (RegionId(1), 1 << 20),
                exposure: Exposure::Pool,
                max_transfer: 1 << 20,
                descriptors: 12,
                fence: Fence::LunReset,
            },
            276,
            0,
            Mutated::default(),
        )
    }

    #[test]
    fn the_last_credit_is_kept() {
        let mut channel = channel(3);
        for _ in 0..2 {
            assert!(channel.can_start());
            channel.claim().expect("slot");
        }
        assert!(!channel.can_start());
        assert_eq!((channel.credits, channel.zero_credit), (1, 1));
    }

    #[test]
    fn a_tag_of_an_earlier_use_of_the_slot_is_stale() {
        let mut channel = channel(2);
        let posted = |channel: &mut Channel, request| {
            let (slot, tag) = channel.claim().expect("slot");
            channel.posted(slot, request, Window::Closed, NEVER);
            (slot, tag)
        };
        let (slot, old) = posted(&mut channel, 7);
        assert_eq!(channel.slot_of_tag(old), Some(slot));
        channel.free_command(slot);
        assert_eq!(channel.slot_of_tag(old), None);
        assert_eq!(posted(&mut channel, 8).0, slot);
        assert_eq!(channel.slot_of_tag(old), None);
        assert_eq!(channel.slot_of_tag(channel.tag(slot)), Some(slot));
        assert_eq!(channel.slot_of_tag(u64::MAX), None);
    }
}
