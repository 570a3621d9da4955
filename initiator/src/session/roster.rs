//! Who is there: sessions, their disks and their channels.

use std::collections::VecDeque;

use super::channel::{Channel, ChannelSetup};
use super::engine::Engine;
use super::mutation::Mutation;
use super::queue::Queue;
use super::request::{LunKey, SessionKey};
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun};
use crate::time::Instant;

/// Bytes of commands after which it is the turn of the next channel. Small commands that are sent together share a doorbell and
/// what a target does once for all it finds; large ones are to be served side by side.
pub(super) const TURN: u32 = 64 << 10;
/// A command counts for so many at least.
const LEAST: u32 = 4 << 10;

/// A disk as the engine has to know it.
#[derive(Clone, Copy, Debug)]
pub struct DiskSetup {
    /// Its name here.
    pub key: LunKey,
    /// The session it is reached through.
    pub session: SessionKey,
    /// Its address on the wire.
    pub lun: Lun,
    /// Bytes per logical block.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
}

/// A session as this reactor has it.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    /// Channels in service.
    pub(super) channels: Vec<usize>,
    /// The channel that the next command is tried on first.
    pub(super) turn: usize,
    /// Bytes of the commands that it was sent in its turn.
    pub(super) streak: u32,
    /// Queues with something waiting, served in turn.
    pub(super) ready: VecDeque<usize>,
    /// In a pass: those in front of them that wait for a buffer.
    pub(super) aside: Vec<usize>,
    /// The queue of control requests.
    pub(super) control: usize,
    /// Queues of this session, the control queue among them.
    pub(super) queues: Vec<usize>,
    /// Other engines have channels of it.
    pub(super) elsewhere: bool,
}

impl SessionState {
    /// A command was sent over a channel: it stays that one's turn until they had many bytes.
    #[inline(always)]
    pub(super) fn took_turn(&mut self, place: usize, bytes: u32) {
        self.streak = self.streak.saturating_add(bytes.max(LEAST));
        self.turn = place;
        if self.streak >= TURN {
            self.streak = 0;
            self.turn = place + 1;
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// Takes a logged-in queue pair into service and posts its receives.
    pub fn add_channel(&mut self, setup: &ChannelSetup) {
        let session = self.session(setup.session);
        let send_slot = self.fabric.send_slot(setup.qp, 0).len();
        let channel = Channel::new(setup, send_slot, session, self.mutated);
        let index = vacant(&mut self.channels, channel);
        self.by_qp.insert(setup.qp, index);
        if let Some(session) = &mut self.sessions[session] {
            session.channels.push(index);
            self.dirty = true;
        }
        let posted = setup.plan.receives - 1;
        for slot in 0..posted {
            self.fabric.post_receive(setup.qp, slot);
        }
        if let Some(channel) = &mut self.channels[index] {
            channel.receives_posted = u32::from(posted);
        }
        self.fabric.flush();
    }

    /// Makes a disk known.
    pub fn add_disk(&mut self, disk: &DiskSetup) {
        let session = self.session(disk.session);
        let queue = vacant(
            &mut self.queues,
            Queue::new(session, disk.lun, disk.block_size, disk.blocks),
        );
        self.disks.insert(disk.key, queue);
        if let Some(session) = &mut self.sessions[session] {
            session.queues.push(queue);
            session.ready.reserve(session.queues.len());
            session.aside.reserve(session.queues.len());
        }
    }

    /// Forgets a disk. Requests of it that wait fail; those at the target end as they would.
    pub fn remove_disk(&mut self, key: LunKey) {
        let Some(queue) = self.disks.remove(&key) else { return };
        self.fail_waiting(queue, BlockError::Offline);
        if let Some(queue) = &mut self.queues[queue] {
            queue.removed = true;
            self.removed += 1;
        }
        self.drop_queue(queue);
    }

    /// Forgets a disk whose requests nobody wants to wait for: those with the target are overdue as of now.
    pub fn abandon_disk(&mut self, key: LunKey, now: Instant) {
        let Some(&queue) = self.disks.get(&key) else { return };
        let requests = &self.requests;
        let of_disk = |request| requests.get(request).is_some_and(|request| request.queue == queue);
        for channel in self.channels.iter_mut().flatten() {
            channel.hurry(of_disk, now);
        }
        self.due = self.due.min(now);
        self.remove_disk(key);
    }

    /// Lets go of a queue that lost a request, if it was removed.
    #[inline]
    pub(super) fn forsake(&mut self, queue: usize) {
        if self.removed > 0 {
            self.drop_queue(queue);
        }
    }

    /// Lets go of a removed queue. Requests at the target still name it: it goes with the last of them.
    #[cold]
    pub(super) fn drop_queue(&mut self, index: usize) {
        let Some(queue) = self.queues[index].as_ref().filter(|queue| queue.removed) else {
            return;
        };
        if self.requests.iter().any(|(_, request)| request.queue == index) || self.mutated.is(Mutation::QueueForgotten)
        {
            return;
        }
        if let Some(session) = &mut self.sessions[queue.session] {
            session.queues.retain(|&other| other != index);
            session.ready.retain(|&other| other != index);
        }
        self.vacate(index);
        self.removed -= 1;
    }

    /// Forgets a session that has no channel left. Its disks must have been removed.
    pub fn remove_session(&mut self, key: SessionKey) {
        let Some(&index) = self.session_index.get(&key) else {
            return;
        };
        let Some(session) = &self.sessions[index] else { return };
        if !session.channels.is_empty() {
            return;
        }
        let control = session.control;
        self.fail_waiting(control, BlockError::Transport);
        self.session_index.remove(&key);
        self.sessions[index] = None;
        // Commands of the control side may be with the target until their channel is quiet.
        if let Some(queue) = &mut self.queues[control] {
            queue.removed = true;
            self.removed += 1;
        }
        self.drop_queue(control);
    }

    /// The place of a session.
    pub(super) fn session_of(&self, key: SessionKey) -> Option<usize> {
        self.session_index.get(&key).copied()
    }

    /// The session's place; it is made when it is new.
    pub(super) fn session(&mut self, key: SessionKey) -> usize {
        if let Some(&index) = self.session_index.get(&key) {
            return index;
        }
        let index = vacant(&mut self.sessions, SessionState::default());
        let control = vacant(&mut self.queues, Queue::control(index));
        self.sessions[index] = Some(SessionState {
            control,
            queues: vec![control],
            ..SessionState::default()
        });
        self.session_index.insert(key, index);
        index
    }
}

/// Puts a value into the first empty place.
fn vacant<T>(places: &mut Vec<Option<T>>, value: T) -> usize {
    if let Some(index) = places.iter().position(Option::is_none) {
        places[index] = Some(value);
        return index;
    }
    places.push(Some(value));
    places.len() - 1
}
