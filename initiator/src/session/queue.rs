//! Who is next: first in, first out within a logical unit, round robin across them.

use super::channel::Channel;
use super::depth::Depth;
use super::due::sooner;
use super::engine::{Engine, SessionState};
use super::mutation::Mutation;
use super::request::{Key, Request, Stage};
use super::start::Transfer;
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun, outcome};
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

    /// Puts the queue at `index` into its session's ring if it has something in it.
    #[inline]
    pub(super) fn make_ready(&mut self, index: usize, sessions: &mut [Option<SessionState>]) {
        if !self.ready
            && self.head.is_some()
            && let Some(session) = &mut sessions[self.session]
        {
            self.ready = true;
            session.ready.push_back(index);
        }
    }

    /// The first request is taken off; `next` came behind it.
    pub(super) fn advance(&mut self, next: Option<Key>) {
        self.head = next;
        if next.is_none() {
            self.tail = None;
        }
    }
}

/// A command of the queue at `index` was answered.
#[inline(always)]
pub(super) fn ended(queues: &mut [Option<Queue>], index: usize, status: u8, sessions: &mut [Option<SessionState>]) {
    let Some(queue) = &mut queues[index] else { return };
    match status {
        outcome::BUSY | outcome::TASK_SET_FULL => queue.depth.refused(),
        _ => queue.depth.went_well(),
    }
    if queue.depth.came_back() {
        queue.make_ready(index, sessions);
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
            self.next_expiry = sooner(self.next_expiry, Some(deadline));
            self.due = self.due.min(deadline);
        }
        self.link(index, key, front);
    }

    /// The same for a request that says already that it waits, without a deadline.
    #[inline(always)]
    pub(super) fn link(&mut self, index: usize, key: Key, front: bool) {
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
        queue.make_ready(index, &mut self.sessions);
        self.dirty = true;
    }

    /// Puts a queue with something in it into its session's ring.
    pub(super) fn make_ready(&mut self, index: usize) {
        if let Some(queue) = &mut self.queues[index] {
            queue.make_ready(index, &mut self.sessions);
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
        self.queues[index].as_mut()?.advance(next);
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
        for index in 0..self.sessions.len() {
            let session = self.sessions[index].as_ref();
            if session.is_some_and(|session| !session.ready.is_empty()) {
                self.dispatch_session(index, now);
            }
        }
    }

    fn dispatch_session(&mut self, index: usize, now: Instant) {
        loop {
            let Some(session) = &self.sessions[index] else { return };
            let Some(&queue) = session.ready.front() else { return };
            let front = self.queues[queue].as_ref();
            let Some((request, full)) = front.and_then(|queue| Some((queue.head?, queue.depth.is_full()))) else {
                self.next_queue(index, queue);
                continue;
            };
            if session.channels.is_empty() {
                self.part_with(queue);
                continue;
            }
            if full {
                // It comes back with the next command of its that ends.
                self.rest(index);
                continue;
            }
            match self.start_somewhere(request, index, now) {
                Started::Yes if self.mutated.is(Mutation::NoTurns) => {}
                Started::Yes => self.next_queue(index, queue),
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
        let bound = self.bound(key, session);
        let Some(turn) = self.sessions[session].as_ref().map(|state| state.turn) else {
            return Started::Wait;
        };
        let mut outcome = Started::Wait;
        for offset in 0.. {
            let Some(state) = &mut self.sessions[session] else {
                break;
            };
            if offset >= state.channels.len() {
                break;
            }
            let mut place = turn + offset;
            if place >= state.channels.len() {
                place %= state.channels.len();
            }
            // The next command goes to the next channel, if this one takes it.
            state.turn = if bound.is_none() { place + 1 } else { turn };
            let index = bound.unwrap_or(state.channels[place]);
            let started = self.start(key, index, now);
            if started == Started::Yes {
                return started;
            }
            if started == Started::NoBuffer {
                outcome = started;
            }
            if started == Started::Refused || bound.is_some() {
                outcome = started;
                break;
            }
        }
        if let Some(state) = &mut self.sessions[session] {
            state.turn = turn;
        }
        outcome
    }

    /// The channel that a request has a buffer of, if it is to go there.
    #[inline]
    fn bound(&mut self, key: Key, session: usize) -> Option<usize> {
        let request = self.requests.get(key)?;
        let index = request.channel.filter(|_| request.extent.is_some())?;
        self.bound_to(index, key, session)
    }

    #[cold]
    fn bound_to(&mut self, index: usize, key: Key, session: usize) -> Option<usize> {
        if self.has_room(index) || self.mutated.is(Mutation::BoundForEver) {
            return Some(index);
        }
        let channels = self.sessions[session].as_ref().map(|session| &session.channels);
        if channels.is_some_and(|channels| channels.iter().any(|&other| self.has_room(other))) {
            // Its data is copied once more; waiting, it would keep those behind it from the other channel.
            self.detach(key);
        }
        None
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
    #[inline]
    fn next_queue(&mut self, session: usize, front: usize) {
        let ready = self.queues[front].as_mut().is_some_and(|queue| {
            queue.ready = queue.head.is_some();
            queue.ready
        });
        let Some(session) = &mut self.sessions[session] else {
            return;
        };
        debug_assert_eq!(session.ready.front(), Some(&front), "another queue came to the front");
        if ready && session.ready.len() == 1 {
            return;
        }
        session.ready.pop_front();
        if ready {
            session.ready.push_back(front);
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
