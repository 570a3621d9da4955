//! A session is detached, as a daemon does it: its disks are flushed and removed, its channels closed, and the engines forget it.
//!
//! While something comes back flushes may take their time. After some silence the units are asked; when that brings nothing
//! either, the session is given up, and what waits for it fails. So a dead target does not hold a detach up.

use std::time::Duration;

use super::check::rule;
use super::odds::Span;
use super::world::{Errand, SLACK, World};
use crate::fabric::QueuePairId;
use crate::scsi::Cdb;
use crate::session::{Engine, RequestId, SessionKey};
use crate::time::Instant;

/// The units are asked after so much silence.
const SILENCE: Duration = Duration::from_secs(2);
/// They have so long to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Since the last sign of life: both, and a logout that does not get through.
const DEAD: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Span = Span::micros(1000, 50_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Flushing,
    Closing,
    /// The engines have forgotten it, and may have something to say still.
    Forgotten,
    Over,
}

/// How far a detach is.
#[derive(Debug)]
pub(super) struct Detach {
    stage: Stage,
    flushes: Vec<RequestId>,
    /// When the target was heard of last; at first, when it began.
    heard: Instant,
    asked: Option<Instant>,
}

impl World {
    /// Detaches a session, whatever is under way.
    pub fn detach(&mut self, session: u32) {
        let place = session as usize;
        if self.is_recovering(session) || self.is_leaving(session) {
            return;
        }
        self.enter();
        let now = self.now;
        self.fabric()
            .net
            .trace
            .text(now, None, format!("session {session} is detached"));
        self.sessions[place].detach = Some(Detach {
            stage: Stage::Flushing,
            flushes: Vec::new(),
            heard: now,
            asked: None,
        });
        let luns = self.sessions[place].spec.luns.clone();
        let flushes = luns.into_iter().map(|lun| self.flush(lun)).collect();
        if let Some(detach) = &mut self.sessions[place].detach {
            detach.flushes = flushes;
        }
        self.after(LOOK, Errand::Detach(session));
    }

    /// Whether a session is being detached, or was.
    pub(super) fn is_leaving(&self, session: u32) -> bool {
        let session = self.sessions.get(session as usize);
        session.is_some_and(|session| session.detach.is_some())
    }

    /// Whether a detach is under way.
    pub(super) fn is_detaching(&self) -> bool {
        let mut detaches = self.sessions.iter().filter_map(|session| session.detach.as_ref());
        detaches.any(|detach| detach.stage != Stage::Over)
    }

    /// Whether nothing new may be done for a session: its engines are about to forget it, or have.
    pub(super) fn is_gone(&self, session: u32) -> bool {
        let detach = self
            .sessions
            .get(session as usize)
            .and_then(|session| session.detach.as_ref());
        detach.is_some_and(|detach| detach.stage != Stage::Flushing)
    }

    /// The daemon looks how far a detach is.
    pub(super) fn detach_step(&mut self, session: u32) {
        let place = session as usize;
        let heard = self.last_heard(place);
        let now = self.now;
        let Some(detach) = &mut self.sessions[place].detach else {
            return;
        };
        detach.heard = detach.heard.max(heard);
        let flushed = |id: &RequestId| self.client.outcomes.contains_key(id);
        match detach.stage {
            Stage::Flushing if detach.flushes.iter().all(flushed) => self.shut(session, false),
            Stage::Flushing => match detach.asked {
                Some(at) if detach.heard > at => detach.asked = None,
                Some(at) if now >= at + ANSWER => self.shut(session, true),
                Some(_) => {}
                None if now >= detach.heard + SILENCE => {
                    detach.asked = Some(now);
                    for lun in self.sessions[place].spec.luns.clone() {
                        self.control(place, lun, Cdb::test_unit_ready(), 0, ANSWER);
                    }
                }
                None => {}
            },
            Stage::Closing => {
                let closed = self.sessions[place].qps.is_empty();
                if closed && self.failing.values().all(|(of, _)| *of != session) {
                    self.forget(session);
                }
            }
            Stage::Forgotten => {
                detach.stage = Stage::Over;
                return self.check_forgotten(session);
            }
            Stage::Over => return,
        }
        self.after(LOOK, Errand::Detach(session));
    }

    /// When anything came from the target of a session.
    fn last_heard(&self, place: usize) -> Instant {
        let pairs = &self.reactors.fabric().net.queue_pairs;
        let own = self.sessions[place].qps.iter().filter_map(|qp| pairs.get(qp));
        own.map(|qp| qp.heard).max().unwrap_or_default()
    }

    /// Its disks are removed and its channels closed; nobody waits for a logout to a target that is given up.
    fn shut(&mut self, session: u32, dead: bool) {
        let place = session as usize;
        if let Some(detach) = &mut self.sessions[place].detach {
            detach.stage = Stage::Closing;
        }
        self.fabric().net.tally.count(match dead {
            true => "session given up at detach",
            false => "session detached",
        });
        for lun in self.sessions[place].spec.luns.clone() {
            self.remove(lun);
        }
        let qps: Vec<QueuePairId> = self.sessions[place].qps.clone();
        for qp in qps {
            if dead || self.rng.bool() {
                self.close_channel(qp);
            } else {
                self.log_out_channel(place, qp);
            }
        }
    }

    fn forget(&mut self, session: u32) {
        for reactor in 0..self.reactors.count() {
            self.reactors.at(reactor).remove_session(SessionKey(session));
            self.wake(reactor);
        }
        // What was on its way between reactors comes back at once.
        let limit = self.now + SLACK + self.spec.mail.end() * 2;
        let own = self.client.pending.values_mut();
        own.filter(|pending| pending.session == session)
            .for_each(|pending| pending.limit = pending.limit.min(limit));
        if let Some(detach) = &mut self.sessions[session as usize].detach {
            detach.stage = Stage::Forgotten;
        }
    }

    /// Nothing of a session is left in the engines, and nothing at all when there is no other.
    fn check_forgotten(&mut self, session: u32) {
        let over = |detach: &Detach| detach.stage == Stage::Over;
        let mut sessions = self.sessions.iter();
        let last = sessions.all(|session| session.detach.as_ref().is_some_and(over));
        let held: Vec<_> = self.reactors.engines().map(Engine::holdings).collect();
        for (reactor, held) in held.into_iter().enumerate() {
            if held.orphans > 0 || last && !held.is_empty() {
                let what = format!("session {session} was detached, and reactor {reactor} has {held:?}");
                self.broken(rule::LEAK, what);
            }
        }
    }

    /// A detach that nothing is heard of is over soon.
    pub(super) fn watch_detaches(&self) {
        for (number, session) in self.sessions.iter().enumerate() {
            let Some(detach) = &session.detach else { continue };
            let heard = detach.heard.max(self.last_heard(number));
            if detach.stage != Stage::Over && self.now > heard + DEAD + SLACK {
                self.broken(rule::DEADLINE, format!("the detach of session {number} does not end"));
            }
        }
    }
}
