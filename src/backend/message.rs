//! What the control side and a reactor's backend say to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use srp_initiator::fabric::{Exposure, QueuePairId, RegionId};
use srp_initiator::scsi::BlockError;
use srp_initiator::session::{
    ChannelError, ChannelState, ControlReply, ControlRequest, DiskSetup, Fence, Granted, Handover, LunKey, SessionKey,
    SlotPlan,
};
use srp_verbs::fabric::ChannelParts;
use tokio::sync::oneshot;
use ublk_frontend::backend::{AreaId, DeviceKey, ForeignRequest, RequestId};
use ublk_frontend::reactor::ReactorHandle;

use crate::rpc::protocol::Counters;

/// From the control side to a reactor.
pub(crate) enum Message {
    /// Serve this logged-in channel.
    AddChannel(Box<NewChannel>),
    /// End a channel; [`Event::ChannelClosed`] follows.
    CloseChannel(QueuePairId),
    /// The same a moment later, for one whose place another has taken.
    RetireChannel(QueuePairId),
    /// The same, with an SRP_I_LOGOUT before.
    LogOut(QueuePairId),
    /// Destroy the queue pair of a channel that was told to end and whose flush did not come.
    DestroyChannel(QueuePairId),
    /// Give back what a closed channel was made of.
    ReleaseChannel(QueuePairId, oneshot::Sender<Option<ChannelParts>>),
    /// Serve this disk.
    AddDisk(Disk),
    /// Forget a disk.
    RemoveDisk(LunKey),
    /// The same for one whose requests nobody wants to wait for.
    AbandonDisk(LunKey),
    /// Forget a session without channel or disks.
    RemoveSession(SessionKey),
    /// The other reactors with a channel of the session, and how this one is reached by them.
    Siblings(SessionKey, Sibling, Vec<Sibling>),
    /// A request of another reactor, whose session has a channel here.
    TakeOver(Box<Carried>),
    /// A request of this reactor's that the reactor with this number has no channel for.
    TakeBack(Box<Carried>, usize),
    /// A request of this reactor's that another one served ended; the data of a READ is in place.
    Ended(RequestId, Result<u32, i32>),
    /// A SCSI command of the control side.
    Control(ControlRequest, oneshot::Sender<Result<ControlReply, BlockError>>),
    /// Tell a channel's figures.
    ChannelState(QueuePairId, oneshot::Sender<Option<ChannelState>>),
}

/// A channel on its way to a reactor.
pub(crate) struct NewChannel {
    pub(crate) parts: ChannelParts,
    pub(crate) session: SessionKey,
    pub(crate) granted: Granted,
    pub(crate) plan: SlotPlan,
    pub(crate) exposure: Exposure,
    pub(crate) fence: Fence,
    pub(crate) max_transfer: u32,
    pub(crate) descriptors: u16,
    pub(crate) read_arena: Arena,
    pub(crate) write_arena: Arena,
    /// Told the name the queue pair has on its reactor.
    pub(crate) reply: oneshot::Sender<QueuePairId>,
}

/// A reactor, towards another one.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(crate) index: usize,
    pub(crate) handle: ReactorHandle<Message>,
}

/// A request on its way between reactors.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// The reactor whose queue it came by, and which ends it.
    pub(crate) origin: Sibling,
    /// Number of the list of siblings it was handed over by.
    pub(crate) list: u64,
    /// Its name there.
    pub(crate) id: RequestId,
    pub(crate) session: SessionKey,
    /// Where its data is.
    pub(crate) data: ForeignRequest,
    /// Bytes.
    pub(crate) len: u32,
    pub(crate) handover: Handover,
}

/// A data arena as the reactor knows it.
#[derive(Clone, Copy)]
pub(crate) struct Arena {
    pub(crate) region: RegionId,
    pub(crate) len: u32,
    pub(crate) area: AreaId,
}

/// A disk and the block device in front of it.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) device: DeviceKey,
    pub(crate) setup: DiskSetup,
    pub(crate) read_only: bool,
    pub(crate) counters: Arc<DiskCounters>,
}

/// From a reactor to the control side. Queue pair ids are a reactor's own: two channels of a session may share one.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A command of a channel can neither be had answered nor ended: the channel waits a moment for its successor.
    SuccessorWanted {
        reactor: usize,
        qp: QueuePairId,
        session: SessionKey,
    },
    /// A channel went down.
    ChannelFailed {
        reactor: usize,
        qp: QueuePairId,
        session: SessionKey,
        reason: ChannelError,
    },
    /// A channel that went down holds nothing any more.
    ChannelClosed {
        reactor: usize,
        qp: QueuePairId,
        session: SessionKey,
    },
}

/// Counted by the reactors, read by the control side.
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl DiskCounters {
    pub(crate) fn snapshot(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            flushes: get(&self.flushes),
            errors: get(&self.errors),
        }
    }
}
