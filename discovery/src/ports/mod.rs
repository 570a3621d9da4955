//! The local RDMA ports, as sysfs shows them.

mod sysfs;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use srp_addressing::{Gid, Guid, PKey};

/// An RDMA device and one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The device, as `rdma link` shows it.
    pub device: String,
    /// The port, from 1.
    pub number: u32,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.number)
    }
}

impl Serialize for PortName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is below the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkLayer {
    /// An InfiniBand fabric with a subnet manager.
    InfiniBand,
    /// Ethernet: RoCE, or iWARP, which has no MADs.
    Ethernet,
    /// Anything else.
    Unknown,
}

/// The logical state of a port (IBA 7.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortState {
    /// No link.
    Down,
    /// Link, but not configured by a subnet manager yet.
    Init,
    /// Configured, not yet released.
    Armed,
    /// In use.
    Active,
    /// Active, link lost for a moment.
    ActiveDefer,
    /// Anything else.
    Unknown,
}

impl PortState {
    /// What to do about a state that is not [`PortState::Active`].
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Down => "is the cable in, the switch port enabled, the network interface up?",
            Self::Init | Self::Armed => "is a subnet manager running in the fabric?",
            Self::Active | Self::ActiveDefer => "try again",
            Self::Unknown => "look at `rdma link`",
        }
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "DOWN",
            Self::Init => "INIT",
            Self::Armed => "ARMED",
            Self::Active => "ACTIVE",
            Self::ActiveDefer => "ACTIVE_DEFER",
            Self::Unknown => "in an unknown state",
        })
    }
}

/// How a GID travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GidType {
    /// InfiniBand, or RoCE v1 (an Ethernet protocol of its own).
    InfiniBandOrRoceV1,
    /// RoCE v2 (over UDP).
    RoceV2,
}

/// One entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Its index.
    pub index: u32,
    /// The GID.
    pub gid: Gid,
    /// How it travels, where the kernel says so.
    pub kind: Option<GidType>,
    /// The network interface it belongs to, on Ethernet.
    pub interface: Option<String>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: PortName,
    /// What is below it.
    pub link_layer: LinkLayer,
    /// Its state.
    pub state: PortState,
    /// Its LID; 0 on RoCE.
    pub lid: u16,
    /// The LID of the subnet manager; 0 on RoCE.
    pub sm_lid: u16,
    /// The service level to it.
    pub sm_sl: u8,
    /// The GUID of its device.
    pub node_guid: Option<Guid>,
    /// The non-zero entries of its GID table.
    pub gids: Vec<GidEntry>,
    /// The non-zero entries of its P_Key table, with their index.
    pub pkeys: Vec<(u16, PKey)>,
    /// Its MAD device, when ib_umad is loaded.
    pub umad: Option<PathBuf>,
}

/// Whether a GID holds an IPv4 address (`::ffff:a.b.c.d`).
#[must_use]
pub fn is_ipv4_mapped(gid: Gid) -> bool {
    Ipv6Addr::from(gid.0).to_ipv4_mapped().is_some()
}

/// Whether a GID is link-local (`fe80::/10`).
#[must_use]
pub fn is_link_local(gid: Gid) -> bool {
    Ipv6Addr::from(gid.0).is_unicast_link_local()
}

impl Port {
    /// The RoCE v2 entries a MAD may be sent from: those that hold no IPv4 address, within the 8 bits that the
    /// kernel's interface has for the index.
    pub fn roce_sources(&self) -> impl Iterator<Item = (u8, &GidEntry)> {
        let usable = |e: &&GidEntry| e.kind != Some(GidType::InfiniBandOrRoceV1) && !is_ipv4_mapped(e.gid);
        self.gids
            .iter()
            .filter(usable)
            .filter_map(|e| Some((u8::try_from(e.index).ok()?, e)))
    }

    /// Which GID entry to send to `gid` from: of the same subnet if there is one (on `interface`, if it is
    /// named), else, for a routed destination, any that is not link-local.
    #[must_use]
    pub fn roce_source_for(&self, gid: Gid, interface: Option<&str>) -> Option<u8> {
        let on_interface = |e: &GidEntry| interface.is_none_or(|name| e.interface.as_deref() == Some(name));
        let same_subnet = |e: &GidEntry| e.gid.subnet_prefix() == gid.subnet_prefix();
        let routed = |e: &GidEntry| !is_link_local(gid) && !is_link_local(e.gid);
        let pick = |fits: &dyn Fn(&GidEntry) -> bool| {
            self.roce_sources()
                .find(|(_, e)| on_interface(e) && fits(e))
                .map(|(index, _)| index)
        };
        pick(&same_subnet).or_else(|| pick(&routed))
    }

    /// The link-local GID of an interface of this port: the one entry that always exists on RoCE.
    #[must_use]
    pub fn link_local_on(&self, interface: Option<&str>) -> Option<&GidEntry> {
        self.roce_sources()
            .map(|(_, e)| e)
            .find(|e| is_link_local(e.gid) && (interface.is_none() || e.interface.as_deref() == interface))
    }

    /// The network interfaces of this port's GIDs.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.gids.iter().filter_map(|e| e.interface.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The GID entry that holds an address of this host.
    #[must_use]
    pub fn entry_of(&self, address: IpAddr) -> Option<&GidEntry> {
        let gid = gid_of(address);
        self.gids.iter().find(|e| e.gid == gid)
    }

    /// The first entry of its GID table: on InfiniBand the one that counts.
    #[must_use]
    pub fn first_gid(&self) -> Option<Gid> {
        self.gids.first().map(|entry| entry.gid)
    }

    /// The entry of the P_Key table to send with in the partition of `pkey`: the same key if it is there, else one
    /// of the same partition.
    #[must_use]
    pub fn pkey_index(&self, pkey: PKey) -> Option<u16> {
        pkey_index(&self.pkeys, pkey)
    }

    /// The index of the default partition, else of any.
    #[must_use]
    pub fn default_pkey(&self) -> Option<(u16, PKey)> {
        let default = self
            .pkeys
            .iter()
            .find(|(_, key)| key.partition() == PKey::DEFAULT.partition());
        default.or(self.pkeys.first()).copied()
    }
}

/// The same in a table alone.
pub(crate) fn pkey_index(table: &[(u16, PKey)], pkey: PKey) -> Option<u16> {
    let same = table.iter().find(|(_, key)| *key == pkey);
    let partition = |(_, key): &&(u16, PKey)| key.partition() == pkey.partition();
    same.or_else(|| table.iter().find(partition)).map(|(index, _)| *index)
}

/// An IP address as the RoCE GID table shows it.
#[must_use]
pub fn gid_of(address: IpAddr) -> Gid {
    match address {
        IpAddr::V4(v4) => Gid(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => Gid(v6.octets()),
    }
}

/// The link-local GID that every RoCE port makes from its MAC address (RFC 4291 appendix A).
#[must_use]
pub fn link_local_of_mac(mac: [u8; 6]) -> Gid {
    let [a, b, c, d, e, f] = mac;
    Gid([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Why the ports could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortsError {
    /// The kernel has no RDMA at all.
    #[error(
        "no RDMA devices: {} does not exist (load the driver of the adapter; for soft-RoCE: \
         modprobe rdma_rxe; rdma link add rxe0 type rxe netdev NETDEV)",
        path.display()
    )]
    NoRdma {
        /// Where they would be.
        path: PathBuf,
    },
    /// Something there could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Where sysfs and the device nodes are.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/sys`
    pub sys: PathBuf,
    /// `/dev`
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
        }
    }
}

/// Lists the ports of all RDMA devices, ordered by name. A device that disappears while it is read is left out.
///
/// # Errors
/// See [`PortsError`].
pub fn list(roots: &Roots) -> Result<Vec<Port>, PortsError> {
    sysfs::list(roots)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
