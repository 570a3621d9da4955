//! Where a connection goes, and the C forms of it.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address the connection manager understands.
///
/// Native InfiniBand (AF_IB: GID, P_Key, service id) will be a further variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port: RoCE, IPoIB, iWARP.
    Ip(SocketAddr),
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
        }
    }
}

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
