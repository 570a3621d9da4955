//! What the answers mean: SRP targets (SRP annex B.7).

use std::net::SocketAddr;

use serde::Serialize;
use srp_addressing::{Gid, Guid, IoClass, PKey, ServiceId};

use crate::device_management::{IoController, IoUnit, display};
use crate::ports::{LinkLayer, PortName};
use crate::text::FabricText;

/// What the name of an SRP service begins with.
pub const SERVICE_PREFIX: &str = "SRP.T10:";

/// One service of one controller that speaks SRP: something to log in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The identifier extension: the hex digits after `SRP.T10:`, as they came.
    pub id_ext: String,
    /// The GUID of the controller.
    #[serde(serialize_with = "display")]
    pub ioc_guid: Guid,
    /// Where its port is.
    #[serde(rename = "dgid", serialize_with = "display")]
    pub gid: Gid,
    /// The LID of that port; 0 on RoCE.
    pub lid: u16,
    /// The GUID of that port; on RoCE the lower half of its GID.
    #[serde(serialize_with = "display")]
    pub port_guid: Guid,
    /// The partition it was found in.
    #[serde(serialize_with = "display")]
    pub pkey: PKey,
    /// Where IB/CM connects to.
    #[serde(serialize_with = "display")]
    pub service_id: ServiceId,
    /// The name of the service.
    pub service_name: FabricText,
    /// 0x0100 SRP r16a, 0xff00 SRP r10.
    pub io_class: u16,
    /// The controller's text for people.
    pub ioc_id: FabricText,
    /// The vendor of the controller (24 bits).
    pub vendor_id: u32,
    /// The device, by the vendor's numbering.
    pub device_id: u32,
    /// The longest information unit the target takes.
    pub send_size: u32,
    /// The largest RDMA transfer it announces.
    pub rdma_size: u32,
    /// The slot of the controller.
    pub slot: u8,
    /// The local port it was seen through.
    pub port: PortName,
    /// What is below that port.
    pub link_layer: LinkLayer,
    /// Where RDMA/CM connects to.
    pub rdma_cm: Option<RdmaCm>,
}

/// The address of an RDMA/CM login. Device management does not announce it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RdmaCm {
    /// Address and port.
    pub dest: SocketAddr,
    /// The network interface of a link-local address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Who says so.
    pub source: RdmaCmSource,
}

impl RdmaCm {
    /// The address with the interface's number in it, which a link-local one needs.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        let mut dest = self.dest;
        if let (SocketAddr::V6(v6), Some(interface)) = (&mut dest, &self.interface) {
            let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"));
            v6.set_scope_id(index.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0));
        }
        dest
    }
}

/// Who says at which port a target listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RdmaCmSource {
    /// The caller; no target announces it.
    Given,
}

/// How an I/O unit was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenThrough {
    /// The local port.
    pub port: PortName,
    /// What is below it.
    pub link_layer: LinkLayer,
    /// In which partition.
    pub pkey: PKey,
    /// Where its targets listen for RDMA/CM logins.
    pub rdma_cm: Option<RdmaCm>,
}

/// A service that claims to be SRP but cannot be used, or only with doubt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetWarning {
    /// The name is not what SRP annex B.7 asks for.
    #[error(
        "controller {ioc_guid} in slot {slot}: service {index} is named \"{name}\", but 1 to 16 hex digits \
         must follow {SERVICE_PREFIX}: left out"
    )]
    BadServiceName {
        /// The controller.
        ioc_guid: Guid,
        /// Its slot.
        slot: u8,
        /// Which of its services.
        index: u8,
        /// The name.
        name: FabricText,
    },
    /// Not a class of SRP.
    #[error(
        "controller {ioc_guid} in slot {slot} has I/O class {io_class:04x}, which is none of SRP's \
         (0100, ff00) and which no initiator takes: left out"
    )]
    UnknownIoClass {
        /// The controller.
        ioc_guid: Guid,
        /// Its slot.
        slot: u8,
        /// The class.
        io_class: u16,
    },
}

/// The SRP targets of an I/O unit, each once, and what is wrong with others.
#[must_use]
pub fn targets_of(unit: &IoUnit, seen: &SeenThrough) -> (Vec<Target>, Vec<TargetWarning>) {
    let mut targets = Vec::new();
    let mut warnings = Vec::new();
    for slot in unit.slots.iter().filter(|slot| slot.same_as.is_none()) {
        let Some(Ok(ioc)) = &slot.controller else { continue };
        let known_class = IoClass::from_code(ioc.io_class).is_some();
        let mut found = false;
        for service in &ioc.services {
            match id_ext(&service.name) {
                None => {}
                Some(Ok(id_ext)) => {
                    found = true;
                    if !known_class {
                        continue;
                    }
                    let target = target(unit, slot.number, ioc, service.id, &service.name, id_ext, seen);
                    if !targets.contains(&target) {
                        targets.push(target);
                    }
                }
                Some(Err(NotHex)) => warnings.push(TargetWarning::BadServiceName {
                    ioc_guid: ioc.guid,
                    slot: slot.number,
                    index: service.index,
                    name: service.name.clone(),
                }),
            }
        }
        if found && !known_class {
            warnings.push(TargetWarning::UnknownIoClass {
                ioc_guid: ioc.guid,
                slot: slot.number,
                io_class: ioc.io_class,
            });
        }
    }
    (targets, warnings)
}

/// One target for each usable service, repeated or not.
pub(crate) fn every_target(unit: &IoUnit, seen: &SeenThrough) -> Vec<Target> {
    let mut targets = Vec::new();
    for slot in &unit.slots {
        let Some(Ok(ioc)) = &slot.controller else { continue };
        if IoClass::from_code(ioc.io_class).is_none() {
            continue;
        }
        for service in &ioc.services {
            if let Some(Ok(id_ext)) = id_ext(&service.name) {
                targets.push(target(unit, slot.number, ioc, service.id, &service.name, id_ext, seen));
            }
        }
    }
    targets
}

struct NotHex;

/// The identifier extension of an SRP service; `None` for services of other protocols.
fn id_ext(name: &FabricText) -> Option<Result<String, NotHex>> {
    let rest = name.as_bytes().strip_prefix(SERVICE_PREFIX.as_bytes())?;
    let hex = (1..=16).contains(&rest.len()) && rest.iter().all(u8::is_ascii_hexdigit);
    Some(if hex {
        Ok(rest.iter().copied().map(char::from).collect())
    } else {
        Err(NotHex)
    })
}

/// Whether a service claims to be an SRP target, usable or not.
#[must_use]
pub fn is_srp_service(name: &FabricText) -> bool {
    id_ext(name).is_some()
}

/// Whether it can be used as one.
#[must_use]
pub fn is_usable(name: &FabricText) -> bool {
    matches!(id_ext(name), Some(Ok(_)))
}

fn target(
    unit: &IoUnit,
    slot: u8,
    ioc: &IoController,
    service_id: ServiceId,
    service_name: &FabricText,
    id_ext: String,
    seen: &SeenThrough,
) -> Target {
    Target {
        id_ext,
        ioc_guid: ioc.guid,
        gid: unit.gid,
        lid: unit.lid,
        port_guid: unit.gid.interface(),
        pkey: seen.pkey,
        service_id,
        service_name: service_name.clone(),
        io_class: ioc.io_class,
        ioc_id: ioc.id.clone(),
        vendor_id: ioc.vendor_id,
        device_id: ioc.device_id,
        send_size: ioc.send_size,
        rdma_size: ioc.rdma_size,
        slot,
        port: seen.port.clone(),
        link_layer: seen.link_layer,
        rdma_cm: seen.rdma_cm.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_srp_services() {
        let parse = |name: &[u8]| id_ext(&FabricText::from_field(name)).map(Result::ok);
        assert_eq!(
            parse(b"SRP.T10:0002C903000e8acd\0\0"),
            Some(Some("0002C903000e8acd".into()))
        );
        assert_eq!(parse(b"SRP.T10:7"), Some(Some("7".into())));
        let bad: [&[u8]; 5] = [
            b"SRP.T10:",
            b"SRP.T10:0002c903000e8acd0",
            b"SRP.T10:xyz",
            b"SRP.T10: 1",
            b"SRP.T10:1,dgid=0",
        ];
        for bad in bad {
            assert_eq!(parse(bad), Some(None), "{}", FabricText::from_field(bad));
        }
        assert_eq!(parse(b"VNIC"), None);
        assert_eq!(parse(b"srp.t10:1"), None);
    }
}
