//! Logical unit numbers (SAM-5 4.7) and choosing among them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A logical unit number: eight bytes, most significant first on the wire.
///
/// A target chooses the form; commands repeat what REPORT LUNS gave, bit for bit. [`Display`](fmt::Display) is the
/// number Linux shows for it ([`Lun::number`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(pub u64);

/// What the first level of a LUN addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LunAddress {
    /// Peripheral device addressing (00b): bus 0 is this level's own units.
    Peripheral {
        /// 6 bits.
        bus: u8,
        /// Target or unit.
        lun: u8,
    },
    /// Flat space addressing (01b), 14 bits.
    Flat(u16),
    /// Logical unit addressing (10b).
    LogicalUnit {
        /// 6 bits.
        target: u8,
        /// 3 bits.
        bus: u8,
        /// 5 bits.
        lun: u8,
    },
    /// Extended, well-known logical unit.
    WellKnown(u8),
    /// Extended flat space, 24 bits.
    ExtendedFlat(u32),
    /// Long extended flat space, 40 bits.
    LongExtendedFlat(u64),
    /// Extended, logical unit not specified.
    NotSpecified,
    /// A reserved form.
    Reserved,
}

impl Lun {
    /// The well-known logical unit that answers REPORT LUNS.
    pub const REPORT_LUNS: Self = Self(0xc101_0000_0000_0000);

    /// The LUN a target usually gives its unit number `index`: peripheral form below 256, flat below 16384, extended
    /// flat forms above.
    #[must_use]
    pub const fn from_index(index: u32) -> Self {
        let index = index as u64;
        Self(match index {
            0..0x100 => index << 48,
            0x100..0x4000 => (0x4000 | index) << 48,
            0x4000..0x100_0000 => (0xd200_0000 | index) << 32,
            _ => (0xe200_0000_0000 | index) << 16,
        })
    }

    /// The LUN Linux shows as `number`.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        // Linux reads the four two-byte levels in reverse order: an involution.
        Self(Self(number).number())
    }

    /// The number Linux shows: the four two-byte levels, the first one least significant.
    #[must_use]
    pub const fn number(self) -> u64 {
        let v = self.0;
        (v >> 48) | ((v >> 16) & 0xffff_0000) | ((v << 16) & 0xffff_0000_0000) | (v << 48)
    }

    /// The unit number without the bits that tell its form: 1 for both `0001h` and `4001h`. A LUN of several levels,
    /// or one that is no plain number, is its [`Lun::number`].
    #[must_use]
    pub const fn index(self) -> u64 {
        let single_level = self.0 << 16 == 0;
        match self.address() {
            LunAddress::Peripheral { bus: 0, lun } if single_level => lun as u64,
            LunAddress::Flat(lun) if single_level => lun as u64,
            LunAddress::ExtendedFlat(lun) if self.0 << 32 == 0 => lun as u64,
            LunAddress::LongExtendedFlat(lun) if self.0 << 48 == 0 => lun,
            _ => self.number(),
        }
    }

    /// What the first level addresses, by SAM's address methods.
    #[must_use]
    pub const fn address(self) -> LunAddress {
        let bytes = self.0.to_be_bytes();
        match bytes[0] >> 6 {
            0 => LunAddress::Peripheral {
                bus: bytes[0],
                lun: bytes[1],
            },
            1 => LunAddress::Flat((((bytes[0] & 0x3f) as u16) << 8) | bytes[1] as u16),
            2 => LunAddress::LogicalUnit {
                target: bytes[0] & 0x3f,
                bus: bytes[1] >> 5,
                lun: bytes[1] & 0x1f,
            },
            // Extended: two bits of length, four bits of extended method.
            _ => match bytes[0] {
                0xc1 => LunAddress::WellKnown(bytes[1]),
                0xd2 => LunAddress::ExtendedFlat((self.0 >> 32) as u32 & 0x00ff_ffff),
                0xe2 => LunAddress::LongExtendedFlat((self.0 >> 16) & 0xff_ffff_ffff),
                0xff => LunAddress::NotSpecified,
                _ => LunAddress::Reserved,
            },
        }
    }

    /// It is a well-known logical unit, never a disk.
    #[must_use]
    pub const fn is_well_known(self) -> bool {
        matches!(self.address(), LunAddress::WellKnown(_))
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A set of unit numbers, as a user writes it: `0,3-7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LunSet(Vec<RangeInclusive<u64>>);

/// Text that is no set of unit numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseLunSetError {
    /// A part is neither a number nor a range.
    #[error("{0:?} is not a LUN: give numbers and ranges separated by commas, as in 0,3-7")]
    Number(String),
    /// A range that ends before it begins.
    #[error("the range {0}-{1} is empty: write the smaller LUN first")]
    EmptyRange(u64, u64),
    /// Nothing at all.
    #[error("no LUN given: give numbers and ranges separated by commas, as in 0,3-7")]
    Empty,
}

impl LunSet {
    /// The LUN is meant, by the number Linux shows or by its index.
    #[must_use]
    pub fn contains(&self, lun: Lun) -> bool {
        let (number, index) = (lun.number(), lun.index());
        self.0
            .iter()
            .any(|range| range.contains(&number) || range.contains(&index))
    }
}

impl FromStr for LunSet {
    type Err = ParseLunSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let ranges: Vec<_> = parts.map(range).collect::<Result<_, _>>()?;
        if ranges.is_empty() {
            Err(ParseLunSetError::Empty)
        } else {
            Ok(Self(ranges))
        }
    }
}

fn range(part: &str) -> Result<RangeInclusive<u64>, ParseLunSetError> {
    let number = |text: &str| {
        let text = text.trim();
        // parse() would take a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
        digits
            .flatten()
            .ok_or_else(|| ParseLunSetError::Number(part.to_owned()))
    };
    let Some((first, last)) = part.split_once('-') else {
        let only = number(part)?;
        return Ok(only..=only);
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(ParseLunSetError::EmptyRange(first, last));
    }
    Ok(first..=last)
}

impl fmt::Display for LunSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        use LunAddress::{ExtendedFlat, Flat, LogicalUnit, LongExtendedFlat, Peripheral};
        let table = [
            (0x0000_0000_0000_0000, Peripheral { bus: 0, lun: 0 }, 0, 0),
            (0x0005_0000_0000_0000, Peripheral { bus: 0, lun: 5 }, 5, 5),
            // What LIO reports for its LUN 300: bus bits, but a number to Linux.
            (0x012c_0000_0000_0000, Peripheral { bus: 1, lun: 0x2c }, 300, 300),
            (0x4001_0000_0000_0000, Flat(1), 16385, 1),
            (
                0x8123_0000_0000_0000,
                LogicalUnit {
                    target: 1,
                    bus: 1,
                    lun: 3,
                },
                0x8123,
                0x8123,
            ),
            (0xc101_0000_0000_0000, LunAddress::WellKnown(1), 49409, 49409),
            (0xd200_4000_0000_0000, ExtendedFlat(0x4000), 0x4000_d200, 0x4000),
            (
                0xe200_0100_0000_0000,
                LongExtendedFlat(0x0100_0000),
                0x0100_e200,
                0x0100_0000,
            ),
            (0xffff_ffff_ffff_ffff, LunAddress::NotSpecified, u64::MAX, u64::MAX),
            (0xf000_0000_0000_0000, LunAddress::Reserved, 0xf000, 0xf000),
            (
                0x0001_0002_0000_0000,
                Peripheral { bus: 0, lun: 1 },
                0x0002_0001,
                0x0002_0001,
            ),
        ];
        for (value, address, number, index) in table {
            let lun = Lun(value);
            assert_eq!((lun.address(), lun.number(), lun.index()), (address, number, index));
            assert_eq!(Lun::from_number(number), lun);
            assert_eq!(lun.to_string(), number.to_string());
        }
        assert!(Lun::REPORT_LUNS.is_well_known());
        assert_eq!(Lun::from_index(255), Lun(0x00ff_0000_0000_0000));
        assert_eq!(Lun::from_index(256), Lun(0x4100_0000_0000_0000));
    }

    #[test]
    fn sets() {
        let set: LunSet = "0, 3-7,,20".parse().unwrap();
        assert_eq!(set.to_string(), "0,3-7,20");
        let inside: Vec<u32> = (0..30).filter(|i| set.contains(Lun::from_index(*i))).collect();
        assert_eq!(inside, [0, 3, 4, 5, 6, 7, 20]);
        assert!(set.contains(Lun(0x4003_0000_0000_0000)), "flat form of 3");
        assert!("16385".parse::<LunSet>().unwrap().contains(Lun(0x4001_0000_0000_0000)));
        assert_eq!("7-3".parse::<LunSet>(), Err(ParseLunSetError::EmptyRange(7, 3)));
        assert_eq!(" , ".parse::<LunSet>(), Err(ParseLunSetError::Empty));
        for bad in ["a", "-1", "+1", "1-", "1-2-3", "99999999999999999999"] {
            let refused = Err(ParseLunSetError::Number(bad.to_owned()));
            assert_eq!(bad.parse::<LunSet>(), refused, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, index: u32) {
            prop_assert_eq!(Lun::from_number(Lun(value).number()), Lun(value));
            prop_assert_eq!(Lun::from_index(index).index(), u64::from(index));
            let _ = Lun(value).index();
        }

        #[test]
        fn any_text_is_answered(text in "[0-9,\\- a]{0,40}") {
            if let Ok(set) = text.parse::<LunSet>() {
                prop_assert_eq!(set.to_string().parse::<LunSet>(), Ok(set));
            }
        }
    }
}
