//! What becomes of a session's requests when it loses a channel, as long as it has another.
//!
//! Requests that are not with the target go on over a channel that lives, and so do reads and flushes that were,
//! once their memory cannot be touched any more. A write is another matter: the target may carry it out behind the
//! connection's end, and then over what was written later. A write of unknown fate is sent again only when a LOGICAL
//! UNIT RESET of its unit is complete (the fence rule); where that cannot be had it fails. It cannot with
//! [`Fence::Relogin`](super::Fence::Relogin): a login that ends the old nexus ends this session's other channels too, and
//! is not the engine's to make.
//!
//! The reset goes another way than the write did, and must not overtake it: it ends only what the target has taken up. The
//! write may still be on the wire, or lie in the target's receive queue, when our queue pair has long been flushed. So the
//! reset is sent after a pause ([`Limits::fence_pause`](super::Limits::fence_pause)).

use super::channel::{Channel, Fence};
use super::due::{ALWAYS, NEVER};
use super::engine::Engine;
use super::mutation::Mutation;
use super::request::{BlockOperation, Key, Purpose, Request, Stage};
use crate::fabric::Fabric;
use crate::scsi::BlockError;
use crate::time::Instant;
use crate::wire::TaskFunction;

/// Writes of a logical unit that wait for its reset.
#[derive(Debug)]
pub(super) struct Fenced {
    queue: usize,
    writes: Vec<Key>,
    /// When the queue pair was flushed that carried them, of several the last.
    flushed: Instant,
    /// By then the target has taken up what it ever will of them. None when that is over.
    pause: Option<Instant>,
    /// The channel the reset was sent on, and its tag.
    sent: Option<(usize, u64)>,
    /// None of them is over before this.
    limit: Instant,
}

impl Fenced {
    /// A write whose queue pair was flushed then, and whose time is over at `limit`.
    fn new(queue: usize, write: Key, limit: Instant, flushed: Instant, pause: Option<Instant>) -> Self {
        Self {
            queue,
            writes: vec![write],
            flushed,
            pause,
            sent: None,
            limit,
        }
    }

    pub(super) fn is_of(&self, queue: usize) -> bool {
        self.queue == queue
    }

    /// Whether others may join it, and one reset do for all: it is unsent, and they would not have to wait for it any less.
    pub(super) fn takes(&self, other: &Self) -> bool {
        self.queue == other.queue && self.sent.is_none() && other.pause <= self.pause
    }

    /// Takes others in.
    pub(super) fn join(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
        self.flushed = self.flushed.max(other.flushed);
        self.limit = self.limit.min(other.limit);
    }

    /// When something is to be done about it at the latest.
    pub(super) fn due(&self) -> Instant {
        self.pause.unwrap_or(self.limit).min(self.limit)
    }

    /// The writes, and when their queue pair was flushed.
    pub(super) fn into_writes(self) -> (Vec<Key>, Instant) {
        (self.writes, self.flushed)
    }
}

impl<F: Fabric> Engine<F> {
    /// Whether the session of a queue has a channel to send on.
    pub(super) fn is_connected(&self, queue: usize) -> bool {
        let session = self.queues[queue].as_ref().map(|queue| queue.session);
        let session = session.and_then(|session| self.sessions[session].as_ref());
        session.is_some_and(|session| !session.channels.is_empty())
    }

    /// Takes a request that is not with the target off its channel: another one has other buffers.
    pub(super) fn detach(&mut self, key: Key) {
        if let Some(request) = self.requests.get_mut(key) {
            detach(request, &mut self.channels);
        }
    }

    /// Whether the channel a request is bound to still takes commands.
    pub(super) fn is_bound(&self, key: Key) -> bool {
        let index = self.requests.get(key).and_then(|request| request.channel);
        let channel = index.and_then(|index| self.channels[index].as_ref());
        channel.is_some_and(|channel| channel.serving)
    }

    /// A channel went, and its session has others: what waits with a buffer of its is freed of it.
    pub(super) fn detach_waiting(&mut self, index: usize) {
        let waiting = |stage| matches!(stage, Stage::Waiting | Stage::Delayed(_));
        let bound: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.channel == Some(index) && waiting(request.stage))
            .map(|(key, _)| key)
            .collect();
        bound.into_iter().for_each(|key| self.detach(key));
        let lost = |fence: &Fenced| fence.sent.is_some_and(|(channel, _)| channel == index);
        // Those whose reset was not answered have had their turn: units that stand still do not keep others from theirs.
        self.fences.sort_by_key(lost);
        for fence in &mut self.fences {
            fence.sent = fence.sent.filter(|(channel, _)| *channel != index);
        }
        self.dirty = true;
    }

    /// A command was with the target when its channel went, and was not answered.
    pub(super) fn unanswered(&mut self, key: Key, fence: Fence, now: Instant) {
        let Some(request) = self.requests.get(key) else { return };
        let queue = request.queue;
        let removed = self.queues[queue].as_ref().is_none_or(|queue| queue.removed);
        let Purpose::Block(block) = &request.purpose else {
            // Its caller knows better whether it may be carried out twice.
            return self.end(key, Err(BlockError::Transport));
        };
        let block = *block;
        if removed || request.is_over(now) {
            return self.end(key, Err(BlockError::Transport));
        }
        if !self.is_connected(queue) {
            return self.part_unanswered(key, block, fence, now);
        }
        let write = matches!(block.operation, BlockOperation::Write { .. });
        if write && !self.can_reset(queue) {
            return self.end(key, Err(BlockError::Transport));
        }
        self.detach(key);
        if !write || self.mutated.is(Mutation::ResendUnfenced) {
            return self.push_waiting(key);
        }
        self.await_reset(key, queue, now, now);
    }

    /// A write of unknown fate, whose queue pair was flushed then, joins those that wait for the reset of their unit, as long
    /// as it has time.
    pub(super) fn await_reset(&mut self, key: Key, queue: usize, flushed: Instant, now: Instant) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        request.stage = Stage::Fenced;
        let limit = request.deadline.unwrap_or(now);
        let pause = Some(flushed + self.limits.fence_pause).filter(|until| *until > now);
        let pause = pause.filter(|_| !self.mutated.is(Mutation::ResetAtOnce));
        self.due = ALWAYS;
        self.join_fences(Fenced::new(queue, key, limit, flushed, pause));
    }

    fn join_fences(&mut self, fenced: Fenced) {
        match self.fences.iter_mut().find(|fence| fence.takes(&fenced)) {
            Some(fence) => fence.join(fenced),
            None => self.fences.push(fenced),
        }
    }

    pub(super) fn can_reset(&self, queue: usize) -> bool {
        let session = self.queues[queue].as_ref().map(|queue| queue.session);
        let Some(session) = session.and_then(|session| self.sessions[session].as_ref()) else {
            return false;
        };
        let mut channels = session
            .channels
            .iter()
            .filter_map(|&index| self.channels[index].as_ref());
        channels.any(Channel::may_reset)
    }

    /// Sends the resets that are due, and gives up writes whose time is over: a unit that is stuck does not answer a reset
    /// before it runs again.
    pub(super) fn fence(&mut self, now: Instant) {
        if self.fences.is_empty() {
            return;
        }
        let rested = |fence: &Fenced| fence.pause.is_some_and(|until| until <= now);
        while let Some(place) = self.fences.iter().position(rested) {
            // Those before it may still wait for room on a channel.
            let mut fence = self.fences.remove(place);
            fence.pause = None;
            self.join_fences(fence);
        }
        let mut fences = std::mem::take(&mut self.fences);
        fences.retain_mut(|fence| {
            if fence.limit <= now && !self.still_fenced(fence, now) {
                return false;
            }
            if fence.pause.is_none() && fence.sent.is_none() {
                fence.sent = self.send_reset(fence.queue);
            }
            true
        });
        self.fences.append(&mut fences);
    }

    /// Fails those whose time is over; whether others are left.
    fn still_fenced(&mut self, fence: &mut Fenced, now: Instant) -> bool {
        fence.limit = NEVER;
        fence.writes.retain(|&key| {
            let deadline = self.requests.get(key).and_then(|request| request.deadline);
            let waits = deadline.is_some_and(|deadline| deadline > now);
            match deadline.filter(|_| waits) {
                Some(deadline) => fence.limit = fence.limit.min(deadline),
                None => self.end(key, Err(BlockError::Transport)),
            }
            waits
        });
        !fence.writes.is_empty()
    }

    fn send_reset(&mut self, queue: usize) -> Option<(usize, u64)> {
        let (session, lun) = self.queues[queue].as_ref().map(|queue| (queue.session, queue.lun))?;
        for place in 0..self.sessions[session].as_ref()?.channels.len() {
            let index = self.sessions[session].as_ref()?.channels[place];
            if !self.channels[index].as_ref().is_some_and(Channel::may_reset) {
                continue;
            }
            if let Some(tag) = self.post_function(index, TaskFunction::LogicalUnitReset, lun, None) {
                return Some((index, tag));
            }
        }
        None
    }

    /// A reset was answered that may have been for writes of unknown fate.
    pub(super) fn fence_answered(&mut self, index: usize, tag: u64, complete: bool) {
        let Some(place) = self.fences.iter().position(|fence| fence.sent == Some((index, tag))) else {
            return;
        };
        for key in self.fences.swap_remove(place).writes {
            if complete {
                self.push_waiting(key);
            } else {
                self.end(key, Err(BlockError::Transport));
            }
        }
    }

    /// Fails the writes of a queue that wait for a reset.
    pub(super) fn fail_fenced(&mut self, queue: usize, why: BlockError) {
        while let Some(place) = self.fences.iter().position(|fence| fence.queue == queue) {
            for key in self.fences.swap_remove(place).writes {
                self.end(key, Err(why));
            }
        }
    }
}

/// Takes a request that is not with the target off its channel: another one has other buffers.
pub(super) fn detach(request: &mut Request, channels: &mut [Option<Channel>]) {
    let (extent, index) = (request.extent.take(), request.channel.take());
    request.filled = false;
    if let (Some(extent), Some(index)) = (extent, index)
        && let Some(channel) = &mut channels[index]
        && let Some(space) = channel.space(request.transfer)
    {
        space.release(extent);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    /// A write of queue 3 that rests for two seconds.
    fn fenced(write: Key, flushed: u64, limit: u64) -> Fenced {
        Fenced::new(3, write, at(limit), at(flushed), Some(at(flushed + 2)))
    }

    #[test]
    fn writes_that_wait_together_are_looked_at_when_the_first_is_over() {
        for (one, other) in [(30, 40), (40, 30)] {
            let mut fence = fenced(1, 10, one);
            assert_eq!(fence.due(), at(12));
            fence.join(Fenced::new(3, 2, at(other), at(9), None));
            assert_eq!((fence.limit, fence.due()), (at(30), at(12)));
            assert_eq!(fence.into_writes(), (vec![1, 2], at(10)));
        }
        assert_eq!(fenced(1, 10, 11).due(), at(11), "before its pause is over");
    }

    #[test]
    fn a_write_joins_none_whose_reset_comes_too_early_for_it() {
        let fenced = |write, flushed| fenced(write, flushed, 40);
        let mut fence = fenced(1, 10);
        assert!(fence.takes(&fenced(2, 10)) && !fence.takes(&fenced(2, 11)));
        assert!(!fence.takes(&Fenced::new(4, 2, at(40), at(10), None)));
        fence.pause = None;
        assert!(!fence.takes(&fenced(2, 10)));
        let mut over = fenced(2, 11);
        over.pause = None;
        assert!(fence.takes(&over));
        fence.sent = Some((0, 0));
        assert!(!fence.takes(&over));
    }
}
