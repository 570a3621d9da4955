//! Login: SRP_LOGIN_REQ, SRP_LOGIN_RSP, SRP_LOGIN_REJ (SRP r16a 6.2 to 6.4), the private data of the CM.

use std::fmt;

use srp_addressing::PortId;
use zerocopy::byteorder::big_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{WireError, layout, opcode};

/// Buffer format bit: direct data buffer descriptors.
pub const FORMAT_DIRECT: u16 = 0x0002;
/// Buffer format bit: indirect data buffer descriptors.
pub const FORMAT_INDIRECT: u16 = 0x0004;

const MULTI_CHANNEL: u8 = 0x03;
const IMMEDIATE: u8 = 0x80;

const REQUEST: &str = "SRP_LOGIN_REQ";
const REQUEST_RDMA_CM: &str = "SRP_LOGIN_REQ (RDMA/CM form)";
const RESPONSE: &str = "SRP_LOGIN_RSP";
const REJECT: &str = "SRP_LOGIN_REJ";

/// What becomes of the channels this initiator port already has to the target port (SRP r16a 6.2, MULTI-CHANNEL
/// ACTION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MultiChannel {
    /// They are ended.
    #[default]
    Single,
    /// They stay; this channel joins them.
    Multi,
}

/// SRP_LOGIN_REQ: asks for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginRequest {
    /// Echoed by the answer.
    pub tag: u64,
    /// Longest IU, in bytes, the initiator means to send; at least 64.
    pub max_it_iu_len: u32,
    /// Required buffer formats: [`FORMAT_DIRECT`], [`FORMAT_INDIRECT`].
    pub buffer_formats: u16,
    /// What becomes of existing channels.
    pub multichannel: MultiChannel,
    /// Asks for immediate data, which would begin at this byte of a command IU (SRP-2).
    pub immediate_data_offset: Option<u16>,
    /// The initiator port identifier.
    pub initiator_port: PortId,
    /// The target port identifier.
    pub target_port: PortId,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRequest {
    opcode: u8,
    reserved1: [u8; 7],
    tag: U64,
    max_it_iu_len: U32,
    reserved20: [u8; 4],
    buffer_formats: U16,
    flags: u8,
    reserved27: u8,
    immediate_data_offset: U16,
    reserved30: [u8; 2],
    initiator_port: [u8; 16],
    target_port: [u8; 16],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRequestRdmaCm {
    tag: U64,
    buffer_formats: U16,
    flags: u8,
    opcode: u8,
    max_it_iu_len: U32,
    initiator_port: [u8; 16],
    target_port: [u8; 16],
    immediate_data_offset: U16,
    reserved50: [u8; 6],
}

const _: () = assert!(size_of::<RawRequest>() == LoginRequest::LEN);
const _: () = assert!(size_of::<RawRequestRdmaCm>() == LoginRequest::LEN_RDMA_CM);

impl LoginRequest {
    /// Bytes of the form native InfiniBand CM carries.
    pub const LEN: usize = 64;
    /// Bytes of the form the RDMA/CM carries, which leaves less room.
    pub const LEN_RDMA_CM: usize = 56;

    fn flags(&self) -> u8 {
        let action = match self.multichannel {
            MultiChannel::Single => 0,
            MultiChannel::Multi => 1,
        };
        action
            | if self.immediate_data_offset.is_some() {
                IMMEDIATE
            } else {
                0
            }
    }

    /// The 64-byte form, for the InfiniBand CM.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let raw = RawRequest {
            opcode: opcode::LOGIN_REQUEST,
            reserved1: [0; 7],
            tag: self.tag.into(),
            max_it_iu_len: self.max_it_iu_len.into(),
            reserved20: [0; 4],
            buffer_formats: self.buffer_formats.into(),
            flags: self.flags(),
            reserved27: 0,
            immediate_data_offset: self.immediate_data_offset.unwrap_or(0).into(),
            reserved30: [0; 2],
            initiator_port: self.initiator_port.0,
            target_port: self.target_port.0,
        };
        zerocopy::transmute!(raw)
    }

    /// The compact 56-byte form, for the RDMA/CM.
    #[must_use]
    pub fn encode_rdma_cm(&self) -> [u8; Self::LEN_RDMA_CM] {
        let raw = RawRequestRdmaCm {
            tag: self.tag.into(),
            buffer_formats: self.buffer_formats.into(),
            flags: self.flags(),
            opcode: opcode::LOGIN_REQUEST,
            max_it_iu_len: self.max_it_iu_len.into(),
            initiator_port: self.initiator_port.0,
            target_port: self.target_port.0,
            immediate_data_offset: self.immediate_data_offset.unwrap_or(0).into(),
            reserved50: [0; 6],
        };
        zerocopy::transmute!(raw)
    }

    /// Reads the 64-byte form from CM private data, which may be padded.
    ///
    /// # Errors
    /// When the data is shorter, is no LOGIN_REQ, or asks for a reserved multi-channel action.
    pub fn parse(private_data: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<RawRequest>(private_data, REQUEST, opcode::LOGIN_REQUEST)?;
        Ok(Self {
            tag: raw.tag.get(),
            max_it_iu_len: raw.max_it_iu_len.get(),
            buffer_formats: raw.buffer_formats.get(),
            multichannel: multichannel(raw.flags)?,
            immediate_data_offset: immediate(raw.flags, raw.immediate_data_offset),
            initiator_port: PortId(raw.initiator_port),
            target_port: PortId(raw.target_port),
        })
    }

    /// Reads the 56-byte form from RDMA/CM private data, which may be padded.
    ///
    /// # Errors
    /// As [`LoginRequest::parse`].
    pub fn parse_rdma_cm(private_data: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::prefix::<RawRequestRdmaCm>(private_data, REQUEST_RDMA_CM)?;
        if raw.opcode != opcode::LOGIN_REQUEST {
            let expected = opcode::LOGIN_REQUEST;
            return Err(WireError::Opcode {
                what: REQUEST_RDMA_CM,
                expected,
                found: raw.opcode,
            });
        }
        Ok(Self {
            tag: raw.tag.get(),
            max_it_iu_len: raw.max_it_iu_len.get(),
            buffer_formats: raw.buffer_formats.get(),
            multichannel: multichannel(raw.flags)?,
            immediate_data_offset: immediate(raw.flags, raw.immediate_data_offset),
            initiator_port: PortId(raw.initiator_port),
            target_port: PortId(raw.target_port),
        })
    }
}

fn multichannel(flags: u8) -> Result<MultiChannel, WireError> {
    match flags & MULTI_CHANNEL {
        0 => Ok(MultiChannel::Single),
        1 => Ok(MultiChannel::Multi),
        other => Err(WireError::Invalid {
            what: REQUEST,
            field: "multi-channel action",
            value: u64::from(other),
            why: "which is reserved",
        }),
    }
}

fn immediate(flags: u8, offset: U16) -> Option<u16> {
    (flags & IMMEDIATE != 0).then(|| offset.get())
}

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

/// Why a target refused a login (SRP r16a table 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginRejectReason {
    /// 0x00010000.
    UnableToEstablish,
    /// 0x00010001.
    InsufficientResources,
    /// 0x00010002.
    IuTooLong,
    /// 0x00010003.
    NoNexus,
    /// 0x00010004.
    UnsupportedFormat,
    /// 0x00010005.
    MultiChannelUnsupported,
    /// 0x00010006.
    ChannelLimit,
    /// Any other value.
    Other(u32),
}

impl LoginRejectReason {
    /// The reason a code stands for.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            0x0001_0000 => Self::UnableToEstablish,
            0x0001_0001 => Self::InsufficientResources,
            0x0001_0002 => Self::IuTooLong,
            0x0001_0003 => Self::NoNexus,
            0x0001_0004 => Self::UnsupportedFormat,
            0x0001_0005 => Self::MultiChannelUnsupported,
            0x0001_0006 => Self::ChannelLimit,
            other => Self::Other(other),
        }
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::UnableToEstablish => 0x0001_0000,
            Self::InsufficientResources => 0x0001_0001,
            Self::IuTooLong => 0x0001_0002,
            Self::NoNexus => 0x0001_0003,
            Self::UnsupportedFormat => 0x0001_0004,
            Self::MultiChannelUnsupported => 0x0001_0005,
            Self::ChannelLimit => 0x0001_0006,
            Self::Other(code) => code,
        }
    }

    /// What an administrator can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::UnableToEstablish => {
                "look at the target's log; some targets answer this when the IU length asked for is too small"
            }
            Self::InsufficientResources => "check that the target port is enabled, or lower ch_count and queue_size",
            Self::IuTooLong => "lower max_it_iu_size to what the target takes (discover shows it)",
            Self::NoNexus => {
                "check id_ext and ioc_guid against what discover shows; io_class must fit the target's revision"
            }
            Self::UnsupportedFormat => "the target lacks direct or indirect descriptors and cannot be used",
            Self::MultiChannelUnsupported => "set ch_count=1",
            Self::ChannelLimit => {
                "add this initiator port to the target's ACL, or lower ch_count if the target limits channels"
            }
            Self::Other(_) => "look at the target's log",
        }
    }
}

impl fmt::Display for LoginRejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnableToEstablish => "unable to establish an RDMA channel, no reason given",
            Self::InsufficientResources => "insufficient resources for an RDMA channel",
            Self::IuTooLong => "requested initiator-to-target IU length too large",
            Self::NoNexus => "unable to associate the channel with the I_T nexus (wrong target port id)",
            Self::UnsupportedFormat => "unsupported data buffer descriptor format",
            Self::MultiChannelUnsupported => "no multiple channels per I_T nexus supported",
            Self::ChannelLimit => "channel limit reached for this initiator, or initiator not admitted",
            Self::Other(code) => return write!(f, "unknown reason {code:#010x}"),
        })
    }
}

/// SRP_LOGIN_REJ: no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginReject {
    /// The tag of the request.
    pub tag: u64,
    /// Why not.
    pub reason: LoginRejectReason,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawReject {
    opcode: u8,
    reserved1: [u8; 3],
    reason: U32,
    tag: U64,
    reserved16: [u8; 8],
    buffer_formats: U16,
    reserved26: [u8; 6],
}

const _: () = assert!(size_of::<RawReject>() == LoginReject::LEN);

impl LoginReject {
    /// Bytes on the wire.
    pub const LEN: usize = 32;

    /// The private data of a CM REJ.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let raw = RawReject {
            opcode: opcode::LOGIN_REJECT,
            reserved1: [0; 3],
            reason: self.reason.code().into(),
            tag: self.tag.into(),
            reserved16: [0; 8],
            buffer_formats: (FORMAT_DIRECT | FORMAT_INDIRECT).into(),
            reserved26: [0; 6],
        };
        zerocopy::transmute!(raw)
    }

    /// Reads the private data of a CM REJ, which may be padded.
    ///
    /// # Errors
    /// When the data is shorter or is no LOGIN_REJ.
    pub fn parse(private_data: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<RawReject>(private_data, REJECT, opcode::LOGIN_REJECT)?;
        Ok(Self {
            tag: raw.tag.get(),
            reason: LoginRejectReason::from_code(raw.reason.get()),
        })
    }
}
