//! Building a command in its slot, and posting it.

use super::buffer::ArenaSpace;
use super::channel::Channel;
use super::mutation::Mutation;
use super::request::{BlockOperation, BlockRequest, Key, Purpose, Request, Stage};
use super::slots::Window;
use super::start::{Start, Transfer};
use crate::fabric::{Exposure, Extent, Fabric, RemoteAccess};
use crate::scsi::Cdb;
use crate::time::Instant;
use crate::wire::command::{Command, Data, TaskAttribute};
use crate::wire::{MemoryDescriptor, WireError};

/// A command on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) key: Key,
    pub(super) request: &'a mut Request,
    pub(super) channel: &'a mut Channel,
    pub(super) tag: u64,
}

/// A memory window to open with a command.
type Opened = Option<(Extent, RemoteAccess)>;

impl<F: Fabric> Start<'_, F> {
    /// Builds a command in its claimed slot and posts it.
    #[inline(always)]
    pub(super) fn post(&mut self, command: Outgoing<'_>) -> Result<(), WireError> {
        let Outgoing { request, channel, .. } = &command;
        // Nearly all commands go one of three ways: each on its own, what hangs on the form of the data is settled when this
        // is compiled.
        match (&request.purpose, request.transfer, request.extent) {
            (Purpose::Block(block), Transfer::ToInitiator(_), Some(extent))
                if channel.is_plain(&channel.read_space) =>
            {
                let limit = self.now.after(self.spans.command);
                let cdb = Cdb::read(block.lba, block.blocks, false);
                let data = Data::Read(self.fabric.describe(channel.qp, extent));
                self.post_data(command, cdb, limit, data, None, None)
            }
            _ => self.post_write(command),
        }
    }

    /// The same for what is no read.
    #[inline(always)]
    pub(super) fn post_write(&mut self, command: Outgoing<'_>) -> Result<(), WireError> {
        let Outgoing { request, channel, .. } = &command;
        let unchecked = channel.mutated.is(Mutation::ImmediateUnchecked);
        let limit = self.now.after(self.spans.command);
        match (&request.purpose, request.transfer, request.extent) {
            (Purpose::Block(block), Transfer::ToTarget(len), extent)
                if len <= channel.immediate_data || unchecked && len <= 8192 =>
            {
                let cdb = Cdb::write(block.lba, block.blocks, block.operation.fua());
                self.post_data(command, cdb, limit, Data::WriteImmediate { len }, extent, None)
            }
            (Purpose::Block(block), Transfer::ToTarget(_), Some(extent)) if channel.is_plain(&channel.write_space) => {
                let cdb = Cdb::write(block.lba, block.blocks, block.operation.fua());
                let data = Data::Write(self.fabric.describe(channel.qp, extent));
                self.post_data(command, cdb, limit, data, None, None)
            }
            // Put together anew, as in `parts`.
            _ => {
                let Outgoing {
                    key,
                    request,
                    channel,
                    tag,
                } = command;
                self.parts().post_otherwise(Outgoing {
                    key,
                    request,
                    channel,
                    tag,
                })
            }
        }
    }

    /// The same for any other: no data, data in several pieces or behind a window, the control side's.
    #[cold]
    fn post_otherwise(&mut self, command: Outgoing<'_>) -> Result<(), WireError> {
        let Outgoing { request, channel, .. } = command;
        let limit = self.now.after(self.spans.command);
        let (cdb, deadline) = match &request.purpose {
            Purpose::Block(block) => (block_cdb(block), limit),
            Purpose::Control(control) => (control.request.cdb, request.deadline.unwrap_or(limit)),
        };
        let (qp, slot) = (channel.qp, request.slot);
        let write = matches!(request.transfer, Transfer::ToTarget(_));
        let (space, access) = if write {
            (&channel.write_space, RemoteAccess::Read)
        } else {
            (&channel.read_space, RemoteAccess::Write)
        };
        let (mut window, mut list) = (None, Vec::new());
        let data = match request.extent {
            None => Data::None,
            Some(extent) => {
                if space.scattered.has(extent) {
                    channel.in_pieces += 1;
                    let pieces = space.scattered.pieces(extent);
                    list.extend(pieces.map(|piece| self.fabric.describe(qp, piece)));
                    if channel.mutated.is(Mutation::OnePieceDescribed) {
                        list.truncate(1);
                    }
                    indirect(&list, extent.len, write)
                } else {
                    let descriptor = if channel.exposure == Exposure::Window {
                        window = Some((extent, access));
                        self.fabric.describe_window(qp, slot, extent)
                    } else {
                        self.fabric.describe(qp, extent)
                    };
                    if write {
                        Data::Write(descriptor)
                    } else {
                        Data::Read(descriptor)
                    }
                }
            }
        };
        let command = Outgoing {
            request,
            channel,
            ..command
        };
        self.post_data(command, cdb, deadline, data, None, window)
    }

    #[inline(always)]
    fn post_data(
        &mut self,
        command: Outgoing<'_>,
        cdb: Cdb,
        deadline: Instant,
        data: Data<'_>,
        payload: Option<Extent>,
        window: Opened,
    ) -> Result<(), WireError> {
        let Outgoing {
            key,
            request,
            channel,
            tag,
        } = command;
        let (qp, slot) = (channel.qp, request.slot);
        let command = Command {
            tag,
            lun: request.lun,
            attribute: TaskAttribute::Simple,
            cdb,
            data,
        };
        let buffer = self.fabric.send_slot(qp, slot);
        let limit = buffer.len().min(channel.max_it_iu_len as usize);
        let len = command.emit(&mut buffer[..limit])?;
        request.stage = Stage::Sent;
        request.deadline.get_or_insert_with(|| self.now.after(self.spans.busy));
        request.answer = None;
        let opened = match window {
            Some(_) if !channel.mutated.is(Mutation::WindowLeftOpen) => Window::Open,
            _ => Window::Closed,
        };
        if channel.posted(slot, key, opened, deadline) {
            *self.due = (*self.due).min(deadline);
        }
        if let Some((extent, access)) = window {
            channel.open_window(self.fabric, slot, extent, access);
        }
        self.fabric
            .post_send(qp, slot, u32::try_from(len).unwrap_or(u32::MAX), payload);
        Ok(())
    }
}

impl Channel {
    /// Whether the data of commands is described by where it is, and that is one place.
    #[inline(always)]
    fn is_plain(&self, space: &ArenaSpace) -> bool {
        self.exposure == Exposure::Pool && space.scattered.is_empty()
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

fn block_cdb(block: &BlockRequest) -> Cdb {
    match block.operation {
        BlockOperation::Read => Cdb::read(block.lba, block.blocks, false),
        BlockOperation::Write { fua } => Cdb::write(block.lba, block.blocks, fua),
        BlockOperation::Flush => Cdb::synchronize_cache(),
    }
}
