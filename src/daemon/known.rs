//! The targets that the watched ports know, for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use srp_discovery::listing::{LineOptions, add_target_line};
use srp_discovery::ports::{Port, PortName};
use srp_discovery::targets::Target;
use srp_discovery::watch::Known;

use super::failure::failure;
use crate::rpc::protocol::{ErrorData, ErrorKind, KnownTarget, KnownTargets, WatchedPort};

/// What is watched, and what is known there. The threads that watch write, others read copies.
#[derive(Debug)]
pub(crate) struct Tables {
    period: Duration,
    attaches: bool,
    ports: Mutex<BTreeMap<PortName, Table>>,
}

#[derive(Debug, Default)]
struct Table {
    state: String,
    scanned: Option<Instant>,
    targets: Vec<Known>,
}

impl Tables {
    /// Nothing is watched yet; what will be is scanned every `period`.
    pub(super) fn new(period: Duration, attaches: bool) -> Self {
        Self {
            period,
            attaches,
            ports: Mutex::default(),
        }
    }

    fn ports(&self) -> MutexGuard<'_, BTreeMap<PortName, Table>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port is watched, or has changed.
    pub(super) fn port_is(&self, port: &Port) {
        let mut ports = self.ports();
        let table = ports.entry(port.name.clone()).or_default();
        table.state = port.state.to_string();
    }

    /// These are a port's targets now, as a scan has found, if there was one.
    pub(super) fn targets_are(&self, port: &PortName, known: &[Known], scanned: bool) {
        if let Some(table) = self.ports().get_mut(port) {
            table.targets = known.to_vec();
            if scanned {
                table.scanned = Some(Instant::now());
            }
        }
    }

    /// A port is not watched any more.
    pub(super) fn forget(&self, port: &PortName) {
        self.ports().remove(port);
    }

    /// Everything. `session` tells which session a target has, `dismissed` whether somebody has detached it.
    pub(super) fn report(
        &self,
        session: impl Fn(&Target) -> Option<u32>,
        dismissed: impl Fn(&Target) -> bool,
    ) -> KnownTargets {
        let now = Instant::now();
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        let target = |known: &Known| KnownTarget {
            target: match serde_json::to_value(&known.target) {
                Ok(serde_json::Value::Object(fields)) => fields,
                // A target is an object.
                _ => serde_json::Map::new(),
            },
            line: add_target_line(&known.target, &LineOptions::default()).ok(),
            known_seconds: age(known.since),
            missed: known.missed,
            session: session(&known.target),
            dismissed: dismissed(&known.target),
        };
        let ports = self.ports();
        KnownTargets {
            period: self.period.as_secs(),
            attaches: self.attaches,
            ports: ports
                .iter()
                .map(|(name, table)| WatchedPort {
                    port: name.to_string(),
                    state: table.state.clone(),
                    scanned_seconds: table.scanned.map(age),
                    targets: table.targets.iter().map(target).collect(),
                })
                .collect(),
        }
    }
}

/// What a daemon answers that knows of none.
pub(super) fn not_watching() -> ErrorData {
    failure(ErrorKind::NotFound, "the daemon does not watch for targets").remedy(
        "to have it watch the InfiniBand ports, set watch = true under [discovery] in /etc/ublk-srp/config.toml, or \
         start it with `ublk-srp daemon --watch SECONDS`; `ublk-srp discover` without --known looks for targets now",
    )
}

#[cfg(test)]
pub(crate) mod samples {
    use srp_addressing::{Gid, Guid, PKey, ServiceId};
    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::ports::LinkLayer;
    use srp_discovery::targets::Target;
    use srp_discovery::text::FabricText;

    pub(crate) fn target(guid: u64) -> Target {
        Target {
            id_ext: format!("{guid:x}"),
            ioc_guid: Guid(guid),
            gid: Gid::new(0xfe80_0000_0000_0000, Guid(guid)),
            lid: 7,
            port_guid: Guid(guid),
            pkey: PKey::DEFAULT,
            service_id: ServiceId(guid),
            service_name: FabricText::from_field(b"SRP.T10:1"),
            io_class: 0x0100,
            ioc_id: FabricText::from_field(b"an array"),
            vendor_id: 1,
            device_id: 2,
            send_size: 8260,
            rdma_size: 65536,
            slot: 1,
            port: Subnet::local_port().name,
            link_layer: LinkLayer::InfiniBand,
            rdma_cm: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::target;
    use super::*;
    use srp_addressing::Guid;
    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::ports::PortState;

    #[test]
    fn what_is_told() {
        let tables = Tables::new(Duration::from_secs(60), true);
        let mut port = Subnet::local_port();
        let known = |guid, missed| Known {
            target: target(guid),
            since: Instant::now(),
            missed,
        };
        tables.targets_are(&port.name, &[known(9, 0)], true);
        assert_eq!(tables.report(|_| None, |_| false).ports, [], "a port nobody watches");

        tables.port_is(&port);
        let empty = tables.report(|_| None, |_| false);
        assert_eq!((empty.period, empty.attaches), (60, true));
        assert_eq!(empty.ports[0].scanned_seconds, None);

        tables.targets_are(&port.name, &[known(0xa1, 0), known(0xa2, 1)], true);
        port.state = PortState::Down;
        tables.port_is(&port);
        let is = |guid| move |target: &Target| target.ioc_guid == Guid(guid);
        let report = tables.report(|target| is(0xa1)(target).then_some(5), is(0xa2));
        let told = &report.ports[0];
        assert_eq!((told.state.as_str(), told.scanned_seconds), ("DOWN", Some(0)));
        let [one, two] = &told.targets[..] else {
            panic!("{told:?}")
        };
        assert_eq!(
            (one.session, one.missed, two.session, two.missed),
            (Some(5), 0, None, 1)
        );
        assert_eq!((one.dismissed, two.dismissed), (false, true));
        assert_eq!(one.target["ioc_guid"], "00000000000000a1");
        let line = one.line.as_deref().unwrap();
        assert!(line.parse::<srp_addressing::TargetOptions>().is_ok(), "{line}");

        tables.forget(&port.name);
        assert_eq!(tables.report(|_| None, |_| false).ports, []);
    }
}
