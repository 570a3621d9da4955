//! Connection events, copied out of librdmacm as owned values.

use std::fmt;

use rdma_sys::{rdma_cm_event, rdma_cm_event_type as kind, rdma_conn_param};

use super::reject::RejectReason;
use crate::errno::cm_remedy;

/// Names a [`super::CmId`] in events. Never reused while the event channel lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CmIdKey(pub(super) u64);

/// Private data of a CM message: up to 196 bytes in a REP, 148 in a REJ, zero-padded by the connection manager.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PrivateData {
    len: u8,
    bytes: [u8; Self::CAPACITY],
}

impl PrivateData {
    /// The longest private data any CM message carries to us, as librdmacm counts it.
    pub const CAPACITY: usize = u8::MAX as usize;

    /// A copy of `data`, cut at [`Self::CAPACITY`].
    pub fn new(data: &[u8]) -> Self {
        let len = data.len().min(Self::CAPACITY);
        let mut bytes = [0; Self::CAPACITY];
        bytes[..len].copy_from_slice(&data[..len]);
        Self { len: len as u8, bytes }
    }
}

impl std::ops::Deref for PrivateData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for PrivateData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateData({} bytes)", self.len)
    }
}

/// What the target's answer to a connection request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The target's private data: SRP_LOGIN_RSP.
    pub private_data: PrivateData,
    /// RDMA READs of ours the target can have outstanding.
    pub responder_resources: u8,
    /// RDMA READs the target may have outstanding at us.
    pub initiator_depth: u8,
    /// The target implements end-to-end flow control.
    pub flow_control: bool,
    /// How often the target retries when we have no receive posted (7: for ever).
    pub rnr_retry: u8,
    /// The target's queue pair number.
    pub queue_pair_number: u32,
}

/// Something that happened to a [`super::CmId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The target's address was resolved and the id is bound to an HCA port.
    AddressResolved,
    /// The target's address could not be resolved.
    AddressError {
        /// A positive errno.
        errno: i32,
    },
    /// A route to the target is known.
    RouteResolved,
    /// No route to the target was found.
    RouteError {
        /// A positive errno.
        errno: i32,
    },
    /// The target accepted: size the receives, then call [`super::CmId::establish`].
    ConnectResponse(Reply),
    /// The connection stands already (iWARP, where there is nothing to confirm).
    Established(Reply),
    /// The target did not answer the connection request.
    Unreachable {
        /// A negative errno, or what the provider reports.
        status: i32,
    },
    /// The target, or the connection manager at its side, refused.
    Rejected {
        /// The reason on the wire.
        reason: RejectReason,
        /// The target's private data: SRP_LOGIN_REJ when the reason is [`RejectReason::Consumer`].
        private_data: PrivateData,
    },
    /// The connection could not be completed on our side.
    ConnectError {
        /// A negative errno, or what the provider reports.
        status: i32,
    },
    /// The connection ended: the target asked for it, or answered our request.
    Disconnected,
    /// The HCA goes away: the id, its queue pair and all memory of that device must be released.
    DeviceRemoval,
    /// The local address changed.
    AddressChange,
    /// The queue pair number may be used again.
    TimewaitExit,
    /// An event this crate does not know.
    Other {
        /// `enum rdma_cm_event_type`.
        number: u32,
        /// Its status.
        status: i32,
    },
}

impl Event {
    /// Copies an event out of librdmacm's memory.
    ///
    /// # Safety
    /// `event` was returned by `rdma_get_cm_event` and has not been acknowledged.
    pub(super) unsafe fn copy_from(event: *const rdma_cm_event) -> Self {
        // SAFETY: the caller's promise: the event is alive and filled in.
        let (number, status) = unsafe { ((*event).event, (*event).status) };
        // SAFETY: librdmacm fills `conn` for every event of a reliable connection, and zeroes it before; any bit
        // pattern is a value of these plain integers.
        let conn = unsafe { (*event).param.conn };
        match number {
            kind::RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddressResolved,
            kind::RDMA_CM_EVENT_ADDR_ERROR => Self::AddressError {
                errno: status.saturating_abs(),
            },
            kind::RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            kind::RDMA_CM_EVENT_ROUTE_ERROR => Self::RouteError {
                errno: status.saturating_abs(),
            },
            // SAFETY: for these kinds `conn` carries private data that lives until the acknowledgement.
            kind::RDMA_CM_EVENT_CONNECT_RESPONSE => Self::ConnectResponse(unsafe { reply(&conn) }),
            // SAFETY: as above.
            kind::RDMA_CM_EVENT_ESTABLISHED => Self::Established(unsafe { reply(&conn) }),
            kind::RDMA_CM_EVENT_UNREACHABLE => Self::Unreachable { status },
            kind::RDMA_CM_EVENT_REJECTED => Self::Rejected {
                reason: RejectReason::from_code(status),
                // SAFETY: as above.
                private_data: unsafe { private_data(&conn) },
            },
            kind::RDMA_CM_EVENT_CONNECT_ERROR => Self::ConnectError { status },
            kind::RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            kind::RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoval,
            kind::RDMA_CM_EVENT_ADDR_CHANGE => Self::AddressChange,
            kind::RDMA_CM_EVENT_TIMEWAIT_EXIT => Self::TimewaitExit,
            number => Self::Other { number, status },
        }
    }
}

/// # Safety
/// `conn.private_data` is null or points to `conn.private_data_len` readable bytes.
unsafe fn private_data(conn: &rdma_conn_param) -> PrivateData {
    if conn.private_data.is_null() {
        return PrivateData::new(&[]);
    }
    // SAFETY: the caller's promise.
    PrivateData::new(unsafe {
        std::slice::from_raw_parts(conn.private_data.cast::<u8>(), usize::from(conn.private_data_len))
    })
}

/// # Safety
/// As [`private_data`].
unsafe fn reply(conn: &rdma_conn_param) -> Reply {
    Reply {
        // SAFETY: the caller's promise.
        private_data: unsafe { private_data(conn) },
        responder_resources: conn.responder_resources,
        initiator_depth: conn.initiator_depth,
        flow_control: conn.flow_control != 0,
        rnr_retry: conn.rnr_retry_count,
        queue_pair_number: conn.qp_num,
    }
}

/// An errno as words, for a status that is one.
struct Status(i32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.0.saturating_abs();
        write!(f, "{}", std::io::Error::from_raw_os_error(errno))?;
        match cm_remedy(errno) {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressResolved => f.write_str("address resolved"),
            Self::AddressError { errno } => write!(f, "the target's address cannot be resolved: {}", Status(*errno)),
            Self::RouteResolved => f.write_str("route resolved"),
            Self::RouteError { errno } => write!(f, "no route to the target: {}", Status(*errno)),
            Self::ConnectResponse(_) => f.write_str("the target accepted"),
            Self::Established(_) => f.write_str("connection established"),
            Self::Unreachable { status } => write!(f, "the target is unreachable: {}", Status(*status)),
            Self::Rejected { reason, .. } => write!(f, "connection rejected: {reason}"),
            Self::ConnectError { status } => write!(f, "the connection failed on this side: {}", Status(*status)),
            Self::Disconnected => f.write_str("disconnected"),
            Self::DeviceRemoval => f.write_str("the HCA is being removed"),
            Self::AddressChange => f.write_str("the local address changed"),
            Self::TimewaitExit => f.write_str("time-wait ended"),
            Self::Other { number, status } => write!(f, "connection event {number} (status {status})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(number: u32, status: i32, data: &[u8]) -> Event {
        // SAFETY: an event is plain integers and pointers; all zeroes is a valid value.
        let mut raw: rdma_cm_event = unsafe { std::mem::zeroed() };
        raw.event = number;
        raw.status = status;
        raw.param.conn = rdma_conn_param {
            private_data: if data.is_empty() {
                std::ptr::null()
            } else {
                data.as_ptr().cast()
            },
            private_data_len: data.len() as u8,
            responder_resources: 4,
            initiator_depth: 3,
            flow_control: 1,
            retry_count: 0,
            rnr_retry_count: 7,
            srq: 1,
            qp_num: 0x1234,
        };
        // SAFETY: the event and its private data live on this stack frame.
        unsafe { Event::copy_from(&raw) }
    }

    #[test]
    fn a_reply_is_copied_whole() {
        let data: Vec<u8> = (0..196).collect();
        let Event::ConnectResponse(reply) = decode(kind::RDMA_CM_EVENT_CONNECT_RESPONSE, 0, &data) else {
            panic!("not a response");
        };
        assert_eq!(&*reply.private_data, &data[..]);
        assert_eq!(
            (reply.responder_resources, reply.initiator_depth, reply.rnr_retry),
            (4, 3, 7)
        );
        assert!(reply.flow_control);
        assert_eq!(reply.queue_pair_number, 0x1234);
    }

    #[test]
    fn a_rejection_carries_reason_and_private_data() {
        let event = decode(kind::RDMA_CM_EVENT_REJECTED, 28, &[0xc2; 148]);
        assert_eq!(
            event,
            Event::Rejected {
                reason: RejectReason::Consumer,
                private_data: PrivateData::new(&[0xc2; 148])
            }
        );
        let event = decode(kind::RDMA_CM_EVENT_REJECTED, 8, &[]);
        assert!(event.to_string().contains("nobody listens"), "{event}");
    }

    #[test]
    fn errors_carry_a_positive_errno() {
        assert_eq!(
            decode(kind::RDMA_CM_EVENT_ADDR_ERROR, -libc::ENODEV, &[]),
            Event::AddressError { errno: libc::ENODEV }
        );
        assert_eq!(
            decode(kind::RDMA_CM_EVENT_ROUTE_ERROR, i32::MIN, &[]),
            Event::RouteError { errno: i32::MAX }
        );
        let text = decode(kind::RDMA_CM_EVENT_UNREACHABLE, -libc::ETIMEDOUT, &[]).to_string();
        assert!(text.contains("did not answer"), "{text}");
    }

    #[test]
    fn unknown_events_are_values() {
        for number in [4, 12, 13, 16, 17, 18, 99, u32::MAX] {
            assert_eq!(decode(number, -5, &[1]), Event::Other { number, status: -5 });
        }
    }

    #[test]
    fn private_data_is_cut_at_its_capacity() {
        assert_eq!(PrivateData::new(&[7; 300]).len(), PrivateData::CAPACITY);
        assert!(PrivateData::new(&[]).is_empty());
    }
}
