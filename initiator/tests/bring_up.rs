//! Logging in to the model target, and bringing its logical units up through the engine.

mod directed;

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use directed::{finish, lun, spec};
use srp_addressing::PortId;
use srp_initiator::fabric::Exposure;
use srp_initiator::scsi::bringup::{Execute, ExecuteError, Reply, probe, report_luns};
use srp_initiator::scsi::sense::Sense;
use srp_initiator::scsi::{BlockError, Cdb, Lun};
use srp_initiator::session::{LoginParameters, reject_reason};
use srp_initiator::sim::{DiskSpec, Outcome, Profile, SimFabric, TargetProfile, World};
use srp_initiator::wire::{LoginRejectReason, LoginResponse, MultiChannel, MultiChannelResult};

/// Control requests, one after the other, with the clock running meanwhile.
struct Through(Mutex<World>);

impl Execute for Through {
    async fn execute(&self, lun: Lun, cdb: Cdb, data_in: u32) -> Result<Reply, ExecuteError> {
        let mut world = self.0.lock().expect("not poisoned");
        let number = u32::try_from(lun.index()).expect("small");
        let id = world.control(0, number, cdb, data_in, Duration::from_secs(10));
        while world.outcome(id).is_none() && world.step() {}
        world.verdict().unwrap_or_else(|report| panic!("{report}"));
        match directed::outcome(&world, id) {
            Outcome::Reply(Ok(reply)) => {
                let sense = Sense::parse(&reply.sense).ok();
                Ok(Reply {
                    status: reply.status,
                    sense,
                    data: reply.data,
                })
            }
            Outcome::Reply(Err(why)) => Err(why.into()),
            other => panic!("{other:?}"),
        }
    }

    async fn pause(&self, duration: Duration) {
        let mut world = self.0.lock().expect("not poisoned");
        world.run_for(duration).unwrap_or_else(|report| panic!("{report}"));
    }
}

/// The value of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits for somebody else"),
    }
}

#[test]
fn the_model_targets_disks_come_up() {
    let mut spec = spec(3);
    spec.target.disks[1] = DiskSpec {
        lun: lun(1),
        block_size: 4096,
        blocks: 100,
    };
    spec.target.attention_at_login = true;
    let through = Through(Mutex::new(World::new(spec)));
    let luns = now(report_luns(&through)).expect("a list");
    assert_eq!(luns, [Lun(lun(0)), Lun(lun(1)), Lun(lun(2))]);
    for (lun, size, blocks) in [(luns[0], 512, 2048), (luns[1], 4096, 100), (luns[2], 512, 2048)] {
        let unit = now(probe(&through, lun)).expect("answers");
        let disk = unit.disk.expect("a disk");
        assert_eq!((disk.block_size, disk.blocks), (size, blocks));
        assert!(disk.write_cache && unit.serial.is_some() && unit.identifier.is_some());
    }
    finish(&mut through.0.lock().expect("not poisoned"));
}

#[test]
fn a_control_request_without_a_channel_fails() {
    let mut world = World::new(spec(1));
    let qp = world.qp(0).expect("logged in");
    world.fabric().break_queue_pair(qp);
    finish(&mut world);
    let id = world.control(0, 0, Cdb::test_unit_ready(), 0, Duration::from_secs(1));
    finish(&mut world);
    assert_eq!(
        directed::outcome(&world, id),
        Outcome::Reply(Err(BlockError::Transport))
    );
}

fn parameters() -> LoginParameters {
    LoginParameters {
        initiator_port: PortId([1; 16]),
        target_port: PortId([2; 16]),
        descriptors: 12,
        max_it_iu_len: None,
        immediate_data: 8192,
    }
}

fn log_in(fabric: &mut SimFabric, parameters: &LoginParameters, multi: MultiChannel) -> LoginResponse {
    let connect = fabric
        .connect(
            &parameters.request(multi).encode(),
            8,
            u32::MAX,
            1 << 16,
            Exposure::Pool,
        )
        .expect("admitted");
    parameters.accept(&connect.private_data).expect("usable");
    SimFabric::response_of(&connect).expect("a response")
}

#[test]
fn a_single_login_ends_its_siblings_and_a_multi_login_joins_them() {
    let mut fabric = SimFabric::new(1, Profile::default(), TargetProfile::default());
    let mine = parameters();
    let other = LoginParameters {
        initiator_port: PortId([9; 16]),
        ..parameters()
    };
    let single = MultiChannel::Single;
    let result = |response: LoginResponse| response.multichannel;
    assert_eq!(
        result(log_in(&mut fabric, &mine, single)),
        MultiChannelResult::NoneExisted
    );
    assert_eq!(
        result(log_in(&mut fabric, &mine, MultiChannel::Multi)),
        MultiChannelResult::Maintained
    );
    assert_eq!(
        result(log_in(&mut fabric, &other, single)),
        MultiChannelResult::NoneExisted
    );
    assert_eq!(
        result(log_in(&mut fabric, &mine, single)),
        MultiChannelResult::Terminated
    );
    let response = log_in(&mut fabric, &other, MultiChannel::Multi);
    assert!(response.immediate_data && response.max_ti_iu_len == TargetProfile::default().max_response_len);
}

#[test]
fn logins_are_refused_for_the_reasons_the_standard_has() {
    let refuse = |change: fn(&mut TargetProfile), parameters: &LoginParameters, multi| {
        let mut profile = TargetProfile::default();
        change(&mut profile);
        let mut fabric = SimFabric::new(1, Profile::default(), profile);
        let login = parameters.request(multi).encode();
        let refusal = fabric
            .connect(&login, 8, u32::MAX, 1 << 16, Exposure::Pool)
            .expect_err("refused");
        reject_reason(&refusal.private_data).expect("a reject")
    };
    let single = MultiChannel::Single;
    let p = parameters();
    let long = LoginParameters {
        descriptors: 600,
        ..parameters()
    };
    assert_eq!(refuse(|_| (), &long, single), LoginRejectReason::IuTooLong);
    let wrong = LoginParameters {
        target_port: PortId([7; 16]),
        ..parameters()
    };
    assert_eq!(refuse(|_| (), &wrong, single), LoginRejectReason::NoNexus);
    let closed: fn(&mut TargetProfile) = |profile| profile.enabled = false;
    assert_eq!(refuse(closed, &p, single), LoginRejectReason::InsufficientResources);
    let acl: fn(&mut TargetProfile) = |profile| profile.initiators = Some(vec![PortId([5; 16])]);
    assert_eq!(refuse(acl, &p, single), LoginRejectReason::ChannelLimit);
    let one: fn(&mut TargetProfile) = |profile| profile.multichannel = false;
    assert_eq!(
        refuse(one, &p, MultiChannel::Multi),
        LoginRejectReason::MultiChannelUnsupported
    );
}
