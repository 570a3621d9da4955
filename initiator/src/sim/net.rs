//! The network between the queue pairs and the target, and what it may do to messages.
//!
//! It keeps the promises of a reliable connection: messages of one direction stay in order, sends complete in
//! order, nothing is delivered twice. It keeps no other: a response may overtake the completion of the SEND it
//! answers, and accesses that were under way when a queue pair broke may land until its receives are flushed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;

use super::agenda::Agenda;
use super::check::{Checks, rule};
use super::odds::{Odds, Profile, Span};
use super::queue_pair::{PostedSend, ReceiveSlot, SimQueuePair, Work};
use super::tally::Tally;
use super::target::Step;
use super::trace::{self, Note, Trace};
use super::window::Trespass;
use crate::fabric::{Completion, Extent, QueuePairId, WorkError, WorkKind};
use crate::session::Fence;
use crate::time::Instant;

/// What the network has in store.
#[derive(Debug)]
pub(super) enum Happening {
    /// The next SEND leaves.
    Transmit(QueuePairId),
    /// An IU is at the target.
    Arrive(QueuePairId, Vec<u8>),
    /// The oldest SEND is acknowledged.
    Acknowledge(QueuePairId),
    /// The queue pair goes into error.
    Break(QueuePairId, WorkError),
    /// An IU is at the initiator.
    Deliver(QueuePairId, Vec<u8>),
    /// The target tries again what met no posted receive.
    Retry(QueuePairId),
    /// Sends of a broken queue pair end.
    FlushSends(QueuePairId),
    /// Receives of a broken queue pair end.
    FlushReceives(QueuePairId),
    /// The target learns that the connection is gone.
    Learn(QueuePairId),
    /// The initiator is told of a disconnection.
    Notice(QueuePairId),
    /// The target tries to get at memory no command gives it.
    Trespass(QueuePairId, Trespass),
    /// The target goes on with something.
    Target(Step),
}

/// What the target has to hear of.
#[derive(Debug)]
pub(super) enum Upcall {
    Iu(QueuePairId, Vec<u8>),
    Lost(QueuePairId),
    Step(Step),
}

/// A completion on its way to the engine.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) completion: Completion,
    /// A flushed receive that was posted before the error: behind the last access.
    pub(super) guard: bool,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) profile: Profile,
    pub(super) odds: Odds,
    pub(super) fence: Fence,
    pub(super) agenda: Agenda<Happening>,
    pub(super) queue_pairs: BTreeMap<QueuePairId, SimQueuePair>,
    /// The reactors of all queue pairs there ever were.
    pub(super) owners: BTreeMap<QueuePairId, usize>,
    /// Queue pairs that were destroyed, or whose process is gone: what they had on the wire still arrives.
    pub(super) orphans: BTreeSet<QueuePairId>,
    pub(super) finished: VecDeque<Finished>,
    /// When a completion was polled last.
    pub(super) heard: Instant,
    /// Disconnections the initiator's connection manager reports.
    pub(super) notices: VecDeque<QueuePairId>,
    /// Commands since the last look whose answer was made up: logical unit and CDB.
    pub(super) forged: Vec<(u64, [u8; 16])>,
    /// Commands posted since the last look: queue pair, logical unit and CDB.
    pub(super) posts: Vec<(QueuePairId, u64, [u8; 16])>,
    /// Commands the engine heard since the last look that it is to send again: the same, and whether at once.
    pub(super) refusals: Vec<(QueuePairId, u64, [u8; 16], bool)>,
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
}

impl Net {
    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.agenda.add(self.now + delay, happening);
    }

    pub(super) fn within(&mut self, span: Span, happening: Happening) {
        let delay = span.draw(&mut self.rng);
        self.after(delay, happening);
    }

    pub(super) fn broken(&self, rule: &'static str, what: impl Into<String>) {
        self.checks.broken(self.now, rule, what);
    }

    /// Lets one thing happen.
    pub(super) fn handle(&mut self, happening: Happening) -> Option<Upcall> {
        match happening {
            Happening::Transmit(qp) => self.transmit(qp),
            Happening::Arrive(qp, iu) => return self.arrive(qp, iu),
            Happening::Acknowledge(qp) => self.acknowledge(qp),
            Happening::Break(qp, error) => self.fail(qp, Some(error)),
            Happening::Deliver(qp, iu) => self.deliver(qp, iu),
            Happening::Retry(qp) => self.drain_inbound(qp),
            Happening::FlushSends(qp) => self.flush_sends(qp),
            Happening::FlushReceives(qp) => self.flush_receives(qp),
            Happening::Learn(qp) => return Some(Upcall::Lost(qp)),
            Happening::Notice(qp) => self.notices.push_back(qp),
            Happening::Trespass(qp, trespass) => self.trespass(qp, trespass),
            Happening::Target(step) => return Some(Upcall::Step(step)),
        }
        None
    }

    fn transmit(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if qp.is_broken() {
            return;
        }
        let next = qp.sends.iter_mut().find(|send| send.rung && !send.transmitted);
        let Some(send) = next else { return };
        send.transmitted = true;
        let send = *send;
        let (len, payload) = match send.work {
            Work::Send { len, payload } => (len, payload),
            Work::Open(opening) => return self.open_window(id, send.slot, opening),
            Work::Close => {
                qp.windows.set(send.slot, None);
                return self.retire(id);
            }
        };
        let mut iu = qp.send_slots[usize::from(send.slot)][..len as usize].to_vec();
        if let Some(extent) = payload {
            iu.extend_from_slice(qp.bytes(extent).unwrap_or_default());
        }
        let late = Odds::hit(&mut self.rng, self.odds.late);
        let way = if late { self.profile.late } else { self.profile.hop };
        let at = (self.now + way.draw(&mut self.rng)).max(qp.to_target + Duration::from_nanos(1));
        qp.to_target = at;
        self.agenda.add(at, Happening::Arrive(id, iu));
    }

    pub(super) fn arrive(&mut self, id: QueuePairId, iu: Vec<u8>) -> Option<Upcall> {
        if self.orphans.contains(&id) {
            self.tally.count("IU of a destroyed queue pair arrives");
            return Some(Upcall::Iu(id, iu));
        }
        self.strike(id);
        let qp = self.queue_pairs.get_mut(&id)?;
        if qp.cut {
            let at = self.profile.transport_retry;
            self.within(at, Happening::Break(id, WorkError::RetryExceeded));
            return None;
        }
        if qp.unacknowledged {
            return Some(Upcall::Iu(id, iu));
        }
        let ack = self.profile.ack.draw(&mut self.rng);
        let at = (self.now + ack).max(qp.acknowledged + Duration::from_nanos(1));
        qp.acknowledged = at;
        self.agenda.add(at, Happening::Acknowledge(id));
        qp.outbound = qp.outbound.saturating_sub(1);
        Some(Upcall::Iu(id, iu))
    }

    fn acknowledge(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if qp.is_broken() {
            return;
        }
        if qp.cut {
            let at = self.profile.transport_retry;
            self.within(at, Happening::Break(id, WorkError::RetryExceeded));
            return;
        }
        if let Some(send) = qp.sends.pop_front() {
            self.finish(id, WorkKind::Send, send.slot, Ok(0), false);
        }
        self.retire(id);
    }

    /// What is done without the target completes behind the SENDs in front of it.
    pub(super) fn retire(&mut self, id: QueuePairId) {
        while let Some(qp) = self.queue_pairs.get_mut(&id) {
            let done = |send: &&PostedSend| send.transmitted && !matches!(send.work, Work::Send { .. });
            let Some(send) = qp.sends.front().filter(done).copied() else {
                return;
            };
            qp.sends.pop_front();
            if send.work.kind() == WorkKind::Invalidate {
                self.finish(id, WorkKind::Invalidate, send.slot, Ok(0), false);
            }
        }
    }

    pub(super) fn finish(
        &mut self,
        qp: QueuePairId,
        kind: WorkKind,
        slot: u16,
        result: Result<u32, WorkError>,
        guard: bool,
    ) {
        let completion = Completion { qp, kind, slot, result };
        self.finished.push_back(Finished { completion, guard });
    }

    /// Puts a queue pair into error; `cause` is what its oldest send fails with, if it did not come from us.
    pub(super) fn fail(&mut self, id: QueuePairId, cause: Option<WorkError>) {
        let drain = self.profile.drain;
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if let Some((_, barrier)) = qp.error {
            // Receives posted by now count as posted before the error when we ask for it again.
            if cause.is_none() {
                qp.receives.iter_mut().for_each(|receive| receive.guard = true);
                let at = barrier.max(self.now) + drain.draw(&mut self.rng);
                self.agenda.add(at, Happening::FlushReceives(id));
            }
            return;
        }
        let barrier = self.now + drain.draw(&mut self.rng);
        qp.error = Some((self.now, barrier));
        qp.receives.iter_mut().for_each(|receive| receive.guard = true);
        let failed = match cause {
            Some(error) if qp.sends.front().is_some_and(|send| send.rung) => {
                qp.sends.pop_front().map(|send| (send, error))
            }
            _ => None,
        };
        self.trace.text(self.now, Some(id), "the queue pair is in error");
        if let Some((send, error)) = failed {
            self.finish(id, send.work.kind(), send.slot, Err(error), false);
        }
        self.agenda.add(barrier, Happening::FlushReceives(id));
        self.within(drain, Happening::FlushSends(id));
        let notice = self.profile.notice;
        self.within(notice, Happening::Learn(id));
    }

    fn flush_sends(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        let count = qp.sends.iter().filter(|send| send.rung).count();
        let flushed: Vec<PostedSend> = qp.sends.drain(..count).collect();
        for send in flushed {
            self.finish(id, send.work.kind(), send.slot, Err(WorkError::Flushed), false);
        }
    }

    fn flush_receives(&mut self, id: QueuePairId) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        let Some((_, barrier)) = qp.error else { return };
        let mut flushed = Vec::new();
        while let Some(receive) = qp.receives.front().copied() {
            if receive.guard && barrier > self.now {
                break;
            }
            qp.receives.pop_front();
            flushed.push(receive);
        }
        for receive in flushed {
            let result = Err(WorkError::Flushed);
            self.finish(id, WorkKind::Receive, receive.slot, result, receive.guard);
        }
    }

    /// A SEND of the target.
    pub(super) fn send_to_initiator(&mut self, id: QueuePairId, iu: Vec<u8>) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        let hop = self.profile.hop.draw(&mut self.rng);
        qp.untold += 1;
        let at = (self.now + hop).max(qp.to_initiator + Duration::from_nanos(1));
        qp.to_initiator = at;
        self.agenda.add(at, Happening::Deliver(id, iu));
    }

    pub(super) fn deliver(&mut self, id: QueuePairId, iu: Vec<u8>) {
        let Some(qp) = self.queue_pairs.get_mut(&id) else {
            return;
        };
        if qp.is_broken() || qp.cut {
            return;
        }
        qp.inbound.push_back(iu);
        self.drain_inbound(id);
    }

    pub(super) fn drain_inbound(&mut self, id: QueuePairId) {
        while let Some(qp) = self.queue_pairs.get_mut(&id) {
            if qp.is_broken() || qp.receives.is_empty() {
                return;
            }
            let Some(iu) = qp.inbound.pop_front() else { return };
            let Some(receive) = qp.receives.pop_front() else { return };
            if receive.slot == qp.marker() {
                qp.unmarked = true;
                self.tally.count("marker taken by an IU");
            }
            let memory = &mut qp.receive_slots[usize::from(receive.slot)];
            let Some(place) = memory.get_mut(..iu.len()) else {
                self.finish(id, WorkKind::Receive, receive.slot, Err(WorkError::Local), false);
                return self.fail(id, Some(WorkError::Remote));
            };
            place.copy_from_slice(&iu);
            let len = u32::try_from(iu.len()).unwrap_or(u32::MAX);
            self.finish(id, WorkKind::Receive, receive.slot, Ok(len), false);
        }
    }

    pub(super) fn take_posts(&mut self) -> Vec<(QueuePairId, u64, [u8; 16])> {
        std::mem::take(&mut self.posts)
    }

    /// The reactor of a queue pair.
    pub(super) fn owner(&self, qp: QueuePairId) -> usize {
        self.owners.get(&qp).copied().unwrap_or(0)
    }

    /// How many completions a reactor has not taken yet.
    pub(super) fn finished_for(&self, reactor: usize) -> usize {
        let own = |finished: &&Finished| self.owner(finished.completion.qp) == reactor;
        self.finished.iter().filter(own).count()
    }

    pub(super) fn take_finished(&mut self, reactor: usize) -> Option<Finished> {
        let own = |finished: &Finished| self.owner(finished.completion.qp) == reactor;
        let place = self.finished.iter().position(own)?;
        self.finished.remove(place)
    }

    /// The client has an extent from now on.
    pub(super) fn lend(&mut self, id: QueuePairId, extent: Extent) {
        let lent = self.queue_pairs.get_mut(&id).map(|qp| qp.leases.lend(extent));
        match lent {
            Some(Ok(())) => {}
            Some(Err(what)) => self.broken(rule::DMA, what),
            None => self.broken(rule::CLOSED, format!("memory of qp{}, destroyed", id.0)),
        }
    }

    /// The client is done with an extent.
    pub(super) fn give_back(&mut self, id: QueuePairId, extent: Extent) {
        if let Some(qp) = self.queue_pairs.get_mut(&id) {
            qp.leases.give_back(extent);
        }
    }

    /// Somebody has memory of a queue pair.
    pub(super) fn in_use(&self, id: QueuePairId) -> bool {
        self.queue_pairs.get(&id).is_some_and(|qp| !qp.leases.is_empty())
    }

    /// A command that has been out for longer than `limit` on a queue pair nobody gave up.
    pub(super) fn overdue(&self, limit: Duration) -> Option<String> {
        let then = Instant::from_nanos(self.now.as_nanos().checked_sub(nanos(limit))?);
        let alive = self.queue_pairs.values().filter(|qp| !qp.is_broken());
        let lease = alive.filter_map(|qp| qp.leases.older_than(then)).next()?;
        Some(format!("tag {:#x} is out for longer than {limit:?}", lease.tag))
    }

    pub(super) fn note_iu(&mut self, id: QueuePairId, iu: &[u8], to_target: bool) {
        let credits = self.queue_pairs.get(&id).map_or(0, |qp| qp.credits);
        let (bytes, len) = trace::keep(iu);
        let note = if to_target {
            Note::ToTarget(bytes, len)
        } else {
            Note::ToInitiator(bytes, len)
        };
        self.trace.add(self.now, Some(id), credits, note);
    }

    /// Whether a receive slot is the fabric's.
    pub(super) fn is_posted(qp: &SimQueuePair, slot: u16) -> bool {
        matches!(
            qp.receive_state.get(usize::from(slot)),
            Some(ReceiveSlot::Posted) | None
        )
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
