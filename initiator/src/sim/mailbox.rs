//! What reactors send each other: requests that are handed over, those that come back, and how they ended.
//!
//! A request belongs to the reactor it was made on, its origin. Without a channel there it goes to a sibling, a reactor
//! that has one as far as the origin was told. What a sibling cannot serve goes back, and the origin strikes the
//! sibling off its list, unless a newer list has come meanwhile: so nothing goes to and fro for ever. Messages between
//! two reactors stay in their order, and no others do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::rule;
use super::world::{Errand, World};
use crate::scsi::Lun;
use crate::session::{BlockResult, Handover, LunKey, RequestId, SessionKey};
use crate::time::Instant;

/// A message to a reactor.
#[derive(Debug)]
pub(super) enum Mail {
    /// A request, by which of the origin's lists.
    HandOver(Handover, u32),
    /// It could not be served.
    Bounce(Handover, u32),
    /// It ended.
    Ended(RequestId, BlockResult),
    /// It was a read, and this was read.
    Read(RequestId, Vec<u8>),
    /// From the control side: the siblings for a session.
    Siblings(u32, Vec<usize>),
}

/// When the last message on each way arrives.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<(Option<usize>, usize), Instant>);

impl World {
    /// Sends a message to a reactor, from another or from the control side.
    fn post(&mut self, from: Option<usize>, to: usize, mail: Mail) {
        let span = from.map_or(self.spec.tell, |_| self.spec.mail);
        let last = self.ways.0.entry((from, to)).or_default();
        let at = (self.now + span.draw(&mut self.rng)).max(*last + Duration::from_nanos(1));
        *last = at;
        self.agenda.add(at, Errand::Mail(from, to, mail));
    }

    /// A message has come.
    pub(super) fn receive(&mut self, from: Option<usize>, to: usize, mail: Mail) {
        let now = self.now;
        match mail {
            Mail::HandOver(handover, list) => {
                if let Some(from) = from {
                    let foreign = &mut self.reactors.of(to).foreign;
                    foreign.insert(handover.request.id, (from, list));
                }
                let limit = self.limit_of(&handover);
                self.client.taken_over(to, &handover, now, limit);
                self.reactors.at(to).take_over(handover, now);
            }
            Mail::Bounce(handover, list) => {
                let session = self.session_of(handover.request.lun.0).unwrap_or(0);
                if let Some(from) = from {
                    self.strike(to, session, from, list);
                }
                let limit = self.limit_of(&handover);
                self.client.taken_over(to, &handover, now, limit);
                self.reactors.at(to).take_back(handover, now);
            }
            Mail::Ended(id, result) => return self.done(id, result),
            Mail::Read(id, data) => return self.client.taken(self.reactors.fabric(), id, data),
            Mail::Siblings(session, reactors) => return self.told(to, session, reactors),
        }
        self.wake(to);
    }

    fn limit_of(&self, handover: &Handover) -> Instant {
        let LunKey(number) = handover.request.lun;
        let session = self.session_of(number).unwrap_or(0);
        self.block_limit(session, Lun::from_index(number))
    }

    /// A reactor sent something back: it has no channel of the session.
    fn strike(&mut self, at: usize, session: u32, sibling: usize, list: u32) {
        let siblings = self.reactors.of(at).siblings.entry(session).or_default();
        if siblings.lists != list {
            // It may have got one since.
            return self.count("bounce of an older list of siblings");
        }
        siblings.reactors.retain(|other| *other != sibling);
        if siblings.reactors.is_empty() {
            self.reactors.at(at).set_elsewhere(SessionKey(session), false);
        }
    }

    /// A reactor gets a new list of its siblings.
    fn told(&mut self, reactor: usize, session: u32, reactors: Vec<usize>) {
        if self.is_gone(session) {
            // The control side tells of nothing behind the end of a session.
            return;
        }
        let elsewhere = !reactors.is_empty();
        let text = format!("reactor {reactor} is told of its siblings for session {session}: {reactors:?}");
        let now = self.now;
        self.fabric().net.trace.text(now, None, text);
        let siblings = self.reactors.of(reactor).siblings.entry(session).or_default();
        siblings.reactors = reactors;
        siblings.lists += 1;
        self.reactors.at(reactor).set_elsewhere(SessionKey(session), elsewhere);
    }

    /// Which reactors a reactor has for siblings now; not all have the same one first.
    fn siblings(&self, reactor: usize, session: u32) -> Vec<usize> {
        let owner = |qp| self.reactors.fabric().net.owner(qp);
        let qps = self.sessions[session as usize].qps.iter();
        let mut reactors: Vec<usize> = qps.map(|qp| owner(*qp)).filter(|other| *other != reactor).collect();
        reactors.sort_unstable();
        reactors.dedup();
        let turn = reactor % reactors.len().max(1);
        reactors.rotate_left(turn);
        reactors
    }

    /// The control side tells all reactors which of them have a channel of a session, when it gets to it or at once.
    pub(super) fn announce(&mut self, session: u32, at_once: bool) {
        if self.reactors.count() == 1 {
            return;
        }
        for reactor in 0..self.reactors.count() {
            let siblings = self.siblings(reactor, session);
            if at_once {
                self.told(reactor, session, siblings);
            } else {
                self.post(None, reactor, Mail::Siblings(session, siblings));
            }
        }
    }

    /// An engine has no use for a request: to a sibling with it, or back to where it came from.
    pub(super) fn handed_over(&mut self, reactor: usize, handover: Handover) {
        let id = handover.request.id;
        let LunKey(number) = handover.request.lun;
        let (to, mail, what) = match self.reactors.of(reactor).foreign.remove(&id) {
            Some((origin, list)) => (origin, Mail::Bounce(handover, list), "request sent back"),
            None => {
                let session = self.session_of(number).unwrap_or(0);
                let siblings = self.reactors.of(reactor).siblings.entry(session).or_default();
                let (sibling, list) = (siblings.reactors.first().copied(), siblings.lists);
                let Some(sibling) = sibling else {
                    return self.broken(rule::PROTOCOL, format!("{handover:?} with nobody to take it over"));
                };
                if !self.client.may_part(id, list, self.reactors.count()) {
                    self.broken(rule::HOPS, format!("{id:?} goes to and fro"));
                }
                let what = match handover.doubtful {
                    Some(_) => "write of unknown fate handed over",
                    None => "request handed over",
                };
                (sibling, Mail::HandOver(handover, list), what)
            }
        };
        self.count(what);
        let text = format!("{what}: {id:?} from reactor {reactor} to {to}");
        let now = self.now;
        self.fabric().net.trace.text(now, None, text);
        self.client.left(self.reactors.fabric(), reactor, id);
        self.moved(self.session_of(number).unwrap_or(0));
        self.post(Some(reactor), to, mail);
    }

    /// A reactor is done with a request: the client hears of it from the reactor it was made on.
    pub(super) fn ended_at(&mut self, reactor: usize, id: RequestId, result: BlockResult) {
        self.client.left(self.reactors.fabric(), reactor, id);
        match self.reactors.of(reactor).foreign.remove(&id) {
            Some((origin, _)) => {
                self.count("request ends elsewhere");
                self.post(Some(reactor), origin, Mail::Ended(id, result));
            }
            None => self.done(id, result),
        }
    }

    /// A reactor has copied what was read.
    pub(super) fn read_at(&mut self, reactor: usize, id: RequestId, data: Vec<u8>) {
        match self.reactors.of(reactor).foreign.remove(&id) {
            Some((origin, _)) => {
                self.count("request ends elsewhere");
                self.post(Some(reactor), origin, Mail::Read(id, data));
            }
            None => self.client.taken(self.reactors.fabric(), id, data),
        }
    }

    fn count(&mut self, what: &'static str) {
        self.fabric().net.tally.count(what);
    }
}
