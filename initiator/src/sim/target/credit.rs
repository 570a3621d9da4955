//! Request limits, as the target counts them.

use fastrand::Rng;

use super::{Step, Target};
use crate::fabric::QueuePairId;
use crate::scsi::Lun;
use crate::sim::net::{Happening, Net};
use crate::sim::odds::CreditPolicy;
use crate::wire::{AsyncEvent, CreditRequest};

/// The request limit of one channel.
#[derive(Debug)]
pub(super) struct Credit {
    /// Grants less requests: what the initiator may still send once it has heard of everything.
    limit: i64,
    /// The same without what was taken back: what it may send as long as it has not heard of it.
    most: i64,
    /// Used up and not given back yet.
    owed: i32,
    /// SRP_CRED_REQ that waits for its answer.
    request: Option<u64>,
    step_due: bool,
}

impl Credit {
    pub(super) fn new(limit: i32) -> Self {
        let limit = i64::from(limit);
        Self {
            limit,
            most: limit,
            owed: 0,
            request: None,
            step_due: false,
        }
    }

    pub(super) fn limit(&self) -> i64 {
        self.limit
    }

    /// A request came; false when it had no right to.
    pub(super) fn consume(&mut self) -> bool {
        self.limit -= 1;
        self.most -= 1;
        self.most >= 0
    }

    /// A request is over without a response of its own.
    pub(super) fn owe(&mut self) {
        self.owe_more(1);
    }

    /// So many, whatever was made up before.
    pub(super) fn owe_more(&mut self, count: i32) {
        self.owed = self.owed.saturating_add(count);
    }

    /// SRP_CRED_RSP came.
    pub(super) fn answered(&mut self, tag: u64) -> bool {
        self.request.take() == Some(tag)
    }

    pub(super) fn grant(&mut self, delta: i32) {
        self.limit += i64::from(delta);
        self.most += i64::from(delta.max(0));
        self.owed = self.owed.saturating_sub(delta).max(0);
    }

    /// Whether SRP_CRED_REQ waits for its answer.
    pub(super) fn is_asking(&self) -> bool {
        self.request.is_some()
    }

    fn choose(&self, policy: CreditPolicy, last: bool, rng: &mut Rng) -> i32 {
        match policy {
            CreditPolicy::Each => self.owed,
            CreditPolicy::Batch(count) if !last && self.owed < count => 0,
            CreditPolicy::Wobble if !last => rng.i32(-2..=3).min(self.owed),
            CreditPolicy::Batch(_) | CreditPolicy::Wobble => self.owed,
            CreditPolicy::ByRequest | CreditPolicy::Never => 0,
        }
    }
}

impl Target {
    /// The delta of the response to a request that is over now.
    pub(super) fn delta(&mut self, qp: QueuePairId, net: &mut Net) -> i32 {
        let policy = self.profile.credit;
        let Some(channel) = self.channels.get_mut(&qp) else {
            return 0;
        };
        channel.credit.owe();
        let delta = channel.credit.choose(policy, channel.outstanding == 0, &mut net.rng);
        channel.credit.grant(delta);
        if policy == CreditPolicy::ByRequest && !channel.credit.step_due {
            channel.credit.step_due = true;
            let delay = net.profile.service;
            net.within(delay, Happening::Target(Step::Credit(qp)));
        }
        delta
    }

    /// Gives what is owed by SRP_CRED_REQ, if that is the policy and none is outstanding.
    pub(super) fn credit_step(&mut self, qp: QueuePairId, net: &mut Net) {
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        channel.credit.step_due = false;
        let owed = channel.credit.owed;
        let due = self.profile.credit == CreditPolicy::ByRequest && owed > 0;
        if due && channel.credit.request.is_none() {
            self.request_credit(qp, owed, net);
        }
    }

    /// Sends SRP_CRED_REQ.
    pub(in crate::sim) fn request_credit(&mut self, qp: QueuePairId, delta: i32, net: &mut Net) {
        let tag = self.next_tag();
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        if !channel.alive {
            return;
        }
        channel.credit.grant(delta);
        channel.credit.request = Some(tag);
        let mut iu = vec![0; CreditRequest::LEN];
        if (CreditRequest { tag, delta }).emit(&mut iu).is_ok() {
            net.send_to_initiator(qp, iu);
        }
    }

    /// Sends SRP_AER_REQ, one at a time.
    pub(in crate::sim) fn report_event(&mut self, qp: QueuePairId, lun: u64, net: &mut Net) {
        let tag = self.next_tag();
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        if !channel.alive || channel.event.is_some() {
            return;
        }
        channel.event = Some(tag);
        let sense = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3f, 0x0e, 0, 0, 0, 0];
        let event = AsyncEvent {
            tag,
            delta: 0,
            lun: Lun(lun),
            sense: &sense,
        };
        let mut iu = vec![0; AsyncEvent::FIXED_LEN + sense.len()];
        if event.emit(&mut iu).is_ok() {
            net.send_to_initiator(qp, iu);
        }
    }

    /// Answers to the target's own requests that are still missing.
    #[must_use]
    pub fn unanswered(&self, qp: QueuePairId) -> usize {
        self.channels
            .get(&qp)
            .filter(|channel| channel.alive)
            .map_or(0, |channel| {
                usize::from(channel.event.is_some()) + usize::from(channel.credit.request.is_some())
            })
    }
}
