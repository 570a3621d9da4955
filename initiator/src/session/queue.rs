//! Who is next: first in, first out within a logical unit, round robin across them.

use super::channel::Channel;
use super::depth::Depth;
use super::engine::Engine;
use super::mutation::Mutation;
use super::request::{Key, Request, Stage};
use super::start::Transfer;
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun};
use crate::time::Instant;

/// The requests of one logical unit (or of a session's control side) that wait for their turn.
#[derive(Debug)]
pub(super) struct Queue {
    /// Index into the engine's sessions.
    pub(super) session: usize,
    pub(super) lun: Lun,
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) removed: bool,
    /// It is in its session's ring.
    pub(super) ready: bool,
    pub(super) depth: Depth,
    head: Option<Key>,
    tail: Option<Key>,
}

impl Queue {
    pub(super) fn new(session: usize, lun: Lun, block_size: u32, blocks: u64) -> Self {
        Self {
            session,
            lun,
            block_size,
            blocks,
            removed: false,
            ready: false,
            depth: Depth::default(),
            head: None,
            tail: None,
        }
    }

    pub(super) fn control(session: usize) -> Self {
        Self::new(session, Lun::default(), 0, 0)
    }
}

impl<F: Fabric> Engine<F> {
    /// Puts a request in its queue, at the end or (a retry) in front.
    pub(super) fn push_waiting(&mut self, key: Key, front: bool) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        request.stage = Stage::Waiting;
        request.next = None;
        let (index, deadline) = (request.queue, request.deadline);
        if let Some(deadline) = deadline {
            self.next_expiry = Some(self.next_expiry.map_or(deadline, |at| at.min(deadline)));
        }
        let Some(queue) = &mut self.queues[index] else { return };
        match (front, queue.head, queue.tail) {
            (true, Some(head), _) => {
                queue.head = Some(key);
                if let Some(request) = self.requests.get_mut(key) {
                    request.next = Some(head);
                }
            }
            (false, Some(_), Some(tail)) => {
                queue.tail = Some(key);
                if let Some(last) = self.requests.get_mut(tail) {
                    last.next = Some(key);
                }
            }
            _ => (queue.head, queue.tail) = (Some(key), Some(key)),
        }
        self.make_ready(index);
        self.dirty = true;
    }

    /// Puts a queue with something in it into its session's ring.
    pub(super) fn make_ready(&mut self, index: usize) {
        if let Some(queue) = &mut self.queues[index]
            && !queue.ready
            && queue.head.is_some()
            && let Some(session) = &mut self.sessions[queue.session]
        {
            queue.ready = true;
            session.ready.push_back(index);
        }
    }

    /// The request that is next in a queue.
    pub(super) fn head(&self, queue: usize) -> Option<Key> {
        self.queues[queue].as_ref()?.head
    }

    /// Takes the first request off a queue.
    pub(super) fn pop_waiting(&mut self, index: usize) -> Option<Key> {
        let key = self.head(index)?;
        let next = self.requests.get_mut(key)?.next.take();
        let queue = self.queues[index].as_mut()?;
        queue.head = next;
        if next.is_none() {
            queue.tail = None;
        }
        Some(key)
    }

    /// Takes those out of a queue that are chosen, the others stay in their order.
    pub(super) fn take_waiting(&mut self, index: usize, chosen: impl Fn(&Request) -> bool) -> Vec<Key> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        while let Some(key) = self.pop_waiting(index) {
            let chosen = self.requests.get(key).is_some_and(&chosen);
            if chosen { &mut taken } else { &mut kept }.push(key);
        }
        kept.into_iter().for_each(|key| self.push_waiting(key, false));
        taken
    }

    /// Fails everything of a queue that is not at the target or with the caller.
    pub(super) fn fail_waiting(&mut self, queue: usize, why: BlockError) {
        while let Some(key) = self.pop_waiting(queue) {
            self.end(key, Err(why));
        }
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&key| {
            let here = self.requests.get(key).is_some_and(|request| request.queue == queue);
            if here && !self.mutated.is(Mutation::DelayedForgotten) {
                self.end(key, Err(why));
            }
            !here
        });
        self.delayed = delayed;
        self.fail_fenced(queue, why);
    }

    /// Starts what credits, slots and buffers allow, each logical unit in its turn.
    pub(super) fn dispatch(&mut self, now: Instant) {
        for session in 0..self.sessions.len() {
            self.dispatch_session(session, now);
        }
    }

    fn dispatch_session(&mut self, index: usize, now: Instant) {
        loop {
            let Some(session) = &self.sessions[index] else { return };
            let Some(&queue) = session.ready.front() else { return };
            let Some(request) = self.head(queue) else {
                self.next_queue(index);
                continue;
            };
            if session.channels.is_empty() {
                self.part_with(queue);
                continue;
            }
            if self.is_full(queue) {
                // It comes back with the next command of its that ends.
                self.rest(index);
                continue;
            }
            match self.start_somewhere(request, index, now) {
                Started::Yes if self.mutated.is(Mutation::NoTurns) => {}
                Started::Yes => self.next_queue(index),
                Started::Refused => {}
                Started::NoBuffer => {
                    // What holds a buffer already, to be sent again, must not wait behind what needs one.
                    let place = self.content(index);
                    if self.mutated.is(Mutation::HoldersInLine) {
                        return;
                    }
                    if let Some(place) = place {
                        self.bring_forward(index, place);
                    } else if !self.free_waiting(index) {
                        return;
                    }
                }
                Started::Wait => return,
            }
        }
    }

    fn is_full(&self, queue: usize) -> bool {
        self.queues[queue].as_ref().is_some_and(|queue| queue.depth.is_full())
    }

    /// Takes the queue in front out of the ring.
    fn rest(&mut self, session: usize) {
        let Some(session) = &mut self.sessions[session] else {
            return;
        };
        if let Some(index) = session.ready.pop_front()
            && let Some(queue) = &mut self.queues[index]
        {
            queue.ready = false;
        }
    }

    /// Starts a request on the channel it has a buffer of, or on the first that can take it.
    fn start_somewhere(&mut self, key: Key, session: usize, now: Instant) -> Started {
        let bound = self.requests.get(key).filter(|request| request.extent.is_some());
        if let Some(index) = bound.and_then(|request| request.channel) {
            let bound_for_ever = self.mutated.is(Mutation::BoundForEver);
            if self.has_room(index) || bound_for_ever {
                return self.start(key, index, now);
            }
            let channels = self.sessions[session].as_ref().map(|session| &session.channels);
            if channels.is_some_and(|channels| channels.iter().any(|&other| self.has_room(other))) {
                // Its data is copied once more; waiting, it would keep those behind it from the other channel.
                self.detach(key);
            }
        }
        let mut outcome = Started::Wait;
        for offset in 0.. {
            let Some(state) = self.sessions[session]
                .as_ref()
                .filter(|state| offset < state.channels.len())
            else {
                break;
            };
            let place = (state.turn + offset) % state.channels.len();
            match self.start(key, state.channels[place], now) {
                Started::Yes => {
                    if let Some(state) = &mut self.sessions[session] {
                        state.turn = place + 1;
                    }
                    return Started::Yes;
                }
                Started::Refused => return Started::Refused,
                Started::NoBuffer => outcome = Started::NoBuffer,
                Started::Wait => {}
            }
        }
        outcome
    }

    fn has_room(&self, channel: usize) -> bool {
        self.channels[channel].as_ref().is_some_and(Channel::has_room)
    }

    /// Whether a session has requests that wait for their turn.
    pub(super) fn is_waiting(&self, session: usize) -> bool {
        let ready = self.sessions[session].as_ref().map(|session| &session.ready);
        ready.is_some_and(|ready| ready.iter().any(|&queue| self.head(queue).is_some()))
    }

    /// The place in the ring, behind the front, of a queue whose first request needs no further buffer and can be sent.
    fn content(&self, session: usize) -> Option<usize> {
        let state = self.sessions[session].as_ref()?;
        let content = |queue: usize| {
            let request = self.head(queue).and_then(|key| self.requests.get(key));
            request.is_some_and(|request| match (request.extent, request.channel) {
                (Some(_), Some(index)) => self.has_room(index),
                _ => request.transfer == Transfer::None && state.channels.iter().any(|&index| self.has_room(index)),
            })
        };
        (1..state.ready.len()).find(|&place| content(state.ready[place]))
    }

    fn bring_forward(&mut self, session: usize, place: usize) {
        if let Some(session) = &mut self.sessions[session]
            && let Some(queue) = session.ready.remove(place)
        {
            session.ready.push_front(queue);
        }
    }

    /// Takes the buffers of requests that stand behind others in their queues, and so cannot use them; false when
    /// there are none.
    fn free_waiting(&mut self, session: usize) -> bool {
        let of_session = |queue: usize| {
            self.queues[queue]
                .as_ref()
                .is_some_and(|queue| queue.session == session)
        };
        let holders: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.stage == Stage::Waiting && request.extent.is_some())
            .filter(|(_, request)| of_session(request.queue))
            .map(|(key, _)| key)
            .collect();
        holders.iter().for_each(|&key| self.detach(key));
        !holders.is_empty()
    }

    /// Moves the queue in front to the end, or out of the ring when it is empty.
    fn next_queue(&mut self, session: usize) {
        let Some(session) = &mut self.sessions[session] else {
            return;
        };
        let Some(index) = session.ready.pop_front() else { return };
        let Some(queue) = &mut self.queues[index] else { return };
        queue.ready = queue.head.is_some();
        if queue.ready {
            session.ready.push_back(index);
        }
    }
}

/// What became of the request in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It left its queue for the target.
    Yes,
    /// It left its queue and failed.
    Refused,
    /// Credit or slot is short.
    Wait,
    /// The arena has no room.
    NoBuffer,
}
