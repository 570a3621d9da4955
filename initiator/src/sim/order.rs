//! Who went first: FIFO within a logical unit, round robin across those of a session, on each reactor.
//!
//! The post of a read and the [`crate::session::Event::Supply`] of a write tell when a request left its queue.

use std::collections::{BTreeMap, VecDeque};

use crate::session::RequestId;

#[derive(Debug, Default)]
struct Unit {
    session: u32,
    /// Requests that have not left their queue, and whether they are reads.
    waiting: VecDeque<(RequestId, u64, bool)>,
    /// Reads of other units that left since this one's turn.
    passed: u32,
    /// Turns it took with writes in the batch that is looked at: they are heard of before the reads of others.
    turns: u32,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    /// By reactor and logical unit: what a reactor hands over leaves its book.
    units: BTreeMap<(usize, u64), Unit>,
}

impl Order {
    pub(super) fn know(&mut self, reactor: usize, lun: u64, session: u32) {
        self.units.entry((reactor, lun)).or_default().session = session;
    }

    pub(super) fn submitted(&mut self, reactor: usize, lun: u64, id: RequestId, lba: u64, read: bool) {
        let unit = self.units.entry((reactor, lun)).or_default();
        if unit.waiting.is_empty() {
            unit.passed = 0;
        }
        unit.waiting.push_back((id, lba, read));
    }

    /// It ended; maybe without having left its queue.
    pub(super) fn ended(&mut self, reactor: usize, lun: u64, id: RequestId) {
        if let Some(unit) = self.units.get_mut(&(reactor, lun)) {
            unit.waiting.retain(|(other, _, _)| *other != id);
        }
    }

    /// A write left its queue.
    pub(super) fn supplied(&mut self, reactor: usize, lun: u64, id: RequestId) -> Result<(), String> {
        let Some(unit) = self.units.get_mut(&(reactor, lun)) else {
            return Ok(());
        };
        unit.passed = 0;
        unit.turns += 1;
        // One that had left its queue before goes to another channel.
        if unit.waiting.iter().all(|(other, _, _)| *other != id) {
            return Ok(());
        }
        let first = unit.waiting.iter().find(|(_, _, read)| !read).map(|(id, _, _)| *id);
        unit.waiting.retain(|(other, _, _)| *other != id);
        match first {
            Some(first) if first != id => Err(format!("write {id:?} went before {first:?}")),
            _ => Ok(()),
        }
    }

    /// What happened in one call of the engine has been looked at.
    pub(super) fn batch_over(&mut self) {
        for unit in self.units.values_mut() {
            // Which reads of the others were before its turn is not known.
            if std::mem::take(&mut unit.turns) > 0 {
                unit.passed = 0;
            }
        }
    }

    /// Other engines have the units of a session: their books begin anew.
    pub(super) fn anew(&mut self, session: u32) {
        for unit in self.units.values_mut().filter(|unit| unit.session == session) {
            unit.waiting.clear();
            (unit.passed, unit.turns) = (0, 0);
        }
    }

    /// A command was posted: maybe a retry, which takes its unit's turn too.
    pub(super) fn turn(&mut self, reactor: usize, lun: u64) {
        if let Some(unit) = self.units.get_mut(&(reactor, lun)) {
            unit.passed = 0;
        }
    }

    /// A read was posted. The first error is of order, the second of fairness.
    pub(super) fn posted(&mut self, reactor: usize, lun: u64, lba: u64) -> (Result<(), String>, Result<(), String>) {
        let Some(unit) = self.units.get_mut(&(reactor, lun)) else {
            return (Ok(()), Ok(()));
        };
        let session = unit.session;
        let place = unit.waiting.iter().position(|(_, at, read)| *read && *at == lba);
        // One that had left its queue before is a retry.
        let Some(place) = place else { return (Ok(()), Ok(())) };
        let first = unit.waiting.iter().position(|(_, _, read)| *read);
        let order = if first == Some(place) {
            Ok(())
        } else {
            Err(format!("read of lun {} lba {lba} overtook another", lun >> 48))
        };
        unit.waiting.remove(place);
        let bound = self
            .units
            .iter()
            .filter(|((at, _), unit)| *at == reactor && unit.session == session)
            .count();
        let mut fairness = Ok(());
        for ((at, other), unit) in &mut self.units {
            let waits = unit.waiting.front().is_some_and(|(_, _, read)| *read);
            if *at != reactor || *other == lun || unit.session != session || !waits {
                continue;
            }
            unit.passed += 1;
            if unit.passed as usize > bound * (1 + unit.turns as usize) {
                fairness = Err(format!("lun {} passed over {} times", other >> 48, unit.passed));
            }
        }
        (order, fairness)
    }
}
