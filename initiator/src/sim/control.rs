//! The control side of a daemon: it logs channels in, closes them, and tells the reactors which of them have any.
//!
//! A channel that is lost is logged in again on the reactor that had it: with MULTI while the session has another one,
//! whichever reactor has that. SINGLE ends what the target has of the session, so it waits until none is left on any
//! reactor and the last one is closed.

use super::check::rule;
use super::queue_pair::SimQueuePair;
use super::world::{Errand, SLACK, World};
use crate::fabric::QueuePairId;
use crate::session::{ChannelError, ChannelSetup, LoginParameters, SessionKey, reject_reason};
use crate::wire::MultiChannel;

impl World {
    /// The first logins of a session: all it wants, at once.
    pub(super) fn begin(&mut self, session: u32) {
        let place = session as usize;
        let (wanted, reactors) = (self.sessions[place].spec.channels.max(1), self.reactors.count());
        self.sessions[place].homes = (0..wanted).map(|channel| channel % reactors).collect();
        self.log_in_all(session);
        let had: Vec<usize> = self.qps(place).iter().map(|qp| self.owner(*qp)).collect();
        // A lone reactor goes on asking for what it was refused.
        if reactors > 1 && !had.is_empty() {
            self.sessions[place].homes = had;
        }
        self.announce(session, true);
    }

    /// Logs in what a session lacks of its channels: all at once on a lone reactor, else one after the other.
    pub(super) fn login(&mut self, session: u32) {
        if self.sessions.get(session as usize).is_none() || self.is_leaving(session) {
            return;
        }
        if self.reactors.count() == 1 {
            return self.log_in_all(session);
        }
        let lacking = self.lacking(session);
        let Some(reactor) = self.rng.choice(&lacking).copied() else {
            return;
        };
        let last = self.sessions[session as usize].qps.is_empty();
        if last && self.failing.values().any(|(of, _)| *of == session) {
            return self.relogin(session);
        }
        if self.add_channel(session, reactor) {
            if lacking.len() > 1 {
                self.relogin(session);
            }
            self.announce(session, false);
        }
    }

    fn log_in_all(&mut self, session: u32) {
        loop {
            let Some(reactor) = self.lacking(session).first().copied() else {
                return;
            };
            if !self.add_channel(session, reactor) {
                return;
            }
        }
    }

    /// Logs a channel in on the reactor of one that is stuck, which is then done without.
    pub(super) fn succeed(&mut self, session: u32, qp: QueuePairId) {
        let state = &self.sessions[session as usize];
        if !state.serving.contains_key(&qp) {
            return;
        }
        let (reactor, now) = (self.owner(qp), self.now);
        if !self.add_channel(session, reactor) {
            return;
        }
        self.enter();
        self.sessions[session as usize].serving.remove(&qp);
        self.retired.insert(qp, now + self.spec.limits.retirement + SLACK);
        self.reactors.at(reactor).retire(qp, now);
        self.wake(reactor);
        self.after_call();
    }

    /// The reactors that lack a channel of a session: as often as it lacks one.
    fn lacking(&self, session: u32) -> Vec<usize> {
        let state = &self.sessions[session as usize];
        let mut lacking = state.homes.clone();
        for qp in &state.qps {
            let reactor = self.owner(*qp);
            if let Some(place) = lacking.iter().position(|home| *home == reactor) {
                lacking.swap_remove(place);
            }
        }
        lacking
    }

    /// Logs one more channel in, on a reactor; false when the target refuses.
    fn add_channel(&mut self, session: u32, reactor: usize) -> bool {
        let state = &self.sessions[session as usize];
        // What is left of earlier ones is ended by the first.
        let multichannel = match state.qps.is_empty() {
            true => MultiChannel::Single,
            false => MultiChannel::Multi,
        };
        let parameters = LoginParameters {
            initiator_port: state.spec.port,
            target_port: self.spec.target.port,
            descriptors: self.spec.descriptors,
            max_it_iu_len: Some(self.spec.target.max_request_len),
            immediate_data: self.spec.immediate_data,
        };
        self.enter();
        let login = parameters.request(multichannel).encode();
        let (queue_size, arena, exposure) = (self.spec.queue_size, self.spec.arena, self.spec.exposure);
        // The queue pair is that of whom the fabric is with.
        let fabric = self.reactors.at(reactor).fabric_mut().fabric_mut();
        let connect = match fabric.connect(&login, queue_size, self.spec.send_slot, arena, exposure) {
            Ok(connect) => connect,
            Err(refusal) => {
                // Whatever came as a reason is read as it was meant, or is said to be unreadable.
                let read = reject_reason(&refusal.private_data).ok();
                if read != refusal.meant {
                    self.broken(rule::PROTOCOL, format!("{refusal:?} is read as {read:?}"));
                }
                if multichannel == MultiChannel::Single {
                    self.relogin(session);
                }
                return false;
            }
        };
        match parameters.accept(&connect.private_data) {
            Ok(granted) => {
                let setup = ChannelSetup {
                    qp: connect.qp,
                    session: SessionKey(session),
                    granted,
                    plan: connect.plan,
                    read_arena: (SimQueuePair::READ_ARENA, arena),
                    write_arena: (SimQueuePair::WRITE_ARENA, arena),
                    exposure,
                    max_transfer: self.spec.max_transfer,
                    descriptors: self.spec.descriptors,
                    fence: self.spec.fence,
                };
                let state = &mut self.sessions[session as usize];
                state.qps.push(connect.qp);
                state.serving.insert(connect.qp, self.now);
                self.reactors.at(reactor).add_channel(&setup);
            }
            Err(error) => self.broken(rule::PROTOCOL, error.to_string()),
        }
        self.wake(reactor);
        self.after_call();
        true
    }

    /// A channel of a session failed.
    pub(super) fn lost(&mut self, session: u32, qp: QueuePairId) {
        let state = &mut self.sessions[session as usize];
        state.dead.push(qp);
        state.serving.remove(&qp);
        let place = state.qps.iter().position(|other| *other == qp);
        if let Some(place) = place {
            state.qps.remove(place);
        } else {
            self.broken(rule::CLOSED, format!("qp{} failed, which was not in use", qp.0));
        }
        // While others are left they find out by themselves, too: from what this one sends back.
        let told = self.sessions[session as usize].qps.is_empty() || self.reactors.count() > 1 && self.rng.bool();
        if told {
            self.announce(session, false);
        }
        self.relogin(session);
    }

    pub(super) fn relogin(&mut self, session: u32) {
        if let Some(span) = self.spec.relogin
            && !self.is_leaving(session)
        {
            self.after(span, Errand::Login(session));
        }
    }

    /// The control side closes a channel of a session.
    pub fn close(&mut self, session: usize) {
        let qps = &self.sessions[session].qps;
        if let Some(qp) = self.rng.choice(qps).copied() {
            self.enter();
            self.close_channel(qp);
            self.after_call();
        }
    }

    pub(super) fn close_channel(&mut self, qp: QueuePairId) {
        let (reactor, now) = (self.owner(qp), self.now);
        self.reactors.at(reactor).close_channel(qp, ChannelError::Closed, now);
        self.wake(reactor);
    }

    /// The control side logs a channel of a session out.
    pub fn log_out(&mut self, session: usize) {
        if let Some(qp) = self.qp(session) {
            self.enter();
            self.log_out_channel(session, qp);
            self.after_call();
        }
    }

    pub(super) fn log_out_channel(&mut self, session: usize, qp: QueuePairId) {
        let (reactor, now) = (self.owner(qp), self.now);
        self.sessions[session].serving.remove(&qp);
        self.reactors.at(reactor).log_out(qp, now);
        self.wake(reactor);
    }

    /// The reactor of a queue pair.
    pub(super) fn owner(&self, qp: QueuePairId) -> usize {
        self.reactors.fabric().net.owner(qp)
    }

    /// A reactor that requests of a session are made on.
    pub(super) fn home(&mut self, session: u32) -> usize {
        match self.sessions[session as usize].homes.as_slice() {
            [] => 0,
            [home] => *home,
            homes => homes[self.rng.usize(..homes.len())],
        }
    }

    /// A reactor that requests of the control side go to: one with a channel, if there is any.
    pub(super) fn spokesman(&mut self, session: usize) -> usize {
        match self.sessions[session].qps.as_slice() {
            [] => self.sessions[session].homes.first().copied().unwrap_or(0),
            qps if self.reactors.count() > 1 => {
                let qp = qps[self.rng.usize(..qps.len())];
                self.owner(qp)
            }
            _ => 0,
        }
    }
}
