//! Who may touch which memory: the book the DMA rule is checked against.
//!
//! A lease runs from the post of a command until its SEND has completed, it was answered and its window is closed, or
//! the queue pair was flushed, each as far as the engine was told. The target may touch the extent for as long; the engine may
//! not. What is lent to the client is not for the engine to describe to a target.

use crate::fabric::Extent;
use crate::time::Instant;

/// What a posted command may have done to our memory.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) slot: u16,
    pub(super) tag: u64,
    pub(super) lun: u64,
    pub(super) cdb: [u8; 16],
    /// Where its data is, and whether the target writes to it.
    pub(super) data: Option<(Vec<Extent>, bool)>,
    /// When it was posted.
    pub(super) at: Instant,
    pub(super) sent: bool,
    pub(super) answered: bool,
    /// Its window has not been closed.
    pub(super) window: bool,
    /// The order of posting, over commands and functions.
    pub(super) serial: u64,
}

impl Lease {
    fn pieces(&self) -> &[Extent] {
        self.data.as_ref().map_or(&[], |(pieces, _)| pieces)
    }
}

/// A task management function that may end leases.
#[derive(Clone, Copy, Debug)]
struct Function {
    tag: u64,
    /// The command it ends; without one, every command of the logical unit.
    task: Option<u64>,
    lun: u64,
    serial: u64,
}

/// The leases of one queue pair.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: Vec<Lease>,
    functions: Vec<Function>,
    lent: Vec<Extent>,
    serial: u64,
    /// The queue pair was flushed behind the last access.
    flushed: bool,
}

fn overlap(a: Extent, b: Extent) -> bool {
    a.region == b.region
        && u64::from(a.offset) < u64::from(b.offset) + u64::from(b.len.max(1))
        && u64::from(b.offset) < u64::from(a.offset) + u64::from(a.len.max(1))
}

impl Leases {
    /// The lease whose memory this is.
    pub(super) fn holder(&self, extent: Extent) -> Option<&Lease> {
        let overlaps = |lease: &Lease| lease.pieces().iter().any(|other| overlap(*other, extent));
        let holds = |lease: &&Lease| overlaps(lease);
        self.leases.iter().find(holds)
    }

    /// Starts a lease; says what stands against it.
    pub(super) fn start(&mut self, mut lease: Lease) -> Result<(), String> {
        self.serial += 1;
        lease.serial = self.serial;
        let mut objection = Ok(());
        for &extent in lease.pieces() {
            if let Some(other) = self.holder(extent) {
                let tag = other.tag;
                objection = Err(format!("{extent:?} given to a command while tag {tag:#x} has it"));
            } else if self.lent.iter().any(|other| overlap(*other, extent)) {
                objection = Err(format!("{extent:?} given to a command while the client has it"));
            }
        }
        if let Some(other) = self.leases.iter().find(|other| other.slot == lease.slot) {
            let (slot, tag) = (lease.slot, other.tag);
            objection = Err(format!("slot {slot} used again before tag {tag:#x} is over"));
        }
        self.leases.push(lease);
        objection
    }

    /// Notes a task management function: its completion is as good as an answer.
    pub(super) fn function(&mut self, tag: u64, task: Option<u64>, lun: u64) {
        self.serial += 1;
        let serial = self.serial;
        self.functions.push(Function { tag, task, lun, serial });
    }

    /// Whether the SEND of a command is still under way, as far as the engine knows.
    pub(super) fn is_unsent(&self, tag: u64) -> bool {
        self.leases.iter().any(|lease| lease.tag == tag && !lease.sent)
    }

    /// The lease of a command of which the engine is to hear nothing but the answer.
    pub(super) fn sent_with(&self, tag: u64) -> Option<&Lease> {
        let waits = |lease: &&Lease| lease.tag == tag && lease.sent && !lease.answered && !lease.window;
        self.leases.iter().find(waits)
    }

    /// The command with this tag, as long as it was not answered.
    pub(super) fn unanswered(&self, tag: u64) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.tag == tag && !lease.answered)
    }

    /// The engine was told that the SEND of a slot is over.
    pub(super) fn sent(&mut self, slot: u16) {
        for lease in &mut self.leases {
            lease.sent |= lease.slot == slot;
        }
        self.end();
    }

    /// The engine was told that the window of a slot is closed.
    pub(super) fn closed(&mut self, slot: u16) {
        for lease in &mut self.leases {
            lease.window &= lease.slot != slot;
        }
        self.end();
    }

    /// The engine was handed a response.
    pub(super) fn answered(&mut self, tag: u64, code: Option<u8>) {
        for lease in &mut self.leases {
            lease.answered |= lease.tag == tag;
        }
        if let Some(index) = self.functions.iter().position(|function| function.tag == tag) {
            let function = self.functions.swap_remove(index);
            if code == Some(0) {
                for lease in &mut self.leases {
                    lease.answered |= match function.task {
                        Some(task) => lease.tag == task,
                        None => lease.lun == function.lun && lease.serial < function.serial,
                    };
                }
            }
        }
        self.end();
    }

    /// The engine was told that the queue pair is flushed behind the last access.
    pub(super) fn flushed(&mut self) {
        self.flushed = true;
        self.end();
    }

    /// There is no queue pair any more.
    pub(super) fn destroyed(&mut self) {
        self.leases.clear();
    }

    pub(super) fn lend(&mut self, extent: Extent) -> Result<(), String> {
        let taken = self.holder(extent).map(|lease| lease.tag);
        let twice = self.lent.iter().any(|other| overlap(*other, extent));
        self.lent.push(extent);
        match taken {
            Some(tag) => Err(format!("{extent:?} handed to the client while tag {tag:#x} has it")),
            None if twice => Err(format!("{extent:?} handed to the client twice")),
            None => Ok(()),
        }
    }

    pub(super) fn give_back(&mut self, extent: Extent) {
        if let Some(index) = self.lent.iter().position(|other| *other == extent) {
            self.lent.swap_remove(index);
        }
    }

    /// Whether the target may touch these bytes this way.
    pub(super) fn permits(&self, extent: Extent, write: bool) -> bool {
        self.leases.iter().any(|lease| {
            let inside = |own: &Extent| {
                own.region == extent.region
                    && own.offset <= extent.offset
                    && extent.offset + extent.len <= own.offset + own.len
            };
            lease
                .data
                .as_ref()
                .is_some_and(|(own, writes)| *writes == write && own.iter().any(inside))
        })
    }

    /// The lease of a command that is not over, by what the command is.
    pub(super) fn of_command(&self, lun: u64, lba: u64, write: bool) -> Option<&Lease> {
        self.leases.iter().find(|lease| {
            lease.lun == lun
                && lease.data.as_ref().is_some_and(|(_, to_us)| *to_us != write)
                && super::target::extent_of(&lease.cdb).is_some_and(|(at, _)| at == lba)
        })
    }

    /// A read, write or flush that has been out since before `then`: not answered, or its SEND not acknowledged, or its
    /// window not closed.
    pub(super) fn older_than(&self, then: Instant) -> Option<&Lease> {
        let medium = |lease: &&Lease| matches!(lease.cdb[0], 0x28 | 0x2a | 0x35 | 0x88 | 0x8a | 0x91);
        self.leases.iter().filter(medium).find(|lease| lease.at < then)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.lent.is_empty()
    }

    fn end(&mut self) {
        let flushed = self.flushed;
        self.leases
            .retain(|lease| !(lease.sent && (lease.answered && !lease.window || flushed)));
    }
}
