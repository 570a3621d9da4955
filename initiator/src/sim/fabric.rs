//! The simulated fabric, as the engine sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::agenda::Agenda;
use super::check::{Checks, Violation, rule};
use super::net::{Happening, Net, Upcall};
use super::odds::{Odds, Profile};
use super::queue_pair::{SimQueuePair, Sizes};
use super::tally::Tally;
use super::target::{Target, TargetProfile};
use super::trace::Trace;
use crate::fabric::{Exposure, QueuePairId, WorkError};
use crate::session::{Fence, SlotPlan};
use crate::time::Instant;
use crate::wire::login::{LoginReject, LoginRejectReason, LoginRequest, LoginResponse};

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
    /// The reason the connection manager gives. Only [`Refusal::CONSUMER`] comes from an SRP target.
    pub cm_reason: u16,
    /// Private data of the reject: SRP_LOGIN_REJ.
    pub private_data: Vec<u8>,
    /// What the target wanted to say by it, where it can be read.
    pub meant: Option<LoginRejectReason>,
}

impl Refusal {
    /// The consumer refused, for a reason that is in the private data (IBA 12.6.7.2).
    pub const CONSUMER: u16 = 28;
    /// Others: nobody listens, a stale connection, redirections, a duplicate id.
    const OTHERS: [u16; 5] = [8, 10, 24, 25, 30];

    fn name(&self) -> &'static str {
        match (self.cm_reason, self.meant) {
            (8, _) => "login refused: CM reason 8, nobody listens",
            (10, _) => "login refused: CM reason 10, stale connection",
            (24, _) => "login refused: CM reason 24, port and CM redirection",
            (25, _) => "login refused: CM reason 25, port redirection",
            (30, _) => "login refused: CM reason 30, duplicate id",
            (_, None) => "login refused: unreadable",
            (_, Some(reason)) => match reason {
                LoginRejectReason::UnableToEstablish => "login refused: unable to establish",
                LoginRejectReason::InsufficientResources => "login refused: insufficient resources",
                LoginRejectReason::IuTooLong => "login refused: IU too long",
                LoginRejectReason::NoNexus => "login refused: no nexus",
                LoginRejectReason::UnsupportedFormat => "login refused: format",
                LoginRejectReason::MultiChannelUnsupported => "login refused: no multiple channels",
                LoginRejectReason::ChannelLimit => "login refused: channel limit",
                LoginRejectReason::Other(_) => "login refused: unknown reason",
            },
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct SimFabric {
    pub(super) net: Net,
    pub(super) target: Target,
    /// The reactor that has it now: it sees completions of its queue pairs only.
    pub(super) reactor: usize,
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
            fence: Fence::default(),
            agenda: Agenda::default(),
            queue_pairs: BTreeMap::new(),
            owners: BTreeMap::new(),
            orphans: BTreeSet::new(),
            finished: VecDeque::new(),
            heard: Instant::default(),
            notices: VecDeque::new(),
            forged: Vec::new(),
            posts: Vec::new(),
            refusals: Vec::new(),
            checks: Checks::default(),
            trace: Trace::new(TRACE),
            tally: Tally::default(),
        };
        Self {
            net,
            target: Target::new(target),
            reactor: 0,
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

    /// From now on nothing goes wrong.
    pub(super) fn heal(&mut self) {
        self.set_odds(Odds::default());
        self.target.heal();
    }

    /// Connects with a login request (its 64-byte form); `send_slot` is the length of a send slot, as far as the target
    /// takes IUs that long, `arena` that of each data arena, and `exposure` how the target reaches them.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn connect(
        &mut self,
        login: &[u8],
        queue_size: u16,
        send_slot: u32,
        arena: u32,
        exposure: Exposure,
    ) -> Result<Connect, Refusal> {
        if let Some(refusal) = self.refuse() {
            self.net.tally.count(refusal.name());
            return Err(refusal);
        }
        self.next += 1;
        let id = QueuePairId(self.next);
        let (response, ended) = self.target.login(id, login).map_err(|reject| {
            let refusal = Refusal {
                cm_reason: Refusal::CONSUMER,
                private_data: reject.encode().to_vec(),
                meant: Some(reject.reason),
            };
            self.net.tally.count(refusal.name());
            refusal
        })?;
        for old in ended {
            self.net.disconnect(old);
        }
        let plan = SlotPlan::new(response.request_limit_delta, queue_size);
        let requested = LoginRequest::parse(login).map_or(u32::MAX, |login| login.max_it_iu_len);
        let sizes = Sizes {
            plan,
            send_slot: response.max_it_iu_len.min(requested).min(send_slot) as usize,
            receive_slot: response.max_ti_iu_len as usize,
            arena,
            credits: response.request_limit_delta,
            exposure,
        };
        self.net.queue_pairs.insert(id, SimQueuePair::new(id, sizes));
        self.net.owners.insert(id, self.reactor);
        self.net.trace.text(self.net.now, Some(id), "connected");
        Ok(Connect {
            qp: id,
            private_data: response.encode().to_vec(),
            plan,
        })
    }

    /// A login is refused by chance: with a reason, with one nobody knows, by something that knows no SRP, or on the way.
    fn refuse(&mut self) -> Option<Refusal> {
        let rng = &mut self.net.rng;
        if !Odds::hit(rng, self.net.odds.refuse_login) {
            return None;
        }
        if rng.u8(0..4) == 0 {
            return Some(Refusal {
                cm_reason: *rng.choice(&Refusal::OTHERS).unwrap_or(&Refusal::OTHERS[0]),
                private_data: Vec::new(),
                meant: None,
            });
        }
        let code = 0x0001_0000 + rng.u32(0..8);
        let mut private_data = vec![0; LoginReject::LEN];
        private_data[0] = crate::wire::opcode::LOGIN_REJECT;
        private_data[4..8].copy_from_slice(&code.to_be_bytes());
        private_data.truncate(*rng.choice(&[LoginReject::LEN, LoginReject::LEN, 8, 0]).unwrap_or(&0));
        let whole = private_data.len() == LoginReject::LEN;
        Some(Refusal {
            cm_reason: Refusal::CONSUMER,
            private_data,
            meant: whole.then(|| LoginRejectReason::from_code(code)),
        })
    }

    /// The target goes down, with every connection; it refuses logins until it is enabled again. What it was
    /// carrying out is carried out, or not.
    pub fn restart(&mut self, finish: bool) {
        self.net.tally.count("target restarts");
        self.target.profile_mut().enabled = false;
        for qp in self.target.shut_down(finish) {
            self.net.cut(qp);
        }
    }

    /// Destroys a queue pair. Nothing may be left of it here; what it has on the wire still gets to the target.
    pub fn destroy(&mut self, id: QueuePairId) {
        let Some(qp) = self.net.queue_pairs.remove(&id) else {
            return self.net.broken(rule::CLOSED, format!("qp{} destroyed twice", id.0));
        };
        if !qp.leases.is_empty() {
            self.net
                .broken(rule::DMA, format!("qp{} destroyed with memory in use", id.0));
        }
        if !qp.sends.is_empty() || !qp.receives.is_empty() || !qp.queued_receives.is_empty() {
            let what = format!("qp{} destroyed with requests posted", id.0);
            self.net.broken(rule::CLOSED, what);
        }
        self.net.orphans.insert(id);
        self.net.trace.text(self.net.now, Some(id), "destroyed");
    }

    /// Destroys a queue pair that no marker can end; its memory stays. False when that is not the case.
    pub fn destroy_unmarked(&mut self, id: QueuePairId) -> bool {
        let qp = self.net.queue_pairs.get_mut(&id).filter(|qp| qp.unmarked);
        let Some(qp) = qp else { return false };
        qp.sends.clear();
        qp.receives.clear();
        qp.queued_receives.clear();
        qp.cut = true;
        qp.destroyed = true;
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

    /// The same where the IU may be made up: a target that answers a command does no more about it, and the data of that is
    /// its own business.
    pub fn send_forged(&mut self, qp: QueuePairId, iu: Vec<u8>) {
        self.target.note_forged(qp, &iu, &mut self.net);
        if let Some(state) = self.net.queue_pairs.get_mut(&qp) {
            state.deceived = true;
        }
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
            Some(Upcall::Iu(qp, iu)) => self.target.arrived(qp, iu, &mut self.net),
            Some(Upcall::Lost(qp)) => self.target.lost(qp),
            Some(Upcall::Step(step)) => self.target.step(step, &mut self.net),
            None => {}
        }
        true
    }

    /// Whether [`crate::fabric::Fabric::poll`] has something to give to a reactor.
    #[must_use]
    pub fn has_completions(&self, reactor: usize) -> bool {
        self.net.finished_for(reactor) > 0
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
        let idle = self.target.tasks(qp) == 0 && self.target.backlog(qp) == 0;
        idle && !self.net.agenda.iter().any(under_way)
    }

    /// Rules broken so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.net.checks.all()
    }

    /// What happened how often.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.net.tally
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
}
