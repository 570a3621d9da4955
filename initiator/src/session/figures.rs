//! What an engine has under way, for those that watch it.

use super::channel::Channel;
use super::engine::Engine;
use super::request::LunKey;
use crate::fabric::{Fabric, QueuePairId};

/// Figures of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// Requests the target would take now.
    pub credits: i64,
    /// Commands sent and not finished.
    pub commands: u32,
    /// Commands that have their credit and are not sent yet.
    pub unsent: u32,
    /// Times a command had to wait for credit.
    pub zero_credit: u64,
    /// ABORT TASK sent.
    pub aborts: u64,
    /// LOGICAL UNIT RESET sent.
    pub resets: u64,
    /// Arena bytes in use.
    pub bytes_in_use: u32,
    /// Commands whose data was in several pieces of an arena.
    pub in_pieces: u64,
}

/// Figures of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Commands that left its queue and have not ended.
    pub commands: u32,
    /// How many it is given at once, while it is given fewer than credit allows.
    pub depth: Option<u32>,
}

/// What an engine holds of anything, for the test that it can let go of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Sessions it knows.
    pub sessions: usize,
    /// Channels, closing ones among them; with them go their extents.
    pub channels: usize,
    /// Queues of disks and of control sides.
    pub queues: usize,
    /// Those whose session is gone.
    pub orphans: usize,
    /// Requests in any stage.
    pub requests: usize,
    /// Requests that rest or wait for a reset, and functions of the control side.
    pub pending: usize,
}

impl Holdings {
    /// It holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions + self.channels + self.queues + self.requests + self.pending == 0
    }
}

impl<F: Fabric> Engine<F> {
    /// What it holds.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let queues = || self.queues.iter().flatten();
        let orphans = queues().filter(|queue| self.sessions[queue.session].is_none());
        Holdings {
            sessions: self.sessions.iter().flatten().count(),
            channels: self.channels.iter().flatten().count(),
            queues: queues().count(),
            orphans: orphans.count(),
            requests: self.requests.len(),
            pending: self.delayed.len() + self.fences.len() + self.tasks.len(),
        }
    }

    /// Commands at targets whose answer is expected.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.channels.iter().flatten().map(Channel::commands_out).sum()
    }

    /// Whether the completion of a SEND has to be heard of, also when the target says nothing more. Else a sleeper
    /// need only be woken by what is received.
    #[must_use]
    pub fn waits_for_sends(&self) -> bool {
        self.channels.iter().flatten().any(Channel::waits_for_sends)
    }

    /// Requests under way in any stage.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Credit, commands out and arena bytes in use of a channel, for `show`.
    #[must_use]
    pub fn channel_state(&self, qp: QueuePairId) -> Option<ChannelState> {
        let channel = self.channels[*self.by_qp.get(&qp)?].as_ref()?;
        Some(ChannelState {
            credits: channel.credits,
            commands: channel.commands_out(),
            unsent: channel.unsent,
            zero_credit: channel.zero_credit,
            aborts: channel.aborts,
            resets: channel.resets,
            bytes_in_use: channel.read_space.in_use() + channel.write_space.in_use(),
            in_pieces: channel.in_pieces,
        })
    }

    /// What a disk has under way.
    #[must_use]
    pub fn disk_state(&self, key: LunKey) -> Option<DiskState> {
        let &index = self.disks.get(&key)?;
        let queue = self.queues[index].as_ref()?;
        Some(DiskState {
            commands: self.commands_of(index),
            depth: queue.depth.limit,
        })
    }
}
