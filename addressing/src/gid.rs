//! InfiniBand port addresses: GID (128 bits) and GUID (64 bits).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A global identifier of a port (IBA 4.1): subnet prefix and interface id, in wire order.
///
/// [`Display`](fmt::Display) is the eight-group colon form of sysfs (`fe80:0000:0000:0000:0002:c903:000e:8acd`),
/// [`Gid::to_hex`] the 32-digit form of `dgid=`; [`FromStr`] takes both, and any IPv6 abbreviation.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// A GID from its subnet prefix and interface id.
    #[must_use]
    pub const fn new(subnet_prefix: u64, interface: Guid) -> Self {
        Self((((subnet_prefix as u128) << 64) | interface.0 as u128).to_be_bytes())
    }

    /// The high 64 bits.
    #[must_use]
    pub const fn subnet_prefix(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// The low 64 bits: on InfiniBand the GUID of the port.
    #[must_use]
    pub const fn interface(self) -> Guid {
        Guid(u128::from_be_bytes(self.0) as u64)
    }

    /// 32 hex digits without separators, as `dgid=` wants it.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments = Ipv6Addr::from(self.0).segments();
        for (i, segment) in segments.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{segment:04x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

/// Text that is not a GID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GID: give 32 hex digits, or eight groups of four separated by colons")]
pub struct ParseGidError(String);

impl FromStr for Gid {
    type Err = ParseGidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 32
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && let Ok(value) = u128::from_str_radix(text, 16)
        {
            return Ok(Self(value.to_be_bytes()));
        }
        Ipv6Addr::from_str(text)
            .map(|address| Self(address.octets()))
            .map_err(|_| ParseGidError(text.to_owned()))
    }
}

/// An EUI-64 name of a node, port or I/O controller.
///
/// [`Display`](fmt::Display) is 16 hex digits; the alternate form `{:#}` is `0002:c903:000e:8acd`.
/// [`FromStr`] takes both, and up to 16 digits with or without `0x`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write!(f, "{:016x}", self.0);
        }
        let v = self.0;
        let group = |shift: u32| (v >> shift) & 0xffff;
        write!(
            f,
            "{:04x}:{:04x}:{:04x}:{:04x}",
            group(48),
            group(32),
            group(16),
            group(0)
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

/// Text that is not a GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GUID: give 1 to 16 hex digits, or four groups of four separated by colons")]
pub struct ParseGuidError(String);

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseGuidError(text.to_owned());
        let digits = if text.contains(':') {
            let groups: Vec<&str> = text.split(':').collect();
            if groups.len() != 4 || groups.iter().any(|g| g.is_empty() || g.len() > 4) {
                return Err(refused());
            }
            groups.iter().map(|g| format!("{g:0>4}")).collect()
        } else {
            text.to_owned()
        };
        crate::number::hex(&digits, u64::MAX).map(Self).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GID: &str = "fe80:0000:0000:0000:0002:c903:000e:8acd";

    #[test]
    fn gid_forms() {
        let gid: Gid = GID.parse().unwrap();
        assert_eq!(gid.to_string(), GID);
        assert_eq!(gid.to_hex(), "fe800000000000000002c903000e8acd");
        assert_eq!(gid.to_hex().parse::<Gid>().unwrap(), gid);
        assert_eq!("fe80::2:c903:e:8acd".parse::<Gid>().unwrap(), gid);
        assert_eq!(gid.subnet_prefix(), 0xfe80_0000_0000_0000);
        assert_eq!(gid.interface(), Guid(0x0002_c903_000e_8acd));
        assert_eq!(Gid::new(gid.subnet_prefix(), gid.interface()), gid);
        for bad in [
            "",
            "fe80",
            "0x00000000000000000002c903000e8ac",
            "+e800000000000000002c903000e8acd",
        ] {
            assert!(bad.parse::<Gid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn guid_forms() {
        let guid = Guid(0x0002_c903_000e_8acd);
        assert_eq!(guid.to_string(), "0002c903000e8acd");
        assert_eq!(format!("{guid:#}"), "0002:c903:000e:8acd");
        for text in ["0002c903000e8acd", "2c903000e8acd", "0x2c903000e8acd", "2:c903:e:8acd"] {
            assert_eq!(text.parse::<Guid>().unwrap(), guid, "{text}");
        }
        for bad in [
            "",
            "0x",
            "xyz",
            "1:2:3",
            "1:2:3:4:5",
            "00002c903000e8acd",
            ":::",
            "0x1:0:0:0",
        ] {
            assert!(bad.parse::<Guid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 16], value: u64) {
            let gid = Gid(bytes);
            prop_assert_eq!(gid.to_string().parse::<Gid>().unwrap(), gid);
            prop_assert_eq!(gid.to_hex().parse::<Gid>().unwrap(), gid);
            let guid = Guid(value);
            prop_assert_eq!(guid.to_string().parse::<Guid>().unwrap(), guid);
            prop_assert_eq!(format!("{guid:#}").parse::<Guid>().unwrap(), guid);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,48}") {
            let _ = text.parse::<Gid>();
            let _ = text.parse::<Guid>();
        }
    }
}
