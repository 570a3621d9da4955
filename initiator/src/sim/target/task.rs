//! One command at the target: its data is fetched, it is executed, its data is stored, it is answered.

use super::disk::{self, Answer};
use super::{Step, Target, pages};
use crate::fabric::QueuePairId;
use crate::scsi::Cdb;
use crate::scsi::cdb::Operation;
use crate::scsi::outcome::GOOD;
use crate::sim::access::Access;
use crate::sim::net::{Happening, Net};
use crate::sim::odds::{Injection, Odds, Span};
use crate::sim::pattern::stamp_of;
use crate::wire::{MemoryDescriptor, Residual, Response};

/// The initiator's memory for a command.
#[derive(Clone, Debug)]
pub(super) enum Memory {
    None,
    In(Vec<MemoryDescriptor>),
    Out(Vec<MemoryDescriptor>),
    Immediate(u32),
}

impl Memory {
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::In(list) | Self::Out(list) => list.iter().map(|descriptor| descriptor.len).sum(),
            Self::Immediate(len) => *len,
        }
    }

    /// The part of the memory at `offset`, at most `len` bytes of one descriptor.
    fn part(&self, mut offset: u32, len: u32) -> Option<MemoryDescriptor> {
        let (Self::In(list) | Self::Out(list)) = self else {
            return None;
        };
        for descriptor in list {
            if offset < descriptor.len {
                return Some(MemoryDescriptor {
                    address: descriptor.address + u64::from(offset),
                    key: descriptor.key,
                    len: len.min(descriptor.len - offset),
                });
            }
            offset -= descriptor.len;
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Fetch,
    Execute,
    Store,
    Respond,
    /// Never answered; gone with its channel.
    Stuck,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) qp: QueuePairId,
    pub(super) tag: u64,
    pub(super) lun: u64,
    pub(super) stage: Stage,
    pub(super) cdb: Cdb,
    pub(super) memory: Memory,
    buffer: Vec<u8>,
    offset: u32,
    pub(super) injection: Option<Injection>,
    answer: Answer,
}

impl Task {
    pub(super) fn new(qp: QueuePairId, tag: u64, lun: u64, cdb: Cdb, memory: Memory, buffer: Vec<u8>) -> Self {
        Self {
            qp,
            tag,
            lun,
            stage: Stage::Execute,
            cdb,
            memory,
            buffer,
            offset: 0,
            injection: None,
            answer: Answer::default(),
        }
    }

    /// The blocks a write has yet to write.
    pub(super) fn write_range(&self) -> Option<(u64, u32)> {
        match self.cdb.operation() {
            Operation::Write { lba, blocks, .. } if matches!(self.stage, Stage::Fetch | Stage::Execute) => {
                Some((lba, blocks))
            }
            _ => None,
        }
    }

    fn touches_medium(&self) -> bool {
        matches!(
            self.cdb.operation(),
            Operation::Read { .. } | Operation::Write { .. } | Operation::SynchronizeCache { .. }
        )
    }
}

impl Target {
    /// Takes a command up.
    pub(super) fn admit(&mut self, serial: u64, mut task: Task, net: &mut Net) {
        let medium = task.touches_medium();
        let attention = match self.channels.get_mut(&task.qp) {
            Some(channel) if medium || task.cdb.operation() == Operation::TestUnitReady => {
                channel.attention.remove(&task.lun)
            }
            _ => false,
        };
        task.injection = if attention {
            Some(Injection::UnitAttention { asc: 0x29, ascq: 0x07 })
        } else if medium && self.is_full(task.lun) {
            self.refused += 1;
            Some(Injection::TaskSetFull)
        } else if medium {
            let queued = self
                .disks
                .get_mut(&task.lun)
                .and_then(|disk| disk.injections.pop_front());
            queued.or_else(|| roll(net, task.memory.len()))
        } else if self.hanging > 0 {
            self.hanging -= 1;
            Some(Injection::Swallow { executed: false })
        } else {
            None
        };
        let mut service = net.profile.service;
        if let Some((lun, span)) = self.profile.slow
            && medium
            && lun == task.lun
        {
            net.tally.count("command of a slow unit");
            service = span;
        }
        if let Some(injection) = task.injection {
            if injection != Injection::Duplicate {
                // Those are counted when they are sent.
                net.tally.count(injection.name());
            }
            let descriptor = self.profile.descriptor_sense;
            if let Some(answer) = disk::injected(injection, descriptor) {
                (task.answer, task.stage) = (answer, Stage::Respond);
            }
            match injection {
                Injection::Swallow { executed: false } => task.stage = Stage::Stuck,
                Injection::Slow(time) => {
                    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                    service = Span::micros(micros, micros);
                }
                Injection::Refused => task.stage = Stage::Respond,
                _ => {}
            }
        }
        if task.stage == Stage::Execute && matches!(task.memory, Memory::Out(_)) {
            task.buffer = vec![0; task.memory.len() as usize];
            task.stage = Stage::Fetch;
        }
        let stuck = task.stage == Stage::Stuck;
        self.tasks.insert(serial, task);
        if !stuck {
            net.within(service, Happening::Target(Step::Task(serial)));
        }
    }

    fn is_full(&self, lun: u64) -> bool {
        let left_behind = |task: &Task| {
            let channel = self.channels.get(&task.qp);
            task.stage == Stage::Stuck && channel.is_none_or(|channel| !channel.alive)
        };
        let working =
            |task: &&Task| task.lun == lun && task.stage != Stage::Respond && !(self.tidy && left_behind(task));
        let limit = self.profile.task_set.unwrap_or(usize::MAX);
        self.tasks.values().filter(working).count() >= limit
    }

    pub(in crate::sim) fn step(&mut self, step: Step, net: &mut Net) {
        let serial = match step {
            Step::Task(serial) => serial,
            Step::Credit(qp) => return self.credit_step(qp, net),
            Step::Function(serial) => return self.function_step(serial, net),
            Step::TakeUp(qp) => return self.take_up_next(qp, net),
        };
        let Some(task) = self.tasks.get_mut(&serial) else {
            return;
        };
        let next = match task.stage {
            Stage::Fetch | Stage::Store => {
                if !transfer(task, net) {
                    self.abandon(serial);
                    return;
                }
                net.profile.dma
            }
            Stage::Execute => {
                self.execute(serial, net);
                net.profile.dma
            }
            Stage::Respond => return self.respond(serial, net),
            Stage::Stuck => return,
        };
        net.within(next, Happening::Target(Step::Task(serial)));
    }

    fn execute(&mut self, serial: u64, net: &mut Net) {
        let luns: Vec<u64> = self.disks.keys().copied().collect();
        let descriptor = self.profile.descriptor_sense;
        let Some(task) = self.tasks.get_mut(&serial) else {
            return;
        };
        let missing = match task.injection {
            Some(Injection::Short(bytes)) => bytes,
            _ => 0,
        };
        task.answer = match (self.disks.get_mut(&task.lun), task.cdb.operation()) {
            (_, Operation::ReportLuns { allocation, .. }) => {
                Answer::good(pages::report_luns(luns.into_iter(), allocation))
            }
            (Some(disk), _) => disk.execute(&task.cdb, &task.buffer, missing, descriptor),
            (None, Operation::Inquiry { page: None, allocation }) => Answer::good(pages::no_unit(allocation)),
            (None, _) => Answer::check(5, 0x25, 0, descriptor),
        };
        net.trace
            .text(net.now, Some(task.qp), format!("tag {:#x} executed", task.tag));
        if matches!(task.injection, Some(Injection::Swallow { .. })) {
            task.stage = Stage::Stuck;
            return;
        }
        let stores = matches!(task.memory, Memory::In(_)) && !task.answer.data.is_empty();
        if stores {
            task.buffer = std::mem::take(&mut task.answer.data);
            task.buffer.truncate(task.memory.len() as usize);
            task.offset = 0;
        }
        task.stage = if stores { Stage::Store } else { Stage::Respond };
        // A connection that is gone has nobody to answer.
        if self.channels.get(&task.qp).is_none_or(|channel| !channel.alive) {
            net.tally.count("command executed behind a lost connection");
            self.abandon(serial);
        }
    }

    pub(super) fn abandon(&mut self, serial: u64) {
        if let Some(task) = self.tasks.remove(&serial)
            && let Some(channel) = self.channels.get_mut(&task.qp)
        {
            channel.outstanding -= 1;
        }
    }

    fn respond(&mut self, serial: u64, net: &mut Net) {
        let Some(task) = self.tasks.remove(&serial) else { return };
        let Some(channel) = self.channels.get_mut(&task.qp) else {
            return;
        };
        channel.outstanding -= 1;
        if !channel.alive {
            return;
        }
        let (to_us, have) = (matches!(task.memory, Memory::In(_)), task.memory.len());
        let answer = &task.answer;
        let moved = answer.moved.min(have);
        let residual = match answer.status {
            GOOD if answer.wanted > have => Some(Residual::Over(answer.wanted - have)),
            _ if moved < have => Some(Residual::Under(have - moved)),
            _ => None,
        };
        if let Operation::Write { .. } = task.cdb.operation()
            && answer.status == GOOD
            && moved == answer.wanted
        {
            self.good.insert((task.lun, stamp_of(&task.buffer)));
        }
        let residual = self.lie(&task, residual, net);
        let refused = matches!(task.injection, Some(Injection::Refused));
        let response = Response {
            tag: task.tag,
            request_limit_delta: self.delta(task.qp, net),
            status: answer.status,
            data_out_residual: residual.filter(|_| !to_us),
            data_in_residual: residual.filter(|_| to_us),
            response_code: refused.then_some(2),
            sense: answer.sense.as_deref(),
        };
        self.send_response(task.qp, &response, net);
        self.mischief(&task, &response, net);
    }
}

/// Moves the next chunk; false when the connection is gone.
fn transfer(task: &mut Task, net: &mut Net) -> bool {
    let fetch = task.stage == Stage::Fetch;
    let len = u32::try_from(task.buffer.len()).unwrap_or(u32::MAX);
    let left = len.saturating_sub(task.offset).min(net.profile.chunk);
    if let Some(part) = task.memory.part(task.offset, left) {
        let start = task.offset as usize;
        let bytes = &mut task.buffer[start..start + part.len as usize];
        let access = if fetch {
            Access::Read(bytes)
        } else {
            Access::Write(bytes)
        };
        if !net.access(task.qp, part, access) {
            return false;
        }
        task.offset += part.len;
    }
    if task.offset >= len {
        task.stage = if fetch { Stage::Execute } else { Stage::Respond };
    }
    true
}

/// What becomes of a command that nothing was injected for.
fn roll(net: &mut Net, len: u32) -> Option<Injection> {
    let odds = net.odds;
    let rng = &mut net.rng;
    if Odds::hit(rng, odds.unit_attention) {
        return Some(Injection::UnitAttention { asc: 0x2a, ascq: 0x09 });
    }
    if Odds::hit(rng, odds.busy) {
        return Some(Injection::Busy);
    }
    if Odds::hit(rng, odds.task_set_full) {
        return Some(Injection::TaskSetFull);
    }
    if len > 0 && Odds::hit(rng, odds.short) {
        return Some(Injection::Short(rng.u32(1..=len)));
    }
    if Odds::hit(rng, odds.check) {
        return Some(Injection::Check {
            key: 3,
            asc: 0x11,
            ascq: 0,
        });
    }
    if Odds::hit(rng, odds.invalid) {
        return Some(Injection::Refused);
    }
    if Odds::hit(rng, odds.swallow) {
        return Some(Injection::Swallow { executed: rng.bool() });
    }
    if Odds::hit(rng, odds.slow) {
        let time = std::time::Duration::from_millis(rng.u64(100..45_000));
        return Some(Injection::Slow(time));
    }
    None
}
