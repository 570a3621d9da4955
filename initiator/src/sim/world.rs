//! Engines, a fabric, a target, a client and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::agenda::Agenda;
use super::check::rule;
use super::client::{Client, Outcome};
use super::death::Recovery;
use super::detach::Detach;
use super::fabric::SimFabric;
use super::mailbox::{Mail, Ways};
use super::odds::Span;
use super::reactor::{Reactors, Seat};
use super::spec::{SessionSpec, WorldSpec};
use crate::fabric::{Extent, QueuePairId};
use crate::scsi::Lun;
use crate::session::{ChannelError, DiskSetup, Engine, Handle, LunKey, RequestId, SessionKey};
use crate::time::Instant;

/// What the initiator's own software may add to a deadline.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// How long a target that restarts refuses logins.
pub(super) const ENABLE: Span = Span::micros(0, 5_000_000);

/// Something the software around the engine is going to do.
#[derive(Debug)]
pub(super) enum Errand {
    Pump(usize),
    /// A message comes to a reactor, from another or from the control side.
    Mail(Option<usize>, usize, Mail),
    Supply(RequestId, Handle, QueuePairId, Extent),
    Take(RequestId, Handle, QueuePairId, Extent),
    Login(u32),
    /// Puts another channel in the place of one.
    Succeed(u32, QueuePairId),
    /// Ends a queue pair whose marker did not come back.
    Destroy(QueuePairId),
    /// The target is up again.
    Enable,
    /// A new daemon takes a session up.
    Recover(u32),
    /// Something happens to a connection, and again after such a time.
    Strike(Span),
    /// The daemon looks how far a detach is.
    Detach(u32),
    /// For the scenario: it is called back.
    Scenario(u32),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) spec: SessionSpec,
    /// Channels in use, in the order of their logins.
    pub(super) qps: Vec<QueuePairId>,
    /// Those that take commands, and since when.
    pub(super) serving: BTreeMap<QueuePairId, Instant>,
    /// The reactors requests are made on, each as often as it had a channel when the disks were made.
    pub(super) homes: Vec<usize>,
    /// Lost connections through which the target may still work.
    pub(super) dead: Vec<QueuePairId>,
    /// It waits for a new daemon.
    pub(super) recovery: Option<Recovery>,
    /// It is being detached, or was.
    pub(super) detach: Option<Detach>,
    /// When something last happened to a request or a channel of it.
    pub(super) moved: Instant,
}

/// See the module's text.
#[derive(Debug)]
pub struct World {
    pub(super) spec: WorldSpec,
    pub(super) rng: Rng,
    pub(super) client: Client,
    pub(super) agenda: Agenda<Errand>,
    pub(super) reactors: Reactors,
    pub(super) ways: Ways,
    pub(super) now: Instant,
    pub(super) sessions: Vec<Session>,
    stalled: u32,
    /// Disks that were given fewer commands than they had when last looked at, with the reactor that did so.
    pub(super) throttled: Vec<(usize, u32)>,
    /// Failed channels, their sessions, and by when they have to be closed.
    pub(super) failing: BTreeMap<QueuePairId, (u32, Instant)>,
    /// Channels that were retired, and when they have ended at the latest.
    pub(super) retired: BTreeMap<QueuePairId, Instant>,
    pub(super) failures: Vec<(QueuePairId, ChannelError, Instant)>,
    /// Nothing goes wrong any more: everything has ended by then.
    pub(super) over_by: Option<Instant>,
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
                serving: BTreeMap::new(),
                homes: Vec::new(),
                dead: Vec::new(),
                recovery: None,
                detach: None,
                moved: Instant::default(),
            })
            .collect();
        let mut world = Self {
            reactors: Reactors::new(spec.reactors, fabric, spec.limits, spec.mutation),
            ways: Ways::default(),
            rng,
            client: Client::default(),
            agenda: Agenda::default(),
            now: Instant::default(),
            sessions,
            stalled: 0,
            throttled: Vec::new(),
            failing: BTreeMap::new(),
            retired: BTreeMap::new(),
            failures: Vec::new(),
            over_by: None,
            spec,
        };
        for index in 0..world.spec.sessions.len() {
            world.begin(u32::try_from(index).unwrap_or(u32::MAX));
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

    /// The engine of the first reactor.
    pub fn engine(&mut self) -> &mut Engine<Seat> {
        self.engine_of(0)
    }

    /// The engine of a reactor.
    pub fn engine_of(&mut self, reactor: usize) -> &mut Engine<Seat> {
        self.reactors.at(reactor)
    }

    /// The fabric, and the target behind it.
    pub fn fabric(&mut self) -> &mut SimFabric {
        self.reactors.fabric_mut()
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

    /// The first queue pair a reactor has of a session.
    #[must_use]
    pub fn qp_of(&self, session: usize, reactor: usize) -> Option<QueuePairId> {
        let mut qps = self.sessions[session].qps.iter().copied();
        qps.find(|qp| self.reactors.fabric().net.owner(*qp) == reactor)
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

    /// Makes a disk known to the engines.
    pub fn plug(&mut self, number: u32) {
        let (Some(session), Some(spec)) = (self.session_of(number), self.disk_spec(number)) else {
            return;
        };
        for reactor in 0..self.reactors.count() {
            self.client.order.know(reactor, spec.lun, session);
            self.reactors.at(reactor).add_disk(&DiskSetup {
                key: LunKey(number),
                session: SessionKey(session),
                lun: Lun(spec.lun),
                block_size: spec.block_size,
                blocks: spec.blocks,
            });
        }
    }

    /// Takes a disk from the engines.
    pub fn unplug(&mut self, number: u32) {
        self.enter();
        self.remove(number);
        self.after_call();
    }

    /// The same for one whose requests nobody waits for.
    pub fn abandon(&mut self, number: u32) {
        self.enter();
        let now = self.now;
        self.client.removed(Lun::from_index(number));
        for reactor in 0..self.reactors.count() {
            self.reactors.at(reactor).abandon_disk(LunKey(number), now);
            self.wake(reactor);
        }
        self.after_call();
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.client.removed(Lun::from_index(number));
        for reactor in 0..self.reactors.count() {
            self.reactors.at(reactor).remove_disk(LunKey(number));
            self.wake(reactor);
        }
    }

    /// Lets one thing happen; false when nothing ever will.
    pub fn step(&mut self) -> bool {
        let Some(next) = self.next() else { return false };
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
            if self.fabric().step(now) {
                // The engines know nothing of it yet.
                self.watch();
                return true;
            }
            for reactor in 0..self.reactors.count() {
                if self.reactors.engine(reactor).deadline().is_some_and(|at| at <= now) {
                    self.pump(reactor);
                }
            }
        }
        self.after_call();
        true
    }

    /// When the next thing happens.
    fn next(&self) -> Option<Instant> {
        let times = [self.agenda.next(), self.reactors.fabric().next_event()];
        let due = self.reactors.engines().filter_map(Engine::deadline);
        times.into_iter().flatten().chain(due).min()
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
            if self.next().is_none_or(|next| next > end) || !self.step() {
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
        let fabric = self.reactors.fabric();
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
        self.reactors.fabric().net.broken(rule, what);
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

    /// A pass of a reactor; after one that did something comes another.
    pub(super) fn pump(&mut self, reactor: usize) {
        let now = self.now;
        if self.reactors.at(reactor).pump(now) {
            self.wake(reactor);
        } else {
            self.fabric().check_rest();
        }
    }

    pub(super) fn wake(&mut self, reactor: usize) {
        if !std::mem::replace(&mut self.reactors.of(reactor).pump_due, true) {
            self.after(self.spec.profile.reaction, Errand::Pump(reactor));
        }
    }

    /// Has every other request leave before the reactor looks at anything else.
    pub(super) fn send_some(&mut self, reactor: usize, id: RequestId) {
        if id.0.is_multiple_of(2) {
            self.reactors.at(reactor).send();
        }
    }

    pub(super) fn session_of(&self, number: u32) -> Option<u32> {
        let index = self.spec.sessions.iter().position(|spec| spec.luns.contains(&number))?;
        u32::try_from(index).ok()
    }

    /// The session of a logical unit, by its address on the wire.
    pub(super) fn session_of_lun(&self, lun: u64) -> Option<u32> {
        let index = self.spec.sessions.iter().position(|spec| {
            let mut luns = spec.luns.iter();
            luns.any(|number| Lun::from_index(*number).0 == lun)
        })?;
        u32::try_from(index).ok()
    }

    pub(super) fn disk_spec(&self, number: u32) -> Option<super::target::DiskSpec> {
        let lun = Lun::from_index(number).0;
        self.spec.target.disks.iter().find(|spec| spec.lun == lun).copied()
    }
}
