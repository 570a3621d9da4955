//! From what a caller named, or from what the host knows, to GIDs that can be asked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use srp_addressing::Gid;

use super::{Cause, Destination, ScanOptions, ScanReport, Severity};
use crate::neighbours::{Neighbour, Neighbours};
use crate::ports::{Port, PortState, is_ipv4_mapped, is_link_local, link_local_of_mac};
use crate::targets::{RdmaCm, RdmaCmSource};
use crate::transport::Address;
use crate::umad::OpenError;

/// Someone to ask through one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// As it is shown.
    pub(super) name: String,
    /// Whether the caller named it.
    pub(super) given: bool,
    pub(super) gid: Gid,
    pub(super) to: Address,
    pub(super) rdma_cm: Option<RdmaCm>,
}

/// Why a destination cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// A GID with an IPv4 address in it.
    #[error(
        "GID {gid} holds an IPv4 address: the kernel drops management answers to such GIDs (it compares the \
         IPv4 header as if it were a GRH); {}",
        instead.map_or("use the target's link-local GID (fe80::...)".to_owned(), |gid| format!("use {gid}"))
    )]
    Ipv4Gid {
        /// The GID.
        gid: Gid,
        /// Another of the same port, if one is known.
        instead: Option<Gid>,
    },
    /// No neighbour has the address.
    #[error(
        "the host knows no MAC address for {0} on an RDMA port's network: is the host up? (ping it and look at \
         `ip neigh`; behind a router, give the target's IPv6 GID)"
    )]
    NoNeighbour(IpAddr),
    /// The kernel finds the way to a GID by IPv6.
    #[error(
        "nobody answers for {address} on {interface}, so that its GID cannot be reached (is IPv6 off there, or the \
         host down?)"
    )]
    NoIpv6 {
        /// The link-local address that belongs to its MAC address.
        address: Ipv6Addr,
        /// Where it should be.
        interface: String,
    },
    /// Nothing to send from.
    #[error(
        "no port has a RoCE v2 GID to reach {gid} from{}: is the network interface up, with an IPv6 address of \
         that subnet?",
        interface.as_ref().map_or(String::new(), |name| format!(" on {name}"))
    )]
    NoSource {
        /// The destination.
        gid: Gid,
        /// Where it was to be.
        interface: Option<String>,
    },
    /// Nothing to send from to anybody.
    #[error(
        "the port has no GID that management datagrams can be sent from over RoCE v2: is its network interface up, with \
         IPv6 on it? (A port of iWARP never has: it takes no such datagrams)"
    )]
    NoGid,
    /// The port it would be sought through is not up.
    #[error("{port} is {state}, not ACTIVE: {}", state.remedy())]
    NotActive {
        /// The port.
        port: String,
        /// Its state.
        state: PortState,
    },
    /// The port is in no partition.
    #[error("the port's P_Key table is empty: look at `rdma link`")]
    NoPartition,
}

/// Who is to be asked through which port.
pub(super) fn plan<'a>(
    all: &[Port],
    chosen: &[&'a Port],
    neighbours: &mut impl Neighbours,
    options: &ScanOptions,
    report: &mut ScanReport,
) -> Vec<(&'a Port, Vec<Candidate>)> {
    let mut known = Vec::new();
    if !options.destinations.is_empty() || options.include_neighbours {
        known = neighbours.list().unwrap_or_else(|error| {
            report.problem(Severity::Warning, None, None, error);
            Vec::new()
        });
    }
    let missing = missing(all, chosen, &known, options);
    if !missing.is_empty() {
        neighbours.look_for(&missing);
        known = neighbours.list().unwrap_or(known);
    }
    let mut plan: Vec<(&Port, Vec<Candidate>)> = chosen.iter().map(|port| (*port, vec![])).collect();
    let context = Context {
        all,
        known: &known,
        options,
    };
    for destination in &options.destinations {
        let mut refused = None;
        let mut accepted = false;
        for (port, candidates) in &mut plan {
            match context.given(port, destination) {
                Ok(candidate) => {
                    accepted = true;
                    add(candidates, candidate);
                }
                Err(error @ Unreachable::NotActive { .. }) => {
                    refused.get_or_insert(error);
                }
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused.filter(|_| !accepted) {
            report.problem(Severity::Error, None, Some(&destination.to_string()), error);
        }
    }
    if options.destinations.is_empty() {
        for (port, candidates) in &mut plan {
            context.unnamed(port, candidates, report);
        }
    }
    plan
}

/// What the neighbour table lacks: the IPv4 addresses that were named, and the link-local addresses of neighbours
/// known by another one. Without those a send would block the kernel's interface for seconds, one after another.
fn missing(
    all: &[Port],
    chosen: &[&Port],
    known: &[Neighbour],
    options: &ScanOptions,
) -> Vec<(IpAddr, Option<String>)> {
    let is_known = |address: IpAddr| {
        all.iter().any(|port| port.entry_of(address).is_some())
            || known.iter().any(|neighbour| neighbour.address == address)
    };
    let mut missing: Vec<(IpAddr, Option<String>)> = Vec::new();
    // The kernel itself finds the way to an IPv6 GID.
    let named = options.destinations.iter().filter(|d| d.address.is_ipv4());
    missing.extend(named.map(|d| (d.address, d.interface.clone())));
    if options.destinations.is_empty() && options.include_neighbours {
        for port in chosen {
            missing.extend(near(port, known).map(|n| (link_local(n).into(), Some(n.interface.clone()))));
        }
    }
    missing.retain(|(address, _)| !is_known(*address));
    missing.sort();
    missing.dedup();
    missing
}

fn near<'a>(port: &Port, known: &'a [Neighbour]) -> impl Iterator<Item = &'a Neighbour> {
    let interfaces: Vec<String> = port.interfaces().into_iter().map(str::to_owned).collect();
    known.iter().filter(move |n| interfaces.contains(&n.interface))
}

fn link_local(neighbour: &Neighbour) -> Ipv6Addr {
    link_local_of_mac(neighbour.mac).0.into()
}

fn add(candidates: &mut Vec<Candidate>, candidate: Candidate) {
    if !candidates.iter().any(|other| other.gid == candidate.gid) {
        candidates.push(candidate);
    }
}

struct Context<'a> {
    all: &'a [Port],
    known: &'a [Neighbour],
    options: &'a ScanOptions,
}

impl Context<'_> {
    /// What the caller named, seen from `port`.
    fn given(&self, port: &Port, destination: &Destination) -> Result<Candidate, Unreachable> {
        if port.state != PortState::Active {
            let (port, state) = (port.name.to_string(), port.state);
            return Err(Unreachable::NotActive { port, state });
        }
        let address = destination.address;
        let interface = destination.interface.as_deref();
        let (gid, interface) = match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => {
                    let instead = self.link_local_of(port, v4.into(), interface).ok();
                    let instead = instead.map(|(gid, _)| gid);
                    return Err(Unreachable::Ipv4Gid {
                        gid: Gid(v6.octets()),
                        instead,
                    });
                }
                None => (Gid(v6.octets()), interface.map(str::to_owned)),
            },
            IpAddr::V4(_) => self.link_local_of(port, address, interface)?,
        };
        let name = destination.to_string();
        let ip = address.is_ipv4().then_some(address);
        self.candidate(port, name, true, gid, interface.as_deref(), ip)
    }

    /// The link-local GID of the host that has `address`, and the interface of `port` that leads there.
    fn link_local_of(
        &self,
        port: &Port,
        address: IpAddr,
        interface: Option<&str>,
    ) -> Result<(Gid, Option<String>), Unreachable> {
        let unknown = Unreachable::NoNeighbour(address);
        // An address of this host is asked through its own port.
        if let Some(owner) = self.all.iter().find(|port| port.entry_of(address).is_some()) {
            let entry = port
                .entry_of(address)
                .filter(|_| owner.name == port.name)
                .ok_or(unknown)?;
            let own = port.link_local_on(entry.interface.as_deref());
            let own = own.ok_or(Unreachable::NoSource {
                gid: entry.gid,
                interface: entry.interface.clone(),
            })?;
            return Ok((own.gid, entry.interface.clone()));
        }
        let fits = |n: &&Neighbour| n.address == address && interface.is_none_or(|name| name == n.interface);
        let neighbour = near(port, self.known).find(fits).ok_or(unknown)?;
        Ok((link_local_of_mac(neighbour.mac), Some(neighbour.interface.clone())))
    }

    /// Those nobody named: the port itself, and its neighbours.
    fn unnamed(&self, port: &Port, candidates: &mut Vec<Candidate>, report: &mut ScanReport) {
        if port.roce_sources().next().is_none() {
            let severity = match self.options.ports.is_empty() {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let cause: Cause = match port.state {
                PortState::Active => Unreachable::NoGid.into(),
                state => OpenError::NotActive {
                    port: port.name.to_string(),
                    state,
                }
                .into(),
            };
            return report.problem(severity, Some(port), None, cause);
        }
        let mut found: Vec<(Gid, Option<&str>, String)> = Vec::new();
        if self.options.include_local {
            let own = port.roce_sources().map(|(_, e)| e).filter(|e| is_link_local(e.gid));
            found.extend(own.map(|e| (e.gid, e.interface.as_deref(), "this host".to_owned())));
        }
        if self.options.include_neighbours {
            for neighbour in near(port, self.known) {
                let name = neighbour.address.to_string();
                let address = link_local(neighbour);
                if self.known.iter().any(|n| n.address == address) {
                    let gid = Gid(address.octets());
                    found.push((gid, Some(neighbour.interface.as_str()), name));
                } else {
                    let error = Unreachable::NoIpv6 {
                        address,
                        interface: neighbour.interface.clone(),
                    };
                    report.problem(Severity::Note, Some(port), Some(&name), error);
                }
            }
        }
        for (gid, interface, name) in found {
            match self.candidate(port, name.clone(), false, gid, interface, None) {
                Ok(candidate) => add(candidates, candidate),
                Err(error) => report.problem(Severity::Note, Some(port), Some(&name), error),
            }
        }
    }

    fn candidate(
        &self,
        port: &Port,
        name: String,
        given: bool,
        gid: Gid,
        interface: Option<&str>,
        ip: Option<IpAddr>,
    ) -> Result<Candidate, Unreachable> {
        let no_source = || Unreachable::NoSource {
            gid,
            interface: interface.map(str::to_owned),
        };
        let source = port.roce_source_for(gid, interface).ok_or_else(no_source)?;
        let (pkey_index, _) = port.default_pkey().ok_or(Unreachable::NoPartition)?;
        let rdma_cm = self.options.rdma_cm_port.map(|number| {
            let ip = ip.unwrap_or_else(|| self.address_of(port, gid));
            let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let out = port.gids.iter().find(|e| e.index == u32::from(source));
            let interface = interface.or(out.and_then(|e| e.interface.as_deref()));
            RdmaCm {
                dest: SocketAddr::new(ip, number.get()),
                interface: interface.filter(|_| link_local).map(str::to_owned),
                source: RdmaCmSource::Given,
            }
        });
        Ok(Candidate {
            name,
            given,
            gid,
            to: Address::roce(gid, source, pkey_index),
            rdma_cm,
        })
    }

    /// The address to log in to the port that has `gid`: its IPv4 address if one is known, else an IPv6 address
    /// that is good everywhere, else the GID itself.
    fn address_of(&self, port: &Port, gid: Gid) -> IpAddr {
        let plain = |gid: Gid| Ipv6Addr::from(gid.0).to_canonical();
        let own = port.gids.iter().find(|e| e.gid == gid).map(|e| &e.interface);
        let own = own.into_iter().flat_map(|interface| {
            port.gids
                .iter()
                .filter(move |e| e.interface == *interface)
                .map(|e| plain(e.gid))
        });
        let near = self
            .known
            .iter()
            .filter(|n| link_local_of_mac(n.mac) == gid)
            .map(|n| n.address);
        let addresses: Vec<IpAddr> = own.chain(near).collect();
        let v4 = addresses.iter().find(|a| a.is_ipv4());
        let global = addresses
            .iter()
            .find(|a| matches!(a, IpAddr::V6(v6) if !v6.is_unicast_link_local()));
        // A GID that is not link-local is itself what the caller named.
        let named = (!is_link_local(gid) && !is_ipv4_mapped(gid)).then(|| plain(gid));
        named.or(v4.copied()).or(global.copied()).unwrap_or_else(|| plain(gid))
    }
}
