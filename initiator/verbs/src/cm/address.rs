//! Where a connection goes, and the C forms of it.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use srp_addressing::{Gid, PKey, ServiceId};

/// An address the connection manager understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port: RoCE, IPoIB, iWARP.
    Ip(SocketAddr),
    /// A port of an InfiniBand fabric. The request then carries the service id as it is, and all private data is ours:
    /// there is no header of an IP connection in it.
    InfiniBand {
        /// The port.
        gid: Gid,
        /// The partition.
        pkey: PKey,
        /// The listener; nothing where a connection comes from.
        service: Option<ServiceId>,
    },
}

impl Address {
    /// Whether it is an IP address, so that a login has the form that leaves room for the header of such a connection.
    #[must_use]
    pub const fn is_ip(&self) -> bool {
        matches!(self, Self::Ip(_))
    }

    /// The IP address, if it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::InfiniBand { .. } => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::InfiniBand { gid, pkey, service } => {
                write!(f, "GID {gid} in partition {pkey}")?;
                service.map_or(Ok(()), |service| write!(f, ", service {service}"))
            }
        }
    }
}

/// `AF_IB`.
const AF_IB: libc::sa_family_t = 27;

/// `struct sockaddr_ib` of `<rdma/ib.h>`: everything in network order, but for the family and the scope.
#[repr(C)]
struct SockAddrIb {
    family: libc::sa_family_t,
    pkey: [u8; 2],
    flow_info: u32,
    gid: [u8; 16],
    sid: [u8; 8],
    sid_mask: [u8; 8],
    scope_id: u64,
}

const _: () =
    assert!(size_of::<SockAddrIb>() == 48 && align_of::<SockAddrIb>() <= align_of::<libc::sockaddr_storage>());

/// A socket address in the form C wants.
pub(super) struct RawAddress(libc::sockaddr_storage);

impl RawAddress {
    pub(super) fn new(address: &Address) -> Self {
        // SAFETY: sockaddr_storage is plain old data, all zeroes is a valid value.
        let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        let place = std::ptr::from_mut(&mut storage);
        match address {
            Address::Ip(SocketAddr::V4(v4)) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is at least as large and as aligned as any sockaddr (POSIX).
                unsafe { place.cast::<libc::sockaddr_in>().write(raw) };
            }
            Address::Ip(SocketAddr::V6(v6)) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { place.cast::<libc::sockaddr_in6>().write(raw) };
            }
            Address::InfiniBand { gid, pkey, service } => {
                let raw = SockAddrIb {
                    family: AF_IB,
                    pkey: pkey.0.to_be_bytes(),
                    flow_info: 0,
                    gid: gid.0,
                    sid: service.map_or(0, |service| service.0).to_be_bytes(),
                    // The kernel refuses a source with a mask, and takes no part of a destination's id for its own.
                    sid_mask: if service.is_some() { [0xff; 8] } else { [0; 8] },
                    scope_id: 0,
                };
                // SAFETY: the storage is larger and at least as aligned, which was checked at compile time above.
                unsafe { place.cast::<SockAddrIb>().write(raw) };
            }
        }
        Self(storage)
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        std::ptr::from_mut(&mut self.0).cast()
    }
}

/// Reads an address librdmacm filled in; `None` for families this crate does not know (also "not yet known").
pub(super) fn read(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let place = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says this is a sockaddr_in, and the storage is large and aligned enough for it.
            let raw = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a sockaddr_in6.
            let raw = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_survive_the_way_through_c() {
        for text in ["10.9.0.1:5555", "[fe80::1%3]:5555", "[2001:db8::7]:1"] {
            let address: SocketAddr = text.parse().expect("a socket address");
            assert_eq!(read(&RawAddress::new(&address.into()).0), Some(address), "{text}");
        }
    }

    /// The bytes librdmacm gets.
    fn bytes(address: &Address) -> [u8; 48] {
        let raw = RawAddress::new(address);
        // SAFETY: a sockaddr_storage is 128 initialized bytes.
        let all: [u8; 128] = unsafe { std::mem::transmute(raw.0) };
        std::array::from_fn(|i| all[i])
    }

    #[test]
    fn infiniband_addresses_are_as_the_kernel_wants_them() {
        let gid: Gid = "fe80::2:c903:e:8acd".parse().expect("a GID");
        let pkey = PKey(0x8001);
        let target = Address::InfiniBand {
            gid,
            pkey,
            service: Some(ServiceId(0x0002_c903_000e_8acc)),
        };
        let expected = [
            &27_u16.to_ne_bytes()[..],
            &[0x80, 0x01],
            &[0; 4],
            &gid.0,
            &[0x00, 0x02, 0xc9, 0x03, 0x00, 0x0e, 0x8a, 0xcc],
            &[0xff; 8],
            &[0; 8],
        ];
        assert_eq!(bytes(&target)[..], expected.concat());
        // Where a connection comes from: a GID and a partition, neither service id nor mask.
        let source = Address::InfiniBand {
            gid,
            pkey,
            service: None,
        };
        assert_eq!(bytes(&source)[24..], [0; 24]);
        assert_eq!(bytes(&source)[..24], bytes(&target)[..24]);
        assert_eq!(read(&RawAddress::new(&target).0), None, "no IP address");
        let text = "GID fe80:0000:0000:0000:0002:c903:000e:8acd in partition 8001, service 0002c903000e8acc";
        assert_eq!(target.to_string(), text);
        assert!(!target.is_ip() && target.ip().is_none());
    }

    #[test]
    fn unknown_families_are_no_address() {
        let address: SocketAddr = "10.9.0.1:5555".parse().expect("a socket address");
        let mut raw = RawAddress::new(&address.into());
        for family in [0, 27, 999] {
            raw.0.ss_family = family;
            assert_eq!(read(&raw.0), None);
        }
    }
}
