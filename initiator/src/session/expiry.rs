//! The end of requests that wait for too long.
//!
//! A request that is with the target has limits of its own (see `task`). One that waits to be sent again, and a control
//! request that waits at all, ends when its time is over, so that whoever asked for it always hears of it. A block
//! request that was never sent waits for as long as it takes: those ahead of it end.

use super::engine::Engine;
use super::request::{Key, Stage};
use crate::fabric::Fabric;
use crate::scsi::BlockError;
use crate::time::Instant;

impl<F: Fabric> Engine<F> {
    /// Fails what waits in a queue beyond its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_some_and(|at| at <= now) {
            self.expire_waiting(now);
        }
    }

    #[cold]
    fn expire_waiting(&mut self, now: Instant) {
        self.next_expiry = None;
        for queue in 0..self.queues.len() {
            let over: Vec<Key> = self.take_waiting(queue, |request| request.is_over(now));
            for key in over {
                tracing::warn!("a request could not be sent in time");
                self.end(key, Err(BlockError::Timeout));
            }
        }
        let waiting = self.requests.iter().map(|(_, request)| request);
        let waiting = waiting.filter(|request| request.stage == Stage::Waiting);
        self.next_expiry = waiting.filter_map(|request| request.deadline).min();
    }
}
