//! Runs drawn from a seed: what is set up, what is asked for, and what goes wrong.

use std::time::Duration;

use fastrand::Rng;
use srp_addressing::PortId;

use super::odds::{CreditPolicy, Odds, Profile, Span};
use super::shadow::Range;
use super::spec::{SessionSpec, WorldSpec};
use super::target::{DiskSpec, TargetProfile};
use super::world::{ENABLE, Errand, World};
use crate::fabric::Exposure;
use crate::scsi::{Cdb, Lun};
use crate::session::{BlockOperation, Fence, Limits, UnitFunction};

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What there is.
    pub world: WorldSpec,
    /// What goes wrong while requests are made.
    pub odds: Odds,
    /// How many requests are made.
    pub requests: u32,
    /// How many are under way at most.
    pub depth: usize,
    /// Between two requests.
    pub think: Span,
    /// How often per mille of the requests a disk goes or comes.
    pub plugging: u16,
    /// How often per mille of the requests the control side closes a channel.
    pub closing: u16,
    /// How often per mille of the requests the control side manages a unit's tasks.
    pub managing: u16,
    /// How often per mille of the requests the target restarts.
    pub restarting: u16,
    /// How often per mille of the requests the daemon dies.
    pub killing: u16,
    /// Between two faults of connections, at times nothing else has to do with.
    pub striking: Option<Span>,
    /// Before which request, counted from the last, sessions are detached, and whether all are.
    pub detaching: Option<(u32, bool)>,
}

impl Scenario {
    /// The run of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let units = rng.u32(1..=4);
        let disks: Vec<DiskSpec> = (0..units)
            .map(|number| {
                let block_size = if rng.u8(0..4) == 0 { 4096 } else { 512 };
                let blocks = rng.u64(64..=400);
                DiskSpec {
                    lun: Lun::from_index(number).0,
                    block_size,
                    blocks,
                }
            })
            .collect();
        let split = if units > 1 && rng.bool() {
            rng.u32(1..units)
        } else {
            units
        };
        let channels = *rng.choice(&[1, 1, 2, 4]).unwrap_or(&1);
        let session = |port: u8, luns: std::ops::Range<u32>| SessionSpec {
            port: PortId([port; 16]),
            luns: luns.collect(),
            channels,
        };
        let mut sessions = vec![session(1, 0..split)];
        if split < units {
            sessions.push(session(3, split..units));
        }
        let credit = match rng.u8(0..24) {
            23 => CreditPolicy::Never,
            0..=3 => CreditPolicy::Batch(rng.i32(2..=8)),
            4..=7 => CreditPolicy::Wobble,
            8..=11 => CreditPolicy::ByRequest,
            _ => CreditPolicy::Each,
        };
        let request_limit = *rng.choice(&[2, 3, 5, 16, 64]).unwrap_or(&16);
        let target = TargetProfile {
            request_limit,
            credit,
            attention_at_login: rng.bool(),
            descriptor_sense: rng.bool(),
            multichannel: rng.u8(0..4) > 0,
            task_aborted: rng.bool(),
            task_set: (rng.u8(0..6) == 0).then(|| rng.usize(1..=8)),
            disks,
            immediate_data: rng.bool(),
            max_request_len: *rng.choice(&[8276, 8276, 996, 2132]).unwrap_or(&8276),
            ..TargetProfile::default()
        };
        let profile = Profile {
            chunk: *rng.choice(&[512, 4096, 65536]).unwrap_or(&4096),
            partial_polls: rng.bool(),
            ack: Span::micros(0, *rng.choice(&[1, 100, 5000]).unwrap_or(&100)),
            service: Span::micros(1, *rng.choice(&[50, 500, 20_000, 2_000_000]).unwrap_or(&500)),
            drain: Span::micros(0, *rng.choice(&[10, 3000, 100_000]).unwrap_or(&3000)),
            ..Profile::default()
        };
        let max_transfer = 64 << 10;
        let world = WorldSpec {
            seed,
            profile,
            target,
            limits: Limits::default(),
            queue_size: *rng.choice(&[1, 4, 32]).unwrap_or(&32),
            send_slot: u32::MAX,
            arena: max_transfer * rng.u32(1..=4),
            exposure: Exposure::Pool,
            max_transfer,
            descriptors: *rng.choice(&[1, 2, 12]).unwrap_or(&1),
            immediate_data: *rng.choice(&[0, 0, 512, 8192]).unwrap_or(&0),
            fence: match rng.u8(0..4) {
                0 => Fence::Relogin,
                _ => Fence::LunReset,
            },
            sessions,
            reactors: 1,
            mail: Span::micros(0, 50),
            tell: Span::micros(0, 2000),
            relogin: Some(Span::micros(0, 3_000_000)),
            unsupplied: if rng.u8(0..4) == 0 { 30 } else { 0 },
            mutation: None,
        };
        let mut scenario = Self {
            world,
            odds: if rng.u8(0..6) == 0 {
                Odds::default()
            } else {
                Odds::swarm(&mut rng)
            },
            requests: rng.u32(30..=150),
            depth: rng.usize(1..=48),
            think: Span::micros(0, *rng.choice(&[10, 300, 20_000, 1_500_000]).unwrap_or(&300)),
            plugging: if rng.u8(0..4) == 0 { 30 } else { 0 },
            closing: if rng.u8(0..8) == 0 { 10 } else { 0 },
            managing: if rng.u8(0..8) == 0 { 30 } else { 0 },
            restarting: if rng.u8(0..8) == 0 { 15 } else { 0 },
            killing: 0,
            striking: None,
            detaching: None,
        };
        // A shared unit must not be reset, so a daemon that died could not be followed by another.
        if rng.u8(0..8) == 0 && scenario.world.fence == Fence::LunReset {
            scenario.killing = 10;
        }
        scenario.share(&mut Rng::with_seed(seed ^ 0x5ea7));
        scenario.double(&mut Rng::with_seed(seed ^ 0xd0b1));
        scenario.delay(&mut Rng::with_seed(seed ^ 0xde1a));
        scenario.shorten(&mut Rng::with_seed(seed ^ 0x510f));
        scenario.hold_back(&mut Rng::with_seed(seed ^ 0xac4));
        scenario.embitter(&mut Rng::with_seed(seed ^ 0xb177e4));
        if rng.bool() {
            scenario.world.exposure = Exposure::Window;
            if rng.u8(0..3) == 0 {
                scenario.odds.trespass = rng.u16(1..=40);
                scenario.odds.fail_bind = rng.u16(0..=5);
            }
        }
        scenario
    }

    /// Has IUs stay on the wire or lie at the target for a while: together for less than a fence waits.
    fn delay(&mut self, rng: &mut Rng) {
        let (odds, profile) = (&mut self.odds, &mut self.world.profile);
        for (rate, span) in [
            (&mut odds.late, &mut profile.late),
            (&mut odds.backlog, &mut profile.backlog),
        ] {
            if rng.u8(0..4) == 0 {
                *rate = rng.u16(1..=200);
                *span = Span::micros(0, *rng.choice(&[100, 20_000, 800_000]).unwrap_or(&100));
            }
        }
    }

    /// Has send slots hold less than the target takes.
    fn shorten(&mut self, rng: &mut Rng) {
        if rng.u8(0..4) == 0 {
            self.world.descriptors = 255;
            self.world.send_slot = *rng.choice(&[100, 132, 196, 512]).unwrap_or(&512);
        }
    }

    /// Has targets answer commands without acknowledging their SENDs.
    fn hold_back(&mut self, rng: &mut Rng) {
        if self.odds != Odds::default() && rng.u8(0..8) == 0 {
            self.odds.unacknowledged = rng.u16(1..=10);
        }
    }

    /// What some targets do beside. It is drawn apart: what the other seeds do stays what it was.
    fn embitter(&mut self, rng: &mut Rng) {
        if rng.u8(0..8) == 0 {
            self.odds.invalid = rng.u16(1..=40);
        }
        if rng.u8(0..8) == 0 {
            self.odds.forge = rng.u16(1..=30);
            self.odds.lie = rng.u16(1..=60);
        }
        if rng.u8(0..8) == 0 {
            let most = *rng.choice(&[20_000, 1_000_000, 10_000_000]).unwrap_or(&1_000_000);
            self.striking = Some(Span::micros(0, most));
        }
        let target = &mut self.world.target;
        if rng.u8(0..8) == 0 {
            target.slow = rng
                .choice(&target.disks)
                .map(|disk| (disk.lun, Span::micros(0, 5_000_000)));
        }
        target.max_response_len = *rng.choice(&[64, 100, 256, 1024]).unwrap_or(&256);
        target.full_responses = rng.bool();
        if rng.u8(0..8) == 0 {
            self.detaching = Some((rng.u32(1..=self.requests), rng.bool()));
        }
    }

    /// Has several reactors share the sessions, or one with all channels.
    fn share(&mut self, rng: &mut Rng) {
        let world = &mut self.world;
        world.reactors = *rng.choice(&[1, 1, 2, 4]).unwrap_or(&1);
        if world.reactors == 1 {
            return;
        }
        for session in &mut world.sessions {
            // A target may grant fewer channels than there are reactors.
            session.channels = if rng.u8(0..4) == 0 {
                rng.usize(1..=world.reactors)
            } else {
                world.reactors
            };
        }
        world.mail = Span::micros(0, *rng.choice(&[10, 300, 20_000, 500_000]).unwrap_or(&300));
        world.tell = Span::micros(0, *rng.choice(&[10, 2000, 50_000, 2_000_000]).unwrap_or(&2000));
    }

    /// Has each of several reactors have more than one channel of a session, or only some of them where the target gives no
    /// more.
    fn double(&mut self, rng: &mut Rng) {
        let reactors = self.world.reactors;
        if reactors == 1 || rng.u8(0..3) > 0 {
            return;
        }
        for session in &mut self.world.sessions {
            session.channels = match rng.bool() {
                true => reactors * 2,
                false => rng.usize(reactors + 1..=reactors * 2),
            };
        }
    }
}

impl World {
    /// Makes one random request.
    pub(super) fn ask(&mut self, scenario: &Scenario) {
        let there = (0..)
            .zip(&self.spec.sessions)
            .filter(|(session, _)| !self.is_leaving(*session));
        let units: Vec<u32> = there.flat_map(|(_, spec)| spec.luns.clone()).collect();
        let Some(number) = self.rng.choice(&units).copied() else {
            return;
        };
        if Odds::hit(&mut self.rng, scenario.killing) && !self.is_detaching() {
            self.kill_daemon(true);
        }
        let recovering = self
            .session_of(number)
            .is_some_and(|session| self.is_recovering(session));
        if !recovering && Odds::hit(&mut self.rng, scenario.plugging) {
            self.unplug(number);
            self.after(Span::micros(0, 1_000_000), Errand::Scenario(number));
        }
        if Odds::hit(&mut self.rng, scenario.closing) {
            let session = self.session_of(number).unwrap_or(0);
            if self.rng.bool() {
                self.close(session as usize);
            } else {
                self.log_out(session as usize);
            }
        }
        if Odds::hit(&mut self.rng, scenario.restarting) {
            let finish = self.rng.bool();
            self.fabric().restart(finish);
            self.after(ENABLE, Errand::Enable);
        }
        if Odds::hit(&mut self.rng, scenario.managing) {
            let functions = [
                UnitFunction::AbortTaskSet,
                UnitFunction::ClearTaskSet,
                UnitFunction::Reset,
            ];
            let session = self.session_of(number).unwrap_or(0) as usize;
            let function = self.rng.choice(&functions).copied();
            let shared = self.spec.fence == Fence::Relogin;
            if let Some(function) = function.filter(|function| !shared || *function != UnitFunction::Reset) {
                self.manage(session, number, function);
            }
        }
        let kind = self.rng.u8(0..100);
        if kind < 5 {
            let session = self.session_of(number).unwrap_or(0) as usize;
            let timeout = Duration::from_secs(10);
            if self.rng.bool() {
                self.control(session, number, Cdb::test_unit_ready(), 0, timeout);
            } else {
                self.control(session, number, Cdb::inquiry(96), 96, timeout);
            }
            return;
        }
        let Some(disk) = self.disk_spec(number) else { return };
        let most = u64::from(self.spec.max_transfer / disk.block_size).min(disk.blocks);
        let most = if self.rng.bool() { most.min(8) } else { most };
        for _ in 0..8 {
            let blocks = self.rng.u64(1..=most);
            let lba = self.rng.u64(0..=disk.blocks - blocks);
            let write = kind < 55;
            let blocks = u32::try_from(blocks).unwrap_or(1);
            let range = Range {
                lun: disk.lun,
                lba,
                blocks,
            };
            if self.client.shadow.is_free(range, write) {
                let fua = self.rng.bool();
                let operation = if write {
                    BlockOperation::Write { fua }
                } else {
                    BlockOperation::Read
                };
                self.submit(number, operation, lba, blocks);
                return;
            }
        }
        self.flush(number);
    }

    /// A disk comes back.
    pub(super) fn scenario(&mut self, number: u32) {
        if self
            .session_of(number)
            .is_none_or(|session| self.is_recovering(session) || self.is_leaving(session))
        {
            return;
        }
        self.remove(number);
        self.plug(number);
    }
}
