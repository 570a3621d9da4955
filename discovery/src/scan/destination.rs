//! How a caller names ports and destinations.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use srp_addressing::Gid;

use crate::ports::Port;

/// Someone to ask: an IP address or a GID (which is written like an IPv6 address, or as 32 hex digits).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address.
    pub address: IpAddr,
    /// The network interface it is behind (`%eth0`), which a link-local address may need.
    pub interface: Option<String>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no destination: give an IPv4 address, an IPv6 address (link-local ones may end in %INTERFACE), \
     or a GID of 32 hex digits"
)]
pub struct ParseDestinationError(String);

impl FromStr for Destination {
    type Err = ParseDestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseDestinationError(text.to_owned());
        let (address, interface) = match text.split_once('%') {
            Some((_, "")) => return Err(refused()),
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (text, None),
        };
        let address = IpAddr::from_str(address)
            .or_else(|_| Gid::from_str(address).map(|gid| Ipv6Addr::from(gid.0).into()))
            .map_err(|_| refused())?;
        Ok(Self { address, interface })
    }
}

/// A local port, as a caller names it: `rxe0`, `rxe0/1`, `rxe0:1`, `umad0` or `/dev/infiniband/umad0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSelector {
    text: String,
    umad_only: bool,
}

impl PortSelector {
    /// The port of a umad device: a name that is none's selects nothing.
    #[must_use]
    pub fn umad(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            umad_only: true,
        }
    }

    /// Whether it means `port`.
    #[must_use]
    pub fn selects(&self, port: &Port) -> bool {
        let text = &self.text;
        let umad = port.umad.as_deref();
        let is_umad = umad.is_some_and(|p| p == Path::new(text) || p.file_name() == Some(text.as_ref()));
        let is_port = text
            .rsplit_once(['/', ':'])
            .is_some_and(|(device, number)| device == port.name.device && number.parse() == Ok(port.name.number));
        is_umad || !self.umad_only && (is_port || *text == port.name.device)
    }

    /// Whether a umad device is meant, be it there or not.
    #[must_use]
    pub fn means_umad(&self) -> bool {
        let name = self.text.rsplit('/').next().unwrap_or_default();
        let number = name.strip_prefix("umad");
        self.umad_only || number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl From<&str> for PortSelector {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            umad_only: false,
        }
    }
}

impl fmt::Display for PortSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let table = [
            ("10.9.0.1", "10.9.0.1"),
            ("fe80::1%eth9", "fe80::1%eth9"),
            ("fe800000000000000000000000000001", "fe80::1"),
            ("::ffff:10.9.0.1", "::ffff:10.9.0.1"),
        ];
        for (text, shown) in table {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), shown);
        }
        for bad in ["", "eth0", "fe80::1%", "10.9.0.1:5555", "host"] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }
}
