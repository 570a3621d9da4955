//! HCAs: opened contexts, their limits, their events.

mod enumerate;
mod event;
mod list;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rdma_sys::{ibv_context, ibv_device_attr, ibv_device_cap_flags as cap};
use srp_addressing::{Gid, Guid};

use enumerate::DeviceList;
pub use event::{DeviceEvent, EventSubject};
pub use list::{DeviceInfo, LinkLayer, PortInfo, PortState, list_devices};

use crate::cm::{CmId, set_nonblocking};
use crate::errno::{check_value, remedy};

/// An HCA cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel module is not loaded.
    #[error("there are no /dev/infiniband/uverbs* nodes; load them with `modprobe ib_uverbs`")]
    NoUverbs,
    /// The device list cannot be read.
    #[error("the list of HCAs cannot be read: {0}{hint}", hint = remedy(.0))]
    List(io::Error),
    /// There is no such HCA.
    #[error("there is no HCA named {0}, or its userspace driver (package ibverbs-providers) is missing")]
    NotFound(String),
    /// The connection has no HCA yet.
    #[error("the connection is not bound to an HCA port: resolve its address first")]
    Unbound,
    /// Opening failed.
    #[error("HCA {device} cannot be opened: {cause}{hint}", hint = remedy(.cause))]
    Open {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Its attributes cannot be read.
    #[error("HCA {device} does not tell its limits: {cause}{hint}", hint = remedy(.cause))]
    Query {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// An entry of a GID table cannot be read.
    #[error("HCA {device} port {port} has no GID at index {index}: {cause}")]
    Gid {
        /// The HCA's name.
        device: String,
        /// The port number.
        port: u8,
        /// The index in the GID table.
        index: u16,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Its events cannot be read.
    #[error("events of HCA {device} cannot be read: {cause}{hint}", hint = remedy(.cause))]
    Events {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// What an HCA can do, as far as an initiator cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Firmware version, as the vendor writes it.
    pub firmware: String,
    /// PCI or IEEE vendor id.
    pub vendor_id: u32,
    /// The vendor's part number.
    pub vendor_part_id: u32,
    /// Work requests per queue.
    pub max_qp_wr: u32,
    /// Scatter/gather entries per work request.
    pub max_sge: u32,
    /// Entries per completion queue.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Bytes in one memory region.
    pub max_mr_size: u64,
    /// Memory windows.
    pub max_mw: u32,
    /// RDMA READs and atomics a queue pair can serve at once.
    pub max_qp_rd_atom: u32,
    /// Memory windows of type 2 exist (the userspace driver may lack them all the same).
    pub type_2_windows: bool,
    /// Atomic operations exist. SRP needs none.
    pub atomics: bool,
    /// Ports.
    pub ports: u8,
}

impl DeviceLimits {
    fn new(raw: &ibv_device_attr) -> Self {
        let count = |value: i32| u32::try_from(value).unwrap_or(0);
        let firmware = raw
            .fw_ver
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| char::from(*byte as u8))
            .collect();
        let windows = cap::IBV_DEVICE_MEM_WINDOW_TYPE_2A.0 | cap::IBV_DEVICE_MEM_WINDOW_TYPE_2B.0;
        Self {
            firmware,
            vendor_id: raw.vendor_id,
            vendor_part_id: raw.vendor_part_id,
            max_qp_wr: count(raw.max_qp_wr),
            max_sge: count(raw.max_sge),
            max_cqe: count(raw.max_cqe),
            max_mr: count(raw.max_mr),
            max_mr_size: raw.max_mr_size,
            max_mw: count(raw.max_mw),
            max_qp_rd_atom: count(raw.max_qp_rd_atom),
            type_2_windows: raw.device_cap_flags & windows != 0,
            atomics: raw.atomic_cap != rdma_sys::ibv_atomic_cap::IBV_ATOMIC_NONE,
            ports: raw.phys_port_cnt,
        }
    }
}

/// An opened HCA, shared by everything on it. The same HCA is the same `Arc` when it comes from one [`Devices`].
///
/// This is a context of our own, not librdmacm's: librdmacm closes its context when the last id on a removed HCA
/// goes, whatever else still uses it.
#[derive(Debug)]
pub struct Device {
    context: NonNull<ibv_context>,
    name: String,
    guid: Guid,
    limits: DeviceLimits,
    async_fd: RawFd,
    completion_vectors: u32,
}

// SAFETY: libibverbs documents contexts and the verbs on them as usable from several threads; the fields read here are
// constant after open.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the HCA named `name`. Prefer [`Devices`], which opens each HCA once.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(name: &str) -> Result<Arc<Self>, DeviceError> {
        let device = Self::open_context(name)?;
        set_nonblocking(device.as_fd()).map_err(|cause| DeviceError::Open {
            device: name.to_owned(),
            cause,
        })?;
        Ok(Arc::new(device))
    }

    fn open_context(name: &str) -> Result<Self, DeviceError> {
        let list = DeviceList::read().map_err(|cause| {
            if cause.raw_os_error() == Some(libc::ENOSYS) || !Path::new("/sys/class/infiniband_verbs").exists() {
                DeviceError::NoUverbs
            } else {
                DeviceError::List(cause)
            }
        })?;
        let (context, guid) = match list.open(name) {
            Some(result) => result.map_err(|cause| DeviceError::Open {
                device: name.to_owned(),
                cause,
            })?,
            None if list.is_empty() && !Path::new("/dev/infiniband/uverbs0").exists() => {
                return Err(DeviceError::NoUverbs);
            }
            None => return Err(DeviceError::NotFound(name.to_owned())),
        };
        // SAFETY: the context was just opened; attributes are plain integers, for which all zeroes is a value.
        let (attributes, result, async_fd, vectors) = unsafe {
            let mut attributes: ibv_device_attr = std::mem::zeroed();
            let result = rdma_sys::ibv_query_device(context.as_ptr(), &mut attributes);
            (
                attributes,
                result,
                context.as_ref().async_fd,
                context.as_ref().num_comp_vectors,
            )
        };
        let device = Self {
            context,
            name: name.to_owned(),
            guid,
            limits: DeviceLimits::new(&attributes),
            async_fd,
            completion_vectors: u32::try_from(vectors).unwrap_or(1).max(1),
        };
        check_value(result).map_err(|cause| DeviceError::Query {
            device: name.to_owned(),
            cause,
        })?;
        Ok(device)
    }

    /// Whether the HCA is there still. One that was removed never comes back in this context, though an HCA of the same
    /// name may.
    pub fn is_there(&self) -> bool {
        // SAFETY: attributes are plain integers, for which all zeroes is a value; the context is open.
        let result = unsafe {
            let mut attributes: ibv_device_attr = std::mem::zeroed();
            rdma_sys::ibv_query_device(self.context.as_ptr(), &mut attributes)
        };
        result == 0
    }

    /// The HCA's name, as in `/sys/class/infiniband`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node GUID.
    pub const fn guid(&self) -> Guid {
        self.guid
    }

    /// What the HCA can do.
    pub const fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    /// How many interrupts completion queues can be spread over; at least 1.
    pub const fn completion_vectors(&self) -> u32 {
        self.completion_vectors
    }

    /// An entry of a port's GID table. SRP names a port by the interface id of entry 0.
    ///
    /// # Errors
    /// When there is no such entry.
    pub fn gid(&self, port: u8, index: u16) -> Result<Gid, DeviceError> {
        let mut gid = rdma_sys::ibv_gid { raw: [0; 16] };
        // SAFETY: the context is open; the place for the answer is ours. libibverbs returns 0 or -1 with errno.
        let result = unsafe { rdma_sys::ibv_query_gid(self.context.as_ptr(), port, i32::from(index), &mut gid) };
        check_value(result).map_err(|cause| DeviceError::Gid {
            device: self.name.clone(),
            port,
            index,
            cause,
        })?;
        // SAFETY: both members of the union are 16 plain bytes.
        Ok(Gid(unsafe { gid.raw }))
    }

    /// The next event of the HCA or a port, if one has arrived. Never blocks; the descriptor ([`AsFd`]) is readable
    /// when there is one.
    ///
    /// # Errors
    /// When events cannot be read, as after the HCA was removed.
    pub fn next_event(&self) -> Result<Option<DeviceEvent>, DeviceError> {
        event::next(self.context).map_err(|cause| DeviceError::Events {
            device: self.name.clone(),
            cause,
        })
    }

    pub(crate) const fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the context, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.async_fd) }
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.async_fd
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for Device {}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: every protection domain and completion queue holds an Arc of this, so nothing on it is left.
        if let Err(error) = check_value(unsafe { rdma_sys::ibv_close_device(self.context.as_ptr()) }) {
            tracing::warn!(%error, device = self.name, "an HCA could not be closed");
        }
    }
}

/// The HCAs in use, each opened once.
#[derive(Debug, Default)]
pub struct Devices(Mutex<Vec<Weak<Device>>>);

impl Devices {
    /// No HCA in use yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The HCA named `name`, opened if it is not, or anew where it was removed since and has come back.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(&self, name: &str) -> Result<Arc<Device>, DeviceError> {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|device| device.strong_count() > 0);
        let mut known = devices.iter().filter_map(Weak::upgrade);
        if let Some(device) = known.find(|device| device.name == name) {
            if device.is_there() {
                return Ok(device);
            }
            devices.retain(|known| !ptr::eq(known.as_ptr(), Arc::as_ptr(&device)));
        }
        let device = Device::open(name)?;
        devices.push(Arc::downgrade(&device));
        Ok(device)
    }

    /// The HCA a connection goes through, once its address is resolved.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn of(&self, id: &CmId) -> Result<Arc<Device>, DeviceError> {
        let port = id.local_port().ok_or(DeviceError::Unbound)?;
        self.open(&port.device)
    }
}
