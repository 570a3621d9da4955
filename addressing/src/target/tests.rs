//! The text that people paste, there and back, and what is said of a wrong one.

use proptest::prelude::*;

use super::*;
use crate::{HostAddress, Scope};

const LINE: &str = "id_ext=0002c903000e8acc,ioc_guid=0002c903000e8acc,\
                    dgid=fe800000000000000002c903000e8acd,pkey=ffff,service_id=0002c903000e8acc";
const RDMA_CM: &str = "id_ext=1,ioc_guid=2,dest=192.0.2.1:5555";

fn parse(text: &str) -> Result<TargetOptions, ParseTargetError> {
    text.parse()
}

#[test]
fn infiniband_line() {
    let target = parse(LINE).unwrap();
    let guid = Guid(0x0002_c903_000e_8acc);
    let transport = Transport::InfiniBand {
        dgid: "fe80::2:c903:e:8acd".parse().unwrap(),
        pkey: PKey::DEFAULT,
        service_id: ServiceId(guid.0),
    };
    assert_eq!(target, TargetOptions::new(guid.0, guid, transport));
    assert_eq!(target.to_string(), LINE);
    assert_eq!(target.target_port().to_string(), "0x0002c903000e8acc0002c903000e8acc");
    let port = target.initiator_port(Guid(0x1122));
    assert_eq!(port.to_string(), "0x00000000000000000000000000001122");
    // Given as what it is anyway, it is still given.
    let chosen = parse(&format!("{LINE},initiator_ext=0")).unwrap();
    assert_eq!(
        (chosen.initiator_ext, chosen.initiator_port(Guid(0x1122))),
        (Some(0), port)
    );
}

#[test]
fn every_key() {
    let text = format!(
        "{LINE},io_class=ff00,initiator_ext=0000000000000200,tl_retry_count=2,max_sect=8192,\
         max_cmd_per_lun=16,target_can_queue=64,queue_size=128,ch_count=4,cmd_sg_entries=255,\
         allow_ext_sg=1,sg_tablesize=2048,comp_vector=3,max_it_iu_size=996,exposure=window,fence=relogin,logout=iu"
    );
    let target = parse(&text).unwrap();
    assert_eq!(target.to_string(), text);
    assert_eq!(target.io_class, IoClass::Rev10);
    assert_eq!(target.initiator_ext, Some(0x200));
    assert_eq!(target.target_port().0[..8], target.ioc_guid.0.to_be_bytes());
    assert_eq!((target.tl_retry_count, target.max_sect), (Some(2), Some(8192)));
    assert_eq!((target.max_cmd_per_lun, target.target_can_queue), (Some(16), Some(64)));
    assert_eq!((target.queue_size, target.ch_count), (Some(128), Some(4)));
    assert_eq!((target.max_it_iu_size, target.allow_ext_sg), (Some(996), Some(true)));
    assert_eq!(
        (target.exposure, target.fence),
        (Some(Exposure::Window), Some(Fence::Relogin))
    );
    assert_eq!(target.logout, Some(Logout::Iu));
    assert_eq!(
        target.ignored_options(),
        ["allow_ext_sg", "sg_tablesize", "comp_vector"]
    );
    assert!(parse(LINE).unwrap().ignored_options().is_empty());
}

#[test]
fn kernel_syntax() {
    let text = "\n,id_ext=0x1,,ioc_guid=2 ,queue_size=010,ch_count=0x10,max_it_iu_size=0,\
                dest=[fe80::1%eth0]:5555,queue_size=020\nid_ext=3,src=[fe80::2%4]\n";
    let target = parse(text).unwrap();
    assert_eq!(
        (target.id_ext, target.queue_size, target.ch_count),
        (3, Some(16), Some(16))
    );
    assert_eq!(target.max_it_iu_size, None);
    let endpoint = |ip: &str, scope, port| Endpoint {
        host: HostAddress {
            ip: ip.parse().unwrap(),
            scope: Some(scope),
        },
        port,
    };
    assert_eq!(
        target.transport,
        Transport::RdmaCm {
            dest: endpoint("fe80::1", Scope::Name("eth0".to_owned()), 5555),
            src: Some(endpoint("fe80::2", Scope::Index(4), 0)),
        }
    );
    assert_eq!(parse(&target.to_string()), Ok(target));
    // Both transports: dest decides.
    let both = parse(&format!("{LINE},dest=192.0.2.1:5555")).unwrap();
    assert!(matches!(both.transport, Transport::RdmaCm { .. }));
}

#[test]
fn bad_values_name_the_key() {
    let bad = [
        "id_ext=",
        "id_ext=g",
        "id_ext=12345678901234567",
        "ioc_guid=-1",
        "dgid=fe80",
        "pkey=10000",
        "service_id=x",
        "dest=192.0.2.1",
        "dest=host:1",
        "src=host",
        "io_class=0200",
        "initiator_ext=zz",
        "tl_retry_count=1",
        "tl_retry_count=8",
        "max_sect=-1",
        "max_cmd_per_lun=0",
        "target_can_queue=0",
        "queue_size=0",
        "queue_size=08",
        "queue_size=2147483648",
        "ch_count=0",
        "cmd_sg_entries=0",
        "cmd_sg_entries=256",
        "allow_ext_sg=yes",
        "sg_tablesize=2049",
        "comp_vector=-1",
        "max_it_iu_size=1k",
    ];
    for token in bad {
        let (name, value) = token.split_once('=').unwrap();
        for line in [LINE, RDMA_CM] {
            let error = parse(&format!("{line},{token}")).unwrap_err();
            let ParseTargetError::BadValue { key, value: shown, .. } = &error else {
                panic!("{token}: {error}")
            };
            assert_eq!((*key, shown.as_str()), (name, value));
        }
    }
    let error = parse("tl_retry_count=9").unwrap_err();
    assert_eq!(error.to_string(), "tl_retry_count=9: expected a number from 2 to 7");
}

#[test]
fn unknown_keys_are_explained() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    let typo = message("id_ext=1,ioc_giud=2");
    assert!(typo.starts_with("unknown option \"ioc_giud\" (did you mean ioc_guid?): valid are id_ext"));
    assert!(message("frobnicate=1").starts_with("unknown option \"frobnicate\": valid are"));
    assert!(message("allow_duplicates=1").contains("initiator_ext"));
    assert!(message("dev_loss_tmo=60").contains("timers"));
    assert_eq!(message("queue_size"), "\"queue_size\" has no value: write key=value");
    assert!(message("hello").starts_with("unknown option \"hello\""));
}

#[test]
fn missing_keys_are_named() {
    let missing = |text: &str| match parse(text) {
        Err(ParseTargetError::Missing(keys)) => keys.join(" "),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(missing(""), "id_ext ioc_guid dest (or dgid, pkey, service_id)");
    assert_eq!(missing("id_ext=1,ioc_guid=1"), "dest (or dgid, pkey, service_id)");
    assert_eq!(missing("id_ext=1,pkey=ffff"), "ioc_guid dgid service_id");
    assert_eq!(missing("dest=192.0.2.1:5555"), "id_ext ioc_guid");
}

fn endpoint(port: std::ops::RangeInclusive<u16>) -> impl Strategy<Value = Endpoint> {
    let v6 = (any::<[u8; 16]>(), prop::option::of(1u32..)).prop_map(|(ip, scope)| HostAddress {
        ip: ip.into(),
        scope: scope.map(Scope::Index),
    });
    let v4 = any::<[u8; 4]>().prop_map(|ip| HostAddress {
        ip: ip.into(),
        scope: None,
    });
    (prop_oneof![v6, v4], port).prop_map(|(host, port)| Endpoint { host, port })
}

fn transport() -> impl Strategy<Value = Transport> {
    let infiniband = any::<([u8; 16], u16, u64)>().prop_map(|(dgid, pkey, service_id)| Transport::InfiniBand {
        dgid: Gid(dgid),
        pkey: PKey(pkey),
        service_id: ServiceId(service_id),
    });
    let rdma_cm = (endpoint(1..=u16::MAX), prop::option::of(endpoint(0..=u16::MAX)))
        .prop_map(|(dest, src)| Transport::RdmaCm { dest, src });
    prop_oneof![infiniband, rdma_cm]
}

fn target() -> impl Strategy<Value = TargetOptions> {
    let at_least_1 = || prop::option::of(1u32..=i32::MAX as u32);
    let at_least_0 = || prop::option::of(0u32..=i32::MAX as u32);
    let names = (
        any::<u64>(),
        any::<u64>(),
        transport(),
        any::<bool>(),
        any::<Option<u64>>(),
    );
    let limits = (
        at_least_0(),
        at_least_1(),
        at_least_1(),
        at_least_1(),
        at_least_1(),
        at_least_1(),
    );
    let rest = (
        prop::option::of(2u8..=7),
        prop::option::of(1u8..),
        any::<Option<bool>>(),
        prop::option::of(1u16..=2048),
        at_least_0(),
        prop_oneof![Just(None), Just(Some(Exposure::Pool)), Just(Some(Exposure::Window))],
        prop_oneof![Just(None), Just(Some(Fence::LunReset)), Just(Some(Fence::Relogin))],
        prop_oneof![Just(None), Just(Some(Logout::Disconnect)), Just(Some(Logout::Iu))],
    );
    (names, limits, rest).prop_map(|(names, limits, rest)| TargetOptions {
        io_class: if names.3 { IoClass::Rev10 } else { IoClass::Rev16a },
        initiator_ext: names.4,
        max_sect: limits.0,
        max_cmd_per_lun: limits.1,
        target_can_queue: limits.2,
        queue_size: limits.3,
        max_it_iu_size: limits.4,
        ch_count: limits.5,
        tl_retry_count: rest.0,
        cmd_sg_entries: rest.1,
        allow_ext_sg: rest.2,
        sg_tablesize: rest.3,
        comp_vector: rest.4,
        exposure: rest.5,
        fence: rest.6,
        logout: rest.7,
        ..TargetOptions::new(names.0, Guid(names.1), names.2)
    })
}

proptest! {
    #[test]
    fn printed_text_reads_back_equal(target in target()) {
        prop_assert_eq!(target.to_string().parse::<TargetOptions>(), Ok(target));
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,80}", value in "\\PC{0,40}", key in 0..super::key::KEYS.len()) {
        let tail = format!("{RDMA_CM},{}={value}", super::key::KEYS[key].0);
        for text in [text, tail] {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
