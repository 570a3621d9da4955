//! What serves the block devices of one reactor: the session engine over verbs.
//!
//! Translates between the block layer's requests and the engine's, and between its buffers and the reactor's
//! areas. All of it runs on the reactor's thread.

mod handover;
mod message;
mod pending;
mod stuck;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use srp_initiator::fabric::{Extent, QueuePairId};
use srp_initiator::scsi::BlockError;
use srp_initiator::session::{
    BlockOperation, BlockRequest, ChannelError, ChannelSetup, ControlReply, Engine, Event as EngineEvent, Handle,
    Limits, RequestId as EngineId,
};
use srp_initiator::time::Instant as CoreInstant;
use srp_verbs::fabric::{ChannelParts, CompletionToken, VerbsFabric};
use tokio::sync::{mpsc, oneshot};
use ublk_frontend::Moment;
use ublk_frontend::backend::{
    Action, AreaRange, AreaRanges, Backend, BlockRequest as UblkRequest, DeviceKey, Operation, Pumped, RequestId,
};

use handover::{CarriedTable, Siblings, is_foreign};
pub(crate) use message::{Arena, Disk, DiskCounters, Event, Message, NewChannel, Sibling};
use pending::{Pending, PendingTable};
use stuck::Stuck;

/// Set in the ids of control requests, which share the engine's id space with block requests.
const CONTROL: u64 = 1 << 63;

/// See the module's text.
pub(crate) struct SrpBackend {
    reactor: usize,
    engine: Engine<VerbsFabric>,
    /// Looked up for each request: a tree of a few is faster than a hash.
    disks: BTreeMap<DeviceKey, Disk>,
    pending: PendingTable,
    /// Areas of the arenas of each queue pair.
    arenas: Vec<(QueuePairId, Arena, Arena)>,
    controls: HashMap<u64, oneshot::Sender<Result<ControlReply, BlockError>>>,
    next_control: u64,
    events: mpsc::UnboundedSender<Event>,
    /// Completions decided outside of a pump pass.
    early: Vec<Action>,
    /// Completion channels watched.
    watched: Vec<CompletionToken>,
    siblings: Siblings,
    carried: CarriedTable,
    stuck: Stuck<ChannelParts>,
}

impl SrpBackend {
    /// A backend without channels; `events` go to the control side.
    pub(crate) fn new(reactor: usize, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            reactor,
            engine: Engine::new(VerbsFabric::new(), Limits::default()),
            disks: BTreeMap::new(),
            pending: PendingTable::default(),
            arenas: Vec::new(),
            controls: HashMap::new(),
            next_control: 0,
            events,
            early: Vec::with_capacity(64),
            watched: Vec::new(),
            siblings: Siblings::default(),
            carried: CarriedTable::default(),
            stuck: Stuck::default(),
        }
    }

    fn add_channel(&mut self, channel: NewChannel, out: &mut Vec<Action>) {
        let NewChannel {
            parts,
            session,
            granted,
            plan,
            exposure,
            fence,
            max_transfer,
            descriptors,
            read_arena,
            write_arena,
            reply,
        } = channel;
        let fabric = self.engine.fabric_mut();
        fabric.attach(parts.queue_pair().completion_queue());
        let qp = match fabric.adopt(parts) {
            Ok(qp) => qp,
            Err(error) => {
                // The asker learns of it by its reply channel, which is dropped here, and the parts with it.
                tracing::error!(%error, "a channel cannot be served");
                return;
            }
        };
        self.engine.add_channel(&ChannelSetup {
            qp,
            session,
            granted,
            plan,
            read_arena: (read_arena.region, read_arena.len),
            write_arena: (write_arena.region, write_arena.len),
            exposure,
            max_transfer,
            descriptors,
            fence,
        });
        self.arenas.push((qp, read_arena, write_arena));
        self.watch_completions(out);
        // The asker may have given up; the channel then ends by its CloseChannel.
        let _ = reply.send(qp);
    }

    /// Watches what is not watched yet, and ends watches of what is gone.
    fn watch_completions(&mut self, out: &mut Vec<Action>) {
        let now: Vec<_> = self.engine.fabric().completion_channels().collect();
        for (fd, token) in &now {
            if !self.watched.contains(token) {
                out.push(Action::Watch {
                    fd: *fd,
                    token: token.0.into(),
                });
            }
        }
        for token in &self.watched {
            if !now.iter().any(|(_, other)| other == token) {
                out.push(Action::Unwatch { token: token.0.into() });
            }
        }
        self.watched = now.into_iter().map(|(_, token)| token).collect();
    }

    /// Where an extent is, in all its pieces.
    fn ranges(&self, qp: QueuePairId, extent: Extent) -> Option<AreaRanges> {
        let (_, read, write) = self.arenas.iter().find(|(other, ..)| *other == qp)?;
        let arena = [read, write].into_iter().find(|arena| arena.region == extent.region)?;
        let range = |piece: Extent| AreaRange {
            area: arena.area,
            offset: piece.offset,
            len: piece.len,
        };
        if self.engine.is_scattered(qp, extent) {
            return AreaRanges::new(self.engine.pieces(qp, extent).map(range));
        }
        Some(range(extent).into())
    }

    fn complete(&mut self, id: RequestId, result: Result<u32, i32>, out: &mut Vec<Action>) {
        if let Some(pending) = self.pending.take(id) {
            pending.count(&result);
            out.push(Action::Complete { id, result });
        }
    }

    /// Whether there were any.
    fn engine_events(&mut self, now: CoreInstant, out: &mut Vec<Action>) -> bool {
        let mut any = false;
        while let Some(event) = self.engine.next_event() {
            any = true;
            self.engine_event(event, now, out);
        }
        any
    }

    fn engine_event(&mut self, event: EngineEvent, now: CoreInstant, out: &mut Vec<Action>) {
        match event {
            EngineEvent::Supply { id, handle, qp, extent } if is_foreign(id) => {
                self.supply_foreign(id, handle, self.ranges(qp, extent), now, out);
            }
            EngineEvent::Data { id, handle, qp, extent } if is_foreign(id) => {
                self.data_foreign(id, handle, self.ranges(qp, extent), now, out);
            }
            EngineEvent::Done { id, result } if is_foreign(id) => {
                self.end_foreign(id, result.map_err(BlockError::errno));
            }
            EngineEvent::Supply { id, handle, qp, extent } => {
                let id = ublk_id(id);
                match (self.ranges(qp, extent), self.pending.get_mut(id)) {
                    (Some(into), Some(pending)) => {
                        pending.handle = Some(handle);
                        out.push(Action::CopyIn { id, into });
                    }
                    _ => self.engine.supplied(handle, false, now),
                }
            }
            EngineEvent::Data { id, handle, qp, extent } => self.data(ublk_id(id), handle, qp, extent, now, out),
            EngineEvent::Done { id, result } => {
                self.complete(ublk_id(id), result.map_err(BlockError::errno), out);
            }
            EngineEvent::HandOver(handover) => self.hand_over(*handover, out),
            EngineEvent::Reply { id, result } => {
                if let Some(reply) = self.controls.remove(&id.0) {
                    let _ = reply.send(result.map(|reply| *reply));
                }
            }
            // Nothing asks for task management yet.
            EngineEvent::TaskDone { .. } => {}
            EngineEvent::ChannelStuck { qp, session } => {
                let _ = self.events.send(Event::SuccessorWanted {
                    reactor: self.reactor,
                    qp,
                    session,
                });
            }
            EngineEvent::ChannelFailed { qp, session, reason } => {
                let _ = self.events.send(Event::ChannelFailed {
                    reactor: self.reactor,
                    qp,
                    session,
                    reason: *reason,
                });
            }
            EngineEvent::ChannelClosed { qp, session } => {
                let _ = self.events.send(Event::ChannelClosed {
                    reactor: self.reactor,
                    qp,
                    session,
                });
            }
        }
    }

    fn data(
        &mut self,
        id: RequestId,
        handle: Handle,
        qp: QueuePairId,
        extent: Extent,
        now: CoreInstant,
        out: &mut Vec<Action>,
    ) {
        let from = self.ranges(qp, extent);
        if let (Some(from), Some(pending)) = (from, self.pending.get_mut(id))
            && from.len() == pending.len
        {
            pending.handle = Some(handle);
            out.push(Action::CompleteRead { id, from });
            return;
        }
        // A short read: the block layer would take stale pages for the rest.
        self.engine.release(handle, now);
        self.complete(id, Err(BlockError::Io.errno()), out);
    }
}

impl Backend for SrpBackend {
    type Message = Message;

    fn message(&mut self, message: Message, now: Moment, out: &mut Vec<Action>) {
        let now = core_time(now);
        match message {
            Message::AddChannel(channel) => self.add_channel(*channel, out),
            Message::CloseChannel(qp) => self.engine.close_channel(qp, ChannelError::Closed, now),
            Message::RetireChannel(qp) => self.engine.retire(qp, now),
            Message::LogOut(qp) => self.engine.log_out(qp, now),
            Message::DestroyChannel(qp) => {
                // It may be open still, where a logout takes its time: nothing is posted to it once it is released.
                self.engine.close_channel(qp, ChannelError::Closed, now);
                let released = self.engine.fabric_mut().release(qp);
                if self.stuck.destroy(qp, released, ChannelParts::destroy) {
                    self.engine.destroyed(qp, now);
                }
            }
            Message::ReleaseChannel(qp, reply) => {
                let parts = self.engine.fabric_mut().release(qp);
                // Where it was the last, its parts keep the queue until they are destroyed elsewhere.
                self.engine.fabric_mut().detach_unused();
                self.arenas.retain(|(other, ..)| *other != qp);
                self.watch_completions(out);
                let _ = reply.send(parts);
            }
            Message::AddDisk(disk) => {
                self.engine.add_disk(&disk.setup);
                self.disks.insert(disk.device, disk);
            }
            Message::RemoveDisk(key) => {
                self.engine.remove_disk(key);
                self.disks.retain(|_, disk| disk.setup.key != key);
            }
            Message::AbandonDisk(key) => {
                self.engine.abandon_disk(key, now);
                self.disks.retain(|_, disk| disk.setup.key != key);
            }
            Message::RemoveSession(key) => {
                self.engine.remove_session(key);
                self.siblings.forget(key);
            }
            Message::Siblings(session, own, others) => {
                self.engine.set_elsewhere(session, !others.is_empty());
                self.siblings.set(session, own, others);
            }
            Message::TakeOver(carried) => self.take_over(*carried, now),
            Message::TakeBack(carried, from) => self.take_back(&carried, from, now),
            Message::Ended(id, result) => self.ended_elsewhere(id, result, out),
            Message::Control(mut request, reply) => {
                self.next_control += 1;
                request.id = EngineId(CONTROL | self.next_control);
                self.controls.insert(request.id.0, reply);
                self.engine.submit_control(request, now);
            }
            Message::ChannelState(qp, reply) => {
                let _ = reply.send(self.engine.channel_state(qp));
            }
        }
    }

    fn submit(&mut self, request: UblkRequest, now: Moment) {
        let id = request.id;
        match translate(&request, self.disks.get(&request.device)) {
            Ok((block, len, counters)) => {
                self.pending.insert(
                    id,
                    Pending {
                        handle: None,
                        len,
                        operation: request.operation,
                        queue_id: request.queue_id,
                        counters,
                    },
                );
                let now = core_time(now);
                self.engine.submit(block, now);
            }
            Err(errno) => self.early.push(Action::Complete { id, result: Err(errno) }),
        }
    }

    fn copied(&mut self, id: RequestId, result: Result<(), i32>, now: Moment) {
        let now = core_time(now);
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        let Some(handle) = pending.handle.take() else { return };
        if let Err(errno) = result {
            pending.note_refused(id, errno);
        }
        if pending.operation == Operation::Read {
            pending.count(&result.map(|()| pending.len));
            self.pending.take(id);
            self.engine.release(handle, now);
        } else {
            self.engine.supplied(handle, result.is_ok(), now);
        }
    }

    fn copied_foreign(&mut self, token: u64, result: Result<(), i32>, now: Moment) {
        let now = core_time(now);
        self.foreign_copied(token, result, now);
    }

    fn ready(&mut self, token: u64, _now: Moment) {
        if let Ok(token) = u32::try_from(token) {
            self.engine.fabric_mut().acknowledge(CompletionToken(token));
        }
    }

    fn send(&mut self, now: Moment, out: &mut Vec<Action>) {
        let now = core_time(now);
        self.engine.send();
        self.engine_events(now, out);
    }

    fn pump(&mut self, now: Moment, out: &mut Vec<Action>) -> Pumped {
        let now = core_time(now);
        out.append(&mut self.early);
        let mut progress = self.engine.pump(now);
        progress |= self.engine_events(now, out);
        let deadline = self.engine.deadline().map(|at| Moment::from_nanos(at.as_nanos()));
        Pumped { progress, deadline }
    }

    fn prepare_sleep(&mut self) -> bool {
        let sends = self.engine.waits_for_sends();
        self.engine.fabric_mut().arm(sends)
    }
}

/// The engine's clock is that of the reactors. Each has a type of its own for it, as neither knows of the other.
fn core_time(now: Moment) -> CoreInstant {
    CoreInstant::from_nanos(now.as_nanos())
}

fn ublk_id(id: EngineId) -> RequestId {
    RequestId {
        queue: (id.0 >> 16) as u32,
        tag: (id.0 & 0xffff) as u16,
    }
}

fn engine_id(id: RequestId) -> EngineId {
    EngineId(u64::from(id.queue) << 16 | u64::from(id.tag))
}

/// The engine's form of a request, its length in bytes, and where to count it; an errno for what cannot be.
fn translate(request: &UblkRequest, disk: Option<&Disk>) -> Result<(BlockRequest, u32, Arc<DiskCounters>), i32> {
    let disk = disk.ok_or(libc::ENODEV)?;
    let operation = match request.operation {
        Operation::Read => BlockOperation::Read,
        Operation::Write { .. } if disk.read_only => return Err(libc::EREMOTEIO),
        Operation::Write { fua } => BlockOperation::Write { fua },
        Operation::Flush => BlockOperation::Flush,
        Operation::Discard | Operation::WriteZeroes { .. } => return Err(libc::EOPNOTSUPP),
    };
    let per_block = u64::from(disk.setup.block_size / 512).max(1);
    let aligned = request.sector.is_multiple_of(per_block) && u64::from(request.sectors) % per_block == 0;
    let len = request
        .sectors
        .checked_mul(512)
        .filter(|_| aligned)
        .ok_or(libc::EINVAL)?;
    let block = BlockRequest {
        id: engine_id(request.id),
        lun: disk.setup.key,
        operation,
        lba: request.sector / per_block,
        blocks: request.sectors / u32::try_from(per_block).map_err(|_| libc::EINVAL)?,
    };
    Ok((block, len, Arc::clone(&disk.counters)))
}

impl Pending {
    fn count(&self, result: &Result<u32, i32>) {
        let (count, bytes) = match (result, self.operation) {
            (Err(_), _) => (&self.counters.errors, None),
            (Ok(_), Operation::Read) => (&self.counters.reads, Some(&self.counters.read_bytes)),
            (Ok(_), Operation::Flush) => (&self.counters.flushes, None),
            (Ok(_), _) => (&self.counters.writes, Some(&self.counters.written_bytes)),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(bytes) = bytes {
            bytes.fetch_add(u64::from(self.len), Ordering::Relaxed);
        }
    }

    #[cold]
    fn note_refused(&self, id: RequestId, errno: i32) {
        tracing::error!(?id, operation = ?self.operation, len = self.len, errno, "ublk refused a copy");
    }
}
