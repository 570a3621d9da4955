//! The data plane of one reactor over libibverbs.
//!
//! # What the error state proves
//! [`Fabric::fail`] posts what is queued and moves the queue pair to ERR. The verb returns when the state is set, not
//! when the peer's accesses have ended: rdma_rxe, for one, may still be executing an RDMA WRITE. The *flush of a
//! receive posted before* is the proof, as receives are flushed by whatever executes the peer's packets, in order,
//! after it. A completion of kind `Receive` with `Flushed` for a receive that was posted before `fail` is
//! therefore the marker of the DMA rule. Flushed *sends* prove nothing, and neither does a refused post, which is
//! reported as `Local`. Where no marker comes (the HCA was removed), only
//! [`ChannelParts::destroy`](parts::ChannelParts::destroy) or [`Arena::deregister`] returning `Ok` are proof.
//!
//! When a queue pair fails by itself, the completion that says why need not come first: flushed receives may overtake
//! it. Any error means that the queue pair is lost; call [`Fabric::fail`] on the first one all the same, as some HCAs
//! do not look at what is posted after they went into error.
//!
//! # Sleeping
//! ```text
//! loop { flush; poll; work; flush_sends; if nothing happened for a while { if fabric.arm(false) { wait for completion_channels() } } }
//! on a readable channel: acknowledge(token)
//! ```

mod channel;
mod parts;
mod table;
mod window;
mod work_id;

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rdma_sys::ibv_wc;
use srp_initiator::fabric::{Completion, Extent, Fabric, QueuePairId, RegionId, RemoteAccess, WorkError};
use srp_initiator::wire::MemoryDescriptor;

use channel::Channel;
pub use parts::{ChannelParts, IuRing, PartsError};
use table::{Table, index_of};

use crate::completion_queue::CompletionQueue;
use crate::memory::Arena;

/// Work completions read per call of `ibv_poll_cq`.
const BATCH: usize = 64;

/// Names a completion queue of a fabric. Not reused while the fabric lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompletionToken(pub u32);

/// Why a channel was not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptReason {
    /// Its completion queue is not attached to this fabric.
    #[error("the queue pair's completion queue is not attached to this reactor")]
    QueueNotAttached,
    /// There is no id left.
    #[error("the reactor has no queue pair id left")]
    IdsExhausted,
}

/// A channel was not adopted; here it is back.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct AdoptError {
    /// Why.
    pub reason: AdoptReason,
    /// What was offered.
    pub parts: Box<ChannelParts>,
}

struct AttachedQueue {
    token: CompletionToken,
    queue: Arc<CompletionQueue>,
    /// An event of a receive was asked for and has not been acknowledged.
    armed: bool,
    /// The same of a send.
    armed_for_sends: bool,
    /// Polling failed; said so once.
    broken: bool,
}

impl AttachedQueue {
    #[cold]
    fn note_broken(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.broken, true) {
            tracing::error!(%error, device = self.queue.device().name(), "completions cannot be read");
        }
    }
}

/// Queue pairs, completion queues and memory of one reactor thread.
///
/// Channels come ready-made from the control side ([`Self::adopt`]) and go back to it ([`Self::release`]), which alone
/// creates and destroys; posting, polling and copying allocate nothing.
///
/// # Panics
/// The methods of [`Fabric`] that take slots or extents panic when these do not exist or a slot's memory is asked for
/// while the HCA uses it: both are mistakes in the session core, and going on would corrupt memory.
pub struct VerbsFabric {
    channels: Table<Box<Channel>>,
    queues: Vec<AttachedQueue>,
    next_token: u32,
    /// Where polling starts, so that no queue starves another.
    turn: usize,
    /// Indices of channels with queued work.
    unflushed: Vec<u16>,
    /// Some of them have more to do than to receive.
    sending: bool,
    /// Completions not handed out yet: of refused posts, and found while arming.
    held: VecDeque<Completion>,
    buffer: Box<[MaybeUninit<ibv_wc>; BATCH]>,
}

impl Default for VerbsFabric {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for VerbsFabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsFabric")
            .field("channels", &self.channels.iter().count())
            .field("completion_queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}

impl VerbsFabric {
    /// A fabric without channels.
    pub fn new() -> Self {
        Self {
            channels: Table::new(),
            queues: Vec::new(),
            next_token: 0,
            turn: 0,
            unflushed: Vec::new(),
            sending: false,
            held: VecDeque::with_capacity(BATCH),
            buffer: Box::new([const { MaybeUninit::uninit() }; BATCH]),
        }
    }

    /// Polls `queue` from now on. Attaching it twice gives the same token.
    pub fn attach(&mut self, queue: &Arc<CompletionQueue>) -> CompletionToken {
        if let Some(known) = self.queues.iter().find(|known| Arc::ptr_eq(&known.queue, queue)) {
            return known.token;
        }
        let token = CompletionToken(self.next_token);
        self.next_token += 1;
        self.queues.push(AttachedQueue {
            token,
            queue: queue.clone(),
            armed: false,
            armed_for_sends: false,
            broken: false,
        });
        token
    }

    /// Stops polling a completion queue, unless a channel still uses it.
    pub fn detach(&mut self, token: CompletionToken) -> Option<Arc<CompletionQueue>> {
        let index = self.queues.iter().position(|known| known.token == token)?;
        let queue = &self.queues[index].queue;
        let mut channels = self.channels.iter();
        if channels.any(|channel| Arc::ptr_eq(channel.parts.queue_pair.completion_queue(), queue)) {
            return None;
        }
        Some(self.queues.remove(index).queue)
    }

    /// Stops polling the completion queues that no channel uses any more: whoever keeps one keeps its HCA open, also one
    /// that was removed.
    pub fn detach_unused(&mut self) {
        let channels = &self.channels;
        let is_used = |attached: &AttachedQueue| {
            let mut channels = channels.iter();
            channels.any(|channel| Arc::ptr_eq(channel.parts.queue_pair.completion_queue(), &attached.queue))
        };
        self.queues.retain(is_used);
    }

    /// The completion channels to sleep on, and their names for [`Self::acknowledge`].
    pub fn completion_channels(&self) -> impl Iterator<Item = (RawFd, CompletionToken)> {
        self.queues.iter().map(|known| (known.queue.as_raw_fd(), known.token))
    }

    /// Takes over a channel whose completion queue is attached.
    ///
    /// # Errors
    /// With the channel, when it cannot be taken.
    pub fn adopt(&mut self, parts: ChannelParts) -> Result<QueuePairId, AdoptError> {
        let refuse = |reason, parts| {
            Err(AdoptError {
                reason,
                parts: Box::new(parts),
            })
        };
        let queue = parts.queue_pair.completion_queue();
        if !self.queues.iter().any(|known| Arc::ptr_eq(&known.queue, queue)) {
            return refuse(AdoptReason::QueueNotAttached, parts);
        }
        let Some(id) = self.channels.vacant() else {
            return refuse(AdoptReason::IdsExhausted, parts);
        };
        let channel = Box::new(Channel::new(id, parts));
        self.channels.insert(id, channel);
        // Every slot can have one completion waiting at most: `held` will not grow while I/O runs.
        let slots: usize = self.channels.iter().map(|channel| channel.slots()).sum();
        self.held.reserve(slots.saturating_sub(self.held.len()));
        self.unflushed.reserve(self.channels.len());
        Ok(id)
    }

    /// Gives a channel back, with whatever is still posted: its memory is only free after the DMA rule.
    /// Completions not polled yet are forgotten.
    pub fn release(&mut self, qp: QueuePairId) -> Option<ChannelParts> {
        let channel = self.channels.remove(qp)?;
        self.held.retain(|completion| completion.qp != qp);
        self.unflushed.retain(|index| *index != index_of(qp));
        Some(channel.parts)
    }

    /// Adds a data arena to a channel.
    ///
    /// # Errors
    /// When it does not belong to the channel's protection domain.
    pub fn add_region(&mut self, qp: QueuePairId, arena: Arena) -> Result<RegionId, PartsError> {
        self.get_mut(qp).parts.add_region(arena)
    }

    /// Takes a data arena from a channel.
    pub fn remove_region(&mut self, qp: QueuePairId, region: RegionId) -> Option<Arena> {
        self.channels.get_mut(qp)?.parts.remove_region(region)
    }

    /// Asks for an event at the next receive of any queue and, with `sends`, at the next send. `true`: nothing is
    /// waiting to be polled, and the caller may sleep on [`Self::completion_channels`]. `false`: poll again.
    ///
    /// A channel in error completes its receives too, so who waits for answers alone need not ask for sends.
    pub fn arm(&mut self, sends: bool) -> bool {
        for attached in self.queues.iter_mut().filter(|attached| !attached.broken) {
            let mut result = Ok(());
            if !std::mem::replace(&mut attached.armed, true) {
                result = attached.queue.request_event();
            }
            if sends && !std::mem::replace(&mut attached.armed_for_sends, true) {
                result = result.and(attached.queue.request_send_event());
            }
            if let Err(error) = result {
                // Without the HCA there will be no event, and no use in asking again.
                tracing::error!(%error, device = attached.queue.device().name(), "no completion events");
            }
        }
        for index in 0..self.queues.len() {
            // A full batch may have been of channels gone since, with others behind it.
            while self.held.is_empty() && self.poll_queue(index, BATCH, Destination::Held) == BATCH {}
        }
        self.held.is_empty()
    }

    /// Takes note that a completion channel was readable: to be called each time the caller is told so, or the next
    /// event may not come. Harmless when it was not.
    pub fn acknowledge(&mut self, token: CompletionToken) {
        if let Some(attached) = self.queues.iter_mut().find(|attached| attached.token == token) {
            let events = attached
                .queue
                .drain_events(u32::from(attached.armed) + u32::from(attached.armed_for_sends));
            attached.armed &= events.receives == 0;
            attached.armed_for_sends &= events.sends == 0;
        }
    }

    fn get(&self, qp: QueuePairId) -> &Channel {
        match self.channels.get(qp) {
            Some(channel) => channel,
            None => panic!("{qp:?} is not of this fabric"),
        }
    }

    fn get_mut(&mut self, qp: QueuePairId) -> &mut Channel {
        match self.channels.get_mut(qp) {
            Some(channel) => channel,
            None => panic!("{qp:?} is not of this fabric"),
        }
    }

    /// A channel to queue work on; it will be flushed.
    fn queueing(&mut self, qp: QueuePairId) -> &mut Channel {
        if !self.get(qp).has_queued() {
            self.unflushed.push(index_of(qp));
        }
        self.get_mut(qp)
    }

    /// Polls one queue once; returns how many completions were found, also those of channels gone since.
    fn poll_queue(&mut self, index: usize, limit: usize, mut destination: Destination<'_>) -> usize {
        let attached = &mut self.queues[index];
        let found = match attached.queue.poll(&mut self.buffer[..limit.min(BATCH)]) {
            Ok(found) => found,
            Err(error) => {
                attached.note_broken(&error);
                return 0;
            }
        };
        for raw in found.iter() {
            let (qp, kind, slot) = work_id::unpack(raw.wr_id);
            // A channel that was released may have left completions behind.
            let Some(channel) = self.channels.get_mut(qp) else {
                continue;
            };
            channel.completed(kind, slot);
            let completion = Completion {
                qp,
                kind,
                slot,
                result: work_id::result(raw.status, raw.byte_len),
            };
            if let Err(error) = completion.result {
                note_failed(&completion, &error, raw);
            }
            match &mut destination {
                Destination::Out(out) => out.push(completion),
                Destination::Held => self.held.push_back(completion),
            }
        }
        found.len()
    }
}

#[cold]
fn note_failed(completion: &Completion, error: &WorkError, raw: &ibv_wc) {
    let Completion { kind, slot, .. } = completion;
    tracing::debug!(%error, ?kind, slot, status = raw.status, vendor = raw.vendor_err, qp = raw.qp_num);
}

/// Where polled completions go.
enum Destination<'a> {
    Out(&'a mut Vec<Completion>),
    Held,
}

impl Fabric for VerbsFabric {
    fn poll(&mut self, out: &mut Vec<Completion>) {
        while out.len() < out.capacity() {
            match self.held.pop_front() {
                Some(completion) => out.push(completion),
                None => break,
            }
        }
        let queues = self.queues.len();
        for offset in 0..queues {
            let index = (self.turn + offset) % queues;
            // A short batch means that the queue is empty.
            loop {
                let room = out.capacity() - out.len();
                let asked = room.min(BATCH);
                if asked == 0 {
                    self.turn = index;
                    return;
                }
                if self.poll_queue(index, asked, Destination::Out(out)) < asked {
                    break;
                }
            }
        }
        self.turn = if queues == 0 { 0 } else { (self.turn + 1) % queues };
    }

    fn send_slot(&mut self, qp: QueuePairId, slot: u16) -> &mut [u8] {
        self.get_mut(qp).send_slot(slot)
    }

    fn receive_slot(&self, qp: QueuePairId, slot: u16) -> &[u8] {
        self.get(qp).receive_slot(slot)
    }

    fn post_send(&mut self, qp: QueuePairId, slot: u16, len: u32, payload: Option<Extent>) {
        self.sending = true;
        self.queueing(qp).queue_send(slot, len, payload);
    }

    fn post_receive(&mut self, qp: QueuePairId, slot: u16) {
        self.queueing(qp).queue_receive(slot);
    }

    fn post_bind(&mut self, qp: QueuePairId, slot: u16, extent: Extent, access: RemoteAccess) {
        self.sending = true;
        self.queueing(qp).queue_bind(slot, extent, access);
    }

    fn post_invalidate(&mut self, qp: QueuePairId, slot: u16) {
        self.sending = true;
        self.queueing(qp).queue_invalidate(slot);
    }

    fn flush(&mut self) {
        self.sending = false;
        while let Some(index) = self.unflushed.pop() {
            if let Some(channel) = self.channels.at(index) {
                channel.flush(&mut self.held);
            }
        }
    }

    fn flush_sends(&mut self) {
        if self.sending {
            self.flush();
        }
    }

    fn fail(&mut self, qp: QueuePairId) {
        let Some(channel) = self.channels.get_mut(qp) else {
            return;
        };
        let mut refused = VecDeque::new();
        // What is queued goes first: its flush then proves what the flush of anything posted proves.
        channel.flush(&mut refused);
        channel.fail();
        self.held.append(&mut refused);
        self.unflushed.retain(|index| *index != index_of(qp));
    }

    fn describe(&self, qp: QueuePairId, extent: Extent) -> MemoryDescriptor {
        let arena = self.get(qp).parts.region(extent);
        MemoryDescriptor {
            address: arena.base() as u64 + u64::from(extent.offset),
            key: arena.rkey(),
            len: extent.len,
        }
    }

    fn describe_window(&self, qp: QueuePairId, slot: u16, extent: Extent) -> MemoryDescriptor {
        let channel = self.get(qp);
        MemoryDescriptor {
            address: channel.parts.region(extent).base() as u64 + u64::from(extent.offset),
            key: channel.next_window_key(slot),
            len: extent.len,
        }
    }

    fn copy_out(&self, qp: QueuePairId, extent: Extent, into: &mut [u8]) {
        assert_eq!(into.len(), extent.len as usize, "copying out of {extent:?}");
        if let Err(error) = self.get(qp).parts.region(extent).copy_out(extent.offset as usize, into) {
            panic!("{extent:?}: {error}");
        }
    }

    fn copy_in(&mut self, qp: QueuePairId, extent: Extent, from: &[u8]) {
        assert_eq!(from.len(), extent.len as usize, "copying into {extent:?}");
        if let Err(error) = self
            .get_mut(qp)
            .parts
            .region_mut(extent)
            .copy_in(extent.offset as usize, from)
        {
            panic!("{extent:?}: {error}");
        }
    }
}
