//! SRP_LOGIN_REQ (SRP r16a 6.2), in the form of either connection manager.

use srp_addressing::PortId;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IMMEDIATE, MULTI_CHANNEL};
use crate::wire::{WireError, layout, opcode};

const REQUEST: &str = "SRP_LOGIN_REQ";
const REQUEST_RDMA_CM: &str = "SRP_LOGIN_REQ (RDMA/CM form)";

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
    /// Required buffer formats: [`FORMAT_DIRECT`](super::FORMAT_DIRECT), [`FORMAT_INDIRECT`](super::FORMAT_INDIRECT).
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
