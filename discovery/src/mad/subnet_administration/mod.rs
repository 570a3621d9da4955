//! Subnet administration (IBA chapter 15): its frame, its tables, its records.

mod inform;
mod records;
mod table;

use std::fmt;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Attribute, Header, Mad, Method};
use super::{MAD_LEN, MadStatus};

pub use inform::{InformInfo, Notice, NoticeKind};
pub use records::{NodeRecord, PathComponents, PathRecord, PortInfoRecord};
pub use table::{Table, TableError};

/// Where the record of an SA MAD starts (IBA 15.2.1.1).
pub const SA_DATA_OFFSET: usize = 56;
/// How long the record of an SA MAD may be.
pub const SA_DATA_LEN: usize = MAD_LEN - SA_DATA_OFFSET;
/// ClassPortInfo.CapabilityMask of an SA that can match PortInfo.CapabilityMask bit by bit (IBA 15.2.4.1).
pub const SA_MATCHES_CAPABILITY_MASK: u16 = 1 << 13;
/// PortInfo.CapabilityMask: the port has a device management agent (IBA 14.2.5.6).
pub const IS_DEVICE_MANAGEMENT_SUPPORTED: u32 = 1 << 19;

/// The RMPP header (IBA 13.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Rmpp {
    /// 1.
    pub version: u8,
    /// [`Rmpp::DATA`] and others.
    pub kind: u8,
    /// Response time (5 bits) and the flags below.
    pub flags: u8,
    /// Why a transfer was stopped.
    pub status: u8,
    /// Which segment this is, from 1.
    pub segment: U32,
    /// First segment: length of everything, or 0; last: length of this one; both with 20 bytes of SA header.
    pub payload: U32,
}

impl Rmpp {
    /// The kind of a segment with data.
    pub const DATA: u8 = 1;
    /// Flag: the header counts.
    pub const ACTIVE: u8 = 1;
    /// Flag: the first segment.
    pub const FIRST: u8 = 2;
    /// Flag: the last segment.
    pub const LAST: u8 = 4;
}

/// One MAD of subnet administration (IBA 15.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SaMad {
    /// The common header.
    pub header: Header,
    /// The header of long answers.
    pub rmpp: Rmpp,
    /// The SM's key; 0 for everybody who is not a manager.
    pub sm_key: U64,
    /// From one record of a table to the next, in 8-byte words.
    pub attribute_offset: U16,
    /// Reserved.
    pub reserved: U16,
    /// Which components of the record in `data` are to be matched.
    pub component_mask: U64,
    /// The record.
    pub data: [u8; SA_DATA_LEN],
}

const _: () = assert!(size_of::<SaMad>() == MAD_LEN);

impl SaMad {
    /// A request; `record` is no longer than [`SA_DATA_LEN`].
    #[must_use]
    pub fn request<R: IntoBytes + Immutable>(
        method: Method,
        attribute: Attribute,
        modifier: u32,
        component_mask: u64,
        record: &R,
    ) -> Self {
        const { assert!(size_of::<R>() <= SA_DATA_LEN) };
        let mut data = [0; SA_DATA_LEN];
        data[..size_of::<R>()].copy_from_slice(record.as_bytes());
        Self {
            header: Header::request(method, attribute, modifier),
            rmpp: Rmpp::default(),
            sm_key: U64::ZERO,
            attribute_offset: U16::ZERO,
            reserved: U16::ZERO,
            component_mask: U64::new(component_mask),
            data,
        }
    }

    /// The same bytes in the common frame.
    #[must_use]
    pub fn into_mad(self) -> Mad {
        zerocopy::transmute!(self)
    }

    /// The same bytes in the frame of subnet administration.
    #[must_use]
    pub fn from_mad(mad: &Mad) -> Self {
        zerocopy::transmute!(*mad)
    }

    /// The record of a MAD that carries one.
    #[must_use]
    pub fn record<R: FromBytes>(&self) -> R {
        const { assert!(size_of::<R>() <= SA_DATA_LEN) };
        let (record, _) = self.data.split_at(size_of::<R>());
        // The length is right by the line above, which was checked when the program was compiled.
        R::read_from_bytes(record).unwrap_or_else(|_| unreachable!("the length was checked"))
    }
}

/// The status of an SA answer, in words (IBA 15.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaStatus(pub u16);

impl SaStatus {
    /// Nothing fits the question.
    pub const NO_RECORDS: Self = Self(0x0300);

    /// The status of a MAD.
    #[must_use]
    pub fn of(status: MadStatus) -> Self {
        Self(status.0)
    }

    /// Whether the question was answered.
    #[must_use]
    pub const fn is_good(self) -> bool {
        self.0 == 0
    }

    /// Whether the SA is busy, or has not the resources now.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.0 & 0x0001 != 0 || self.0 & 0xff00 == 0x0100
    }

    /// Whether nothing fits the question: opensm answers an end that it does not know as an invalid GID.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        matches!(self.0 & 0xff00, 0x0300 | 0x0500)
    }
}

impl fmt::Display for SaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 >> 8 {
            0 => return MadStatus(self.0).fmt(f),
            1 => "it has no resources for this request",
            2 => "it takes the request for invalid",
            3 => "no record fits",
            4 => "more than one record fits",
            5 => "it takes the GID for invalid",
            6 => "components are missing in the request",
            7 => "it denies the request",
            _ => "a status that is not defined",
        };
        write!(f, "{words} (status 0x{:04x})", self.0)
    }
}

#[cfg(test)]
mod tests;
