//! SRP_AER_REQ and SRP_AER_RSP (SRP r16a 6.12, 6.13): a logical unit reports an event on its own.

use zerocopy::byteorder::big_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{self, Short};
use super::{WireError, opcode};
use crate::scsi::Lun;

const REQUEST: &str = "SRP_AER_REQ";
const RESPONSE: &str = "SRP_AER_RSP";

/// SRP_AER_REQ; to be answered by an [`AsyncEventResponse`] with the same tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent<'a> {
    /// The target's tag.
    pub tag: u64,
    /// Change of the request limit.
    pub delta: i32,
    /// The logical unit it is about.
    pub lun: Lun,
    /// The event, as sense data; may be empty.
    pub sense: &'a [u8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAsyncEvent {
    opcode: u8,
    solicited: u8,
    reserved2: [u8; 2],
    delta: I32,
    tag: U64,
    reserved16: [u8; 4],
    lun: U64,
    sense_len: U32,
    reserved32: [u8; 4],
}

const _: () = assert!(size_of::<RawAsyncEvent>() == AsyncEvent::FIXED_LEN);

impl<'a> AsyncEvent<'a> {
    /// Bytes without the sense data.
    pub const FIXED_LEN: usize = 36;

    /// Reads a received IU; `iu` is exactly what was received.
    ///
    /// # Errors
    /// When it ends before its sense data does.
    pub fn parse(iu: &'a [u8]) -> Result<Self, WireError> {
        let (raw, rest) = layout::view::<RawAsyncEvent>(iu, REQUEST, opcode::ASYNC_EVENT)?;
        let sense_len = usize::try_from(raw.sense_len.get()).unwrap_or(usize::MAX);
        let (sense, _) = layout::split(rest, sense_len, "SRP_AER_REQ sense data")?;
        Ok(Self {
            tag: raw.tag.get(),
            delta: raw.delta.get(),
            lun: Lun(raw.lun.get()),
            sense,
        })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let len = Self::FIXED_LEN + self.sense.len();
        let raw = RawAsyncEvent {
            opcode: opcode::ASYNC_EVENT,
            solicited: 0,
            reserved2: [0; 2],
            delta: self.delta.into(),
            tag: self.tag.into(),
            reserved16: [0; 4],
            lun: self.lun.0.into(),
            sense_len: u32::try_from(self.sense.len()).unwrap_or(u32::MAX).into(),
            reserved32: [0; 4],
        };
        let (fixed, sense) = layout::slot(buf, len, REQUEST)?.split_at_mut(Self::FIXED_LEN);
        fixed.copy_from_slice(raw.as_bytes());
        sense.copy_from_slice(self.sense);
        Ok(len)
    }
}

/// SRP_AER_RSP; takes no credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsyncEventResponse {
    /// The tag of the request.
    pub tag: u64,
}

impl AsyncEventResponse {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<Short>(iu, RESPONSE, opcode::ASYNC_EVENT_RESPONSE)?;
        Ok(Self { tag: raw.tag.get() })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        layout::emit(&Short::new(opcode::ASYNC_EVENT_RESPONSE, 0, self.tag), buf, RESPONSE)
    }
}
