//! SRP_RSP (SRP r16a 6.9): how a command or a task management function ended.

use zerocopy::byteorder::big_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{WireError, layout, opcode};

const WHAT: &str = "SRP_RSP";

const RESPONSE_VALID: u8 = 0x01;
const SENSE_VALID: u8 = 0x02;
const DATA_OUT_OVER: u8 = 0x04;
const DATA_OUT_UNDER: u8 = 0x08;
const DATA_IN_OVER: u8 = 0x10;
const DATA_IN_UNDER: u8 = 0x20;

/// By how much the data moved differs from the buffer described, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Residual {
    /// So many bytes of the buffer were not used.
    Under(u32),
    /// So many bytes more would have been moved had the buffer been longer.
    Over(u32),
}

/// SRP_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The tag of the request.
    pub tag: u64,
    /// Change of the request limit.
    pub request_limit_delta: i32,
    /// SCSI status (SAM-5 5.3.1).
    pub status: u8,
    /// Residual of DATA-OUT.
    pub data_out_residual: Option<Residual>,
    /// Residual of DATA-IN.
    pub data_in_residual: Option<Residual>,
    /// Response code, byte 3 of the response data, when there is some: the result of task management.
    pub response_code: Option<u8>,
    /// Sense data.
    pub sense: Option<&'a [u8]>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawResponse {
    opcode: u8,
    solicited: u8,
    reserved2: [u8; 2],
    request_limit_delta: I32,
    tag: U64,
    reserved16: [u8; 2],
    flags: u8,
    status: u8,
    data_out_residual: U32,
    data_in_residual: U32,
    sense_len: U32,
    response_len: U32,
}

const _: () = assert!(size_of::<RawResponse>() == Response::FIXED_LEN);

impl<'a> Response<'a> {
    /// Bytes without response data and sense data.
    pub const FIXED_LEN: usize = 36;

    /// Reads a received response that says no more than that its command went well: status GOOD, no residual, no
    /// response or sense data. Returns its tag and the change of the request limit; nothing when it says more, or is
    /// no response.
    #[inline]
    #[must_use]
    pub fn parse_plain(iu: &[u8]) -> Option<(u64, i32)> {
        let (raw, _) = RawResponse::ref_from_prefix(iu).ok()?;
        let plain = raw.opcode == opcode::RESPONSE && raw.flags == 0 && raw.status == 0;
        plain.then(|| (raw.tag.get(), raw.request_limit_delta.get()))
    }

    /// Reads a received response; `iu` is exactly what was received.
    ///
    /// # Errors
    /// When the IU ends before its response or sense data does, or claims overflow and underflow at once.
    pub fn parse(iu: &'a [u8]) -> Result<Self, WireError> {
        let (raw, rest) = layout::view::<RawResponse>(iu, WHAT, opcode::RESPONSE)?;
        let flags = raw.flags;
        // A length without its flag describes nothing; targets leave such fields uncleared.
        let response_len = if flags & RESPONSE_VALID != 0 {
            as_len(raw.response_len)
        } else {
            0
        };
        let (response_data, rest) = layout::split(rest, response_len, "SRP_RSP response data")?;
        let sense = if flags & SENSE_VALID != 0 {
            Some(layout::split(rest, as_len(raw.sense_len), "SRP_RSP sense data")?.0)
        } else {
            None
        };
        Ok(Self {
            tag: raw.tag.get(),
            request_limit_delta: raw.request_limit_delta.get(),
            status: raw.status,
            data_out_residual: residual(flags, DATA_OUT_UNDER, DATA_OUT_OVER, raw.data_out_residual)?,
            data_in_residual: residual(flags, DATA_IN_UNDER, DATA_IN_OVER, raw.data_in_residual)?,
            response_code: response_data.get(3).copied(),
            sense,
        })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let mut flags = 0;
        let mut data_out_residual = 0;
        let mut data_in_residual = 0;
        match self.data_out_residual {
            Some(Residual::Under(n)) => (flags, data_out_residual) = (flags | DATA_OUT_UNDER, n),
            Some(Residual::Over(n)) => (flags, data_out_residual) = (flags | DATA_OUT_OVER, n),
            None => {}
        }
        match self.data_in_residual {
            Some(Residual::Under(n)) => (flags, data_in_residual) = (flags | DATA_IN_UNDER, n),
            Some(Residual::Over(n)) => (flags, data_in_residual) = (flags | DATA_IN_OVER, n),
            None => {}
        }
        let code = self.response_code.map(|code| [0, 0, 0, code]);
        let response_data: &[u8] = match &code {
            Some(bytes) => {
                flags |= RESPONSE_VALID;
                bytes
            }
            None => &[],
        };
        if self.sense.is_some() {
            flags |= SENSE_VALID;
        }
        let sense = self.sense.unwrap_or(&[]);
        let len = Self::FIXED_LEN + response_data.len() + sense.len();
        let out = layout::slot(buf, len, WHAT)?;
        let (fixed, rest) = out.split_at_mut(Self::FIXED_LEN);
        let (response_place, sense_place) = rest.split_at_mut(response_data.len());
        let raw = RawResponse {
            opcode: opcode::RESPONSE,
            solicited: 0,
            reserved2: [0; 2],
            request_limit_delta: self.request_limit_delta.into(),
            tag: self.tag.into(),
            reserved16: [0; 2],
            flags,
            status: self.status,
            data_out_residual: data_out_residual.into(),
            data_in_residual: data_in_residual.into(),
            sense_len: u32::try_from(sense.len()).unwrap_or(u32::MAX).into(),
            response_len: u32::try_from(response_data.len()).unwrap_or(u32::MAX).into(),
        };
        fixed.copy_from_slice(raw.as_bytes());
        response_place.copy_from_slice(response_data);
        sense_place.copy_from_slice(sense);
        Ok(len)
    }
}

fn as_len(field: U32) -> usize {
    usize::try_from(field.get()).unwrap_or(usize::MAX)
}

fn residual(flags: u8, under: u8, over: u8, count: U32) -> Result<Option<Residual>, WireError> {
    match (flags & under != 0, flags & over != 0) {
        (false, false) => Ok(None),
        (true, false) => Ok(Some(Residual::Under(count.get()))),
        (false, true) => Ok(Some(Residual::Over(count.get()))),
        (true, true) => Err(WireError::Invalid {
            what: WHAT,
            field: "flags",
            value: u64::from(flags),
            why: "overflow and underflow of the same buffer at once",
        }),
    }
}
