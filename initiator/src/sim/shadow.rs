//! What the disks must hold, as far as the client was told.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern::{fill_block, stamp_of};
use crate::fabric::QueuePairId;

/// Blocks of a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) lun: u64,
    pub(super) lba: u64,
    pub(super) blocks: u32,
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        self.lun == other.lun
            && self.lba < other.lba + u64::from(other.blocks)
            && other.lba < self.lba + u64::from(self.blocks)
    }

    fn lbas(&self) -> impl Iterator<Item = u64> + use<> {
        self.lba..self.lba + u64::from(self.blocks)
    }
}

/// Blocks whose last write failed and may still be carried out, and by which dead connections. The block layer is promised
/// nothing about them until these have ended at the target, so the client writes them no sooner: what a write of before then
/// leaves there nobody could say.
#[derive(Debug)]
struct Quarantine {
    range: Range,
    until_quiet: Vec<QueuePairId>,
}

#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Numbers of the writes a block may hold; a block never written may hold zeros only.
    held: BTreeMap<(u64, u64), BTreeSet<u64>>,
    under_way: Vec<(Range, bool)>,
    quarantine: Vec<Quarantine>,
}

impl Shadow {
    /// Whether a request can be made without its outcome depending on another one.
    pub(super) fn is_free(&self, range: Range, write: bool) -> bool {
        let busy = self.under_way.iter().any(|(other, writes)| {
            let same_start = range.lun == other.lun && range.lba == other.lba;
            same_start || range.overlaps(other) && (write || *writes)
        });
        let held_back = write && self.quarantine.iter().any(|entry| entry.range.overlaps(&range));
        !busy && !held_back
    }

    pub(super) fn begin(&mut self, range: Range, write: bool) {
        self.under_way.push((range, write));
    }

    pub(super) fn end(&mut self, range: Range, write: bool) {
        let is_it = |entry: &(Range, bool)| *entry == (range, write);
        if let Some(index) = self.under_way.iter().position(is_it) {
            self.under_way.swap_remove(index);
        }
    }

    /// A write was acknowledged.
    pub(super) fn written(&mut self, range: Range, stamp: u64) {
        for lba in range.lbas() {
            self.held.insert((range.lun, lba), BTreeSet::from([stamp]));
        }
    }

    /// A write failed: it may have happened, and may still happen through connections that are gone.
    pub(super) fn doubtful(&mut self, range: Range, stamp: u64, until_quiet: Vec<QueuePairId>) {
        for lba in range.lbas() {
            let held = self.held.entry((range.lun, lba)).or_insert_with(|| BTreeSet::from([0]));
            held.insert(stamp);
        }
        if !until_quiet.is_empty() {
            self.quarantine.push(Quarantine { range, until_quiet });
        }
    }

    /// Lets go of what can not be written behind our back any more.
    pub(super) fn refresh(&mut self, mut quiet: impl FnMut(QueuePairId) -> bool) {
        self.quarantine.retain_mut(|entry| {
            entry.until_quiet.retain(|qp| !quiet(*qp));
            !entry.until_quiet.is_empty()
        });
    }

    /// Compares what was read; the last block may be incomplete.
    pub(super) fn compare(&self, range: Range, size: usize, bytes: &[u8]) -> Result<(), String> {
        let mut expected = vec![0; size];
        for (lba, block) in range.lbas().zip(bytes.chunks(size)) {
            let key = (range.lun, lba);
            let zeros = BTreeSet::from([0]);
            let held = self.held.get(&key).unwrap_or(&zeros);
            let found = held.iter().any(|stamp| {
                fill_block(&mut expected, range.lun, lba, *stamp);
                expected[..block.len()] == *block
            });
            if !found {
                let (lun, stamp) = (range.lun >> 48, stamp_of(block));
                return Err(format!(
                    "lun {lun} block {lba} holds {stamp:#x} ({:02x?}...), not one of {held:?}",
                    &block[..block.len().min(8)]
                ));
            }
        }
        Ok(())
    }
}
