//! Type-2 memory windows (IBA 10.6.7.2): what a peer may reach of an arena that is closed to it.

use std::ptr::NonNull;
use std::sync::Arc;

use super::{MemoryError, ProtectionDomain};
use crate::errno::{check_pointer, check_value};

/// A memory window, closed when it is made. Work requests on a queue pair open and close it.
///
/// Dropping it ends it, open or not: no peer gets through it then. It has to go before the queue pair that it was
/// opened on last, and before the arena: both are kept by an open window.
#[derive(Debug)]
pub struct MemoryWindow {
    raw: NonNull<rdma_sys::ibv_mw>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: the verbs on a window may be called from any thread; it has one owner.
unsafe impl Send for MemoryWindow {}

impl MemoryWindow {
    /// A window of `domain`.
    ///
    /// # Errors
    /// When the HCA has no windows of this type, or none left.
    pub fn new(domain: &Arc<ProtectionDomain>) -> Result<Self, MemoryError> {
        let device = domain.device();
        if !device.limits().type_2_windows {
            return Err(MemoryError::NoWindows(device.name().to_owned()));
        }
        // SAFETY: the domain is alive; a driver without the verb is an answer of its own, and null is checked.
        let raw = unsafe { rdma_sys::ibv_alloc_mw(domain.raw(), rdma_sys::ibv_mw_type::IBV_MW_TYPE_2) };
        let raw = raw.map_or_else(
            || Err(std::io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            check_pointer,
        );
        let raw = raw.map_err(|cause| MemoryError::Window {
            device: device.name().to_owned(),
            limit: device.limits().max_mw,
            cause,
        })?;
        Ok(Self {
            raw,
            domain: domain.clone(),
        })
    }

    /// The key peers have to use, or had to last.
    pub fn key(&self) -> u32 {
        // SAFETY: the window is alive, and nobody else changes it.
        unsafe { self.raw.as_ref().rkey }
    }

    /// The opening with this key was posted.
    pub(crate) fn opened(&mut self, key: u32) {
        // SAFETY: the window is alive and borrowed exclusively; libibverbs has its owner keep the key.
        unsafe { self.raw.as_mut().rkey = key };
    }

    /// The protection domain it belongs to.
    pub const fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    pub(crate) const fn raw(&self) -> *mut rdma_sys::ibv_mw {
        self.raw.as_ptr()
    }
}

impl Drop for MemoryWindow {
    fn drop(&mut self) {
        // SAFETY: the window is alive and ended once.
        if let Err(error) = check_value(unsafe { rdma_sys::ibv_dealloc_mw(self.raw.as_ptr()) }) {
            tracing::error!(%error, device = self.domain.device().name(), "a memory window is lost");
        }
    }
}

/// The key to open a window with after this one: its low byte is the owner's to change, the rest names the window
/// (IBA 10.6.7.2.6).
pub(crate) const fn next_key(key: u32) -> u32 {
    key & !0xff | (key.wrapping_add(1) & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_in_its_low_byte_alone() {
        assert_eq!(next_key(0x1234_5600), 0x1234_5601);
        assert_eq!(next_key(0x1234_56ff), 0x1234_5600);
        assert_eq!(next_key(u32::MAX), 0xffff_ff00);
    }
}
