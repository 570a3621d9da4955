//! Time limits, and what must hold in the end.

use std::time::Duration;

use super::check::rule;
use super::client::Pending;
use super::odds::CreditPolicy;
use super::world::{ENABLE, SLACK, World};
use crate::fabric::QueuePairId;
use crate::scsi::{BlockError, Lun};
use crate::session::{Engine, Fence, LunKey, RequestId};
use crate::time::Instant;

impl World {
    /// When a block request has ended at the latest, as long as it was never sent: those asked for earlier come first, each
    /// with the time a request may take. When it is sent for the first time it has that time and no more.
    pub(super) fn block_limit(&self, session: u32, lun: Lun) -> Instant {
        let units = self.spec.sessions[session as usize].luns.len().max(1);
        let earlier = self.client.pending.values().filter(|pending| pending.lun == lun.0);
        let ahead = u32::try_from((earlier.count() + 1) * units).unwrap_or(u32::MAX);
        let limit = self.now + self.request_limit() * ahead;
        self.over_by.map_or(limit, |over| limit.min(over))
    }

    /// What a request takes from when it was sent first, whatever happens: its time limit while it waits to be sent again,
    /// and what an attempt comes to that was begun before that was over.
    fn request_limit(&self) -> Duration {
        let limits = self.spec.limits;
        limits.busy + self.attempt_limit() + limits.fence_pause + self.spec.mail.end() * 2
    }

    /// What one attempt takes: the command's limit, the rungs of the ladder, and the wait for another channel.
    fn attempt_limit(&self) -> Duration {
        let limits = self.spec.limits;
        limits.command + limits.task * 2 + limits.successor + limits.retirement + SLACK * 2
    }

    /// A command of a disk is sent.
    pub(super) fn attempted(&mut self, qp: QueuePairId, lun: u64, cdb: &[u8; 16]) {
        let limit = self.now + self.request_limit();
        if let Some(pending) = self.client.sent(qp, lun, cdb) {
            pending.limit = pending.limit.min(limit);
        }
    }

    /// From now on nothing goes wrong, and all that was asked for ends within the time that is returned: what the target
    /// never answers is aborted, its unit reset and the session logged in again; the others follow one by one.
    pub(super) fn heal(&mut self) -> Duration {
        self.enter();
        self.fabric().heal();
        let limit = self.healed_limit();
        let over = self.now + limit;
        self.over_by = Some(over);
        for pending in self.client.pending.values_mut() {
            pending.limit = pending.limit.min(over);
        }
        limit + SLACK
    }

    fn healed_limit(&self) -> Duration {
        let (limits, profile) = (self.spec.limits, &self.spec.profile);
        let relogin = self.spec.relogin.map_or(Duration::ZERO, |span| span.end());
        let outage = profile.transport_retry.end() + profile.notice.end() + ENABLE.end() + relogin;
        // A reset that was sent before and is never answered keeps its writes until their time is over.
        let fence = limits.fence_pause + limits.busy;
        let waiting = u32::try_from(self.client.pending.len()).unwrap_or(u32::MAX);
        let slow = self.spec.target.slow.map_or(Duration::ZERO, |(_, span)| span.end());
        let turn = match self.spec.target.credit {
            // With what a login brings, as little as one request is served, and a UNIT ATTENTION may take even that: only
            // their own time limits end them.
            CreditPolicy::Never => self.request_limit(),
            _ => profile.service.end().max(slow) + limits.backoff + SLACK / 4,
        };
        // A reset that others want may end a command without an answer, so that it is sent twice.
        self.attempt_limit() * 2 + fence + outage + turn * waiting
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
        if let Some((qp, _)) = self.retired.iter().find(|(_, limit)| **limit < self.now) {
            self.broken(rule::DEADLINE, format!("qp{} was retired and has not ended", qp.0));
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
        self.watch_progress();
        self.watch_detaches();
        let fabric = self.reactors.fabric();
        for session in &mut self.sessions {
            session.dead.retain(|qp| !fabric.is_quiet(*qp));
        }
        self.client.shadow.refresh(|qp| fabric.is_quiet(qp));
    }

    /// The engine, the wire and the target agree on the request limit of every channel, at every step: the engine has counted
    /// what is not sent yet, and the target what is on its way.
    pub(super) fn watch_credits(&self) {
        let fabric = self.reactors.fabric();
        for &qp in self.sessions.iter().flat_map(|session| &session.qps) {
            let (Some(state), Some(wire)) = (
                self.reactors.engine(self.owner(qp)).channel_state(qp),
                fabric.net.queue_pairs.get(&qp),
            ) else {
                continue;
            };
            let ours = state.credits + i64::from(state.unsent);
            let settled = wire.outbound == 0
                && fabric.target().backlog(qp) == 0
                && wire.untold == 0
                && !wire.cut
                && !wire.is_broken();
            let theirs = settled.then(|| fabric.target().credits(qp)).flatten();
            if ours != wire.credits || theirs.is_some_and(|theirs| theirs != wire.credits) {
                let what = format!("engine {ours}, wire {}, target {theirs:?}", wire.credits);
                self.broken(rule::CREDIT, format!("qp{}: {what}", qp.0));
            }
        }
    }

    /// However many wait, one is sent or ends in the time that a request may take (all may be writes that wait for resets that
    /// are never answered), and that the target may then take to give credit, or a channel does.
    fn watch_progress(&self) {
        let limit = self.request_limit() + self.spec.limits.command;
        for (number, session) in (0..).zip(&self.sessions) {
            if session.moved + limit >= self.now || session.recovery.is_some() {
                continue;
            }
            let waits = |pending: &Pending| pending.session == number && pending.begun + limit < self.now;
            if self
                .client
                .pending
                .values()
                .any(|pending| pending.block.is_some() && waits(pending))
            {
                self.broken(rule::DEADLINE, format!("session {number} stands still"));
            }
        }
    }

    /// Something happened to a request or a channel of a session.
    pub(super) fn moved(&mut self, session: u32) {
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.moved = self.now;
        }
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

    /// A request whose time is over while it waits was waiting for something: credit, the end of another, or that of a channel
    /// that failed and has its command, or that of another of the unit. Or it was on its way between reactors.
    fn check_timeout(&self, reactor: usize, id: RequestId, pending: &Pending) {
        let reaction = self.spec.profile.reaction.end();
        let came = pending.moved.is_some_and(|at| self.now <= at + reaction);
        let kept = |other: &Pending| {
            let failing = other.over.is_some_and(|qp| self.failing.contains_key(&qp));
            other.lun == pending.lun && failing
        };
        let flushed_over = &self.client.flushed_over;
        let mut failing = self.failing.keys();
        let kept =
            self.client.pending.values().any(kept) || failing.any(|qp| flushed_over.contains(&(*qp, pending.lun)));
        if self.reactors.fabric().net.heard == self.now || came || kept {
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
            let told: Vec<_> = self.client.pending.keys().collect();
            self.broken(
                rule::ONCE,
                format!("requests that never ended: {told:?}, {kept} in engines"),
            );
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
