//! SRP_I_LOGOUT and SRP_T_LOGOUT (SRP r16a 6.5, 6.6): either side ends the channel.

use std::fmt;

use super::layout::{self, Short};
use super::{WireError, opcode};

const INITIATOR: &str = "SRP_I_LOGOUT";
const TARGET: &str = "SRP_T_LOGOUT";

/// SRP_I_LOGOUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InitiatorLogout {
    /// The initiator's tag.
    pub tag: u64,
}

impl InitiatorLogout {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<Short>(iu, INITIATOR, opcode::INITIATOR_LOGOUT)?;
        Ok(Self { tag: raw.tag.get() })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        layout::emit(&Short::new(opcode::INITIATOR_LOGOUT, 0, self.tag), buf, INITIATOR)
    }
}

/// The reason code of an SRP_T_LOGOUT. For people only: implementations disagree on the codes above 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogoutReason(pub u32);

impl fmt::Display for LogoutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no reason given",
            1 => "the channel was inactive",
            2 => "the target got an IU of an invalid type",
            3 => "the target got a response without a request",
            4 => "another login of this initiator port ended the channel",
            6 => "the target does not support the DATA-OUT descriptor format",
            7 => "the target does not support the DATA-IN descriptor format",
            8 => "the target got a wrong descriptor count or IU length",
            other => return write!(f, "unknown reason {other:#x}"),
        })
    }
}

/// SRP_T_LOGOUT; the disconnection follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetLogout {
    /// The target's tag.
    pub tag: u64,
    /// Why.
    pub reason: LogoutReason,
}

impl TargetLogout {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<Short>(iu, TARGET, opcode::TARGET_LOGOUT)?;
        let reason = LogoutReason(u32::from_be_bytes(raw.argument.to_bytes()));
        Ok(Self {
            tag: raw.tag.get(),
            reason,
        })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let reason = i32::from_be_bytes(self.reason.0.to_be_bytes());
        layout::emit(&Short::new(opcode::TARGET_LOGOUT, reason, self.tag), buf, TARGET)
    }
}
