//! A channel driven by hand: one command at a time, or as many as there are slots.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use srp_initiator::fabric::{Completion, Extent, Fabric, QueuePairId, RegionId, WorkError, WorkKind};
use srp_initiator::scsi::{Cdb, Lun};
use srp_initiator::wire::{Command, Data, Response, TaskAttribute};
use srp_verbs::VerbsFabric;

use super::{Fallible, SLOTS, STEP, wait_readable};

const BLOCK: u32 = 4096;

pub(super) struct Session {
    pub(super) fabric: VerbsFabric,
    pub(super) qp: QueuePairId,
    pub(super) reads: RegionId,
    pub(super) writes: RegionId,
    pub(super) lun: Lun,
    pub(super) next_tag: u64,
    pub(super) sleeps: u64,
}

impl Session {
    /// Completions, as soon as there are any.
    fn completions(&mut self, out: &mut Vec<Completion>) -> Fallible<()> {
        let deadline = Instant::now() + STEP;
        loop {
            self.fabric.poll(out);
            if !out.is_empty() {
                return Ok(());
            }
            if self.fabric.arm(true) {
                self.sleeps += 1;
                let Some((fd, token)) = self.fabric.completion_channels().next() else {
                    return Err("no queue".into());
                };
                // SAFETY: the completion queue of this descriptor is attached to the fabric.
                wait_readable(unsafe { BorrowedFd::borrow_raw(fd) }, deadline)?;
                self.fabric.acknowledge(token);
            }
        }
    }

    fn post(&mut self, slot: u16, cdb: Cdb, data: Data<'_>, payload: Option<Extent>) -> Fallible<()> {
        let tag = self.next_tag | u64::from(slot);
        self.next_tag += 1 << 16;
        let command = Command {
            tag,
            lun: self.lun,
            attribute: TaskAttribute::Simple,
            cdb,
            data,
        };
        let len = command.emit(self.fabric.send_slot(self.qp, slot))?;
        self.fabric.post_send(self.qp, slot, len as u32, payload);
        Ok(())
    }

    /// One command; returns the SCSI status.
    fn run(&mut self, cdb: Cdb, data: Data<'_>, payload: Option<Extent>) -> Fallible<u8> {
        self.post(0, cdb, data, payload)?;
        self.fabric.flush();
        let (mut sent, mut status) = (false, None);
        let mut out = Vec::with_capacity(64);
        while !sent || status.is_none() {
            self.completions(&mut out)?;
            for completion in out.drain(..) {
                let len = completion.result? as usize;
                match completion.kind {
                    WorkKind::Send => sent = true,
                    WorkKind::Receive => {
                        let iu = &self.fabric.receive_slot(self.qp, completion.slot)[..len];
                        status = Some(Response::parse(iu)?.status);
                        self.fabric.post_receive(self.qp, completion.slot);
                    }
                    WorkKind::Bind | WorkKind::Invalidate => return Err("there are no windows".into()),
                }
            }
        }
        self.fabric.flush();
        status.ok_or_else(|| "no response".into())
    }

    fn extent(region: RegionId, offset: u32, len: u32) -> Extent {
        Extent { region, offset, len }
    }

    pub(super) fn inquiry(&mut self) -> Fallible<()> {
        let extent = Self::extent(self.reads, 0, 96);
        let data = Data::Read(self.fabric.describe(self.qp, extent));
        let status = self.run(Cdb::inquiry(96), data, None)?;
        let mut bytes = [0; 96];
        self.fabric.copy_out(self.qp, extent, &mut bytes);
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).trim().to_owned();
        println!(
            "INQUIRY: status {status:#04x}, vendor {:?}, product {:?}",
            text(8..16),
            text(16..32)
        );
        Ok(())
    }

    pub(super) fn test_unit_ready(&mut self) -> Fallible<u8> {
        self.run(Cdb::from_bytes([0; 16]), Data::None, None)
    }

    /// Writes by descriptor and as immediate data, and reads both back.
    pub(super) fn scratch(&mut self, immediate: bool) -> Fallible<()> {
        while self.test_unit_ready()? != 0 {
            println!("TEST UNIT READY: unit attention");
        }
        for (lba, in_iu) in [(8, false), (16, true)] {
            if in_iu && !immediate {
                continue;
            }
            let pattern: Vec<u8> = (0..BLOCK).map(|i| (i % 251) as u8 ^ lba as u8).collect();
            let source = Self::extent(self.writes, 0, BLOCK);
            self.fabric.copy_in(self.qp, source, &pattern);
            let (data, payload) = match in_iu {
                true => (Data::WriteImmediate { len: BLOCK }, Some(source)),
                false => (Data::Write(self.fabric.describe(self.qp, source)), None),
            };
            let write = self.run(Cdb::write_10(lba, 8, false), data, payload)?;
            let target = Self::extent(self.reads, 8192, BLOCK);
            let data = Data::Read(self.fabric.describe(self.qp, target));
            let read = self.run(Cdb::read_10(lba, 8, false), data, None)?;
            let mut back = vec![0; BLOCK as usize];
            self.fabric.copy_out(self.qp, target, &mut back);
            println!(
                "scratch, immediate {in_iu}: write {write:#04x}, read {read:#04x}, same {}",
                back == pattern
            );
            if back != pattern {
                return Err("the data read back differs".into());
            }
        }
        Ok(())
    }

    /// Reads with all slots in flight for `time`, then fails the queue pair under load and waits for every flush.
    pub(super) fn load(&mut self, time: Duration) -> Fallible<()> {
        let end = Instant::now() + time;
        let (mut done, mut polls, mut sends, mut receives) = (0u64, 0u64, 0usize, usize::from(SLOTS));
        let sleeps = self.sleeps;
        let mut out = Vec::with_capacity(2 * usize::from(SLOTS));
        let mut ready: Vec<u16> = (0..SLOTS).collect();
        let mut sent = [false; SLOTS as usize];
        let mut answered = [false; SLOTS as usize];
        while Instant::now() < end {
            for slot in ready.drain(..) {
                let extent = Self::extent(self.reads, u32::from(slot) * BLOCK, BLOCK);
                let data = Data::Read(self.fabric.describe(self.qp, extent));
                self.post(slot, Cdb::read_10(u32::from(slot) * 8, 8, false), data, None)?;
                sends += 1;
            }
            self.fabric.flush();
            self.completions(&mut out)?;
            polls += 1;
            for completion in out.drain(..) {
                let len = completion.result? as usize;
                let slot = match completion.kind {
                    WorkKind::Send => {
                        sends -= 1;
                        sent[usize::from(completion.slot)] = true;
                        completion.slot
                    }
                    WorkKind::Receive => {
                        let iu = &self.fabric.receive_slot(self.qp, completion.slot)[..len];
                        let tag = Response::parse(iu)?.tag;
                        self.fabric.post_receive(self.qp, completion.slot);
                        done += 1;
                        answered[tag as usize & 0xffff] = true;
                        tag as u16
                    }
                    WorkKind::Bind | WorkKind::Invalidate => return Err("there are no windows".into()),
                };
                let index = usize::from(slot);
                if sent[index] && answered[index] {
                    (sent[index], answered[index]) = (false, false);
                    ready.push(slot);
                }
            }
        }
        let sleeps = self.sleeps - sleeps;
        println!("load: {done} reads of {BLOCK} bytes in {time:?}, {polls} polls, {sleeps} sleeps");

        for slot in ready.drain(..) {
            let extent = Self::extent(self.reads, u32::from(slot) * BLOCK, BLOCK);
            let data = Data::Read(self.fabric.describe(self.qp, extent));
            self.post(slot, Cdb::read_10(0, 8, false), data, None)?;
            sends += 1;
        }
        let start = Instant::now();
        self.fabric.fail(self.qp);
        let (mut flushed, mut finished) = ((0, 0), 0);
        let mut late = None;
        while sends + receives > 0 {
            self.completions(&mut out)?;
            for completion in out.drain(..) {
                match completion.kind {
                    WorkKind::Send => sends -= 1,
                    WorkKind::Receive => receives -= 1,
                    WorkKind::Bind | WorkKind::Invalidate => return Err("there are no windows".into()),
                }
                match (completion.kind, completion.result) {
                    (_, Ok(_)) => finished += 1,
                    (WorkKind::Send, Err(WorkError::Flushed)) => flushed.0 += 1,
                    (WorkKind::Receive, Err(WorkError::Flushed)) => flushed.1 += 1,
                    (kind, Err(error)) => println!("cut: {kind:?} {}: {error}", completion.slot),
                }
                // A receive posted after the cut must come back too.
                if completion.kind == WorkKind::Receive && late.is_none() {
                    late = Some(completion.slot);
                    self.fabric.post_receive(self.qp, completion.slot);
                    self.fabric.flush();
                    receives += 1;
                }
            }
        }
        println!(
            "cut under load: {} sends and {} receives flushed, {finished} finished, in {:?}",
            flushed.0,
            flushed.1,
            start.elapsed()
        );
        Ok(())
    }
}
