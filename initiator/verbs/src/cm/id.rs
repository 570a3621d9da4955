//! One connection's identifier.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdma_sys::{ibv_qp_attr, rdma_cm_id, rdma_conn_param};
use srp_addressing::Gid;

use super::address::{self, Address, RawAddress};
use super::event::CmIdKey;
use std::sync::MutexGuard;

use super::Channel;
use crate::errno::{check, cm_remedy};
use crate::queue_pair::{QueuePair, QueuePairError};

/// Option level and names of `rdma_set_option` (anonymous enums in C).
const RDMA_OPTION_ID: c_int = 0;
const RDMA_OPTION_ID_ACK_TIMEOUT: c_int = 3;

/// A call on a connection failed on the spot.
#[derive(Debug, thiserror::Error)]
pub enum CmError {
    /// No id could be created.
    #[error("no connection id: {0}")]
    Create(io::Error),
    /// Address resolution did not start.
    #[error("the address {destination} cannot be resolved: {cause}")]
    ResolveAddress {
        /// The target.
        destination: Address,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Route resolution did not start.
    #[error("no route can be resolved: {0}")]
    ResolveRoute(io::Error),
    /// The ack timeout was not accepted.
    #[error("the ack timeout {exponent} is not accepted (0 to 31): {cause}")]
    AckTimeout {
        /// 4.096 us x 2^exponent.
        exponent: u8,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Too much private data.
    #[error("{0} bytes of private data do not fit a connection request (at most {max})", max = ConnectParams::MAX_PRIVATE_DATA)]
    PrivateDataTooLong(usize),
    /// The request was not sent.
    #[error("the connection request cannot be sent: {0}")]
    Connect(io::Error),
    /// The connection manager has no parameters for this step of the queue pair.
    #[error("the connection manager has no queue pair parameters: {0}")]
    QueuePairParameters(io::Error),
    /// The queue pair did not follow.
    #[error(transparent)]
    QueuePair(#[from] QueuePairError),
    /// The confirmation was not sent.
    #[error("the connection cannot be confirmed: {0}")]
    Establish(io::Error),
    /// The disconnect request was not sent.
    #[error("the connection cannot be ended in order: {0}")]
    Disconnect(io::Error),
}

impl CmError {
    /// What an administrator can do about it; empty when nothing is known.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Create(cause)
            | Self::ResolveAddress { cause, .. }
            | Self::ResolveRoute(cause)
            | Self::AckTimeout { cause, .. }
            | Self::Connect(cause)
            | Self::QueuePairParameters(cause)
            | Self::Establish(cause)
            | Self::Disconnect(cause) => cm_remedy(cause.raw_os_error().unwrap_or(0)),
            Self::PrivateDataTooLong(_) | Self::QueuePair(_) => "",
        }
    }
}

/// What a connection request says. The defaults are ib_srp's.
#[derive(Clone, Copy, Debug)]
pub struct ConnectParams<'a> {
    /// SRP_LOGIN_REQ: at most [`Self::MAX_PRIVATE_DATA`] bytes, 56 by IP address on InfiniBand and RoCE.
    pub private_data: &'a [u8],
    /// RDMA READs the target may have outstanding at us; LIO wants 4.
    pub responder_resources: u8,
    /// RDMA READs of ours: SRP initiators issue none.
    pub initiator_depth: u8,
    /// Transport retries before the queue pair fails (0..=7). Soft RoCE takes 7 for "for ever": with it, a silent cut
    /// never fails a queue pair there.
    pub retry_count: u8,
    /// Retries when the target has no receive posted (7: for ever).
    pub rnr_retry: u8,
    /// End-to-end flow control.
    pub flow_control: bool,
}

impl ConnectParams<'_> {
    /// What a CM REQ holds without the 36-byte header of an IP connection.
    pub const MAX_PRIVATE_DATA: usize = 92;
}

impl<'a> ConnectParams<'a> {
    /// A request with ib_srp's parameters.
    pub const fn new(private_data: &'a [u8]) -> Self {
        Self {
            private_data,
            responder_resources: 4,
            initiator_depth: 0,
            retry_count: 7,
            rnr_retry: 7,
            flow_control: true,
        }
    }
}

/// The local end of a resolved connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// The HCA's name, as in `/sys/class/infiniband`.
    pub device: String,
    /// The port number, from 1.
    pub port: u8,
    /// The GID the connection uses.
    pub gid: Gid,
}

/// What the numbers of a connection's ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSpace {
    /// Ports of IP connections.
    Ip,
    /// Service ids of an InfiniBand fabric.
    InfiniBand,
}

impl PortSpace {
    /// The space of an address.
    #[must_use]
    pub const fn of(address: &Address) -> Self {
        match address {
            Address::Ip(_) => Self::Ip,
            Address::InfiniBand { .. } => Self::InfiniBand,
        }
    }

    const fn number(self) -> rdma_sys::rdma_port_space::Type {
        match self {
            Self::Ip => rdma_sys::rdma_port_space::RDMA_PS_TCP,
            Self::InfiniBand => rdma_sys::rdma_port_space::RDMA_PS_IB,
        }
    }
}

/// One connection. Dropping it ends the connection, or whatever is under way, and discards its events; this may take
/// a moment (the kernel cancels what is in flight), so it belongs on a control thread.
#[derive(Debug)]
pub struct CmId {
    raw: NonNull<rdma_cm_id>,
    key: CmIdKey,
    channel: Arc<Channel>,
}

// SAFETY: librdmacm's ids are not tied to a thread, and every access to one's fields holds the channel's lock.
unsafe impl Send for CmId {}
// SAFETY: as above; `&self` methods only read fields under the lock.
unsafe impl Sync for CmId {}

impl CmId {
    pub(super) fn new(channel: &Arc<Channel>, space: PortSpace) -> Result<Self, CmError> {
        let key = channel.next_key.fetch_add(1, Ordering::Relaxed);
        let mut raw: *mut rdma_cm_id = ptr::null_mut();
        // SAFETY: the channel is alive; the key is an integer that librdmacm only hands back.
        check(unsafe {
            rdma_sys::rdma_create_id(
                channel.raw.as_ptr(),
                &mut raw,
                key as usize as *mut c_void,
                space.number(),
            )
        })
        .map_err(CmError::Create)?;
        let raw = NonNull::new(raw).ok_or_else(|| CmError::Create(io::ErrorKind::Other.into()))?;
        Ok(Self {
            raw,
            key: CmIdKey(key),
            channel: channel.clone(),
        })
    }

    /// What events of this id are marked with.
    pub const fn key(&self) -> CmIdKey {
        self.key
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.channel.lock()
    }

    /// Starts to resolve `destination`, from `source` when given. Answer: `AddressResolved` or `AddressError`.
    ///
    /// # Errors
    /// When resolution cannot start.
    pub fn resolve_address(
        &mut self,
        source: Option<&Address>,
        destination: &Address,
        timeout: Duration,
    ) -> Result<(), CmError> {
        let mut source = source.map(RawAddress::new);
        let mut target = RawAddress::new(destination);
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded; both addresses outlive the call, which copies them.
        check(unsafe {
            rdma_sys::rdma_resolve_addr(
                self.raw.as_ptr(),
                source.as_mut().map_or(ptr::null_mut(), RawAddress::as_mut_ptr),
                target.as_mut_ptr(),
                milliseconds(timeout),
            )
        })
        .map_err(|cause| CmError::ResolveAddress {
            destination: *destination,
            cause,
        })
    }

    /// Starts to resolve the route. Answer: `RouteResolved` or `RouteError`.
    ///
    /// # Errors
    /// When resolution cannot start.
    pub fn resolve_route(&mut self, timeout: Duration) -> Result<(), CmError> {
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded.
        check(unsafe { rdma_sys::rdma_resolve_route(self.raw.as_ptr(), milliseconds(timeout)) })
            .map_err(CmError::ResolveRoute)
    }

    /// Sets how long the HCA waits for an acknowledgement, 4.096 us x 2^`exponent`, before it sends again; a dead path
    /// is noticed after about 4 x (`retry_count` + 1) times that. Takes effect when the connection is established.
    ///
    /// # Errors
    /// When the value is out of range.
    pub fn set_ack_timeout(&mut self, exponent: u8) -> Result<(), CmError> {
        if exponent > 31 {
            return Err(CmError::AckTimeout {
                exponent,
                cause: io::ErrorKind::InvalidInput.into(),
            });
        }
        let mut value = exponent;
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded; the option is one byte, copied by the call.
        check(unsafe {
            rdma_sys::rdma_set_option(
                self.raw.as_ptr(),
                RDMA_OPTION_ID,
                RDMA_OPTION_ID_ACK_TIMEOUT,
                ptr::from_mut(&mut value).cast(),
                size_of::<u8>(),
            )
        })
        .map_err(|cause| CmError::AckTimeout { exponent, cause })
    }

    /// Sends the connection request. Answer: `ConnectResponse` (or `Established` on iWARP), `Rejected`,
    /// `Unreachable` or `ConnectError`.
    ///
    /// # Errors
    /// When the request cannot be sent.
    pub fn connect(&mut self, queue_pair: &QueuePair, params: &ConnectParams<'_>) -> Result<(), CmError> {
        if params.private_data.len() > ConnectParams::MAX_PRIVATE_DATA {
            return Err(CmError::PrivateDataTooLong(params.private_data.len()));
        }
        let mut raw = rdma_conn_param {
            private_data: params.private_data.as_ptr().cast(),
            private_data_len: params.private_data.len() as u8,
            responder_resources: params.responder_resources,
            initiator_depth: params.initiator_depth,
            flow_control: params.flow_control.into(),
            retry_count: params.retry_count.min(7),
            rnr_retry_count: params.rnr_retry.min(7),
            srq: 0,
            qp_num: queue_pair.number(),
        };
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded; the private data outlives the call, which copies it.
        check(unsafe { rdma_sys::rdma_connect(self.raw.as_ptr(), &mut raw) }).map_err(CmError::Connect)
    }

    /// Makes the queue pair ready and confirms the connection, after `ConnectResponse`; not needed after
    /// `Established`. Receives may be posted afterwards: a target sends nothing before the first command, which one
    /// flush of the fabric posts after the receives.
    ///
    /// # Errors
    /// When the queue pair does not follow or the confirmation cannot be sent.
    pub fn establish(&mut self, queue_pair: &mut QueuePair) -> Result<(), CmError> {
        queue_pair.make_ready(self)?;
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded.
        check(unsafe { rdma_sys::rdma_establish(self.raw.as_ptr()) }).map_err(CmError::Establish)
    }

    /// Asks the target to end the connection. Answer: `Disconnected`, also when the target does not answer, but
    /// then only after the connection manager's retries. The queue pair is not touched.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn disconnect(&mut self) -> Result<(), CmError> {
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded.
        check(unsafe { rdma_sys::rdma_disconnect(self.raw.as_ptr()) }).map_err(CmError::Disconnect)
    }

    /// The HCA port and GID, once the address is resolved.
    pub fn local_port(&self) -> Option<LocalPort> {
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded. A non-null `verbs` is librdmacm's open context, whose
        // device name is a terminated string. The address union holds the IB form whichever way it was resolved, and
        // a GID is any 16 bytes.
        unsafe {
            let id = self.raw.as_ptr();
            let context = (*id).verbs;
            if context.is_null() || (*id).port_num == 0 {
                return None;
            }
            let name = rdma_sys::ibv_get_device_name((*context).device);
            if name.is_null() {
                return None;
            }
            Some(LocalPort {
                device: CStr::from_ptr(name).to_string_lossy().into_owned(),
                port: (*id).port_num,
                gid: Gid((*id).route.addr.addr.ibaddr.sgid.raw),
            })
        }
    }

    /// The target port's GID, once the connection manager knows it.
    pub fn peer_gid(&self) -> Option<Gid> {
        let _guard = self.lock();
        // SAFETY: as in `local_port`: the union holds the IB form, and a GID is any 16 bytes.
        let gid = Gid(unsafe { (*self.raw.as_ptr()).route.addr.addr.ibaddr.dgid.raw });
        (gid != Gid::default()).then_some(gid)
    }

    /// Our address, once bound.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded; the union is librdmacm's sockaddr_storage.
        address::read(unsafe { &(*self.raw.as_ptr()).route.addr.src_addr_union.src_storage })
    }

    /// The target's address, once given.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let _guard = self.lock();
        // SAFETY: as above.
        address::read(unsafe { &(*self.raw.as_ptr()).route.addr.dst_addr_union.dst_storage })
    }

    /// The connection manager's attributes for moving a queue pair to `state`, and their mask.
    pub(crate) fn queue_pair_attributes(
        &self,
        state: rdma_sys::ibv_qp_state::Type,
    ) -> Result<(ibv_qp_attr, u32), CmError> {
        // SAFETY: the attributes are plain integers; all zeroes is a valid value.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = state;
        let mut mask: c_int = 0;
        let _guard = self.lock();
        // SAFETY: the id is alive and its fields are guarded; both places are ours.
        check(unsafe { rdma_sys::rdma_init_qp_attr(self.raw.as_ptr(), &mut attributes, &mut mask) })
            .map_err(CmError::QueuePairParameters)?;
        Ok((attributes, mask as u32))
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: the id is destroyed once and has no queue pair (`qp` is always null). librdmacm waits for events
        // of the id that `next_event` has fetched and not yet acknowledged, so the lock must not be held here.
        if let Err(error) = check(unsafe { rdma_sys::rdma_destroy_id(self.raw.as_ptr()) }) {
            tracing::warn!(%error, key = self.key.0, "a connection id could not be destroyed");
        }
    }
}

fn milliseconds(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_at_least_a_millisecond() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000);
        assert_eq!(milliseconds(Duration::MAX), c_int::MAX);
    }

    #[test]
    fn the_default_request_is_the_kernel_initiators() {
        let params = ConnectParams::new(&[]);
        assert_eq!((params.responder_resources, params.initiator_depth), (4, 0));
        assert_eq!(
            (params.retry_count, params.rnr_retry, params.flow_control),
            (7, 7, true)
        );
    }
}
