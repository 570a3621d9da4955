//! Time limits, and what must hold in the end.

use std::time::Duration;

use super::check::rule;
use super::client::Pending;
use super::world::{SLACK, World};
use crate::scsi::{BlockError, Lun};
use crate::session::{Engine, Fence, LunKey, RequestId};
use crate::time::Instant;

impl World {
    /// When a block request has ended at the latest, whatever happens: at its time limit while it waits to be sent
    /// again, else with what the attempt comes to that was begun before: its ladder, and the fence. Those asked for
    /// earlier come first.
    pub(super) fn block_limit(&self) -> Instant {
        let limits = self.spec.limits;
        let attempt =
            limits.command + limits.task * 4 + limits.successor + limits.retirement + limits.fence_pause + SLACK * 2;
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
            .find(|(_, (_, limit))| *limit < self.now)
            .map(|(qp, _)| *qp);
        if let Some(qp) = late {
            self.broken(rule::DEADLINE, format!("qp{} failed and was not closed", qp.0));
        }
        let limits = self.spec.limits;
        let limit = limits.command + limits.task + limits.task + limits.successor + SLACK;
        let overdue = self.reactors.fabric().net.overdue(limit);
        if let Some(what) = overdue {
            self.broken(rule::DEADLINE, what);
        }
        let late = self.client.pending.iter().find(|(_, pending)| pending.limit < self.now);
        if let Some((id, _)) = late {
            self.broken(rule::DEADLINE, format!("{id:?} has not ended"));
        }
        let fabric = self.reactors.fabric();
        for session in &mut self.sessions {
            session.dead.retain(|qp| !fabric.is_quiet(*qp));
        }
        self.client.shadow.refresh(|qp| fabric.is_quiet(qp));
    }

    /// What a request fails for must be so.
    pub(super) fn check_reason(&self, reactor: usize, id: RequestId, error: BlockError) {
        let Some(pending) = self.client.pending.get(&id) else {
            return;
        };
        match error {
            BlockError::Timeout => self.check_timeout(reactor, id, pending),
            BlockError::Transport => self.check_path(reactor, id, pending),
            _ => {}
        }
    }

    /// A request whose time is over while it waits was waiting for something: credit, or the end of another. Or it was
    /// on its way between reactors.
    fn check_timeout(&self, reactor: usize, id: RequestId, pending: &Pending) {
        let reaction = self.spec.profile.reaction.end();
        let came = pending.moved.is_some_and(|at| self.now <= at + reaction);
        if self.reactors.fabric().net.heard == self.now || came {
            return;
        }
        let Some(session) = self.sessions.get(pending.session as usize) else {
            return;
        };
        let engine = self.reactors.engine(reactor);
        let states = || session.qps.iter().filter_map(|qp| engine.channel_state(*qp));
        if states().all(|state| state.commands == 0) && states().any(|state| state.credits > 1) {
            self.broken(rule::DEADLINE, format!("{id:?} was given up with nothing in its way"));
        }
    }

    /// A block request fails for want of a path only when its session has no channel on any reactor, as far as the
    /// reactor it was made on can know. A write that was with the target fails also when its unit could not be reset:
    /// where that must not be, where the target refused it, and where it took too long.
    fn check_path(&self, reactor: usize, id: RequestId, pending: &Pending) {
        let limits = self.spec.limits;
        let over = pending.begun + limits.busy <= self.now;
        if pending.block.is_none() || pending.removed || over {
            return;
        }
        let refused = self.reactors.fabric().target().refused_function();
        let fence = limits.fence_pause + limits.task + limits.task;
        let unfenced = pending.is_write()
            && (self.spec.fence == Fence::Relogin
                || pending.begun + fence <= self.now
                || refused.is_some_and(|at| self.now <= at + fence));
        if unfenced {
            return;
        }
        let serving = &self.sessions[pending.session as usize].serving;
        let path = serving.iter().find(|(qp, since)| {
            let told = if self.owner(**qp) == reactor {
                Duration::ZERO
            } else {
                self.spec.tell.end()
            };
            **since + told < self.now
        });
        if let Some((qp, _)) = path {
            self.broken(
                rule::PATH,
                format!("{id:?} fails on reactor {reactor}, and qp{} lives", qp.0),
            );
        }
    }

    /// What must hold when nothing is left to happen.
    pub(super) fn audit(&mut self) {
        let kept = self.reactors.engines().map(Engine::requests).sum::<usize>();
        let kept = kept + self.reactors.iter().map(|reactor| reactor.foreign.len()).sum::<usize>();
        if !self.client.pending.is_empty() || kept > 0 {
            let told = self.client.pending.len();
            self.broken(rule::ONCE, format!("{told} requests never ended, {kept} in engines"));
        }
        for qp in self.failing.keys() {
            self.broken(rule::CLOSED, format!("qp{} failed and was never closed", qp.0));
        }
        for qp in self.sessions.iter().flat_map(|session| session.qps.iter().copied()) {
            let fabric = self.reactors.fabric();
            let Some(state) = self.reactors.engine(self.owner(qp)).channel_state(qp) else {
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
                for engine in self.reactors.engines() {
                    let state = engine.disk_state(LunKey(number));
                    if state.is_some_and(|state| state.commands != 0) {
                        self.broken(rule::LEAK, format!("disk {number}: {state:?}"));
                    }
                }
                let size = self.disk_spec(number).map_or(512, |spec| spec.block_size);
                self.client.audit(self.reactors.fabric(), Lun::from_index(number), size);
            }
        }
    }
}
