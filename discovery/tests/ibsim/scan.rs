use std::net::IpAddr;
use std::time::Duration;

use srp_discovery::listing::{LineOptions, add_target_line};
use srp_discovery::neighbours::{Neighbour, Neighbours, NeighboursError};
use srp_discovery::ports::Port;
use srp_discovery::scan::{Problem, ScanOptions, ScanReport, Severity, discover_with};
use srp_discovery::transport::Patience;

use super::agent::AgentPort;
use super::client::Client;
use super::fabric::{Fabric, ONE_PARTITION, active, until};

const GUID: u64 = 0x0002_c903_000e_8acd;

struct Nobody;

impl Neighbours for Nobody {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(vec![])
    }

    fn look_for(&mut self, _: &[(IpAddr, Option<String>)]) {}
}

fn options() -> ScanOptions {
    ScanOptions {
        subnet_patience: Patience {
            timeout: Duration::from_millis(300),
            retries: 2,
        },
        ..ScanOptions::default()
    }
}

fn scan(client: &Client, port: &Port, options: &ScanOptions) -> ScanReport {
    let open = |_: &Port| Ok(client.clone());
    discover_with(std::slice::from_ref(port), &mut Nobody, open, options, &mut |_| {}).unwrap()
}

/// Scans until what was found is as `fits` wants it: a manager needs time to see what has changed.
fn scan_until(client: &Client, what: &str, fits: impl Fn(&[String], &ScanReport) -> bool) -> (Vec<String>, ScanReport) {
    until(what, || {
        let port = client.node.port();
        let report = scan(client, &port, &options());
        let lines = lines(&report);
        // Shown when the test fails.
        println!(
            "LID {} SM {}: {lines:?}, {:?}",
            port.lid,
            port.sm_lid,
            texts(&report.problems)
        );
        fits(&lines, &report).then_some((lines, report))
    })
}

fn lines(report: &ScanReport) -> Vec<String> {
    let line = |target| add_target_line(target, &LineOptions::default()).unwrap();
    report.targets.iter().map(line).collect()
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn errors(report: &ScanReport) -> Vec<String> {
    let errors = report.problems.iter().filter(|p| p.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// The P_Keys in lines that otherwise agree.
fn pkeys(lines: &[String]) -> Vec<&str> {
    let pkey = |line: &'_ str| line.find("pkey=").map(|at| at + 5);
    lines
        .iter()
        .filter_map(|line| line.get(pkey(line)?..pkey(line)? + 4))
        .collect()
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn a_target_is_found_and_everybody_else_is_told_of() {
    let fabric = Fabric::new();
    let client = fabric.client("Hca2", false);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let _manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    let port = active(&client, |_| true);
    let (lines, report) = scan_until(&client, "the target shows", |lines, _| !lines.is_empty());
    let head = format!("id_ext={GUID:016x},ioc_guid={GUID:016x},dgid=fe80000000000000");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with(&head) && lines[0].ends_with(&format!(",pkey=ffff,service_id={GUID:016x}")),
        "{lines:?}"
    );
    // The other ports say that they have an agent, and have none: a warning each, and no error.
    assert_eq!(errors(&report), Vec::<String>::new());
    let target = &report.targets[0];
    let others = texts(&report.problems);
    assert!(
        !others.is_empty() && others.iter().all(|p| p.contains("no answer from LID")),
        "{others:?}"
    );

    // The same port by its GID.
    let named = ScanOptions {
        destinations: vec![target.gid.to_string().parse().unwrap()],
        ..options()
    };
    let report = scan(&client, &port, &named);
    assert_eq!(self::lines(&report), lines, "{:?}", texts(&report.problems));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn partitions() {
    let fabric = Fabric::new();
    let client = fabric.client("Hca2", false);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    // ibsim counts GUIDs up in the order of the file: switch, then adapters with a port each.
    let own = client.node.port().gids[0].gid.interface().0;
    let conf = format!(
        "Default=0x7fff : ALL=limited, ALL_SWITCHES=full, SELF=full ;\nStorage=0x0123 : {own:#x}=full, {:#x}=full ;\n\
         Elsewhere=0x0124 : {own:#x}=full ;\n",
        own + 2
    );
    let manager = fabric.manager("Hca1", 5, &conf);
    active(&client, |port| port.pkeys.len() == 3);
    let (lines, report) = scan_until(&client, "the target shows", |lines, _| !lines.is_empty());
    // Limited members of the default partition do not see each other.
    assert_eq!(pkeys(&lines), ["8123"], "{lines:?}");
    let found = report.targets[0].clone();
    assert_eq!(errors(&report), Vec::<String>::new());
    drop(manager);

    let conf = format!(
        "Default=0x7fff : ALL=limited, ALL_SWITCHES=full, SELF=full ;\nStorage=0x0123 : {:#x}=full ;\n\
         Elsewhere=0x0124 : {own:#x}=full ;\n",
        own + 2
    );
    let _manager = fabric.manager("Hca1", 5, &conf);
    let port = active(&client, |port| port.pkeys.len() == 2);
    // Subnet administration does not even show it.
    scan_until(&client, "the target is out of reach", |lines, _| lines.is_empty());
    let named = ScanOptions {
        destinations: vec![found.gid.to_string().parse().unwrap()],
        ..options()
    };
    let report = scan(&client, &port, &named);
    let text = errors(&report).join("\n");
    assert!(
        text.contains("shares no partition") && text.contains("7fff, 8124"),
        "{text}"
    );
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn the_manager_dies_returns_and_hands_over() {
    let fabric = Fabric::new();
    let client = fabric.client("Hca2", false);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let port = client.node.port();
    let report = scan(&client, &port, &options());
    assert!(
        errors(&report)[0].contains("knows no subnet manager"),
        "{:?}",
        errors(&report)
    );

    let manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    let port = active(&client, |_| true);
    let (before, _) = scan_until(&client, "the target shows", |lines, _| !lines.is_empty());
    drop(manager);
    let report = scan(&client, &port, &options());
    assert!(report.targets.is_empty());
    assert!(
        errors(&report)[0].contains("the subnet manager is gone"),
        "{:?}",
        errors(&report)
    );

    let _manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    let (after, _) = scan_until(&client, "the manager is back", |lines, _| !lines.is_empty());
    assert_eq!(before, after);

    // One of a higher priority, to which the other hands the fabric over.
    let sm_lid = client.node.port().sm_lid;
    let _master = fabric.manager("Hca4", 9, ONE_PARTITION);
    active(&client, |port| port.sm_lid != sm_lid);
    let (after, _) = scan_until(&client, "the other manager has taken over", |lines, _| {
        !lines.is_empty()
    });
    assert_eq!(before, after);
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn ports_go_down_and_come_back() {
    let mut fabric = Fabric::new();
    let client = fabric.client("Hca2", false);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let _manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    active(&client, |_| true);
    let (before, _) = scan_until(&client, "the target shows", |lines, _| !lines.is_empty());
    fabric.command("Unlink \"Hca3\"[1]");
    scan_until(&client, "the target is gone", |lines, _| lines.is_empty());

    fabric.command("ReLink \"Hca3\"[1]");
    let (after, _) = scan_until(&client, "the target is back", |lines, _| !lines.is_empty());
    assert_eq!(before, after);

    // The own port.
    fabric.command("Unlink \"Hca2\"[1]");
    until("the own port is down", || {
        let state = client.node.port().state;
        (state != srp_discovery::ports::PortState::Active).then_some(())
    });
    fabric.command("ReLink \"Hca2\"[1]");
    active(&client, |_| true);
    let (after, _) = scan_until(&client, "the own port is back", |lines, _| !lines.is_empty());
    assert_eq!(before, after);
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn ports_get_other_lids() {
    let fabric = Fabric::new();
    let client = fabric.client("Hca2", false);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    active(&client, |_| true);
    let (before, report) = scan_until(&client, "the target shows", |lines, _| !lines.is_empty());
    let target = report.targets[0].clone();
    drop(manager);
    let own = client.node.port();
    let line = |guid: u64, lid: u16| format!("0x{guid:016x} 0x{lid:04x} 0x{lid:04x}\n\n");
    let lids = line(target.port_guid.0, 0x40) + &line(own.gids[0].gid.interface().0, 0x41);
    let _manager = fabric.manager_that_remembers("Hca1", 5, ONE_PARTITION, &lids);
    active(&client, |port| port.lid != own.lid);
    let moved = |_: &[String], report: &ScanReport| report.targets.first().is_some_and(|t| t.lid != target.lid);
    let (after, report) = scan_until(&client, "the target has another LID", moved);
    assert_eq!(before, after, "no LID is in a line");
    assert_eq!((report.targets[0].lid, client.node.port().lid), (0x40, 0x41));
}
