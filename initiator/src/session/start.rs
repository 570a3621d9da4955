//! From a queue to the target: claiming what a command needs, filling its buffer, building and posting it.

use super::engine::Engine;
use super::event::{Event, Handle};
use super::mutation::Mutation;
use super::queue::Started;
use super::request::{BlockOperation, Key, Purpose, Stage};
use super::slots::{Slot, Window};
use crate::fabric::{Exposure, Extent, Fabric, RemoteAccess};
use crate::scsi::{BlockError, Cdb, Lun};
use crate::time::Instant;
use crate::wire::command::{Command, Data, TaskAttribute};

/// Where a command's data goes, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    None,
    ToInitiator(u32),
    ToTarget(u32),
}

impl<F: Fabric> Engine<F> {
    /// Takes the request in front of its queue to a channel.
    pub(super) fn start(&mut self, key: Key, index: usize, now: Instant) -> Started {
        let Some(request) = self.requests.get(key) else {
            return Started::Wait;
        };
        let (queue, held) = (request.queue, request.extent.is_some());
        let transfer = request.transfer;
        let command_limit = now + self.limits.command;
        let Some(channel) = &mut self.channels[index] else {
            return Started::Wait;
        };
        let len = match transfer {
            Transfer::None => 0,
            Transfer::ToInitiator(len) | Transfer::ToTarget(len) => len,
        };
        if len > channel.max_transfer {
            return self.refuse(queue, key, BlockError::Invalid);
        }
        // Before the buffer: for want of that alone another request may be let go first.
        if !channel.can_start() {
            channel.starve(command_limit);
            return Started::Wait;
        }
        let mut extent = None;
        if !held && transfer != Transfer::None {
            extent = match transfer {
                Transfer::ToTarget(_) => channel.write_space.allocate(len),
                _ => channel.read_space.allocate(len),
            };
            if extent.is_none() {
                return Started::NoBuffer;
            }
        }
        // Nothing is overdue before it is sent.
        let Some(slot) = channel.claim(key, Instant::from_nanos(u64::MAX)) else {
            debug_assert!(false, "a channel that can start has a slot");
            return Started::Wait;
        };
        self.pop_waiting(queue);
        if let Some(queue) = &mut self.queues[queue] {
            queue.depth.out += 1;
        }
        let Some(request) = self.requests.get_mut(key) else {
            return Started::Wait;
        };
        request.channel = Some(index);
        request.slot = slot;
        request.extent = request.extent.or(extent);
        if let (Transfer::ToTarget(_), Some(extent), false) = (transfer, request.extent, request.filled) {
            request.stage = Stage::Filling;
            if let (Purpose::Block(block), Some(channel)) = (&request.purpose, &mut self.channels[index]) {
                channel.extents_lent += 1;
                let supply = Event::Supply {
                    id: block.id,
                    handle: Handle(key),
                    qp: channel.qp,
                    extent,
                };
                self.events.push_back(supply);
            }
        } else {
            self.send(key, now);
        }
        Started::Yes
    }

    fn refuse(&mut self, queue: usize, key: Key, why: BlockError) -> Started {
        self.pop_waiting(queue);
        self.end(key, Err(why));
        Started::Refused
    }

    pub(super) fn give_back(&mut self, channel: usize, transfer: Transfer, extent: Extent) {
        let Some(channel) = &mut self.channels[channel] else {
            return;
        };
        match transfer {
            Transfer::None => {}
            Transfer::ToInitiator(_) => channel.read_space.release(extent),
            Transfer::ToTarget(_) => channel.write_space.release(extent),
        }
    }

    /// Builds the command in its claimed slot and posts it.
    pub(super) fn send(&mut self, key: Key, now: Instant) {
        let command_limit = now + self.limits.command;
        let Some(request) = self.requests.get(key) else { return };
        let transfer = request.transfer;
        let (Some(index), slot) = (request.channel, request.slot) else {
            return;
        };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        let (lun, cdb) = match (&request.purpose, &self.queues[request.queue]) {
            (Purpose::Control(control), _) => (control.request.lun, control.request.cdb),
            (Purpose::Block(block), Some(queue)) => (queue.lun, block_cdb(block.operation, block.lba, block.blocks)),
            (Purpose::Block(_), None) => (Lun::default(), Cdb::test_unit_ready()),
        };
        let unchecked = self.mutated.is(Mutation::ImmediateUnchecked);
        let mut window = None;
        let mut describe = |extent, access| match channel.exposure {
            Exposure::Pool => self.fabric.describe(channel.qp, extent),
            Exposure::Window => {
                window = Some((extent, access));
                self.fabric.describe_window(channel.qp, slot, extent)
            }
        };
        let (data, payload) = match (transfer, request.extent) {
            (Transfer::ToTarget(len), Some(extent)) if len <= channel.immediate_data || unchecked && len <= 8192 => {
                (Data::WriteImmediate { len }, Some(extent))
            }
            (Transfer::ToTarget(_), Some(extent)) => (Data::Write(describe(extent, RemoteAccess::Read)), None),
            (Transfer::ToInitiator(_), Some(extent)) => (Data::Read(describe(extent, RemoteAccess::Write)), None),
            _ => (Data::None, None),
        };
        let command = Command {
            tag: channel.tag(slot),
            lun,
            attribute: TaskAttribute::Simple,
            cdb,
            data,
        };
        let buffer = self.fabric.send_slot(channel.qp, slot);
        let limit = buffer.len().min(channel.max_it_iu_len as usize);
        let len = match command.emit(&mut buffer[..limit]) {
            Ok(len) => len,
            Err(error) => {
                // A target whose IU length does not hold one direct descriptor (64 bytes at least) cannot be used.
                tracing::error!(%error, "a command does not fit the target's IU length");
                channel.unclaim(slot);
                self.came_back(key);
                return self.end(key, Err(BlockError::Io));
            }
        };
        let deadline = match &request.purpose {
            Purpose::Block(_) => command_limit,
            Purpose::Control(_) => request.deadline.unwrap_or(command_limit),
        };
        channel.slots[usize::from(slot)] = Slot::Command {
            request: key,
            sending: true,
            answered: false,
            window: match window {
                Some(_) if !self.mutated.is(Mutation::WindowLeftOpen) => Window::Open,
                _ => Window::Closed,
            },
            place: channel.posted + 1,
            deadline,
        };
        channel.watch(deadline);
        channel.posted += 1;
        channel.sends_posted += 1;
        channel.unsent -= 1;
        let (qp, len) = (channel.qp, u32::try_from(len).unwrap_or(u32::MAX));
        if let Some((extent, access)) = window {
            self.open_window(index, slot, extent, access);
        }
        self.fabric.post_send(qp, slot, len, payload);
        if let Some(request) = self.requests.get_mut(key) {
            request.stage = Stage::Sent;
            request.attempts = request.attempts.saturating_add(1);
            request.deadline.get_or_insert(now + self.limits.busy);
            request.answer = None;
        }
    }
}

fn block_cdb(operation: BlockOperation, lba: u64, blocks: u32) -> Cdb {
    match operation {
        BlockOperation::Read => Cdb::read(lba, blocks, false),
        BlockOperation::Write { fua } => Cdb::write(lba, blocks, fua),
        BlockOperation::Flush => Cdb::synchronize_cache(),
    }
}
