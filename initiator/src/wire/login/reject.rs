//! SRP_LOGIN_REJ (SRP r16a 6.4) and what its reasons mean.

use std::fmt;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{FORMAT_DIRECT, FORMAT_INDIRECT};
use crate::wire::{WireError, layout, opcode};

const REJECT: &str = "SRP_LOGIN_REJ";

/// Why a target refused a login (SRP r16a 6.4).
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
