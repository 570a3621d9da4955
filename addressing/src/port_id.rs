//! SRP port identifiers (SRP r16a annex B) and the I/O class that tells their layout.

use std::fmt;
use std::str::FromStr;

use crate::Guid;
use crate::number::{ParseNumberError, hex};

/// Which revision of SRP an I/O controller speaks (IOControllerProfile.IOClass).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IoClass {
    /// 0x0100: SRP r16a and later; port ids are extension, then GUID.
    #[default]
    Rev16a,
    /// 0xff00: SRP r10 hardware; port ids are GUID, then extension.
    Rev10,
}

impl IoClass {
    /// The 16-bit value of the profile and of `io_class=`.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Rev16a => 0x0100,
            Self::Rev10 => 0xff00,
        }
    }

    /// The class of a 16-bit value, if it is one of SRP's.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x0100 => Some(Self::Rev16a),
            0xff00 => Some(Self::Rev10),
            _ => None,
        }
    }
}

impl fmt::Display for IoClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.code())
    }
}

/// An initiator or target port identifier: 16 bytes, as LOGIN_REQ carries it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub [u8; 16]);

impl PortId {
    /// The port id of an extension and a GUID, in the layout of `class`.
    #[must_use]
    pub const fn new(extension: u64, guid: Guid, class: IoClass) -> Self {
        let (high, low) = match class {
            IoClass::Rev16a => (extension, guid.0),
            IoClass::Rev10 => (guid.0, extension),
        };
        Self((((high as u128) << 64) | low as u128).to_be_bytes())
    }

    /// Extension and GUID, read in the layout of `class`.
    #[must_use]
    pub const fn parts(self, class: IoClass) -> (u64, Guid) {
        let value = u128::from_be_bytes(self.0);
        let (high, low) = ((value >> 64) as u64, value as u64);
        match class {
            IoClass::Rev16a => (high, Guid(low)),
            IoClass::Rev10 => (low, Guid(high)),
        }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortId({self})")
    }
}

impl FromStr for IoClass {
    type Err = ParseNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex(text, u64::from(u16::MAX))
            .and_then(|value| u16::try_from(value).ok())
            .and_then(Self::from_code)
            .ok_or_else(|| ParseNumberError::new("an I/O class", "0100 or ff00", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts() {
        let guid = Guid(0x0002_c903_000e_8acd);
        let new = PortId::new(0x200, guid, IoClass::Rev16a);
        let old = PortId::new(0x200, guid, IoClass::Rev10);
        assert_eq!(new.to_string(), "0x00000000000002000002c903000e8acd");
        assert_eq!(old.to_string(), "0x0002c903000e8acd0000000000000200");
        assert_eq!("0100".parse(), Ok(IoClass::Rev16a));
        assert_eq!("0xff00".parse(), Ok(IoClass::Rev10));
        assert!("0200".parse::<IoClass>().is_err());
        assert_eq!(IoClass::Rev10.to_string(), "ff00");
    }

    proptest! {
        #[test]
        fn parts_undo_new(extension: u64, guid: u64) {
            for class in [IoClass::Rev16a, IoClass::Rev10] {
                let id = PortId::new(extension, Guid(guid), class);
                prop_assert_eq!(id.parts(class), (extension, Guid(guid)));
            }
        }
    }
}
