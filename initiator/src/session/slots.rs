//! The send slots of a channel, each with the IU it was given for.
//!
//! A command's tag names its slot and the slot's generation, so a stale tag is told from a live one. A slot is free
//! again only when its SEND has completed *and* the target has answered, or the queue pair has been flushed after it
//! was put in error.

use std::ops::Range;
use std::time::Duration;

use super::channel::Channel;
use super::due::NEVER;
use super::mutation::Mutation;
use super::request::Key;
use crate::fabric::Exposure;
use crate::scsi::Lun;
use crate::time::Instant;

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
    /// Receive slots. All but the last are posted, or will be by the next pass; the last is posted when the channel ends, behind all
    /// others: its flush says that the target's last access is over.
    pub receives: u16,
}

impl SlotPlan {
    /// Send work requests that may be outstanding at once: one per slot, and with windows two more per command.
    #[must_use]
    pub fn send_work(&self, exposure: Exposure) -> u32 {
        let windows = match exposure {
            Exposure::Pool => 0,
            Exposure::Window => 2 * u32::from(self.commands),
        };
        u32::from(self.sends) + windows
    }

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

    /// Which send slots are for task management.
    pub(super) fn tasks(&self) -> Range<u16> {
        self.commands..self.commands + TASK_SLOTS
    }

    /// Which send slots are for our answers to the target.
    pub(super) fn answers(&self) -> Range<u16> {
        self.commands + TASK_SLOTS..self.sends
    }
}

/// A send slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendSlot {
    /// How often it was taken for something that has a tag.
    generation: u32,
    pub(super) state: Slot,
}

impl SendSlot {
    pub(super) const FREE: Self = Self {
        generation: 0,
        state: Slot::Free,
    };
}

/// What a send slot is doing.
// Laid out as written, the kind in a byte of its own: it is asked for several times a command.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    /// A command, from being claimed until all of its completions are in: SEND, answer, and the closing of its window.
    Command {
        sending: bool,
        answered: bool,
        window: Window,
        request: Key,
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

/// The memory window of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// The target reaches nothing through it: it has none, or it is closed.
    Closed,
    /// It was opened with the command.
    Open,
    /// Its closing is posted.
    Closing,
}

/// What a task management function is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The command with this tag.
    Command(u64),
    /// All commands of a logical unit that were sent before it.
    Unit(Lun),
}

/// A command's or function's tag.
#[inline]
fn tag(generation: u32, slot: u16) -> u64 {
    u64::from(generation) << 16 | u64::from(slot)
}

impl Channel {
    /// Whether there is a credit beyond the one for task management.
    fn has_credit(&self) -> bool {
        self.credits > i64::from(!self.mutated.is(Mutation::LastCreditUsed))
    }

    /// Whether a command can be started: a slot and a credit, of a channel that takes commands.
    pub(super) fn has_room(&self) -> bool {
        self.serving && self.has_credit() && !self.free_commands.is_empty()
    }

    /// The same of a channel in service, counting that credit was short.
    #[inline(always)]
    pub(super) fn can_start(&mut self) -> bool {
        if !self.has_credit() {
            self.zero_credit += 1;
            return false;
        }
        !self.free_commands.is_empty()
    }

    /// Takes a slot and a credit for a command, and makes its tag. Only after [`Channel::can_start`]. The command is
    /// to be posted or held at once.
    #[inline(always)]
    pub(super) fn claim(&mut self) -> Option<(u16, u64)> {
        let slot = self.free_commands.pop()?;
        self.credits -= 1;
        self.starved = None;
        let place = &mut self.slots[usize::from(slot)];
        place.generation = place.generation.wrapping_add(1);
        Some((slot, tag(place.generation, slot)))
    }

    /// The command in a claimed slot waits for its data.
    #[inline(always)]
    pub(super) fn hold(&mut self, slot: u16, request: Key) {
        self.unsent += 1;
        self.slots[usize::from(slot)].state = Slot::Command {
            request,
            sending: false,
            answered: false,
            window: Window::Closed,
            place: 0,
            // Nothing is overdue before it is sent.
            deadline: NEVER,
        };
    }

    /// A command does not wait for its data any more; whether it may be sent: the target may have taken credit back
    /// since the claim.
    #[inline(always)]
    pub(super) fn unhold(&mut self) -> bool {
        let may = self.credits + i64::from(self.unsent) > 1 || self.mutated.is(Mutation::CreditNotChecked);
        self.unsent -= 1;
        may
    }

    /// The command in a claimed slot goes to the target; whether it is the first of its channel to be overdue.
    #[inline(always)]
    pub(super) fn posted(&mut self, slot: u16, request: Key, window: Window, deadline: Instant) -> bool {
        self.posted += 1;
        self.sends_posted += 1;
        self.slots[usize::from(slot)].state = Slot::Command {
            request,
            sending: true,
            answered: false,
            window,
            place: self.posted,
            deadline,
        };
        let first = deadline < self.next_check;
        if first {
            self.next_check = deadline;
        }
        first
    }

    /// What a slot is doing.
    #[inline]
    pub(super) fn state(&mut self, slot: u16) -> Option<&mut Slot> {
        Some(&mut self.slots.get_mut(usize::from(slot))?.state)
    }

    /// Gives back a claimed slot whose command was never posted.
    pub(super) fn unclaim(&mut self, slot: u16) {
        self.credits += 1;
        self.free_command(slot);
    }

    /// The tag of the command or function in a slot.
    pub(super) fn tag(&self, slot: u16) -> u64 {
        tag(self.slots[usize::from(slot)].generation, slot)
    }

    /// Commands that took a slot and have not ended.
    #[inline]
    pub(super) fn commands_out(&self) -> u32 {
        u32::from(self.plan.commands) - u32::try_from(self.free_commands.len()).unwrap_or(0)
    }

    /// Whether something ends with the completion of what we posted and not with what the target says.
    pub(super) fn waits_for_sends(&self) -> bool {
        let answered = |slot: &SendSlot| matches!(slot.state, Slot::Command { answered: true, .. });
        debug_assert_eq!(
            self.has_answered_command(),
            self.slots.iter().any(answered),
            "a slot that is in use was not looked at"
        );
        self.sends_posted > 0 && (self.closing.is_some() || self.has_answered_command() || self.has_sending_function())
    }

    /// Slots are taken from the top of a stack, so the few that are in use are among the first.
    fn has_answered_command(&self) -> bool {
        let mut left = self.commands_out();
        let mut slots = self.slots[..usize::from(self.plan.commands)].iter();
        while left > 0
            && let Some(slot) = slots.next()
        {
            match slot.state {
                Slot::Free => {}
                Slot::Command { answered: true, .. } => return true,
                _ => left -= 1,
            }
        }
        false
    }

    /// Functions, answers to the target and a logout end so, or do as soon as they are answered.
    fn has_sending_function(&self) -> bool {
        let waits = |slot: &SendSlot| {
            matches!(
                slot.state,
                Slot::Task {
                    sending: true,
                    answered: true,
                    ..
                } | Slot::Answer
                    | Slot::Logout
            )
        };
        self.slots[usize::from(self.plan.commands)..].iter().any(waits)
    }

    /// The slot of an unanswered command or function with this tag.
    pub(super) fn slot_of_tag(&mut self, tag: u64) -> Option<u16> {
        Some(self.unanswered(tag)?.0)
    }

    /// The same, and what the slot is doing.
    #[inline(always)]
    pub(super) fn unanswered(&mut self, tag: u64) -> Option<(u16, &mut Slot)> {
        let slot = (tag & 0xffff) as u16;
        let SendSlot { generation, state } = self.slots.get_mut(usize::from(slot))?;
        let fresh = u64::from(*generation) == tag >> 16;
        if !fresh && !self.mutated.is(Mutation::StaleTagAccepted) {
            return None;
        }
        let live = matches!(
            state,
            Slot::Command { answered: false, .. } | Slot::Task { answered: false, .. }
        );
        live.then_some((slot, state))
    }

    #[inline(always)]
    pub(super) fn free_command(&mut self, slot: u16) {
        self.slots[usize::from(slot)].state = Slot::Free;
        self.free_commands.push(slot);
        if self.free_commands.len() == usize::from(self.plan.commands) {
            self.next_check = NEVER;
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
        let place = &mut self.slots[usize::from(slot)];
        place.generation = place.generation.wrapping_add(1);
        place.state = Slot::Task {
            sending: true,
            answered: false,
            place: self.posted,
            of,
        };
        Some(slot)
    }

    pub(super) fn free_task(&mut self, slot: u16) {
        self.slots[usize::from(slot)].state = Slot::Free;
        self.free_tasks.push(slot);
    }

    pub(super) fn claim_answer(&mut self) -> Option<u16> {
        let slot = self.free_answers.pop()?;
        self.slots[usize::from(slot)].state = Slot::Answer;
        Some(slot)
    }

    pub(super) fn free_answer(&mut self, slot: u16) {
        self.slots[usize::from(slot)].state = Slot::Free;
        self.free_answers.push(slot);
    }

    /// The unanswered command that is overdue for longest, and its deadline; sets the time of the next look.
    pub(super) fn overdue(&mut self, now: Instant, task: Duration) -> Option<(u16, Instant)> {
        if self.next_check > now {
            return None;
        }
        let mut first: Option<(u16, Instant)> = None;
        for (number, slot) in (0u16..).zip(&self.slots[..usize::from(self.plan.commands)]) {
            if let Slot::Command {
                answered: false,
                deadline,
                ..
            } = slot.state
                && first.is_none_or(|(_, earliest)| deadline < earliest)
            {
                first = Some((number, deadline));
            }
        }
        self.next_check = first.map_or(NEVER, |(_, deadline)| deadline).min(self.incomplete(task));
        first.filter(|(_, deadline)| *deadline <= now)
    }

    /// The commands that are not answered, by their requests, and their deadlines.
    pub(super) fn awaited(&self) -> impl Iterator<Item = (Key, Instant)> {
        let commands = self.slots[..usize::from(self.plan.commands)].iter();
        commands.filter_map(|slot| match slot.state {
            Slot::Command {
                request,
                answered: false,
                deadline,
                ..
            } => Some((request, deadline)),
            _ => None,
        })
    }

    /// The first deadline of an unanswered command that is later than this.
    pub(super) fn next_limit(&self, than: Instant) -> Instant {
        let later = self.awaited().filter(|(_, deadline)| *deadline > than);
        later.map(|(_, deadline)| deadline).min().unwrap_or(NEVER)
    }

    /// Commands of the chosen requests that the target has are overdue as of now.
    pub(super) fn hurry(&mut self, chosen: impl Fn(Key) -> bool, now: Instant) {
        for slot in &mut self.slots[..usize::from(self.plan.commands)] {
            if let Slot::Command {
                request,
                place: 1..,
                deadline,
                ..
            } = &mut slot.state
                && chosen(*request)
            {
                *deadline = now.min(*deadline);
                self.next_check = self.next_check.min(now);
            }
        }
    }

    /// By when all completions of the commands that were answered must be in: their SENDs, the closing of their windows.
    /// Nothing else ends them; each has the time that task management would take besides its own.
    pub(super) fn incomplete(&self, task: Duration) -> Instant {
        if self.mutated.is(Mutation::AnsweredForEver) {
            return NEVER;
        }
        let commands = self.slots[..usize::from(self.plan.commands)].iter();
        let limits = commands.filter_map(|slot| match slot.state {
            Slot::Command {
                answered: true,
                deadline,
                ..
            } => Some(deadline + task + task),
            _ => None,
        });
        limits.min().unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(SlotPlan::new(128, 62).send_work(Exposure::Pool), 68);
        assert_eq!(SlotPlan::new(128, 62).send_work(Exposure::Window), 68 + 124);
        assert_eq!(SlotPlan::new(16, 62).commands, 15);
        assert_eq!(SlotPlan::new(2, 62).commands, 1);
        assert_eq!(SlotPlan::new(i32::MAX, u16::MAX).commands, 4096);
    }
}
