//! What scans of InfiniBand subnets find, whatever their agents and their administration do.

mod traffic;

use std::time::Duration;

use srp_addressing::{Gid, Guid, PKey};

use super::*;
use crate::listing::{LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use crate::mad::{Attribute, ClassPortInfo, MadStatus};
use crate::model::subnet::{ModelPort, PREFIX, SM_LID, Subnet, Trouble};
use crate::model::{Agent, Controller, Mischief, RedirectAt};
use crate::neighbours::Neighbour;

struct Nobody;

impl Neighbours for Nobody {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(vec![])
    }

    fn look_for(&mut self, _: &[(std::net::IpAddr, Option<String>)]) {}
}

fn scan_from(port: Port, subnet: Subnet, options: &ScanOptions) -> ScanReport {
    let mut subnet = Some(subnet);
    let open = |_: &Port| Ok(subnet.take().unwrap());
    discover_with(&[port], &mut Nobody, open, options, &mut |_| {}).unwrap()
}

fn scan(subnet: Subnet) -> ScanReport {
    scan_from(Subnet::local_port(), subnet, &ScanOptions::default())
}

/// Three ports without an agent, two with one, and a switch.
fn subnet() -> Subnet {
    let mut switch = ModelPort::plain(0x50);
    switch.switch = true;
    Subnet::new([
        ModelPort::plain(0x10),
        ModelPort::target(0xa1),
        ModelPort::plain(0x11),
        ModelPort::target(0xa2),
        switch,
        ModelPort::plain(0x12),
    ])
}

fn lines(report: &ScanReport) -> Vec<String> {
    let line = |target| add_target_line(target, &LineOptions::default()).unwrap();
    report.targets.iter().map(line).collect()
}

fn line(guid: u64, pkey: &str) -> String {
    format!(
        "id_ext={guid:016x},ioc_guid={guid:016x},dgid=fe80000000000000{guid:016x},pkey={pkey},service_id={guid:016x}"
    )
}

fn both() -> Vec<String> {
    vec![line(0xa1, "ffff"), line(0xa2, "ffff")]
}

fn problems(report: &ScanReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn by_capability_mask_and_by_nodes() {
    let masked = scan(subnet());
    assert_eq!((lines(&masked), problems(&masked)), (both(), vec![]));
    assert_eq!(masked.targets[0].lid, 4);
    let text = io_unit(
        &masked.units[0].unit,
        Logins::of(&masked.units[0]),
        ListingOptions::default(),
    );
    assert!(
        text.contains("port LID:        0004\n    port GID:        fe8000000000000000000000000000a1\n"),
        "{text}"
    );

    let json = serde_json::to_value(&masked).unwrap();
    let node = &json["units"][0]["node"];
    assert_eq!(
        (&node["node_guid"], &node["system_guid"]),
        (&"00000000000010a1".into(), &"00000000000020a1".into())
    );
    assert_eq!((&node["vendor_id"], &node["port"]), (&0x02c9.into(), &2.into()));

    let mut old = subnet();
    old.matches_mask = false;
    let report = scan(old);
    assert_eq!((lines(&report), problems(&report)), (both(), vec![]));
}

#[test]
fn an_administration_that_does_as_it_likes() {
    let troubles = [
        Trouble::IgnoresMask,
        Trouble::Refuses(Attribute::PORT_INFO_RECORD, 0x000c),
        Trouble::Refuses(Attribute::SA_CLASS_PORT_INFO, 0x000c),
        Trouble::Busy(3),
    ];
    for trouble in troubles {
        let mut odd = subnet();
        // By nodes each port is asked for its PortInfoRecord, which this one refuses altogether.
        let refused = matches!(trouble, Trouble::Refuses(Attribute::PORT_INFO_RECORD, _));
        odd.trouble = trouble.clone();
        odd.wider = 3;
        let report = scan(odd);
        if refused {
            assert_eq!(
                (report.targets.len(), report.problems.len()),
                (0, 5),
                "{:?}",
                problems(&report)
            );
        } else {
            assert_eq!((lines(&report), problems(&report)), (both(), vec![]), "{trouble:?}");
        }
    }
}

#[test]
fn the_order_is_that_of_the_table_whoever_answers_first() {
    for matches_mask in [true, false] {
        let mut slow = subnet();
        slow.matches_mask = matches_mask;
        slow.trouble = Trouble::SlowAbout(4);
        let report = scan(slow);
        assert_eq!((lines(&report), problems(&report)), (both(), vec![]));
        let units: Vec<_> = report.units.iter().map(|found| found.unit.lid).collect();
        assert_eq!(units, [4, 6]);
    }
}

#[test]
fn an_administration_that_is_silent_or_dies() {
    let mut silent = subnet();
    silent.trouble = Trouble::Silent;
    let report = scan(silent);
    let [problem] = &report.problems[..] else {
        panic!("{:?}", problems(&report))
    };
    assert_eq!(problem.severity, Severity::Error);
    assert!(
        problem
            .to_string()
            .contains("LID 0x0001 to ClassPortInfo after 4 tries of 2000 ms"),
        "{problem}"
    );

    // One LID alone.
    let mut half = subnet();
    half.trouble = Trouble::SilentAbout(4);
    let report = scan(half);
    assert_eq!(lines(&report), [line(0xa2, "ffff")]);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].severity, Severity::Warning);

    // A fabric whose manager goes away is not asked for hours.
    let mut dies = Subnet::sized(2000, 20, false);
    dies.trouble = Trouble::Dies(100);
    let report = scan(dies);
    let lost = problems(&report)
        .iter()
        .filter(|p| p.contains("has stopped answering"))
        .count();
    assert!(lost >= 1 && report.problems.len() < 40, "{:?}", problems(&report));

    let mut cuts = Subnet::sized(20, 20, true);
    cuts.trouble = Trouble::Cuts;
    let report = scan(cuts);
    assert!(
        problems(&report)[0].contains("only the first 200 bytes"),
        "{:?}",
        problems(&report)
    );

    let mut busy = subnet();
    busy.trouble = Trouble::Busy(u32::MAX);
    let report = scan(busy);
    assert!(
        report.targets.is_empty() && problems(&report)[0].contains("busy"),
        "{:?}",
        problems(&report)
    );
}

#[test]
fn a_broken_target_stops_nobody() {
    let mut broken = subnet();
    broken.ports.get_mut(&4).unwrap().silent = true;
    let report = scan(broken);
    assert_eq!(lines(&report), [line(0xa2, "ffff")]);
    let [problem] = &problems(&report)[..] else {
        panic!("{:?}", problems(&report))
    };
    assert!(problem.starts_with("mlx5_0/1: LID 0x0004: no answer"), "{problem}");

    let mut refuses = subnet();
    refuses
        .ports
        .get_mut(&4)
        .unwrap()
        .agent
        .as_mut()
        .unwrap()
        .io_unit_info_status = MadStatus::BAD_METHOD_ATTRIBUTE.0;
    let report = scan(refuses);
    assert_eq!(lines(&report), [line(0xa2, "ffff")]);
    assert_eq!(report.problems.len(), 1);
}

#[test]
fn a_busy_target_is_asked_again() {
    let busy = |times, limit| {
        let mut subnet = subnet();
        subnet.ports.get_mut(&4).unwrap().agent.as_mut().unwrap().busy = times;
        let options = ScanOptions {
            at_once: 1,
            destination_limit: limit,
            ..ScanOptions::default()
        };
        scan_from(Subnet::local_port(), subnet, &options)
    };
    let report = busy(7, Duration::from_secs(60));
    assert_eq!((lines(&report), problems(&report)), (both(), vec![]));
    for (limit, why) in [(60, "busy, request discarded"), (3, "took longer")] {
        let report = busy(u32::MAX, Duration::from_secs(limit));
        assert_eq!(lines(&report), [line(0xa2, "ffff")]);
        assert!(problems(&report)[0].contains(why), "{:?}", problems(&report));
    }
}

#[test]
fn ibsrpdm_counts_every_slot() {
    let mut twice = subnet();
    let slots = &mut twice.ports.get_mut(&4).unwrap().agent.as_mut().unwrap().slots;
    slots.insert(2, Controller::srp(0xa1));
    let report = scan(twice);
    assert_eq!(lines(&report), both());
    let every = report.units.iter().flat_map(FoundUnit::every_target);
    let every: Vec<_> = every.map(|target| (target.slot, target.ioc_guid.0)).collect();
    assert_eq!(every, [(1, 0xa1), (2, 0xa1), (1, 0xa2)]);
}

#[test]
fn partitions() {
    let mut port = Subnet::local_port();
    port.pkeys = vec![(0, PKey(0x7fff)), (3, PKey(0x8001)), (4, PKey(0x8002))];
    let mut subnet = subnet();
    subnet.ports.get_mut(&4).unwrap().pkeys = vec![0xffff, 0x8002, 0x0001];
    subnet.ports.get_mut(&6).unwrap().pkeys = vec![0x8005];
    let report = scan_from(port, subnet, &ScanOptions::default());
    assert_eq!(
        lines(&report),
        [line(0xa1, "7fff"), line(0xa1, "8001"), line(0xa1, "8002")]
    );
    let [problem] = &report.problems[..] else {
        panic!("{:?}", problems(&report))
    };
    assert_eq!(problem.severity, Severity::Warning);
    let text = problem.to_string();
    assert!(
        text.contains("shares no partition") && text.contains("7fff, 8001, 8002"),
        "{text}"
    );
}

#[test]
fn ports_that_are_named() {
    let gid = Gid::new(PREFIX, Guid(0xa2));
    let plain = Gid::new(PREFIX, Guid(0x11));
    let unknown = Gid::new(PREFIX, Guid(0x99));
    let options = ScanOptions {
        destinations: [gid, plain, unknown]
            .iter()
            .map(|gid| gid.to_string().parse().unwrap())
            .collect(),
        ..ScanOptions::default()
    };
    let report = scan_from(Subnet::local_port(), subnet(), &options);
    assert_eq!(lines(&report), [line(0xa2, "ffff")]);
    assert_eq!(report.units[0].unit.lid, 6);
    assert_eq!(report.problems.len(), 2, "{:?}", problems(&report));
    assert!(report.problems.iter().all(|p| p.severity == Severity::Error));
}

#[test]
fn named_and_found_through_one_of_two_ports() {
    let port = |number| Port {
        name: PortName {
            number,
            ..Subnet::local_port().name
        },
        ..Subnet::local_port()
    };
    let ports = [port(1), port(2)];
    let named = |destination: &str| {
        let options = ScanOptions {
            destinations: vec![destination.parse().unwrap()],
            ..ScanOptions::default()
        };
        let fabric = |port: &Port| match port.name.number {
            1 => Ok(Subnet::new([ModelPort::target(0xa1)])),
            _ => Ok(Subnet::new([ModelPort::target(0xa2)])),
        };
        discover_with(&ports, &mut Nobody, fabric, &options, &mut |_| {}).unwrap()
    };
    let worst = |report: &ScanReport| report.problems.iter().map(|problem| problem.severity).max();
    let report = named("fe80::a2");
    assert_eq!(lines(&report), [line(0xa2, "ffff")]);
    assert_eq!(worst(&report), Some(Severity::Note), "{:?}", report.problems);
    let report = named("fe80::a3");
    assert_eq!((report.units.len(), worst(&report)), (0, Some(Severity::Error)));
    // No port here can be asked for an address.
    let report = named("10.9.0.1");
    assert_eq!((report.units.len(), worst(&report)), (0, Some(Severity::Error)));
}

#[test]
fn redirections() {
    let elsewhere = |lid: u16, gid: Option<Gid>| {
        let info = ClassPortInfo {
            redirect_lid: lid.into(),
            redirect_gid: gid.map_or([0; 16], |gid| gid.0),
            ..ClassPortInfo::default()
        };
        let mut subnet = subnet();
        subnet.ports.get_mut(&4).unwrap().agent.as_mut().unwrap().redirect = Some(info);
        let behind = Agent::with([(1, Controller::srp(0xbb))]);
        subnet.ports.get_mut(&5).unwrap().agent = Some(behind);
        scan(subnet)
    };
    let behind = Gid::new(PREFIX, Guid(0x11));
    for report in [
        elsewhere(5, Some(behind)),
        elsewhere(0, Some(behind)),
        elsewhere(5, None),
    ] {
        assert_eq!(problems(&report), Vec::<String>::new());
        assert_eq!(report.targets[0].id_ext, "00000000000000bb");
        assert_eq!((report.units[0].unit.lid, report.units[0].unit.gid), (5, behind));
    }
    // Home, by GID alone.
    let home = elsewhere(0, Some(Gid::new(PREFIX, Guid(0xa1))));
    assert_eq!((lines(&home), problems(&home)), (both(), vec![]));
    let lost = elsewhere(0, Some(Gid::new(PREFIX, Guid(0x99))));
    assert_eq!(lines(&lost), [line(0xa2, "ffff")]);
    assert!(problems(&lost)[0].contains("knows no way"), "{:?}", problems(&lost));

    // One that sends everybody back to itself is not asked for ever.
    let mut turns = subnet();
    turns.ports.get_mut(&4).unwrap().agent.as_mut().unwrap().redirect_at = Some(RedirectAt {
        attribute: Attribute::IO_UNIT_INFO,
        to: ClassPortInfo {
            redirect_gid: Gid::new(PREFIX, Guid(0xa1)).0,
            ..ClassPortInfo::default()
        },
        renamed: false,
    });
    let turns = scan(turns);
    assert_eq!(lines(&turns), [line(0xa2, "ffff")]);
    assert!(
        problems(&turns)[0].contains("gave up after 4 redirections"),
        "{:?}",
        problems(&turns)
    );
}

#[test]
fn a_port_without_a_manager() {
    let mut port = Subnet::local_port();
    port.sm_lid = 0;
    let report = scan_from(port, subnet(), &ScanOptions::default());
    assert!(
        problems(&report)[0].contains("knows no subnet manager"),
        "{:?}",
        problems(&report)
    );
}

#[test]
fn a_port_without_a_partition() {
    let mut port = Subnet::local_port();
    port.pkeys.clear();
    let report = scan_from(port, subnet(), &ScanOptions::default());
    let [problem] = &report.problems[..] else {
        panic!("{:?}", problems(&report))
    };
    assert_eq!(problem.severity, Severity::Error);
    assert!(problem.to_string().contains("P_Key table is empty"), "{problem}");
}

#[test]
fn many_ports_many_targets() {
    for matches_mask in [true, false] {
        let mut told = 0;
        let mut last = None;
        let mut subnet = Some(Subnet::sized(10_000, 500, matches_mask));
        let open = |_: &Port| Ok(subnet.take().unwrap());
        let mut progress = |progress: &Progress| {
            told += 1;
            last = Some(progress.clone());
        };
        let report = discover_with(
            &[Subnet::local_port()],
            &mut Nobody,
            open,
            &ScanOptions::default(),
            &mut progress,
        );
        let report = report.unwrap();
        assert_eq!(
            (report.targets.len(), report.units.len(), report.problems.len()),
            (500, 500, 0)
        );
        let last = last.unwrap();
        assert_eq!((last.left, last.units, last.asked), (0, 500, told));
    }
}

#[test]
fn agents_that_misbehave_cost_only_themselves() {
    let later = |seconds| Mischief::Late(Duration::from_secs(seconds));
    let bad = [
        Mischief::Silent,
        Mischief::WrongTid,
        Mischief::WrongClass,
        Mischief::WrongAttribute,
        Mischief::Truncated(15),
        Mischief::Truncated(100),
        Mischief::OtherSource,
        Mischief::Lossy(4),
        Mischief::CannotSend,
        Mischief::Flood,
        later(60),
    ];
    let good = [Mischief::None, Mischief::Duplicates, Mischief::Lossy(2), later(1)];
    let mut subnet = Subnet::sized(200, 100, true);
    let mut kinds = bad
        .iter()
        .map(|kind| (kind, false))
        .chain(good.iter().map(|kind| (kind, true)))
        .cycle();
    let mut expected = Vec::new();
    let mut blamed = Vec::new();
    for (lid, port) in &mut subnet.ports {
        let Some(agent) = &mut port.agent else { continue };
        let (kind, is_good) = kinds.next().unwrap();
        agent.mischief = *kind;
        match is_good {
            true => expected.push(line(port.guid, "ffff")),
            false => blamed.push(format!("LID 0x{lid:04x}")),
        }
    }
    let report = scan(subnet);
    assert_eq!(lines(&report), expected);
    let mut problems: Vec<_> = report.problems.iter().map(|p| p.destination.clone().unwrap()).collect();
    problems.sort();
    assert_eq!(problems, blamed);
    assert!(report.problems.iter().all(|p| p.severity == Severity::Warning));
}
