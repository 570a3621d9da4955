//! What serves a block device: the trait between the ublk queues and whatever is behind them.

use std::os::fd::RawFd;

use crate::moment::Moment;

/// One request of one queue of one device, unique among the requests a reactor has in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The reactor's handle for the device queue; not used again for long after the queue is gone.
    pub queue: u32,
    /// The ublk tag.
    pub tag: u16,
}

impl RequestId {
    /// A small number for the queue, for tables by queue: no two queues that live at the same time share it.
    #[must_use]
    pub const fn queue_slot(self) -> usize {
        (self.queue & 0xffff) as usize
    }
}

/// A device of the backend's, as named by whoever added its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub u32);

/// A memory area both sides can reach: a memfd mapped by the reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AreaId(pub u32);

/// A request of a queue that another reactor serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ForeignRequest {
    /// The device; this reactor must serve a queue of it too.
    pub device: DeviceKey,
    /// The queue's number in the device.
    pub queue_id: u16,
    /// The ublk tag.
    pub tag: u16,
}

/// What the block layer wants (`UBLK_IO_OP_*` of `linux/ublk_cmd.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Data from the device.
    Read,
    /// Data to the device; `fua` asks for it to be on stable storage.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Everything completed before to stable storage.
    Flush,
    /// The range's content may be forgotten.
    Discard,
    /// The range shall read as zeroes.
    WriteZeroes {
        /// The range must stay allocated.
        no_unmap: bool,
    },
}

/// A request from the block layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Names the request until it is completed.
    pub id: RequestId,
    /// The device.
    pub device: DeviceKey,
    /// The queue's number in the device.
    pub queue_id: u16,
    /// What to do.
    pub operation: Operation,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    /// Length in units of 512 bytes; 0 for a flush.
    pub sectors: u32,
}

/// Bytes of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaRange {
    /// The area.
    pub area: AreaId,
    /// First byte.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Bytes of an area in one piece or several, in the order of a request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaRanges {
    first: AreaRange,
    rest: Box<[AreaRange]>,
}

impl AreaRanges {
    /// Of several pieces, which must be of one area; nothing when there is none.
    pub fn new(mut pieces: impl Iterator<Item = AreaRange>) -> Option<Self> {
        let first = pieces.next()?;
        let rest = pieces.collect();
        Some(Self { first, rest })
    }

    /// The first piece, and the others.
    #[must_use]
    pub fn pieces(&self) -> (AreaRange, &[AreaRange]) {
        (self.first, &self.rest)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.first.len + self.rest.iter().map(|piece| piece.len).sum::<u32>()
    }

    /// There are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<AreaRange> for AreaRanges {
    fn from(first: AreaRange) -> Self {
        let rest = Box::default();
        Self { first, rest }
    }
}

/// What a backend asks of its reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy a WRITE's data (from its first byte) into the range; answered by [`Backend::copied`].
    CopyIn {
        /// The request.
        id: RequestId,
        /// Where to.
        into: AreaRanges,
    },
    /// Copy a READ's whole data out of the range and complete the request with success; the range is given
    /// back by [`Backend::copied`].
    CompleteRead {
        /// The request.
        id: RequestId,
        /// Where from; as long as the request.
        from: AreaRanges,
    },
    /// Copy a WRITE's data into the range, for a request that another reactor has; answered by
    /// [`Backend::copied_foreign`].
    CopyInForeign {
        /// Passed back.
        token: u64,
        /// The request.
        request: ForeignRequest,
        /// Where to.
        into: AreaRanges,
    },
    /// Copy a READ's data out of the range, for a request that another reactor has and will complete; answered by
    /// [`Backend::copied_foreign`].
    CopyOutForeign {
        /// Passed back.
        token: u64,
        /// The request.
        request: ForeignRequest,
        /// Where from.
        from: AreaRanges,
    },
    /// Complete a READ all of whose data another reactor has copied out.
    CompleteCopied {
        /// The request.
        id: RequestId,
    },
    /// Complete a request that needs no copy: bytes done, or an errno (positive).
    Complete {
        /// The request.
        id: RequestId,
        /// The result.
        result: Result<u32, i32>,
    },
    /// Wake the reactor when the descriptor turns readable, and call [`Backend::ready`] with the token.
    Watch {
        /// The descriptor; must stay open until `Unwatch` has been acted on.
        fd: RawFd,
        /// Passed back.
        token: u64,
    },
    /// End a watch.
    Unwatch {
        /// As given to `Watch`.
        token: u64,
    },
}

/// What a pass of [`Backend::pump`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Something was done: it is called again before the reactor sleeps.
    pub progress: bool,
    /// When to be called again at the latest.
    pub deadline: Option<Moment>,
}

/// The side that moves the data. One value per reactor; never called from another thread.
pub trait Backend {
    /// What the control side sends to this reactor's backend.
    type Message: Send + 'static;

    /// A message from the control side.
    fn message(&mut self, message: Self::Message, now: Moment, out: &mut Vec<Action>);

    /// A request arrived. It is completed by an [`Action`] later, exactly once.
    fn submit(&mut self, request: BlockRequest, now: Moment);

    /// The copy asked for by `CopyIn` or `CompleteRead` is over; an errno (positive) when it failed. A failed
    /// `CompleteRead` has been completed with that error by the reactor.
    fn copied(&mut self, id: RequestId, result: Result<(), i32>, now: Moment);

    /// The copy asked for by `CopyInForeign` or `CopyOutForeign` is over; an errno (positive) when it failed.
    fn copied_foreign(&mut self, token: u64, result: Result<(), i32>, now: Moment);

    /// A watched descriptor is readable.
    fn ready(&mut self, token: u64, now: Moment);

    /// Sends what has been submitted or copied, without looking at what the fabric has finished: that is for
    /// [`Backend::pump`], which comes after it. Appends what the reactor shall do.
    fn send(&mut self, now: Moment, out: &mut Vec<Action>);

    /// Does what can be done now: completions of the fabric, timers, posts. Appends what the reactor shall do.
    fn pump(&mut self, now: Moment, out: &mut Vec<Action>) -> Pumped;

    /// Asks for wake-ups by the watched descriptors before the reactor sleeps; false when something arrived
    /// meanwhile and the reactor must not sleep.
    fn prepare_sleep(&mut self) -> bool;
}
