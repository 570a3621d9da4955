//! What the world does when its time has come, and when the engine speaks.

use super::check::rule;
use super::odds::Odds;
use super::world::{Errand, SLACK, World};
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun};
use crate::session::{ChannelError, Event, LunKey};

impl World {
    pub(super) fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Pump => {
                self.pump_due = false;
                self.engine.pump(self.now);
            }
            Errand::Supply(id, handle, qp, extent) => {
                let data = self.client.data(id);
                self.fabric().net.give_back(qp, extent);
                self.fabric().copy_in(qp, extent, &data);
                let ok = !Odds::hit(&mut self.rng, self.spec.unsupplied);
                self.engine.supplied(handle, ok, self.now);
                self.wake();
            }
            Errand::Take(id, handle, qp, extent) => {
                let mut data = vec![0; extent.len as usize];
                self.fabric().net.give_back(qp, extent);
                self.fabric().copy_out(qp, extent, &mut data);
                self.client.taken(self.engine.fabric(), id, data);
                self.engine.release(handle, self.now);
                self.wake();
            }
            Errand::Recover(session) => self.recover(session),
            Errand::Login(session) => self.login(session),
            Errand::Enable => self.fabric().target_mut().profile_mut().enabled = true,
            Errand::Destroy(qp) => {
                if self.fabric().destroy_unmarked(qp) {
                    self.engine.destroyed(qp, self.now);
                    self.wake();
                }
            }
            Errand::Scenario(what) => self.scenario(what),
        }
    }

    /// Looks at everything a call may have changed.
    pub(super) fn after_call(&mut self) {
        while let Some(event) = self.engine.next_event() {
            self.heard(event);
        }
        self.watch_posts();
        self.client.order.batch_over();
        while let Some(qp) = self.fabric().next_notice() {
            self.engine.close_channel(qp, ChannelError::Closed, self.now);
            self.wake();
        }
        if self.engine.fabric().has_completions() {
            self.wake();
        }
        self.watch_time();
    }

    fn watch_posts(&mut self) {
        // A unit that is given fewer commands than it has, or was a moment ago, is not passed over.
        let numbers = self.spec.sessions.iter().flat_map(|spec| spec.luns.iter().copied());
        let limited = |number: &u32| {
            let state = self.engine.disk_state(LunKey(*number));
            state.is_some_and(|state| state.depth.is_some())
        };
        let throttled: Vec<u32> = numbers.filter(limited).collect();
        let before = std::mem::replace(&mut self.throttled, throttled);
        for (lun, cdb) in self.fabric().net.take_posts() {
            for number in before.iter().chain(&self.throttled) {
                self.client.order.turn(Lun::from_index(*number).0);
            }
            self.client.order.turn(lun);
            let (true, Some((lba, _))) = (matches!(cdb[0], 0x28 | 0x88), super::target::extent_of(&cdb)) else {
                continue;
            };
            let (order, fairness) = self.client.order.posted(lun, lba);
            if let Err(what) = order {
                self.broken(rule::ORDER, what);
            }
            if let Err(what) = fairness {
                self.broken(rule::FAIRNESS, what);
            }
        }
    }

    fn heard(&mut self, event: Event) {
        let copy = self.spec.profile.copy;
        match event {
            Event::Supply { id, handle, qp, extent } => {
                self.client.supply(self.engine.fabric(), id, extent.len);
                self.fabric().net.lend(qp, extent);
                self.after(copy, Errand::Supply(id, handle, qp, extent));
            }
            Event::Data { id, handle, qp, extent } => {
                self.client.read_ended(self.engine.fabric(), id);
                self.fabric().net.lend(qp, extent);
                self.after(copy, Errand::Take(id, handle, qp, extent));
            }
            Event::Done { id, result } => {
                if let Err(error) = result {
                    self.fabric().net.tally.count(request_failed(error));
                    self.check_reason(id, error);
                }
                let session = self.client.pending.get(&id).map_or(0, |pending| pending.session);
                let dead = self.sessions[session as usize].dead.clone();
                self.client.done(self.engine.fabric(), id, result, dead);
            }
            Event::TaskDone { id, result } => {
                self.client.task_done(self.engine.fabric(), id, result);
                self.reset_ended(id, result);
            }
            Event::HandOver(handover) => {
                self.broken(rule::PROTOCOL, format!("{handover:?}, and there is no other engine"));
            }
            Event::Reply { id, result } => self.client.replied(self.engine.fabric(), id, result),
            Event::ChannelFailed { qp, session, reason } => {
                let limit = self.now + SLACK;
                self.agenda.add(self.now + SLACK / 2, Errand::Destroy(qp));
                self.failing.insert(qp, limit);
                let kind = match reason {
                    ChannelError::Work(_) => "channel ends: work request failed",
                    ChannelError::Wire(_) => "channel ends: unreadable IU",
                    ChannelError::Protocol(_) => "channel ends: protocol error",
                    ChannelError::Timeout(_) => "channel ends: command neither answered nor ended",
                    ChannelError::TargetLogout(_) => "channel ends: target logged out",
                    ChannelError::Closed => "channel ends: closed by the control side",
                };
                self.fabric().net.tally.count(kind);
                self.failures.push((qp, reason, self.now));
                let state = &mut self.sessions[session.0 as usize];
                state.dead.push(qp);
                let place = state.qps.iter().position(|other| *other == qp);
                if let Some(place) = place {
                    state.qps.remove(place);
                } else {
                    self.broken(rule::CLOSED, format!("qp{} failed, which was not in use", qp.0));
                }
                self.relogin(session.0);
            }
            Event::ChannelClosed { qp, .. } => {
                if self.failing.remove(&qp).is_none() {
                    self.broken(rule::CLOSED, format!("qp{} closed without having failed", qp.0));
                }
                self.fabric().destroy(qp);
            }
        }
    }

    pub(super) fn relogin(&mut self, session: u32) {
        if let Some(span) = self.spec.relogin {
            self.after(span, Errand::Login(session));
        }
    }
}

const fn request_failed(error: BlockError) -> &'static str {
    match error {
        BlockError::Transport => "request fails: path lost",
        BlockError::Timeout => "request fails: timed out",
        BlockError::Offline => "request fails: disk gone",
        BlockError::Medium => "request fails: medium error",
        BlockError::Io => "request fails: I/O error",
        _ => "request fails: other",
    }
}
