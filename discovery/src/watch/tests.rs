use std::cell::RefCell;
use std::rc::Rc;

use srp_addressing::{Guid, PKey};
use zerocopy::FromZeros;

use super::*;
use crate::mad::{Attribute, MAD_LEN, Method, SaMad};
use crate::model::subnet::{ModelPort, OWN_LID, PREFIX, SM_LID, Subnet, Trouble};
use crate::transport::{Event, Patience, SendError};

/// A subnet that the test can still reach.
#[derive(Clone)]
struct Shared(Rc<RefCell<Subnet>>, Rc<RefCell<Vec<Attribute>>>);

impl MadTransport for Shared {
    fn now(&self) -> Instant {
        self.0.borrow().now()
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        self.1.borrow_mut().extend(Mad::parse(mad).ok().map(Mad::attribute));
        self.0.borrow_mut().send(to, mad, patience)
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        self.0.borrow_mut().respond(to, mad)
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        self.0.borrow_mut().receive(until)
    }
}

struct Bench {
    subnet: Shared,
    watcher: Watcher<Shared>,
    told: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let subnet = Subnet::new([ModelPort::plain(0x10), ModelPort::target(0xa1), ModelPort::target(0xa2)]);
        let subnet = Shared(Rc::new(RefCell::new(subnet)), Rc::default());
        let watcher = Watcher::new(Subnet::local_port(), subnet.clone(), WatchOptions::default());
        let mut bench = Self {
            subnet,
            watcher,
            told: vec![],
        };
        bench.run(5);
        bench
    }

    /// Lets so many seconds pass, and returns what was told.
    fn run(&mut self, seconds: u64) -> Vec<String> {
        self.told.clear();
        let until = self.subnet.now() + Duration::from_secs(seconds);
        let told = &mut self.told;
        let mut events = |event: WatchEvent| {
            told.push(match event {
                WatchEvent::Appeared(target) => format!("+{:x}", target.ioc_guid.0),
                WatchEvent::Vanished(target) => format!("-{:x}", target.ioc_guid.0),
                WatchEvent::Probe(gid) => format!("probe {:x}", gid.interface().0),
                WatchEvent::Scanned(count) => format!("scan {count}"),
                WatchEvent::Problem(problem) => format!("! {problem}"),
            });
        };
        self.watcher.run(until, &mut events, &mut || false).unwrap();
        self.told.clone()
    }

    fn asked(&self, attribute: Attribute) -> u64 {
        let subnet = self.subnet.0.borrow();
        subnet.asked.get(&(attribute.class, attribute.id)).copied().unwrap_or(0)
    }

    fn report(&self, lid: u16, trap: u16, put: &[(usize, &[u8])]) {
        let mut notice = Notice::new_zeroed();
        notice.generic_kind = 0x83;
        notice.trap = trap.into();
        for (at, bytes) in put {
            notice.details[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let mad = SaMad::request(Method::REPORT, Attribute::NOTICE, 0, 0, &notice).into_mad();
        self.subnet.0.borrow_mut().report(lid, &mad);
    }
}

fn gid(guid: u64) -> [u8; 16] {
    Gid::new(PREFIX, Guid(guid)).0
}

#[test]
fn it_subscribes_scans_and_scans_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.told, ["+a1", "+a2", "scan 2"]);
    assert_eq!(bench.asked(Attribute::INFORM_INFO), 3);
    assert!(bench.run(50).is_empty());
    assert_eq!(bench.run(10), ["scan 2"]);
    assert_eq!(bench.asked(Attribute::INFORM_INFO), 6, "renewed with each scan");
    let known = bench.watcher.known();
    assert!(known.len() == 2 && known.iter().all(|known| known.missed == 0));
    let age = bench.subnet.now() - known[0].since;
    assert!(age > Duration::from_secs(60), "found first long ago: {age:?}");
}

#[test]
fn what_comes_during_a_scan_is_not_missed() {
    let bench = Bench::new();
    let first = bench.subnet.1.borrow()[..4].to_vec();
    let subscribed = first.iter().filter(|attribute| **attribute == Attribute::INFORM_INFO);
    assert_eq!(subscribed.count(), 3, "subscriptions come before the scan: {first:?}");
}

#[test]
fn a_subscription_that_fails_during_a_scan_is_asked_for_again() {
    let mut bench = Bench::new();
    // Everything is silent, and scanned so often that subscriptions end during scans only.
    bench.watcher.options.period = Duration::from_secs(3);
    bench.subnet.0.borrow_mut().trouble = Trouble::Silent;
    bench.watcher.port_is(Subnet::local_port(), true);
    bench.run(100);
    bench.subnet.0.borrow_mut().trouble = Trouble::None;
    bench.watcher.options.period = Duration::from_secs(60);
    bench.run(30);
    assert!(bench.watcher.subscriptions.all_held());
}

#[test]
fn a_scan_is_interrupted() {
    let mut bench = Bench::new();
    bench.subnet.0.borrow_mut().trouble = Trouble::Silent;
    let mut port = Subnet::local_port();
    bench.watcher.port_is(port.clone(), true);
    let (start, subnet) = (bench.subnet.now(), bench.subnet.clone());
    let interrupted = &mut || subnet.now() >= start + Duration::from_secs(1);
    let until = start + Duration::from_secs(60);
    let mut told = 0;
    bench.watcher.run(until, &mut |_| told += 1, interrupted).unwrap();
    let after = bench.subnet.now() - start;
    assert!(after < Duration::from_millis(1500), "{after:?}");
    assert_eq!(told, 0, "what was cut short says nothing about targets");
    // At another place of the fabric it goes on at once; nothing of the old one is waited for.
    bench.subnet.0.borrow_mut().trouble = Trouble::None;
    port.lid = 77;
    bench.watcher.port_is(port, false);
    assert_eq!(bench.run(3), ["scan 2"]);
}

#[test]
fn ports_that_come() {
    let mut bench = Bench::new();
    bench.subnet.0.borrow_mut().ports.insert(9, ModelPort::target(0xa3));
    bench.report(SM_LID, Notice::IN_SERVICE, &[(6, &gid(0xa3))]);
    let nodes = bench.asked(Attribute::NODE_RECORD);
    assert_eq!(bench.run(3), ["+a3"]);
    assert_eq!(bench.asked(Attribute::NODE_RECORD), nodes, "it alone was asked");
    assert_eq!(bench.subnet.0.borrow().acknowledged, 1);

    // One without an agent is nobody's business.
    bench.report(SM_LID, Notice::IN_SERVICE, &[(6, &gid(0x10))]);
    assert!(bench.run(30).is_empty());
    // Of many the whole subnet is asked.
    (0..20).for_each(|n| bench.report(SM_LID, Notice::IN_SERVICE, &[(6, &gid(n))]));
    assert_eq!(bench.run(3), ["scan 3"]);
    // A port that has an agent now.
    bench.subnet.0.borrow_mut().ports.insert(3, ModelPort::target(0x10));
    bench.report(SM_LID, Notice::LOCAL_CHANGE, &[(2, &[0, 3]), (6, &[0, 8, 0, 0])]);
    assert_eq!(bench.run(3), ["+10", "scan 4"]);
    bench.report(SM_LID, Notice::LOCAL_CHANGE, &[(2, &[0, 3]), (6, &[0, 4, 0, 0])]);
    assert!(bench.run(3).is_empty());
}

#[test]
fn ports_that_go() {
    let mut bench = Bench::new();
    bench.subnet.0.borrow_mut().ports.remove(&4);
    bench.report(SM_LID, Notice::OUT_OF_SERVICE, &[(6, &gid(0xa1))]);
    assert_eq!(bench.run(3), ["probe a1", "scan 2"]);
    let missed: Vec<u32> = bench.watcher.known().iter().map(|known| known.missed).collect();
    assert_eq!(missed, [1, 0]);
    // Gone only after another scan.
    assert_eq!(bench.run(15), ["-a1", "scan 1"]);

    // A flood of such reports is one probe a second.
    for _ in 0..50 {
        bench.report(SM_LID, Notice::OUT_OF_SERVICE, &[(6, &gid(0xa2))]);
    }
    let told = bench.run(1);
    assert_eq!(
        told.iter().filter(|text| text.starts_with("probe")).count(),
        1,
        "{told:?}"
    );
}

#[test]
fn forged_reports() {
    let mut bench = Bench::new();
    for lid in [OWN_LID, 3, 4, 0] {
        bench.report(lid, Notice::OUT_OF_SERVICE, &[(6, &gid(0xa1))]);
        bench.report(lid, Notice::IN_SERVICE, &[(6, &gid(0xa1))]);
    }
    assert!(bench.run(20).is_empty());
    assert_eq!((bench.watcher.forged(), bench.subnet.0.borrow().acknowledged), (8, 0));
}

#[test]
fn a_silent_administration_takes_nothing_away() {
    let mut bench = Bench::new();
    bench.subnet.0.borrow_mut().trouble = Trouble::Silent;
    bench.watcher.port_is(Subnet::local_port(), true);
    let told = bench.run(120);
    assert!(told.iter().all(|text| !text.starts_with('-')), "{told:?}");
    assert!(
        told.iter()
            .any(|text| text.contains("no answer from LID 0x0001 to InformInfo")),
        "{told:?}"
    );
    bench.subnet.0.borrow_mut().trouble = Trouble::None;
    let before = bench.asked(Attribute::INFORM_INFO);
    let told = bench.run(60);
    assert!(told.iter().any(|text| text == "scan 2"), "{told:?}");
    assert_eq!(
        told.iter().filter(|text| text.starts_with(['+', '-'])).count(),
        0,
        "{told:?}"
    );
    assert!(bench.asked(Attribute::INFORM_INFO) >= before + 3);
}

#[test]
fn what_happens_to_the_local_port() {
    let mut bench = Bench::new();
    let mut port = Subnet::local_port();
    bench.watcher.port_is(port.clone(), false);
    assert!(bench.run(10).is_empty(), "nothing has changed");
    let subscriptions = |bench: &Bench| bench.asked(Attribute::INFORM_INFO);

    bench.watcher.port_is(port.clone(), true);
    assert_eq!((bench.run(3), subscriptions(&bench)), (vec!["scan 2".to_owned()], 6));
    port.lid = 77;
    bench.watcher.port_is(port.clone(), false);
    assert_eq!((bench.run(3), subscriptions(&bench)), (vec!["scan 2".to_owned()], 9));

    // P_Keys change what is reached.
    port.pkeys = vec![(0, PKey(0x7fff)), (1, PKey(0x8001))];
    bench.watcher.port_is(port.clone(), false);
    let told = bench.run(3);
    assert_eq!(subscriptions(&bench), 12);
    assert!(
        told.contains(&"+a1".to_owned()),
        "as a limited member they are others: {told:?}"
    );

    // A port that is down asks nothing, and asks for everything when it is back.
    port.state = PortState::Down;
    bench.watcher.port_is(port.clone(), false);
    let sent = bench.subnet.0.borrow().sent();
    assert!(bench.run(300).is_empty());
    assert_eq!(bench.subnet.0.borrow().sent(), sent);
    port.state = PortState::Active;
    bench.watcher.port_is(port, false);
    bench.run(3);
    assert_eq!(subscriptions(&bench), 15);
    bench.watcher.close();
    assert_eq!(bench.subnet.0.borrow().asked[&(3, 3)], 18, "unsubscribed");
}
