//! Number syntax of the `add_target` text, and the two short numeric names.

use std::fmt;
use std::str::FromStr;

/// A base-16 number with or without `0x`, at most `max`; at most 16 digits.
pub(crate) fn hex(text: &str, max: u64) -> Option<u64> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    let plain = !digits.is_empty() && digits.len() <= 16;
    if !plain || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|value| *value <= max)
}

/// A number whose base its prefix tells: `0x10`, octal `010`, decimal `16`.
pub(crate) fn integer(text: &str) -> Option<u64> {
    let (digits, base) = if let Some(rest) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        (rest, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    // from_str_radix would take a sign here.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

/// Text that is not the hexadecimal number it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: give {form}")]
pub struct ParseNumberError {
    what: &'static str,
    form: &'static str,
    text: String,
}

impl ParseNumberError {
    pub(crate) fn new(what: &'static str, form: &'static str, text: &str) -> Self {
        Self {
            what,
            form,
            text: text.to_owned(),
        }
    }
}

/// A partition key (IBA 10.9): bit 15 is full membership, the rest the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PKey(pub u16);

impl PKey {
    /// Full membership of the default partition.
    pub const DEFAULT: Self = Self(0xffff);

    /// The partition, without the membership bit.
    #[must_use]
    pub const fn partition(self) -> u16 {
        self.0 & 0x7fff
    }

    /// Full membership; limited members cannot talk to each other.
    #[must_use]
    pub const fn is_full_member(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl fmt::Display for PKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

impl FromStr for PKey {
    type Err = ParseNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex(text, u64::from(u16::MAX))
            .and_then(|value| u16::try_from(value).ok())
            .map(Self)
            .ok_or_else(|| ParseNumberError::new("a P_Key", "1 to 4 hex digits", text))
    }
}

/// A CM service id (IBA 12.7.3): which listener of a port a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u64);

impl ServiceId {
    /// The service id of a port number of the RDMA/CM TCP port space (IBA annex A11).
    #[must_use]
    pub const fn from_rdma_cm_port(port: u16) -> Self {
        Self(0x0000_0000_0106_0000 | port as u64)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ServiceId {
    type Err = ParseNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex(text, u64::MAX)
            .map(Self)
            .ok_or_else(|| ParseNumberError::new("a service id", "1 to 16 hex digits", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_tell_their_base() {
        let table = [("16", 16), ("0x10", 16), ("0X1f", 31), ("010", 8), ("0", 0), ("00", 0)];
        for (text, value) in table {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for bad in ["", "-1", "+1", "0x", "08", "1f", "0x+1", " 1", "99999999999999999999"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn short_names() {
        assert_eq!("ffff".parse(), Ok(PKey::DEFAULT));
        assert_eq!("0x7fff".parse(), Ok(PKey(0x7fff)));
        assert!(!PKey(0x7fff).is_full_member());
        assert_eq!(PKey::DEFAULT.partition(), 0x7fff);
        assert_eq!(PKey(0x1).to_string(), "0001");
        for bad in ["", "10000", "+1", "g", "0x"] {
            assert!(bad.parse::<PKey>().is_err(), "{bad}");
        }
        assert_eq!(ServiceId::from_rdma_cm_port(5555), ServiceId(0x0106_15b3));
        assert_eq!("00000000010615b3".parse(), Ok(ServiceId(0x0106_15b3)));
        assert_eq!(ServiceId(0x0106_15b3).to_string(), "00000000010615b3");
        assert!("12345678901234567".parse::<ServiceId>().is_err());
    }
}
