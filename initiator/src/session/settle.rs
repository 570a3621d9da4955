//! How requests end, and how channels do: nothing is given back while the target could still touch it.

use super::channel::{Channel, ChannelError};
use super::due::ALWAYS;
use super::engine::Engine;
use super::event::{Event, Events, Handle};
use super::failover::detach;
use super::mutation::Mutation;
use super::request::{Answer, BlockResult, ControlReply, Key, Purpose, Request, RequestId, Stage};
use super::slots::Slot;
use super::start::Transfer;
use crate::fabric::{Extent, Fabric, QueuePairId};
use crate::scsi::BlockError;
use crate::scsi::outcome::{self, Verdict};
use crate::time::Instant;
use crate::wire::InitiatorLogout;

/// What an answer comes to.
pub(super) enum Outcome {
    /// The caller is told of the data of a read.
    Returned,
    /// It did what it was to; so many bytes were moved. It holds nothing any more.
    Done { id: RequestId, transferred: u32 },
    /// It failed.
    Fail(BlockError),
    /// To be sent again.
    Again(Verdict),
    /// A control request's answer is for its caller to judge.
    Reply,
}

impl Channel {
    /// All completions of a command are in: its slot is free, and its request is not with the target any more.
    #[inline(always)]
    pub(super) fn conclude(
        &mut self,
        slot: u16,
        key: Key,
        request: &mut Request,
        answer: &Answer,
        events: &mut Events,
    ) -> Outcome {
        self.free_command(slot);
        let Purpose::Block(block) = &request.purpose else {
            return Outcome::Reply;
        };
        let len = request.transfer.len();
        let transferred = match judge(answer, len) {
            Verdict::Done { transferred } => transferred,
            Verdict::Fail(why) => return Outcome::Fail(why),
            Verdict::RetryAfterBackoff(_) if self.mutated.is(Mutation::BusyIsGood) => len,
            verdict => return Outcome::Again(verdict),
        };
        match (request.transfer, request.extent) {
            (Transfer::ToInitiator(_), Some(mut extent)) => {
                request.stage = Stage::Returned;
                self.returned += 1;
                if !self.mutated.is(Mutation::ShortReadInFull) {
                    extent.len = extent.len.min(transferred);
                }
                events.put(|| Event::Data {
                    id: block.id,
                    handle: Handle(key),
                    qp: self.qp,
                    extent,
                });
                Outcome::Returned
            }
            // A write that was cut short has not happened as far as the block layer can tell.
            (Transfer::ToTarget(_), _) if transferred < len => Outcome::Fail(BlockError::Io),
            (_, extent) => {
                let id = block.id;
                if let Some(extent) = extent {
                    request.extent = None;
                    self.write_space.release(extent);
                }
                Outcome::Done { id, transferred }
            }
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// All completions of a command are in: SEND, answer, and the closing of its window.
    #[cold]
    pub(super) fn answered(&mut self, index: usize, slot: u16, key: Key, answer: &Answer, now: Instant) {
        if let (Some(channel), Some(request)) = (&mut self.channels[index], self.requests.get_mut(key)) {
            let queue = request.queue;
            let outcome = channel.conclude(slot, key, request, answer, &mut self.events);
            self.ended(queue, answer.status);
            self.act_on(outcome, queue, key, answer, now);
        }
    }

    /// What follows from an answer.
    #[inline(always)]
    pub(super) fn act_on(&mut self, outcome: Outcome, queue: usize, key: Key, answer: &Answer, now: Instant) {
        self.dirty = true;
        match outcome {
            Outcome::Returned => {}
            Outcome::Done { id, transferred } => self.finish(key, queue, id, Ok(transferred)),
            Outcome::Fail(why) => self.end(key, Err(why)),
            Outcome::Again(verdict) => self.retry(key, verdict, now),
            Outcome::Reply => self.reply(key, answer),
        }
    }

    /// A command that was answered has its other completions too.
    pub(super) fn answer_in(&mut self, index: usize, slot: u16, key: Key, now: Instant) {
        let request = self.requests.get_mut(key);
        if let Some(answer) = request.and_then(|request| request.answer.take()) {
            self.answered(index, slot, key, &answer, now);
        }
    }

    #[cold]
    fn retry(&mut self, key: Key, verdict: Verdict, now: Instant) {
        let backoff = now + self.limits.backoff;
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let at_once = matches!(verdict, Verdict::RetryNow(_));
        request.at_once = request.at_once.saturating_add(at_once.into());
        // Attempts with a pause between them end with the request's time.
        let over = request.is_over(now) || request.at_once == u8::MAX;
        let (queue, filled) = (request.queue, request.filled);
        let open = self.is_connected(queue) || self.may_part(key);
        let removed = self.queues[queue].as_ref().is_none_or(|queue| queue.removed);
        if over || !open || removed {
            let why = match (open, removed) {
                (false, _) => BlockError::Transport,
                (true, true) => BlockError::Offline,
                (true, false) => BlockError::Timeout,
            };
            return self.end(key, Err(why));
        }
        if self.mutated.is(Mutation::RetryWithoutBuffer) && filled {
            self.release_early(key);
        }
        if !self.is_bound(key) {
            self.detach(key);
        }
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        if at_once {
            return self.push_waiting(key);
        }
        request.stage = Stage::Delayed(backoff);
        self.due = ALWAYS;
        self.delayed.push(key);
    }

    /// A deliberate defect.
    fn release_early(&mut self, key: Key) {
        if let Some(request) = self.requests.get(key)
            && let (Some(extent), Some(index)) = (request.extent, request.channel)
            && let Some(channel) = &mut self.channels[index]
        {
            channel.write_space.release(extent);
        }
    }

    #[cold]
    fn reply(&mut self, key: Key, answer: &Answer) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let Purpose::Control(control) = &mut request.purpose else {
            return;
        };
        if request.told {
            return self.forget(key);
        }
        let (id, sense) = (control.request.id, std::mem::take(&mut control.sense));
        let mut data = Vec::new();
        if let (Some(extent), Some(index)) = (request.extent, request.channel)
            && let Some(channel) = &self.channels[index]
        {
            if channel.destroyed {
                return self.end(key, Err(BlockError::Transport));
            }
            let came = extent.len.saturating_sub(answer.underflow);
            data.resize(came as usize, 0);
            self.fabric
                .copy_out(channel.qp, Extent { len: came, ..extent }, &mut data);
        }
        self.forget(key);
        let reply = ControlReply {
            status: answer.status,
            sense,
            data,
        };
        let result = if answer.refused.is_some() {
            Err(BlockError::Io)
        } else {
            Ok(Box::new(reply))
        };
        self.events.push(Event::Reply { id, result });
    }

    /// Ends a request that the target does not know of any more.
    pub(super) fn end(&mut self, key: Key, result: BlockResult) {
        let Some(request) = self.requests.get(key) else { return };
        let Purpose::Block(block) = &request.purpose else {
            return self.end_control(key, result);
        };
        let (id, queue) = (block.id, request.queue);
        self.give_up(key);
        self.finish(key, queue, id, result);
    }

    /// Ends a block request that holds nothing.
    #[inline(always)]
    fn finish(&mut self, key: Key, queue: usize, id: RequestId, result: BlockResult) {
        self.requests.remove(key);
        self.forsake(queue);
        if self.mutated.is(Mutation::DoneTwice) && key % 8 == 3 {
            self.done(id, result);
        }
        self.done(id, result);
    }

    #[cold]
    fn end_control(&mut self, key: Key, result: BlockResult) {
        let Some(request) = self.requests.get(key) else { return };
        let (Purpose::Control(control), told) = (&request.purpose, request.told) else {
            return;
        };
        let id = control.request.id;
        self.forget(key);
        if !told {
            let result = result.map(|_| Box::default());
            self.events.push(Event::Reply { id, result });
        }
    }

    /// Gives a request's extent back and removes it.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(queue) = self.requests.get(key).map(|request| request.queue) else {
            return;
        };
        self.give_up(key);
        self.requests.remove(key);
        self.forsake(queue);
    }

    /// Gives a request's extent back.
    fn give_up(&mut self, key: Key) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        debug_assert!(request.stage != Stage::Sent || request.channel.is_some());
        if request.extent.is_some() {
            detach(request, &mut self.channels);
            // Others may wait for it.
            self.dirty = true;
        }
    }

    /// Takes a channel out of service. What the target may still touch stays until [`Engine::settle`] sees
    /// that the queue pair has been flushed.
    pub(super) fn close(&mut self, index: usize, reason: ChannelError, _now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if channel.closing.is_some() {
            return;
        }
        let (qp, key, session) = (channel.qp, channel.session, channel.session_index);
        channel.closing = Some(reason.clone());
        channel.ladder = None;
        let marker = channel.marker();
        channel.receives_posted += 1;
        self.fabric.post_receive(qp, marker);
        self.fabric.fail(qp);
        self.fabric.flush();
        self.events.push(Event::ChannelFailed {
            qp,
            session: key,
            reason: Box::new(reason),
        });
        self.tasks_lost(index);
        self.leave(index, session);
    }

    /// A channel takes no more commands: its session goes on with its others, if it has any.
    fn leave(&mut self, index: usize, session: usize) {
        if let Some(channel) = &mut self.channels[index] {
            channel.serving = channel.is_open() && self.mutated.is(Mutation::SentBehindLogout);
            channel.starved = None;
        }
        let Some(state) = &mut self.sessions[session] else {
            return;
        };
        state.channels.retain(|&other| other != index);
        if !state.channels.is_empty() {
            return self.detach_waiting(index);
        }
        for queue in state.queues.clone() {
            self.part_with(queue);
        }
    }

    /// Ends a channel as [`Engine::close_channel`] does, with an SRP_I_LOGOUT (SRP r16a 6.6) before. Targets take the
    /// end of the connection for a logout, and some complain of this, so it is for those that want it.
    pub fn log_out(&mut self, qp: QueuePairId, now: Instant) {
        let limit = now + self.limits.task;
        let Some(&index) = self.by_qp.get(&qp) else { return };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if !channel.is_open() || channel.leaving.is_some() {
            return;
        }
        let may_send = channel.credits + i64::from(channel.unsent) > 0;
        let Some(slot) = may_send.then(|| channel.claim_answer()).flatten() else {
            return self.close(index, ChannelError::Closed, now);
        };
        channel.slots[usize::from(slot)].state = Slot::Logout;
        channel.leaving = Some(limit);
        self.due = ALWAYS;
        channel.credits -= 1;
        channel.sends_posted += 1;
        let session = channel.session_index;
        let logout = InitiatorLogout { tag: channel.tag(slot) };
        let len = logout.emit(self.fabric.send_slot(qp, slot)).unwrap_or_default();
        self.fabric
            .post_send(qp, slot, u32::try_from(len).unwrap_or(u32::MAX), None);
        self.fabric.flush();
        self.leave(index, session);
    }

    /// Ends a channel whose place another one has taken: it is sent nothing new, and what is with the target has
    /// [`Limits::retirement`](super::Limits::retirement) to be answered.
    pub fn retire(&mut self, qp: QueuePairId, now: Instant) {
        let limit = now + self.limits.retirement;
        let Some(&index) = self.by_qp.get(&qp) else { return };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if !channel.is_open() || channel.leaving.is_some() {
            return;
        }
        channel.leaving = Some(limit);
        self.due = self.due.min(limit);
        let session = channel.session_index;
        self.leave(index, session);
    }

    /// Ends what a closed channel held, once nothing of it can be touched any more.
    pub(super) fn settle(&mut self, index: usize, now: Instant) {
        if self.channels[index].as_ref().is_some_and(Channel::is_quiet) {
            self.settle_quiet(index, now);
        }
    }

    /// The slots of a channel that have commands, in the order of their requests: that is how they are handed over.
    fn commands_in_order(&self, index: usize) -> Vec<u16> {
        let Some(channel) = &self.channels[index] else {
            return Vec::new();
        };
        let order = |slot: &u16| match channel.slots[usize::from(*slot)].state {
            Slot::Command { request, .. } => self.requests.get(request).map(|request| request.order),
            _ => None,
        };
        let mut slots: Vec<u16> = (0..channel.plan.commands)
            .filter(|slot| order(slot).is_some())
            .collect();
        slots.sort_by_key(order);
        slots
    }

    #[cold]
    fn settle_quiet(&mut self, index: usize, now: Instant) {
        for slot in self.commands_in_order(index) {
            let Some(channel) = &mut self.channels[index] else {
                return;
            };
            let fence = channel.fence;
            let Slot::Command { request, answered, .. } = channel.slots[usize::from(slot)].state else {
                continue;
            };
            let posted = self
                .requests
                .get(request)
                .is_some_and(|request| request.stage == Stage::Sent);
            if answered {
                self.answer_in(index, slot, request, now);
            } else if posted {
                channel.free_command(slot);
                self.came_back(request);
                self.unanswered(request, fence, now);
            }
        }
        let Some(channel) = &self.channels[index] else { return };
        if channel.unsent + channel.returned > 0 {
            return;
        }
        let (qp, session) = (channel.qp, channel.session);
        debug_assert_eq!(
            channel.read_space.in_use() + channel.write_space.in_use(),
            0,
            "extents lost"
        );
        self.channels[index] = None;
        self.by_qp.remove(&qp);
        if !self.mutated.is(Mutation::ClosedSilently) {
            self.events.push(Event::ChannelClosed { qp, session });
        }
    }
}

/// What an answer means for a transfer of `len` bytes.
#[inline(always)]
fn judge(answer: &Answer, len: u32) -> Verdict {
    if answer.refused.is_some() {
        return Verdict::Fail(BlockError::Io);
    }
    // More data than the command asked for, or less than none: what came cannot be trusted.
    if answer.overflow || answer.underflow > len {
        return Verdict::Fail(BlockError::Io);
    }
    outcome::judge(answer.status, answer.sense.as_ref(), len - answer.underflow)
}

#[cfg(test)]
mod tests;
