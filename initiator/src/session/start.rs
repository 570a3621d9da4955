//! From a queue to the target: claiming what a command needs, and filling its buffer.

use super::buffer::ArenaSpace;
use super::channel::Channel;
use super::engine::{Engine, Spans};
use super::event::{Event, Events, Handle};
use super::mutation::{Mutated, Mutation};
use super::post::Outgoing;
use super::queue::{Queue, Started};
use super::request::{Key, Purpose, Request, Stage};
use super::roster::SessionState;
use crate::fabric::{Extent, Fabric, QueuePairId};
use crate::scsi::BlockError;
use crate::time::Instant;
use crate::wire::WireError;

/// Where a command's data goes, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    None,
    ToInitiator(u32),
    ToTarget(u32),
}

impl Transfer {
    /// Bytes.
    #[inline]
    pub(super) fn len(self) -> u32 {
        match self {
            Self::None => 0,
            Self::ToInitiator(len) | Self::ToTarget(len) => len,
        }
    }
}

/// What starting a command takes beside its request, queue and channel.
pub(super) struct Start<'a, F> {
    pub(super) fabric: &'a mut F,
    pub(super) events: &'a mut Events,
    pub(super) spans: &'a Spans,
    pub(super) due: &'a mut Instant,
    pub(super) now: Instant,
}

impl<F: Fabric> Start<'_, F> {
    /// The same anew, for a function that is not inlined: whatever one has the address of is kept in memory.
    #[inline(always)]
    pub(super) fn parts(&mut self) -> Start<'_, F> {
        Start {
            fabric: self.fabric,
            events: self.events,
            spans: self.spans,
            due: self.due,
            now: self.now,
        }
    }

    /// Takes the request in front of its queue to a channel.
    #[inline(always)]
    pub(super) fn start(
        &mut self,
        key: Key,
        request: &mut Request,
        index: usize,
        channel: &mut Channel,
        queue: &mut Queue,
    ) -> Started {
        if request.transfer.len() > channel.max_transfer {
            return Started::Refused;
        }
        // Before the buffer: for want of that alone another request may be let go first.
        if !channel.can_start() {
            self.parts().starve(channel);
            return Started::Wait;
        }
        if request.extent.is_none() && !channel.allocate(request) {
            return Started::NoBuffer;
        }
        let Some((slot, tag)) = channel.claim() else {
            debug_assert!(false, "a channel that can start has a slot");
            return Started::Wait;
        };
        request.channel = Some(index);
        request.slot = slot;
        queue.advance(request.next.take());
        queue.depth.left();
        if let (Transfer::ToTarget(_), Some(extent), false) = (request.transfer, &request.extent, request.filled) {
            request.stage = Stage::Filling;
            channel.hold(slot, key);
            if let Purpose::Block(block) = &request.purpose {
                self.events.put(|| Event::Supply {
                    id: block.id,
                    handle: Handle(key),
                    qp: channel.qp,
                    extent: *extent,
                });
            }
            return Started::Yes;
        }
        let command = Outgoing {
            key,
            request,
            channel,
            tag,
        };
        match self.post(command) {
            Ok(()) => Started::Yes,
            Err(error) => unsendable(&error),
        }
    }

    #[cold]
    fn starve(&mut self, channel: &mut Channel) {
        channel.starve(self.now.after(self.spans.command));
        *self.due = channel.starved.map_or(*self.due, |limit| limit.min(*self.due));
    }
}

impl SessionState {
    /// Starts a request that was just made if it is its turn: nobody waits whom it would pass over.
    #[inline(always)]
    pub(super) fn start_at_once<F: Fabric>(
        &mut self,
        start: &mut Start<'_, F>,
        key: Key,
        request: &mut Request,
        channels: &mut [Option<Channel>],
        queue: &mut Queue,
        mutated: Mutated,
    ) -> Started {
        let passes_over = !self.ready.is_empty() && !mutated.is(Mutation::PassesOver);
        if passes_over || !queue.is_idle() {
            return Started::Wait;
        }
        // Where the next channel does not take it another may: that is looked at when it waits.
        let place = if self.turn < self.channels.len() { self.turn } else { 0 };
        let Some(&index) = self.channels.get(place) else {
            return Started::Wait;
        };
        let Some(Some(channel)) = channels.get_mut(index) else {
            return Started::Wait;
        };
        let started = start.start(key, request, index, channel, queue);
        if matches!(started, Started::Yes | Started::Unsendable) {
            self.took_turn(place, request.transfer.len());
        }
        started
    }
}

/// A target whose IU length does not hold one direct descriptor (64 bytes at least) cannot be used.
#[cold]
fn unsendable(error: &WireError) -> Started {
    tracing::error!(%error, "a command does not fit the target's IU length");
    Started::Unsendable
}

impl<F: Fabric> Engine<F> {
    #[cold]
    pub(super) fn refuse(&mut self, queue: usize) {
        if let Some(key) = self.pop_waiting(queue) {
            self.end(key, Err(BlockError::Invalid));
        }
    }

    /// The data of a [`Event::Supply`] is in place, or could not be had.
    pub fn supplied(&mut self, handle: Handle, ok: bool, now: Instant) {
        let Handle(key) = handle;
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        if request.stage != Stage::Filling {
            debug_assert!(false, "supplied twice");
            return;
        }
        request.filled = ok;
        let (Some(index), slot) = (request.channel, request.slot) else {
            return;
        };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let may_send = channel.unhold();
        if !channel.serving || !ok || !may_send {
            return self.held_back(key, index, ok, now);
        }
        let tag = channel.tag(slot);
        let command = Outgoing {
            key,
            request,
            channel,
            tag,
        };
        let mut start = Start {
            fabric: &mut self.fabric,
            events: &mut self.events,
            spans: &self.spans,
            due: &mut self.due,
            now,
        };
        if let Err(error) = start.post_write(command) {
            unsendable(&error);
            self.unsendable(key);
        }
    }

    /// A command that waited for its data cannot be sent: there is none, or no channel or credit for it any more.
    #[cold]
    fn held_back(&mut self, key: Key, index: usize, ok: bool, now: Instant) {
        let (Some(request), Some(channel)) = (self.requests.get(key), &mut self.channels[index]) else {
            return;
        };
        let (queue, serving) = (request.queue, channel.serving);
        channel.unclaim(request.slot);
        self.came_back(key);
        if serving && ok {
            return self.push_waiting(key);
        }
        let removed = self.queues[queue].as_ref().is_none_or(|queue| queue.removed);
        if ok && !removed && (self.is_connected(queue) || self.may_part(key)) {
            self.detach(key);
            self.push_waiting(key);
            return self.settle(index, now);
        }
        let why = if ok { BlockError::Transport } else { BlockError::Io };
        self.end(key, Err(why));
        self.dirty = !self.mutated.is(Mutation::UnsuppliedSilently);
        self.settle(index, now);
    }

    /// Whether an extent has several pieces.
    #[must_use]
    pub fn is_scattered(&self, qp: QueuePairId, extent: Extent) -> bool {
        self.space_of(qp, extent)
            .is_some_and(|space| space.scattered.has(extent))
    }

    /// The pieces of an extent, in order: what [`Event::Supply`] and [`Event::Data`] lend may not be contiguous where
    /// [`ChannelSetup::descriptors`](super::ChannelSetup::descriptors) allows more than one. They are as long as the extent
    /// together.
    pub fn pieces(&self, qp: QueuePairId, extent: Extent) -> impl Iterator<Item = Extent> {
        let space = self.space_of(qp, extent);
        space.into_iter().flat_map(move |space| space.scattered.pieces(extent))
    }

    fn space_of(&self, qp: QueuePairId, extent: Extent) -> Option<&ArenaSpace> {
        let index = *self.by_qp.get(&qp)?;
        let channel = self.channels[index].as_ref()?;
        let mut spaces = [&channel.read_space, &channel.write_space].into_iter();
        spaces.find(|space| space.is_of(extent.region))
    }

    /// A claimed command does not fit its IU.
    #[cold]
    pub(super) fn unsendable(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        if let Some(channel) = request.channel.and_then(|index| self.channels[index].as_mut()) {
            channel.unclaim(request.slot);
        }
        self.came_back(key);
        self.end(key, Err(BlockError::Io));
    }
}

impl Channel {
    /// Takes a buffer for a request that needs one; false when there is no room.
    #[inline(always)]
    fn allocate(&mut self, request: &mut Request) -> bool {
        let Some(space) = self.space(request.transfer) else {
            return true;
        };
        request.extent = space.allocate(request.transfer.len());
        request.extent.is_some() || self.gather(request)
    }

    #[cold]
    fn gather(&mut self, request: &mut Request) -> bool {
        let pieces = self.pieces_of(request);
        if let Some(space) = self.space(request.transfer) {
            request.extent = space.gather(request.transfer.len(), pieces);
        }
        request.extent.is_some()
    }

    /// How many pieces the data of a request may be in. What is sent within the command, and what the control side
    /// reads, is in one.
    fn pieces_of(&self, request: &Request) -> usize {
        match (&request.purpose, request.transfer) {
            (Purpose::Control(_), _) => 0,
            (_, Transfer::ToTarget(len)) if len <= self.immediate_data => 0,
            _ => self.pieces,
        }
    }
}
