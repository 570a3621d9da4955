//! Model disks: what a command does to the medium, and what it answers.

use std::collections::VecDeque;

use super::{DiskSpec, pages};
use crate::scsi::Cdb;
use crate::scsi::cdb::Operation;
use crate::scsi::outcome::{BUSY, CHECK_CONDITION, GOOD, TASK_SET_FULL};
use crate::sim::odds::Injection;

/// A logical unit.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) spec: DiskSpec,
    pub(super) data: Vec<u8>,
    pub(super) injections: VecDeque<Injection>,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) flushes: u64,
}

/// How a command ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) sense: Option<Vec<u8>>,
    /// DATA-IN.
    pub(super) data: Vec<u8>,
    /// Bytes of the medium the command moved, as far as it is a read or write.
    pub(super) moved: u32,
    /// Bytes the command asked for.
    pub(super) wanted: u32,
}

impl Answer {
    pub(super) fn good(data: Vec<u8>) -> Self {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        Self {
            status: GOOD,
            sense: None,
            data,
            moved: len,
            wanted: len,
        }
    }

    pub(super) fn check(key: u8, asc: u8, ascq: u8, descriptor: bool) -> Self {
        let sense = if descriptor {
            vec![0x72, key, asc, ascq, 0, 0, 0, 0]
        } else {
            let mut sense = vec![0; 18];
            (sense[0], sense[2], sense[7]) = (0x70, key, 10);
            (sense[12], sense[13]) = (asc, ascq);
            sense
        };
        Self {
            status: CHECK_CONDITION,
            sense: Some(sense),
            ..Self::default()
        }
    }

    pub(super) fn status(status: u8) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

/// The answer an injection makes instead of the command's own, when it does.
pub(super) fn injected(injection: Injection, descriptor: bool) -> Option<Answer> {
    match injection {
        Injection::UnitAttention { asc, ascq } => Some(Answer::check(6, asc, ascq, descriptor)),
        Injection::Busy => Some(Answer::status(BUSY)),
        Injection::TaskSetFull => Some(Answer::status(TASK_SET_FULL)),
        Injection::Check { key, asc, ascq } => Some(Answer::check(key, asc, ascq, descriptor)),
        _ => None,
    }
}

impl Disk {
    pub(super) fn new(spec: DiskSpec) -> Self {
        let len = usize::try_from(spec.blocks * u64::from(spec.block_size)).unwrap_or(0);
        Self {
            spec,
            data: vec![0; len],
            injections: VecDeque::new(),
            reads: 0,
            writes: 0,
            flushes: 0,
        }
    }

    /// Carries a command out. `out` is its DATA-OUT, `missing` how many bytes fewer than asked it shall move.
    pub(super) fn execute(&mut self, cdb: &Cdb, out: &[u8], missing: u32, descriptor: bool) -> Answer {
        let operation = cdb.operation();
        match operation {
            Operation::Read { lba, blocks, .. } => {
                let Some((start, end)) = self.range(lba, blocks) else {
                    return Answer::check(5, 0x21, 0, descriptor);
                };
                self.reads += 1;
                let wanted = end - start;
                let end = end - (missing as usize).min(wanted);
                let mut answer = Answer::good(self.data[start..end].to_vec());
                answer.wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
                answer
            }
            Operation::Write { lba, blocks, .. } => {
                let Some((start, end)) = self.range(lba, blocks) else {
                    return Answer::check(5, 0x21, 0, descriptor);
                };
                self.writes += 1;
                let wanted = end - start;
                let len = out.len().min(wanted - (missing as usize).min(wanted));
                // Blocks are written whole or not at all.
                let len = len - len % self.spec.block_size as usize;
                self.data[start..start + len].copy_from_slice(&out[..len]);
                let mut answer = Answer::good(Vec::new());
                answer.wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
                answer.moved = u32::try_from(len).unwrap_or(u32::MAX);
                answer
            }
            Operation::SynchronizeCache { .. } => {
                self.flushes += 1;
                Answer::good(Vec::new())
            }
            Operation::TestUnitReady => Answer::good(Vec::new()),
            _ => {
                pages::answer(&self.spec, operation).map_or_else(|| Answer::check(5, 0x20, 0, descriptor), Answer::good)
            }
        }
    }

    fn range(&self, lba: u64, blocks: u32) -> Option<(usize, usize)> {
        let end = lba.checked_add(u64::from(blocks))?;
        if end > self.spec.blocks {
            return None;
        }
        let size = u64::from(self.spec.block_size);
        Some((usize::try_from(lba * size).ok()?, usize::try_from(end * size).ok()?))
    }
}
