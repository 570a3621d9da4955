use std::net::IpAddr;

use srp_addressing::{Gid, PKey};

use super::*;
use crate::listing::{LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use crate::model::{Agent, Controller, Fabric, Mischief};
use crate::neighbours::Neighbour;
use crate::ports::{GidEntry, GidType, PortState, gid_of, link_local_of_mac};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn port(device: &str, interface: &str, mac: [u8; 6], addresses: &[&str]) -> Port {
    let own = addresses.iter().map(|a| gid_of(a.parse().unwrap()));
    let gids = std::iter::once(link_local_of_mac(mac))
        .chain(own)
        .zip(0..)
        .map(|(gid, index)| GidEntry {
            index,
            gid,
            kind: Some(GidType::RoceV2),
            interface: Some(interface.into()),
        });
    Port {
        name: PortName {
            device: device.into(),
            number: 1,
        },
        link_layer: LinkLayer::Ethernet,
        state: PortState::Active,
        lid: 0,
        sm_lid: 0,
        sm_sl: 0,
        node_guid: None,
        gids: gids.collect(),
        pkeys: vec![(0, PKey::DEFAULT)],
        umad: Some("/dev/infiniband/umad0".into()),
    }
}

#[derive(Default)]
struct Known {
    now: Vec<Neighbour>,
    later: Vec<Neighbour>,
    looked_for: Vec<String>,
}

impl Neighbours for Known {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(self.now.clone())
    }

    fn look_for(&mut self, wanted: &[(IpAddr, Option<String>)]) {
        self.looked_for
            .extend(wanted.iter().map(|(address, _)| address.to_string()));
        self.now.append(&mut self.later);
    }
}

fn near(address: &str) -> Neighbour {
    Neighbour {
        address: address.parse().unwrap(),
        mac: NEAR,
        interface: "eth9".into(),
    }
}

/// What the host knows of the one neighbour that has an agent.
fn both() -> Vec<Neighbour> {
    vec![near("10.9.0.2"), near("fe80::ff:fe00:2")]
}

fn agents() -> Vec<(Gid, Agent)> {
    let agent = |guid| Agent::with([(1, Controller::srp(guid)), (2, Controller::srp(guid))]);
    vec![(link_local_of_mac(OWN), agent(1)), (link_local_of_mac(NEAR), agent(2))]
}

fn options(destinations: &[&str]) -> ScanOptions {
    ScanOptions {
        destinations: destinations.iter().map(|d| d.parse().unwrap()).collect(),
        rdma_cm_port: NonZeroU16::new(5555),
        ..ScanOptions::default()
    }
}

fn scan(known: &mut Known, options: &ScanOptions) -> ScanReport {
    let ports = [port("rxe0", "eth9", OWN, &["10.9.0.1", "fd00::1"])];
    discover_with(&ports, known, |_| Ok(Fabric::new(agents())), options, &mut |_| {}).unwrap()
}

fn lines(report: &ScanReport) -> Vec<String> {
    let line = |t| add_target_line(t, &LineOptions::default()).unwrap();
    report.targets.iter().map(line).collect()
}

fn line(guid: u8, dest: &str) -> String {
    format!("id_ext={guid:016x},ioc_guid={guid:016x},dest={dest}:5555")
}

#[test]
fn the_host_itself_and_its_neighbours() {
    let mut known = Known {
        now: both(),
        ..Known::default()
    };
    let report = scan(&mut known, &options(&[]));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(lines(&report), [line(1, "10.9.0.1"), line(2, "10.9.0.2")]);
    assert_eq!(report.units[0].destination, "this host");
    assert_eq!(report.units[0].unit.slots[1].same_as, Some(1));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["units"][1]["destination"], "10.9.0.2");
    assert_eq!(json["units"][1]["max_controllers"], 16);
    assert_eq!(json["targets"][1]["rdma_cm"]["source"], "given");

    let neither = ScanOptions {
        include_local: false,
        include_neighbours: false,
        ..options(&[])
    };
    assert!(scan(&mut known, &neither).units.is_empty());
}

#[test]
fn progress_is_told() {
    let ports = [port("rxe0", "eth9", OWN, &["10.9.0.1"])];
    let mut known = Known {
        now: both(),
        ..Known::default()
    };
    let mut told: Vec<(u64, u64, usize)> = Vec::new();
    let mut progress = |progress: &Progress| {
        assert_eq!(progress.port.to_string(), "rxe0/1");
        told.push((progress.asked, progress.left, progress.units));
    };
    let open = |_: &Port| Ok(Fabric::new(agents()));
    discover_with(&ports, &mut known, open, &options(&[]), &mut progress).unwrap();
    // Each agent: itself, its unit, two controllers with their services.
    let asked: Vec<u64> = told.iter().map(|(asked, ..)| *asked).collect();
    assert_eq!(asked, (1..=12).collect::<Vec<_>>());
    assert_eq!((told[0], told[11]), ((1, 2, 0), (12, 0, 2)));
}

#[test]
fn without_a_port_the_listing_says_what_to_add() {
    let mut known = Known {
        now: both(),
        ..Known::default()
    };
    let mut told = |rdma_cm_port| {
        let options = ScanOptions {
            rdma_cm_port,
            ..options(&[])
        };
        let report = scan(&mut known, &options);
        let found = &report.units[0];
        assert_eq!(found.link_layer, LinkLayer::Ethernet);
        io_unit(&found.unit, Logins::of(found), ListingOptions::default())
    };
    assert!(told(None).contains("add --rdma-cm-port"), "{}", told(None));
    let given = told(NonZeroU16::new(5555));
    assert!(
        given.contains("10.9.0.1:5555") && !given.contains("--rdma-cm-port"),
        "{given}"
    );
}

#[test]
fn addresses_become_gids() {
    let mut known = Known {
        now: vec![near("10.9.0.2")],
        ..Known::default()
    };
    let report = scan(&mut known, &options(&["10.9.0.1", "10.9.0.2", "fe80::ff:fe00:2%eth9"]));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(lines(&report), [line(1, "10.9.0.1"), line(2, "10.9.0.2")]);

    let report = scan(&mut Known::default(), &options(&["fe80::ff:fe00:2"]));
    assert_eq!(lines(&report), [line(2, "[fe80::ff:fe00:2%eth9]")]);
}

#[test]
fn an_unknown_neighbour_is_looked_for() {
    let mut known = Known {
        later: vec![near("10.9.0.2")],
        ..Known::default()
    };
    let report = scan(&mut known, &options(&["10.9.0.2", "10.9.0.3"]));
    assert_eq!(lines(&report), [line(2, "10.9.0.2")]);
    assert_eq!(known.looked_for, ["10.9.0.2", "10.9.0.3"]);
    let [problem] = &report.problems[..] else {
        panic!("{:?}", report.problems)
    };
    assert_eq!(problem.severity, Severity::Error);
    assert!(
        problem.to_string().contains("10.9.0.3: the host knows no MAC address"),
        "{problem}"
    );
}

#[test]
fn neighbours_are_looked_for_by_ipv6_before_they_are_asked() {
    let mut known = Known {
        now: vec![near("10.9.0.2")],
        later: both(),
        ..Known::default()
    };
    assert_eq!(
        lines(&scan(&mut known, &options(&[]))),
        [line(1, "10.9.0.1"), line(2, "10.9.0.2")]
    );
    assert_eq!(known.looked_for, ["fe80::ff:fe00:2"]);

    let mut known = Known {
        now: vec![near("10.9.0.2")],
        ..Known::default()
    };
    let report = scan(&mut known, &options(&[]));
    assert_eq!(lines(&report), [line(1, "10.9.0.1")]);
    assert_eq!(report.problems[0].severity, Severity::Note);
    let text = report.problems[0].to_string();
    assert!(text.contains("nobody answers for fe80::ff:fe00:2 on eth9"), "{text}");
}

#[test]
fn ipv4_gids_are_refused_with_another_one() {
    let report = scan(&mut Known::default(), &options(&["::ffff:10.9.0.1", "::ffff:10.9.0.7"]));
    assert!(report.targets.is_empty());
    let [own, other] = &report.problems[..] else {
        panic!("{:?}", report.problems)
    };
    let own = own.to_string();
    assert!(own.ends_with("use fe80:0000:0000:0000:0000:00ff:fe00:0001"), "{own}");
    assert!(own.contains("the kernel drops"), "{own}");
    assert!(other.to_string().contains("use the target's link-local GID"), "{other}");
}

#[test]
fn silence_is_an_error_only_for_those_named() {
    let mut silent = agents();
    silent[1].1.mischief = Mischief::Silent;
    let ports = [port("rxe0", "eth9", OWN, &["10.9.0.1"])];
    let run = |options: &ScanOptions| {
        let mut known = Known {
            now: vec![near("10.9.0.2")],
            ..Known::default()
        };
        let open = |_: &Port| Ok(Fabric::new(silent.clone()));
        discover_with(&ports, &mut known, open, options, &mut |_| {}).unwrap()
    };
    let report = run(&options(&[]));
    assert_eq!(report.targets.len(), 1);
    assert_eq!(report.problems[0].severity, Severity::Note);
    let report = run(&options(&["10.9.0.2"]));
    assert_eq!(report.problems[0].severity, Severity::Error);
    let text = report.problems[0].to_string();
    assert!(text.starts_with("rxe0/1: 10.9.0.2: no answer from GID fe80"), "{text}");
}

#[test]
fn a_busy_agent_is_asked_again() {
    let mut busy = agents();
    busy[1].1.busy = 7;
    let ports = [port("rxe0", "eth9", OWN, &["10.9.0.1"])];
    let run = |busy: &[(Gid, Agent)], limit| {
        let mut known = Known {
            now: both(),
            ..Known::default()
        };
        let options = ScanOptions {
            destination_limit: Duration::from_secs(limit),
            ..options(&[])
        };
        let open = |_: &Port| Ok(Fabric::new(busy.to_vec()));
        discover_with(&ports, &mut known, open, &options, &mut |_| {}).unwrap()
    };
    let report = run(&busy, 60);
    assert_eq!(lines(&report), [line(1, "10.9.0.1"), line(2, "10.9.0.2")]);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    busy[1].1.busy = u32::MAX;
    for limit in [3, 60] {
        let report = run(&busy, limit);
        assert_eq!(lines(&report), [line(1, "10.9.0.1")]);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    }
}

#[test]
fn two_ports_and_addresses_of_this_host() {
    let ports = [
        port("rxe0", "eth9", OWN, &["10.9.0.1"]),
        port("rxe1", "eth10", NEAR, &["10.9.1.1"]),
    ];
    let run = |options: &ScanOptions| {
        let open = |_: &Port| Ok(Fabric::new(agents()));
        discover_with(&ports, &mut Known::default(), open, options, &mut |_| {})
    };
    let report = run(&options(&["10.9.1.1"])).unwrap();
    let through: Vec<_> = report.targets.iter().map(|t| t.port.to_string()).collect();
    assert_eq!(through, ["rxe1/1"], "an own address is asked through its own port");

    let all = run(&options(&[])).unwrap();
    assert_eq!(lines(&all), [line(1, "10.9.0.1"), line(2, "10.9.1.1")]);

    let one = ScanOptions {
        ports: vec!["rxe1:1".into()],
        ..options(&[])
    };
    assert_eq!(lines(&run(&one).unwrap()), [line(2, "10.9.1.1")]);

    let none = ScanOptions {
        ports: vec!["mlx9".into()],
        ..options(&[])
    };
    let error = run(&none).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no RDMA port mlx9; there are: rxe0/1, rxe1/1"
    );
}

#[test]
fn ports_that_cannot_be_used() {
    let closed = |port: &Port| -> Result<Fabric, OpenError> {
        Err(OpenError::NoModule {
            port: port.name.to_string(),
        })
    };
    let none = discover_with(&[], &mut Known::default(), closed, &options(&[]), &mut |_| {}).unwrap_err();
    assert!(matches!(none, ScanError::NoPort), "{none}");
    let mut iwarp = port("siw0", "eth9", OWN, &[]);
    iwarp.link_layer = LinkLayer::Unknown;
    let named = ScanOptions {
        ports: vec!["siw0".into()],
        ..options(&[])
    };
    let report = discover_with(&[iwarp], &mut Known::default(), closed, &named, &mut |_| {}).unwrap();
    assert!(matches!(report.problems[0].cause, Cause::LinkLayer));

    let ports = [port("rxe0", "eth9", OWN, &[])];
    let report = discover_with(&ports, &mut Known::default(), closed, &options(&[]), &mut |_| {}).unwrap();
    let text = report.problems[0].to_string();
    assert_eq!(report.problems[0].severity, Severity::Error, "no port could be used");
    assert!(text.contains("modprobe ib_umad"), "{text}");

    let mut down = port("rxe0", "eth9", OWN, &[]);
    down.state = PortState::Down;
    let report = discover_with(
        &[down],
        &mut Known::default(),
        closed,
        &options(&["10.9.0.9"]),
        &mut |_| {},
    )
    .unwrap();
    assert!(
        report.problems[0]
            .to_string()
            .contains("rxe0/1 is DOWN, not ACTIVE: is the cable in")
    );

    let mut bare = port("rxe0", "eth9", OWN, &[]);
    bare.gids.clear();
    let report = discover_with(
        &[bare],
        &mut Known::default(),
        closed,
        &options(&["fe80::1"]),
        &mut |_| {},
    )
    .unwrap();
    assert!(report.problems[0].to_string().contains("no port has a RoCE v2 GID"));
}

#[test]
fn a_port_that_cannot_ask_anybody_says_so() {
    let mut bare = port("siw0", "eth9", OWN, &["10.9.0.1"]);
    bare.gids.retain(|entry| crate::ports::is_ipv4_mapped(entry.gid));
    let open = |_: &Port| Ok(Fabric::new(agents()));
    let run = |ports: &[Port], named: &[&str]| {
        let options = ScanOptions {
            ports: named.iter().map(|name| (*name).into()).collect(),
            ..options(&[])
        };
        discover_with(ports, &mut Known::default(), open, &options, &mut |_| {}).unwrap()
    };
    let ports = [port("rxe0", "eth8", NEAR, &[]), bare];
    let report = run(&ports, &[]);
    assert_eq!((report.units.len(), report.problems.len()), (1, 1));
    assert_eq!(report.problems[0].severity, Severity::Warning);
    let report = run(&ports, &["siw0"]);
    let text = report.problems[0].to_string();
    assert_eq!(report.problems[0].severity, Severity::Error);
    assert!(
        text.starts_with("siw0/1: the port has no GID") && text.contains("iWARP"),
        "{text}"
    );
    let mut down = ports[1].clone();
    down.state = PortState::Init;
    let text = run(&[down], &[]).problems[0].to_string();
    assert!(text.starts_with("siw0/1 is INIT, not ACTIVE"), "{text}");
}

#[test]
fn a_destination_has_only_so_much_time() {
    let slots = (1..=60).map(|n| (n, Controller::srp(n.into())));
    let mut slow = Agent::with(slots);
    slow.max_controllers = 60;
    slow.mischief = Mischief::Late(Duration::from_millis(900));
    let agents = [(link_local_of_mac(OWN), slow)];
    let ports = [port("rxe0", "eth9", OWN, &["10.9.0.1"])];
    let options = ScanOptions {
        destination_limit: Duration::from_secs(10),
        ..options(&["10.9.0.1"])
    };
    let open = |_: &Port| Ok(Fabric::new(agents.clone()));
    let report = discover_with(&ports, &mut Known::default(), open, &options, &mut |_| {}).unwrap();
    assert!((3..10).contains(&report.targets.len()), "{}", report.targets.len());
    assert!(report.problems.last().unwrap().to_string().contains("is used up"));
}
