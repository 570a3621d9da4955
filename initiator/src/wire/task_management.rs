//! SRP_TSK_MGMT (SRP r16a 6.7) and what its response says.

use std::fmt;

use zerocopy::byteorder::big_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{WireError, layout, opcode};
use crate::scsi::Lun;

const WHAT: &str = "SRP_TSK_MGMT";

/// A task management function (SAM-5 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskFunction {
    /// 0x01: end one command.
    AbortTask,
    /// 0x02: end this initiator's commands on the logical unit.
    AbortTaskSet,
    /// 0x04: end everybody's commands on the logical unit.
    ClearTaskSet,
    /// 0x08: reset the logical unit, for everybody.
    LogicalUnitReset,
    /// 0x40: clear an auto contingent allegiance.
    ClearAca,
}

impl TaskFunction {
    const fn code(self) -> u8 {
        match self {
            Self::AbortTask => 0x01,
            Self::AbortTaskSet => 0x02,
            Self::ClearTaskSet => 0x04,
            Self::LogicalUnitReset => 0x08,
            Self::ClearAca => 0x40,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::AbortTask),
            0x02 => Some(Self::AbortTaskSet),
            0x04 => Some(Self::ClearTaskSet),
            0x08 => Some(Self::LogicalUnitReset),
            0x40 => Some(Self::ClearAca),
            _ => None,
        }
    }
}

impl fmt::Display for TaskFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AbortTask => "ABORT TASK",
            Self::AbortTaskSet => "ABORT TASK SET",
            Self::ClearTaskSet => "CLEAR TASK SET",
            Self::LogicalUnitReset => "LOGICAL UNIT RESET",
            Self::ClearAca => "CLEAR ACA",
        })
    }
}

/// SRP_TSK_MGMT: a task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskManagement {
    /// Echoed by the response; unique among what is outstanding on the channel, commands included.
    pub tag: u64,
    /// The logical unit.
    pub lun: Lun,
    /// What to do.
    pub function: TaskFunction,
    /// The command to end; used by [`TaskFunction::AbortTask`] only.
    pub task_tag: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTaskManagement {
    opcode: u8,
    solicited: u8,
    reserved2: [u8; 6],
    tag: U64,
    reserved16: [u8; 4],
    lun: U64,
    reserved28: [u8; 2],
    function: u8,
    reserved31: u8,
    task_tag: U64,
    reserved40: [u8; 8],
}

const _: () = assert!(size_of::<RawTaskManagement>() == TaskManagement::LEN);

impl TaskManagement {
    /// Bytes on the wire.
    pub const LEN: usize = 48;

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let raw = RawTaskManagement {
            opcode: opcode::TASK_MANAGEMENT,
            solicited: 0,
            reserved2: [0; 6],
            tag: self.tag.into(),
            reserved16: [0; 4],
            lun: self.lun.0.into(),
            reserved28: [0; 2],
            function: self.function.code(),
            reserved31: 0,
            task_tag: self.task_tag.into(),
            reserved40: [0; 8],
        };
        layout::emit(&raw, buf, WHAT)
    }

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short or asks for an unknown function.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<RawTaskManagement>(iu, WHAT, opcode::TASK_MANAGEMENT)?;
        let function = TaskFunction::from_code(raw.function).ok_or(WireError::Invalid {
            what: WHAT,
            field: "function",
            value: u64::from(raw.function),
            why: "which is no task management function",
        })?;
        Ok(Self {
            tag: raw.tag.get(),
            lun: Lun(raw.lun.get()),
            function,
            task_tag: raw.task_tag.get(),
        })
    }
}

/// What the response code of an SRP_RSP says of a task management function (SRP r16a 6.9).
///
/// Only [`TaskResponse::Complete`] proves that the commands concerned will not touch memory or medium any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskResponse {
    /// 00h: done.
    Complete,
    /// 02h: a field of the request was refused.
    InvalidFields,
    /// 04h: the target does not have this function.
    NotSupported,
    /// 05h: failed; targets also say so when the command no longer exists.
    Failed,
    /// Any other code.
    Other(u8),
    /// The response carries no response data.
    Missing,
}

impl TaskResponse {
    /// From [`super::Response::response_code`].
    #[must_use]
    pub const fn from_code(code: Option<u8>) -> Self {
        match code {
            Some(0x00) => Self::Complete,
            Some(0x02) => Self::InvalidFields,
            Some(0x04) => Self::NotSupported,
            Some(0x05) => Self::Failed,
            Some(other) => Self::Other(other),
            None => Self::Missing,
        }
    }

    /// The response code, `None` for [`TaskResponse::Missing`].
    #[must_use]
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::Complete => Some(0x00),
            Self::InvalidFields => Some(0x02),
            Self::NotSupported => Some(0x04),
            Self::Failed => Some(0x05),
            Self::Other(code) => Some(code),
            Self::Missing => None,
        }
    }
}

impl fmt::Display for TaskResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::InvalidFields => "request fields invalid",
            Self::NotSupported => "not supported by the target",
            Self::Failed => "failed, or the command no longer exists",
            Self::Other(code) => return write!(f, "unknown response code {code:#04x}"),
            Self::Missing => "answered without a response code",
        })
    }
}
