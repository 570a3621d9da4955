//! What a session needs from the network: queue pairs with IU slots, and data arenas a target may reach.
//!
//! Two implementations exist: `srp-verbs` (libibverbs) and [`crate::sim`] (in-process, seeded, faulty).
//! A fabric belongs to one reactor; nothing here blocks, allocates or takes a lock.

pub use srp_addressing::Exposure;

use crate::wire::MemoryDescriptor;

/// One connected queue pair of a reactor's fabric. Never reused while the fabric lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueuePairId(pub u32);

/// A data arena of a queue pair, registered for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u16);

/// Bytes inside a data arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The arena.
    pub region: RegionId,
    /// First byte, from the start of the arena.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// What the target may do with the bytes of a memory window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteAccess {
    /// RDMA READ: the data of a write.
    Read,
    /// RDMA WRITE: the data of a read.
    Write,
}

/// Which work request a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// [`Fabric::post_send`].
    Send,
    /// [`Fabric::post_receive`].
    Receive,
    /// [`Fabric::post_bind`]; only failed ones are told of.
    Bind,
    /// [`Fabric::post_invalidate`].
    Invalidate,
}

/// Why a work request failed (IBA 11.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WorkError {
    /// The queue pair was in the error state before the request ran.
    #[error("flushed: the queue pair is in error")]
    Flushed,
    /// The peer did not acknowledge.
    #[error("no acknowledgement from the target (transport retries exhausted)")]
    RetryExceeded,
    /// The peer had no receive posted, for too long.
    #[error("the target posted no receive (RNR retries exhausted)")]
    ReceiverNotReady,
    /// The peer refused access or the operation.
    #[error("the target refused the operation")]
    Remote,
    /// A message longer than its receive slot, or a local key or length fault.
    #[error("message length or local key error")]
    Local,
    /// A memory window could not be bound.
    #[error("the HCA did not bind a memory window")]
    Bind,
    /// Any other status, as the verbs number it (`enum ibv_wc_status`).
    #[error("work completion status {0}")]
    Other(u32),
}

/// A finished work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The queue pair it was posted to.
    pub qp: QueuePairId,
    /// What was posted.
    pub kind: WorkKind,
    /// The IU slot it was posted with.
    pub slot: u16,
    /// Bytes received (receives; unspecified for others), or what went wrong.
    pub result: Result<u32, WorkError>,
}

/// The data plane of a fabric, as one reactor uses it.
///
/// A post that fails on the spot is reported as a failed completion by a later [`Fabric::poll`], so that there
/// is one place where a queue pair is seen to die.
pub trait Fabric {
    /// Appends finished work requests to `out`, never beyond its capacity.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// The memory of a send slot that has no send in flight.
    fn send_slot(&mut self, qp: QueuePairId, slot: u16) -> &mut [u8];

    /// The memory of a receive slot whose receive has completed and that has not been posted again.
    fn receive_slot(&self, qp: QueuePairId, slot: u16) -> &[u8];

    /// Queues a signalled SEND of the slot's first `len` bytes, followed by `payload` when given (immediate data).
    fn post_send(&mut self, qp: QueuePairId, slot: u16, len: u32, payload: Option<Extent>);

    /// Queues a receive into a slot.
    fn post_receive(&mut self, qp: QueuePairId, slot: u16);

    /// Queues the opening of a send slot's memory window, which is closed, on exactly these bytes, for this queue pair
    /// and one kind of access. It comes before what is posted later: the completion of a later SEND says that it was
    /// done, and is the only one there is unless it fails. Only on queue pairs with windows.
    fn post_bind(&mut self, qp: QueuePairId, slot: u16, extent: Extent, access: RemoteAccess);

    /// Queues the closing of a send slot's memory window. Its completion says that no access through the window can
    /// come any more.
    fn post_invalidate(&mut self, qp: QueuePairId, slot: u16);

    /// Hands everything queued to the hardware: one doorbell per queue pair.
    fn flush(&mut self);

    /// The same, but may leave receives queued where nothing is sent: nobody waits for them, but they must have gone by
    /// [`Fabric::flush`] before the caller rests. A queue pair's sends take its receives along, so that no request leaves
    /// before the receive for its answer is there.
    fn flush_sends(&mut self);

    /// Moves the queue pair to the error state: every posted request will complete, the receives posted before
    /// this call after the last access of the peer to our memory.
    fn fail(&mut self, qp: QueuePairId);

    /// How a target addresses an extent of an arena that is open to it.
    fn describe(&self, qp: QueuePairId, extent: Extent) -> MemoryDescriptor;

    /// How a target addresses an extent through a send slot's window, as its next [`Fabric::post_bind`] opens it.
    fn describe_window(&self, qp: QueuePairId, slot: u16, extent: Extent) -> MemoryDescriptor;

    /// Copies out of an extent; raw, as a peer may still be writing there.
    fn copy_out(&self, qp: QueuePairId, extent: Extent, into: &mut [u8]);

    /// Copies into an extent.
    fn copy_in(&mut self, qp: QueuePairId, extent: Extent, from: &[u8]);
}
