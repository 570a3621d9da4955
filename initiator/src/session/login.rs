//! Logging in: what is asked of the target for each channel, and what its answers mean.
//!
//! The first channel logs in with SINGLE, which ends what an earlier life of this initiator left at the
//! target; the others join with MULTI. A target that grants fewer channels than asked is served with those.

use srp_addressing::PortId;

use crate::wire::IMMEDIATE_DATA_OFFSET;
use crate::wire::WireError;
use crate::wire::login::{LoginReject, LoginRejectReason, LoginRequest, LoginResponse, MultiChannel};

/// Buffer formats asked for: direct and indirect descriptors (SRP r16a table 9).
const BUFFER_FORMATS: u16 = 0x0006;
/// SRP_CMD with a 16-byte CDB, 16 bytes of additional CDB, an indirect table header: what any command fits in
/// beside its descriptors.
const COMMAND_HEADER: u32 = 48 + 16 + 20;
/// The longest receive IU that is believed; targets answer with at most a few KiB.
const MAX_TARGET_IU: u32 = 64 * 1024;
/// The shortest: an SRP_RSP without data (SRP r16a 6.9), raised by what IUs to the initiator must hold (6.4).
const MIN_TARGET_IU: u32 = 36;

/// Who logs in to whom, and with which wishes.
#[derive(Clone, Debug)]
pub struct LoginParameters {
    /// This side's port id.
    pub initiator_port: PortId,
    /// The target's port id.
    pub target_port: PortId,
    /// Descriptors a command IU shall have room for (`cmd_sg_entries`).
    pub descriptors: u16,
    /// Cap on the requested IU length (`max_it_iu_size`), for targets that refuse long ones.
    pub max_it_iu_len: Option<u32>,
    /// Payload bytes of the largest write to send within its command; 0 asks for no immediate data.
    pub immediate_data: u32,
}

impl LoginParameters {
    /// Bytes of a command IU with as many descriptors as are wanted.
    fn described_len(&self) -> u32 {
        COMMAND_HEADER + 16 * u32::from(self.descriptors)
    }

    /// Bytes a send slot needs for IUs of at most the length that was granted. Data within a command is not in its slot.
    #[must_use]
    pub fn send_slot_len(&self, granted: &Granted) -> u32 {
        granted.max_it_iu_len.min(self.described_len())
    }

    /// The length of command IUs to ask for.
    #[must_use]
    pub fn requested_iu_len(&self) -> u32 {
        let described = self.described_len();
        let immediate = match self.immediate_data {
            0 => 0,
            len => IMMEDIATE_DATA_OFFSET as u32 + len,
        };
        let wanted = described.max(immediate);
        self.max_it_iu_len.map_or(wanted, |cap| wanted.min(cap)).max(64)
    }

    /// The login request of one channel.
    #[must_use]
    pub fn request(&self, multichannel: MultiChannel) -> LoginRequest {
        LoginRequest {
            tag: 0,
            max_it_iu_len: self.requested_iu_len(),
            buffer_formats: BUFFER_FORMATS,
            multichannel,
            immediate_data_offset: (self.immediate_data > 0).then_some(IMMEDIATE_DATA_OFFSET as u16),
            initiator_port: self.initiator_port,
            target_port: self.target_port,
        }
    }

    /// Judges the private data of an accepted connection.
    ///
    /// # Errors
    /// When it is no LOGIN_RSP, or one that cannot be worked with.
    pub fn accept(&self, private_data: &[u8]) -> Result<Granted, LoginError> {
        let response = LoginResponse::parse(private_data).map_err(LoginError::Malformed)?;
        if response.request_limit_delta < 2 {
            return Err(LoginError::NoCredit {
                granted: response.request_limit_delta,
            });
        }
        let requested = self.requested_iu_len();
        if response.max_it_iu_len < 64 {
            return Err(LoginError::IuLength {
                which: "initiator to target",
                granted: response.max_it_iu_len,
            });
        }
        if !(MIN_TARGET_IU..=MAX_TARGET_IU).contains(&response.max_ti_iu_len) {
            return Err(LoginError::IuLength {
                which: "target to initiator",
                granted: response.max_ti_iu_len,
            });
        }
        let max_it_iu_len = response.max_it_iu_len.min(requested);
        // Some targets leave the bit set by accident: it counts only as an answer to our wish. And what was granted
        // of the IU's length may be less than was asked for.
        let immediate_data = match response.immediate_data {
            true => max_it_iu_len.saturating_sub(IMMEDIATE_DATA_OFFSET as u32),
            false => 0,
        };
        Ok(Granted {
            request_limit: response.request_limit_delta,
            max_it_iu_len,
            max_ti_iu_len: response.max_ti_iu_len,
            immediate_data: immediate_data.min(self.immediate_data),
        })
    }
}

/// What one channel was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Requests the target takes at once.
    pub request_limit: i32,
    /// Longest IU we may send, in bytes.
    pub max_it_iu_len: u32,
    /// Longest IU the target may send, in bytes.
    pub max_ti_iu_len: u32,
    /// Writes of up to so many bytes may carry their data in the command IU; 0: none may.
    pub immediate_data: u32,
}

/// Why a login did not give a channel, as far as SRP is concerned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// SRP_LOGIN_REJ.
    #[error("the target rejected the login: {0}")]
    Rejected(LoginRejectReason),
    /// The connection was accepted with something that is not a login response.
    #[error("the peer accepted the connection but did not answer as an SRP target: {0}")]
    Malformed(#[source] WireError),
    /// Fewer than two requests: one command and one task management function.
    #[error("the target granted {granted} requests; at least 2 are needed (one is kept for task management)")]
    NoCredit {
        /// What was granted.
        granted: i32,
    },
    /// An IU length outside of what the standard allows.
    #[error("the target set the {which} IU length to {granted} bytes, which cannot be worked with")]
    IuLength {
        /// The direction.
        which: &'static str,
        /// What was granted.
        granted: u32,
    },
}

/// Reads the private data of a connection refused by the consumer (CM reason 28).
///
/// # Errors
/// When it is no SRP_LOGIN_REJ.
pub fn reject_reason(private_data: &[u8]) -> Result<LoginRejectReason, WireError> {
    LoginReject::parse(private_data).map(|reject| reject.reason)
}

/// The order of a session's logins.
#[derive(Debug)]
pub struct ChannelSequence {
    wanted: u16,
    connected: u16,
    over: bool,
}

impl ChannelSequence {
    /// For a session of at most `wanted` channels (at least one).
    #[must_use]
    pub fn new(wanted: u16) -> Self {
        Self {
            wanted: wanted.max(1),
            connected: 0,
            over: false,
        }
    }

    /// How the next channel logs in; nothing when the session is complete.
    #[must_use]
    pub fn next(&self) -> Option<MultiChannel> {
        if self.over || self.connected == self.wanted {
            return None;
        }
        Some(if self.connected == 0 {
            MultiChannel::Single
        } else {
            MultiChannel::Multi
        })
    }

    /// A channel logged in.
    pub fn connected(&mut self) {
        self.connected += 1;
    }

    /// A channel was refused. True when the session goes on with the channels it has.
    pub fn refused(&mut self) -> bool {
        self.over = true;
        self.connected > 0
    }

    /// Channels logged in so far.
    #[must_use]
    pub fn channels(&self) -> u16 {
        self.connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> LoginParameters {
        LoginParameters {
            initiator_port: PortId([1; 16]),
            target_port: PortId([2; 16]),
            descriptors: 12,
            max_it_iu_len: None,
            immediate_data: 8192,
        }
    }

    fn response() -> LoginResponse {
        LoginResponse {
            tag: 0,
            request_limit_delta: 128,
            max_it_iu_len: 8276,
            max_ti_iu_len: 8260,
            buffer_formats: 6,
            multichannel: crate::wire::login::MultiChannelResult::Terminated,
            immediate_data: true,
        }
    }

    #[test]
    fn iu_lengths_asked_for_are_the_kernels() {
        let mut p = parameters();
        assert_eq!(p.requested_iu_len(), 8260);
        p.immediate_data = 0;
        assert_eq!(p.requested_iu_len(), 276);
        p.descriptors = 255;
        assert_eq!(p.requested_iu_len(), 4164);
        p.max_it_iu_len = Some(996);
        assert_eq!(p.requested_iu_len(), 996);
    }

    #[test]
    fn send_slots_hold_what_is_wanted_and_granted() {
        for (descriptors, granted, len) in [(12, 8260, 276), (255, 8260, 4164), (255, 996, 996), (1, 64, 64)] {
            let p = LoginParameters {
                descriptors,
                ..parameters()
            };
            let granted = Granted {
                max_it_iu_len: granted,
                ..p.accept(&response().encode()).expect("valid")
            };
            assert_eq!(p.send_slot_len(&granted), len);
        }
    }

    #[test]
    fn a_grant_is_limited_to_the_request() {
        let granted = parameters().accept(&response().encode()).expect("valid");
        let want = Granted {
            request_limit: 128,
            max_it_iu_len: 8260,
            max_ti_iu_len: 8260,
            immediate_data: 8192,
        };
        assert_eq!(granted, want);
    }

    #[test]
    fn immediate_data_nobody_asked_for_is_not_used() {
        let mut p = parameters();
        p.immediate_data = 0;
        let granted = p.accept(&response().encode()).expect("valid");
        assert_eq!(granted.immediate_data, 0);
    }

    #[test]
    fn immediate_data_fits_the_iu_as_granted() {
        let granted = |max_it_iu_len, immediate_data| {
            let response = LoginResponse {
                max_it_iu_len,
                immediate_data,
                ..response()
            };
            parameters().accept(&response.encode()).expect("valid").immediate_data
        };
        assert_eq!(granted(8260, true), 8192);
        assert_eq!(granted(100_000, true), 8192);
        assert_eq!(granted(996, true), 996 - 68);
        assert_eq!(granted(64, true), 0);
        assert_eq!(granted(8260, false), 0);
    }

    #[test]
    fn unusable_grants_are_refused() {
        let p = parameters();
        let answer = |change: fn(&mut LoginResponse)| {
            let mut r = response();
            change(&mut r);
            p.accept(&r.encode())
        };
        assert_eq!(
            answer(|r| r.request_limit_delta = 1),
            Err(LoginError::NoCredit { granted: 1 })
        );
        assert_eq!(
            answer(|r| r.request_limit_delta = -1),
            Err(LoginError::NoCredit { granted: -1 })
        );
        assert!(matches!(
            answer(|r| r.max_it_iu_len = 63),
            Err(LoginError::IuLength { .. })
        ));
        assert!(matches!(
            answer(|r| r.max_ti_iu_len = 0),
            Err(LoginError::IuLength { .. })
        ));
        assert!(matches!(
            answer(|r| r.max_ti_iu_len = u32::MAX),
            Err(LoginError::IuLength { .. })
        ));
        assert!(matches!(p.accept(b"HTTP/1.1 200 OK"), Err(LoginError::Malformed(_))));
    }

    #[test]
    fn fewer_channels_than_asked_is_a_session() {
        let mut sequence = ChannelSequence::new(4);
        assert_eq!(sequence.next(), Some(MultiChannel::Single));
        sequence.connected();
        assert_eq!(sequence.next(), Some(MultiChannel::Multi));
        sequence.connected();
        assert!(sequence.refused());
        assert_eq!((sequence.next(), sequence.channels()), (None, 2));
        assert!(!ChannelSequence::new(2).refused());
    }
}
