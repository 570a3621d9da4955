use std::time::{Duration, Instant};

use srp_discovery::ports::PortState;
use srp_discovery::scan::ScanOptions;
use srp_discovery::transport::Patience;
use srp_discovery::watch::{WatchEvent, WatchOptions, Watcher};

use super::agent::AgentPort;
use super::client::Client;
use super::fabric::{Fabric, ONE_PARTITION, PATIENCE, active};

const GUID: u64 = 0x0002_c903_000e_8acd;

/// Events of a watcher, as far as they tell of targets.
struct Watch {
    client: Client,
    watcher: Watcher<Client>,
}

impl Watch {
    fn new(client: &Client) -> Self {
        let options = WatchOptions {
            // So that what is seen earlier was told by a report.
            period: Duration::from_secs(3600),
            scan: ScanOptions {
                subnet_patience: Patience {
                    timeout: Duration::from_millis(300),
                    retries: 2,
                },
                ..ScanOptions::default()
            },
        };
        let watcher = Watcher::new(client.node.port(), client.clone(), options);
        Self {
            client: client.clone(),
            watcher,
        }
    }

    /// Watches until an event is told that fits.
    fn until(&mut self, what: &str, fits: impl Fn(&WatchEvent) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut seen = false;
        while !seen {
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
            // As the kernel's events would tell.
            self.watcher.port_is(self.client.node.port(), false);
            let mut events = |event: WatchEvent| {
                // Shown when the test fails.
                println!("{event:?}");
                seen |= fits(&event);
            };
            self.watcher
                .run(Instant::now() + Duration::from_millis(200), &mut events, &mut || false)
                .unwrap();
        }
    }

    fn appears(&mut self) {
        self.until(
            "the target appears",
            |event| matches!(event, WatchEvent::Appeared(target) if target.ioc_guid.0 == GUID),
        );
    }

    fn vanishes(&mut self) {
        self.until("the target vanishes", |event| matches!(event, WatchEvent::Vanished(_)));
    }
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn the_manager_reports_what_comes_and_goes() {
    let mut fabric = Fabric::new();
    let client = fabric.client("Hca2", true);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let _manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    active(&client, |_| true);
    let mut watch = Watch::new(&client);
    watch.appears();
    let target = watch.watcher.known()[0].target.clone();

    // Trap 65 asks for a probe; the scans after it decide.
    fabric.command("Unlink \"Hca3\"[1]");
    watch.until(
        "a probe is asked for",
        |event| matches!(event, WatchEvent::Probe(gid) if *gid == target.gid),
    );
    watch.vanishes();

    // Trap 64: nothing else scans within an hour.
    fabric.command("ReLink \"Hca3\"[1]");
    watch.appears();
    assert_eq!(watch.watcher.forged(), 0);
}

#[test]
#[ignore = "needs opensm and ibsim"]
fn subscriptions_outlive_a_manager() {
    let mut fabric = Fabric::new();
    let client = fabric.client("Hca2", true);
    let _agent = AgentPort::new(&fabric.socket, "Hca3", GUID);
    let manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    active(&client, |port| port.state == PortState::Active);
    let mut watch = Watch::new(&client);
    watch.appears();
    drop(manager);
    let _manager = fabric.manager("Hca1", 5, ONE_PARTITION);
    // The new manager knows no subscribers and says so with client reregister, which the simulation does not tell us.
    std::thread::sleep(Duration::from_secs(3));
    watch.watcher.port_is(client.node.port(), true);
    watch.until("it is scanned anew", |event| matches!(event, WatchEvent::Scanned(1)));
    fabric.command("Unlink \"Hca3\"[1]");
    watch.until("a probe is asked for", |event| matches!(event, WatchEvent::Probe(_)));
}
