//! Where a login goes, and where it comes from.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use srp_addressing::{Endpoint, Gid, PKey, Scope, TargetOptions, Transport};
use srp_discovery::ports::{self, LinkLayer, Port, PortState, Roots};
use srp_verbs::cm::Address;

use super::failure::failure;
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// The target's address, and ours where it matters.
///
/// # Errors
/// When this host has no such interface, or no port that leads there.
pub(crate) fn endpoints(target: &TargetOptions) -> Result<(Address, Option<Address>), ErrorData> {
    match &target.transport {
        Transport::RdmaCm { dest, src } => {
            let source = src.as_ref().map(|src| socket_address("src", src)).transpose()?;
            Ok((socket_address("dest", dest)?.into(), source.map(Address::from)))
        }
        Transport::InfiniBand { dgid, pkey, service_id } => {
            let destination = Address::InfiniBand {
                gid: *dgid,
                pkey: *pkey,
                service: Some(*service_id),
            };
            let ports = ports::list(&Roots::default()).map_err(|error| failure(ErrorKind::Host, error.to_string()))?;
            Ok((destination, Some(infiniband_source(&ports, *dgid, *pkey)?)))
        }
    }
}

/// The local port a native login leaves by: active, of the target's subnet, and in the partition. Left to itself the
/// kernel would take the first port that fits, whichever that is.
fn infiniband_source(ports: &[Port], dgid: Gid, pkey: PKey) -> Result<Address, ErrorData> {
    let infiniband = || ports.iter().filter(|port| port.link_layer == LinkLayer::InfiniBand);
    let active = || infiniband().filter(|port| port.state == PortState::Active);
    let same_subnet = |port: &&Port| {
        port.first_gid()
            .is_some_and(|gid| gid.subnet_prefix() == dgid.subnet_prefix())
    };
    let in_partition = |port: &&Port| port.pkey_index(pkey).is_some();
    if let Some(gid) = active()
        .filter(same_subnet)
        .find(in_partition)
        .and_then(Port::first_gid)
    {
        let service = None;
        return Ok(Address::InfiniBand { gid, pkey, service });
    }
    let (what, remedy) = if infiniband().next().is_none() {
        (
            "this host has no InfiniBand port".to_owned(),
            "over RoCE a target is logged in to by address: dest=ADDRESS:PORT",
        )
    } else if active().next().is_none() {
        (
            "no InfiniBand port of this host is active".to_owned(),
            "look at the cable and at the subnet manager (`ibstat`)",
        )
    } else if !active().any(|port| same_subnet(&port)) {
        (
            format!("no active InfiniBand port is in the subnet of {dgid}"),
            "compare the GIDs: `ublk-srp whoami`",
        )
    } else {
        (
            format!("no active InfiniBand port is in partition {pkey}"),
            "the subnet manager's partition configuration decides; `ublk-srp discover -c` prints what works",
        )
    };
    Err(failure(ErrorKind::Host, what).remedy(remedy))
}

fn socket_address(key: &str, endpoint: &Endpoint) -> Result<SocketAddr, ErrorData> {
    let scope = match &endpoint.host.scope {
        None => 0,
        Some(Scope::Index(index)) => *index,
        Some(Scope::Name(name)) => interface_index(name).ok_or_else(|| {
            failure(
                ErrorKind::Usage,
                format!("{key}: there is no network interface {name:?}"),
            )
            .remedy("`ip -6 address` shows the interfaces and their link-local addresses")
        })?,
    };
    Ok(match endpoint.host.ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, endpoint.port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, endpoint.port, 0, scope).into(),
    })
}

fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_addressing::{Guid, IoClass, PortId, ServiceId};
    use srp_discovery::ports::{GidEntry, PortName};
    use srp_initiator::session::LoginParameters;
    use srp_initiator::wire::login::MultiChannel;

    use crate::daemon::login::login_request;

    fn port(number: u32, prefix: u64, state: PortState, pkeys: &[u16]) -> Port {
        Port {
            name: PortName {
                device: "mlx5_0".into(),
                number,
            },
            link_layer: LinkLayer::InfiniBand,
            state,
            lid: 1,
            sm_lid: 1,
            sm_sl: 0,
            node_guid: None,
            gids: vec![GidEntry {
                index: 0,
                gid: Gid::new(prefix, Guid(number.into())),
                kind: None,
                interface: None,
            }],
            pkeys: (0..).zip(pkeys.iter().map(|key| PKey(*key))).collect(),
            umad: None,
        }
    }

    const LOCAL: u64 = 0xfe80_0000_0000_0000;
    const OTHER: u64 = 0xfec0_0000_0000_0001;

    #[test]
    fn the_port_a_native_login_leaves_by() {
        let ports = [
            port(1, LOCAL, PortState::Down, &[0xffff]),
            port(2, LOCAL, PortState::Active, &[0x7fff]),
            port(3, OTHER, PortState::Active, &[0xffff, 0x8001]),
            port(4, LOCAL, PortState::Active, &[0xffff, 0x8001]),
        ];
        let from = |ports: &[Port], prefix, pkey| match infiniband_source(ports, Gid::new(prefix, Guid(9)), PKey(pkey))
        {
            Ok(Address::InfiniBand { gid, service, .. }) => {
                assert_eq!(service, None);
                Ok(gid.interface().0)
            }
            Ok(other) => panic!("{other}"),
            Err(error) => Err(error.message),
        };
        assert_eq!(from(&ports, LOCAL, 0xffff), Ok(2));
        assert_eq!(from(&ports, LOCAL, 0x8001), Ok(4));
        assert_eq!(from(&ports, OTHER, 0x8001), Ok(3));
        assert!(from(&ports, LOCAL, 0x8002).unwrap_err().contains("in partition 8002"));
        assert!(
            from(&ports, 5, 0xffff)
                .unwrap_err()
                .contains("in the subnet of 0000:0000:0000:0005")
        );
        assert!(from(&ports[..1], LOCAL, 0xffff).unwrap_err().contains("is active"));
        assert!(from(&[], LOCAL, 0xffff).unwrap_err().contains("no InfiniBand port"));
    }

    #[test]
    fn the_private_data_of_a_login() {
        let login = |class, address: &Address| {
            let parameters = LoginParameters {
                initiator_port: PortId::new(0x11, Guid(0x22), class),
                target_port: PortId::new(0x33, Guid(0x44), class),
                descriptors: 1,
                max_it_iu_len: None,
                immediate_data: 0,
            };
            login_request(&parameters, MultiChannel::Single, address)
        };
        let native = Address::InfiniBand {
            gid: Gid::default(),
            pkey: PKey::DEFAULT,
            service: Some(ServiceId(0x33)),
        };
        let half = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        // SRP_LOGIN_REQ: the operation code, which coincides with the version the kernel writes over it, is 0.
        let bytes = login(IoClass::Rev16a, &native);
        assert_eq!((bytes.len(), bytes[0]), (64, 0));
        assert_eq!(bytes[24..26], [0x00, 0x06], "direct and indirect descriptors");
        assert_eq!([32, 40, 48, 56].map(|at| half(&bytes, at)), [0x11, 0x22, 0x33, 0x44]);
        // Revision 10: GUID first.
        let bytes = login(IoClass::Rev10, &native);
        assert_eq!([32, 40, 48, 56].map(|at| half(&bytes, at)), [0x22, 0x11, 0x44, 0x33]);
        // By address the header of the connection takes 36 of 92 bytes.
        let bytes = login(IoClass::Rev16a, &Address::Ip("10.9.0.1:5555".parse().unwrap()));
        assert_eq!((bytes.len(), bytes[11]), (56, 0));
        assert_eq!([16, 24, 32, 40].map(|at| half(&bytes, at)), [0x11, 0x22, 0x33, 0x44]);
    }
}
