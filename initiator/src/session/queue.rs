//! Who is next: first in, first out within a logical unit, round robin across them.

use super::channel::Channel;
use super::depth::Depth;
use super::due::sooner;
use super::engine::Engine;
use super::failover::detach;
use super::mutation::Mutation;
use super::request::{BlockOperation, BlockRequest, Key, Purpose, Request, Requests, Stage};
use super::roster::{SessionState, TURN};
use super::short::Short;
use super::start::{Start, Transfer};
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
    /// The last, while there is a first.
    tail: Key,
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
            tail: 0,
        }
    }

    pub(super) fn control(session: usize) -> Self {
        Self::new(session, Lun::default(), 0, 0)
    }

    /// What a block request moves.
    #[inline(always)]
    pub(super) fn transfer(&self, request: &BlockRequest) -> Result<Transfer, BlockError> {
        let fits = request
            .lba
            .checked_add(u64::from(request.blocks))
            .is_some_and(|end| end <= self.blocks);
        let len = request.blocks.checked_mul(self.block_size);
        match (request.operation, len) {
            (BlockOperation::Flush, _) => Ok(Transfer::None),
            (BlockOperation::Read, Some(len)) if fits && len > 0 => Ok(Transfer::ToInitiator(len)),
            (BlockOperation::Write { .. }, Some(len)) if fits && len > 0 => Ok(Transfer::ToTarget(len)),
            _ => Err(BlockError::Invalid),
        }
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

    /// Nothing waits in it, and its unit takes more.
    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.head.is_none() && !self.depth.is_full()
    }

    /// The first request is taken off; `next` came behind it.
    #[inline]
    pub(super) fn advance(&mut self, next: Option<Key>) {
        self.head = next;
    }

    /// Puts a new request at the end.
    #[inline(always)]
    pub(super) fn push(&mut self, key: Key, requests: &mut Requests) {
        if self.head.is_none() {
            self.head = Some(key);
        } else if let Some(last) = requests.get_mut(self.tail) {
            last.next = Some(key);
        }
        self.tail = key;
    }

    /// Puts a request where it belongs: behind all that came earlier. With the defect, in front.
    #[cold]
    pub(super) fn put(&mut self, key: Key, requests: &mut Requests, in_front: bool) {
        let order = |requests: &Requests, key| requests.get(key).map_or(0, |request| request.order);
        let own = order(requests, key);
        if self.head.is_none() || order(requests, self.tail) < own && !in_front {
            return self.push(key, requests);
        }
        let (mut before, mut next) = (None, self.head);
        while let Some(other) = next.filter(|&other| order(requests, other) < own && !in_front) {
            before = next;
            next = requests.get(other).and_then(|request| request.next);
        }
        if let Some(request) = requests.get_mut(key) {
            request.next = next;
        }
        match before.and_then(|before| requests.get_mut(before)) {
            Some(before) => before.next = Some(key),
            None => self.head = Some(key),
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// Puts a request in its queue: a new one at the end, one that was in it before where it was.
    pub(super) fn push_waiting(&mut self, key: Key) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let in_front = request.stage != Stage::Waiting && self.mutated.is(Mutation::LastBackFirst);
        request.stage = Stage::Waiting;
        request.next = None;
        let (index, deadline) = (request.queue, request.deadline);
        if let Some(deadline) = deadline {
            self.next_expiry = sooner(self.next_expiry, Some(deadline));
            self.due = self.due.min(deadline);
        }
        let Some(queue) = &mut self.queues[index] else { return };
        queue.put(key, &mut self.requests, in_front);
        queue.make_ready(index, &mut self.sessions);
        self.dirty = true;
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
        kept.into_iter().for_each(|key| self.push_waiting(key));
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
    #[inline(never)]
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.dirty = false;
        // Mostly a command has ended, and none waits.
        if self.sessions.iter().flatten().any(|session| !session.ready.is_empty()) {
            self.dispatch_sessions(now);
        }
    }

    #[inline(never)]
    fn dispatch_sessions(&mut self, now: Instant) {
        for index in 0..self.sessions.len() {
            let session = self.sessions[index].as_ref();
            if session.is_some_and(|session| !session.ready.is_empty()) {
                self.dispatch_session(index, now);
            }
        }
    }

    #[inline(never)]
    fn dispatch_session(&mut self, index: usize, now: Instant) {
        match self.take_turns(index, Short::default(), now) {
            Halt::Wait => {}
            halt => self.go_on(index, halt, now),
        }
    }

    /// Deals with what is in the way, and goes on with what it is not in the way of.
    // It has a copy of what it goes on with, so that in the other nothing asks which arenas are short.
    #[cold]
    #[inline(never)]
    fn go_on(&mut self, index: usize, mut halt: Halt, now: Instant) {
        let mut short = Short::default();
        loop {
            match halt {
                Halt::Wait if short.is_none() => return,
                Halt::Wait => {
                    let freed = self.free_waiting(index, short);
                    self.line_up(index);
                    if !freed {
                        return;
                    }
                    short = Short::default();
                }
                Halt::NoChannel(queue) => self.part_with(queue),
                Halt::Refused(queue) => self.refuse(queue),
                Halt::Unsendable(key) => self.unsendable(key),
                Halt::NoBuffer(_) if self.mutated.is(Mutation::HoldersInLine) => return,
                Halt::NoBuffer(transfer) => {
                    // Only those that need one of the same arena wait with it: not what holds one already, to be sent
                    // again, nor what goes the other way.
                    short.add(transfer);
                    self.step_aside(index);
                }
            }
            halt = self.take_turns(index, short, now);
        }
    }

    /// Starts requests of a session, each logical unit in its turn, until something is in the way.
    #[inline(always)]
    fn take_turns(&mut self, index: usize, short: Short, now: Instant) -> Halt {
        let Some(session) = &mut self.sessions[index] else {
            return Halt::Wait;
        };
        while let Some(&front) = session.ready.front() {
            let Some(queue) = &mut self.queues[front] else {
                session.ready.pop_front();
                continue;
            };
            let Some(key) = queue.head else {
                session.rest(queue);
                continue;
            };
            if session.channels.is_empty() {
                return Halt::NoChannel(front);
            }
            if queue.depth.is_full() {
                // It comes back with the next command of its that ends.
                session.rest(queue);
                continue;
            }
            let Some(request) = self.requests.get_mut(key) else {
                return Halt::Wait;
            };
            if request.extent.is_none() && short.is_of(request.transfer) {
                return Halt::NoBuffer(request.transfer);
            }
            let mut bound = None;
            if let (Some(_), Some(index)) = (request.extent, request.channel) {
                let forever = self.mutated.is(Mutation::BoundForEver);
                bound = bound_to(index, request, &session.channels, &mut self.channels, forever);
            }
            let mut start = Start {
                fabric: &mut self.fabric,
                events: &mut self.events,
                spans: &self.spans,
                due: &mut self.due,
                now,
            };
            // On the channel it has a buffer of, or on the first that can take it.
            let channels = session.channels.len();
            let turn = if session.turn < channels { session.turn } else { 0 };
            let mut outcome = Started::Wait;
            for offset in 0..channels {
                let mut place = turn + offset;
                if place >= channels {
                    place -= channels;
                }
                let index = bound.unwrap_or(session.channels[place]);
                let Some(channel) = &mut self.channels[index] else {
                    continue;
                };
                let started = start.start(key, request, index, channel, queue);
                if started != Started::Wait {
                    outcome = started;
                }
                if matches!(started, Started::Yes | Started::Unsendable) && bound.is_none() {
                    if place != session.turn {
                        session.streak = 0;
                    }
                    // Control commands go over one channel each, as they may ask whether the target is there.
                    let bytes = match request.purpose {
                        Purpose::Block(_) => request.transfer.len(),
                        Purpose::Control(_) => TURN,
                    };
                    session.took_turn(place, bytes);
                }
                if !matches!(started, Started::Wait | Started::NoBuffer) || bound.is_some() {
                    break;
                }
            }
            match outcome {
                Started::Yes if self.mutated.is(Mutation::NoTurns) => {}
                Started::Yes => session.next_queue(front, queue),
                Started::Unsendable => {
                    session.next_queue(front, queue);
                    return Halt::Unsendable(key);
                }
                Started::Refused => return Halt::Refused(front),
                Started::NoBuffer => return Halt::NoBuffer(request.transfer),
                Started::Wait => return Halt::Wait,
            }
        }
        Halt::Wait
    }

    /// Whether a session has requests that wait for their turn.
    pub(super) fn is_waiting(&self, session: usize) -> bool {
        let ready = self.sessions[session].as_ref().map(|session| &session.ready);
        ready.is_some_and(|ready| ready.iter().any(|&queue| self.head(queue).is_some()))
    }
}

impl SessionState {
    /// The queue in front leaves the ring.
    fn rest(&mut self, front: &mut Queue) {
        front.ready = false;
        self.ready.pop_front();
    }

    /// The queue in front had its turn: it goes to the end, or leaves the ring when it is empty.
    #[inline(always)]
    fn next_queue(&mut self, index: usize, front: &mut Queue) {
        if front.head.is_none() {
            self.rest(front);
        } else if self.ready.len() > 1 {
            self.ready.pop_front();
            self.ready.push_back(index);
        }
    }
}

/// The channel that a request has a buffer of, if it is to go there.
#[cold]
fn bound_to(
    index: usize,
    request: &mut Request,
    others: &[usize],
    channels: &mut [Option<Channel>],
    forever: bool,
) -> Option<usize> {
    let has_room = |index: usize| channels[index].as_ref().is_some_and(Channel::has_room);
    if has_room(index) || forever {
        return Some(index);
    }
    if others.iter().any(|&other| has_room(other)) {
        // Its data is copied once more; waiting, it would keep those behind it from the other channel.
        detach(request, channels);
    }
    None
}

/// What became of the request in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It left its queue for the target.
    Yes,
    /// It left its queue, and the IU does not hold it.
    Unsendable,
    /// It is longer than any request may be.
    Refused,
    /// Credit or slot is short.
    Wait,
    /// The arena has no room.
    NoBuffer,
}

/// Why no more requests are started.
enum Halt {
    /// None waits, or credit or slot is short.
    Wait,
    /// The arena has no room for the one in front, whose data goes this way.
    NoBuffer(Transfer),
    /// The session of the queue in front has no channel here.
    NoChannel(usize),
    /// The request in front of a queue is longer than any may be.
    Refused(usize),
    /// An IU does not hold a request that left its queue.
    Unsendable(Key),
}
