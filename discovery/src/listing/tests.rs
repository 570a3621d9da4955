use srp_addressing::{Gid, Guid, PKey, ServiceId, TargetOptions};

use super::*;
use crate::device_management::{IoController, IoUnit, Service, Slot, SlotError};
use crate::mad::{Attribute, MadStatus, SlotState};
use crate::ports::{LinkLayer, PortName};
use crate::targets::{RdmaCm, RdmaCmSource, SeenThrough, Target, TargetWarning, targets_of};
use crate::text::FabricText;

fn service(index: u8, name: &[u8], id: u64) -> Service {
    Service {
        index,
        name: FabricText::from_field(name),
        id: ServiceId(id),
    }
}

fn controller(services: Vec<Service>) -> IoController {
    IoController {
        guid: Guid(0x0002_c903_000e_8acd),
        vendor_id: 0x02c9,
        device_id: 0x1003,
        device_version: 0x00a1,
        subsystem_vendor_id: 0x1405,
        subsystem_id: 0x2010,
        io_class: 0x0100,
        io_subclass: 0x609e,
        protocol: 0x0108,
        protocol_version: 1,
        send_queue_depth: 128,
        rdma_read_depth: 4,
        send_size: 8276,
        rdma_size: 65536,
        capability_mask: 0x2b,
        id: FabricText::from_field(b"Linux SRP target"),
        service_entries: services.len() as u8,
        services,
        service_errors: vec![],
    }
}

fn unit() -> IoUnit {
    let srp = || service(0, b"SRP.T10:0002c903000e8acd", 0x0002_c903_000e_8acd);
    let slot = |number, state, controller| Slot {
        number,
        state,
        controller,
        same_as: None,
    };
    let failed = SlotError::Status {
        attribute: Attribute::IO_CONTROLLER_PROFILE,
        status: MadStatus::NO_CONTROLLER,
    };
    let mut odd = controller(vec![
        service(0, b"VNIC", 5),
        service(1, b"SRP.T10:../\n", 6),
        service(2, b"SRP.T10:AB", 7),
    ]);
    (odd.guid, odd.io_class, odd.id) = (Guid(9), 0xff00, FabricText::from_field(b"evil\x1b[2J"));
    let mut slots = vec![
        slot(1, SlotState::Present, Some(Ok(controller(vec![srp()])))),
        slot(2, SlotState::Present, Some(Ok(controller(vec![srp()])))),
        slot(3, SlotState::NotInstalled, None),
        slot(4, SlotState::Present, Some(Err(failed))),
        slot(5, SlotState::Present, Some(Ok(odd))),
        slot(6, SlotState::NoSlot, None),
        slot(7, SlotState::Unknown(3), None),
    ];
    slots[1].same_as = Some(1);
    IoUnit {
        lid: 0x0c,
        gid: "fe80::2:c903:e:8ace".parse::<Gid>().unwrap(),
        change_id: 1,
        max_controllers: 7,
        flags: 0x02,
        agent: None,
        slots,
        redirects: 0,
    }
}

fn seen(link_layer: LinkLayer, rdma_cm: Option<RdmaCm>) -> SeenThrough {
    let port = PortName {
        device: "mlx5_0".into(),
        number: 1,
    };
    SeenThrough {
        port,
        link_layer,
        pkey: PKey(0xffff),
        rdma_cm,
    }
}

fn rdma_cm(dest: &str, interface: Option<&str>) -> RdmaCm {
    let interface = interface.map(str::to_owned);
    RdmaCm {
        dest: dest.parse().unwrap(),
        interface,
        source: RdmaCmSource::Given,
    }
}

fn infiniband() -> Vec<Target> {
    targets_of(&unit(), &seen(LinkLayer::InfiniBand, None)).0
}

#[test]
fn listing_as_ibsrpdm_prints_it() {
    let expected = r"IO Unit Info:
    port LID:        000c
    port GID:        fe800000000000000002c903000e8ace
    change ID:       0001
    max controllers: 0x07

    controller[  1]
        GUID:      0002c903000e8acd
        vendor ID: 0002c9
        device ID: 001003
        IO class : 0100
        Maximum size of Send Messages in bytes: 8276
        ID:        Linux SRP target
        service entries: 1
            service[  0]: 0002c903000e8acd / SRP.T10:0002c903000e8acd


    controller[  5]
        GUID:      0000000000000009
        vendor ID: 0002c9
        device ID: 001003
        IO class : ff00
        Maximum size of Send Messages in bytes: 8276
        ID:        evil\x1b[2J
        service entries: 3
            service[  1]: 0000000000000006 / SRP.T10:../\x0a
            service[  2]: 0000000000000007 / SRP.T10:AB

";
    assert_eq!(io_unit(&unit(), Logins::ByService, ListingOptions::default()), expected);
    let all = ListingOptions {
        repeated: true,
        ..ListingOptions::default()
    };
    assert!(
        io_unit(&unit(), Logins::ByService, all).contains("    controller[  2]\n        GUID:      0002c903000e8acd\n")
    );
}

#[test]
fn listing_with_slots_and_rdma_cm() {
    let cm = rdma_cm("10.9.0.1:5555", None);
    let text = io_unit(
        &unit(),
        Logins::RdmaCm(&cm),
        ListingOptions {
            slots: true,
            repeated: false,
        },
    );
    let slots = "    max controllers: 0x07
    controller[  1]: present
    controller[  2]: present
    controller[  3]: not installed
    controller[  4]: present
    controller[  5]: present
    controller[  6]: no slot
    controller[  7]: <unknown>

    controller[  1]
";
    assert!(text.contains(slots), "{text}");
    let note = "        RDMA/CM:   10.9.0.1:5555 (port as given, targets do not announce it)\n";
    assert_eq!(text.matches(note).count(), 2);
    let text = io_unit(&unit(), Logins::RdmaCmUnknown, ListingOptions::default());
    assert_eq!(text.matches("        RDMA/CM:   port not known, ").count(), 2, "{text}");
    assert_eq!(text.matches("add --rdma-cm-port N\n").count(), 2, "{text}");
}

#[test]
fn targets_and_warnings() {
    let (targets, warnings) = targets_of(&unit(), &seen(LinkLayer::InfiniBand, None));
    let ids: Vec<_> = targets
        .iter()
        .map(|t| (t.slot, t.id_ext.as_str(), t.io_class))
        .collect();
    assert_eq!(ids, [(1, "0002c903000e8acd", 0x0100), (5, "AB", 0xff00)]);
    assert_eq!(targets[0].port_guid, Guid(0x0002_c903_000e_8ace));
    let [TargetWarning::BadServiceName { slot: 5, index: 1, .. }] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warnings[0].to_string().contains(r"SRP.T10:../\x0a"), "{}", warnings[0]);

    let mut unit = unit();
    if let Some(Ok(ioc)) = &mut unit.slots[0].controller {
        ioc.io_class = 0x0200;
    }
    let (targets, warnings) = targets_of(&unit, &seen(LinkLayer::InfiniBand, None));
    let slots: Vec<_> = targets.iter().map(|target| target.slot).collect();
    assert_eq!(slots, [5], "no line for a class that nobody takes");
    assert!(matches!(
        warnings[0],
        TargetWarning::UnknownIoClass { io_class: 0x0200, .. }
    ));
}

#[test]
fn lines_as_srp_daemon_prints_them() {
    let targets = infiniband();
    let line = |n: usize, options: &LineOptions| add_target_line(&targets[n], options).unwrap();
    let plain = LineOptions::default();
    assert_eq!(
        line(0, &plain),
        "id_ext=0002c903000e8acd,ioc_guid=0002c903000e8acd,dgid=fe800000000000000002c903000e8ace,\
         pkey=ffff,service_id=0002c903000e8acd"
    );
    assert_eq!(
        line(1, &plain),
        "id_ext=AB,ioc_guid=0000000000000009,dgid=fe800000000000000002c903000e8ace,\
         pkey=ffff,service_id=0000000000000007,io_class=ff00"
    );
    let all = LineOptions {
        initiator_ext: true,
        tl_retry_count: Some(2),
        rule_options: "queue_size=32,max_sect=1024".into(),
        max_imm_data: Some(9000),
    };
    assert_eq!(
        line(1, &all),
        "id_ext=AB,ioc_guid=0000000000000009,dgid=fe800000000000000002c903000e8ace,pkey=ffff,\
         service_id=0000000000000007,io_class=ff00,initiator_ext=0002c903000e8ace,tl_retry_count=2,\
         queue_size=32,max_sect=1024,max_it_iu_size=8276"
    );
    let fits = LineOptions {
        max_imm_data: Some(8276),
        ..plain
    };
    assert_eq!(line(0, &fits), line(0, &LineOptions::default()));
}

#[test]
fn roce_lines_need_a_port() {
    let target = |cm| targets_of(&unit(), &seen(LinkLayer::Ethernet, cm)).0.remove(0);
    let line = |cm| add_target_line(&target(cm), &LineOptions::default());
    let head = "id_ext=0002c903000e8acd,ioc_guid=0002c903000e8acd,dest=";
    assert_eq!(
        line(Some(rdma_cm("10.9.0.1:5555", None))).unwrap(),
        format!("{head}10.9.0.1:5555")
    );
    assert_eq!(
        line(Some(rdma_cm("[fd00::1]:5555", None))).unwrap(),
        format!("{head}[fd00::1]:5555")
    );
    let scoped = rdma_cm("[fe80::1]:5555", Some("eth9"));
    assert_eq!(line(Some(scoped)).unwrap(), format!("{head}[fe80::1%eth9]:5555"));
    let error = line(None).unwrap_err();
    assert!(error.to_string().contains("--rdma-cm-port"), "{error}");
}

#[test]
fn every_line_is_one_the_initiator_reads() {
    let cms = [rdma_cm("10.9.0.1:5555", None), rdma_cm("[fe80::1]:5555", Some("eth9"))];
    let roce = cms.map(|cm| targets_of(&unit(), &seen(LinkLayer::Ethernet, Some(cm))).0);
    let options = LineOptions {
        initiator_ext: true,
        tl_retry_count: Some(2),
        rule_options: "queue_size=32".into(),
        max_imm_data: Some(9000),
    };
    for target in infiniband().iter().chain(roce.iter().flatten()) {
        let line = add_target_line(target, &options).unwrap();
        let read: TargetOptions = line.parse().unwrap();
        assert_eq!(read.id_ext, u64::from_str_radix(&target.id_ext, 16).unwrap(), "{line}");
        assert_eq!(
            (read.ioc_guid, read.initiator_ext),
            (target.ioc_guid, Some(target.port_guid.0)),
            "{line}"
        );
        assert_eq!(read.io_class.code(), target.io_class, "{line}");
        assert_eq!((read.queue_size, read.max_it_iu_size), (Some(32), Some(8276)), "{line}");
    }
}

#[test]
fn a_line_that_is_too_long_is_refused() {
    let target = &infiniband()[0];
    let room = LINE_LIMIT - add_target_line(target, &LineOptions::default()).unwrap().len() - 1;
    let options = |len| LineOptions {
        rule_options: "x".repeat(len),
        ..LineOptions::default()
    };
    assert_eq!(add_target_line(target, &options(room)).unwrap().len(), LINE_LIMIT);
    let error = add_target_line(target, &options(room + 1)).unwrap_err();
    assert!(matches!(error, LineError::TooLong { len: 255, .. }), "{error}");
}

#[test]
fn json() {
    let cm = rdma_cm("10.9.0.1:5555", None);
    let target = targets_of(&unit(), &seen(LinkLayer::Ethernet, Some(cm))).0.remove(0);
    let expected = serde_json::json!({
        "id_ext": "0002c903000e8acd",
        "ioc_guid": "0002c903000e8acd",
        "dgid": "fe80:0000:0000:0000:0002:c903:000e:8ace",
        "lid": 12,
        "port_guid": "0002c903000e8ace",
        "pkey": "ffff",
        "service_id": "0002c903000e8acd",
        "service_name": "SRP.T10:0002c903000e8acd",
        "io_class": 0x0100,
        "ioc_id": "Linux SRP target",
        "vendor_id": 0x02c9,
        "device_id": 0x1003,
        "send_size": 8276,
        "rdma_size": 65536,
        "slot": 1,
        "port": "mlx5_0/1",
        "link_layer": "ethernet",
        "rdma_cm": { "dest": "10.9.0.1:5555", "source": "given" },
    });
    assert_eq!(serde_json::to_value(&target).unwrap(), expected);

    let json = serde_json::to_value(unit()).unwrap();
    assert_eq!(json["flags"], 2);
    let controller = &json["slots"][0]["controller"];
    assert_eq!(controller["id"], "Linux SRP target");
    let subsystem = ["device_version", "subsystem_vendor_id", "subsystem_id"].map(|key| controller[key].as_u64());
    assert_eq!(subsystem, [Some(0x00a1), Some(0x1405), Some(0x2010)]);
    assert_eq!(json["slots"][1]["same_as"], 1);
    assert_eq!(json["slots"][2]["state"], "not-installed");
    let error = json["slots"][3]["controller"]["error"].as_str().unwrap();
    assert!(error.contains("status 0x0100"), "{error}");
    assert_eq!(json["slots"][4]["controller"]["id"], r"evil\x1b[2J");
}
