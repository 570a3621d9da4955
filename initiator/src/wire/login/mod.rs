//! Login: SRP_LOGIN_REQ, SRP_LOGIN_RSP, SRP_LOGIN_REJ (SRP r16a 6.2 to 6.4), the private data of the CM.

mod reject;
mod request;
mod response;

pub use reject::{LoginReject, LoginRejectReason};
pub use request::{LoginRequest, MultiChannel};
pub use response::{LoginResponse, MultiChannelResult};

/// Buffer format bit: direct data buffer descriptors.
pub const FORMAT_DIRECT: u16 = 0x0002;
/// Buffer format bit: indirect data buffer descriptors.
pub const FORMAT_INDIRECT: u16 = 0x0004;

/// Flag bits of request and response: multi-channel action and result.
const MULTI_CHANNEL: u8 = 0x03;
/// Flag bit of request and response: immediate data (SRP-2).
const IMMEDIATE: u8 = 0x80;
