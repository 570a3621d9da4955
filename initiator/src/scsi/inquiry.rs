//! Standard INQUIRY data (SPC-4): what kind of thing a logical unit is.

use std::fmt;

use super::field;

/// Peripheral device type (SPC-4), five bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeripheralType(pub u8);

impl PeripheralType {
    /// Direct access block device (SBC-3).
    pub const DISK: Self = Self(0x00);
}

impl fmt::Display for PeripheralType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x00 => "disk",
            0x01 => "tape drive",
            0x02 => "printer",
            0x03 => "processor",
            0x04 => "write-once device",
            0x05 => "CD/DVD drive",
            0x06 => "scanner",
            0x07 => "optical memory device",
            0x08 => "medium changer",
            0x09 => "communications device",
            0x0c => "storage array controller",
            0x0d => "enclosure services device",
            0x0e => "simplified (RBC) disk",
            0x0f => "optical card reader",
            0x10 => "bridge controller",
            0x11 => "object storage device",
            0x12 => "automation/drive interface",
            0x13 => "security manager",
            0x14 => "host-managed zoned disk",
            0x1e => "well-known logical unit",
            0x1f => "unknown or no device",
            other => return write!(f, "device of type {other:#04x}"),
        })
    }
}

/// Standard INQUIRY data. Texts are trimmed, with anything unprintable replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StandardInquiry {
    /// Peripheral qualifier: 0 connected, 1 could be connected, 3 not possible.
    pub qualifier: u8,
    /// What it is.
    pub kind: PeripheralType,
    /// The medium can be removed (RMB).
    pub removable: bool,
    /// The claimed version of SPC: 5 is SPC-3, 6 SPC-4, 7 SPC-5.
    pub version: u8,
    /// It may be formatted with protection information (PROTECT).
    pub protect: bool,
    /// T10 VENDOR IDENTIFICATION.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION.
    pub product: String,
    /// PRODUCT REVISION LEVEL.
    pub revision: String,
}

/// INQUIRY data too short to say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("INQUIRY returned {0} bytes, fewer than the 5 that say what the device is")]
pub struct InquiryTruncated(pub usize);

impl StandardInquiry {
    /// Reads what was returned; fields beyond the end, or beyond the data's own length, are empty.
    ///
    /// # Errors
    /// When the data ends before its length field.
    pub fn parse(data: &[u8]) -> Result<Self, InquiryTruncated> {
        let [first, rmb, version, _, additional, ..] = data else {
            return Err(InquiryTruncated(data.len()));
        };
        let data = &data[..data.len().min(5 + usize::from(*additional))];
        Ok(Self {
            qualifier: first >> 5,
            kind: PeripheralType(first & 0x1f),
            removable: rmb & 0x80 != 0,
            version: *version,
            protect: field::u8(data, 5).is_some_and(|byte| byte & 0x01 != 0),
            vendor: field::text(data, 8..16),
            product: field::text(data, 16..32),
            revision: field::text(data, 32..36),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_and_short() {
        let mut data = vec![0x00, 0x80, 0x06, 0x02, 31, 0x01, 0, 0];
        data.extend(b"LIO-ORG disk \x07\xff\0        4.0 ");
        let inquiry = StandardInquiry::parse(&data).unwrap();
        assert_eq!((inquiry.qualifier, inquiry.kind), (0, PeripheralType::DISK));
        assert!(inquiry.removable && inquiry.protect);
        assert_eq!((inquiry.version, inquiry.vendor.as_str()), (6, "LIO-ORG"));
        assert_eq!(
            (inquiry.product.as_str(), inquiry.revision.as_str()),
            ("disk ??", "4.0")
        );
        let short = StandardInquiry::parse(&data[..12]).unwrap();
        assert_eq!((short.vendor.as_str(), short.product.as_str()), ("LIO-", ""));
        // The additional length counts, not what lies behind.
        data[4] = 3;
        assert_eq!(StandardInquiry::parse(&data).unwrap().vendor, "");
        assert_eq!(StandardInquiry::parse(&data[..4]), Err(InquiryTruncated(4)));
        let absent = StandardInquiry::parse(&[0x7f, 0, 5, 2, 31]).unwrap();
        assert_eq!((absent.qualifier, absent.kind), (3, PeripheralType(0x1f)));
        assert_eq!(PeripheralType(0x05).to_string(), "CD/DVD drive");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(data in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(inquiry) = StandardInquiry::parse(&data) {
                prop_assert!(!inquiry.kind.to_string().is_empty());
            }
        }
    }
}
