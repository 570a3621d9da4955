//! Sense data (SPC-4): why a command did not simply succeed.

use std::fmt;

use super::{additional_sense, field};

/// The sense key: what kind of condition (SPC-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenseKey {
    /// 0h.
    NoSense,
    /// 1h: done, with some recovery.
    RecoveredError,
    /// 2h.
    NotReady,
    /// 3h.
    MediumError,
    /// 4h.
    HardwareError,
    /// 5h.
    IllegalRequest,
    /// 6h: something happened to the logical unit; the command was not carried out.
    UnitAttention,
    /// 7h.
    DataProtect,
    /// 8h.
    BlankCheck,
    /// 9h.
    VendorSpecific,
    /// Ah.
    CopyAborted,
    /// Bh.
    AbortedCommand,
    /// Ch.
    Reserved,
    /// Dh.
    VolumeOverflow,
    /// Eh.
    Miscompare,
    /// Fh: done.
    Completed,
}

const KEYS: [(SenseKey, &str); 16] = [
    (SenseKey::NoSense, "NO SENSE"),
    (SenseKey::RecoveredError, "RECOVERED ERROR"),
    (SenseKey::NotReady, "NOT READY"),
    (SenseKey::MediumError, "MEDIUM ERROR"),
    (SenseKey::HardwareError, "HARDWARE ERROR"),
    (SenseKey::IllegalRequest, "ILLEGAL REQUEST"),
    (SenseKey::UnitAttention, "UNIT ATTENTION"),
    (SenseKey::DataProtect, "DATA PROTECT"),
    (SenseKey::BlankCheck, "BLANK CHECK"),
    (SenseKey::VendorSpecific, "VENDOR SPECIFIC"),
    (SenseKey::CopyAborted, "COPY ABORTED"),
    (SenseKey::AbortedCommand, "ABORTED COMMAND"),
    (SenseKey::Reserved, "RESERVED SENSE KEY"),
    (SenseKey::VolumeOverflow, "VOLUME OVERFLOW"),
    (SenseKey::Miscompare, "MISCOMPARE"),
    (SenseKey::Completed, "COMPLETED"),
];

impl SenseKey {
    /// The key of a four-bit code; upper bits are ignored.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        KEYS[usize::from(code & 0x0f)].0
    }

    /// The four-bit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for SenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KEYS[usize::from(self.code())].1)
    }
}

/// Sense data of either format, reduced to what decisions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// It is about an earlier command; the one that got it was not carried out (SPC-4).
    pub deferred: bool,
    /// What kind of condition.
    pub key: SenseKey,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// INFORMATION: for block commands the first LBA concerned, when valid.
    pub information: Option<u64>,
}

/// Bytes that are no sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenseError {
    /// The sense key lies beyond the end.
    #[error("sense data of {0} bytes is too short to hold a sense key")]
    Truncated(usize),
    /// A response code other than 70h to 73h.
    #[error("sense data has response code {0:#04x}; only 70h to 73h are defined for block commands")]
    ResponseCode(u8),
}

const VALID: u8 = 0x80;

impl Sense {
    /// An immediate condition without further information.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        Self {
            deferred: false,
            key,
            asc,
            ascq,
            information: None,
        }
    }

    /// Reads fixed (70h, 71h) or descriptor (72h, 73h) format. Codes beyond the end of the data are 0.
    ///
    /// # Errors
    /// When the data has another format or ends before the sense key.
    pub fn parse(bytes: &[u8]) -> Result<Self, SenseError> {
        let truncated = SenseError::Truncated(bytes.len());
        let first = *bytes.first().ok_or(truncated)?;
        let code = first & 0x7f;
        // Without the length byte there is nothing beyond it either.
        let len = bytes
            .get(7)
            .map_or(bytes.len(), |additional| 8 + usize::from(*additional));
        let bytes = &bytes[..len.min(bytes.len())];
        match code {
            0x70 | 0x71 => Ok(Self {
                deferred: code == 0x71,
                key: SenseKey::from_code(*bytes.get(2).ok_or(truncated)?),
                asc: field::u8(bytes, 12).unwrap_or(0),
                ascq: field::u8(bytes, 13).unwrap_or(0),
                information: field::u32(bytes, 3).map(u64::from).filter(|_| first & VALID != 0),
            }),
            0x72 | 0x73 => Ok(Self {
                deferred: code == 0x73,
                key: SenseKey::from_code(*bytes.get(1).ok_or(truncated)?),
                asc: field::u8(bytes, 2).unwrap_or(0),
                ascq: field::u8(bytes, 3).unwrap_or(0),
                information: information(bytes.get(8..).unwrap_or(&[])),
            }),
            _ => Err(SenseError::ResponseCode(code)),
        }
    }

    /// Fixed format, as a target sends it; INFORMATION beyond 32 bits does not fit and is left out.
    #[must_use]
    pub fn to_fixed(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = if self.deferred { 0x71 } else { 0x70 };
        bytes[2] = self.key.code();
        bytes[7] = 10;
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= VALID;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes
    }

    /// It has this key and additional code.
    #[must_use]
    pub fn is(&self, key: SenseKey, asc: u8, ascq: u8) -> bool {
        (self.key, self.asc, self.ascq) == (key, asc, ascq)
    }
}

/// The information descriptor (type 00h) among the descriptors, if it is there and valid.
fn information(mut descriptors: &[u8]) -> Option<u64> {
    while let [kind, len, rest @ ..] = descriptors {
        let (body, next) = rest.split_at_checked(usize::from(*len))?;
        if *kind == 0 {
            return field::u64(body, 2).filter(|_| body[0] & VALID != 0);
        }
        descriptors = next;
    }
    None
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, asc, ascq, .. } = self;
        if self.deferred {
            f.write_str("deferred ")?;
        }
        match additional_sense::words(*asc, *ascq) {
            Some(words) => write!(f, "{key}, {words} ({asc:02x}h/{ascq:02x}h)")?,
            None => write!(f, "{key}, additional sense {asc:02x}h/{ascq:02x}h")?,
        }
        if let Some(lba) = self.information {
            write!(f, ", at {lba}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_format() {
        let bytes = [0xf0, 0, 0xe3, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x11, 0x00, 0, 0, 0, 0];
        let sense = Sense::parse(&bytes).unwrap();
        let expected = Sense::new(SenseKey::MediumError, 0x11, 0);
        assert_eq!(
            sense,
            Sense {
                information: Some(0x1234),
                ..expected
            }
        );
        assert_eq!(
            sense.to_string(),
            "MEDIUM ERROR, unrecovered read error (11h/00h), at 4660"
        );
        // Shorter than usual, and an additional length that ends before the codes.
        assert_eq!(Sense::parse(&bytes[..3]).unwrap().key, SenseKey::MediumError);
        let mut short = bytes;
        short[7] = 4;
        assert_eq!(Sense::parse(&short).unwrap().asc, 0);
        short[7] = 255;
        assert_eq!(Sense::parse(&short).unwrap().asc, 0x11);
        assert_eq!(Sense::parse(&bytes[..2]), Err(SenseError::Truncated(2)));
    }

    #[test]
    fn descriptor_format() {
        let bytes = [
            0x73, 0x06, 0x29, 0x07, 0, 0, 0, 16, // header
            0x02, 2, 0, 0, // another descriptor
            0x00, 0x0a, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 2,
        ];
        let sense = Sense::parse(&bytes).unwrap();
        assert_eq!((sense.deferred, sense.information), (true, Some(0x1_0000_0002)));
        assert_eq!(
            sense.to_string(),
            "deferred UNIT ATTENTION, I_T nexus loss occurred (29h/07h), at 4294967298"
        );
        for cut in 4..bytes.len() {
            assert_eq!(Sense::parse(&bytes[..cut]).unwrap().information, None);
        }
        assert_eq!(Sense::parse(&[0x7f; 18]), Err(SenseError::ResponseCode(0x7f)));
        assert_eq!(Sense::parse(&[]), Err(SenseError::Truncated(0)));
        let unknown = Sense::new(SenseKey::VendorSpecific, 0xee, 1);
        assert_eq!(unknown.to_string(), "VENDOR SPECIFIC, additional sense eeh/01h");
    }

    proptest! {
        #[test]
        fn fixed_round_trips(deferred: bool, key in 0u8..16, asc: u8, ascq: u8, info: Option<u32>) {
            let information = info.map(u64::from);
            let sense = Sense { deferred, key: SenseKey::from_code(key), asc, ascq, information };
            prop_assert_eq!(sense.key.code(), key);
            prop_assert_eq!(Sense::parse(&sense.to_fixed()), Ok(sense));
        }

        #[test]
        fn any_bytes_are_answered(
            code in 0x6fu8..0x75, rest in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [&[code], &rest[..]].concat();
            if let Ok(sense) = Sense::parse(&bytes) {
                prop_assert!(!sense.to_string().is_empty());
            }
        }
    }
}
