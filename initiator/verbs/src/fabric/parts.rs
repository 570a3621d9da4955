//! A channel between control side and reactor: built there, used here, given back.

use std::sync::Arc;

use srp_initiator::fabric::{Extent, RegionId};

use crate::memory::{Access, Arena, MemoryError, MemoryWindow, OutOfBounds, ProtectionDomain};
use crate::queue_pair::{NotDestroyed, QueuePair};

/// Parts that do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A ring needs at least one slot of at least one byte.
    #[error("an IU ring of {slots} slots of {slot_len} bytes is not possible")]
    Ring {
        /// Slots.
        slots: u16,
        /// Bytes per slot.
        slot_len: u32,
    },
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// More slots than the queue pair takes.
    #[error("{slots} slots do not fit a queue pair of {depth} work requests")]
    Depth {
        /// Slots of the ring.
        slots: u16,
        /// Work requests of the queue.
        depth: u32,
    },
    /// Memory of another protection domain.
    #[error("memory and queue pair are of different protection domains")]
    Domain,
    /// IU memory, which no target may reach; or an arena that is open where there are windows, or closed where there are
    /// none.
    #[error("a data arena needs access for reads or for writes, by windows where the queue pair has them")]
    Access,
    /// Windows without room for what opens and closes them.
    #[error("{windows} memory windows do not fit a queue pair of {depth} sends")]
    Windows {
        /// Windows.
        windows: usize,
        /// Sends of the queue pair.
        depth: u32,
    },
    /// 65,536 arenas have been added.
    #[error("the queue pair has no region id left")]
    RegionsExhausted,
}

/// Slots of registered memory for IUs, all of one length, out of any peer's reach.
#[derive(Debug)]
pub struct IuRing {
    arena: Arena,
    slots: u16,
    slot_len: u32,
    stride: usize,
}

impl IuRing {
    /// Slots start on cache lines of their own.
    const ALIGNMENT: usize = 64;

    /// `slots` slots of `slot_len` bytes.
    ///
    /// # Errors
    /// When there would be none, or no memory.
    pub fn new(domain: &Arc<ProtectionDomain>, slots: u16, slot_len: u32) -> Result<Self, PartsError> {
        let error = PartsError::Ring { slots, slot_len };
        if slots == 0 || slot_len == 0 {
            return Err(error);
        }
        let Some(stride) = (slot_len as usize).checked_next_multiple_of(Self::ALIGNMENT) else {
            return Err(error);
        };
        let Some(len) = stride.checked_mul(usize::from(slots)) else {
            return Err(error);
        };
        Ok(Self {
            arena: Arena::new(domain, len, Access::Iu)?,
            slots,
            slot_len,
            stride,
        })
    }

    /// How many slots.
    pub const fn slots(&self) -> u16 {
        self.slots
    }

    /// Bytes per slot.
    pub const fn slot_len(&self) -> u32 {
        self.slot_len
    }

    pub(super) fn lkey(&self) -> u32 {
        self.arena.lkey()
    }

    /// The first byte of a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(super) fn slot(&self, slot: u16) -> *mut u8 {
        assert!(slot < self.slots, "IU slot {slot} of {}", self.slots);
        // SAFETY: the arena holds slots x stride bytes.
        unsafe { self.arena.base().add(usize::from(slot) * self.stride) }
    }
}

/// Everything one channel needs on a reactor: queue pair, IU rings, data arenas, and memory windows where it has them.
///
/// Dropping it ends the windows, destroys the queue pair, then ends the registrations; failures are logged.
/// [`Self::destroy`] reports them.
#[derive(Debug)]
pub struct ChannelParts {
    // The order of the fields is the order of destruction.
    pub(super) windows: Vec<MemoryWindow>,
    pub(super) queue_pair: QueuePair,
    pub(super) sends: IuRing,
    pub(super) receives: IuRing,
    regions: Vec<Option<Arena>>,
}

impl ChannelParts {
    /// A channel without data arenas yet.
    ///
    /// # Errors
    /// When rings and queue pair do not fit together.
    pub fn new(queue_pair: QueuePair, sends: IuRing, receives: IuRing) -> Result<Self, PartsError> {
        let caps = queue_pair.caps();
        for (ring, depth) in [(&sends, caps.sends), (&receives, caps.receives)] {
            if !Arc::ptr_eq(ring.arena.domain(), queue_pair.domain()) {
                return Err(PartsError::Domain);
            }
            if u32::from(ring.slots) > depth {
                return Err(PartsError::Depth {
                    slots: ring.slots,
                    depth,
                });
            }
        }
        Ok(Self {
            windows: Vec::new(),
            queue_pair,
            sends,
            receives,
            regions: Vec::new(),
        })
    }

    /// Gives the first send slots a memory window each: the target reaches data only through these. Before any data
    /// arena is added.
    ///
    /// # Errors
    /// When they are of another protection domain, or the queue pair has no room for the work requests that open and
    /// close them.
    pub fn with_windows(mut self, windows: Vec<MemoryWindow>) -> Result<Self, PartsError> {
        let domain = self.queue_pair.domain();
        if windows.iter().any(|window| !Arc::ptr_eq(window.domain(), domain)) {
            return Err(PartsError::Domain);
        }
        let depth = self.queue_pair.caps().sends;
        if windows.len() * 2 + usize::from(self.sends.slots) > depth as usize {
            let windows = windows.len();
            return Err(PartsError::Windows { windows, depth });
        }
        if self.regions().next().is_some() {
            return Err(PartsError::Access);
        }
        self.windows = windows;
        Ok(self)
    }

    /// The queue pair.
    pub const fn queue_pair(&self) -> &QueuePair {
        &self.queue_pair
    }

    /// The queue pair, to make it ready.
    pub const fn queue_pair_mut(&mut self) -> &mut QueuePair {
        &mut self.queue_pair
    }

    /// The send slots.
    pub const fn sends(&self) -> &IuRing {
        &self.sends
    }

    /// The receive slots.
    pub const fn receives(&self) -> &IuRing {
        &self.receives
    }

    /// Adds a data arena. Ids are never reused, also after [`Self::remove_region`].
    ///
    /// # Errors
    /// When it is not of this channel's protection domain, or not for data.
    pub fn add_region(&mut self, arena: Arena) -> Result<RegionId, PartsError> {
        if !Arc::ptr_eq(arena.domain(), self.queue_pair.domain()) {
            return Err(PartsError::Domain);
        }
        let open = matches!(arena.access(), Access::ReadData | Access::WriteData);
        if arena.access() == Access::Iu || open != self.windows.is_empty() {
            return Err(PartsError::Access);
        }
        let id = u16::try_from(self.regions.len()).map_err(|_| PartsError::RegionsExhausted)?;
        self.regions.push(Some(arena));
        Ok(RegionId(id))
    }

    /// Takes a data arena away. It stays registered until it is dropped.
    pub fn remove_region(&mut self, id: RegionId) -> Option<Arena> {
        self.regions.get_mut(usize::from(id.0))?.take()
    }

    /// The data arenas.
    pub fn regions(&self) -> impl Iterator<Item = (RegionId, &Arena)> {
        (0..)
            .zip(&self.regions)
            .filter_map(|(id, arena)| Some((RegionId(id), arena.as_ref()?)))
    }

    /// Destroys the queue pair and frees all memory. `Ok` says that no peer reaches any of it any more.
    ///
    /// # Errors
    /// With the channel, when the HCA keeps the queue pair. Its windows are gone, its memory stays registered.
    pub fn destroy(self) -> Result<(), NotDestroyed<Self>> {
        let Self {
            windows,
            queue_pair,
            sends,
            receives,
            regions,
        } = self;
        // A queue pair does not go while a window is open on it.
        drop(windows);
        queue_pair.destroy().map_err(|NotDestroyed { cause, kept }| {
            let kept = Box::new(Self {
                windows: Vec::new(),
                queue_pair: *kept,
                sends,
                receives,
                regions,
            });
            NotDestroyed { cause, kept }
        })
    }

    /// The arena of an extent that lies in it.
    ///
    /// # Panics
    /// When there is no such arena, or the extent is not inside: the caller made it up.
    pub(super) fn region(&self, extent: Extent) -> &Arena {
        match self.regions.get(usize::from(extent.region.0)) {
            Some(Some(arena)) => arena_with(arena, extent),
            _ => panic!("no data arena {:?}", extent.region),
        }
    }

    /// As [`Self::region`].
    pub(super) fn region_mut(&mut self, extent: Extent) -> &mut Arena {
        self.region(extent);
        match self.regions.get_mut(usize::from(extent.region.0)) {
            Some(Some(arena)) => arena,
            _ => panic!("no data arena {:?}", extent.region),
        }
    }
}

fn arena_with(arena: &Arena, extent: Extent) -> &Arena {
    let inside: Result<(), OutOfBounds> = arena.check(extent.offset as usize, extent.len as usize);
    if let Err(error) = inside {
        panic!("data arena {:?}: {error}", extent.region);
    }
    arena
}
