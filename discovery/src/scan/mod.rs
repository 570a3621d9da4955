//! Everything together: which destinations are asked, and what is reported.

mod candidates;
mod destination;
mod run;

use std::num::NonZeroU16;
use std::time::Duration;

use serde::Serialize;

pub use candidates::Unreachable;
pub use destination::{Destination, ParseDestinationError, PortSelector};

use crate::device_management::{IoUnit, SlotError, SurveyError, display};
use crate::neighbours::{HostNeighbours, Neighbours, NeighboursError};
use crate::ports::{self, LinkLayer, Port, PortName, PortsError, Roots};
use crate::targets::{RdmaCm, Target, TargetWarning};
use crate::transport::{MadTransport, Patience, TransportError};
use crate::umad::{OpenError, Umad};

/// What to look for over RoCE.
#[derive(Clone, Debug)]
pub struct RoceOptions {
    /// The local ports to look through; empty: all RoCE ports.
    pub ports: Vec<PortSelector>,
    /// Whom to ask; empty: the host itself and its neighbours, as the next two fields say.
    pub destinations: Vec<Destination>,
    /// Ask the local ports themselves.
    pub include_local: bool,
    /// Ask the neighbours the host knows.
    pub include_neighbours: bool,
    /// Where the targets listen for RDMA/CM logins; nothing announces it.
    pub rdma_cm_port: Option<NonZeroU16>,
    /// How long to wait for each answer.
    pub patience: Patience,
    /// How many destinations are asked at once through one port.
    pub at_once: usize,
    /// How long one destination may take altogether.
    pub destination_limit: Duration,
}

impl Default for RoceOptions {
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

/// An I/O unit that answered.
#[derive(Debug, Serialize)]
pub struct FoundUnit {
    /// Through which port.
    pub port: PortName,
    /// Who was asked, as the caller named it.
    pub destination: String,
    /// Where its targets take RDMA/CM logins, if the caller said at which port.
    pub rdma_cm: Option<RdmaCm>,
    /// The unit.
    #[serde(flatten)]
    pub unit: IoUnit,
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
    /// An InfiniBand port was named.
    #[error("this is an InfiniBand port, which is scanned through its subnet administration, not by address")]
    InfiniBandPort,
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
    /// No port is RoCE's.
    #[error(
        "no RDMA port of this host is on Ethernet (for soft-RoCE: modprobe rdma_rxe; \
         rdma link add rxe0 type rxe netdev NETDEV)"
    )]
    NoRocePort,
}

/// Scans through the RoCE ports of this host. Blocks until everybody has answered or had the time to.
///
/// # Errors
/// When there is nothing to scan through; whatever else fails is in the report.
pub fn discover_roce(options: &RoceOptions) -> Result<ScanReport, ScanError> {
    let ports = ports::list(&Roots::default())?;
    discover_roce_with(&ports, &mut HostNeighbours, Umad::open, options)
}

/// The same with ports, neighbours and transports of the caller's.
///
/// # Errors
/// As [`discover_roce`].
pub fn discover_roce_with<T: MadTransport>(
    ports: &[Port],
    neighbours: &mut impl Neighbours,
    mut open: impl FnMut(&Port) -> Result<T, OpenError>,
    options: &RoceOptions,
) -> Result<ScanReport, ScanError> {
    let mut report = ScanReport::default();
    let chosen = chosen_ports(ports, options, &mut report)?;
    let plan = candidates::plan(ports, &chosen, neighbours, options, &mut report);
    for (port, candidates) in plan {
        if candidates.is_empty() {
            continue;
        }
        // A port nobody asked for may be down.
        let asked = !options.ports.is_empty() || candidates.iter().any(|c| c.given);
        let severity = if asked { Severity::Error } else { Severity::Warning };
        match open(port) {
            Ok(transport) => run::scan_port(port, transport, candidates, options, &mut report),
            Err(error) => report.problem(severity, Some(port), None, error),
        }
    }
    Ok(report)
}

fn chosen_ports<'a>(
    ports: &'a [Port],
    options: &RoceOptions,
    report: &mut ScanReport,
) -> Result<Vec<&'a Port>, ScanError> {
    for selector in &options.ports {
        if !ports.iter().any(|port| selector.selects(port)) {
            let known: Vec<String> = ports.iter().map(|port| port.name.to_string()).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(ScanError::NoSuchPort {
                selector: selector.to_string(),
                known,
            });
        }
    }
    let all = options.ports.is_empty();
    let selected = |port: &&Port| all || options.ports.iter().any(|s| s.selects(port));
    let (roce, others): (Vec<&Port>, Vec<&Port>) = ports
        .iter()
        .filter(selected)
        .partition(|port| port.link_layer == LinkLayer::Ethernet);
    if !all {
        for port in others {
            report.problem(Severity::Error, Some(port), None, Cause::InfiniBandPort);
        }
    } else if roce.is_empty() {
        return Err(ScanError::NoRocePort);
    }
    Ok(roce)
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
mod tests;
