//! An engine, a fabric, a target, a client and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use srp_addressing::PortId;

use super::agenda::Agenda;
use super::check::rule;
use super::client::{Client, Outcome};
use super::fabric::SimFabric;
use super::odds::{Odds, Profile, Span};
use super::queue_pair::SimQueuePair;
use super::target::TargetProfile;
use crate::fabric::{Extent, Fabric, QueuePairId};
use crate::scsi::{Cdb, Lun};
use crate::session::{
    BlockOperation, BlockRequest, ChannelError, ChannelSetup, ControlRequest, DiskSetup, Engine, Event, Handle, Limits,
    LoginParameters, LunKey, RequestId, SessionKey,
};
use crate::time::Instant;
use crate::wire::MultiChannel;

/// What the initiator's own software may add to a deadline.
const SLACK: Duration = Duration::from_secs(1);

/// A session of the world.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// The initiator port it logs in with.
    pub port: PortId,
    /// Its disks, as numbers of logical units below 256; they are their [`LunKey`]s too.
    pub luns: Vec<u32>,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Everything that is random follows from it.
    pub seed: u64,
    /// The network.
    pub profile: Profile,
    /// The target.
    pub target: TargetProfile,
    /// The engine's time limits.
    pub limits: Limits,
    /// Commands wished for per channel.
    pub queue_size: u16,
    /// Bytes of each data arena.
    pub arena: u32,
    /// The longest transfer of one command.
    pub max_transfer: u32,
    /// The sessions.
    pub sessions: Vec<SessionSpec>,
    /// A session that lost its channel logs in again after this.
    pub relogin: Option<Span>,
    /// How often per mille the client cannot supply a write's data.
    pub unsupplied: u16,
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            profile: Profile::default(),
            target: TargetProfile::default(),
            limits: Limits::default(),
            queue_size: 32,
            arena: 1 << 20,
            max_transfer: 256 << 10,
            sessions: vec![SessionSpec {
                port: PortId([1; 16]),
                luns: vec![0],
            }],
            relogin: None,
            unsupplied: 0,
        }
    }
}

/// Something the software around the engine is going to do.
#[derive(Debug)]
pub(super) enum Errand {
    Pump,
    Supply(RequestId, Handle, QueuePairId, Extent),
    Take(RequestId, Handle, QueuePairId, Extent),
    Login(u32),
    /// Ends a queue pair whose marker did not come back.
    Destroy(QueuePairId),
    /// For the scenario: it is called back.
    Scenario(u32),
}

#[derive(Debug)]
struct Session {
    spec: SessionSpec,
    qp: Option<QueuePairId>,
    /// Lost connections through which the target may still work.
    dead: Vec<QueuePairId>,
}

/// See the module's text.
#[derive(Debug)]
pub struct World {
    pub(super) spec: WorldSpec,
    pub(super) rng: Rng,
    pub(super) client: Client,
    pub(super) agenda: Agenda<Errand>,
    engine: Engine<SimFabric>,
    now: Instant,
    sessions: Vec<Session>,
    pump_due: bool,
    stalled: u32,
    /// Failed channels, and by when they have to be closed.
    failing: BTreeMap<QueuePairId, Instant>,
    failures: Vec<(QueuePairId, ChannelError, Instant)>,
}

impl World {
    /// All sessions logged in, all disks known.
    #[must_use]
    pub fn new(spec: WorldSpec) -> Self {
        let mut rng = Rng::with_seed(spec.seed ^ 0x5eed);
        let fabric = SimFabric::new(rng.u64(..), spec.profile, spec.target.clone());
        let sessions = spec.sessions.iter();
        let sessions = sessions
            .map(|spec| Session {
                spec: spec.clone(),
                qp: None,
                dead: Vec::new(),
            })
            .collect();
        let mut world = Self {
            engine: Engine::new(fabric, spec.limits),
            rng,
            client: Client::default(),
            agenda: Agenda::default(),
            now: Instant::default(),
            sessions,
            pump_due: false,
            stalled: 0,
            failing: BTreeMap::new(),
            failures: Vec::new(),
            spec,
        };
        for index in 0..world.spec.sessions.len() {
            world.login(u32::try_from(index).unwrap_or(u32::MAX));
            for lun in world.spec.sessions[index].luns.clone() {
                world.plug(lun);
            }
        }
        world
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine<SimFabric> {
        &mut self.engine
    }

    /// The fabric, and the target behind it.
    pub fn fabric(&mut self) -> &mut SimFabric {
        self.engine.fabric_mut()
    }

    /// The queue pair of a session, while it is logged in.
    #[must_use]
    pub fn qp(&self, session: usize) -> Option<QueuePairId> {
        self.sessions[session].qp
    }

    /// How a request ended and when.
    #[must_use]
    pub fn outcome(&self, id: RequestId) -> Option<&(Outcome, Instant)> {
        self.client.outcomes.get(&id)
    }

    /// Channels that failed so far.
    #[must_use]
    pub fn failures(&self) -> &[(QueuePairId, ChannelError, Instant)] {
        &self.failures
    }

    /// Makes a disk known to the engine.
    pub fn plug(&mut self, number: u32) {
        let (Some(session), Some(spec)) = (self.session_of(number), self.disk_spec(number)) else {
            return;
        };
        self.client.order.know(spec.lun, session);
        self.engine.add_disk(&DiskSetup {
            key: LunKey(number),
            session: SessionKey(session),
            lun: Lun(spec.lun),
            block_size: spec.block_size,
            blocks: spec.blocks,
        });
    }

    /// Takes a disk from the engine.
    pub fn unplug(&mut self, number: u32) {
        self.enter();
        self.engine.remove_disk(LunKey(number));
        self.after_call();
    }

    /// Asks for blocks.
    pub fn read(&mut self, lun: u32, lba: u64, blocks: u32) -> RequestId {
        self.submit(lun, BlockOperation::Read, lba, blocks)
    }

    /// Writes blocks, with data that names its write.
    pub fn write(&mut self, lun: u32, lba: u64, blocks: u32) -> RequestId {
        self.submit(lun, BlockOperation::Write { fua: false }, lba, blocks)
    }

    /// Flushes a disk.
    pub fn flush(&mut self, lun: u32) -> RequestId {
        self.submit(lun, BlockOperation::Flush, 0, 0)
    }

    /// Makes a block request.
    pub fn submit(&mut self, number: u32, operation: BlockOperation, lba: u64, blocks: u32) -> RequestId {
        let id = self.client.next_id();
        let request = BlockRequest {
            id,
            lun: LunKey(number),
            operation,
            lba,
            blocks,
        };
        let session = self.session_of(number).unwrap_or(0);
        let block_size = self.disk_spec(number).map_or(512, |spec| spec.block_size);
        let lun = Lun::from_index(number);
        self.enter();
        self.client
            .submitted(self.engine.fabric(), session, lun, block_size, request);
        self.engine.submit(request, self.now);
        self.wake();
        self.after_call();
        id
    }

    /// Makes a control request.
    pub fn control(&mut self, session: usize, number: u32, cdb: Cdb, data_in: u32, timeout: Duration) -> RequestId {
        let id = self.client.next_id();
        let key = u32::try_from(session).unwrap_or(u32::MAX);
        let lun = Lun::from_index(number);
        let request = ControlRequest {
            id,
            session: SessionKey(key),
            lun,
            cdb,
            data_in,
            timeout,
        };
        self.enter();
        self.client.submitted_control(id, key, lun);
        self.engine.submit_control(request, self.now);
        self.wake();
        self.after_call();
        id
    }

    /// The control side closes the channel of a session.
    pub fn close(&mut self, session: usize) {
        if let Some(qp) = self.sessions[session].qp {
            self.enter();
            self.engine.close_channel(qp, ChannelError::Closed, self.now);
            self.wake();
            self.after_call();
        }
    }

    /// Logs a session in that is not.
    pub fn login(&mut self, session: u32) {
        let Some(state) = self.sessions.get(session as usize) else {
            return;
        };
        if state.qp.is_some() {
            return;
        }
        let parameters = LoginParameters {
            initiator_port: state.spec.port,
            target_port: self.spec.target.port,
            descriptors: 12,
            max_it_iu_len: None,
            immediate_data: 0,
        };
        self.enter();
        let login = parameters.request(MultiChannel::Single).encode();
        let (queue_size, arena) = (self.spec.queue_size, self.spec.arena);
        let Ok(connect) = self.fabric().connect(&login, queue_size, arena) else {
            return self.relogin(session);
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
                    max_transfer: self.spec.max_transfer,
                };
                self.sessions[session as usize].qp = Some(connect.qp);
                self.engine.add_channel(&setup);
            }
            Err(error) => self.broken(rule::PROTOCOL, error.to_string()),
        }
        self.after_call();
    }

    /// Lets one thing happen; false when nothing ever will.
    pub fn step(&mut self) -> bool {
        let due = self.engine.deadline();
        let times = [self.agenda.next(), self.engine.fabric().next_event(), due];
        let Some(next) = times.into_iter().flatten().min() else {
            return false;
        };
        self.stalled = if next > self.now { 0 } else { self.stalled + 1 };
        self.now = self.now.max(next);
        if self.stalled > 10_000 {
            self.broken(rule::DEADLINE, "time stands still");
            return false;
        }
        self.enter();
        if let Some(errand) = self.agenda.pop(self.now) {
            self.run(errand);
        } else {
            let now = self.now;
            if !self.fabric().step(now) {
                self.engine.pump(now);
            }
        }
        self.after_call();
        true
    }

    /// Steps until nothing is left to happen, at most so long.
    ///
    /// # Errors
    /// With a report when a rule was broken or something did not end in time.
    pub fn run_until_idle(&mut self, limit: Duration) -> Result<(), String> {
        let end = self.now + limit;
        while self.step() {
            if self.now > end {
                let left = self.client.pending.len();
                self.broken(rule::DEADLINE, format!("{left} requests left after {limit:?}"));
            }
            self.verdict()?;
        }
        self.audit();
        self.verdict()
    }

    /// Steps for so long.
    ///
    /// # Errors
    /// With a report when a rule was broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        loop {
            let due = self.engine.deadline();
            let times = [self.agenda.next(), self.engine.fabric().next_event(), due];
            let next = times.into_iter().flatten().min();
            if next.is_none_or(|next| next > end) || !self.step() {
                self.now = end;
                self.enter();
                return self.verdict();
            }
            self.verdict()?;
        }
    }

    /// An error with the broken rules and the last events, if a rule was broken.
    ///
    /// # Errors
    /// When a rule was broken.
    pub fn verdict(&self) -> Result<(), String> {
        let fabric = self.engine.fabric();
        if !fabric.net.checks.any() {
            return Ok(());
        }
        let broken: Vec<String> = fabric
            .violations()
            .iter()
            .map(|violation| format!("  {violation}\n"))
            .collect();
        let seed = self.spec.seed;
        Err(format!("{}seed {seed}; broken:\n{}", fabric.trace(), broken.concat()))
    }

    pub(super) fn broken(&self, rule: &'static str, what: impl Into<String>) {
        self.engine.fabric().net.broken(rule, what);
    }

    pub(super) fn after(&mut self, span: Span, errand: Errand) {
        let delay = span.draw(&mut self.rng);
        self.agenda.add(self.now + delay, errand);
    }

    /// The client knows the time and the world before every call.
    pub(super) fn enter(&mut self) {
        let now = self.now;
        self.fabric().net.now = now;
    }

    fn wake(&mut self) {
        if !self.pump_due {
            self.pump_due = true;
            self.after(self.spec.profile.reaction, Errand::Pump);
        }
    }

    fn run(&mut self, errand: Errand) {
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
            Errand::Login(session) => self.login(session),
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
    fn after_call(&mut self) {
        self.watch_posts();
        while let Some(event) = self.engine.next_event() {
            self.heard(event);
        }
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
        for (lun, cdb) in self.fabric().net.take_posts() {
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
                let session = self.client.pending.get(&id).map_or(0, |pending| pending.session);
                let dead = self.sessions[session as usize].dead.clone();
                self.client.done(self.engine.fabric(), id, result, dead);
            }
            Event::Reply { id, result } => self.client.replied(self.engine.fabric(), id, result),
            Event::ChannelFailed { qp, session, reason } => {
                let limit = self.now + SLACK;
                self.agenda.add(self.now + SLACK / 2, Errand::Destroy(qp));
                self.failing.insert(qp, limit);
                self.failures.push((qp, reason, self.now));
                let state = &mut self.sessions[session.0 as usize];
                state.dead.push(qp);
                if state.qp.take() != Some(qp) {
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

    fn relogin(&mut self, session: u32) {
        if let Some(span) = self.spec.relogin {
            self.after(span, Errand::Login(session));
        }
    }

    fn watch_time(&mut self) {
        let late = self
            .failing
            .iter()
            .find(|(_, limit)| **limit < self.now)
            .map(|(qp, _)| *qp);
        if let Some(qp) = late {
            self.broken(rule::DEADLINE, format!("qp{} failed and was not closed", qp.0));
        }
        let limit = self.spec.limits.command + SLACK;
        let overdue = self.engine.fabric().net.overdue(limit);
        if let Some(what) = overdue {
            self.broken(rule::DEADLINE, what);
        }
        let fabric = self.engine.fabric();
        for session in &mut self.sessions {
            session.dead.retain(|qp| !fabric.is_quiet(*qp));
        }
        self.client.shadow.refresh(|qp| fabric.is_quiet(qp));
    }

    /// What must hold when nothing is left to happen.
    fn audit(&mut self) {
        if !self.client.pending.is_empty() || self.engine.requests() > 0 {
            let (told, kept) = (self.client.pending.len(), self.engine.requests());
            self.broken(rule::ONCE, format!("{told} requests never ended, {kept} in the engine"));
        }
        for qp in self.failing.keys() {
            self.broken(rule::CLOSED, format!("qp{} failed and was never closed", qp.0));
        }
        for qp in self.sessions.iter().filter_map(|session| session.qp) {
            let fabric = self.engine.fabric();
            let Some(state) = self.engine.channel_state(qp) else {
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
            if fabric.net.in_use(qp) {
                self.broken(rule::LEAK, format!("qp{}: memory in use", qp.0));
            }
        }
        for spec in self.spec.sessions.clone() {
            for number in spec.luns {
                let size = self.disk_spec(number).map_or(512, |spec| spec.block_size);
                self.client.audit(self.engine.fabric(), Lun::from_index(number), size);
            }
        }
    }

    pub(super) fn session_of(&self, number: u32) -> Option<u32> {
        let index = self.spec.sessions.iter().position(|spec| spec.luns.contains(&number))?;
        u32::try_from(index).ok()
    }

    pub(super) fn disk_spec(&self, number: u32) -> Option<super::target::DiskSpec> {
        let lun = Lun::from_index(number).0;
        self.spec.target.disks.iter().find(|spec| spec.lun == lun).copied()
    }
}
