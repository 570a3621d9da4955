//! RDMA READ and WRITE by the target.

use super::check::rule;
use super::net::Net;
use super::trace::Note;
use crate::fabric::{QueuePairId, RemoteAccess};
use crate::wire::MemoryDescriptor;

/// What an RDMA operation moves.
#[derive(Debug)]
pub(super) enum Access<'a> {
    /// Into our memory.
    Write(&'a [u8]),
    /// Out of our memory.
    Read(&'a mut [u8]),
}

impl Net {
    /// An RDMA READ or WRITE by the target; false when the connection does not carry it any more.
    pub(super) fn access(&mut self, id: QueuePairId, memory: MemoryDescriptor, bytes: Access<'_>) -> bool {
        let done = self.try_access(id, memory, bytes);
        let note = Note::Access {
            write: matches!(done, Some((true, _))),
            address: memory.address,
            len: memory.len as usize,
            done: matches!(done, Some((_, true))),
        };
        self.trace.add(self.now, Some(id), 0, note);
        matches!(done, Some((_, true)))
    }

    fn try_access(&mut self, id: QueuePairId, memory: MemoryDescriptor, bytes: Access<'_>) -> Option<(bool, bool)> {
        let write = matches!(bytes, Access::Write(_));
        let qp = self.queue_pairs.get_mut(&id)?;
        if qp.cut {
            return Some((write, false));
        }
        if let Some((_, barrier)) = qp.error
            && (self.now >= barrier || self.rng.bool())
        {
            return Some((write, false));
        }
        if qp.error.is_some() {
            self.tally.count("access to our memory after the error");
        }
        let access = match write {
            true => RemoteAccess::Write,
            false => RemoteAccess::Read,
        };
        let Some(extent) = qp.admit(memory, access) else {
            let what = format!("{memory:?} is not open to the target (write: {write})");
            self.checks.broken(self.now, rule::PROTOCOL, what);
            return Some((write, false));
        };
        if !qp.leases.permits(extent, write) && qp.deceived {
            return Some((write, false));
        }
        if !qp.leases.permits(extent, write) {
            let what = format!("the target reaches {extent:?}, which was given up (write: {write})");
            self.checks.broken(self.now, rule::DMA, what);
        }
        let place = qp.bytes_mut(extent)?;
        match bytes {
            Access::Write(from) => place.copy_from_slice(from),
            Access::Read(into) => into.copy_from_slice(place),
        }
        Some((write, true))
    }
}
