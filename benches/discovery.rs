//! Discovery on modelled InfiniBand fabrics of growing size: `cargo bench --bench discovery`.
//!
//! Datagrams are counted and the fabric's time is the model's (20 us each way, 10 us of the subnet administration for
//! each question, one after another), so these figures are the same on every machine. The processor's time and the
//! memory are this machine's.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use srp_discovery::mad::MAD_LEN;
use srp_discovery::model::subnet::Subnet;
use srp_discovery::neighbours::{Neighbour, Neighbours, NeighboursError};
use srp_discovery::ports::Port;
use srp_discovery::scan::{ScanOptions, discover_with};
use srp_discovery::transport::{Address, Event, MadTransport, Patience, SendError, TransportError};

struct Nobody;

impl Neighbours for Nobody {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(vec![])
    }

    fn look_for(&mut self, _: &[(IpAddr, Option<String>)]) {}
}

/// A subnet whose figures can be read after the scan.
#[derive(Clone)]
struct Shared(Rc<RefCell<Subnet>>);

impl MadTransport for Shared {
    fn now(&self) -> Instant {
        self.0.borrow().now()
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        self.0.borrow_mut().send(to, mad, patience)
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        self.0.borrow_mut().respond(to, mad)
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        self.0.borrow_mut().receive(until)
    }
}

struct Figures {
    mads: u64,
    fabric: Duration,
    cpu: Duration,
    at_once: usize,
}

fn scan(ports: u16, targets: u16, matches_mask: bool, options: &ScanOptions) -> Figures {
    let subnet = Shared(Rc::new(RefCell::new(Subnet::sized(ports, targets, matches_mask))));
    let started = Instant::now();
    let open = |_: &Port| Ok(subnet.clone());
    let report = discover_with(&[Subnet::local_port()], &mut Nobody, open, options, &mut |_| {}).unwrap();
    let cpu = started.elapsed();
    assert_eq!((report.targets.len(), report.problems.len()), (usize::from(targets), 0));
    let subnet = subnet.0.borrow();
    Figures {
        mads: subnet.sent(),
        fabric: subnet.elapsed(),
        cpu,
        at_once: subnet.most_under_way(),
    }
}

/// The most memory this process had, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn main() {
    println!("ports targets way     MADs  per target  fabric ms  ms/target  cpu ms  at once  peak KiB");
    for matches_mask in [true, false] {
        for (ports, targets) in [(1_000, 50), (2_000, 100), (4_000, 200), (10_000, 500)] {
            let figures = scan(ports, targets, matches_mask, &ScanOptions::default());
            let Figures {
                mads,
                fabric,
                cpu,
                at_once,
            } = figures;
            let way = if matches_mask { "by mask" } else { "by node" };
            let per_target = mads as f64 / f64::from(targets);
            let ms = fabric.as_secs_f64() * 1e3;
            println!(
                "{ports:5} {targets:7} {way} {mads:6} {per_target:11.1} {ms:10.1} {:10.3} {:7.1} {at_once:8} {:9}",
                ms / f64::from(targets),
                cpu.as_secs_f64() * 1e3,
                memory()
            );
        }
    }
    let one = ScanOptions {
        at_once: 1,
        subnet_at_once: 1,
        ..ScanOptions::default()
    };
    for matches_mask in [true, false] {
        let alone = scan(10_000, 500, matches_mask, &one).fabric;
        let together = scan(10_000, 500, matches_mask, &ScanOptions::default()).fabric;
        let way = if matches_mask { "by mask" } else { "by node" };
        let ratio = alone.as_secs_f64() / together.as_secs_f64();
        println!("10000 ports, 500 targets {way}: side by side {ratio:.1} times as fast as one at a time");
    }
}
