//! SRP_LOGIN_RSP (SRP r16a 6.3).

use zerocopy::byteorder::big_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IMMEDIATE, MULTI_CHANNEL};
use crate::wire::{WireError, layout, opcode};

const RESPONSE: &str = "SRP_LOGIN_RSP";

/// What became of the channels there were (SRP r16a 6.3, MULTI-CHANNEL RESULT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MultiChannelResult {
    /// There were none.
    #[default]
    NoneExisted,
    /// They were ended.
    Terminated,
    /// They stay.
    Maintained,
    /// The reserved value 3; some targets do not clear what they do not define.
    Reserved,
}

/// SRP_LOGIN_RSP: the channel is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginResponse {
    /// The tag of the request.
    pub tag: u64,
    /// The initial request limit: how many requests may be outstanding.
    pub request_limit_delta: i32,
    /// Longest IU, in bytes, the target takes.
    pub max_it_iu_len: u32,
    /// Longest IU, in bytes, the target sends.
    pub max_ti_iu_len: u32,
    /// Supported buffer formats.
    pub buffer_formats: u16,
    /// What became of the channels there were.
    pub multichannel: MultiChannelResult,
    /// The target takes immediate data (SRP-2). The bit is reserved in SRP r16a and old targets leave garbage
    /// there: it says something only if the request asked.
    pub immediate_data: bool,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawResponse {
    opcode: u8,
    reserved1: [u8; 3],
    request_limit_delta: I32,
    tag: U64,
    max_it_iu_len: U32,
    max_ti_iu_len: U32,
    buffer_formats: U16,
    flags: u8,
    reserved27: [u8; 25],
}

const _: () = assert!(size_of::<RawResponse>() == LoginResponse::LEN);

impl LoginResponse {
    /// Bytes on the wire.
    pub const LEN: usize = 52;

    /// The private data of a CM REP.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let result = match self.multichannel {
            MultiChannelResult::NoneExisted => 0,
            MultiChannelResult::Terminated => 1,
            MultiChannelResult::Maintained => 2,
            MultiChannelResult::Reserved => 3,
        };
        let immediate = if self.immediate_data { IMMEDIATE } else { 0 };
        let raw = RawResponse {
            opcode: opcode::LOGIN_RESPONSE,
            reserved1: [0; 3],
            request_limit_delta: self.request_limit_delta.into(),
            tag: self.tag.into(),
            max_it_iu_len: self.max_it_iu_len.into(),
            max_ti_iu_len: self.max_ti_iu_len.into(),
            buffer_formats: self.buffer_formats.into(),
            flags: result | immediate,
            reserved27: [0; 25],
        };
        zerocopy::transmute!(raw)
    }

    /// Reads the private data of a CM REP, which may be padded. Reserved fields are not looked at.
    ///
    /// # Errors
    /// When the data is shorter or is no LOGIN_RSP.
    pub fn parse(private_data: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<RawResponse>(private_data, RESPONSE, opcode::LOGIN_RESPONSE)?;
        Ok(Self {
            tag: raw.tag.get(),
            request_limit_delta: raw.request_limit_delta.get(),
            max_it_iu_len: raw.max_it_iu_len.get(),
            max_ti_iu_len: raw.max_ti_iu_len.get(),
            buffer_formats: raw.buffer_formats.get(),
            multichannel: match raw.flags & MULTI_CHANNEL {
                0 => MultiChannelResult::NoneExisted,
                1 => MultiChannelResult::Terminated,
                2 => MultiChannelResult::Maintained,
                _ => MultiChannelResult::Reserved,
            },
            immediate_data: raw.flags & IMMEDIATE != 0,
        })
    }
}
