//! What the world does when its time has come, and when the engine speaks.

use super::check::rule;
use super::odds::{Odds, Span};
use super::world::{Errand, SLACK, World};
use crate::fabric::{Extent, Fabric, QueuePairId, WorkError};
use crate::scsi::{BlockError, Lun};
use crate::session::{BlockResult, ChannelError, Event, LunKey, RequestId};
use crate::time::Instant;

impl World {
    pub(super) fn run(&mut self, errand: Errand) {
        let now = self.now;
        match errand {
            Errand::Pump(reactor) => {
                self.reactors.of(reactor).pump_due = false;
                self.pump(reactor);
            }
            Errand::Mail(from, to, mail) => self.receive(from, to, mail),
            Errand::Supply(id, handle, qp, extent) => {
                let (reactor, data) = (self.owner(qp), self.client.data(id));
                let mut from = &data[..];
                for piece in self.pieces(reactor, qp, extent) {
                    self.fabric().net.give_back(qp, piece);
                    let (part, rest) = from.split_at((piece.len as usize).min(from.len()));
                    self.fabric().copy_in(qp, piece, part);
                    from = rest;
                }
                let ok = !Odds::hit(&mut self.rng, self.spec.unsupplied);
                self.reactors.at(reactor).supplied(handle, ok, now);
                self.send_some(reactor, id);
                self.wake(reactor);
            }
            Errand::Take(id, handle, qp, extent) => {
                let (reactor, mut data) = (self.owner(qp), vec![0; extent.len as usize]);
                let mut into = &mut data[..];
                for piece in self.pieces(reactor, qp, extent) {
                    self.fabric().net.give_back(qp, piece);
                    let (part, rest) = into.split_at_mut((piece.len as usize).min(into.len()));
                    self.fabric().copy_out(qp, piece, part);
                    into = rest;
                }
                self.read_at(reactor, id, data);
                self.reactors.at(reactor).release(handle, now);
                self.wake(reactor);
            }
            Errand::Recover(session) => self.recover(session),
            Errand::Strike(span) => self.break_one(span),
            Errand::Detach(session) => self.detach_step(session),
            Errand::Login(session) => self.login(session),
            Errand::Succeed(session, qp) => self.succeed(session, qp),
            Errand::Enable => self.fabric().target_mut().profile_mut().enabled = true,
            Errand::Destroy(qp) => {
                if self.fabric().destroy_unmarked(qp) {
                    let reactor = self.owner(qp);
                    self.reactors.at(reactor).destroyed(qp, now);
                    self.wake(reactor);
                }
            }
            Errand::Scenario(what) => self.scenario(what),
        }
    }

    /// A connection breaks, whether anything is under way on it or not.
    fn break_one(&mut self, span: Span) {
        if self.over_by.is_some() {
            return;
        }
        let pairs: Vec<QueuePairId> = self.reactors.fabric().net.queue_pairs.keys().copied().collect();
        if let Some(qp) = self.rng.choice(&pairs).copied() {
            let fault = self.rng.u8(0..3);
            let net = &mut self.fabric().net;
            net.tally.count("fault at a time of its own");
            match fault {
                0 => net.fail(qp, Some(WorkError::Remote)),
                1 => net.cut(qp),
                _ => net.disconnect(qp),
            }
        }
        self.after(span, Errand::Strike(span));
    }

    /// Looks at everything a call may have changed.
    pub(super) fn after_call(&mut self) {
        for (lun, cdb) in std::mem::take(&mut self.fabric().net.forged) {
            self.client.forged(lun, &cdb);
        }
        self.watch_refusals();
        for reactor in 0..self.reactors.count() {
            while let Some(event) = self.reactors.at(reactor).next_event() {
                self.heard(reactor, event);
            }
        }
        self.watch_posts();
        if let Err(what) = self.client.order.batch_over(self.now) {
            self.broken(rule::ORDER, what);
        }
        self.watch_credits();
        self.watch();
    }

    /// Looks at what changes without the engines: who has to hear of what, and the time.
    pub(super) fn watch(&mut self) {
        while let Some(qp) = self.fabric().next_notice() {
            self.close_channel(qp);
        }
        for reactor in 0..self.reactors.count() {
            if self.reactors.fabric().has_completions(reactor) {
                self.wake(reactor);
            }
        }
        self.watch_time();
    }

    /// What the engine heard of goes back to its queues before anything is posted.
    fn watch_refusals(&mut self) {
        for (qp, lun, cdb, at_once) in std::mem::take(&mut self.fabric().net.refusals) {
            let from = match at_once {
                true => Instant::default(),
                false => self.now + self.spec.limits.backoff,
            };
            let reactor = self.owner(qp);
            if let Some((lba, read)) = block_command(&cdb) {
                self.client.order.refused(reactor, lun, lba, read, from);
            }
        }
    }

    fn watch_posts(&mut self) {
        // A unit that is given fewer commands than it has, or was a moment ago, is not passed over.
        let numbers = || self.spec.sessions.iter().flat_map(|spec| spec.luns.iter().copied());
        let all = (0..self.reactors.count()).flat_map(|reactor| numbers().map(move |number| (reactor, number)));
        let limited = |(reactor, number): &(usize, u32)| {
            let state = self.reactors.engine(*reactor).disk_state(LunKey(*number));
            state.is_some_and(|state| state.depth.is_some())
        };
        let throttled: Vec<(usize, u32)> = all.filter(limited).collect();
        let before = std::mem::replace(&mut self.throttled, throttled);
        for (qp, lun, cdb) in self.fabric().net.take_posts() {
            let reactor = self.owner(qp);
            self.attempted(qp, lun, &cdb);
            if let Some(session) = self.session_of_lun(lun) {
                self.moved(session);
            }
            for (reactor, number) in before.iter().chain(&self.throttled) {
                self.client.order.turn(*reactor, Lun::from_index(*number).0);
            }
            self.client.order.turn(reactor, lun);
            let Some((lba, read)) = block_command(&cdb) else {
                continue;
            };
            let net = &self.reactors.fabric().net;
            let at_target = |lun, lba| {
                net.queue_pairs
                    .values()
                    .any(|qp| qp.leases.of_command(lun, lba, true).is_some())
            };
            let posted = self.client.order.posted(reactor, lun, lba, read, self.now, at_target);
            let (order, fairness) = posted;
            if let Err(what) = order {
                self.broken(rule::ORDER, what);
            }
            if let Err(what) = fairness {
                self.broken(rule::FAIRNESS, what);
            }
        }
    }

    fn pieces(&mut self, reactor: usize, qp: QueuePairId, extent: Extent) -> Vec<Extent> {
        self.reactors.at(reactor).pieces(qp, extent).collect()
    }

    /// The client has an extent from now on.
    fn lend(&mut self, reactor: usize, qp: QueuePairId, extent: Extent) {
        for piece in self.pieces(reactor, qp, extent) {
            self.fabric().net.lend(qp, piece);
        }
    }

    fn heard(&mut self, reactor: usize, event: Event) {
        let copy = self.spec.profile.copy;
        match event {
            Event::Supply { id, handle, qp, extent } => {
                self.client.supply(self.reactors.fabric(), reactor, id, extent.len);
                self.lend(reactor, qp, extent);
                self.after(copy, Errand::Supply(id, handle, qp, extent));
            }
            Event::Data { id, handle, qp, extent } => {
                let session = self.client.pending.get(&id).map_or(0, |pending| pending.session);
                self.moved(session);
                self.client.read_ended(self.reactors.fabric(), reactor, id);
                self.lend(reactor, qp, extent);
                self.after(copy, Errand::Take(id, handle, qp, extent));
            }
            Event::Done { id, result } => {
                if let Err(error) = result {
                    if let Some(what) = request_failed(error) {
                        self.fabric().net.tally.count(what);
                    }
                    self.check_reason(reactor, id, error);
                }
                self.ended_at(reactor, id, result);
            }
            Event::TaskDone { id, result } => {
                self.client.task_done(self.reactors.fabric(), id, result);
                self.reset_ended(id, result);
            }
            Event::HandOver(handover) => self.handed_over(reactor, *handover),
            Event::Reply { id, result } => {
                let result = result.map(|reply| *reply);
                self.client.replied(self.reactors.fabric(), id, result);
            }
            Event::ChannelStuck { qp, session } => {
                self.fabric().net.tally.count("channel stuck");
                if let Some(span) = self.spec.relogin {
                    self.after(span, Errand::Succeed(session.0, qp));
                }
            }
            Event::ChannelFailed { qp, session, reason } => {
                let limit = self.now + SLACK;
                self.agenda.add(self.now + SLACK / 2, Errand::Destroy(qp));
                self.failing.insert(qp, (session.0, limit));
                self.retired.remove(&qp);
                let kind = match *reason {
                    ChannelError::Work(_) => "channel ends: work request failed",
                    ChannelError::Wire(_) => "channel ends: unreadable IU",
                    ChannelError::Protocol(_) => "channel ends: protocol error",
                    ChannelError::Timeout(_) => "channel ends: command neither answered nor ended",
                    ChannelError::Incomplete(_) => "channel ends: work requests of an answered command do not complete",
                    ChannelError::TargetLogout(_) => "channel ends: target logged out",
                    ChannelError::Closed => "channel ends: closed by the control side",
                };
                self.fabric().net.tally.count(kind);
                self.failures.push((qp, *reason, self.now));
                self.moved(session.0);
                self.lost(session.0, qp);
            }
            Event::ChannelClosed { qp, .. } => {
                if self.failing.remove(&qp).is_none() {
                    self.broken(rule::CLOSED, format!("qp{} closed without having failed", qp.0));
                }
                self.fabric().destroy(qp);
            }
        }
    }

    /// The client hears how a request ended.
    pub(super) fn done(&mut self, id: RequestId, result: BlockResult) {
        let session = self.client.pending.get(&id).map_or(0, |pending| pending.session);
        self.moved(session);
        let dead = self.sessions[session as usize].dead.clone();
        self.client.done(self.reactors.fabric(), id, result, dead);
    }
}

/// Where a read or a write begins, and whether it is a read.
fn block_command(cdb: &[u8; 16]) -> Option<(u64, bool)> {
    let read = match cdb[0] {
        0x28 | 0x88 => true,
        0x2a | 0x8a => false,
        _ => return None,
    };
    let (lba, _) = super::target::extent_of(cdb)?;
    Some((lba, read))
}

/// What is counted of a request's failure. The others are what whoever asked did wrong, or what no model target says.
const fn request_failed(error: BlockError) -> Option<&'static str> {
    Some(match error {
        BlockError::Transport => "request fails: path lost",
        BlockError::Timeout => "request fails: timed out",
        BlockError::Offline => "request fails: disk gone",
        BlockError::Medium => "request fails: medium error",
        BlockError::Io => "request fails: I/O error",
        _ => return None,
    })
}
