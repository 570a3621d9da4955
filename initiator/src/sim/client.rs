//! The block client: what it asked for, what it was told, and whether that is true.

use std::collections::{BTreeMap, BTreeSet};

use super::check::rule;
use super::fabric::SimFabric;
use super::order::Order;
use super::pattern::fill_block;
use super::shadow::{Range, Shadow};
use crate::fabric::QueuePairId;
use crate::scsi::{BlockError, Lun};
use crate::session::{BlockOperation, BlockRequest, BlockResult, ControlReply, Handover, RequestId};
use crate::time::Instant;
use crate::wire::TaskResponse;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read, with what came.
    Read(Vec<u8>),
    /// A write or flush, with the bytes written.
    Done(u32),
    /// A block request failed.
    Failed(BlockError),
    /// A control request was answered, or not.
    Reply(Result<ControlReply, BlockError>),
    /// A task management function was answered, or not.
    Task(Result<TaskResponse, BlockError>),
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// When it has ended at the latest.
    pub(super) limit: Instant,
    pub(super) session: u32,
    pub(super) lun: u64,
    pub(super) block_size: u32,
    /// None for a control request.
    pub(super) block: Option<BlockRequest>,
    pub(super) begun: Instant,
    /// The reactor that has it; none while it is on its way.
    at: Option<usize>,
    /// When that reactor got it from another.
    pub(super) moved: Option<Instant>,
    /// By which list of siblings it was handed over last, and how often by that.
    parted: (u32, usize),
    /// Its disk was removed.
    pub(super) removed: bool,
    /// The channel its command went over last, where that tells whose it is; none before it was sent.
    pub(super) over: Option<QueuePairId>,
    /// The target made an answer to it up: what it says of data is not to be believed.
    forged: bool,
    /// Flushes the disk had seen.
    flushes: u64,
    /// Reported as a read whose data is still with the engine.
    taking: bool,
}

impl Pending {
    pub(super) fn range(&self) -> Option<Range> {
        let block = self.block.as_ref()?;
        (block.operation != BlockOperation::Flush).then_some(Range {
            lun: self.lun,
            lba: block.lba,
            blocks: block.blocks,
        })
    }

    pub(super) fn is_write(&self) -> bool {
        let operation = self.block.as_ref().map(|block| block.operation);
        matches!(operation, Some(BlockOperation::Write { .. }))
    }

    fn is_flush(&self) -> bool {
        self.block
            .as_ref()
            .is_some_and(|block| block.operation == BlockOperation::Flush)
    }
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) pending: BTreeMap<RequestId, Pending>,
    pub(super) outcomes: BTreeMap<RequestId, (Outcome, Instant)>,
    pub(super) shadow: Shadow,
    pub(super) order: Order,
    last: u64,
    /// Channels that flushes of a unit went over.
    pub(super) flushed_over: BTreeSet<(QueuePairId, u64)>,
}

impl Client {
    pub(super) fn next_id(&mut self) -> RequestId {
        self.last += 1;
        RequestId(self.last)
    }

    /// Notes a request that is about to be made.
    #[expect(clippy::too_many_arguments, reason = "each is another fact about the request")]
    pub(super) fn submitted(
        &mut self,
        fabric: &SimFabric,
        reactor: usize,
        session: u32,
        lun: Lun,
        block_size: u32,
        block: BlockRequest,
        limit: Instant,
    ) {
        let pending = Pending {
            limit,
            session,
            lun: lun.0,
            block_size,
            block: Some(block),
            begun: fabric.net.now,
            at: Some(reactor),
            moved: None,
            parted: (0, 0),
            removed: false,
            over: None,
            forged: false,
            flushes: fabric.target().executed(lun.0).2,
            taking: false,
        };
        if let Some(range) = pending.range() {
            self.shadow.begin(range, pending.is_write());
            let read = !pending.is_write();
            self.order.submitted(reactor, lun.0, block.id, block.lba, read);
        }
        self.pending.insert(block.id, pending);
    }

    pub(super) fn submitted_control(&mut self, id: RequestId, session: u32, lun: Lun, limit: Instant) {
        let pending = Pending {
            limit,
            session,
            lun: lun.0,
            block_size: 0,
            block: None,
            begun: Instant::default(),
            at: None,
            moved: None,
            parted: (0, 0),
            removed: false,
            over: None,
            forged: false,
            flushes: 0,
            taking: false,
        };
        self.pending.insert(id, pending);
    }

    /// A command that reads or writes is sent over a channel: the request it is for, when that is its first.
    pub(super) fn sent(&mut self, qp: QueuePairId, lun: u64, cdb: &[u8; 16]) -> Option<&mut Pending> {
        let Some((lba, _)) = super::target::extent_of(cdb) else {
            // Which flush it is for nobody can tell.
            self.flushed_over
                .extend(matches!(cdb[0], 0x35 | 0x91).then_some((qp, lun)));
            return None;
        };
        let write = matches!(cdb[0], 0x2a | 0x8a);
        let own = |pending: &&mut Pending| {
            pending.lun == lun && pending.is_write() == write && pending.range().is_some_and(|range| range.lba == lba)
        };
        let pending = self.pending.values_mut().find(own)?;
        pending.over.replace(qp).is_none().then_some(pending)
    }

    /// The target made up an answer to a command. Which flush one is for nobody can tell.
    pub(super) fn forged(&mut self, lun: u64, cdb: &[u8; 16]) {
        let extent = super::target::extent_of(cdb);
        let write = matches!(cdb[0], 0x2a | 0x8a);
        for pending in self.pending.values_mut().filter(|pending| pending.lun == lun) {
            let (range, own) = (pending.range(), pending.is_write() == write);
            pending.forged |= own && range.map(|range| range.lba) == extent.map(|(lba, _)| lba);
        }
    }

    /// The data of a write.
    pub(super) fn data(&self, id: RequestId) -> Vec<u8> {
        let Some(pending) = self.pending.get(&id) else {
            return Vec::new();
        };
        let Some(range) = pending.range() else {
            return Vec::new();
        };
        let size = pending.block_size as usize;
        let mut data = vec![0; range.blocks as usize * size];
        for (lba, block) in (range.lba..).zip(data.chunks_mut(size)) {
            fill_block(block, range.lun, lba, id.0);
        }
        data
    }

    /// A write's turn came.
    pub(super) fn supply(&mut self, fabric: &SimFabric, reactor: usize, id: RequestId, len: u32) {
        let Some(pending) = self.pending.get(&id).filter(|pending| pending.is_write()) else {
            return fabric.net.broken(rule::ONCE, format!("data wanted for {id:?}"));
        };
        let blocks = pending.range().map_or(0, |range| range.blocks);
        if len != blocks * pending.block_size {
            fabric
                .net
                .broken(rule::DATA, format!("{len} bytes wanted for {blocks} blocks"));
        }
        if pending.at != Some(reactor) {
            fabric.net.broken(rule::ONCE, strayed(reactor, id));
        }
        if let Err(what) = self.order.supplied(reactor, pending.lun, id, fabric.net.now) {
            fabric.net.broken(rule::ORDER, what);
        }
    }

    /// A request leaves a reactor: it ended there, or is handed over. Either way the target is done with it.
    pub(super) fn left(&mut self, fabric: &SimFabric, reactor: usize, id: RequestId) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        if pending.at.take() != Some(reactor) {
            fabric.net.broken(rule::ONCE, strayed(reactor, id));
        }
        self.order.ended(reactor, pending.lun, id);
        check_over(fabric, pending, id);
    }

    /// A reactor got a request from another. It stands behind those that wait there, so it has as much time as one that
    /// is made now, if it was never sent.
    pub(super) fn taken_over(&mut self, reactor: usize, handover: &Handover, now: Instant, limit: Instant) {
        let Some(pending) = self.pending.get_mut(&handover.request.id) else {
            return;
        };
        (pending.at, pending.moved) = (Some(reactor), Some(now));
        if pending.over.is_none() {
            pending.limit = pending.limit.max(limit);
        }
        // A write of unknown fate goes before those that wait, when its unit is reset.
        let Some(range) = pending.range() else { return };
        let (id, read) = (handover.request.id, !pending.is_write());
        match handover.doubtful {
            Some(_) => self.order.doubtful(reactor, range.lun, id, range.lba),
            None => self.order.submitted(reactor, range.lun, id, range.lba, read),
        }
    }

    /// A request is handed over by the list of siblings with this number. By one list it goes to each at most once.
    pub(super) fn may_part(&mut self, id: RequestId, list: u32, reactors: usize) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else {
            return true;
        };
        if pending.parted.0 != list {
            pending.parted = (list, 0);
        }
        pending.parted.1 += 1;
        pending.parted.1 < reactors
    }

    /// A disk is removed.
    pub(super) fn removed(&mut self, lun: Lun) {
        let of_it = self.pending.values_mut().filter(|pending| pending.lun == lun.0);
        of_it.for_each(|pending| pending.removed = true);
    }

    /// A read's data is there. It has ended as far as the engine may say so.
    pub(super) fn read_ended(&mut self, fabric: &SimFabric, reactor: usize, id: RequestId) {
        match self.pending.get_mut(&id) {
            Some(pending) if !pending.taking && !pending.is_write() && !pending.is_flush() => {
                pending.taking = true;
                self.left(fabric, reactor, id);
            }
            _ => fabric.net.broken(rule::ONCE, format!("data for {id:?}")),
        }
    }

    /// The data of a read was copied.
    pub(super) fn taken(&mut self, fabric: &SimFabric, id: RequestId, data: Vec<u8>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        let Some(range) = pending.range() else { return };
        if let Err(what) = self.shadow.compare(range, pending.block_size as usize, &data)
            && !pending.forged
        {
            fabric.net.broken(rule::DATA, format!("read {id:?}: {what}"));
        }
        self.shadow.end(range, false);
        self.outcomes.insert(id, (Outcome::Read(data), fabric.net.now));
    }

    /// A block request ended; `dead` are connections its write may still be executed through.
    pub(super) fn done(&mut self, fabric: &SimFabric, id: RequestId, result: BlockResult, dead: Vec<QueuePairId>) {
        let wrong = |pending: &Pending| pending.taking || pending.block.is_none();
        let Some(pending) = self.pending.remove(&id).filter(|pending| !wrong(pending)) else {
            return fabric.net.broken(rule::ONCE, format!("{id:?} ended: {result:?}"));
        };
        if let Some(range) = pending.range() {
            self.shadow.end(range, pending.is_write());
            self.judge(fabric, &pending, id, range, result, dead);
        } else if result.is_ok() && !pending.forged && fabric.target().executed(pending.lun).2 <= pending.flushes {
            let what = format!("flush {id:?} without SYNCHRONIZE CACHE");
            fabric.net.broken(rule::ACKNOWLEDGED, what);
        }
        let outcome = result.map_or_else(Outcome::Failed, Outcome::Done);
        self.outcomes.insert(id, (outcome, fabric.net.now));
    }

    fn judge(
        &mut self,
        fabric: &SimFabric,
        pending: &Pending,
        id: RequestId,
        range: Range,
        result: BlockResult,
        dead: Vec<QueuePairId>,
    ) {
        match result {
            Ok(_) if !pending.is_write() => {
                fabric.net.broken(rule::DATA, format!("read {id:?} ended without data"));
            }
            // It may not have been carried out at all.
            Ok(_) if pending.forged => self.shadow.doubtful(range, id.0, dead),
            Ok(len) => {
                let known = fabric.target().acknowledged(pending.lun, id.0);
                if !known || len != range.blocks * pending.block_size {
                    let what = format!("write {id:?}, {len} bytes");
                    fabric.net.broken(rule::ACKNOWLEDGED, what);
                }
                self.shadow.written(range, id.0);
                let size = pending.block_size as usize;
                let start = usize::try_from(range.lba).unwrap_or(0) * size;
                let bytes = fabric.target().disk(pending.lun).get(start..start + len as usize);
                let compared = self.shadow.compare(range, size, bytes.unwrap_or_default());
                if let Err(what) = compared {
                    fabric.net.broken(rule::DATA, format!("write {id:?}: {what}"));
                }
            }
            Err(_) if pending.is_write() => self.shadow.doubtful(range, id.0, dead),
            Err(_) => {}
        }
    }

    pub(super) fn replied(&mut self, fabric: &SimFabric, id: RequestId, result: Result<ControlReply, BlockError>) {
        match self.pending.remove(&id) {
            Some(pending) if pending.block.is_none() => {
                self.outcomes.insert(id, (Outcome::Reply(result), fabric.net.now));
            }
            _ => fabric.net.broken(rule::ONCE, format!("reply for {id:?}")),
        }
    }

    pub(super) fn task_done(&mut self, fabric: &SimFabric, id: RequestId, result: Result<TaskResponse, BlockError>) {
        match self.pending.remove(&id) {
            Some(pending) if pending.block.is_none() => {
                self.outcomes.insert(id, (Outcome::Task(result), fabric.net.now));
            }
            _ => fabric.net.broken(rule::ONCE, format!("task management {id:?} ended")),
        }
    }

    /// Nobody is left to answer requests of the control side.
    pub(super) fn forget_control(&mut self) {
        self.pending.retain(|_, pending| pending.block.is_some());
    }

    /// The disks of a session go with their daemon, and the block layer fails what it has of them: nobody gives it to another.
    pub(super) fn forget_session(&mut self, session: u32) {
        self.pending.retain(|_, pending| pending.session != session);
    }

    /// The block requests of a session that have not ended, for another daemon.
    pub(super) fn again(&mut self, session: u32) -> Vec<BlockRequest> {
        self.order.anew(session);
        let pending = self.pending.values().filter(|pending| pending.session == session);
        pending.filter_map(|pending| pending.block).collect()
    }

    /// Another daemon has a request, on this reactor.
    pub(super) fn goes_on(&mut self, reactor: usize, id: RequestId, limit: Instant, now: Instant) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        (pending.taking, pending.removed, pending.over) = (false, false, None);
        (pending.limit, pending.begun, pending.moved) = (limit, now, None);
        (pending.at, pending.parted) = (Some(reactor), (0, 0));
        if let Some(range) = pending.range() {
            let read = !pending.is_write();
            self.order.submitted(reactor, range.lun, id, range.lba, read);
        }
    }

    /// Compares whole disks with what they must hold.
    pub(super) fn audit(&self, fabric: &SimFabric, lun: Lun, block_size: u32) {
        let size = block_size as usize;
        let disk = fabric.target().disk(lun.0);
        let blocks = u32::try_from(disk.len() / size).unwrap_or(u32::MAX);
        let range = Range {
            lun: lun.0,
            lba: 0,
            blocks,
        };
        if let Err(what) = self.shadow.compare(range, size, disk) {
            fabric.net.broken(rule::DATA, format!("at the end: {what}"));
        }
    }
}

fn strayed(reactor: usize, id: RequestId) -> String {
    format!("reactor {reactor} has something to say of {id:?}, which it does not have")
}

/// A request that ended must be over for the target.
fn check_over(fabric: &SimFabric, pending: &Pending, id: RequestId) {
    let Some(range) = pending.range() else { return };
    let over = fabric
        .net
        .queue_pairs
        .values()
        .all(|qp| qp.leases.of_command(range.lun, range.lba, pending.is_write()).is_none());
    if !over {
        let what = format!("{id:?} ended while the target may touch its memory");
        fabric.net.broken(rule::DMA, what);
    }
}
