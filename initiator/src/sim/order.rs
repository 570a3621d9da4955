//! Who went first: FIFO within a logical unit, round robin across those of a session, on each reactor.
//!
//! A read leaves its queue with its post. A write does with the [`crate::session::Event::Supply`], or with its post when it is
//! sent again with the data it has. What was refused is back when the engine heard so, or at the end of the pause; of
//! what comes back otherwise nobody outside of the engine can say when.

use std::collections::BTreeMap;

use crate::session::RequestId;
use crate::time::Instant;

/// A request an engine has.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: RequestId,
    /// Its place among all that the engine got.
    serial: u64,
    lba: u64,
    read: bool,
    /// It was with the target, and is back since then.
    back: Option<Instant>,
}

#[derive(Debug, Default)]
struct Unit {
    session: u32,
    /// Requests that have not left their queue or are back in it, in their order.
    waiting: Vec<Entry>,
    /// Those that left it.
    away: Vec<Entry>,
    /// Writes that left it in the batch that is looked at: they are heard of before the reads.
    supplied: Vec<Entry>,
    /// Reads of other units that left since this one's turn.
    passed: u32,
    /// Turns it took with writes in the batch that is looked at: they are heard of before the reads of others.
    turns: u32,
}

impl Unit {
    /// Takes a request that waits out of the queue, if it is there.
    fn leave(&mut self, is_it: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let place = self.waiting.iter().position(is_it)?;
        let entry = self.waiting.remove(place);
        self.away.push(entry);
        Some(entry)
    }

    /// One that came earlier, and waits all the same.
    fn older(&self, left: Entry, now: Instant, which: impl Fn(&Entry) -> bool) -> Result<(), String> {
        // At the very end of its pause it may be a moment behind a new one.
        let is_there = |at: Instant| at < now || left.back.is_some() && at == now;
        let mut older = self.waiting.iter().filter(|entry| entry.serial < left.serial);
        let first = older.find(|entry| entry.back.is_none_or(is_there) && which(entry));
        match first {
            Some(first) => Err(format!("{left:?} went before {first:?}")),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Order {
    /// By reactor and logical unit: what a reactor hands over leaves its book.
    units: BTreeMap<(usize, u64), Unit>,
    serial: u64,
}

impl Order {
    pub(super) fn know(&mut self, reactor: usize, lun: u64, session: u32) {
        self.units.entry((reactor, lun)).or_default().session = session;
    }

    pub(super) fn submitted(&mut self, reactor: usize, lun: u64, id: RequestId, lba: u64, read: bool) {
        self.serial += 1;
        let unit = self.units.entry((reactor, lun)).or_default();
        if unit.waiting.iter().all(|entry| entry.back.is_some()) {
            unit.passed = 0;
        }
        unit.waiting.push(Entry {
            id,
            serial: self.serial,
            lba,
            read,
            back: None,
        });
    }

    /// A write of unknown fate came, which waits for the reset of its unit.
    pub(super) fn doubtful(&mut self, reactor: usize, lun: u64, id: RequestId, lba: u64) {
        self.serial += 1;
        self.units.entry((reactor, lun)).or_default().away.push(Entry {
            id,
            serial: self.serial,
            lba,
            read: false,
            back: None,
        });
    }

    /// It ended; maybe without having left its queue.
    pub(super) fn ended(&mut self, reactor: usize, lun: u64, id: RequestId) {
        if let Some(unit) = self.units.get_mut(&(reactor, lun)) {
            unit.waiting.retain(|entry| entry.id != id);
            unit.away.retain(|entry| entry.id != id);
        }
    }

    /// The engine heard that a command was refused: it waits again, from a moment on.
    pub(super) fn refused(&mut self, reactor: usize, lun: u64, lba: u64, read: bool, from: Instant) {
        let Some(unit) = self.units.get_mut(&(reactor, lun)) else {
            return;
        };
        let is_it = |entry: &Entry| (entry.lba, entry.read) == (lba, read);
        let Some(place) = unit.away.iter().position(is_it) else {
            return;
        };
        let entry = unit.away.swap_remove(place);
        let place = unit.waiting.partition_point(|other| other.serial < entry.serial);
        let back = Some(from);
        unit.waiting.insert(place, Entry { back, ..entry });
    }

    /// A write left its queue.
    pub(super) fn supplied(&mut self, reactor: usize, lun: u64, id: RequestId, now: Instant) -> Result<(), String> {
        let Some(unit) = self.units.get_mut(&(reactor, lun)) else {
            return Ok(());
        };
        unit.passed = 0;
        unit.turns += 1;
        // One that had left its queue before goes to another channel.
        let Some(left) = unit.leave(|entry| entry.id == id) else {
            return Ok(());
        };
        unit.supplied.push(left);
        unit.older(left, now, |entry| !entry.read && entry.back.is_none())
    }

    /// What happened in one call of the engine has been looked at.
    pub(super) fn batch_over(&mut self, now: Instant) -> Result<(), String> {
        let mut order = Ok(());
        for unit in self.units.values_mut() {
            // Which reads of the others were before its turn is not known.
            if std::mem::take(&mut unit.turns) > 0 {
                unit.passed = 0;
            }
            for left in std::mem::take(&mut unit.supplied) {
                order = order.and(unit.older(left, now, |_| true));
            }
        }
        order
    }

    /// Other engines have the units of a session: their books begin anew.
    pub(super) fn anew(&mut self, session: u32) {
        for unit in self.units.values_mut().filter(|unit| unit.session == session) {
            unit.waiting.clear();
            unit.away.clear();
            unit.supplied.clear();
            (unit.passed, unit.turns) = (0, 0);
        }
    }

    /// A command was posted: maybe a retry, which takes its unit's turn too.
    pub(super) fn turn(&mut self, reactor: usize, lun: u64) {
        if let Some(unit) = self.units.get_mut(&(reactor, lun)) {
            unit.passed = 0;
        }
    }

    /// A read or a write was posted. The first error is of order, the second of fairness. `at_target` tells where a write of a
    /// unit is: one that is not there may be back in front of the reads, and wait for a buffer that they do not need.
    pub(super) fn posted(
        &mut self,
        reactor: usize,
        lun: u64,
        lba: u64,
        read: bool,
        now: Instant,
        at_target: impl Fn(u64, u64) -> bool,
    ) -> (Result<(), String>, Result<(), String>) {
        let Some(unit) = self.units.get_mut(&(reactor, lun)) else {
            return (Ok(()), Ok(()));
        };
        let session = unit.session;
        // A new write left its queue before.
        let is_it = |entry: &Entry| (entry.lba, entry.read) == (lba, read) && (read || entry.back.is_some());
        let Some(left) = unit.leave(is_it) else {
            return (Ok(()), Ok(()));
        };
        let order = unit.older(left, now, |_| true);
        if left.back.is_some() {
            return (order, Ok(()));
        }
        let bound = self
            .units
            .iter()
            .filter(|((at, _), unit)| *at == reactor && unit.session == session)
            .count();
        let mut fairness = Ok(());
        for ((at, other), unit) in &mut self.units {
            let first = unit.waiting.iter().find(|entry| entry.back.is_none());
            let waits = first.is_some_and(|entry| entry.read);
            if *at != reactor || *other == lun || unit.session != session || !waits {
                continue;
            }
            unit.passed += 1;
            if unit.passed as usize > bound * (1 + unit.turns as usize) {
                let back = |entry: &Entry| !entry.read && !at_target(*other, entry.lba);
                if unit.away.iter().any(back) || unit.waiting.first().is_some_and(|first| !first.read) {
                    unit.passed = 0;
                    continue;
                }
                fairness = Err(format!("lun {} passed over {} times", other >> 48, unit.passed));
            }
        }
        (order, fairness)
    }
}
