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
    pub(super) queue_id: u16,
    pub(super) counters: Arc<DiskCounters>,
}

/// Indexed by the queue's slot and the tag; both are small and dense, so nothing is hashed and, once a queue is in
/// use, nothing allocated. A queue has no request under way any more when another one gets its slot.
#[derive(Default)]
pub(super) struct PendingTable {
    queues: Vec<Vec<Option<Pending>>>,
}

impl PendingTable {
    pub(super) fn insert(&mut self, id: RequestId, pending: Pending) {
        let queue = id.queue_slot();
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

    pub(super) fn get(&self, id: RequestId) -> Option<&Pending> {
        self.queues.get(id.queue_slot())?.get(usize::from(id.tag))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Pending> {
        self.queues
            .get_mut(id.queue_slot())?
            .get_mut(usize::from(id.tag))?
            .as_mut()
    }

    pub(super) fn take(&mut self, id: RequestId) -> Option<Pending> {
        self.queues
            .get_mut(id.queue_slot())?
            .get_mut(usize::from(id.tag))?
            .take()
    }
}

#[cfg(test)]
mod tests {
    use ublk_frontend::backend::Operation;

    use super::*;

    fn pending() -> Pending {
        Pending {
            handle: None,
            len: 512,
            operation: Operation::Read,
            queue_id: 0,
            counters: Arc::default(),
        }
    }

    #[test]
    fn queues_that_come_and_go_take_no_more_room() {
        let mut table = PendingTable::default();
        for generation in 0..1000 {
            for slot in 0..3 {
                let queue = generation << 16 | slot;
                let id = RequestId { queue, tag: 127 };
                table.insert(id, pending());
                assert!(table.get_mut(id).is_some() && table.take(id).is_some());
                assert!(table.take(id).is_none(), "taken twice");
            }
        }
        assert_eq!(table.queues.len(), 3);
    }
}
