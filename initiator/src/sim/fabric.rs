//! The simulated fabric, as the engine sees it.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;

use super::agenda::Agenda;
use super::check::{Checks, Violation, rule};
use super::lease::Lease;
use super::net::{Finished, Happening, Net, Upcall};
use super::odds::{Odds, Profile};
use super::queue_pair::{PostedReceive, PostedSend, ReceiveSlot, SimQueuePair, Sizes};
use super::target::{Target, TargetProfile};
use super::trace::{Note, Trace};
use crate::fabric::{Completion, Extent, Fabric, QueuePairId, WorkError, WorkKind};
use crate::session::SlotPlan;
use crate::time::Instant;
use crate::wire::login::{LoginReject, LoginRejectReason, LoginRequest, LoginResponse};
use crate::wire::{Data, FromInitiator, FromTarget, MemoryDescriptor, TaskFunction};

/// Trace lines kept.
const TRACE: usize = 400;

/// A connected queue pair, as the connection manager reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The queue pair.
    pub qp: QueuePairId,
    /// Private data of the accept: SRP_LOGIN_RSP.
    pub private_data: Vec<u8>,
    /// Slots as planned for the limit granted.
    pub plan: SlotPlan,
}

/// A refused connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection refused")]
pub struct Refusal {
    /// Private data of the reject: SRP_LOGIN_REJ.
    pub private_data: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub struct SimFabric {
    pub(super) net: Net,
    target: Target,
    next: u32,
}

impl SimFabric {
    /// A network with one target.
    #[must_use]
    pub fn new(seed: u64, profile: Profile, target: TargetProfile) -> Self {
        let net = Net {
            now: Instant::default(),
            rng: Rng::with_seed(seed),
            profile,
            odds: Odds::default(),
            agenda: Agenda::default(),
            queue_pairs: BTreeMap::new(),
            finished: VecDeque::new(),
            notices: VecDeque::new(),
            posts: Vec::new(),
            checks: Checks::default(),
            trace: Trace::new(TRACE),
        };
        Self {
            net,
            target: Target::new(target),
            next: 0,
        }
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The target.
    pub fn target_mut(&mut self) -> &mut Target {
        &mut self.target
    }

    /// How often things go wrong from now on.
    pub fn set_odds(&mut self, odds: Odds) {
        self.net.odds = odds;
    }

    /// Connects with a login request (its 64-byte form); `arena` is the length of each data arena.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn connect(&mut self, login: &[u8], queue_size: u16, arena: u32) -> Result<Connect, Refusal> {
        self.next += 1;
        let id = QueuePairId(self.next);
        let (response, ended) = self.target.login(id, login).map_err(|reject| Refusal {
            private_data: reject.encode().to_vec(),
        })?;
        for old in ended {
            self.net.disconnect(old);
        }
        let plan = SlotPlan::new(response.request_limit_delta, queue_size);
        let requested = LoginRequest::parse(login).map_or(u32::MAX, |login| login.max_it_iu_len);
        let sizes = Sizes {
            plan,
            send_slot: response.max_it_iu_len.min(requested) as usize,
            receive_slot: self.target.profile().max_response_len as usize,
            arena,
            credits: response.request_limit_delta,
        };
        self.net.queue_pairs.insert(id, SimQueuePair::new(id, sizes));
        self.net.trace.text(self.net.now, Some(id), "connected");
        Ok(Connect {
            qp: id,
            private_data: response.encode().to_vec(),
            plan,
        })
    }

    /// Destroys a queue pair. Nothing may be left of it.
    pub fn destroy(&mut self, id: QueuePairId) {
        let Some(qp) = self.net.queue_pairs.remove(&id) else {
            return self.net.broken(rule::CLOSED, format!("qp{} destroyed twice", id.0));
        };
        if !qp.leases.is_empty() {
            self.net
                .broken(rule::DMA, format!("qp{} destroyed with memory in use", id.0));
        }
        if !qp.sends.is_empty() || !qp.receives.is_empty() {
            let what = format!("qp{} destroyed with requests posted", id.0);
            self.net.broken(rule::CLOSED, what);
        }
        self.net.trace.text(self.net.now, Some(id), "destroyed");
    }

    /// Destroys a queue pair whose marker was refused; its memory stays. False when that is not the case.
    pub fn destroy_unmarked(&mut self, id: QueuePairId) -> bool {
        let qp = self.net.queue_pairs.get_mut(&id).filter(|qp| qp.unmarked);
        let Some(qp) = qp else { return false };
        qp.sends.clear();
        qp.receives.clear();
        qp.cut = true;
        qp.leases.destroyed();
        self.net.finished.retain(|finished| finished.completion.qp != id);
        self.net
            .trace
            .text(self.net.now, Some(id), "destroyed, its memory is kept");
        true
    }

    /// Breaks a queue pair on our side, as an error of the local hardware would.
    pub fn break_queue_pair(&mut self, qp: QueuePairId) {
        self.net.fail(qp, Some(WorkError::Remote));
    }

    /// Cuts a connection: nothing gets through any more, in either direction.
    pub fn cut(&mut self, qp: QueuePairId) {
        self.net.cut(qp);
    }

    /// The target drops the connection.
    pub fn disconnect(&mut self, qp: QueuePairId) {
        self.net.disconnect(qp);
    }

    /// The target sends these bytes as an IU.
    pub fn send_raw(&mut self, qp: QueuePairId, iu: Vec<u8>) {
        self.net.send_to_initiator(qp, iu);
    }

    /// Has the target send SRP_CRED_REQ, SRP_AER_REQ or SRP_T_LOGOUT.
    pub fn request_credit(&mut self, qp: QueuePairId, delta: i32) {
        self.target.request_credit(qp, delta, &mut self.net);
    }

    /// Has the target send an SRP_AER_REQ.
    pub fn report_event(&mut self, qp: QueuePairId, lun: u64) {
        self.target.report_event(qp, lun, &mut self.net);
    }

    /// Has the target send an SRP_T_LOGOUT and drop the connection.
    pub fn log_out(&mut self, qp: QueuePairId) {
        self.target.log_out(qp, &mut self.net);
    }

    /// The next disconnection the connection manager has to report.
    pub fn next_notice(&mut self) -> Option<QueuePairId> {
        self.net.notices.pop_front()
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        self.net.agenda.next()
    }

    /// Sets the clock and lets one thing happen that is due.
    pub fn step(&mut self, now: Instant) -> bool {
        self.net.now = now;
        let Some(happening) = self.net.agenda.pop(now) else {
            return false;
        };
        match self.net.handle(happening) {
            Some(Upcall::Iu(qp, iu)) => self.target.arrived(qp, &iu, &mut self.net),
            Some(Upcall::Lost(qp)) => self.target.lost(qp),
            Some(Upcall::Step(step)) => self.target.step(step, &mut self.net),
            None => {}
        }
        true
    }

    /// Whether [`Fabric::poll`] has something to give.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        !self.net.finished.is_empty()
    }

    /// The request limit as the initiator can know it.
    #[must_use]
    pub fn credits(&self, qp: QueuePairId) -> Option<i64> {
        self.net.queue_pairs.get(&qp).map(|qp| qp.credits)
    }

    /// The target will not do anything any more for a queue pair.
    #[must_use]
    pub fn is_quiet(&self, qp: QueuePairId) -> bool {
        let under_way = |happening: &Happening| matches!(happening, Happening::Arrive(id, _) if *id == qp);
        self.target.tasks(qp) == 0 && !self.net.agenda.iter().any(under_way)
    }

    /// Rules broken so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.net.checks.all()
    }

    /// The last events, one line each.
    #[must_use]
    pub fn trace(&self) -> String {
        self.net.trace.print()
    }

    /// The reject a refusal carries, for tests of the target.
    #[must_use]
    pub fn reject_of(refusal: &Refusal) -> Option<LoginRejectReason> {
        LoginReject::parse(&refusal.private_data)
            .ok()
            .map(|reject| reject.reason)
    }

    /// The response an accept carries.
    #[must_use]
    pub fn response_of(connect: &Connect) -> Option<LoginResponse> {
        LoginResponse::parse(&connect.private_data).ok()
    }

    /// Notes what a posted IU entitles the target to.
    fn book(&mut self, id: QueuePairId, slot: u16, iu: &[u8], payload: Option<Extent>) {
        let now = self.net.now;
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        let (needed, objection) = match FromInitiator::parse(iu) {
            Ok(FromInitiator::Command(command)) => {
                let mut unknown = false;
                let mut resolve = |descriptor, write| {
                    let extent = qp.resolve(descriptor);
                    unknown |= extent.is_none();
                    extent.map(|extent| (extent, write))
                };
                let data = match command.data {
                    Data::Read(descriptor) => resolve(descriptor, true),
                    Data::Write(descriptor) => resolve(descriptor, false),
                    _ => payload.map(|extent| (extent, false)),
                };
                let lease = Lease {
                    slot,
                    tag: command.tag,
                    lun: command.lun.0,
                    cdb: command.cdb.bytes,
                    data,
                    at: now,
                    sent: false,
                    answered: false,
                };
                let mut started = qp.leases.start(lease);
                self.net.posts.push((command.lun.0, command.cdb.bytes));
                if unknown {
                    started = Err("a command describes memory that is not registered".to_owned());
                }
                (Some(2), started)
            }
            Ok(FromInitiator::TaskManagement(task)) => {
                let of = (task.function == TaskFunction::AbortTask).then_some(task.task_tag);
                qp.leases.function(task.tag, of, task.lun.0);
                (Some(1), Ok(()))
            }
            _ => (None, Ok(())),
        };
        if let Some(needed) = needed {
            if qp.credits < needed && !qp.is_broken() {
                let what = format!("sent with {} left, {needed} needed", qp.credits);
                self.net.checks.broken(self.net.now, rule::CREDIT, what);
            }
            qp.credits -= 1;
        }
        if let Err(what) = objection {
            self.net.broken(rule::DMA, what);
        }
    }

    /// Notes what the engine learns from a completion.
    fn tell(&mut self, finished: &Finished) {
        let completion = finished.completion;
        let Some(qp) = self.net.queue_pairs.get_mut(&completion.qp) else {
            return;
        };
        let slot = usize::from(completion.slot);
        match (completion.kind, completion.result) {
            (WorkKind::Send, _) => {
                qp.send_busy[slot] = false;
                qp.leases.sent(completion.slot);
            }
            (WorkKind::Receive, Ok(len)) => {
                qp.receive_state[slot] = ReceiveSlot::Readable(len as usize);
                let iu = qp.receive_slots[slot][..len as usize].to_vec();
                let delta = match FromTarget::parse(&iu) {
                    Ok(FromTarget::Response(response)) => {
                        qp.leases.answered(response.tag, response.response_code);
                        response.request_limit_delta
                    }
                    Ok(FromTarget::CreditRequest(request)) => request.delta,
                    Ok(FromTarget::AsyncEvent(event)) => event.delta,
                    _ => 0,
                };
                qp.credits += i64::from(delta);
                return self.net.note_iu(completion.qp, &iu, false);
            }
            (WorkKind::Receive, Err(_)) => {
                qp.receive_state[slot] = ReceiveSlot::Readable(0);
                if finished.guard {
                    qp.leases.flushed();
                }
            }
        }
        let note = Note::Taken(completion);
        self.net.trace.add(self.net.now, Some(completion.qp), 0, note);
    }

    fn check_use(&self, id: QueuePairId, extent: Extent, what: &str) {
        let holder = self.net.queue_pairs.get(&id).and_then(|qp| qp.leases.holder(extent));
        if let Some(lease) = holder {
            let what = format!("{what} {extent:?} while the target may touch it (tag {:#x})", lease.tag);
            self.net.broken(rule::DMA, what);
        }
    }
}

impl Fabric for SimFabric {
    fn poll(&mut self, out: &mut Vec<Completion>) {
        let mut room = (out.capacity() - out.len()).min(self.net.finished.len());
        if self.net.profile.partial_polls && room > 1 && self.net.rng.bool() {
            room = self.net.rng.usize(1..=room);
        }
        for _ in 0..room {
            let Some(finished) = self.net.finished.pop_front() else {
                return;
            };
            self.tell(&finished);
            out.push(finished.completion);
        }
    }

    fn send_slot(&mut self, qp: QueuePairId, slot: u16) -> &mut [u8] {
        let busy = |qp: &SimQueuePair| qp.send_busy.get(usize::from(slot)).copied().unwrap_or(true);
        if self.net.queue_pairs.get(&qp).is_none_or(busy) {
            self.net.broken(rule::SEND_SLOT, format!("qp{} slot {slot}", qp.0));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&qp) else {
            return &mut [];
        };
        qp.send_slots.get_mut(usize::from(slot)).map_or(&mut [], |slot| slot)
    }

    fn receive_slot(&self, qp: QueuePairId, slot: u16) -> &[u8] {
        let Some(state) = self.net.queue_pairs.get(&qp) else {
            return &[];
        };
        if Net::is_posted(state, slot) {
            self.net
                .broken(rule::RECEIVE_SLOT, format!("qp{} slot {slot} read", qp.0));
        }
        state.receive_slots.get(usize::from(slot)).map_or(&[], |slot| slot)
    }

    fn post_send(&mut self, id: QueuePairId, slot: u16, len: u32, payload: Option<Extent>) {
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return self.net.broken(rule::CLOSED, format!("post to qp{}, destroyed", id.0));
        };
        let iu = qp
            .send_slots
            .get(usize::from(slot))
            .and_then(|slot| slot.get(..len as usize));
        let Some(iu) = iu.map(<[u8]>::to_vec) else {
            return self
                .net
                .broken(rule::SEND_SLOT, format!("{len} bytes from slot {slot}"));
        };
        if std::mem::replace(&mut qp.send_busy[usize::from(slot)], true) {
            self.net.broken(rule::SEND_SLOT, format!("slot {slot} posted twice"));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        let (rung, transmitted) = (false, false);
        qp.sends.push_back(PostedSend {
            slot,
            len,
            payload,
            rung,
            transmitted,
        });
        self.book(id, slot, &iu, payload);
        self.net.note_iu(id, &iu, true);
    }

    fn post_receive(&mut self, id: QueuePairId, slot: u16) {
        let posted = self.net.queue_pairs.get(&id).is_none_or(|qp| Net::is_posted(qp, slot));
        if posted {
            return self
                .net
                .broken(rule::RECEIVE_SLOT, format!("qp{} slot {slot} posted twice", id.0));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        let (refuse, marker) = (self.net.odds.refuse_post, qp.plan.receives - 1);
        qp.receive_state[usize::from(slot)] = ReceiveSlot::Posted;
        qp.receive_slots[usize::from(slot)].fill(0xee);
        if Odds::hit(&mut self.net.rng, refuse) && (qp.is_broken() || marker == slot) {
            qp.unmarked |= marker == slot;
            return self
                .net
                .finish(id, WorkKind::Receive, slot, Err(WorkError::Local), false);
        }
        qp.receives.push_back(PostedReceive { slot, guard: false });
        let (broken, waiting) = (qp.is_broken(), !qp.inbound.is_empty());
        if broken {
            self.net.after(std::time::Duration::ZERO, Happening::FlushReceives(id));
        } else if waiting {
            self.net
                .after(std::time::Duration::from_micros(100), Happening::Retry(id));
        }
    }

    fn flush(&mut self) {
        let (hop, drain) = (self.net.profile.hop, self.net.profile.drain);
        let ids: Vec<QueuePairId> = self.net.queue_pairs.keys().copied().collect();
        for id in ids {
            let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
                continue;
            };
            let broken = qp.is_broken();
            let mut rung = 0;
            for send in qp.sends.iter_mut().filter(|send| !send.rung) {
                send.rung = true;
                rung += 1;
            }
            if broken && rung > 0 {
                self.net.within(drain, Happening::FlushSends(id));
            } else {
                (0..rung).for_each(|_| self.net.within(hop, Happening::Transmit(id)));
            }
        }
    }

    fn fail(&mut self, qp: QueuePairId) {
        self.net.fail(qp, None);
    }

    fn describe(&self, qp: QueuePairId, extent: Extent) -> MemoryDescriptor {
        let none = MemoryDescriptor {
            address: 0,
            key: 0,
            len: 0,
        };
        self.net.queue_pairs.get(&qp).map_or(none, |qp| qp.describe(extent))
    }

    fn copy_out(&self, qp: QueuePairId, extent: Extent, into: &mut [u8]) {
        self.check_use(qp, extent, "read from");
        match self.net.queue_pairs.get(&qp).and_then(|qp| qp.bytes(extent)) {
            Some(bytes) if bytes.len() == into.len() => into.copy_from_slice(bytes),
            _ => self
                .net
                .broken(rule::DMA, format!("read from {extent:?}, which is not there")),
        }
    }

    fn copy_in(&mut self, qp: QueuePairId, extent: Extent, from: &[u8]) {
        self.check_use(qp, extent, "write to");
        match self.net.queue_pairs.get_mut(&qp).and_then(|qp| qp.bytes_mut(extent)) {
            Some(bytes) if bytes.len() == from.len() => bytes.copy_from_slice(from),
            _ => self
                .net
                .broken(rule::DMA, format!("write to {extent:?}, which is not there")),
        }
    }
}
