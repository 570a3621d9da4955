//! SRP information units (SRP r16a clause 6, with the immediate data of SRP-2).
//!
//! One type per IU. What a peer sent is parsed with every length checked against what was received, whatever
//! the bytes; what is sent is written into a slot the caller owns. Nothing here allocates.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod async_event;
pub mod command;
pub mod credit;
pub mod login;
pub mod logout;
pub mod response;
pub mod task_management;

mod error;
mod layout;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use async_event::{AsyncEvent, AsyncEventResponse};
pub use command::{Command, Data, Descriptors, IMMEDIATE_DATA_OFFSET, TaskAttribute};
pub use credit::{CreditRequest, CreditResponse};
pub use error::WireError;
pub use login::{LoginReject, LoginRejectReason, LoginRequest, LoginResponse, MultiChannel, MultiChannelResult};
pub use logout::{InitiatorLogout, LogoutReason, TargetLogout};
pub use response::{Residual, Response};
pub use task_management::{TaskFunction, TaskManagement, TaskResponse};

/// A direct memory descriptor (SRP r16a 5.6.2): where the target reads or writes data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryDescriptor {
    /// Virtual address.
    pub address: u64,
    /// Memory handle (the R_Key).
    pub key: u32,
    /// Length in bytes.
    pub len: u32,
}

/// IU type codes (SRP r16a clause 6): byte 0 of every IU.
pub mod opcode {
    /// SRP_LOGIN_REQ, initiator to target.
    pub const LOGIN_REQUEST: u8 = 0x00;
    /// SRP_TSK_MGMT, initiator to target.
    pub const TASK_MANAGEMENT: u8 = 0x01;
    /// SRP_CMD, initiator to target.
    pub const COMMAND: u8 = 0x02;
    /// SRP_I_LOGOUT, initiator to target.
    pub const INITIATOR_LOGOUT: u8 = 0x03;
    /// SRP_CRED_RSP, initiator to target.
    pub const CREDIT_RESPONSE: u8 = 0x41;
    /// SRP_AER_RSP, initiator to target.
    pub const ASYNC_EVENT_RESPONSE: u8 = 0x42;
    /// SRP_T_LOGOUT, target to initiator.
    pub const TARGET_LOGOUT: u8 = 0x80;
    /// SRP_CRED_REQ, target to initiator.
    pub const CREDIT_REQUEST: u8 = 0x81;
    /// SRP_AER_REQ, target to initiator.
    pub const ASYNC_EVENT: u8 = 0x82;
    /// SRP_LOGIN_RSP, target to initiator.
    pub const LOGIN_RESPONSE: u8 = 0xc0;
    /// SRP_RSP, target to initiator.
    pub const RESPONSE: u8 = 0xc1;
    /// SRP_LOGIN_REJ, target to initiator.
    pub const LOGIN_REJECT: u8 = 0xc2;
}

/// What a target may send once the channel is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromTarget<'a> {
    /// A command or task management function is over.
    Response(Response<'a>),
    /// The target changes the request limit.
    CreditRequest(CreditRequest),
    /// The target reports an event of a logical unit.
    AsyncEvent(AsyncEvent<'a>),
    /// The target ends the channel.
    Logout(TargetLogout),
}

impl<'a> FromTarget<'a> {
    /// Reads one received IU; `iu` is exactly what was received.
    ///
    /// # Errors
    /// [`WireError::UnknownOpcode`] for an IU no target sends on an established channel, else as the IU's own parse.
    pub fn parse(iu: &'a [u8]) -> Result<Self, WireError> {
        match layout::first_byte(iu)? {
            opcode::RESPONSE => Response::parse(iu).map(Self::Response),
            opcode::CREDIT_REQUEST => CreditRequest::parse(iu).map(Self::CreditRequest),
            opcode::ASYNC_EVENT => AsyncEvent::parse(iu).map(Self::AsyncEvent),
            opcode::TARGET_LOGOUT => TargetLogout::parse(iu).map(Self::Logout),
            other => Err(WireError::UnknownOpcode(other)),
        }
    }
}

/// What an initiator may send once the channel is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromInitiator<'a> {
    /// A SCSI command.
    Command(Command<'a>),
    /// A task management function.
    TaskManagement(TaskManagement),
    /// The initiator ends the channel.
    Logout(InitiatorLogout),
    /// The answer to a [`CreditRequest`].
    CreditResponse(CreditResponse),
    /// The answer to an [`AsyncEvent`].
    AsyncEventResponse(AsyncEventResponse),
}

impl<'a> FromInitiator<'a> {
    /// Reads one received IU; `iu` is exactly what was received.
    ///
    /// # Errors
    /// [`WireError::UnknownOpcode`] for an IU no initiator sends on an established channel, else as the IU's own
    /// parse.
    pub fn parse(iu: &'a [u8]) -> Result<Self, WireError> {
        match layout::first_byte(iu)? {
            opcode::COMMAND => Command::parse(iu).map(Self::Command),
            opcode::TASK_MANAGEMENT => TaskManagement::parse(iu).map(Self::TaskManagement),
            opcode::INITIATOR_LOGOUT => InitiatorLogout::parse(iu).map(Self::Logout),
            opcode::CREDIT_RESPONSE => CreditResponse::parse(iu).map(Self::CreditResponse),
            opcode::ASYNC_EVENT_RESPONSE => AsyncEventResponse::parse(iu).map(Self::AsyncEventResponse),
            other => Err(WireError::UnknownOpcode(other)),
        }
    }
}
