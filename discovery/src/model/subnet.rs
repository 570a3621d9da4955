//! An InfiniBand subnet behind a [`MadTransport`]: its subnet administration and the agents in it, on a clock of its
//! own. It stands for what neither opensm over ibsim nor soft-RoCE has: tables of more than one segment, ports that
//! say they have an agent, fabrics of any size, and an administration that fails in every way.

mod administration;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::time::{Duration, Instant};

use srp_addressing::{Gid, Guid, PKey};
use zerocopy::IntoBytes;

use super::{Agent, Controller};
use crate::mad::*;
use crate::ports::{GidEntry, LinkLayer, Port, PortName, PortState};
use crate::transport::*;

/// The LID of the subnet manager.
pub(crate) const SM_LID: u16 = 1;
/// The LID of the port that looks.
pub(crate) const OWN_LID: u16 = 2;
/// The LID of no port.
const NOBODY: u16 = 0xbeef;
/// The prefix of all GIDs.
pub(crate) const PREFIX: u64 = 0xfe80_0000_0000_0000;

/// A port of the model.
#[derive(Clone, Default)]
pub(crate) struct ModelPort {
    pub(crate) guid: u64,
    pub(crate) switch: bool,
    pub(crate) capability_mask: u32,
    pub(crate) pkeys: Vec<u16>,
    pub(crate) agent: Option<Agent>,
    pub(crate) silent: bool,
}

impl ModelPort {
    /// One with an agent that has an SRP controller.
    pub(crate) fn target(guid: u64) -> Self {
        Self {
            guid,
            capability_mask: IS_DEVICE_MANAGEMENT_SUPPORTED,
            pkeys: vec![0xffff],
            agent: Some(Agent::with([(1, Controller::srp(guid))])),
            ..Self::default()
        }
    }

    /// One without.
    pub(crate) fn plain(guid: u64) -> Self {
        Self {
            guid,
            pkeys: vec![0xffff],
            ..Self::default()
        }
    }
}

/// What is wrong with subnet administration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    Silent,
    /// Silent after so many answers.
    Dies(u32),
    /// Busy so many times.
    Busy(u32),
    /// Hands out only the first MAD of a table.
    Cuts,
    /// Refuses an attribute with a status.
    Refuses(Attribute, u16),
    /// Does not answer about one LID.
    SilentAbout(u16),
    /// Answers about one LID long after the others.
    SlowAbout(u16),
    /// Takes the mask query and matches nothing: all ports come.
    IgnoresMask,
}

struct Due {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A subnet.
pub struct Subnet {
    pub(crate) ports: BTreeMap<u16, ModelPort>,
    pub(crate) matches_mask: bool,
    pub(crate) trouble: Trouble,
    /// How many bytes wider than needed its records are, in words of 8.
    pub(crate) wider: u16,
    /// How long a datagram is on its way.
    pub(crate) latency: Duration,
    /// How long subnet administration works on a question; it does one after another.
    pub(crate) service: Duration,
    busy_until: Instant,
    now: Instant,
    started: Instant,
    due: BinaryHeap<Reverse<Due>>,
    /// Whether nonsense arrives without end.
    flood: bool,
    sent: u64,
    answered: u32,
    most_under_way: usize,
    administration_under_way: usize,
    /// How many questions subnet administration had at once at most.
    pub(crate) most_to_administration: usize,
    pub(crate) asked: BTreeMap<(u8, u16), u64>,
    /// With which entries of the P_Key table which LID was sent to.
    pub(crate) pkey_indices: BTreeMap<u16, BTreeSet<u16>>,
    /// How many reports were acknowledged.
    pub(crate) acknowledged: u64,
}

impl Subnet {
    /// A subnet with these ports, from LID 3 on.
    pub(crate) fn new(ports: impl IntoIterator<Item = ModelPort>) -> Self {
        let now = Instant::now();
        Self {
            ports: (OWN_LID + 1..).zip(ports).collect(),
            matches_mask: true,
            trouble: Trouble::None,
            wider: 0,
            latency: Duration::from_micros(20),
            service: Duration::from_micros(10),
            busy_until: now,
            now,
            started: now,
            due: BinaryHeap::new(),
            flood: false,
            sent: 0,
            answered: 0,
            most_under_way: 0,
            administration_under_way: 0,
            most_to_administration: 0,
            asked: BTreeMap::new(),
            pkey_indices: BTreeMap::new(),
            acknowledged: 0,
        }
    }

    /// A subnet of `ports` ports, of which `targets` have one SRP target each, spread evenly. Its subnet
    /// administration matches capability masks or does not.
    #[must_use]
    pub fn sized(ports: u16, targets: u16, matches_mask: bool) -> Self {
        let every = (ports / targets.max(1)).max(1);
        let port = |n: u16| match n.is_multiple_of(every) && n / every < targets {
            true => ModelPort::target(0x0002_c903_0000_0000 + u64::from(n)),
            false => ModelPort::plain(0x0002_c903_0000_0000 + u64::from(n)),
        };
        let mut subnet = Self::new((0..ports).map(port));
        subnet.matches_mask = matches_mask;
        subnet
    }

    /// The local port that looks into it.
    #[must_use]
    pub fn local_port() -> Port {
        Port {
            name: PortName {
                device: "mlx5_0".into(),
                number: 1,
            },
            link_layer: LinkLayer::InfiniBand,
            state: PortState::Active,
            lid: OWN_LID,
            sm_lid: SM_LID,
            sm_sl: 0,
            node_guid: None,
            gids: vec![GidEntry {
                index: 0,
                gid: Gid::new(PREFIX, Guid(0x00ff)),
                kind: None,
                interface: None,
            }],
            pkeys: vec![(0, PKey::DEFAULT)],
            umad: Some("/dev/infiniband/umad0".into()),
        }
    }

    /// How many MADs were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How much time has passed in the model.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// How many questions were under way at once at most.
    #[must_use]
    pub fn most_under_way(&self) -> usize {
        self.most_under_way
    }

    /// Has a report arrive that comes from a LID.
    pub(crate) fn report(&mut self, lid: u16, mad: &Mad) {
        let from = Source { lid, qpn: 1, gid: None };
        let bytes = mad.as_bytes().to_vec();
        self.arrives(self.now, Event::Mad { from, bytes });
    }

    fn arrives(&mut self, at: Instant, event: Event) {
        let number = self.sent;
        self.due.push(Reverse(Due { at, number, event }));
        self.most_under_way = self.most_under_way.max(self.due.len());
    }

    /// Puts a question to the agent at a LID.
    fn ask_agent(&mut self, to: &Address, asked: &Mad, patience: Patience) -> Result<(), SendError> {
        let unanswered = Event::Unanswered { tid: asked.tid_low() };
        let end = self.now + patience.total();
        let port = self.ports.get_mut(&to.lid).filter(|port| !port.silent);
        let Some(agent) = port.and_then(|port| port.agent.as_mut()) else {
            self.arrives(end, unanswered);
            return Ok(());
        };
        let reply = agent.reply(asked, patience).map_err(|cause| SendError {
            to: to.to_string(),
            cause,
            remedy: "",
        })?;
        let from = Source {
            lid: if reply.elsewhere { NOBODY } else { to.lid },
            qpn: 1,
            gid: None,
        };
        for _ in 0..reply.copies {
            let bytes = reply.bytes.clone();
            self.arrives(self.now + 2 * self.latency + reply.after, Event::Mad { from, bytes });
        }
        self.flood |= reply.flood;
        if reply.unanswered {
            self.arrives(end, unanswered);
        }
        Ok(())
    }
}

impl MadTransport for Subnet {
    fn now(&self) -> Instant {
        self.now
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        let request = Mad::parse(mad).map_err(|error| SendError {
            to: to.to_string(),
            cause: io::Error::other(error),
            remedy: "",
        })?;
        self.sent += 1;
        let attribute = request.attribute();
        *self.asked.entry((attribute.class, attribute.id)).or_default() += 1;
        self.pkey_indices.entry(to.lid).or_default().insert(to.pkey_index);
        let answer = match attribute.class {
            class::SUBNET_ADMINISTRATION if to.lid == SM_LID => {
                self.ask_administration(&SaMad::from_mad(request), attribute)
            }
            class::DEVICE_MANAGEMENT => return self.ask_agent(to, request, patience),
            _ => None,
        };
        match answer {
            Some((at, bytes)) => {
                let from = Source {
                    lid: to.lid,
                    qpn: 1,
                    gid: None,
                };
                self.administration_under_way += 1;
                self.most_to_administration = self.most_to_administration.max(self.administration_under_way);
                self.arrives(at, Event::Mad { from, bytes });
            }
            None => {
                let tid = request.tid_low();
                self.arrives(self.now + patience.total(), Event::Unanswered { tid });
            }
        }
        Ok(())
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        self.acknowledged += u64::from(to.lid == SM_LID && mad[3] == Method::REPORT_RESP.0);
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        match self.due.peek() {
            // Between whatever else arrives.
            first if self.flood && first.is_none_or(|Reverse(due)| due.at > self.now) => {
                self.now += Duration::from_millis(1);
                let from = Source {
                    lid: NOBODY,
                    qpn: 1,
                    gid: None,
                };
                Ok(Event::Mad {
                    from,
                    bytes: vec![0xaa; MAD_LEN],
                })
            }
            Some(Reverse(due)) if due.at <= until => {
                self.now = self.now.max(due.at);
                let due = self.due.pop().map(|Reverse(due)| due.event);
                if let Some(Event::Mad { from, .. }) = &due
                    && from.lid == SM_LID
                {
                    self.administration_under_way = self.administration_under_way.saturating_sub(1);
                }
                Ok(due.unwrap_or(Event::Idle))
            }
            _ => {
                self.now = self.now.max(until);
                Ok(Event::Idle)
            }
        }
    }
}
