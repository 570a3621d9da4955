//! The connection manager: librdmacm without blocking.
//!
//! ```text
//! EventChannel::new -> create_id -> resolve_address -> AddressResolved -> resolve_route -> RouteResolved
//!   -> QueuePair::create -> connect (SRP_LOGIN_REQ) -> ConnectResponse (SRP_LOGIN_RSP)
//!   -> establish -> adopted by a reactor, receives posted, I/O -> disconnect -> Disconnected
//! ```
//! Dropping a [`CmId`] at any point ends what it was doing; that is also how a deadline of ours cuts short the
//! connection manager's own (4.3 s, 15 times).

mod address;
mod event;
mod id;
mod reject;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use address::Address;
pub use event::{CmIdKey, Event, PrivateData, Reply};
pub use id::{CmError, CmId, ConnectParams, LocalPort, PortSpace};
pub use reject::RejectReason;

use crate::device::list_devices;
use crate::errno::{check, check_pointer, remedy};

/// An event channel cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum EventChannelError {
    /// The kernel module is not loaded.
    #[error("there is no /dev/infiniband/rdma_cm; load the connection manager with `modprobe rdma_ucm`")]
    NoConnectionManager,
    /// No RDMA device exists.
    #[error(
        "this host has no RDMA device; load the HCA's driver, or for soft RoCE `rdma link add rxe0 type rxe netdev ...`"
    )]
    NoDevice,
    /// RDMA devices exist, but none that user space may use.
    #[error("{} has no device node below /dev/infiniband; load the module with `modprobe ib_uverbs`", .0.join(", "))]
    NoVerbs(Vec<String>),
    /// Opening failed.
    #[error("the connection manager cannot be opened: {0}{hint}", hint = remedy(.0))]
    Open(io::Error),
    /// Reading an event failed.
    #[error("connection events cannot be read: {0}{hint}", hint = remedy(.0))]
    Read(io::Error),
}

impl EventChannelError {
    fn opening(cause: io::Error) -> Self {
        if !Path::new("/dev/infiniband/rdma_cm").exists() {
            return Self::NoConnectionManager;
        }
        match cause.raw_os_error() {
            Some(libc::ENODEV | libc::ENOENT) => {
                let devices = list_devices().unwrap_or_default();
                match devices.into_iter().map(|device| device.name).collect::<Vec<_>>() {
                    names if names.is_empty() => Self::NoDevice,
                    names => Self::NoVerbs(names),
                }
            }
            _ => Self::Open(cause),
        }
    }
}

/// The raw channel, alive as long as any id on it.
#[derive(Debug)]
struct Channel {
    raw: NonNull<rdma_sys::rdma_event_channel>,
    fd: RawFd,
    next_key: AtomicU64,
    /// librdmacm has no lock for the fields of an id, which both `rdma_get_cm_event` and the calls on the id write.
    librdmacm: Mutex<()>,
}

// SAFETY: the channel pointer is only given to librdmacm, whose channel functions may be called from any thread; the
// fields of ids on it are guarded by `librdmacm`.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.librdmacm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every id holds an Arc of this, so none is left, and every event has been acknowledged.
        unsafe { rdma_sys::rdma_destroy_event_channel(self.raw.as_ptr()) }
    }
}

/// Where the events of connections arrive. Readable (poll, epoll, tokio's `AsyncFd`) when there is one.
#[derive(Clone, Debug)]
pub struct EventChannel(Arc<Channel>);

impl EventChannel {
    /// Opens the connection manager.
    ///
    /// # Errors
    /// See [`EventChannelError`].
    pub fn new() -> Result<Self, EventChannelError> {
        // SAFETY: takes nothing; null is checked.
        let raw =
            check_pointer(unsafe { rdma_sys::rdma_create_event_channel() }).map_err(EventChannelError::opening)?;
        // SAFETY: the channel was just created.
        let fd = unsafe { raw.as_ref().fd };
        let channel = Self(Arc::new(Channel {
            raw,
            fd,
            next_key: AtomicU64::new(1),
            librdmacm: Mutex::new(()),
        }));
        set_nonblocking(channel.as_fd()).map_err(EventChannelError::Open)?;
        Ok(channel)
    }

    /// A new id for one reliable connection.
    ///
    /// # Errors
    /// When the kernel refuses; see [`CmError`].
    pub fn create_id(&self, space: PortSpace) -> Result<CmId, CmError> {
        CmId::new(&self.0, space)
    }

    /// The next event, if one has arrived. Never blocks.
    ///
    /// An event of an id that was dropped meanwhile may still come; its key is then unknown to the caller.
    ///
    /// # Errors
    /// When the channel is broken.
    pub fn next_event(&self) -> Result<Option<(CmIdKey, Event)>, EventChannelError> {
        let _guard = self.0.lock();
        loop {
            let mut event: *mut rdma_sys::rdma_cm_event = ptr::null_mut();
            // SAFETY: the channel is alive, `event` is a place for the answer.
            if let Err(error) = check(unsafe { rdma_sys::rdma_get_cm_event(self.0.raw.as_ptr(), &mut event) }) {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => continue,
                    _ => return Err(EventChannelError::Read(error)),
                }
            }
            // SAFETY: the event is filled in and stays so until it is acknowledged below; its id cannot be freed
            // before that, as rdma_destroy_id waits for the acknowledgement.
            let (key, copy) = unsafe {
                let id = (*event).id;
                let key = if id.is_null() { 0 } else { (*id).context as usize as u64 };
                (CmIdKey(key), Event::copy_from(event))
            };
            // SAFETY: the event came from rdma_get_cm_event, is acknowledged once and not used afterwards.
            if let Err(error) = check(unsafe { rdma_sys::rdma_ack_cm_event(event) }) {
                tracing::warn!(%error, "a connection event could not be acknowledged");
            }
            return Ok(Some((key, copy)));
        }
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: librdmacm keeps the descriptor open as long as the channel lives, which `self` ensures.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl AsRawFd for EventChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

/// Sets O_NONBLOCK on a descriptor a C library opened.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_rdma_says_what_to_load() {
        if Path::new("/dev/infiniband/rdma_cm").exists() {
            return;
        }
        let error = EventChannel::new().expect_err("there is no connection manager");
        assert!(error.to_string().contains("modprobe rdma_ucm"), "{error}");
    }

    #[test]
    fn the_channel_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        fn moved<T: Send>() {}
        shared::<EventChannel>();
        moved::<CmId>();
    }
}
