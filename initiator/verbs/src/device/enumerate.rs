//! libibverbs' list of HCAs, and opening one of it.

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

use rdma_sys::{ibv_context, ibv_device};
use srp_addressing::Guid;

use crate::errno::check_pointer;

/// The list, freed when dropped.
pub(super) struct DeviceList {
    raw: NonNull<*mut ibv_device>,
    count: usize,
}

impl DeviceList {
    pub(super) fn read() -> io::Result<Self> {
        let mut count = 0;
        // SAFETY: the count is ours; null is checked.
        let raw = check_pointer(unsafe { rdma_sys::ibv_get_device_list(&mut count) })?;
        Ok(Self {
            raw,
            count: usize::try_from(count).unwrap_or(0),
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Opens the HCA named `name`; `None` when there is none.
    pub(super) fn open(&self, name: &str) -> Option<io::Result<(NonNull<ibv_context>, Guid)>> {
        for index in 0..self.count {
            // SAFETY: the list has `count` entries.
            let device = unsafe { *self.raw.as_ptr().add(index) };
            // SAFETY: the entry is alive as long as the list; its name is a terminated string.
            let known = unsafe { CStr::from_ptr(rdma_sys::ibv_get_device_name(device)) };
            if known.to_bytes() != name.as_bytes() {
                continue;
            }
            // SAFETY: as above.
            let guid = Guid(u64::from_be(unsafe { rdma_sys::ibv_get_device_guid(device) }));
            // SAFETY: as above; libibverbs keeps the device of an open context after the list is freed.
            let context = check_pointer(unsafe { rdma_sys::ibv_open_device(device) });
            return Some(context.map(|context| (context, guid)));
        }
        None
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: the list came from ibv_get_device_list and is freed once; no entry is used afterwards.
        unsafe { rdma_sys::ibv_free_device_list(self.raw.as_ptr()) }
    }
}
