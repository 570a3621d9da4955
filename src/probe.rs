//! Whether a target takes RDMA/CM logins at an address and port: nothing in a fabric announces it.
//!
//! The probe is a login that any target must refuse before it gives away anything: it asks for information units of 0
//! bytes (SRP r16a 6.2: at least 64). It comes under a name of its own and ends nobody else's session.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use srp_addressing::{Guid, IoClass, PortId};
use srp_initiator::session::reject_reason;
use srp_initiator::wire::login::{FORMAT_DIRECT, FORMAT_INDIRECT, LoginRequest, MultiChannel};
use srp_verbs::cm::{Address, CmId, ConnectParams, Event, EventChannel, PortSpace, RejectReason};
use srp_verbs::completion_queue::CompletionQueue;
use srp_verbs::device::Devices;
use srp_verbs::memory::ProtectionDomain;
use srp_verbs::queue_pair::{QueuePair, QueuePairCaps};

/// One step of the way there.
const RESOLVE: Duration = Duration::from_secs(2);
/// Everything.
const LIMIT: Duration = Duration::from_secs(5);

/// Who is at an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An SRP target.
    Target,
    /// Somebody, but not with an answer of SRP.
    SomebodyElse,
    /// Nobody: the host says so itself.
    Nobody,
    /// It refuses, for a reason that tells neither.
    Refused(RejectReason),
    /// Nothing came back.
    Silence,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target => f.write_str("an SRP target answers"),
            Self::SomebodyElse => f.write_str("somebody answers, but not as SRP targets do (NVMe-oF or iSER?)"),
            Self::Nobody => f.write_str(
                "nobody listens: on LIO see /sys/kernel/config/target/srpt/discovery_auth/rdma_cm_port on the target",
            ),
            Self::Refused(reason) => write!(f, "the connection is refused: {}", reason.words()),
            Self::Silence => write!(
                f,
                "no answer within {} s: is the way there open (UDP port 4791)?",
                LIMIT.as_secs()
            ),
        }
    }
}

/// Why there was no probe.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProbeError(String);

impl ProbeError {
    fn of(error: &impl std::error::Error) -> Self {
        Self(error.to_string())
    }
}

/// Tries a login at `address` that is refused in any case.
///
/// # Errors
/// When this host cannot even try.
pub(crate) fn probe(address: SocketAddr, target_port: PortId) -> Result<Answer, ProbeError> {
    let deadline = Instant::now() + LIMIT;
    let channel = EventChannel::new().map_err(|error| ProbeError::of(&error))?;
    let mut id = channel
        .create_id(PortSpace::Ip)
        .map_err(|error| ProbeError::of(&error))?;
    id.resolve_address(None, &Address::Ip(address), RESOLVE)
        .map_err(|error| ProbeError::of(&error))?;
    match next(&channel, &id, deadline)? {
        Some(Event::AddressResolved) => {}
        other => return unresolved(address, other),
    }
    id.resolve_route(RESOLVE).map_err(|error| ProbeError::of(&error))?;
    match next(&channel, &id, deadline)? {
        Some(Event::RouteResolved) => {}
        other => return unresolved(address, other),
    }
    let device = Devices::new().of(&id).map_err(|error| ProbeError::of(&error))?;
    let domain = ProtectionDomain::new(&device).map_err(|error| ProbeError::of(&error))?;
    let queue = CompletionQueue::new(&device, 16, 0).map_err(|error| ProbeError::of(&error))?;
    let caps = QueuePairCaps {
        sends: 1,
        receives: 1,
        max_inline: 0,
    };
    let queue_pair = QueuePair::create(&id, &domain, &queue, caps).map_err(|error| ProbeError::of(&error))?;
    let login = login(target_port).encode_rdma_cm();
    id.connect(&queue_pair, &ConnectParams::new(&login))
        .map_err(|error| ProbeError::of(&error))?;
    Ok(match next(&channel, &id, deadline)? {
        Some(Event::Rejected {
            reason: RejectReason::Consumer,
            private_data,
        }) => match reject_reason(&private_data) {
            Ok(_) => Answer::Target,
            Err(_) => Answer::SomebodyElse,
        },
        Some(Event::Rejected {
            reason: RejectReason::InvalidServiceId,
            ..
        }) => Answer::Nobody,
        Some(Event::Rejected { reason, .. }) if reason.code() == -libc::ECONNREFUSED => Answer::Nobody,
        Some(Event::Rejected { reason, .. }) => Answer::Refused(reason),
        // A login that no target should take: it is given up with the id.
        Some(Event::ConnectResponse(_) | Event::Established(_)) => Answer::Target,
        _ => Answer::Silence,
    })
}

/// A login to be refused.
fn login(target_port: PortId) -> LoginRequest {
    LoginRequest {
        tag: 0,
        max_it_iu_len: 0,
        buffer_formats: FORMAT_DIRECT | FORMAT_INDIRECT,
        multichannel: MultiChannel::Multi,
        immediate_data_offset: None,
        // Nobody's name, so that no session of anybody is meant.
        initiator_port: PortId::new(RandomState::new().hash_one(0_u8), Guid(0), IoClass::Rev16a),
        target_port,
    }
}

fn unresolved(address: SocketAddr, event: Option<Event>) -> Result<Answer, ProbeError> {
    match event {
        Some(Event::AddressError { errno } | Event::RouteError { errno }) => {
            let cause = std::io::Error::from_raw_os_error(errno);
            Err(ProbeError(format!("{address} cannot be reached by RDMA: {cause}")))
        }
        _ => Ok(Answer::Silence),
    }
}

/// The next event of `id`; nothing when there is none in time.
fn next(channel: &EventChannel, id: &CmId, deadline: Instant) -> Result<Option<Event>, ProbeError> {
    loop {
        match channel.next_event().map_err(|error| ProbeError::of(&error))? {
            Some((key, event)) if key == id.key() => return Ok(Some(event)),
            Some(_) => continue,
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(channel, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ProbeError::of(&std::io::Error::from(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_one_that_must_be_refused() {
        let target = PortId::new(1, Guid(2), IoClass::Rev16a);
        let bytes = login(target).encode_rdma_cm();
        assert_eq!(bytes[12..16], [0; 4], "information units of 0 bytes");
        assert_eq!(bytes[10] & 3, 1, "beside what is there");
        assert_eq!(bytes[32..48], target.0);
        assert_eq!(bytes[24..32], [0; 8]);
    }
}
