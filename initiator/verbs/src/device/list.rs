//! Which HCAs and ports there are, for diagnosis: read from sysfs, nothing is opened.

use std::fs;
use std::io;
use std::path::Path;

use srp_addressing::{Gid, Guid};

const CLASS: &str = "/sys/class/infiniband";

/// What a port runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE or iWARP.
    Ethernet,
    /// Something else, as the kernel writes it.
    Other(String),
}

/// Logical state of a port (IBA 14.2.5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// No change (0).
    Nop,
    /// No link.
    Down,
    /// Link, but no subnet manager has configured the port.
    Init,
    /// Configured, not yet in use.
    Armed,
    /// In use.
    Active,
    /// Active, deferring.
    ActiveDefer,
    /// A number this crate does not know.
    Other(u8),
}

impl PortState {
    /// The state as sysfs writes it: `4: ACTIVE`.
    fn parse(text: &str) -> Option<Self> {
        let number = text.split(':').next()?.trim().parse().ok()?;
        Some(match number {
            0 => Self::Nop,
            1 => Self::Down,
            2 => Self::Init,
            3 => Self::Armed,
            4 => Self::Active,
            5 => Self::ActiveDefer,
            other => Self::Other(other),
        })
    }

    /// What an administrator can do about a port in this state; empty when it is fine.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Active | Self::ActiveDefer => "",
            Self::Down => "no link: check cable, switch port and `ip link`",
            Self::Init | Self::Armed => "no subnet manager has configured this port: check that one (opensm) runs",
            Self::Nop | Self::Other(_) => "unknown port state",
        }
    }
}

/// One port of an HCA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// From 1.
    pub number: u8,
    /// Its state.
    pub state: PortState,
    /// What it runs on.
    pub link_layer: LinkLayer,
    /// As the kernel writes it: `100 Gb/sec (4X EDR)`.
    pub rate: String,
    /// Entry 0 of its GID table, which names the port in SRP.
    pub gid: Option<Gid>,
    /// The network interface behind a RoCE port.
    pub interface: Option<String>,
}

/// One HCA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its node GUID.
    pub node_guid: Option<Guid>,
    /// Its ports.
    pub ports: Vec<PortInfo>,
}

/// The HCAs of this host, opened by somebody or not.
///
/// # Errors
/// When sysfs cannot be read; a host without RDMA modules simply has no HCA.
pub fn list_devices() -> io::Result<Vec<DeviceInfo>> {
    list_in(Path::new(CLASS))
}

fn list_in(class: &Path) -> io::Result<Vec<DeviceInfo>> {
    let mut devices = Vec::new();
    for name in names(class)? {
        let directory = class.join(&name);
        let mut ports = Vec::new();
        for port in names(&directory.join("ports"))? {
            let Ok(number) = port.parse() else { continue };
            ports.extend(read_port(&directory.join("ports").join(port), number));
        }
        ports.sort_by_key(|port| port.number);
        let node_guid = read(&directory.join("node_guid")).and_then(|text| text.parse().ok());
        devices.push(DeviceInfo { name, node_guid, ports });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

/// Entries of a directory; none when it does not exist (any more).
fn names(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_port(directory: &Path, number: u8) -> Option<PortInfo> {
    let link_layer = match read(&directory.join("link_layer"))? {
        text if text == "InfiniBand" => LinkLayer::InfiniBand,
        text if text == "Ethernet" => LinkLayer::Ethernet,
        text => LinkLayer::Other(text),
    };
    Some(PortInfo {
        number,
        state: PortState::parse(&read(&directory.join("state"))?)?,
        link_layer,
        rate: read(&directory.join("rate")).unwrap_or_default(),
        gid: read(&directory.join("gids/0")).and_then(|text| text.parse().ok()),
        interface: read(&directory.join("gid_attrs/ndevs/0")).filter(|name| !name.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_states_are_read_as_sysfs_writes_them() {
        assert_eq!(PortState::parse("4: ACTIVE"), Some(PortState::Active));
        assert_eq!(PortState::parse("1: DOWN\n"), Some(PortState::Down));
        assert_eq!(PortState::parse("9: NEW"), Some(PortState::Other(9)));
        assert_eq!(PortState::parse("x"), None);
        assert!(PortState::Init.remedy().contains("opensm"));
    }

    #[test]
    fn devices_are_listed_from_sysfs_files() {
        let class = std::env::temp_dir().join(format!("srp-verbs-list-{}", std::process::id()));
        let port = class.join("rxe0/ports/1");
        fs::create_dir_all(port.join("gids")).expect("a directory");
        fs::create_dir_all(port.join("gid_attrs/ndevs")).expect("a directory");
        for (name, text) in [
            ("state", "4: ACTIVE\n"),
            ("link_layer", "Ethernet\n"),
            ("rate", "2.5 Gb/sec (1X SDR)\n"),
            ("gids/0", "fe80:0000:0000:0000:0011:22ff:fe33:4455\n"),
            ("gid_attrs/ndevs/0", "eth9\n"),
        ] {
            fs::write(port.join(name), text).expect("a file");
        }
        fs::write(class.join("rxe0/node_guid"), "0011:22ff:fe33:4455\n").expect("a file");
        let devices = list_in(&class).expect("a listing");
        fs::remove_dir_all(&class).expect("removable");
        assert_eq!(devices.len(), 1);
        let [port] = &devices[0].ports[..] else {
            panic!("one port")
        };
        assert_eq!((port.number, port.state), (1, PortState::Active));
        assert_eq!(port.link_layer, LinkLayer::Ethernet);
        assert_eq!(port.interface.as_deref(), Some("eth9"));
        assert_eq!(port.gid.map(|gid| gid.0[0]), Some(0xfe));
        assert_eq!(devices[0].node_guid, Some(Guid(0x0011_22ff_fe33_4455)));
    }

    #[test]
    fn a_host_without_rdma_has_no_devices() {
        assert_eq!(list_in(Path::new("/nonexistent")).expect("a listing"), Vec::new());
    }
}
