//! The memory windows of a simulated queue pair, and targets that reach beyond them.

use super::check::rule;
use super::net::{Happening, Net};
use super::odds::{Odds, Span};
use super::queue_pair::SimQueuePair;
use super::trace::Note;
use crate::fabric::{Extent, QueuePairId, RemoteAccess, WorkError};
use crate::wire::MemoryDescriptor;

/// What a window is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) key: u32,
    pub(super) extent: Extent,
    pub(super) access: RemoteAccess,
}

/// One window, of one send slot.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// The part of the key that changes with every opening.
    generation: u8,
    /// As it is when everything posted has been done.
    posted: Option<Opening>,
    /// As the hardware has it.
    open: Option<Opening>,
}

/// The windows of a queue pair; there are none where the arenas are open.
#[derive(Debug)]
pub(super) struct Windows {
    qp: QueuePairId,
    windows: Vec<Window>,
}

impl Windows {
    pub(super) fn new(qp: QueuePairId, count: u16) -> Self {
        Self {
            qp,
            windows: vec![Window::default(); usize::from(count)],
        }
    }

    pub(super) fn exist(&self) -> bool {
        !self.windows.is_empty()
    }

    fn key(&self, slot: u16, generation: u8) -> u32 {
        1 << 31 | (self.qp.0 & 0x7ff) << 20 | u32::from(slot) << 8 | u32::from(generation)
    }

    /// The key of a window once it is opened again.
    pub(super) fn next_key(&self, slot: u16) -> Option<u32> {
        let window = self.windows.get(usize::from(slot))?;
        Some(self.key(slot, window.generation.wrapping_add(1)))
    }

    /// An opening is posted.
    pub(super) fn post_open(
        &mut self,
        slot: u16,
        extent: Extent,
        access: RemoteAccess,
    ) -> Result<Opening, &'static str> {
        let key = self.next_key(slot).ok_or("a window that does not exist is opened")?;
        let window = &mut self.windows[usize::from(slot)];
        if window.posted.is_some() {
            return Err("a window is opened that was not closed");
        }
        let opening = Opening { key, extent, access };
        window.generation = window.generation.wrapping_add(1);
        window.posted = Some(opening);
        Ok(opening)
    }

    /// A closing is posted.
    pub(super) fn post_close(&mut self, slot: u16) -> Result<(), &'static str> {
        let window = self.windows.get_mut(usize::from(slot));
        let posted = window.and_then(|window| window.posted.take());
        posted.map(drop).ok_or("a window is closed that was not opened")
    }

    /// An opening or a closing is done.
    pub(super) fn set(&mut self, slot: u16, open: Option<Opening>) {
        if let Some(window) = self.windows.get_mut(usize::from(slot)) {
            window.open = open;
        }
    }

    /// What the window of a slot will be open on when the SEND that is posted now leaves.
    pub(super) fn posted(&self, slot: u16) -> Option<Opening> {
        self.windows.get(usize::from(slot))?.posted
    }

    /// The open window with this key.
    pub(super) fn find(&self, key: u32) -> Option<Opening> {
        let open = self.windows.iter().filter_map(|window| window.open);
        open.into_iter().find(|opening| opening.key == key)
    }

    /// Some window is open.
    pub(super) fn any(&self) -> bool {
        self.windows.iter().any(|window| window.open.is_some())
    }
}

impl SimQueuePair {
    /// What a posted command's descriptor entitles the target to, or what is wrong with it.
    pub(super) fn entitle(&self, slot: u16, named: MemoryDescriptor, access: RemoteAccess) -> Result<Extent, String> {
        if !self.windows.exist() {
            let extent = self.resolve(named);
            return extent.ok_or_else(|| "a command describes memory that is not registered".to_owned());
        }
        let Some(opening) = self.windows.posted(slot) else {
            return Err(format!("a command describes {named:?} without a window of its own"));
        };
        if opening.access != access || self.describe_as(opening.extent, opening.key) != named {
            return Err(format!(
                "a command says {access:?} {named:?}, its window is {opening:?}"
            ));
        }
        Ok(opening.extent)
    }

    /// The bytes an access of the target gets to, where the hardware lets it.
    pub(super) fn admit(&self, memory: MemoryDescriptor, access: RemoteAccess) -> Option<Extent> {
        if !self.windows.exist() {
            let extent = self.resolve(memory)?;
            let arena = self.arenas.get(usize::from(extent.region.0))?;
            return (arena.remote_write == (access == RemoteAccess::Write)).then_some(extent);
        }
        let opening = self.windows.find(memory.key)?;
        let extent = self.locate(memory, opening.extent.region)?;
        let start = opening.extent.offset;
        let inside = extent.offset >= start && extent.offset + extent.len <= start + opening.extent.len;
        (opening.access == access && inside).then_some(extent)
    }
}

/// An access that no command asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trespass {
    pub(super) memory: MemoryDescriptor,
    pub(super) access: RemoteAccess,
}

impl Net {
    /// The hardware opens a window, or fails to.
    pub(super) fn open_window(&mut self, id: QueuePairId, slot: u16, opening: Opening) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if qp.locate(qp.describe(opening.extent), opening.extent.region).is_none() {
            let what = format!("{opening:?} is beyond its arena");
            self.checks.broken(self.now, rule::DMA, what);
        }
        // What fails is the oldest that is not done.
        let oldest = qp.sends.front().is_some_and(|send| send.slot == slot);
        if oldest && Odds::hit(&mut self.rng, self.odds.fail_bind) {
            self.tally.count("window not opened");
            return self.fail(id, Some(WorkError::Bind));
        }
        qp.windows.set(slot, Some(opening));
        self.tally.count("window opened");
        self.retire(id);
    }

    /// A target that has just answered a command may try to get at memory once more: at the same bytes, at those next
    /// to them, in the other direction, or over another queue pair.
    pub(super) fn tempt(&mut self, id: QueuePairId, memory: MemoryDescriptor, access: RemoteAccess) {
        let windows = self.queue_pairs.get(&id).is_some_and(|qp| qp.windows.exist());
        if !windows || !Odds::hit(&mut self.rng, self.odds.trespass) {
            return;
        }
        let other = match access {
            RemoteAccess::Read => RemoteAccess::Write,
            RemoteAccess::Write => RemoteAccess::Read,
        };
        let behind = MemoryDescriptor {
            address: memory.address + u64::from(memory.len),
            len: 1,
            ..memory
        };
        let mut over = id;
        let (memory, access) = match self.rng.u8(0..4) {
            0 => (memory, access),
            1 => (behind, access),
            2 => (memory, other),
            _ => {
                let ids: Vec<QueuePairId> = self.queue_pairs.keys().copied().filter(|qp| *qp != id).collect();
                over = self.rng.choice(&ids).copied().unwrap_or(id);
                (memory, access)
            }
        };
        let trespass = Trespass { memory, access };
        // Before the answer is there, or when the window should be closed.
        let late = if self.rng.u8(0..4) == 0 { 20 } else { 3000 };
        self.within(Span::micros(0, late), Happening::Trespass(over, trespass));
    }

    /// The access is tried. Nothing is moved: a target may make of its own command's data what it likes.
    pub(super) fn trespass(&mut self, id: QueuePairId, trespass: Trespass) {
        let Trespass { memory, access } = trespass;
        let Some(qp) = self.queue_pairs.get(&id) else { return };
        if qp.cut || qp.is_broken() || !qp.windows.exist() {
            return;
        }
        let write = access == RemoteAccess::Write;
        let admitted = qp.admit(memory, access);
        if let Some(extent) = admitted
            && !qp.leases.permits(extent, write)
        {
            self.broken(
                rule::DMA,
                format!("a target gets at {extent:?}, which no command gave it"),
            );
        }
        let (address, len, done) = (memory.address, memory.len as usize, admitted.is_some());
        let note = Note::Access {
            write,
            address,
            len,
            done,
        };
        self.trace.add(self.now, Some(id), 0, note);
        if done {
            self.tally
                .count("access beyond need, still within the command's window");
        } else {
            self.tally.count("access outside of any window, refused");
            // Such a request ends the queue pair on both sides (IBA 9.7.5.2.5).
            self.fail(id, None);
        }
    }
}
