//! Byte layouts shared by several IUs, and checked access to them.

use zerocopy::byteorder::big_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{MemoryDescriptor, WireError};

/// Byte 0, the IU type code.
pub(in crate::wire) fn first_byte(iu: &[u8]) -> Result<u8, WireError> {
    iu.first().copied().ok_or(WireError::Truncated {
        what: "an IU",
        need: 1,
        have: 0,
    })
}

/// The fixed part of an IU whose type code is byte 0, and what follows it.
pub(in crate::wire) fn view<'a, T>(
    iu: &'a [u8],
    what: &'static str,
    expected: u8,
) -> Result<(&'a T, &'a [u8]), WireError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    let found = first_byte(iu)?;
    if found != expected {
        return Err(WireError::Opcode { what, expected, found });
    }
    prefix(iu, what)
}

/// A structure at the start of `bytes`, and what follows it.
pub(in crate::wire) fn prefix<'a, T>(bytes: &'a [u8], what: &'static str) -> Result<(&'a T, &'a [u8]), WireError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| WireError::Truncated {
        what,
        need: size_of::<T>(),
        have: bytes.len(),
    })
}

/// Splits `len` bytes off the front of the variable part of an IU.
pub(in crate::wire) fn split<'a>(
    bytes: &'a [u8],
    len: usize,
    what: &'static str,
) -> Result<(&'a [u8], &'a [u8]), WireError> {
    bytes.split_at_checked(len).ok_or(WireError::Truncated {
        what,
        need: len,
        have: bytes.len(),
    })
}

/// The first `need` bytes of the slot an IU is written to.
pub(in crate::wire) fn slot<'a>(buf: &'a mut [u8], need: usize, what: &'static str) -> Result<&'a mut [u8], WireError> {
    let have = buf.len();
    buf.get_mut(..need).ok_or(WireError::SlotTooShort { what, need, have })
}

/// A part of an IU where it is to be written, and what is behind it.
#[inline(always)]
pub(in crate::wire) fn place<'a, T>(
    buf: &'a mut [u8],
    what: &'static str,
) -> Result<(&'a mut T, &'a mut [u8]), WireError>
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
{
    let (need, have) = (size_of::<T>(), buf.len());
    T::mut_from_prefix(buf).map_err(|_| WireError::SlotTooShort { what, need, have })
}

/// Writes an IU that has no variable part.
pub(in crate::wire) fn emit<T>(raw: &T, buf: &mut [u8], what: &'static str) -> Result<usize, WireError>
where
    T: IntoBytes + Immutable,
{
    let bytes = raw.as_bytes();
    slot(buf, bytes.len(), what)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// SRP_I_LOGOUT, SRP_T_LOGOUT, SRP_CRED_REQ, SRP_CRED_RSP and SRP_AER_RSP: 16 bytes; `argument` is the request
/// limit delta or the reason where there is one, else reserved.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::wire) struct Short {
    pub(in crate::wire) opcode: u8,
    pub(in crate::wire) solicited: u8,
    pub(in crate::wire) reserved: [u8; 2],
    pub(in crate::wire) argument: I32,
    pub(in crate::wire) tag: U64,
}

const _: () = assert!(size_of::<Short>() == 16);

impl Short {
    pub(in crate::wire) fn new(opcode: u8, argument: i32, tag: u64) -> Self {
        Self {
            opcode,
            solicited: 0,
            reserved: [0; 2],
            argument: argument.into(),
            tag: tag.into(),
        }
    }
}

/// A direct memory descriptor on the wire: 16 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::wire) struct RawDescriptor {
    address: U64,
    key: U32,
    len: U32,
}

const _: () = assert!(size_of::<RawDescriptor>() == 16);

impl From<MemoryDescriptor> for RawDescriptor {
    fn from(descriptor: MemoryDescriptor) -> Self {
        Self {
            address: descriptor.address.into(),
            key: descriptor.key.into(),
            len: descriptor.len.into(),
        }
    }
}

impl From<RawDescriptor> for MemoryDescriptor {
    fn from(raw: RawDescriptor) -> Self {
        Self {
            address: raw.address.get(),
            key: raw.key.get(),
            len: raw.len.get(),
        }
    }
}
