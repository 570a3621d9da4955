//! Everything together: which destinations are asked, and what is reported.
//!
//! On InfiniBand subnet administration knows the ports that have an agent; on RoCE they are named by the caller, or
//! are the neighbours that the host knows.

mod candidates;
mod destination;
pub(crate) mod infiniband;
mod run;

use std::num::NonZeroU16;
use std::time::Duration;

use serde::Serialize;
use srp_addressing::{Guid, PKey};

pub use candidates::Unreachable;
pub use destination::{Destination, ParseDestinationError, PortSelector};
pub use infiniband::SubnetError;

use crate::device_management::{IoUnit, SlotError, SurveyError, display};
use crate::neighbours::{HostNeighbours, Neighbours, NeighboursError};
use crate::ports::{self, LinkLayer, Port, PortName, PortsError, Roots};
use crate::targets::{RdmaCm, SeenThrough, Target, TargetWarning, every_target};
use crate::transport::{MadTransport, Patience, TransportError};
use crate::umad::{OpenError, Umad};

/// What to look for, and where.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// The local ports to look through; empty: all.
    pub ports: Vec<PortSelector>,
    /// Whom to ask: addresses on RoCE, GIDs on InfiniBand too; empty: everybody that subnet administration knows, on
    /// RoCE the host itself and its neighbours, as the next two fields say.
    pub destinations: Vec<Destination>,
    /// RoCE: ask the local ports themselves.
    pub include_local: bool,
    /// RoCE: ask the neighbours the host knows.
    pub include_neighbours: bool,
    /// RoCE: where the targets listen for RDMA/CM logins; nothing announces it.
    pub rdma_cm_port: Option<NonZeroU16>,
    /// How long to wait for each answer on RoCE, where many of those asked have no agent.
    pub patience: Patience,
    /// How long to wait for each answer on InfiniBand, where those asked have said that they have an agent.
    pub subnet_patience: Patience,
    /// How many questions are put to subnet administration at once.
    pub subnet_at_once: usize,
    /// How many destinations are asked at once through one port.
    pub at_once: usize,
    /// How long one destination may take altogether.
    pub destination_limit: Duration,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            destinations: Vec::new(),
            include_local: true,
            include_neighbours: true,
            rdma_cm_port: None,
            patience: Patience {
                timeout: Duration::from_secs(1),
                retries: 2,
            },
            subnet_patience: Patience {
                timeout: Duration::from_secs(2),
                retries: 3,
            },
            subnet_at_once: 16,
            at_once: 64,
            destination_limit: Duration::from_secs(60),
        }
    }
}

/// What was found, and what was not.
#[derive(Debug, Default, Serialize)]
pub struct ScanReport {
    /// The I/O units that answered.
    pub units: Vec<FoundUnit>,
    /// The SRP targets in them.
    pub targets: Vec<Target>,
    /// What went wrong, or looks wrong.
    pub problems: Vec<Problem>,
}

impl ScanReport {
    /// A destination that was named and found through one port need not be there through the others; one that nobody
    /// has found is an error, whatever each port for itself makes of it.
    fn judge(&mut self, destination: &str) {
        let through: Vec<&PortName> = self
            .units
            .iter()
            .filter(|found| found.destination == destination)
            .map(|found| &found.port)
            .collect();
        let about = |problem: &&mut Problem| problem.destination.as_deref() == Some(destination);
        let mut problems: Vec<&mut Problem> = self.problems.iter_mut().filter(about).collect();
        if !through.is_empty() {
            let elsewhere = |problem: &&mut Problem| problem.port.as_ref().is_none_or(|port| !through.contains(&port));
            let elsewhere = problems.into_iter().filter(elsewhere);
            return elsewhere.for_each(|problem| problem.severity = Severity::Note);
        }
        let told = problems.iter().any(|problem| problem.severity == Severity::Error);
        if !told && let Some(problem) = problems.first_mut() {
            problem.severity = Severity::Error;
        }
    }
}

/// An I/O unit that answered.
#[derive(Debug, Serialize)]
pub struct FoundUnit {
    /// Through which port.
    pub port: PortName,
    /// What is below that port.
    pub link_layer: LinkLayer,
    /// Who was asked, as the caller named it.
    pub destination: String,
    /// In which partition.
    #[serde(serialize_with = "display")]
    pub pkey: PKey,
    /// The node its port is of; on InfiniBand, unless the caller named the port.
    pub node: Option<Node>,
    /// Where its targets take RDMA/CM logins, if the caller said at which port.
    pub rdma_cm: Option<RdmaCm>,
    /// The unit.
    #[serde(flatten)]
    pub unit: IoUnit,
}

impl FoundUnit {
    /// The targets in it as `ibsrpdm` counts them: one for each service, also of a controller that another slot has
    /// shown already.
    #[must_use]
    pub fn every_target(&self) -> Vec<Target> {
        let seen = SeenThrough {
            port: self.port.clone(),
            link_layer: self.link_layer,
            pkey: self.pkey,
            rdma_cm: self.rdma_cm.clone(),
        };
        every_target(&self.unit, &seen)
    }
}

/// What subnet administration says of the node behind a port (NodeInfo, IBA 14.2.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The GUID of the system around it.
    #[serde(serialize_with = "display")]
    pub system_guid: Guid,
    /// Its GUID.
    #[serde(serialize_with = "display")]
    pub node_guid: Guid,
    /// The vendor (24 bits).
    pub vendor_id: u32,
    /// The device, by the vendor's numbering.
    pub device_id: u16,
    /// Its revision.
    pub revision: u32,
    /// Which of its ports it is.
    pub port: u8,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be expected: a host nobody named does not answer.
    Note,
    /// Something was left out.
    Warning,
    /// Something the caller asked for was not done.
    Error,
}

/// Something that went wrong while the rest went on.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The local port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Who was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What happened and what to do.
    #[serde(serialize_with = "display")]
    pub cause: Cause,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // These name the port themselves.
        if let Some(port) = self.port.as_ref().filter(|_| !matches!(self.cause, Cause::Open(_))) {
            write!(f, "{port}: ")?;
        }
        if let Some(destination) = &self.destination {
            write!(f, "{destination}: ")?;
        }
        write!(f, "{}", self.cause)
    }
}

/// What a [`Problem`] is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A destination cannot be asked.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// A port cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A port went away.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The neighbours are not known.
    #[error(transparent)]
    Neighbours(#[from] NeighboursError),
    /// A destination told nothing.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// A slot told nothing.
    #[error("slot {slot}: {cause}")]
    Slot {
        /// The slot.
        slot: u8,
        /// What happened, in words; the unit has it as [`SlotError`].
        cause: String,
    },
    /// A target is doubtful.
    #[error(transparent)]
    Target(#[from] TargetWarning),
    /// Subnet administration could not be asked.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Something that is neither InfiniBand nor Ethernet was named.
    #[error("link layer unknown: management datagrams need InfiniBand or RoCE (iWARP has none)")]
    LinkLayer,
}

/// Why nothing was scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The ports could not be listed.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// A port was named that is not there.
    #[error("there is no RDMA port {selector}; there are: {known}")]
    NoSuchPort {
        /// As it was named.
        selector: String,
        /// Those that are there.
        known: String,
    },
    /// A umad device was named that is not there.
    #[error("there is no umad device {selector}; there are: {known}")]
    NoSuchUmad {
        /// As it was named.
        selector: String,
        /// Those that are there, with their ports.
        known: String,
    },
    /// A umad device was named on a host that has none.
    #[error(
        "there is no umad device {selector}, nor any other: the ib_umad module is not loaded (modprobe ib_umad), or no \
         port takes management datagrams, as those of iWARP do not; the RDMA ports of this host: {ports}"
    )]
    NoUmad {
        /// As it was named.
        selector: String,
        /// The ports.
        ports: String,
    },
    /// There is no port at all.
    #[error(
        "this host has no RDMA port (load the driver of the adapter; for soft-RoCE: modprobe rdma_rxe; \
         rdma link add rxe0 type rxe netdev NETDEV)"
    )]
    NoPort,
}

/// How far a scan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Through which port.
    pub port: PortName,
    /// How many questions were answered, or not, by now.
    pub asked: u64,
    /// How many are known to be left; more may follow from the answers.
    pub left: u64,
    /// How many I/O units were read.
    pub units: usize,
}

/// Scans through the ports of this host. Blocks until everybody has answered or had the time to.
///
/// # Errors
/// When there is nothing to scan through; whatever else fails is in the report.
pub fn discover(options: &ScanOptions, progress: &mut dyn FnMut(&Progress)) -> Result<ScanReport, ScanError> {
    let ports = ports::list(&Roots::default())?;
    discover_with(&ports, &mut HostNeighbours, Umad::open, options, progress)
}

/// The same with ports, neighbours and transports of the caller's.
///
/// # Errors
/// As [`discover`].
pub fn discover_with<T: MadTransport>(
    ports: &[Port],
    neighbours: &mut impl Neighbours,
    mut open: impl FnMut(&Port) -> Result<T, OpenError>,
    options: &ScanOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ScanReport, ScanError> {
    let mut report = ScanReport::default();
    let chosen = chosen_ports(ports, options, &mut report)?;
    // A port nobody asked for may be down.
    let severity = |asked| if asked { Severity::Error } else { Severity::Warning };
    let mut used = 0;
    for port in &chosen.infiniband {
        match open(port) {
            Ok(transport) => {
                used += 1;
                let mut audience = infiniband::Audience {
                    progress: &mut *progress,
                    reports: &mut |_, _, _| {},
                    others: &mut |_, _| {},
                    interrupted: &mut || false,
                };
                let mut exchange = infiniband::exchange(transport, options);
                let scanned = infiniband::scan_port(port, &mut exchange, options, &mut report, &mut audience);
                if let Err(error) = scanned {
                    report.problem(Severity::Error, Some(port), None, error);
                }
            }
            Err(error) => report.problem(severity(!options.ports.is_empty()), Some(port), None, error),
        }
    }
    let plan = match chosen.roce.is_empty() {
        true => Vec::new(),
        false => candidates::plan(ports, &chosen.roce, neighbours, options, &mut report),
    };
    for (port, candidates) in plan {
        if candidates.is_empty() {
            continue;
        }
        let asked = !options.ports.is_empty() || candidates.iter().any(|c| c.given);
        match open(port) {
            Ok(transport) => {
                used += 1;
                run::scan_port(port, transport, candidates, options, &mut report, &mut *progress);
            }
            Err(error) => report.problem(severity(asked), Some(port), None, error),
        }
    }
    if used == 0 {
        let unusable = |problem: &&mut Problem| matches!(problem.cause, Cause::Open(_));
        let problems = report.problems.iter_mut().filter(unusable);
        problems.for_each(|problem| problem.severity = Severity::Error);
    }
    for destination in &options.destinations {
        report.judge(&destination.to_string());
    }
    Ok(report)
}

struct Chosen<'a> {
    infiniband: Vec<&'a Port>,
    roce: Vec<&'a Port>,
}

fn chosen_ports<'a>(
    ports: &'a [Port],
    options: &ScanOptions,
    report: &mut ScanReport,
) -> Result<Chosen<'a>, ScanError> {
    if ports.is_empty() {
        return Err(ScanError::NoPort);
    }
    for selector in &options.ports {
        if !ports.iter().any(|port| selector.selects(port)) {
            return Err(not_there(selector, ports));
        }
    }
    let all = options.ports.is_empty();
    let mut chosen = Chosen {
        infiniband: Vec::new(),
        roce: Vec::new(),
    };
    for port in ports
        .iter()
        .filter(|port| all || options.ports.iter().any(|s| s.selects(port)))
    {
        match port.link_layer {
            LinkLayer::InfiniBand => chosen.infiniband.push(port),
            LinkLayer::Ethernet => chosen.roce.push(port),
            LinkLayer::Unknown if all => {}
            LinkLayer::Unknown => report.problem(Severity::Error, Some(port), None, Cause::LinkLayer),
        }
    }
    Ok(chosen)
}

/// What was named in vain, and what is there instead.
fn not_there(selector: &PortSelector, ports: &[Port]) -> ScanError {
    let names: Vec<String> = ports.iter().map(|port| port.name.to_string()).collect();
    let umad = |port: &Port| Some(format!("{} ({})", port.umad.as_ref()?.display(), port.name));
    let umads: Vec<String> = ports.iter().filter_map(umad).collect();
    let (selector, is_umad) = (selector.to_string(), selector.means_umad());
    match (is_umad, umads.is_empty()) {
        (false, _) => ScanError::NoSuchPort {
            selector,
            known: names.join(", "),
        },
        (true, false) => ScanError::NoSuchUmad {
            selector,
            known: umads.join(", "),
        },
        (true, true) => ScanError::NoUmad {
            selector,
            ports: names.join(", "),
        },
    }
}

impl ScanReport {
    fn problem(&mut self, severity: Severity, port: Option<&Port>, destination: Option<&str>, cause: impl Into<Cause>) {
        self.problems.push(Problem {
            severity,
            port: port.map(|port| port.name.clone()),
            destination: destination.map(str::to_owned),
            cause: cause.into(),
        });
    }
}

impl Cause {
    fn slot(slot: u8, error: &SlotError) -> Self {
        Self::Slot {
            slot,
            cause: error.to_string(),
        }
    }
}

#[cfg(test)]
mod infiniband_tests;
#[cfg(test)]
mod tests;
