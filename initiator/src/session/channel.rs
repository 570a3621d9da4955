//! One channel of a session: its credits, its slots, and what of ours the target may still touch.
//!
//! A command's tag names its send slot and the slot's generation, so a stale tag is told from a live one. A
//! slot is free again only when its SEND has completed *and* the target has answered, or the queue pair has
//! been flushed after it was put in error.

use std::collections::VecDeque;

use super::buffer::ArenaSpace;
use super::login::Granted;
use super::mutation::{Mutated, Mutation};
use super::request::{Key, SessionKey};
use super::task::Ladder;
use crate::fabric::{QueuePairId, RegionId, WorkError};
use crate::scsi::Lun;
use crate::time::Instant;
use crate::wire::WireError;

/// Send slots for task management: LOGICAL UNIT RESET follows an ABORT TASK that is not answered.
const TASK_SLOTS: u16 = 2;
/// Send slots for our answers to the target's requests.
const ANSWER_SLOTS: u16 = 4;
/// Receive slots beyond one per request: the target's own requests.
const EXTRA_RECEIVES: u16 = 4;

/// How many IU slots a channel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlan {
    /// Commands at once.
    pub commands: u16,
    /// Send slots: commands, task management, answers.
    pub sends: u16,
    /// Receive slots. All but the last are always posted; the last is posted when the channel ends, behind all
    /// others: its flush says that the target's last access is over.
    pub receives: u16,
}

impl SlotPlan {
    /// For a request limit as granted and `queue_size` commands wished for. One credit is kept for task
    /// management.
    #[must_use]
    pub fn new(request_limit: i32, queue_size: u16) -> Self {
        let most = u16::try_from(request_limit - 1).unwrap_or(if request_limit < 2 { 1 } else { u16::MAX });
        let commands = queue_size.min(most).clamp(1, 4096);
        Self {
            commands,
            sends: commands + TASK_SLOTS + ANSWER_SLOTS,
            receives: commands + TASK_SLOTS + EXTRA_RECEIVES + 1,
        }
    }
}

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
    /// The longest data buffer of one command.
    pub max_transfer: u32,
    /// A logical unit that does not answer may be reset; to be switched off where it is shared, as a reset ends
    /// everybody's commands.
    pub lun_reset: bool,
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
    /// SRP_T_LOGOUT.
    #[error("the target logged out: {0}")]
    TargetLogout(String),
    /// The control side closed it, or was told of a disconnect.
    #[error("closed")]
    Closed,
}

/// What a send slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    /// A command, from being claimed until both completions are in.
    Command {
        request: Key,
        sending: bool,
        answered: bool,
        /// Its place among what was posted on the channel; 0 while it is not.
        place: u64,
        deadline: Instant,
    },
    /// A task management function, until both completions are in.
    Task {
        sending: bool,
        answered: bool,
        /// Its place among what was posted on the channel.
        place: u64,
        of: Concern,
    },
    /// An answer to the target, until its SEND completes.
    Answer,
    /// SRP_I_LOGOUT, until its SEND completes and the channel ends.
    Logout,
}

/// What a task management function is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The command with this tag.
    Command(u64),
    /// All commands of a logical unit that were sent before it.
    Unit(Lun),
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) qp: QueuePairId,
    pub(super) session: SessionKey,
    /// Index into the engine's sessions.
    pub(super) session_index: usize,
    pub(super) credits: i64,
    /// Commands that took their credit but are not sent yet.
    pub(super) unsent: u32,
    pub(super) plan: SlotPlan,
    pub(super) slots: Vec<Slot>,
    generation: Vec<u32>,
    free_commands: Vec<u16>,
    free_tasks: Vec<u16>,
    free_answers: Vec<u16>,
    /// Answers owed to the target, waiting for a slot: encoded opcode and tag.
    pub(super) owed_answers: VecDeque<(AnswerKind, u64)>,
    pub(super) sends_posted: u32,
    /// Commands and functions posted so far.
    pub(super) posted: u64,
    pub(super) receives_posted: u32,
    pub(super) read_space: ArenaSpace,
    pub(super) write_space: ArenaSpace,
    /// Extents the caller is copying from or to.
    pub(super) extents_lent: u32,
    pub(super) commands_out: u32,
    /// No command is overdue before this.
    pub(super) next_check: Option<Instant>,
    pub(super) max_it_iu_len: u32,
    pub(super) immediate_data: u32,
    pub(super) max_transfer: u32,
    pub(super) closing: Option<ChannelError>,
    /// SRP_I_LOGOUT was sent; the channel ends then at the latest.
    pub(super) leaving: Option<Instant>,
    /// The marker came back flushed.
    pub(super) flushed: bool,
    /// By when the target has to give credit.
    pub(super) starved: Option<Instant>,
    /// Times a command met no credit.
    pub(super) zero_credit: u64,
    pub(super) lun_reset: bool,
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
    pub(super) fn new(setup: &ChannelSetup, session_index: usize, mutated: Mutated) -> Self {
        let plan = setup.plan;
        let tasks = plan.commands..plan.commands + TASK_SLOTS;
        let answers = tasks.end..plan.sends;
        Self {
            qp: setup.qp,
            session: setup.session,
            session_index,
            credits: i64::from(setup.granted.request_limit),
            unsent: 0,
            plan,
            slots: vec![Slot::Free; usize::from(plan.sends)],
            generation: vec![0; usize::from(plan.sends)],
            free_commands: (0..plan.commands).rev().collect(),
            owed_answers: VecDeque::with_capacity(answers.len()),
            free_tasks: tasks.collect(),
            free_answers: answers.collect(),
            sends_posted: 0,
            posted: 0,
            receives_posted: 0,
            read_space: ArenaSpace::new(setup.read_arena.0, setup.read_arena.1, setup.max_transfer),
            write_space: ArenaSpace::new(setup.write_arena.0, setup.write_arena.1, setup.max_transfer),
            extents_lent: 0,
            commands_out: 0,
            next_check: None,
            max_it_iu_len: setup.granted.max_it_iu_len,
            immediate_data: setup.granted.immediate_data,
            max_transfer: setup.max_transfer,
            closing: None,
            leaving: None,
            flushed: false,
            starved: None,
            zero_credit: 0,
            lun_reset: setup.lun_reset,
            ladder: None,
            aborts: 0,
            resets: 0,
            mutated,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// Whether a command can be started: a slot, and a credit beyond the one for task management.
    pub(super) fn can_start(&mut self) -> bool {
        let kept = i64::from(!self.mutated.is(Mutation::LastCreditUsed));
        if self.credits <= kept {
            self.zero_credit += 1;
            return false;
        }
        !self.free_commands.is_empty()
    }

    /// Takes a slot and a credit for a command. Only after [`Channel::can_start`].
    pub(super) fn claim(&mut self, request: Key, deadline: Instant) -> Option<u16> {
        let slot = self.free_commands.pop()?;
        self.credits -= 1;
        self.starved = None;
        self.unsent += 1;
        self.commands_out += 1;
        let index = usize::from(slot);
        self.generation[index] = self.generation[index].wrapping_add(1);
        self.slots[index] = Slot::Command {
            request,
            sending: false,
            answered: false,
            place: 0,
            deadline,
        };
        Some(slot)
    }

    /// Gives back a claimed slot whose command was never posted.
    pub(super) fn unclaim(&mut self, slot: u16) {
        self.credits += 1;
        self.unsent -= 1;
        self.free_command(slot);
    }

    /// Whether a claimed command may be sent: the target may have taken credit back since the claim.
    pub(super) fn may_send(&self) -> bool {
        self.credits + i64::from(self.unsent) > 1 || self.mutated.is(Mutation::CreditNotChecked)
    }

    /// The slot of the marker: posted when the channel ends.
    pub(super) fn marker(&self) -> u16 {
        self.plan.receives - 1
    }

    /// The tag of the command or function in a slot.
    pub(super) fn tag(&self, slot: u16) -> u64 {
        u64::from(self.generation[usize::from(slot)]) << 16 | u64::from(slot)
    }

    /// Whether something ends with the completion of a SEND and not with what the target says.
    pub(super) fn waits_for_sends(&self) -> bool {
        let waits = |slot: &Slot| {
            matches!(
                slot,
                Slot::Command {
                    sending: true,
                    answered: true,
                    ..
                } | Slot::Task {
                    sending: true,
                    answered: true,
                    ..
                } | Slot::Answer
                    | Slot::Logout
            )
        };
        self.sends_posted > 0 && (self.closing.is_some() || self.slots.iter().any(waits))
    }

    /// The slot of an unanswered command or function with this tag.
    pub(super) fn slot_of_tag(&self, tag: u64) -> Option<u16> {
        let slot = (tag & 0xffff) as u16;
        let live = matches!(
            self.slots.get(usize::from(slot))?,
            Slot::Command { answered: false, .. } | Slot::Task { answered: false, .. }
        );
        let fresh = self.tag(slot) == tag || self.mutated.is(Mutation::StaleTagAccepted);
        (live && fresh).then_some(slot)
    }

    pub(super) fn free_command(&mut self, slot: u16) {
        self.slots[usize::from(slot)] = Slot::Free;
        self.free_commands.push(slot);
        self.commands_out -= 1;
        if self.commands_out == 0 {
            self.next_check = None;
        }
    }

    /// Takes a slot and a credit for a task management function, also the last credit.
    pub(super) fn claim_task(&mut self, of: Concern) -> Option<u16> {
        if self.credits + i64::from(self.unsent) < 1 && !self.mutated.is(Mutation::TaskWithoutCredit) {
            return None;
        }
        let slot = self.free_tasks.pop()?;
        self.credits -= 1;
        self.posted += 1;
        let index = usize::from(slot);
        self.generation[index] = self.generation[index].wrapping_add(1);
        self.slots[index] = Slot::Task {
            sending: true,
            answered: false,
            place: self.posted,
            of,
        };
        Some(slot)
    }

    pub(super) fn free_task(&mut self, slot: u16) {
        self.slots[usize::from(slot)] = Slot::Free;
        self.free_tasks.push(slot);
    }

    pub(super) fn claim_answer(&mut self) -> Option<u16> {
        let slot = self.free_answers.pop()?;
        self.slots[usize::from(slot)] = Slot::Answer;
        Some(slot)
    }

    pub(super) fn free_answer(&mut self, slot: u16) {
        self.slots[usize::from(slot)] = Slot::Free;
        self.free_answers.push(slot);
    }

    /// Notes when a posted command is overdue.
    pub(super) fn watch(&mut self, deadline: Instant) {
        self.next_check = Some(self.next_check.map_or(deadline, |at| at.min(deadline)));
    }

    /// The unanswered command that is overdue for longest, and its deadline; sets the time of the next look.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(u16, Instant)> {
        if self.next_check.is_none_or(|at| at > now) {
            return None;
        }
        let mut first: Option<(u16, Instant)> = None;
        for (number, slot) in (0u16..).zip(&self.slots[..usize::from(self.plan.commands)]) {
            if let Slot::Command {
                answered: false,
                deadline,
                ..
            } = *slot
                && first.is_none_or(|(_, earliest)| deadline < earliest)
            {
                first = Some((number, deadline));
            }
        }
        self.next_check = first.map(|(_, deadline)| deadline);
        first.filter(|(_, deadline)| *deadline <= now)
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
        self.sends_posted = 0;
        self.receives_posted = 0;
    }

    /// Notes that a command waits for credit that nothing under way can bring.
    pub(super) fn starve(&mut self, limit: Instant) {
        if self.credits <= 1 && self.commands_out == 0 && self.starved.is_none() {
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
                max_transfer: 1 << 20,
                lun_reset: true,
            },
            0,
            Mutated::default(),
        )
    }

    #[test]
    fn slots_follow_the_grant_and_the_wish() {
        assert_eq!(
            SlotPlan::new(128, 62),
            SlotPlan {
                commands: 62,
                sends: 68,
                receives: 69
            }
        );
        assert_eq!(SlotPlan::new(16, 62).commands, 15);
        assert_eq!(SlotPlan::new(2, 62).commands, 1);
        assert_eq!(SlotPlan::new(i32::MAX, u16::MAX).commands, 4096);
    }

    #[test]
    fn the_last_credit_is_kept() {
        let mut channel = channel(3);
        let at = Instant::from_nanos(9);
        for request in 0..2 {
            assert!(channel.can_start());
            channel.claim(request, at).expect("slot");
        }
        assert!(!channel.can_start());
        assert_eq!((channel.credits, channel.zero_credit), (1, 1));
    }

    #[test]
    fn a_tag_of_an_earlier_use_of_the_slot_is_stale() {
        let mut channel = channel(2);
        let slot = channel.claim(7, Instant::default()).expect("slot");
        let old = channel.tag(slot);
        assert_eq!(channel.slot_of_tag(old), Some(slot));
        channel.unclaim(slot);
        assert_eq!(channel.slot_of_tag(old), None);
        assert_eq!(channel.claim(8, Instant::default()), Some(slot));
        assert_eq!(channel.slot_of_tag(old), None);
        assert_eq!(channel.slot_of_tag(channel.tag(slot)), Some(slot));
        assert_eq!(channel.slot_of_tag(u64::MAX), None);
    }
}
