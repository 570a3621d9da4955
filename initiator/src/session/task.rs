//! Task management: what is done about a command that is not answered in time.
//!
//! The ladder has three rungs: ABORT TASK on the command's own channel, LOGICAL UNIT RESET, the channel's end. Only
//! the response "complete" says that the target is done with a command's memory and with the medium (SRP r16a 6.9,
//! SAM-5 7); without it the next rung follows. A channel is on one ladder at a time, that of the command overdue for
//! longest, and a rung ends at a fixed time after that command's limit: however many commands are overdue, none of
//! them is out for longer than [`Limits::command`](super::Limits::command) and twice
//! [`Limits::task`](super::Limits::task), and [`Limits::successor`](super::Limits::successor) more.
//!
//! Targets wait for the medium before they answer a function: LIO answers neither while a unit's backend is stuck, and
//! all other units are well. So a channel ends only when another one has had the time to take its place.

use std::time::Duration;

use super::channel::{Channel, ChannelError};
use super::due::NEVER;
use super::engine::Engine;
use super::event::Event;
use super::mutation::Mutation;
use super::request::{Answer, Key, Purpose};
use super::slots::{Concern, Slot, Window};
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun};
use crate::time::Instant;
use crate::wire::{TaskFunction, TaskManagement, TaskResponse};

/// The tag of a function that is not about one command.
const NO_TASK: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Abort,
    Reset,
    /// Nothing more is tried: the channel waits for its successor.
    Successor,
}

/// What is being done about an overdue command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    slot: u16,
    tag: u64,
    lun: Lun,
    rung: Rung,
    /// When the command became overdue.
    deadline: Instant,
    /// When the next rung follows.
    pub(super) limit: Instant,
    /// Who asked for a command whose limit was over by then knows it.
    pub(super) told: Instant,
    /// The tag of this rung's function, once it is sent.
    function: Option<u64>,
}

impl Channel {
    /// The rung a command of this deadline is on, and that rung's end; none: the functions have had their time.
    fn rung(&self, deadline: Instant, now: Instant, limit: Duration) -> Option<(Rung, Instant)> {
        let (abort, reset) = (deadline + limit, deadline + limit + limit);
        if now < abort {
            Some((Rung::Abort, abort))
        } else if self.may_reset() && now < reset {
            Some((Rung::Reset, reset))
        } else {
            None
        }
    }

    /// When the functions about a command of this deadline have had their time.
    fn functions_end(&self, deadline: Instant, limit: Duration) -> Instant {
        match self.may_reset() {
            true => deadline + limit + limit,
            false => deadline + limit,
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// Acts on commands that are overdue.
    pub(super) fn climb(&mut self, index: usize, now: Instant) {
        let task = self.limits.task;
        while let Some(channel) = self.channels[index].as_mut().filter(|channel| channel.is_open()) {
            if channel.next_check <= now && channel.incomplete(task) <= now {
                let limit = self.limits.command + task + task;
                return self.close(index, ChannelError::Incomplete(limit.as_secs()), now);
            }
            let Some(ladder) = channel.ladder else {
                let Some((slot, deadline)) = channel.overdue(now, task) else {
                    return;
                };
                match self.mutated_overdue(index, slot, now) {
                    Some(true) => continue,
                    Some(false) => return,
                    None => {}
                }
                self.begin(index, slot, deadline, now);
                continue;
            };
            if channel.slot_of_tag(ladder.tag) != Some(ladder.slot) {
                // It was answered meanwhile.
                channel.ladder = None;
            } else if channel.next_limit(ladder.told) <= now {
                self.tell_overdue(index, now);
            } else if ladder.limit <= now && !self.mutated.is(Mutation::NoEscalation) {
                self.next_rung(index, ladder, now);
            } else if ladder.function.is_none() && ladder.rung != Rung::Successor {
                return self.send_function(index);
            } else {
                return;
            }
        }
    }

    /// Deliberate defects; whether the ladder is looked at again.
    fn mutated_overdue(&mut self, index: usize, slot: u16, now: Instant) -> Option<bool> {
        if self.mutated.is(Mutation::NoTimeout) {
            let channel = self.channels[index].as_mut()?;
            channel.next_check = NEVER;
            return Some(false);
        }
        self.mutated.is(Mutation::TimeoutEnds).then(|| {
            self.ended_by_target(index, slot, now);
            true
        })
    }

    /// Steps on the ladder for an overdue command.
    fn begin(&mut self, index: usize, slot: u16, deadline: Instant, now: Instant) {
        let limit = self.limits.task;
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let Slot::Command { request, .. } = channel.slots[usize::from(slot)].state else {
            return;
        };
        let tag = channel.tag(slot);
        let rung = channel.rung(deadline, now, limit);
        let lun = self.lun_of(request);
        let Some((rung, limit)) = rung else {
            let ladder = Ladder {
                slot,
                tag,
                lun,
                rung: Rung::Reset,
                deadline,
                limit: now,
                told: Instant::default(),
                function: None,
            };
            return self.time_out(index, ladder, now);
        };
        tracing::warn!(tag, ?lun, ?rung, "a command is overdue");
        if let Some(channel) = &mut self.channels[index] {
            channel.ladder = Some(Ladder {
                slot,
                tag,
                lun,
                rung,
                deadline,
                limit,
                told: Instant::default(),
                function: None,
            });
        }
    }

    /// Whoever asked for a control command waits for it no longer than it said, whichever command the ladder is about; the
    /// command stays with the target.
    fn tell_overdue(&mut self, index: usize, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if let Some(ladder) = &mut channel.ladder {
            ladder.told = now;
        }
        for (key, _) in channel.awaited().filter(|(_, deadline)| *deadline <= now) {
            let Some(request) = self.requests.get_mut(key) else {
                continue;
            };
            if let (Purpose::Control(control), false) = (&request.purpose, request.told) {
                request.told = true;
                let (id, result) = (control.request.id, Err(BlockError::Timeout));
                self.events.push(Event::Reply { id, result });
            }
        }
    }

    fn next_rung(&mut self, index: usize, ladder: Ladder, now: Instant) {
        let limit = self.limits.task;
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let reset = ladder.deadline + limit + limit;
        if ladder.rung != Rung::Abort || !channel.may_reset() || reset <= now {
            return self.time_out(index, ladder, now);
        }
        channel.ladder = Some(Ladder {
            rung: Rung::Reset,
            limit: reset,
            function: None,
            ..ladder
        });
    }

    /// The command of a ladder can neither be had answered nor ended: its channel is given up. It waits for its successor, as
    /// far as there is time: to what else is under way on it nothing is wrong, and its session may have no other.
    fn time_out(&mut self, index: usize, ladder: Ladder, now: Instant) {
        let (task, command) = (self.limits.task, self.limits.command.as_secs());
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let limit = channel.functions_end(ladder.deadline, task) + self.limits.successor;
        if ladder.rung == Rung::Successor || limit <= now {
            return self.close(index, ChannelError::Timeout(command), now);
        }
        channel.ladder = Some(Ladder {
            rung: Rung::Successor,
            limit,
            function: None,
            ..ladder
        });
        let (qp, session) = (channel.qp, channel.session);
        self.events.push(Event::ChannelStuck { qp, session });
    }

    /// Sends the function of the rung a channel is on, when there is credit and a slot.
    fn send_function(&mut self, index: usize) {
        let Some(ladder) = self.channels[index].as_ref().and_then(|channel| channel.ladder) else {
            return;
        };
        let (function, of) = match ladder.rung {
            Rung::Abort => (TaskFunction::AbortTask, Some(ladder.tag)),
            Rung::Reset => (TaskFunction::LogicalUnitReset, None),
            Rung::Successor => return,
        };
        let function = self.post_function(index, function, ladder.lun, of);
        if let Some(channel) = &mut self.channels[index] {
            channel.ladder = Some(Ladder { function, ..ladder });
        }
    }

    /// Posts a task management function about one command or about a logical unit; returns its tag. Nothing when
    /// there is no credit or slot.
    pub(super) fn post_function(
        &mut self,
        index: usize,
        function: TaskFunction,
        lun: Lun,
        of: Option<u64>,
    ) -> Option<u64> {
        let channel = self.channels[index].as_mut()?;
        let slot = channel.claim_task(of.map_or(Concern::Unit(lun), Concern::Command))?;
        let (tag, task_tag) = (channel.tag(slot), of.unwrap_or(NO_TASK));
        match function {
            TaskFunction::AbortTask => channel.aborts += 1,
            _ => channel.resets += 1,
        }
        let iu = TaskManagement {
            tag,
            lun,
            function,
            task_tag,
        };
        let qp = channel.qp;
        channel.sends_posted += 1;
        // Slots hold 64 bytes at least, the shortest IU length a login may grant.
        let len = iu.emit(self.fabric.send_slot(qp, slot)).unwrap_or(TaskManagement::LEN);
        tracing::warn!(tag, %function, of = task_tag, ?lun, "task management");
        self.fabric
            .post_send(qp, slot, u32::try_from(len).unwrap_or(u32::MAX), None);
        Some(tag)
    }

    /// The response to a task management function.
    pub(super) fn function_answered(&mut self, index: usize, slot: u16, code: Option<u8>, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let tag = channel.tag(slot);
        let Slot::Task {
            sending,
            answered,
            place,
            of,
        } = &mut channel.slots[usize::from(slot)].state
        else {
            return;
        };
        let (place, of) = (*place, *of);
        *answered = true;
        if !*sending {
            channel.free_task(slot);
        }
        let result = TaskResponse::from_code(code);
        tracing::warn!(tag, %result, "task management answered");
        let ladder = channel.ladder.filter(|ladder| ladder.function == Some(tag));
        let command = match of {
            Concern::Command(tag) => channel.slot_of_tag(tag),
            Concern::Unit(_) => None,
        };
        if let Concern::Unit(_) = of {
            self.fence_answered(index, tag, result == TaskResponse::Complete);
            self.task_answered(index, tag, result);
        }
        // "Complete" is proof also when it comes late, the ladder long on another rung or over.
        if result == TaskResponse::Complete || command.is_some() && self.mutated.is(Mutation::AbortNotExamined) {
            match (of, command) {
                (Concern::Unit(lun), _) => self.unit_done(index, lun, place, now),
                (Concern::Command(_), Some(slot)) => self.ended_by_target(index, slot, now),
                (Concern::Command(_), None) => {}
            }
            return;
        }
        match ladder {
            None => {}
            Some(ladder) if ladder.rung == Rung::Reset => self.time_out(index, ladder, now),
            Some(ladder) if result == TaskResponse::NotSupported => self.next_rung(index, ladder, now),
            // "Failed" is also what targets say of a command that has just ended: its response may be behind this
            // one, and has until the end of the rung.
            Some(_) => {}
        }
    }

    /// A function about a logical unit is complete: commands sent before it are over.
    fn unit_done(&mut self, index: usize, lun: Lun, before: u64, now: Instant) {
        let commands = self.channels[index].as_ref().map_or(0, |channel| channel.plan.commands);
        for slot in 0..commands {
            let Some(channel) = &self.channels[index] else { return };
            let Slot::Command { request, place, .. } = channel.slots[usize::from(slot)].state else {
                continue;
            };
            let earlier = place < before || self.mutated.is(Mutation::ResetEndsLater);
            let of_unit = self.lun_of(request) == lun || self.mutated.is(Mutation::ResetEndsAll);
            if place > 0 && earlier && of_unit {
                self.ended_by_target(index, slot, now);
            }
        }
    }

    /// The target says that it is done with a command it did not answer: as if it had answered TASK ABORTED.
    fn ended_by_target(&mut self, index: usize, slot: u16, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let Slot::Command {
            request,
            sending,
            ref mut answered,
            window,
            ..
        } = channel.slots[usize::from(slot)].state
        else {
            return;
        };
        if *answered {
            return;
        }
        *answered = true;
        if window == Window::Open {
            self.close_answered(index, slot, request, Answer::aborted(), now);
        } else if !sending {
            self.answered(index, slot, request, &Answer::aborted(), now);
        } else if let Some(request) = self.requests.get_mut(request) {
            request.answer = Some(Answer::aborted());
        }
    }

    fn lun_of(&self, key: Key) -> Lun {
        self.requests.get(key).map_or(Lun::default(), |request| request.lun)
    }
}
