//! Time limits, and what must hold in the end.

use std::time::Duration;

use super::check::rule;
use super::world::{SLACK, World};
use crate::scsi::{BlockError, Lun};
use crate::session::{LunKey, RequestId};
use crate::time::Instant;

impl World {
    /// When a block request has ended at the latest, whatever happens: at its time limit while it waits to be sent
    /// again, else with what the attempt comes to that was begun before. Those asked for earlier come first.
    pub(super) fn block_limit(&self) -> Instant {
        let limits = self.spec.limits;
        let attempt = limits.command + limits.task * 4 + SLACK * 2;
        let ahead = (self.client.pending.len() + 1) * self.spec.target.disks.len().max(1);
        self.now + (limits.busy + attempt) * u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// The same for a request of the control side.
    pub(super) fn control_limit(&self, timeout: Duration) -> Instant {
        self.now + timeout + self.spec.limits.task * 2 + SLACK
    }

    pub(super) fn watch_time(&mut self) {
        let late = self
            .failing
            .iter()
            .find(|(_, limit)| **limit < self.now)
            .map(|(qp, _)| *qp);
        if let Some(qp) = late {
            self.broken(rule::DEADLINE, format!("qp{} failed and was not closed", qp.0));
        }
        let limits = self.spec.limits;
        let limit = limits.command + limits.task + limits.task + SLACK;
        let overdue = self.engine.fabric().net.overdue(limit);
        if let Some(what) = overdue {
            self.broken(rule::DEADLINE, what);
        }
        let late = self.client.pending.iter().find(|(_, pending)| pending.limit < self.now);
        if let Some((id, _)) = late {
            self.broken(rule::DEADLINE, format!("{id:?} has not ended"));
        }
        let fabric = self.engine.fabric();
        for session in &mut self.sessions {
            session.dead.retain(|qp| !fabric.is_quiet(*qp));
        }
        self.client.shadow.refresh(|qp| fabric.is_quiet(qp));
    }

    /// A request whose time is over while it waits was waiting for something: credit, or the end of another.
    pub(super) fn check_reason(&self, id: RequestId, error: BlockError) {
        let heard = self.engine.fabric().net.heard == self.now;
        let Some(pending) = self
            .client
            .pending
            .get(&id)
            .filter(|_| error == BlockError::Timeout && !heard)
        else {
            return;
        };
        let Some(session) = self.sessions.get(pending.session as usize) else {
            return;
        };
        let states = || session.qps.iter().filter_map(|qp| self.engine.channel_state(*qp));
        if states().all(|state| state.commands == 0) && states().any(|state| state.credits > 1) {
            self.broken(rule::DEADLINE, format!("{id:?} was given up with nothing in its way"));
        }
    }

    /// What must hold when nothing is left to happen.
    pub(super) fn audit(&mut self) {
        if !self.client.pending.is_empty() || self.engine.requests() > 0 {
            let (told, kept) = (self.client.pending.len(), self.engine.requests());
            self.broken(rule::ONCE, format!("{told} requests never ended, {kept} in the engine"));
        }
        for qp in self.failing.keys() {
            self.broken(rule::CLOSED, format!("qp{} failed and was never closed", qp.0));
        }
        for qp in self.sessions.iter().flat_map(|session| session.qps.iter().copied()) {
            let fabric = self.engine.fabric();
            let Some(state) = self.engine.channel_state(qp) else {
                self.broken(rule::CLOSED, format!("qp{} is gone", qp.0));
                continue;
            };
            if state.bytes_in_use != 0 || state.commands != 0 {
                self.broken(rule::LEAK, format!("qp{}: {state:?}", qp.0));
            }
            let (ours, theirs) = (fabric.credits(qp), fabric.target().credits(qp));
            if Some(state.credits) != ours || theirs.is_some_and(|theirs| Some(theirs) != ours) {
                let what = format!("engine {}, wire {ours:?}, target {theirs:?}", state.credits);
                self.broken(rule::CREDIT, what);
            }
            if fabric.target().unanswered(qp) > 0 {
                self.broken(rule::PROTOCOL, "a request of the target was not answered");
            }
            if fabric.net.queue_pairs.get(&qp).is_some_and(|qp| qp.windows.any()) {
                self.broken(rule::LEAK, format!("qp{}: a window is open", qp.0));
            }
            if fabric.net.in_use(qp) {
                self.broken(rule::LEAK, format!("qp{}: memory in use", qp.0));
            }
        }
        for spec in self.spec.sessions.clone() {
            for number in spec.luns {
                let state = self.engine.disk_state(LunKey(number));
                if state.is_some_and(|state| state.commands != 0) {
                    self.broken(rule::LEAK, format!("disk {number}: {state:?}"));
                }
                let size = self.disk_spec(number).map_or(512, |spec| spec.block_size);
                self.client.audit(self.engine.fabric(), Lun::from_index(number), size);
            }
        }
    }
}
