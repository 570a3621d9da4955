//! Registered memory: protection domains and arenas.

mod arena;
mod mapping;
mod window;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

pub use arena::{Access, Arena, OutOfBounds};
pub use window::MemoryWindow;
pub(crate) use window::next_key;

use crate::device::Device;
use crate::errno::{check_pointer, check_value, remedy};

/// Memory cannot be set up or given back.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No protection domain.
    #[error("HCA {device} gives no protection domain: {cause}{hint}", hint = remedy(.cause))]
    ProtectionDomain {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// An arena of this size cannot be addressed.
    #[error("an arena of {0} bytes is not possible (1 byte to 4 GiB)")]
    Size(usize),
    /// No memory file.
    #[error("{len} bytes of shared memory cannot be had: {cause}{hint}", hint = remedy(.cause))]
    Map {
        /// The arena's length.
        len: usize,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The HCA did not take the memory.
    #[error("HCA {device} cannot register {len} bytes: {cause}{hint}", hint = remedy(.cause))]
    Register {
        /// The HCA's name.
        device: String,
        /// The arena's length.
        len: usize,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The HCA lacks memory windows that a queue pair can open by itself.
    #[error("HCA {0} has no type-2 memory windows; attach with exposure=pool")]
    NoWindows(String),
    /// The HCA gave no window.
    #[error(
        "HCA {device} gives no memory window (it has {limit} of them): {cause}{hint}; attach with exposure=pool, or with \
         a smaller queue_size or ch_count", hint = remedy(.cause)
    )]
    Window {
        /// The HCA's name.
        device: String,
        /// How many it has.
        limit: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The HCA did not give the memory back. It stays mapped for ever, as a peer may still reach it.
    #[error("HCA {device} does not release {len} bytes: {cause}{hint}", hint = remedy(.cause))]
    Deregister {
        /// The HCA's name.
        device: String,
        /// The arena's length.
        len: usize,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// A protection domain: queue pairs reach only memory of their own. One per session.
#[derive(Debug)]
pub struct ProtectionDomain {
    raw: NonNull<rdma_sys::ibv_pd>,
    device: Arc<Device>,
}

// SAFETY: the verbs that take a protection domain may be called from any thread; nothing in it is written by us.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    /// A new protection domain of `device`.
    ///
    /// # Errors
    /// When the HCA has none left.
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, MemoryError> {
        // SAFETY: the context is open; null is checked.
        let raw = check_pointer(unsafe { rdma_sys::ibv_alloc_pd(device.context()) }).map_err(|cause| {
            MemoryError::ProtectionDomain {
                device: device.name().to_owned(),
                cause,
            }
        })?;
        Ok(Arc::new(Self {
            raw,
            device: device.clone(),
        }))
    }

    /// The HCA it belongs to.
    pub const fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(crate) const fn raw(&self) -> *mut rdma_sys::ibv_pd {
        self.raw.as_ptr()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: every queue pair and arena holds an Arc of this, so none is left; it is freed once.
        if let Err(error) = check_value(unsafe { rdma_sys::ibv_dealloc_pd(self.raw.as_ptr()) }) {
            tracing::warn!(%error, device = self.device.name(), "a protection domain could not be freed");
        }
    }
}
