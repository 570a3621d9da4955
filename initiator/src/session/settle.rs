//! How requests end, and how channels do: nothing is given back while the target could still touch it.

use super::channel::{Channel, ChannelError};
use super::engine::Engine;
use super::event::{Event, Handle};
use super::mutation::Mutation;
use super::request::{Answer, BlockResult, ControlReply, Key, Purpose, Stage};
use super::slots::Slot;
use super::start::Transfer;
use crate::fabric::{Extent, Fabric, QueuePairId};
use crate::scsi::BlockError;
use crate::scsi::outcome::{self, Verdict};
use crate::time::Instant;
use crate::wire::InitiatorLogout;

impl<F: Fabric> Engine<F> {
    /// All completions of a command are in: SEND, answer, and the closing of its window.
    pub(super) fn answered(&mut self, index: usize, slot: u16, key: Key, answer: Answer, now: Instant) {
        if let Some(channel) = &mut self.channels[index] {
            channel.free_command(slot);
        }
        self.dirty = true;
        let Some(request) = self.requests.get(key) else { return };
        if let Some(queue) = &mut self.queues[request.queue] {
            match answer.status {
                outcome::BUSY | outcome::TASK_SET_FULL => queue.depth.refused(),
                _ => queue.depth.went_well(),
            }
        }
        self.came_back(key);
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        if matches!(request.purpose, Purpose::Control(_)) {
            return self.reply(key, answer);
        }
        let transfer = request.transfer;
        let len = match transfer {
            Transfer::None => 0,
            Transfer::ToInitiator(len) | Transfer::ToTarget(len) => len,
        };
        let verdict = judge(&answer, len);
        match verdict {
            Verdict::Done { transferred } => self.succeeded(key, transfer, transferred),
            Verdict::Fail(why) => self.end(key, Err(why)),
            Verdict::RetryAfterBackoff(_) if self.mutated.is(Mutation::BusyIsGood) => {
                self.succeeded(key, transfer, len);
            }
            Verdict::RetryNow(_) | Verdict::RetryAfterBackoff(_) => self.retry(key, verdict, now),
        }
    }

    /// A command that was answered has its other completions too.
    pub(super) fn answer_in(&mut self, index: usize, slot: u16, key: Key, now: Instant) {
        let request = self.requests.get_mut(key);
        if let Some(answer) = request.and_then(|request| request.answer.take()) {
            self.answered(index, slot, key, answer, now);
        }
    }

    fn succeeded(&mut self, key: Key, transfer: Transfer, transferred: u32) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let in_full = self.mutated.is(Mutation::ShortReadInFull);
        match (transfer, request.extent, request.channel, &request.purpose) {
            (Transfer::ToInitiator(_), Some(extent), Some(index), Purpose::Block(block)) => {
                request.stage = Stage::Returned;
                let Some(channel) = &mut self.channels[index] else {
                    return;
                };
                channel.extents_lent += 1;
                let len = if in_full {
                    extent.len
                } else {
                    transferred.min(extent.len)
                };
                let extent = Extent { len, ..extent };
                let data = Event::Data {
                    id: block.id,
                    handle: Handle(key),
                    qp: channel.qp,
                    extent,
                };
                self.events.push_back(data);
            }
            // A write that was cut short has not happened as far as the block layer can tell.
            (Transfer::ToTarget(len), ..) if transferred < len => self.end(key, Err(BlockError::Io)),
            _ => self.end(key, Ok(transferred)),
        }
    }

    fn retry(&mut self, key: Key, verdict: Verdict, now: Instant) {
        let backoff = now + self.limits.backoff;
        let Some(request) = self.requests.get(key) else { return };
        let over = request.is_over(now) || request.attempts == u8::MAX;
        let queue = request.queue;
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
        if self.mutated.is(Mutation::RetryWithoutBuffer) && request.filled {
            self.release_early(key);
        }
        if !self.is_bound(key) {
            self.detach(key);
        }
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        if matches!(verdict, Verdict::RetryNow(_)) {
            return self.push_waiting(key, true);
        }
        request.stage = Stage::Delayed(backoff);
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

    fn reply(&mut self, key: Key, answer: Answer) {
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
            Ok(reply)
        };
        self.events.push_back(Event::Reply { id, result });
    }

    /// Ends a request that the target does not know of any more.
    pub(super) fn end(&mut self, key: Key, result: BlockResult) {
        let Some(request) = self.requests.get(key) else { return };
        let event = match (&request.purpose, result) {
            (Purpose::Block(block), result) => Event::Done { id: block.id, result },
            (Purpose::Control(control), Err(why)) => Event::Reply {
                id: control.request.id,
                result: Err(why),
            },
            (Purpose::Control(control), Ok(_)) => Event::Reply {
                id: control.request.id,
                result: Ok(ControlReply {
                    status: 0,
                    sense: Vec::new(),
                    data: Vec::new(),
                }),
            },
        };
        let told = request.told;
        self.forget(key);
        if self.mutated.is(Mutation::DoneTwice) && key % 8 == 3 {
            self.events.push_back(event.clone());
        }
        if !told {
            self.events.push_back(event);
        }
    }

    /// Gives a request's extent back and removes it.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        debug_assert!(request.stage != Stage::Sent || request.channel.is_some());
        let queue = request.queue;
        if let (Some(extent), Some(index)) = (request.extent, request.channel) {
            let transfer = request.transfer;
            self.give_back(index, transfer, extent);
            // Others may wait for it.
            self.dirty = true;
        }
        self.requests.remove(key);
        self.drop_queue(queue);
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
        self.events.push_back(Event::ChannelFailed {
            qp,
            session: key,
            reason,
        });
        self.tasks_lost(index);
        self.leave(index, session);
    }

    /// A channel takes no more commands: its session goes on with its others, if it has any.
    fn leave(&mut self, index: usize, session: usize) {
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
        channel.slots[usize::from(slot)] = Slot::Logout;
        channel.leaving = Some(limit);
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

    /// Ends what a closed channel held, once nothing of it can be touched any more.
    pub(super) fn settle(&mut self, index: usize, now: Instant) {
        if self.channels[index].as_ref().is_some_and(Channel::is_quiet) {
            self.settle_quiet(index, now);
        }
    }

    #[cold]
    fn settle_quiet(&mut self, index: usize, now: Instant) {
        let commands = self.channels[index].as_ref().map_or(0, |channel| channel.plan.commands);
        for slot in 0..commands {
            let Some(channel) = &mut self.channels[index] else {
                return;
            };
            let fence = channel.fence;
            let Slot::Command { request, answered, .. } = channel.slots[usize::from(slot)] else {
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
        if channel.extents_lent > 0 {
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
            self.events.push_back(Event::ChannelClosed { qp, session });
        }
    }
}

/// What an answer means for a transfer of `len` bytes.
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
