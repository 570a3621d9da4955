//! The block requests a reactor has under way, by queue and tag.

use std::sync::Arc;

use srp_initiator::session::Handle;
use ublk_frontend::backend::{Operation, RequestId};

use super::DiskCounters;

/// A request between its arrival and its completion.
pub(super) struct Pending {
    /// The engine's name while a copy is under way.
    pub(super) handle: Option<Handle>,
    /// Bytes.
    pub(super) len: u32,
    pub(super) operation: Operation,
    pub(super) counters: Arc<DiskCounters>,
}

/// Indexed by queue and tag; both are small and dense, so nothing is hashed and, once a queue is in use,
/// nothing allocated.
#[derive(Default)]
pub(super) struct PendingTable {
    queues: Vec<Vec<Option<Pending>>>,
}

impl PendingTable {
    pub(super) fn insert(&mut self, id: RequestId, pending: Pending) {
        let queue = id.queue as usize;
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, Vec::new);
        }
        let tags = &mut self.queues[queue];
        let tag = usize::from(id.tag);
        if tags.len() <= tag {
            tags.resize_with(tag + 1, || None);
        }
        tags[tag] = Some(pending);
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Pending> {
        self.queues
            .get_mut(id.queue as usize)?
            .get_mut(usize::from(id.tag))?
            .as_mut()
    }

    pub(super) fn take(&mut self, id: RequestId) -> Option<Pending> {
        self.queues
            .get_mut(id.queue as usize)?
            .get_mut(usize::from(id.tag))?
            .take()
    }
}
