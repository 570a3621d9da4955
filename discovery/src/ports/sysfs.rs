//! Reading `/sys/class/infiniband` and `/sys/class/infiniband_mad`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use srp_addressing::{Gid, Guid, PKey};

use super::{GidEntry, GidType, LinkLayer, Port, PortName, PortState, PortsError, Roots};

pub(super) fn list(roots: &Roots) -> Result<Vec<Port>, PortsError> {
    let class = roots.sys.join("class/infiniband");
    if !class.exists() {
        return Err(PortsError::NoRdma { path: class });
    }
    let umads = umads(roots);
    let mut ports = Vec::new();
    for device in names(&class)? {
        let dir = class.join(&device);
        let node_guid = attribute(&dir, "node_guid").and_then(|text| Guid::from_str(&text).ok());
        // A device that goes away now has no ports any more: not an error.
        for number in numbers(&dir.join("ports")) {
            let name = PortName {
                device: device.clone(),
                number,
            };
            let umad = umads.get(&name).cloned();
            ports.extend(port(&dir.join("ports").join(number.to_string()), name, node_guid, umad));
        }
    }
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ports)
}

fn port(dir: &Path, name: PortName, node_guid: Option<Guid>, umad: Option<PathBuf>) -> Option<Port> {
    let state = match leading_number(&attribute(dir, "state")?) {
        Some(1) => PortState::Down,
        Some(2) => PortState::Init,
        Some(3) => PortState::Armed,
        Some(4) => PortState::Active,
        Some(5) => PortState::ActiveDefer,
        _ => PortState::Unknown,
    };
    let link_layer = match attribute(dir, "link_layer").as_deref() {
        Some("InfiniBand") => LinkLayer::InfiniBand,
        Some("Ethernet") => LinkLayer::Ethernet,
        _ => LinkLayer::Unknown,
    };
    let lid = |file| attribute(dir, file).and_then(|text| hex16(&text)).unwrap_or(0);
    Some(Port {
        link_layer,
        state,
        lid: lid("lid"),
        sm_lid: lid("sm_lid"),
        sm_sl: attribute(dir, "sm_sl").and_then(|text| text.parse().ok()).unwrap_or(0),
        node_guid,
        gids: gids(dir),
        pkeys: pkeys(dir),
        umad,
        name,
    })
}

fn gids(dir: &Path) -> Vec<GidEntry> {
    let table = dir.join("gids");
    let entry = |index: u32| {
        let gid = Gid::from_str(&attribute(&table, &index.to_string())?).ok()?;
        if gid == Gid::default() {
            return None;
        }
        let detail = |what: &str| attribute(&dir.join("gid_attrs").join(what), &index.to_string());
        let kind = match detail("types").as_deref() {
            Some("RoCE v2") => Some(GidType::RoceV2),
            Some("IB/RoCE v1") => Some(GidType::InfiniBandOrRoceV1),
            _ => None,
        };
        let interface = detail("ndevs").filter(|name| !name.is_empty());
        Some(GidEntry {
            index,
            gid,
            kind,
            interface,
        })
    };
    numbers(&table).into_iter().filter_map(entry).collect()
}

fn pkeys(dir: &Path) -> Vec<(u16, PKey)> {
    let table = dir.join("pkeys");
    let entry = |index: u32| {
        let key = PKey::from_str(&attribute(&table, &index.to_string())?).ok()?;
        Some((u16::try_from(index).ok()?, key)).filter(|(_, key)| key.partition() != 0)
    };
    numbers(&table).into_iter().filter_map(entry).collect()
}

/// Which node belongs to which port. Empty when ib_umad is not loaded.
fn umads(roots: &Roots) -> HashMap<PortName, PathBuf> {
    let class = roots.sys.join("class/infiniband_mad");
    let nodes = names(&class)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.starts_with("umad"));
    let entry = |node: String| {
        let dir = class.join(&node);
        let number = attribute(&dir, "port")?.parse().ok()?;
        let name = PortName {
            device: attribute(&dir, "ibdev")?,
            number,
        };
        Some((name, roots.dev.join("infiniband").join(node)))
    };
    nodes.filter_map(entry).collect()
}

fn names(dir: &Path) -> Result<Vec<String>, PortsError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().map_err(|cause| PortsError::Read {
        path: dir.to_owned(),
        cause,
    })
}

/// The entries of a directory that are numbers, in order.
fn numbers(dir: &Path) -> Vec<u32> {
    let mut numbers: Vec<u32> = names(dir)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn attribute(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file))
        .ok()
        .map(|text| text.trim_end().to_owned())
}

fn leading_number(text: &str) -> Option<u32> {
    text.split(':').next()?.trim().parse().ok()
}

fn hex16(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}
