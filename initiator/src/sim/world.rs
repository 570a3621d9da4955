//! An engine, a fabric, a target, a client and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::agenda::Agenda;
use super::check::rule;
use super::client::{Client, Outcome};
use super::death::Recovery;
use super::fabric::SimFabric;
use super::odds::Span;
use super::queue_pair::SimQueuePair;
use super::spec::{SessionSpec, WorldSpec};
use crate::fabric::{Extent, QueuePairId};
use crate::scsi::{Cdb, Lun};
use crate::session::{
    BlockOperation, BlockRequest, ChannelError, ChannelSetup, ControlRequest, DiskSetup, Engine, Handle,
    LoginParameters, LunKey, RequestId, SessionKey, TaskRequest, UnitFunction, reject_reason,
};
use crate::time::Instant;
use crate::wire::MultiChannel;

/// What the initiator's own software may add to a deadline.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// Something the software around the engine is going to do.
#[derive(Debug)]
pub(super) enum Errand {
    Pump,
    Supply(RequestId, Handle, QueuePairId, Extent),
    Take(RequestId, Handle, QueuePairId, Extent),
    Login(u32),
    /// Ends a queue pair whose marker did not come back.
    Destroy(QueuePairId),
    /// The target is up again.
    Enable,
    /// A new daemon takes a session up.
    Recover(u32),
    /// For the scenario: it is called back.
    Scenario(u32),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) spec: SessionSpec,
    /// Channels in use, in the order of their logins.
    pub(super) qps: Vec<QueuePairId>,
    /// Lost connections through which the target may still work.
    pub(super) dead: Vec<QueuePairId>,
    /// It waits for a new daemon.
    pub(super) recovery: Option<Recovery>,
}

/// See the module's text.
#[derive(Debug)]
pub struct World {
    pub(super) spec: WorldSpec,
    pub(super) rng: Rng,
    pub(super) client: Client,
    pub(super) agenda: Agenda<Errand>,
    pub(super) engine: Engine<SimFabric>,
    pub(super) now: Instant,
    pub(super) sessions: Vec<Session>,
    pub(super) pump_due: bool,
    stalled: u32,
    /// Disks that were given fewer commands than they had when last looked at.
    pub(super) throttled: Vec<u32>,
    /// Failed channels, and by when they have to be closed.
    pub(super) failing: BTreeMap<QueuePairId, Instant>,
    pub(super) failures: Vec<(QueuePairId, ChannelError, Instant)>,
}

impl World {
    /// All sessions logged in, all disks known.
    #[must_use]
    pub fn new(spec: WorldSpec) -> Self {
        let mut rng = Rng::with_seed(spec.seed ^ 0x5eed);
        let mut fabric = SimFabric::new(rng.u64(..), spec.profile, spec.target.clone());
        fabric.net.fence = spec.fence;
        let sessions = spec.sessions.iter();
        let sessions = sessions
            .map(|spec| Session {
                spec: spec.clone(),
                qps: Vec::new(),
                dead: Vec::new(),
                recovery: None,
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
            throttled: Vec::new(),
            failing: BTreeMap::new(),
            failures: Vec::new(),
            spec,
        };
        #[cfg(debug_assertions)]
        if let Some(mutation) = world.spec.mutation {
            world.engine.mutate(mutation);
        }
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

    /// The first queue pair of a session, while it is logged in.
    #[must_use]
    pub fn qp(&self, session: usize) -> Option<QueuePairId> {
        self.sessions[session].qps.first().copied()
    }

    /// The queue pairs of a session.
    #[must_use]
    pub fn qps(&self, session: usize) -> &[QueuePairId] {
        &self.sessions[session].qps
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
        self.wake();
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
        let limit = self.block_limit();
        self.enter();
        self.client
            .submitted(self.engine.fabric(), session, lun, block_size, request, limit);
        // Without a daemon the block layer keeps it.
        if !self.is_recovering(session) {
            self.engine.submit(request);
        }
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
        let limit = self.control_limit(timeout);
        self.client.submitted_control(id, key, lun, limit);
        self.engine.submit_control(request, self.now);
        self.wake();
        self.after_call();
        id
    }

    /// Makes a task management request.
    pub fn manage(&mut self, session: usize, number: u32, function: UnitFunction) -> RequestId {
        let id = self.client.next_id();
        let key = u32::try_from(session).unwrap_or(u32::MAX);
        let lun = Lun::from_index(number);
        self.enter();
        let limit = self.control_limit(self.spec.limits.task);
        self.client.submitted_control(id, key, lun, limit);
        let request = TaskRequest {
            id,
            session: SessionKey(key),
            lun,
            function,
        };
        self.engine.submit_task(request, self.now);
        self.wake();
        self.after_call();
        id
    }

    /// The control side closes a channel of a session.
    pub fn close(&mut self, session: usize) {
        let qps = &self.sessions[session].qps;
        if let Some(qp) = self.rng.choice(qps).copied() {
            self.enter();
            self.engine.close_channel(qp, ChannelError::Closed, self.now);
            self.wake();
            self.after_call();
        }
    }

    /// The control side logs a channel of a session out.
    pub fn log_out(&mut self, session: usize) {
        if let Some(qp) = self.qp(session) {
            self.enter();
            self.engine.log_out(qp, self.now);
            self.wake();
            self.after_call();
        }
    }

    /// Logs in what a session lacks of its channels: the first with SINGLE, which ends what is left of earlier ones,
    /// the others with MULTI.
    pub fn login(&mut self, session: u32) {
        let Some(state) = self.sessions.get(session as usize) else {
            return;
        };
        let wanted = state.spec.channels;
        while self.sessions[session as usize].qps.len() < wanted {
            if !self.add_channel(session) {
                return;
            }
        }
    }

    /// Logs one more channel in; false when the target refuses.
    fn add_channel(&mut self, session: u32) -> bool {
        let state = &self.sessions[session as usize];
        let multichannel = match state.qps.is_empty() {
            true => MultiChannel::Single,
            false => MultiChannel::Multi,
        };
        let parameters = LoginParameters {
            initiator_port: state.spec.port,
            target_port: self.spec.target.port,
            descriptors: 12,
            max_it_iu_len: Some(self.spec.target.max_request_len),
            immediate_data: self.spec.immediate_data,
        };
        self.enter();
        let login = parameters.request(multichannel).encode();
        let (queue_size, arena, exposure) = (self.spec.queue_size, self.spec.arena, self.spec.exposure);
        let connect = match self.fabric().connect(&login, queue_size, arena, exposure) {
            Ok(connect) => connect,
            Err(refusal) => {
                // Whatever came as a reason can be read, or is said to be unreadable.
                let _ = reject_reason(&refusal.private_data);
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
                    fence: self.spec.fence,
                };
                self.sessions[session as usize].qps.push(connect.qp);
                self.engine.add_channel(&setup);
            }
            Err(error) => self.broken(rule::PROTOCOL, error.to_string()),
        }
        self.wake();
        self.after_call();
        true
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

    pub(super) fn wake(&mut self) {
        if !self.pump_due {
            self.pump_due = true;
            self.after(self.spec.profile.reaction, Errand::Pump);
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
