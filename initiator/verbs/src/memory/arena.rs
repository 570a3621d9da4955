//! One registered stretch of memory.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdma_sys::ibv_access_flags as flag;

use super::mapping::Mapping;
use super::{MemoryError, ProtectionDomain};
use crate::errno::{check_pointer, check_value};

/// Who may do what with an arena. There is no arena a peer may both read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// IU slots: only the local HCA, for sends and receives.
    Iu,
    /// Data of reads: the target writes it.
    ReadData,
    /// Data of writes: the target reads it.
    WriteData,
    /// Data of reads, reached through windows alone.
    ReadWindows,
    /// Data of writes, reached through windows alone.
    WriteWindows,
}

impl Access {
    const fn flags(self) -> u32 {
        match self {
            Self::Iu => flag::IBV_ACCESS_LOCAL_WRITE.0,
            // The standard grants remote write only together with local write.
            Self::ReadData => flag::IBV_ACCESS_LOCAL_WRITE.0 | flag::IBV_ACCESS_REMOTE_WRITE.0,
            Self::WriteData => flag::IBV_ACCESS_REMOTE_READ.0,
            // No window of a region without local write lets a peer write.
            Self::ReadWindows => flag::IBV_ACCESS_LOCAL_WRITE.0 | flag::IBV_ACCESS_MW_BIND.0,
            Self::WriteWindows => flag::IBV_ACCESS_MW_BIND.0,
        }
    }
}

/// An access outside an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset} to {offset} + {len} are outside an arena of {size} bytes")]
pub struct OutOfBounds {
    /// First byte.
    pub offset: usize,
    /// Bytes asked for.
    pub len: usize,
    /// The arena's length.
    pub size: usize,
}

/// Whether `len` bytes from `offset` lie within `size`.
const fn check_bounds(offset: usize, len: usize, size: usize) -> Result<(), OutOfBounds> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(OutOfBounds { offset, len, size }),
    }
}

/// Shared memory registered with an HCA for one direction.
///
/// No reference into it is ever formed here: the HCA, and peers through it, may access it at any time. Another
/// mapping can be made of its descriptor ([`AsFd`]), which is sealed against change of size.
#[derive(Debug)]
pub struct Arena {
    registration: NonNull<rdma_sys::ibv_mr>,
    mapping: ManuallyDrop<Mapping>,
    access: Access,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: the registration may be ended from any thread, and the mapping belongs to this value alone. It is not Sync:
// two threads copying at once would race.
unsafe impl Send for Arena {}

impl Arena {
    /// Maps and registers `len` bytes, rounded up to whole pages. Pins them: slow, for the control side.
    ///
    /// # Errors
    /// When the size is impossible, or memory or HCA resources are short.
    pub fn new(domain: &Arc<ProtectionDomain>, len: usize, access: Access) -> Result<Self, MemoryError> {
        let size = len
            .checked_next_multiple_of(rustix::param::page_size())
            .ok_or(MemoryError::Size(len))?;
        if len == 0 || u32::try_from(size - 1).is_err() {
            return Err(MemoryError::Size(len));
        }
        let mapping = Mapping::new(size).map_err(|cause| MemoryError::Map { len: size, cause })?;
        // SAFETY: the range is mapped and stays so until the registration has ended (see `end`).
        let registration = check_pointer(unsafe {
            rdma_sys::ibv_reg_mr(domain.raw(), mapping.base().cast(), size, access.flags() as libc::c_int)
        })
        .map_err(|cause| MemoryError::Register {
            device: domain.device().name().to_owned(),
            len: size,
            cause,
        })?;
        Ok(Self {
            registration,
            mapping: ManuallyDrop::new(mapping),
            access,
            domain: domain.clone(),
        })
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Address of the first byte, for us and for the HCA alike.
    pub fn base(&self) -> *mut u8 {
        self.mapping.base()
    }

    /// The key for local use.
    pub fn lkey(&self) -> u32 {
        // SAFETY: the registration is alive; libibverbs does not change it after ibv_reg_mr.
        unsafe { (*self.registration.as_ptr()).lkey }
    }

    /// The key a peer uses.
    pub fn rkey(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.registration.as_ptr()).rkey }
    }

    /// For the binding of windows.
    pub(crate) const fn registration(&self) -> *mut rdma_sys::ibv_mr {
        self.registration.as_ptr()
    }

    /// The direction it is registered for.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// The protection domain it is registered with.
    pub const fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Whether `len` bytes from `offset` lie inside.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self, offset: usize, len: usize) -> Result<(), OutOfBounds> {
        check_bounds(offset, len, self.len())
    }

    /// Copies bytes out, whatever a peer may be writing there.
    ///
    /// # Errors
    /// When they are not inside; nothing is copied then.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, into.len())?;
        // SAFETY: source and destination are valid for the length (checked above; a slice). `into` may itself lie in
        // another mapping of the same file, for which `copy` is right too.
        unsafe { ptr::copy(self.base().add(offset), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes in, whatever a peer may be reading there.
    ///
    /// # Errors
    /// When they do not fit; nothing is copied then.
    pub fn copy_in(&mut self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        self.check(offset, from.len())?;
        // SAFETY: as in `copy_out`; the exclusive borrow keeps other copies of ours away.
        unsafe { ptr::copy(from.as_ptr(), self.base().add(offset), from.len()) };
        Ok(())
    }

    /// Ends the registration. When this returns `Ok`, no peer can reach the memory any more (the DMA rule).
    ///
    /// # Errors
    /// When the HCA keeps it; the memory then stays mapped for ever.
    pub fn deregister(self) -> Result<(), MemoryError> {
        let mut arena = ManuallyDrop::new(self);
        let result = arena.end();
        // SAFETY: `arena` is never dropped, so its protection domain is dropped exactly once, here, and not used later.
        unsafe { ptr::drop_in_place(&mut arena.domain) };
        result
    }

    /// Ends the registration and unmaps, or leaves the memory mapped. Called once, by `deregister` or `drop`.
    fn end(&mut self) -> Result<(), MemoryError> {
        // SAFETY: the registration is alive and ended once.
        check_value(unsafe { rdma_sys::ibv_dereg_mr(self.registration.as_ptr()) }).map_err(|cause| {
            MemoryError::Deregister {
                device: self.domain.device().name().to_owned(),
                len: self.len(),
                cause,
            }
        })?;
        // SAFETY: the HCA has given the memory back; the mapping is dropped once and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.mapping) };
        Ok(())
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mapping.as_fd()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "registered memory is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_exact() {
        assert!(check_bounds(0, 4096, 4096).is_ok());
        assert!(check_bounds(4096, 0, 4096).is_ok());
        assert!(check_bounds(4095, 1, 4096).is_ok());
        assert!(check_bounds(4095, 2, 4096).is_err());
        assert!(check_bounds(4097, 0, 4096).is_err());
        assert!(check_bounds(usize::MAX, 2, 4096).is_err());
        assert!(check_bounds(1, usize::MAX, usize::MAX).is_err());
    }

    proptest! {
        #[test]
        fn bounds_agree_with_wide_arithmetic(offset: usize, len: usize, size: usize) {
            let inside = offset as u128 + len as u128 <= size as u128;
            prop_assert_eq!(check_bounds(offset, len, size).is_ok(), inside);
        }
    }

    #[test]
    fn no_access_lets_a_peer_read_and_write() {
        let remote = flag::IBV_ACCESS_REMOTE_READ.0 | flag::IBV_ACCESS_REMOTE_WRITE.0;
        assert_eq!(Access::Iu.flags() & remote, 0);
        assert_eq!(Access::ReadData.flags() & remote, flag::IBV_ACCESS_REMOTE_WRITE.0);
        assert_eq!(Access::WriteData.flags() & remote, flag::IBV_ACCESS_REMOTE_READ.0);
        assert_eq!(Access::WriteData.flags() & flag::IBV_ACCESS_LOCAL_WRITE.0, 0);
        assert_eq!(Access::ReadWindows.flags() & remote, 0);
        assert_eq!(Access::WriteWindows.flags(), flag::IBV_ACCESS_MW_BIND.0);
    }
}
