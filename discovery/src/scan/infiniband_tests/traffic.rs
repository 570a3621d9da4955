//! What a scan sends: how much in all, how much at once, in which partition.

use super::*;

/// The report, and what the subnet has seen of it.
fn scanned(port: &Port, subnet: Subnet, options: &ScanOptions) -> (ScanReport, Subnet) {
    let mut exchange = infiniband::exchange(subnet, options);
    let mut report = ScanReport::default();
    let mut audience = infiniband::Audience {
        progress: &mut |_| {},
        reports: &mut |_, _, _| {},
        others: &mut |_, _| {},
        interrupted: &mut || false,
    };
    infiniband::scan_port(port, &mut exchange, options, &mut report, &mut audience).unwrap();
    (report, exchange.into_transport())
}

#[test]
fn ways_are_asked_for_as_few_at_once_as_anything() {
    let mut subnet = Subnet::sized(100, 100, true);
    for port in subnet.ports.values_mut() {
        port.agent.as_mut().unwrap().redirect = Some(ClassPortInfo {
            redirect_gid: Gid::new(PREFIX, Guid(port.guid)).0,
            ..ClassPortInfo::default()
        });
    }
    let options = ScanOptions {
        subnet_at_once: 2,
        ..ScanOptions::default()
    };
    let (report, subnet) = scanned(&Subnet::local_port(), subnet, &options);
    assert_eq!((report.targets.len(), report.problems.len()), (100, 0));
    assert_eq!(subnet.most_to_administration, 2);
}

#[test]
fn every_datagram_is_sent_in_its_partition() {
    let mut port = Subnet::local_port();
    // The default partition is not the first entry, and it is joined as a full and as a limited member.
    port.pkeys = vec![
        (1, PKey(0x8001)),
        (2, PKey(0x7fff)),
        (5, PKey(0xffff)),
        (9, PKey(0x8002)),
    ];
    let mut subnet = subnet();
    subnet.ports.get_mut(&4).unwrap().pkeys = vec![0x7fff, 0x0002];
    subnet.ports.get_mut(&6).unwrap().pkeys = vec![0x8001];
    let (report, subnet) = scanned(&port, subnet, &ScanOptions::default());
    assert_eq!(
        lines(&report),
        [line(0xa1, "ffff"), line(0xa1, "8002"), line(0xa2, "8001")]
    );
    let sent = |lid: u16| subnet.pkey_indices[&lid].iter().copied().collect::<Vec<_>>();
    assert_eq!([sent(SM_LID), sent(4), sent(6)], [vec![2], vec![5, 9], vec![1]]);
}

/// Datagrams sent and time passed in a scan that finds everything.
fn cost(ports: u16, targets: u16, matches_mask: bool, options: &ScanOptions) -> (u64, Duration) {
    let subnet = Subnet::sized(ports, targets, matches_mask);
    let (report, subnet) = scanned(&Subnet::local_port(), subnet, options);
    assert_eq!(report.targets.len(), usize::from(targets));
    (subnet.sent(), subnet.elapsed())
}

#[test]
fn the_cost_grows_with_the_targets_and_the_ports() {
    let options = ScanOptions::default();
    for (ports, targets) in [(1_000, 50), (10_000, 500)] {
        // A node, a path, and four questions to the agent.
        let (mads, _) = cost(ports, targets, true, &options);
        assert_eq!(mads, 2 + 6 * u64::from(targets));
        // Besides, each port is asked for what it can do.
        let (mads, _) = cost(ports, targets, false, &options);
        assert_eq!(mads, 2 + 6 * u64::from(targets) + u64::from(ports));
    }
    let (_, small) = cost(1_000, 50, true, &options);
    let (_, large) = cost(10_000, 500, true, &options);
    assert!(large < small * 11, "{small:?} {large:?}");
}

#[test]
fn questions_run_side_by_side() {
    let one = ScanOptions {
        at_once: 1,
        subnet_at_once: 1,
        ..ScanOptions::default()
    };
    let (_, alone) = cost(2_000, 200, true, &one);
    let (_, together) = cost(2_000, 200, true, &ScanOptions::default());
    assert!(alone > together * 3, "{alone:?} {together:?}");
}
