//! Where an RDMA/CM login goes to or comes from: `dest=` and `src=`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The interface a link-local IPv6 address is meant on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Interface index, never 0.
    Index(u32),
    /// Interface name, at most 15 bytes and not all digits.
    Name(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// An IP address with the interface it is meant on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// The interface; IPv6 only.
    pub scope: Option<Scope>,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        self.scope.as_ref().map_or(Ok(()), |scope| write!(f, "%{scope}"))
    }
}

/// An address and a port of the RDMA/CM TCP port space.
///
/// Written `192.0.2.1:5555` or `[fe80::1%eth0]:5555`; a port of 0 means any and is not written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub host: HostAddress,
    /// The port, in host order.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.ip, self.port) {
            (IpAddr::V6(_), 0) => write!(f, "[{}]", self.host),
            (IpAddr::V6(_), port) => write!(f, "[{}]:{port}", self.host),
            (IpAddr::V4(_), 0) => self.host.fmt(f),
            (IpAddr::V4(_), port) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Text that is no address, or no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseEndpointError {
    /// The address part.
    #[error("{0:?} is not an IP address: host names are not looked up; write IPv6 as [address%interface]")]
    Address(String),
    /// The port part.
    #[error("{0:?} is not a port: give a number from 1 to 65535")]
    Port(String),
    /// The interface part.
    #[error("{0:?} is not an interface: give its name (at most 15 characters) or index, for IPv6 only")]
    Scope(String),
    /// A bracket without its partner, or text between bracket and port.
    #[error("{0:?} has misplaced brackets: write [address]:port")]
    Brackets(String),
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let brackets = || ParseEndpointError::Brackets(text.to_owned());
            let (host, after) = rest.split_once(']').ok_or_else(brackets)?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(brackets)?),
            };
            (ipv6(host)?, port)
        } else if text.matches(':').count() > 1 {
            (ipv6(text)?, None)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let ip = host.parse().map_err(|_| ParseEndpointError::Address(host.to_owned()))?;
            (
                HostAddress {
                    ip: IpAddr::V4(ip),
                    scope: None,
                },
                port,
            )
        };
        Ok(Self {
            host,
            port: port.map_or(Ok(0), parse_port)?,
        })
    }
}

fn parse_port(text: &str) -> Result<u16, ParseEndpointError> {
    let port = if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    };
    port.filter(|port| *port != 0)
        .ok_or_else(|| ParseEndpointError::Port(text.to_owned()))
}

fn ipv6(text: &str) -> Result<HostAddress, ParseEndpointError> {
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, Some(parse_scope(scope)?)),
        None => (text, None),
    };
    let ip: Ipv6Addr = address
        .parse()
        .map_err(|_| ParseEndpointError::Address(address.to_owned()))?;
    Ok(HostAddress {
        ip: IpAddr::V6(ip),
        scope,
    })
}

fn parse_scope(text: &str) -> Result<Scope, ParseEndpointError> {
    let refused = || ParseEndpointError::Scope(text.to_owned());
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let index = text.parse().ok().filter(|index| *index != 0);
        return index.map(Scope::Index).ok_or_else(refused);
    }
    // What the kernel allows in an interface name, less the characters that mean something here.
    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%' | b',' | b'[' | b']');
    if text.is_empty() || text.len() > 15 || !text.bytes().all(allowed) {
        return Err(refused());
    }
    Ok(Scope::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let v6 = |scope, port| Endpoint {
            host: HostAddress {
                ip: "fe80::1".parse().unwrap(),
                scope,
            },
            port,
        };
        let v4 = |port| Endpoint {
            host: HostAddress {
                ip: "192.0.2.1".parse().unwrap(),
                scope: None,
            },
            port,
        };
        let table = [
            ("192.0.2.1:5555", v4(5555)),
            ("192.0.2.1", v4(0)),
            ("[fe80::1]:5555", v6(None, 5555)),
            (
                "[fe80::1%eth0.5]:5555",
                v6(Some(Scope::Name("eth0.5".to_owned())), 5555),
            ),
            ("[fe80::1%3]", v6(Some(Scope::Index(3)), 0)),
        ];
        for (text, endpoint) in table {
            assert_eq!(text.parse(), Ok(endpoint.clone()), "{text}");
            assert_eq!(endpoint.to_string(), text);
        }
        assert_eq!("fe80::1%3".parse(), Ok(v6(Some(Scope::Index(3)), 0)));
    }

    #[test]
    fn refusals() {
        use ParseEndpointError::{Address, Brackets, Port, Scope};
        type Why = fn(String) -> ParseEndpointError;
        let table: [(&str, Why, &str); 13] = [
            ("", Address, ""),
            ("storage1:5555", Address, "storage1"),
            ("192.0.2.1:", Port, ""),
            ("192.0.2.1:0", Port, "0"),
            ("192.0.2.1:+5", Port, "+5"),
            ("192.0.2.1:65536", Port, "65536"),
            ("[192.0.2.1]:5555", Address, "192.0.2.1"),
            ("192.0.2.1%eth0:5", Address, "192.0.2.1%eth0"),
            ("[fe80::1", Brackets, "[fe80::1"),
            ("[fe80::1]5555", Brackets, "[fe80::1]5555"),
            ("[fe80::1%]:5", Scope, ""),
            ("[fe80::1%0]:5", Scope, "0"),
            ("[fe80::1%sixteencharslong]:5", Scope, "sixteencharslong"),
        ];
        for (text, why, part) in table {
            assert_eq!(text.parse::<Endpoint>(), Err(why(part.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(v6: [u8; 16], v4: [u8; 4], index in 1u32.., name in "[a-z][a-z0-9.@-]{0,14}", port: u16) {
            let scopes = [None, Some(Scope::Index(index)), Some(Scope::Name(name))];
            for scope in scopes {
                let endpoint = Endpoint { host: HostAddress { ip: IpAddr::from(v6), scope }, port };
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
            let endpoint = Endpoint { host: HostAddress { ip: IpAddr::from(v4), scope: None }, port };
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,48}", near in "[\\[\\]:%0-9a-f.]{0,48}") {
            let _ = text.parse::<Endpoint>();
            let _ = near.parse::<Endpoint>();
        }
    }
}
