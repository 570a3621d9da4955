//! One simulated queue pair: slots, arenas, what is posted, and the state.

use std::collections::{BTreeSet, VecDeque};

use super::lease::Leases;
use super::window::{Opening, Windows};
use crate::fabric::{Exposure, Extent, QueuePairId, RegionId, WorkKind};
use crate::session::SlotPlan;
use crate::time::Instant;
use crate::wire::MemoryDescriptor;

/// Arenas begin this far apart in the address space targets see.
const ARENA_STRIDE: u64 = 1 << 32;

/// What is done by a work request of the send queue.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// An IU leaves, with immediate data behind it.
    Send { len: u32, payload: Option<Extent> },
    /// A window is opened.
    Open(Opening),
    /// A window is closed.
    Close,
}

impl Work {
    pub(super) fn kind(self) -> WorkKind {
        match self {
            Self::Send { .. } => WorkKind::Send,
            Self::Open(_) => WorkKind::Bind,
            Self::Close => WorkKind::Invalidate,
        }
    }
}

/// A work request of the send queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct PostedSend {
    pub(super) slot: u16,
    pub(super) work: Work,
    /// The hardware knows of it.
    pub(super) rung: bool,
    /// It is on the wire, or done where nothing goes there.
    pub(super) transmitted: bool,
}

/// A posted receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct PostedReceive {
    pub(super) slot: u16,
    /// Posted before the queue pair went into error: it is flushed behind the last access.
    pub(super) guard: bool,
}

/// What a receive slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveSlot {
    /// Ours; `usize` bytes of an IU are in it.
    Readable(usize),
    /// The fabric's.
    Posted,
}

/// A data arena.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) bytes: Vec<u8>,
    /// A target may write; else it may read.
    pub(super) remote_write: bool,
}

#[derive(Debug)]
pub(super) struct SimQueuePair {
    pub(super) id: QueuePairId,
    pub(super) plan: SlotPlan,
    pub(super) send_slots: Vec<Vec<u8>>,
    /// A send from this slot has not been reported as completed.
    pub(super) send_busy: Vec<bool>,
    pub(super) receive_slots: Vec<Vec<u8>>,
    pub(super) receive_state: Vec<ReceiveSlot>,
    pub(super) arenas: Vec<Arena>,
    pub(super) windows: Windows,
    pub(super) sends: VecDeque<PostedSend>,
    pub(super) receives: VecDeque<PostedReceive>,
    /// Slots of receives the hardware does not know of.
    pub(super) queued_receives: Vec<u16>,
    /// IUs that came while no receive was posted.
    pub(super) inbound: VecDeque<Vec<u8>>,
    /// In error since then; the peer's last access is before the second moment.
    pub(super) error: Option<(Instant, Instant)>,
    /// Nothing gets through.
    pub(super) cut: bool,
    /// No SEND completes any more.
    pub(super) unacknowledged: bool,
    /// The engine gave it up.
    pub(super) given_up: bool,
    /// SRP_I_LOGOUT was posted.
    pub(super) logged_out: bool,
    /// The marker was refused, or taken by an IU: only destroying the queue pair ends it.
    pub(super) unmarked: bool,
    /// It was destroyed for that; whoever has its memory has let go of it.
    pub(super) destroyed: bool,
    pub(super) leases: Leases,
    /// Request limit as the initiator can know it.
    pub(super) credits: i64,
    /// Requests that are posted and have not come to the target.
    pub(super) outbound: u32,
    /// IUs the target has sent that have not been taken.
    pub(super) untold: u32,
    /// Tags that responses were made up for.
    pub(super) forged: BTreeSet<u64>,
    /// Anything was made up by who does not know what the target does.
    pub(super) deceived: bool,
    /// When an IU of the target was taken last.
    pub(super) heard: Instant,
    /// Messages keep their order: not before these.
    pub(super) to_target: Instant,
    pub(super) to_initiator: Instant,
    pub(super) acknowledged: Instant,
}

/// What a queue pair is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) plan: SlotPlan,
    pub(super) send_slot: usize,
    pub(super) receive_slot: usize,
    pub(super) arena: u32,
    pub(super) credits: i32,
    pub(super) exposure: Exposure,
}

impl SimQueuePair {
    pub(super) const READ_ARENA: RegionId = RegionId(0);
    pub(super) const WRITE_ARENA: RegionId = RegionId(1);

    pub(super) fn new(id: QueuePairId, sizes: Sizes) -> Self {
        let arena = |remote_write| Arena {
            bytes: vec![0xa5; sizes.arena as usize],
            remote_write,
        };
        let (sends, receives) = (usize::from(sizes.plan.sends), usize::from(sizes.plan.receives));
        Self {
            id,
            plan: sizes.plan,
            send_slots: vec![vec![0xee; sizes.send_slot]; sends],
            send_busy: vec![false; sends],
            receive_slots: vec![vec![0xee; sizes.receive_slot]; receives],
            receive_state: vec![ReceiveSlot::Readable(0); receives],
            arenas: vec![arena(true), arena(false)],
            windows: Windows::new(
                id,
                match sizes.exposure {
                    Exposure::Pool => 0,
                    Exposure::Window => sizes.plan.commands,
                },
            ),
            sends: VecDeque::new(),
            receives: VecDeque::new(),
            queued_receives: Vec::new(),
            inbound: VecDeque::new(),
            error: None,
            cut: false,
            unacknowledged: false,
            given_up: false,
            logged_out: false,
            unmarked: false,
            destroyed: false,
            leases: Leases::default(),
            credits: i64::from(sizes.credits),
            outbound: 0,
            untold: 0,
            forged: BTreeSet::new(),
            deceived: false,
            heard: Instant::default(),
            to_target: Instant::default(),
            to_initiator: Instant::default(),
            acknowledged: Instant::default(),
        }
    }

    pub(super) fn post(&mut self, slot: u16, work: Work) {
        let (rung, transmitted) = (false, false);
        self.sends.push_back(PostedSend {
            slot,
            work,
            rung,
            transmitted,
        });
    }

    pub(super) fn marker(&self) -> u16 {
        self.plan.receives - 1
    }

    pub(super) fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    fn key(&self, region: RegionId) -> u32 {
        self.id.0 << 8 | u32::from(region.0) | 0x80
    }

    /// How a target names an extent of an arena that is open to it.
    pub(super) fn describe(&self, extent: Extent) -> MemoryDescriptor {
        self.describe_as(extent, self.key(extent.region))
    }

    /// How a target names an extent under a key.
    pub(super) fn describe_as(&self, extent: Extent, key: u32) -> MemoryDescriptor {
        MemoryDescriptor {
            address: ARENA_STRIDE * u64::from(extent.region.0 + 1) + u64::from(extent.offset),
            key,
            len: extent.len,
        }
    }

    /// The extent a target names by an arena's key, when there is one.
    pub(super) fn resolve(&self, descriptor: MemoryDescriptor) -> Option<Extent> {
        let region = (0u16..)
            .zip(&self.arenas)
            .map(|(region, _)| RegionId(region))
            .find(|region| self.key(*region) == descriptor.key)?;
        self.locate(descriptor, region)
    }

    /// The extent of an arena a target names by its address, whatever the key.
    pub(super) fn locate(&self, descriptor: MemoryDescriptor, region: RegionId) -> Option<Extent> {
        let arena = self.arenas.get(usize::from(region.0))?;
        let base = ARENA_STRIDE * u64::from(region.0 + 1);
        let offset = u32::try_from(descriptor.address.checked_sub(base)?).ok()?;
        let end = u64::from(offset) + u64::from(descriptor.len);
        let fits = end <= arena.bytes.len() as u64;
        fits.then_some(Extent {
            region,
            offset,
            len: descriptor.len,
        })
    }

    pub(super) fn bytes(&self, extent: Extent) -> Option<&[u8]> {
        let arena = self.arenas.get(usize::from(extent.region.0))?;
        arena
            .bytes
            .get(extent.offset as usize..extent.offset as usize + extent.len as usize)
    }

    pub(super) fn bytes_mut(&mut self, extent: Extent) -> Option<&mut [u8]> {
        let arena = self.arenas.get_mut(usize::from(extent.region.0))?;
        arena
            .bytes
            .get_mut(extent.offset as usize..extent.offset as usize + extent.len as usize)
    }
}
