//! SRP_CRED_REQ and SRP_CRED_RSP (SRP r16a 6.10, 6.11): the target changes the request limit on its own.

use super::layout::{self, Short};
use super::{WireError, opcode};

const REQUEST: &str = "SRP_CRED_REQ";
const RESPONSE: &str = "SRP_CRED_RSP";

/// SRP_CRED_REQ; to be answered by a [`CreditResponse`] with the same tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CreditRequest {
    /// The target's tag.
    pub tag: u64,
    /// Change of the request limit.
    pub delta: i32,
}

impl CreditRequest {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<Short>(iu, REQUEST, opcode::CREDIT_REQUEST)?;
        Ok(Self {
            tag: raw.tag.get(),
            delta: raw.argument.get(),
        })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        layout::emit(&Short::new(opcode::CREDIT_REQUEST, self.delta, self.tag), buf, REQUEST)
    }
}

/// SRP_CRED_RSP; takes no credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CreditResponse {
    /// The tag of the request.
    pub tag: u64,
}

impl CreditResponse {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads a received IU.
    ///
    /// # Errors
    /// When it is too short.
    pub fn parse(iu: &[u8]) -> Result<Self, WireError> {
        let (raw, _) = layout::view::<Short>(iu, RESPONSE, opcode::CREDIT_RESPONSE)?;
        Ok(Self { tag: raw.tag.get() })
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// # Errors
    /// When `buf` is too short.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        layout::emit(&Short::new(opcode::CREDIT_RESPONSE, 0, self.tag), buf, RESPONSE)
    }
}
