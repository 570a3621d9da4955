//! What is queued reaches the hardware.

use std::time::Duration;

use super::check::rule;
use super::fabric::SimFabric;
use super::net::{Happening, Net};
use super::queue_pair::PostedReceive;
use crate::fabric::QueuePairId;

impl Net {
    /// The hardware learns of the receives queued.
    pub(super) fn post_receives(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        let (broken, waiting) = (qp.is_broken(), !qp.inbound.is_empty());
        let slots = std::mem::take(&mut qp.queued_receives);
        let posted = slots.len();
        let receives = slots.into_iter().map(|slot| PostedReceive { slot, guard: false });
        qp.receives.extend(receives);
        for _ in 0..posted {
            if broken {
                self.after(Duration::ZERO, Happening::FlushReceives(id));
            } else if waiting {
                self.after(Duration::from_micros(100), Happening::Retry(id));
            }
        }
    }

    /// The hardware learns of the work requests of the send queue.
    pub(super) fn ring(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        let (hop, drain, broken) = (self.profile.hop, self.profile.drain, qp.is_broken());
        let mut rung = 0;
        for send in qp.sends.iter_mut().filter(|send| !send.rung) {
            send.rung = true;
            rung += 1;
        }
        if broken && rung > 0 {
            self.within(drain, Happening::FlushSends(id));
        } else {
            (0..rung).for_each(|_| self.within(hop, Happening::Transmit(id)));
        }
    }
}

impl SimFabric {
    /// The reactor whose turn it is has nothing to do until it is woken.
    pub(super) fn check_rest(&self) {
        let queue_pairs = self.own().into_iter().filter_map(|id| self.net.queue_pairs.get(&id));
        for qp in queue_pairs.filter(|qp| !qp.queued_receives.is_empty()) {
            let what = format!("qp{}: {} are queued", qp.id.0, qp.queued_receives.len());
            self.net.broken(rule::POSTED, what);
        }
    }
}
