//! What the engine tells its caller.

use super::channel::ChannelError;
use super::handover::Handover;
use super::request::{BlockResult, ControlReply, Key, RequestId, SessionKey};
use crate::fabric::{Extent, QueuePairId};
use crate::scsi::BlockError;
use crate::wire::TaskResponse;

/// Names a request towards the engine while its data is with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub(super) Key);

const _: () = assert!(size_of::<Event>() == 32);

/// What the engine has to say. What only rare events hold is boxed: the others are told of every command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Put the write's data into the extent, then call [`Engine::supplied`](super::Engine::supplied).
    Supply {
        /// The request, towards the caller.
        id: RequestId,
        /// The request, towards the engine.
        handle: Handle,
        /// Whose arena it is.
        qp: QueuePairId,
        /// As long as the data.
        extent: Extent,
    },
    /// A read ended well. Take the data, then call [`Engine::release`](super::Engine::release). `extent.len` is what came, which may
    /// be less than was asked for.
    Data {
        /// The request, towards the caller.
        id: RequestId,
        /// The request, towards the engine.
        handle: Handle,
        /// Whose arena it is.
        qp: QueuePairId,
        /// The data.
        extent: Extent,
    },
    /// A request ended and holds nothing any more: bytes written, or why it failed.
    Done {
        /// The request.
        id: RequestId,
        /// The result.
        result: BlockResult,
    },
    /// A control request was answered.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer, or why there is none.
        result: Result<Box<ControlReply>, BlockError>,
    },
    /// A task management function of the control side was answered; only [`TaskResponse::Complete`] says that it
    /// was done.
    TaskDone {
        /// The request.
        id: RequestId,
        /// The answer, or why there is none.
        result: Result<TaskResponse, BlockError>,
    },
    /// A request is to go on where its session has a channel: give it to another engine's
    /// [`Engine::take_over`](super::Engine::take_over), or where it came from to
    /// [`Engine::take_back`](super::Engine::take_back). This engine knows it no more.
    HandOver(Box<Handover>),
    /// A command of a channel can neither be had answered nor ended, which may be one unit's fault. The channel ends within
    /// [`Limits::successor`](super::Limits::successor): add another one meanwhile, then
    /// [`Engine::retire`](super::Engine::retire) this one, and the session's other requests go on as if nothing had happened.
    ChannelStuck {
        /// The queue pair.
        qp: QueuePairId,
        /// Its session.
        session: SessionKey,
    },
    /// A channel went down; its requests end as soon as the target cannot touch their memory any more.
    ChannelFailed {
        /// The queue pair.
        qp: QueuePairId,
        /// Its session.
        session: SessionKey,
        /// Why.
        reason: Box<ChannelError>,
    },
    /// A channel that went down holds nothing any more: the queue pair and its memory may be destroyed.
    ChannelClosed {
        /// The queue pair.
        qp: QueuePairId,
        /// Its session.
        session: SessionKey,
    },
}

/// What is to be told, in order. They are told of several times a command: a ring that wraps around costs twice as much.
#[derive(Debug)]
pub(super) struct Events {
    /// Empty but for those from `next` to `end`.
    places: Vec<Option<Event>>,
    next: usize,
    end: usize,
}

impl Events {
    pub(super) fn with_capacity(events: usize) -> Self {
        Self {
            places: vec![None; events],
            next: 0,
            end: 0,
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.put(|| event);
    }

    /// The same for one that is put together where it stays.
    #[inline(always)]
    pub(super) fn put(&mut self, event: impl FnOnce() -> Event) {
        loop {
            let end = self.end;
            if let Some(place @ None) = self.places.get_mut(end) {
                *place = Some(event());
                self.end = end.wrapping_add(1);
                return;
            }
            self.make_room();
        }
    }

    /// The places of those that were told are used again, or there will be more.
    #[cold]
    fn make_room(&mut self) {
        self.places.rotate_left(self.next);
        self.end -= self.next;
        self.next = 0;
        if self.end == self.places.len() {
            let more = self.places.len().max(1);
            self.places.extend(std::iter::repeat_n(None, more));
        }
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Event> {
        if self.next == self.end {
            (self.next, self.end) = (0, 0);
            return None;
        }
        let event = self.places.get_mut(self.next)?.take();
        self.next += 1;
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event::Done {
            id: RequestId(number),
            result: Ok(0),
        }
    }

    #[test]
    fn events_are_told_in_order_however_many_wait() {
        let mut events = Events::with_capacity(4);
        let (mut put, mut told) = (0, 0);
        for round in 0..200 {
            for _ in 0..round % 7 {
                events.push(event(put));
                put += 1;
            }
            for _ in 0..round % 5 {
                if told < put {
                    assert_eq!(events.pop(), Some(event(told)));
                    told += 1;
                }
            }
        }
        assert!(put > told, "some still wait");
        assert!(events.places.len() < 400, "{}", events.places.len());
        while told < put {
            assert_eq!(events.pop(), Some(event(told)));
            told += 1;
        }
        assert_eq!(events.pop(), None);
    }
}
