//! What goes wrong with connections.

use std::time::Duration;

use super::net::{Happening, Net};
use super::odds::Odds;
use crate::fabric::{QueuePairId, WorkError};
use crate::wire::Response;

impl Net {
    /// Faults of the network, drawn whenever an IU gets to the target.
    pub(super) fn strike(&mut self, id: QueuePairId) {
        let odds = self.odds;
        if Odds::hit(&mut self.rng, odds.break_local) {
            self.tally.count("queue pair breaks on our side");
            self.trace.text(self.now, Some(id), "fault: the queue pair breaks");
            self.fail(id, Some(WorkError::Remote));
        }
        if Odds::hit(&mut self.rng, odds.cut) {
            self.cut(id);
        }
        if Odds::hit(&mut self.rng, odds.disconnect) {
            self.disconnect(id);
        }
        if Odds::hit(&mut self.rng, odds.burst) {
            self.burst(id);
        }
        if Odds::hit(&mut self.rng, odds.unacknowledged)
            && let Some(qp) = self.queue_pairs.get_mut(&id)
        {
            qp.unacknowledged = true;
            self.tally.count("SENDs not acknowledged any more");
            self.trace
                .text(self.now, Some(id), "fault: SENDs are not acknowledged any more");
        }
    }

    /// As many IUs at once as there are receives, or more, and maybe the end of the queue pair.
    fn burst(&mut self, id: QueuePairId) {
        let count = self.queue_pairs.get(&id).map_or(0, |qp| qp.plan.receives - 1);
        self.tally.count("burst of IUs that uses up all receives");
        self.trace.text(self.now, Some(id), "fault: a burst of IUs");
        let mut iu = vec![0x55; Response::FIXED_LEN];
        if self.rng.u8(0..4) > 0 {
            let nobodys = Response {
                tag: u64::MAX,
                request_limit_delta: 0,
                status: 0,
                data_out_residual: None,
                data_in_residual: None,
                response_code: None,
                sense: None,
            };
            if nobodys.emit(&mut iu).is_err() {
                return;
            }
        }
        for _ in 0..count + self.rng.u16(0..=2) {
            if let Some(qp) = self.queue_pairs.get_mut(&id) {
                qp.untold += 1;
            }
            self.deliver(id, iu.clone());
        }
        if self.rng.u8(0..4) > 0 {
            // Requests that are flushed need not be behind the one that says why.
            let cause = self.rng.bool().then_some(WorkError::Remote);
            self.fail(id, cause);
        }
    }

    /// From now on nothing gets through.
    pub(super) fn cut(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if !qp.cut {
            qp.cut = true;
            self.tally.count("connection cut in silence");
            self.trace.text(self.now, Some(id), "fault: the connection is cut");
            let notice = self.profile.notice;
            self.within(notice, Happening::Learn(id));
        }
    }

    /// The target drops the connection, and the initiator is told.
    pub(super) fn disconnect(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        qp.cut = true;
        self.tally.count("target disconnects");
        self.trace.text(self.now, Some(id), "the target disconnects");
        let notice = self.profile.notice;
        self.within(notice, Happening::Notice(id));
        self.after(Duration::ZERO, Happening::Learn(id));
    }
}
