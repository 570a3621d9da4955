//! A fabric that costs next to nothing, for figures of the engine alone: every command is answered GOOD at the second
//! poll after it was handed over: no answer is there as soon as the doorbell has rung.
#![allow(dead_code, reason = "the test and the benchmark use some of it each")]

use std::collections::VecDeque;

use srp_initiator::fabric::{Completion, Exposure, Extent, Fabric, QueuePairId, RegionId, RemoteAccess, WorkKind};
use srp_initiator::scsi::Lun;
use srp_initiator::session::{
    BlockOperation, BlockRequest, ChannelSetup, DiskSetup, Engine, Event, Fence, Granted, Limits, LunKey, RequestId,
    SessionKey, SlotPlan,
};
use srp_initiator::time::Instant;
use srp_initiator::wire::MemoryDescriptor;

const QP: QueuePairId = QueuePairId(1);
const SLOT: usize = 256;
const LIMIT: i32 = 64;

/// See the module's text.
pub(crate) struct BareFabric {
    sends: Vec<[u8; SLOT]>,
    receives: Vec<[u8; SLOT]>,
    sent: VecDeque<u16>,
    /// How many of them are handed over.
    flushed: usize,
    /// How many of those were when it was polled last.
    told: usize,
    posted: VecDeque<u16>,
    queued: Vec<u16>,
    closed: VecDeque<u16>,
}

impl BareFabric {
    fn new(plan: SlotPlan) -> Self {
        let mut response = [0; SLOT];
        (response[0], response[7]) = (0xc1, 1);
        Self {
            sends: vec![[0; SLOT]; usize::from(plan.sends)],
            receives: vec![response; usize::from(plan.receives)],
            sent: VecDeque::with_capacity(usize::from(plan.sends)),
            flushed: 0,
            told: 0,
            posted: VecDeque::with_capacity(usize::from(plan.receives)),
            queued: Vec::with_capacity(usize::from(plan.receives)),
            closed: VecDeque::with_capacity(usize::from(plan.sends)),
        }
    }
}

// Not inlined, so that callgrind can tell what is the fabric's.
impl Fabric for BareFabric {
    #[inline(never)]
    fn poll(&mut self, out: &mut Vec<Completion>) {
        while out.capacity() > out.len()
            && let Some(slot) = self.closed.pop_front()
        {
            out.push(Completion {
                qp: QP,
                kind: WorkKind::Invalidate,
                slot,
                result: Ok(0),
            });
        }
        while out.capacity() - out.len() >= 2
            && self.told > 0
            && let Some(send) = self.sent.pop_front()
            && let Some(receive) = self.posted.pop_front()
        {
            self.flushed -= 1;
            self.told -= 1;
            let (from, to) = (&self.sends[usize::from(send)], &mut self.receives[usize::from(receive)]);
            to[8..16].copy_from_slice(&from[8..16]);
            out.push(Completion {
                qp: QP,
                kind: WorkKind::Send,
                slot: send,
                result: Ok(0),
            });
            out.push(Completion {
                qp: QP,
                kind: WorkKind::Receive,
                slot: receive,
                result: Ok(36),
            });
        }
        self.told = self.flushed;
    }

    #[inline(never)]
    fn send_slot(&mut self, _qp: QueuePairId, slot: u16) -> &mut [u8] {
        &mut self.sends[usize::from(slot)]
    }

    #[inline(never)]
    fn receive_slot(&self, _qp: QueuePairId, slot: u16) -> &[u8] {
        &self.receives[usize::from(slot)]
    }

    #[inline(never)]
    fn post_send(&mut self, _qp: QueuePairId, slot: u16, _len: u32, _payload: Option<Extent>) {
        self.sent.push_back(slot);
    }

    #[inline(never)]
    fn post_receive(&mut self, _qp: QueuePairId, slot: u16) {
        self.queued.push(slot);
    }

    #[inline(never)]
    fn post_bind(&mut self, _qp: QueuePairId, _slot: u16, _extent: Extent, _access: RemoteAccess) {}

    #[inline(never)]
    fn post_invalidate(&mut self, _qp: QueuePairId, slot: u16) {
        self.closed.push_back(slot);
    }

    #[inline(never)]
    fn flush(&mut self) {
        self.flushed = self.sent.len();
        self.posted.extend(self.queued.drain(..));
    }

    #[inline(never)]
    fn flush_sends(&mut self) {
        if self.flushed < self.sent.len() {
            self.flush();
        }
    }

    #[inline(never)]
    fn fail(&mut self, _qp: QueuePairId) {}

    #[inline(never)]
    fn describe(&self, _qp: QueuePairId, extent: Extent) -> MemoryDescriptor {
        MemoryDescriptor {
            address: u64::from(extent.offset),
            key: 1,
            len: extent.len,
        }
    }

    #[inline(never)]
    fn describe_window(&self, qp: QueuePairId, _slot: u16, extent: Extent) -> MemoryDescriptor {
        self.describe(qp, extent)
    }

    #[inline(never)]
    fn copy_out(&self, _qp: QueuePairId, _extent: Extent, _into: &mut [u8]) {}

    #[inline(never)]
    fn copy_in(&mut self, _qp: QueuePairId, _extent: Extent, _from: &[u8]) {}
}

/// A fabric as [`Load`] has it.
pub(crate) fn fabric() -> BareFabric {
    BareFabric::new(SlotPlan::new(LIMIT, 62))
}

/// An engine over a bare fabric, with so many disks.
pub(crate) struct Load {
    engine: Engine<BareFabric>,
    disks: u32,
    /// Of 512 bytes, per command.
    blocks: u32,
    now: u64,
    next: u64,
}

impl Load {
    pub(crate) fn new(disks: u32, exposure: Exposure) -> Self {
        let plan = SlotPlan::new(LIMIT, 62);
        let mut engine = Engine::new(BareFabric::new(plan), Limits::default());
        engine.add_channel(&ChannelSetup {
            qp: QP,
            session: SessionKey(1),
            granted: Granted {
                request_limit: LIMIT,
                max_it_iu_len: 256,
                max_ti_iu_len: 256,
                immediate_data: 0,
            },
            plan,
            read_arena: (RegionId(0), 4 << 20),
            write_arena: (RegionId(1), 4 << 20),
            exposure,
            max_transfer: 1 << 20,
            descriptors: 12,
            fence: Fence::LunReset,
        });
        for number in 0..disks {
            engine.add_disk(&DiskSetup {
                key: LunKey(number),
                session: SessionKey(1),
                lun: Lun::from_index(number),
                block_size: 512,
                blocks: 1 << 30,
            });
        }
        Self {
            engine,
            disks,
            blocks: 8,
            now: 0,
            next: 0,
        }
    }

    /// Commands of so many blocks of 512 bytes instead of eight.
    pub(crate) fn with_blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    /// Carries out so many commands of 4 KiB or what was asked for, `depth` at once, and returns how many ended well.
    pub(crate) fn run(&mut self, commands: u64, depth: u64, write: bool) -> u64 {
        let mut done = 0;
        let end = self.next + commands;
        while self.next < end {
            for _ in 0..depth.min(end - self.next) {
                self.next += 1;
                let operation = match write {
                    true => BlockOperation::Write { fua: false },
                    false => BlockOperation::Read,
                };
                let lun = u32::try_from(self.next % u64::from(self.disks)).unwrap_or(0);
                let request = BlockRequest {
                    id: RequestId(self.next),
                    lun: LunKey(lun),
                    operation,
                    lba: (self.next * 8) & 0xff_ffff,
                    blocks: self.blocks,
                };
                self.engine.submit(request, Instant::from_nanos(self.now));
            }
            loop {
                self.now += 1000;
                let now = Instant::from_nanos(self.now);
                self.engine.pump(now);
                while let Some(event) = self.engine.next_event() {
                    match event {
                        Event::Supply { handle, .. } => self.engine.supplied(handle, true, now),
                        Event::Data { handle, .. } => {
                            done += 1;
                            self.engine.release(handle, now);
                        }
                        Event::Done { result: Ok(_), .. } => done += 1,
                        other => panic!("{other:?}"),
                    }
                }
                let _ = self.engine.deadline();
                if self.engine.requests() == 0 {
                    break;
                }
            }
        }
        done
    }

    /// Drives the engine so many times with nothing to do, and returns how often something was done.
    pub(crate) fn idle(&mut self, passes: u64) -> u64 {
        let mut busy = 0;
        for _ in 0..passes {
            self.now += 1000;
            busy += u64::from(self.engine.pump(Instant::from_nanos(self.now)));
            busy += u64::from(self.engine.next_event().is_some());
            let _ = self.engine.deadline();
        }
        busy
    }
}
