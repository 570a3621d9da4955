//! How requests end.

use super::channel::Channel;
use super::due::ALWAYS;
use super::engine::Engine;
use super::event::{Event, Events, Handle};
use super::failover::detach;
use super::mutation::Mutation;
use super::request::{Answer, BlockResult, ControlReply, Key, Purpose, Request, RequestId, Stage};
use super::start::Transfer;
use crate::fabric::{Extent, Fabric};
use crate::scsi::BlockError;
use crate::scsi::outcome::{self, Verdict};
use crate::time::Instant;

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
