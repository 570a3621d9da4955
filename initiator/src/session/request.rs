//! Requests under way: one slab for all LUNs and channels of a reactor.

use std::time::Duration;

use super::start::Transfer;
use crate::fabric::Extent;
use crate::scsi::sense::Sense;
use crate::scsi::{BlockError, Cdb, Lun, outcome};
use crate::time::Instant;

/// The engine's name for a logical unit; the same on every reactor, chosen by the control side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LunKey(pub u32);

/// A session; the same on every reactor, chosen by the control side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u32);

/// The caller's name for a request; the engine only passes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a block request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOperation {
    /// Read blocks.
    Read,
    /// Write blocks; with `fua` to stable storage.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// SYNCHRONIZE CACHE of the whole unit.
    Flush,
}

impl BlockOperation {
    /// Whether it is a write with force unit access.
    pub(super) fn fua(self) -> bool {
        matches!(self, Self::Write { fua: true })
    }
}

/// A request for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Passed back.
    pub id: RequestId,
    /// The disk.
    pub lun: LunKey,
    /// What to do.
    pub operation: BlockOperation,
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks; 0 for a flush.
    pub blocks: u32,
}

/// A SCSI command of the control side: at most a data-in phase.
#[derive(Clone, Debug)]
pub struct ControlRequest {
    /// Passed back.
    pub id: RequestId,
    /// The session it goes to.
    pub session: SessionKey,
    /// The logical unit as addressed on the wire.
    pub lun: Lun,
    /// The command.
    pub cdb: Cdb,
    /// Room for data in, in bytes.
    pub data_in: u32,
    /// Given up after this long: its end is reported then, and the target asked to end it too.
    pub timeout: Duration,
}

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlReply {
    /// SCSI status byte.
    pub status: u8,
    /// Sense bytes, when given.
    pub sense: Vec<u8>,
    /// The data that came.
    pub data: Vec<u8>,
}

/// What a slab entry is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Block(BlockRequest),
    Control(Box<Control>),
}

/// A command of the control side under way.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) request: ControlRequest,
    /// Sense as it came.
    pub(super) sense: Vec<u8>,
}

/// Where a request stands. The buffer rule hangs on it: an extent is released only from `Waiting`,
/// `Filling` and `Returned`, never while `Sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In its queue, first in first out.
    Waiting,
    /// The target was busy: back to the queue at the given time.
    Delayed(Instant),
    /// Holds credit, slot and extent; the caller is copying its data in.
    Filling,
    /// Posted. The target may touch the extent.
    Sent,
    /// A write of unknown fate: it waits for its unit's reset.
    Fenced,
    /// Finished; the caller is copying its data out and then releases the extent.
    Returned,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    /// The logical unit as addressed on the wire.
    pub(super) lun: Lun,
    pub(super) transfer: Transfer,
    pub(super) stage: Stage,
    /// Index into the engine's queues.
    pub(super) queue: usize,
    /// How many the engine had taken before it: what is put back into its queue goes before what came later.
    pub(super) order: u64,
    /// Next in the same queue.
    pub(super) next: Option<Key>,
    /// The channel whose arena the extent is of, and which it was or will be sent on.
    pub(super) channel: Option<usize>,
    pub(super) slot: u16,
    pub(super) extent: Option<Extent>,
    /// A write's data is in the extent already (a retry).
    pub(super) filled: bool,
    /// How often it was sent again without a pause: a target that refuses it for ever must not keep everybody busy.
    pub(super) at_once: u8,
    /// Absolute limit over all attempts. A block request has it from its first attempt on: waiting for one's turn is
    /// no error.
    pub(super) deadline: Option<Instant>,
    /// The target's answer, while the SEND has yet to complete.
    pub(super) answer: Option<Answer>,
    /// Its end was reported already; only its memory is still with the target.
    pub(super) told: bool,
    /// Another engine handed it over.
    pub(super) foreign: bool,
}

/// A response, as far as it outlives the IU it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) sense: Option<Sense>,
    /// Bytes of the data buffer that were not transferred.
    pub(super) underflow: u32,
    /// The target had or wanted more data than the buffer holds.
    pub(super) overflow: bool,
    /// Response code other than 0 (SRP r16a table 25): the target did not take the command.
    pub(super) refused: Option<u8>,
}

impl Request {
    /// One that waits, and holds nothing.
    #[inline(always)]
    pub(super) fn new(queue: usize, lun: Lun, purpose: Purpose, transfer: Transfer) -> Self {
        Self {
            purpose,
            lun,
            transfer,
            stage: Stage::Waiting,
            queue,
            order: 0,
            next: None,
            channel: None,
            slot: 0,
            extent: None,
            filled: false,
            at_once: 0,
            deadline: None,
            answer: None,
            told: false,
            foreign: false,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

impl Answer {
    /// The command did what it was asked for.
    #[inline(always)]
    pub(super) const fn good() -> Self {
        Self {
            status: outcome::GOOD,
            sense: None,
            underflow: 0,
            overflow: false,
            refused: None,
        }
    }

    /// What a completed task management function stands for: the command was not carried out to its end, and is over.
    pub(super) fn aborted() -> Self {
        Self {
            status: outcome::TASK_ABORTED,
            sense: None,
            underflow: 0,
            overflow: false,
            refused: None,
        }
    }
}

/// Index of a request in the slab.
pub(super) type Key = u32;

/// All requests of a reactor. Grows to the largest number ever under way, and stays.
#[derive(Debug, Default)]
pub(super) struct Requests {
    entries: Vec<Option<Request>>,
    free: Vec<Key>,
    /// How many there have been.
    taken: u64,
}

impl Requests {
    #[inline(always)]
    pub(super) fn insert(&mut self, mut request: Request) -> (Key, &mut Request) {
        self.taken += 1;
        request.order = self.taken;
        let key = self.free.pop().unwrap_or_else(|| self.grow());
        // Asked for so that nothing is dropped, and the request written where it stays.
        let Some(entry @ None) = self.entries.get_mut(key as usize) else {
            unreachable!("a place that is free is empty");
        };
        (key, entry.insert(request))
    }

    #[cold]
    fn grow(&mut self) -> Key {
        let key = Key::try_from(self.entries.len()).expect("fewer than 2^32 requests");
        self.entries.push(None);
        self.free.reserve(self.entries.len());
        key
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(entry @ Some(_)) = self.entries.get_mut(key as usize) {
            *entry = None;
            self.free.push(key);
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Request> {
        self.entries.get(key as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Request> {
        self.entries.get_mut(key as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Request)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(key, entry)| Some((u32::try_from(key).ok()?, entry.as_ref()?)))
    }

    /// There are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

/// How a block request ended.
pub type BlockResult = Result<u32, BlockError>;
