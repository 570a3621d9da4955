//! The common MAD header and the frame of a device management MAD.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DATA_LEN, MAD_LEN, MadStatus};

/// Management classes (IBA 13.4.4).
pub mod class {
    /// Device management.
    pub const DEVICE_MANAGEMENT: u8 = 0x06;
    /// The version of device management everybody speaks.
    pub const DEVICE_MANAGEMENT_VERSION: u8 = 1;
    /// Subnet administration (IBA 15.2).
    pub const SUBNET_ADMINISTRATION: u8 = 0x03;
    /// Its version.
    pub const SUBNET_ADMINISTRATION_VERSION: u8 = 2;
}

/// Methods (IBA 13.4.5): plain values, since any byte may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u8);

impl Method {
    /// Ask for an attribute.
    pub const GET: Self = Self(0x01);
    /// Change an attribute.
    pub const SET: Self = Self(0x02);
    /// The answer to both.
    pub const GET_RESP: Self = Self(0x81);
    /// Tell of an event (IBA 13.4.11).
    pub const REPORT: Self = Self(0x06);
    /// The answer to that.
    pub const REPORT_RESP: Self = Self(0x86);
    /// Ask for all records that fit (IBA 15.4).
    pub const GET_TABLE: Self = Self(0x12);
    /// The answer to that.
    pub const GET_TABLE_RESP: Self = Self(0x92);

    /// The method a peer answers this one with.
    #[must_use]
    pub const fn response(self) -> Self {
        match self {
            Self::GET | Self::SET => Self::GET_RESP,
            Self(other) => Self(other | 0x80),
        }
    }
}

/// An attribute: its id means something within a management class only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// The management class.
    pub class: u8,
    /// The id.
    pub id: u16,
}

impl Attribute {
    /// Device management: what the class offers at this port, and where it really lives.
    pub const CLASS_PORT_INFO: Self = Self::dm(0x0001);
    /// The slots of an I/O unit (IBA 16.3.3.3).
    pub const IO_UNIT_INFO: Self = Self::dm(0x0010);
    /// The controller in one slot (IBA 16.3.3.4).
    pub const IO_CONTROLLER_PROFILE: Self = Self::dm(0x0011);
    /// Up to four services of a controller (IBA 16.3.3.5).
    pub const SERVICE_ENTRIES: Self = Self::dm(0x0012);
    /// Subnet administration: what the SA can do (IBA 15.2.4.1).
    pub const SA_CLASS_PORT_INFO: Self = Self::sa(0x0001);
    /// What a subscriber is told (IBA 13.4.8.2).
    pub const NOTICE: Self = Self::sa(0x0002);
    /// A subscription to such (IBA 13.4.8.3).
    pub const INFORM_INFO: Self = Self::sa(0x0003);
    /// The nodes of the subnet (IBA 15.2.5.2).
    pub const NODE_RECORD: Self = Self::sa(0x0011);
    /// Their ports (IBA 15.2.5.3).
    pub const PORT_INFO_RECORD: Self = Self::sa(0x0012);
    /// Ways between ports (IBA 15.2.5.16).
    pub const PATH_RECORD: Self = Self::sa(0x0035);

    const fn dm(id: u16) -> Self {
        let class = class::DEVICE_MANAGEMENT;
        Self { class, id }
    }

    const fn sa(id: u16) -> Self {
        let class = class::SUBNET_ADMINISTRATION;
        Self { class, id }
    }
}

impl std::fmt::Display for Attribute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::CLASS_PORT_INFO | Self::SA_CLASS_PORT_INFO => f.write_str("ClassPortInfo"),
            Self::IO_UNIT_INFO => f.write_str("IOUnitInfo"),
            Self::IO_CONTROLLER_PROFILE => f.write_str("IOControllerProfile"),
            Self::SERVICE_ENTRIES => f.write_str("ServiceEntries"),
            Self::NOTICE => f.write_str("Notice"),
            Self::INFORM_INFO => f.write_str("InformInfo"),
            Self::NODE_RECORD => f.write_str("NodeRecord"),
            Self::PORT_INFO_RECORD => f.write_str("PortInfoRecord"),
            Self::PATH_RECORD => f.write_str("PathRecord"),
            Self { class, id } => write!(f, "attribute 0x{id:04x} of class 0x{class:02x}"),
        }
    }
}

/// The common MAD header (IBA 13.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// 1 for everything but OPA's jumbo MADs.
    pub base_version: u8,
    /// The management class.
    pub mgmt_class: u8,
    /// The version of that class.
    pub class_version: u8,
    /// What is asked or answered.
    pub method: u8,
    /// Zero in requests; see [`MadStatus`].
    pub status: U16,
    /// Belongs to directed routes; reserved elsewhere.
    pub class_specific: U16,
    /// Names the transaction; the upper half belongs to the sender's kernel.
    pub tid: U64,
    /// Which attribute.
    pub attribute: U16,
    /// Reserved.
    pub reserved: U16,
    /// Which instance of the attribute.
    pub modifier: U32,
}

impl Header {
    /// The header of a request; the transaction id is filled in by whoever sends it.
    #[must_use]
    pub fn request(method: Method, attribute: Attribute, modifier: u32) -> Self {
        let class_version = match attribute.class {
            class::SUBNET_ADMINISTRATION => class::SUBNET_ADMINISTRATION_VERSION,
            _ => class::DEVICE_MANAGEMENT_VERSION,
        };
        Self {
            base_version: 1,
            mgmt_class: attribute.class,
            class_version,
            method: method.0,
            status: U16::ZERO,
            class_specific: U16::ZERO,
            tid: U64::ZERO,
            attribute: U16::new(attribute.id),
            reserved: U16::ZERO,
            modifier: U32::new(modifier),
        }
    }
}

/// One MAD, framed as the device management class has it (IBA 16.3.1); an [`SaMad`](super::SaMad) is the same bytes
/// in the frame of subnet administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Mad {
    /// The common header.
    pub header: Header,
    /// RMPP header and reserved bytes, unused by this class's single-packet attributes.
    pub reserved: [u8; 40],
    /// The attribute.
    pub data: [u8; DATA_LEN],
}

const _: () = assert!(size_of::<Mad>() == MAD_LEN);

/// Why bytes are not the MAD they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MadError {
    /// Fewer bytes than a MAD has.
    #[error("{0} bytes are no MAD, which has {MAD_LEN}")]
    Truncated(usize),
    /// A field of the header is not what the question asked for.
    #[error("the answer's {field} is 0x{got:x}, not 0x{expected:x}")]
    Unexpected {
        /// The field.
        field: &'static str,
        /// What it holds.
        got: u64,
        /// What it should hold.
        expected: u64,
    },
}

impl Mad {
    /// A `Get` of one attribute; the transaction id is filled in by whoever sends it.
    #[must_use]
    pub fn get(attribute: Attribute, modifier: u32) -> Self {
        Self {
            header: Header::request(Method::GET, attribute, modifier),
            reserved: [0; 40],
            data: [0; DATA_LEN],
        }
    }

    /// Reads the first 256 of `bytes`.
    ///
    /// # Errors
    /// [`MadError::Truncated`] when there are fewer.
    pub fn parse(bytes: &[u8]) -> Result<&Self, MadError> {
        Self::ref_from_prefix(bytes)
            .map(|(mad, _)| mad)
            .map_err(|_| MadError::Truncated(bytes.len()))
    }

    /// Checks that this is the answer to `request`: version, class, method and attribute (IBA 13.4.6). A redirection
    /// brings ClassPortInfo instead of what was asked for, under either's attribute id. The transaction id is compared
    /// by the caller, since the kernel owns half of it.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn check_answers(&self, request: &Self) -> Result<(), MadError> {
        let (got, asked) = (&self.header, &request.header);
        let redirects = self.status().is_redirect() && got.attribute.get() == Attribute::CLASS_PORT_INFO.id;
        let attribute = if redirects { got.attribute } else { asked.attribute };
        let fields = [
            ("base version", got.base_version.into(), asked.base_version.into()),
            ("management class", got.mgmt_class.into(), asked.mgmt_class.into()),
            ("class version", got.class_version.into(), asked.class_version.into()),
            ("method", got.method.into(), Method(asked.method).response().0.into()),
            ("attribute", u64::from(got.attribute.get()), u64::from(attribute.get())),
        ];
        match fields.into_iter().find(|(_, got, expected)| got != expected) {
            Some((field, got, expected)) => Err(MadError::Unexpected { field, got, expected }),
            None => Ok(()),
        }
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> MadStatus {
        MadStatus(self.header.status.get())
    }

    /// Which attribute this MAD carries.
    #[must_use]
    pub fn attribute(&self) -> Attribute {
        Attribute {
            class: self.header.mgmt_class,
            id: self.header.attribute.get(),
        }
    }

    /// The lower 32 bits of the transaction id: the part that is ours.
    #[must_use]
    pub fn tid_low(&self) -> u32 {
        tid_low(self.header.tid.get())
    }
}

/// The sender's half of a transaction id.
#[must_use]
pub(crate) const fn tid_low(tid: u64) -> u32 {
    (tid & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_of_iba_13_4_2() {
        let mut mad = Mad::get(Attribute::SERVICE_ENTRIES, 0x0001_0300);
        mad.header.tid = U64::new(0x1122_3344_5566_7788);
        let bytes = mad.as_bytes();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes[..8], [1, 6, 1, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[8..16], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(bytes[16..24], [0x00, 0x12, 0, 0, 0x00, 0x01, 0x03, 0x00]);
        assert_eq!(Mad::parse(bytes), Ok(&mad));
        assert_eq!(mad.tid_low(), 0x5566_7788);
        assert_eq!(std::mem::offset_of!(Mad, data), super::super::DATA_OFFSET);
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let request = Mad::get(Attribute::IO_UNIT_INFO, 0);
        let mut answer = request;
        assert!(answer.check_answers(&request).is_err(), "a request is no answer");
        answer.header.method = Method::GET_RESP.0;
        assert_eq!(answer.check_answers(&request), Ok(()));
        answer.header.attribute = U16::new(Attribute::CLASS_PORT_INFO.id);
        assert!(answer.check_answers(&request).is_err(), "another attribute");
        answer.header.status = U16::new(0x0002);
        assert_eq!(answer.check_answers(&request), Ok(()), "a redirection");
        answer.header.mgmt_class = 3;
        let expected = MadError::Unexpected {
            field: "management class",
            got: 3,
            expected: 6,
        };
        assert_eq!(answer.check_answers(&request), Err(expected));
        assert_eq!(Method(0x12).response(), Method(0x92));
        assert_eq!(Method::SET.response(), Method::GET_RESP);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..520)) {
            match Mad::parse(&bytes) {
                Ok(mad) => {
                    prop_assert_eq!(mad.as_bytes(), &bytes[..256]);
                    let _ = mad.check_answers(&Mad::get(Attribute::IO_UNIT_INFO, 0));
                    let _ = mad.status().to_string();
                    let _ = mad.attribute().to_string();
                }
                Err(error) => prop_assert_eq!(error, MadError::Truncated(bytes.len())),
            }
        }
    }
}
