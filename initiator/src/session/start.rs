//! From a queue to the target: claiming what a command needs, filling its buffer, building and posting it.

use super::channel::Channel;
use super::engine::{Engine, Spans};
use super::event::{Event, Handle};
use super::mutation::Mutation;
use super::queue::Started;
use super::request::{BlockOperation, Key, Purpose, Request, Stage};
use super::slots::Window;
use crate::fabric::{Exposure, Extent, Fabric, QueuePairId, RemoteAccess};
use crate::scsi::{BlockError, Cdb, Lun};
use crate::time::Instant;
use crate::wire::command::{Command, Data, TaskAttribute};
use crate::wire::{MemoryDescriptor, WireError};

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

impl<F: Fabric> Engine<F> {
    /// Takes the request in front of its queue to a channel.
    pub(super) fn start(&mut self, key: Key, index: usize, now: Instant) -> Started {
        let (Some(request), Some(channel)) = (self.requests.get_mut(key), &mut self.channels[index]) else {
            return Started::Wait;
        };
        let (queue, transfer) = (request.queue, request.transfer);
        let len = transfer.len();
        if len > channel.max_transfer {
            return self.refuse(queue, key, BlockError::Invalid);
        }
        // Before the buffer: for want of that alone another request may be let go first.
        if !channel.can_start() {
            channel.starve(now + self.limits.command);
            self.due = channel.starved.map_or(self.due, |limit| limit.min(self.due));
            return Started::Wait;
        }
        let pieces = channel.pieces_of(request);
        if let (None, Some(space)) = (request.extent, channel.space(transfer)) {
            request.extent = space.allocate(len);
            if request.extent.is_none() {
                request.extent = space.gather(len, pieces);
            }
            if request.extent.is_none() {
                return Started::NoBuffer;
            }
        }
        let Some((slot, tag)) = channel.claim(key) else {
            debug_assert!(false, "a channel that can start has a slot");
            return Started::Wait;
        };
        request.channel = Some(index);
        request.slot = slot;
        let next = request.next.take();
        let mut queue = self.queues[queue].as_mut();
        if let Some(queue) = &mut queue {
            queue.advance(next);
            queue.depth.out += 1;
        }
        if let (Transfer::ToTarget(_), Some(extent), false) = (transfer, request.extent, request.filled) {
            request.stage = Stage::Filling;
            if let Purpose::Block(block) = &request.purpose {
                channel.extents_lent += 1;
                self.events.push_back(Event::Supply {
                    id: block.id,
                    handle: Handle(key),
                    qp: channel.qp,
                    extent,
                });
            }
            return Started::Yes;
        }
        let command = Outgoing {
            request,
            channel,
            lun: queue.map(|queue| queue.lun),
            tag,
        };
        match command.post(&mut self.fabric, &self.spans, now) {
            Ok(deadline) => self.due = self.due.min(deadline),
            Err(error) => self.unsendable(key, index, slot, &error),
        }
        Started::Yes
    }

    #[cold]
    fn refuse(&mut self, queue: usize, key: Key, why: BlockError) -> Started {
        self.pop_waiting(queue);
        self.end(key, Err(why));
        Started::Refused
    }

    #[inline(always)]
    pub(super) fn give_back(&mut self, channel: usize, transfer: Transfer, extent: Extent) {
        if let Some(channel) = &mut self.channels[channel]
            && let Some(space) = channel.space(transfer)
        {
            space.release(extent);
        }
    }

    /// Sends a command whose slot is claimed and whose data is in place.
    pub(super) fn send(&mut self, key: Key, now: Instant) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let (Some(index), slot) = (request.channel, request.slot) else {
            return;
        };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let lun = self.queues[request.queue].as_ref().map(|queue| queue.lun);
        let tag = channel.tag(slot);
        let command = Outgoing {
            request,
            channel,
            lun,
            tag,
        };
        match command.post(&mut self.fabric, &self.spans, now) {
            Ok(deadline) => self.due = self.due.min(deadline),
            Err(error) => self.unsendable(key, index, slot, &error),
        }
    }

    /// The pieces of an extent, in order: what [`Event::Supply`] and [`Event::Data`] lend may not be contiguous where
    /// [`ChannelSetup::descriptors`](super::ChannelSetup::descriptors) allows more than one. They are as long as the extent
    /// together.
    pub fn pieces(&self, qp: QueuePairId, extent: Extent) -> impl Iterator<Item = Extent> {
        let channel = self.by_qp.get(&qp).and_then(|&index| self.channels[index].as_ref());
        let spaces = channel.map(|channel| [&channel.read_space, &channel.write_space]);
        let space = spaces.into_iter().flatten().find(|space| space.is_of(extent.region));
        space.into_iter().flat_map(move |space| space.scattered.pieces(extent))
    }

    /// A target whose IU length does not hold one direct descriptor (64 bytes at least) cannot be used.
    #[cold]
    fn unsendable(&mut self, key: Key, index: usize, slot: u16, error: &WireError) {
        tracing::error!(%error, "a command does not fit the target's IU length");
        if let Some(channel) = &mut self.channels[index] {
            channel.unclaim(slot);
        }
        self.came_back(key);
        self.end(key, Err(BlockError::Io));
    }
}

impl Channel {
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

/// A command on its way out.
struct Outgoing<'a> {
    request: &'a mut Request,
    channel: &'a mut Channel,
    /// Where a block request goes.
    lun: Option<Lun>,
    tag: u64,
}

impl Outgoing<'_> {
    /// Builds the command in its claimed slot and posts it; returns when it is overdue.
    #[inline(always)]
    fn post<F: Fabric>(self, fabric: &mut F, spans: &Spans, now: Instant) -> Result<Instant, WireError> {
        let Self {
            request,
            channel,
            lun,
            tag,
        } = self;
        let (qp, slot) = (channel.qp, request.slot);
        let (lun, cdb, deadline) = match (&request.purpose, lun) {
            (Purpose::Control(control), _) => (control.request.lun, control.request.cdb, request.deadline),
            (Purpose::Block(block), Some(lun)) => (lun, block_cdb(block.operation, block.lba, block.blocks), None),
            (Purpose::Block(_), None) => (Lun::default(), Cdb::test_unit_ready(), None),
        };
        let deadline = deadline.unwrap_or_else(|| now.after(spans.command));
        let windows = channel.exposure == Exposure::Window;
        let unchecked = channel.mutated.is(Mutation::ImmediateUnchecked);
        let (mut payload, mut window, mut list) = (None, None, Vec::new());
        let data = match (request.transfer, request.extent) {
            (Transfer::None, _) | (_, None) => Data::None,
            (Transfer::ToTarget(len), extent) if len <= channel.immediate_data || unchecked && len <= 8192 => {
                payload = extent;
                Data::WriteImmediate { len }
            }
            (transfer, Some(extent)) => {
                let write = matches!(transfer, Transfer::ToTarget(_));
                let space = if write {
                    &channel.write_space
                } else {
                    &channel.read_space
                };
                if space.scattered.has(extent) {
                    channel.in_pieces += 1;
                    let pieces = space.scattered.pieces(extent);
                    list.extend(pieces.map(|piece| fabric.describe(qp, piece)));
                    if channel.mutated.is(Mutation::OnePieceDescribed) {
                        list.truncate(1);
                    }
                    indirect(&list, extent.len, write)
                } else {
                    let descriptor = if windows {
                        window = Some((extent, if write { RemoteAccess::Read } else { RemoteAccess::Write }));
                        fabric.describe_window(qp, slot, extent)
                    } else {
                        fabric.describe(qp, extent)
                    };
                    if write {
                        Data::Write(descriptor)
                    } else {
                        Data::Read(descriptor)
                    }
                }
            }
        };
        let command = Command {
            tag,
            lun,
            attribute: TaskAttribute::Simple,
            cdb,
            data,
        };
        let buffer = fabric.send_slot(qp, slot);
        let limit = buffer.len().min(channel.max_it_iu_len as usize);
        let len = command.emit(&mut buffer[..limit])?;
        request.stage = Stage::Sent;
        request.attempts = request.attempts.saturating_add(1);
        request.deadline.get_or_insert_with(|| now.after(spans.busy));
        request.answer = None;
        let opened = match window {
            Some(_) if !channel.mutated.is(Mutation::WindowLeftOpen) => Window::Open,
            _ => Window::Closed,
        };
        channel.posted(slot, opened, deadline);
        if let Some((extent, access)) = window {
            channel.open_window(fabric, slot, extent, access);
        }
        fabric.post_send(qp, slot, u32::try_from(len).unwrap_or(u32::MAX), payload);
        Ok(deadline)
    }
}

/// Data in several pieces. The whole table is in the IU, and no target of ours reads it anywhere else: it has no address.
#[cold]
fn indirect(list: &[MemoryDescriptor], total: u32, write: bool) -> Data<'_> {
    let table = MemoryDescriptor {
        address: 0,
        key: 0,
        len: u32::try_from(list.len() * Command::DESCRIPTOR_LEN).unwrap_or(u32::MAX),
    };
    let inline = list.into();
    if write {
        Data::WriteIndirect { table, total, inline }
    } else {
        Data::ReadIndirect { table, total, inline }
    }
}

#[inline]
fn block_cdb(operation: BlockOperation, lba: u64, blocks: u32) -> Cdb {
    match operation {
        BlockOperation::Read => Cdb::read(lba, blocks, false),
        BlockOperation::Write { fua } => Cdb::write(lba, blocks, fua),
        BlockOperation::Flush => Cdb::synchronize_cache(),
    }
}
