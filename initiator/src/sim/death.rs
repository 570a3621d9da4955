//! The daemon dies, and another takes its place.
//!
//! With the process go its reactors, its queue pairs and its memory; what it had sent is at the target, or on its way there, and is
//! carried out. The block layer keeps what had not ended, and gives it to the next daemon. That one logs in with SINGLE,
//! has every unit reset, and only then serves: a write that is given to it again would else be overtaken by itself. It resets after
//! the pause that an engine makes, too.

use std::collections::BTreeMap;

use super::fabric::SimFabric;
use super::net::Happening;
use super::odds::Span;
use super::world::{Errand, World};
use crate::scsi::{BlockError, Lun};
use crate::session::{RequestId, UnitFunction};
use crate::time::Instant;
use crate::wire::TaskResponse;

/// Between two attempts of a new daemon to log in or to fence.
const AGAIN: Span = Span::micros(50_000, 1_000_000);

/// How far a new daemon is with a session.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Units that have not been reset.
    left: Vec<u32>,
    /// What the one before had sent is not taken up after this.
    taken_up: Instant,
    /// Resets under way.
    asked: BTreeMap<RequestId, u32>,
}

impl SimFabric {
    /// The process is gone, and everything it had of the network with it.
    fn orphan(&mut self) {
        let net = &mut self.net;
        let notice = net.profile.notice;
        for id in std::mem::take(&mut net.queue_pairs).into_keys() {
            net.orphans.insert(id);
            net.within(notice, Happening::Learn(id));
        }
        net.finished.clear();
        net.notices.clear();
        net.posts.clear();
        net.refusals.clear();
        net.tally.count("daemon dies");
        net.trace.text(net.now, None, "the daemon dies");
    }
}

impl World {
    /// Kills the daemon. With `fence` the next one has all units reset before it serves, as it must.
    pub fn kill_daemon(&mut self, fence: bool) {
        self.enter();
        self.fabric().orphan();
        self.reactors.anew();
        self.agenda.retain(|errand| {
            !matches!(
                errand,
                Errand::Supply(..) | Errand::Take(..) | Errand::Destroy(_) | Errand::Mail(..)
            )
        });
        self.failing.clear();
        self.retired.clear();
        self.throttled.clear();
        self.client.forget_control();
        let taken_up = self.now + self.spec.limits.fence_pause;
        for place in 0..self.sessions.len() {
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            if self.is_leaving(number) {
                self.client.forget_session(number);
                continue;
            }
            let session = &mut self.sessions[place];
            session.dead.append(&mut session.qps);
            session.serving.clear();
            session.recovery = Some(Recovery {
                left: if fence { session.spec.luns.clone() } else { Vec::new() },
                taken_up,
                asked: BTreeMap::new(),
            });
            self.after(AGAIN, Errand::Recover(number));
        }
    }

    /// Whether a session waits for a new daemon.
    pub(super) fn is_recovering(&self, session: u32) -> bool {
        let session = self.sessions.get(session as usize);
        session.is_some_and(|session| session.recovery.is_some())
    }

    /// The new daemon goes on with a session.
    pub(super) fn recover(&mut self, number: u32) {
        let place = number as usize;
        if !self.is_recovering(number) {
            return;
        }
        self.login(number);
        if self.sessions[place].qps.is_empty() {
            return self.after(AGAIN, Errand::Recover(number));
        }
        let Some(recovery) = &self.sessions[place].recovery else {
            return;
        };
        if recovery.left.is_empty() {
            return self.resume(number);
        }
        if self.now < recovery.taken_up {
            return self.agenda.add(recovery.taken_up, Errand::Recover(number));
        }
        let asked: Vec<u32> = recovery.asked.values().copied().collect();
        let due: Vec<u32> = recovery
            .left
            .iter()
            .copied()
            .filter(|lun| !asked.contains(lun))
            .collect();
        for lun in due {
            let id = self.manage(place, lun, UnitFunction::Reset);
            if let Some(recovery) = &mut self.sessions[place].recovery {
                recovery.asked.insert(id, lun);
            }
        }
    }

    /// A task management function ended, maybe one of a recovery.
    pub(super) fn reset_ended(&mut self, id: RequestId, result: Result<TaskResponse, BlockError>) {
        for place in 0..self.sessions.len() {
            let Some(recovery) = &mut self.sessions[place].recovery else {
                continue;
            };
            let Some(lun) = recovery.asked.remove(&id) else {
                continue;
            };
            if result == Ok(TaskResponse::Complete) {
                recovery.left.retain(|other| *other != lun);
            }
            if result == Err(BlockError::Timeout) {
                // As on the ladder of an overdue command: the next rung is another login.
                for qp in self.sessions[place].qps.clone() {
                    self.close_channel(qp);
                }
            }
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            self.after(AGAIN, Errand::Recover(number));
        }
    }

    /// Every unit is fenced: the session serves again, first of all what had not ended.
    fn resume(&mut self, number: u32) {
        let luns = self.sessions[number as usize].spec.luns.clone();
        self.sessions[number as usize].recovery = None;
        for lun in luns {
            self.remove(lun);
            self.plug(lun);
        }
        // The reactors know of each other before the first request comes.
        self.announce(number, true);
        self.moved(number);
        for request in self.client.again(number) {
            let home = self.home(number);
            let limit = self.block_limit(number, Lun::from_index(request.lun.0));
            self.client.goes_on(home, request.id, limit, self.now);
            let now = self.now;
            self.reactors.at(home).submit(request, now);
            self.wake(home);
            // Whether it is its turn is told by those before it alone.
            self.after_call();
        }
    }
}
