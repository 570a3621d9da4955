//! What is under way in the scan of an InfiniBand port.

use std::time::Instant;

use srp_addressing::{Gid, PKey};

use crate::device_management::{Step, Survey};
use crate::mad::{Attribute, Mad, Method, NodeRecord, PathComponents, PathRecord, PortInfoRecord, SA_DATA_LEN, SaMad};
use crate::ports::Port;
use crate::scan::Node;
use crate::transport::{Answer, Query, QueryError};

/// A question to subnet administration.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) what: What,
    /// How often it was put off.
    pub(super) tries: u8,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// What it can do.
    ClassPortInfo,
    /// All ports that have an agent.
    AgentPorts,
    /// All nodes, where it cannot match that.
    Nodes,
    /// Whether the port at a LID has an agent.
    Port { row: usize, lid: u16 },
    /// The GUID of a port.
    Node { row: usize, lid: u16, gid_prefix: u64 },
    /// Whether there is a way to a port, in a partition.
    Path { end_port: usize, pkey: PKey },
}

impl Job {
    pub(super) const fn new(what: What) -> Self {
        Self { what, tries: 0 }
    }

    pub(super) const fn class_port_info() -> Self {
        Self::new(What::ClassPortInfo)
    }

    /// The MAD that asks. A path is asked for by LIDs, or by GIDs where those are all there is.
    pub(super) fn question(&self, port: &Port, end_ports: &[EndPort]) -> Mad {
        match &self.what {
            What::ClassPortInfo => {
                let attribute = Attribute::SA_CLASS_PORT_INFO;
                SaMad::request(Method::GET, attribute, 0, 0, &[0_u8; SA_DATA_LEN]).into_mad()
            }
            What::AgentPorts => PortInfoRecord::with_device_management(),
            What::Nodes => NodeRecord::all(),
            What::Port { lid, .. } => PortInfoRecord::of_lid(*lid),
            What::Node { lid, .. } => NodeRecord::of_lid(*lid),
            What::Path { end_port, pkey } => {
                let ends = match end_ports.get(*end_port) {
                    Some(EndPort { lid: 0, gid, .. }) => PathComponents::Gids {
                        source: port.first_gid().unwrap_or_default(),
                        destination: *gid,
                    },
                    other => PathComponents::Lids {
                        source: port.lid,
                        destination: other.map_or(0, |end_port| end_port.lid),
                    },
                };
                PathRecord::query(ends, Some(*pkey))
            }
        }
    }

    /// What it is about, as it is shown.
    pub(super) fn name(&self, end_ports: &[EndPort]) -> Option<String> {
        match &self.what {
            What::ClassPortInfo | What::AgentPorts | What::Nodes => None,
            What::Port { lid, .. } | What::Node { lid, .. } => Some(format!("LID 0x{lid:04x}")),
            What::Path { end_port, .. } => end_ports.get(*end_port).map(EndPort::name),
        }
    }
}

/// A port that has an agent, or that the caller has named.
#[derive(Clone, Debug)]
pub(super) struct EndPort {
    /// Its row in the table that it was found by; answers come in any order.
    pub(super) row: usize,
    /// 0 until a path to it is known.
    pub(super) lid: u16,
    pub(super) gid: Gid,
    pub(super) node: Option<Node>,
    /// As the caller named it.
    pub(super) given: Option<String>,
    /// How many answers about partitions are still to come.
    pub(super) paths_left: usize,
    /// The partitions in which it is reached.
    pub(super) pkeys: Vec<PKey>,
    /// Whether it is settled already why it is not reached.
    pub(super) failed: bool,
}

impl EndPort {
    pub(super) fn name(&self) -> String {
        self.given.clone().unwrap_or_else(|| format!("LID 0x{:04x}", self.lid))
    }
}

/// Where a unit belongs in the report: as the subnet's table has its port, then as the P_Key table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) end_port: usize,
    pub(super) pkey_index: u16,
    pub(super) pkey: PKey,
}

/// A survey whose question is under way.
pub(super) struct Asked(pub(super) Survey);

impl Asked {
    pub(super) fn answered(mut self, result: Result<Answer, QueryError>) -> (Self, Step) {
        let step = self.0.answer(result);
        (self, step)
    }
}

/// A survey of an agent that is busy.
pub(super) struct Paused {
    pub(super) until: Instant,
    pub(super) place: Place,
    pub(super) survey: Asked,
    pub(super) since: Instant,
    /// What is asked then.
    pub(super) query: Query,
}

/// Who waits for an answer.
pub(super) enum Running {
    Subnet(Job),
    Agent(Place, Asked, Instant),
    /// A survey that was sent to a GID and needs the way there.
    Way(Place, Asked, Instant),
}
