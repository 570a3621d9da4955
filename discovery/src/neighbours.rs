//! The hosts this one knows on its Ethernets: where a RoCE target may be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, sockopt};

/// How long one look at the neighbour table waits for the next, and how many there are: a second, as long as the
/// kernel takes for its first try.
const LOOK_STEP: Duration = Duration::from_millis(50);
const LOOK_STEPS: u32 = 20;
/// The port whose listener, if there is one, throws everything away.
const DISCARD: u16 = 9;

/// One entry of the host's neighbour tables (`ip neigh`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The network interface it is behind.
    pub interface: String,
}

/// Why the neighbour tables could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the host's neighbour table: {0} (give the target's GID instead)")]
pub struct NeighboursError(#[from] io::Error);

/// What the host knows of its neighbours.
pub trait Neighbours {
    /// All neighbours whose MAC address is known.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError>;

    /// Makes the host look for these, each on the interface it is named with, and waits a moment for what comes
    /// of it.
    fn look_for(&mut self, wanted: &[(IpAddr, Option<String>)]);
}

/// The neighbours of this host, asked from the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostNeighbours;

impl Neighbours for HostNeighbours {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(dump()?)
    }

    fn look_for(&mut self, wanted: &[(IpAddr, Option<String>)]) {
        for (address, interface) in wanted {
            if let Err(error) = provoke(*address, interface.as_deref()) {
                tracing::debug!(%address, %error, "cannot provoke neighbour resolution");
            }
        }
        for _ in 0..LOOK_STEPS {
            std::thread::sleep(LOOK_STEP);
            let known = dump().unwrap_or_default();
            if wanted
                .iter()
                .all(|(address, _)| known.iter().any(|n| n.address == *address))
            {
                return;
            }
        }
    }
}

/// Sends an empty datagram to the discard port: the kernel must find the MAC address first.
fn provoke(address: IpAddr, interface: Option<&str>) -> io::Result<()> {
    let (from, to): (IpAddr, SocketAddr) = match address {
        IpAddr::V4(v4) => (Ipv4Addr::UNSPECIFIED.into(), (v4, DISCARD).into()),
        IpAddr::V6(v6) => {
            let any = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            let scope = interface.map_or(Ok(0), |name| netdevice::name_to_index(&any, name))?;
            (
                Ipv6Addr::UNSPECIFIED.into(),
                SocketAddrV6::new(v6, DISCARD, 0, scope).into(),
            )
        }
    };
    UdpSocket::bind((from, 0))?.send_to(&[], to).map(|_| ())
}

fn dump() -> io::Result<Vec<Neighbour>> {
    let flags = SocketFlags::CLOEXEC;
    let route = None; // protocol 0 is rtnetlink
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, route)?;
    // The kernel answers a dump at once; the limit is for what should not happen.
    let limit = Some(Duration::from_secs(5));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, limit)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    send(&socket, &bytes, SendFlags::empty())?;

    let mut found = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                    found.extend(neighbour(&entry, |index| netdevice::index_to_name(&socket, index).ok()));
                }
                _ => {}
            }
            let taken = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(1);
            // Messages are padded to four bytes.
            rest = rest.get(taken.saturating_add(3) & !3..).unwrap_or(&[]);
        }
    }
}

fn neighbour(entry: &NeighbourMessage, interface: impl FnOnce(u32) -> Option<String>) -> Option<Neighbour> {
    use NeighbourState::{Failed, Incomplete, Noarp};
    if matches!(entry.header.state, Failed | Incomplete | Noarp) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok(),
            _ => {}
        }
    }
    let mac = mac.filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0)?;
    Some(Neighbour {
        address: address?,
        mac,
        interface: interface(entry.header.ifindex)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_answers() {
        // Which neighbours there are is not known; that the dump ends is.
        HostNeighbours.list().unwrap();
    }

    #[test]
    fn what_counts_as_a_neighbour() {
        let mut entry = NeighbourMessage::default();
        entry.header.state = NeighbourState::Stale;
        entry.header.ifindex = 4;
        let address: Ipv4Addr = "10.9.0.2".parse().unwrap();
        entry.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
        ];
        let name = |index| Some(format!("if{index}"));
        let found = neighbour(&entry, name).unwrap();
        let expected = Neighbour {
            address: address.into(),
            mac: [2, 0, 0, 0, 0, 9],
            interface: "if4".into(),
        };
        assert_eq!(found, expected);
        entry.header.state = NeighbourState::Failed;
        assert_eq!(neighbour(&entry, name), None);
        entry.header.state = NeighbourState::Stale;
        entry.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![0; 6]);
        assert_eq!(neighbour(&entry, name), None);
        entry.attributes.pop();
        assert_eq!(neighbour(&entry, name), None);
    }
}
