//! Requests of a reactor whose session has channels on other reactors only.
//!
//! The queues of a block device stay with their reactors, channels come and go. A reactor without a live channel hands
//! a request to one that has, gets its end back and tells the block layer. Only requests that hold nothing are handed
//! over: their memory cannot be touched any more, and of a write that may have been carried out this is said, so that
//! whoever takes it over has the unit reset first (the fence rule).
//!
//! Which engines have channels the caller knows, and it sees to it that nothing goes to and fro: an engine that handed
//! something back has none, as far as it was not asked before it got one. An answer to a question of before says
//! nothing.

use super::engine::Engine;
use super::event::Event;
use super::mutation::Mutation;
use super::request::{BlockOperation, BlockRequest, Key, Purpose, Request, SessionKey, Stage};
use crate::fabric::Fabric;
use crate::scsi::BlockError;
use crate::session::Fence;
use crate::time::Instant;

/// A request on its way to another engine of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The request. Whoever takes it over may give it an id of its own.
    pub request: BlockRequest,
    /// A write that was with the target when its channel broke: when the queue pair was flushed or destroyed. All engines
    /// of a session have the same clock.
    pub doubtful: Option<Instant>,
    /// What is left of its time; nothing when it was never sent.
    pub deadline: Option<Instant>,
}

impl<F: Fabric> Engine<F> {
    /// Whether other engines have channels of a session. Its requests are handed over then while there is none here
    /// ([`Event::HandOver`]), and fail otherwise.
    pub fn set_elsewhere(&mut self, session: SessionKey, elsewhere: bool) {
        if !elsewhere && self.session_of(session).is_none() {
            // The last of its requests came back when it was removed.
            return;
        }
        let index = self.session(session);
        if let Some(session) = &mut self.sessions[index] {
            session.elsewhere = elsewhere;
        }
    }

    /// Takes over a request of another engine. It ends as one that was submitted here, or is handed on with
    /// [`Event::HandOver`] when there is no channel here either.
    pub fn take_over(&mut self, handover: Handover, now: Instant) {
        self.take(handover, true, now);
    }

    /// Takes a request back that could not be served where it was handed to: it goes on as one that was submitted here.
    pub fn take_back(&mut self, handover: Handover, now: Instant) {
        self.take(handover, false, now);
    }

    fn take(&mut self, handover: Handover, foreign: bool, now: Instant) {
        let Handover {
            request,
            doubtful,
            deadline,
        } = handover;
        let taken = match self.check(request) {
            Ok(checked) => Request {
                deadline,
                foreign,
                ..checked
            },
            Err(why) => return self.done(request.id, Err(why)),
        };
        let queue = taken.queue;
        let Some(flushed) = doubtful.filter(|_| !self.mutated.is(Mutation::TakenOverUnfenced)) else {
            let (key, _) = self.requests.insert(taken);
            return self.push_waiting(key);
        };
        if self.is_connected(queue) && self.can_reset(queue) {
            let (key, _) = self.requests.insert(taken);
            return self.await_reset(key, queue, flushed, now);
        }
        if !self.is_connected(queue) && (foreign || self.is_elsewhere(queue)) {
            return self.events.push(Event::HandOver(Box::new(handover)));
        }
        self.done(request.id, Err(BlockError::Transport));
    }

    /// A request of a disk that there is, within its bounds.
    fn check(&self, request: BlockRequest) -> Result<Request, BlockError> {
        let &index = self.disks.get(&request.lun).ok_or(BlockError::Offline)?;
        let queue = self.queues[index].as_ref().ok_or(BlockError::Offline)?;
        let transfer = queue.transfer(&request)?;
        Ok(Request::new(index, queue.lun, Purpose::Block(request), transfer))
    }

    fn is_elsewhere(&self, queue: usize) -> bool {
        let session = self.queues[queue].as_ref().map(|queue| queue.session);
        let session = session.and_then(|session| self.sessions[session].as_ref());
        session.is_some_and(|session| session.elsewhere)
    }

    /// Whether a request can go on when its session has no channel here.
    pub(super) fn may_part(&self, key: Key) -> bool {
        self.requests.get(key).is_some_and(|request| {
            matches!(request.purpose, Purpose::Block(_)) && (request.foreign || self.is_elsewhere(request.queue))
        })
    }

    /// The session of a queue has no channel here: what waits goes where there is one, or fails.
    pub(super) fn part_with(&mut self, queue: usize) {
        while let Some(place) = self.fences.iter().position(|fence| fence.is_of(queue)) {
            let (writes, flushed) = self.fences.swap_remove(place).into_writes();
            for key in writes {
                self.part(key, Some(flushed));
            }
        }
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&key| {
            let here = self.requests.get(key).is_some_and(|request| request.queue == queue);
            if here && !self.mutated.is(Mutation::DelayedForgotten) {
                // It goes in its turn.
                self.push_waiting(key);
            }
            !here
        });
        self.delayed = delayed;
        while let Some(key) = self.pop_waiting(queue) {
            self.part(key, None);
        }
    }

    /// Hands over a request that the target cannot touch anything of, or fails it.
    fn part(&mut self, key: Key, doubtful: Option<Instant>) {
        if !self.may_part(key) {
            return self.end(key, Err(BlockError::Transport));
        }
        self.detach(key);
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        // It may have been with the target until its channel was closed.
        request.stage = Stage::Waiting;
        let Purpose::Block(block) = request.purpose else {
            return;
        };
        let handover = Handover {
            request: block,
            doubtful: doubtful.filter(|_| !self.mutated.is(Mutation::HandedOverUnfenced)),
            deadline: request.deadline,
        };
        let forgotten = request.foreign && self.mutated.is(Mutation::ForeignForgotten);
        self.forget(key);
        if !forgotten {
            self.events.push(Event::HandOver(Box::new(handover)));
        }
        if self.mutated.is(Mutation::HandedOverAndEnded) {
            self.done(block.id, Err(BlockError::Transport));
        }
    }

    /// A command was with the target when the last channel here went, and was not answered.
    pub(super) fn part_unanswered(&mut self, key: Key, block: BlockRequest, fence: Fence, now: Instant) {
        let write = matches!(block.operation, BlockOperation::Write { .. });
        if write && fence != Fence::LunReset {
            return self.end(key, Err(BlockError::Transport));
        }
        self.part(key, write.then_some(now));
    }
}
