//! Memory shared with a backend: mapped memfds.
//!
//! Nothing in this crate looks at the bytes: the kernel copies between an area and a request. So no reference to
//! the memory is ever formed, whatever a peer writes into it meanwhile.

use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

use crate::backend::AreaRange;

/// Why an area could not be mapped.
#[derive(Debug, Error)]
pub enum MapAreaError {
    /// Ranges in an area are 32 bits wide.
    #[error("an area of {0} bytes: 1 byte to 4 GiB can be mapped; split it")]
    Length(u64),
    /// The kernel refused.
    #[error("the area of {len} bytes cannot be mapped: {source}; check the memory limits of the process")]
    Map {
        /// Bytes asked for.
        len: u64,
        /// The cause.
        source: std::io::Error,
    },
}

/// A shared mapping of a descriptor.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; the pointer is handed out as a number for the kernel
// and never dereferenced through this type except by `Descriptors`, which stays on its thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn area(memfd: &OwnedFd, len: u64) -> Result<Self, MapAreaError> {
        let bytes = usize::try_from(len)
            .ok()
            .filter(|_| len > 0 && len <= 1 << 32)
            .ok_or(MapAreaError::Length(len))?;
        Self::new(memfd, 0, bytes, ProtFlags::READ | ProtFlags::WRITE).map_err(|errno| MapAreaError::Map {
            len,
            source: errno.into(),
        })
    }

    pub(super) fn new(fd: impl AsFd, offset: u64, len: usize, access: ProtFlags) -> rustix::io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing existing is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), len, access, flags, fd, offset)? };
        let start = NonNull::new(start).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    pub(super) const fn start(&self) -> *mut u8 {
        self.start.as_ptr().cast()
    }

    const fn contains(&self, offset: u32, len: u32) -> bool {
        offset as u64 + len as u64 <= self.len as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nobody keeps its address: `Areas` gives a
        // mapping back only when no copy is under way on it.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.len) };
        if let Err(errno) = unmapped {
            tracing::error!(%errno, "munmap of a shared mapping");
        }
    }
}

/// An area out of use. Unmapping a large one takes time: drop it on a thread that may wait.
#[derive(Debug)]
pub struct RetiredArea(#[expect(dead_code, reason = "held for its drop")] pub(super) Mapping);

/// A mapped area and how many copies are under way on it.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) mapping: Mapping,
    pub(super) copies: u32,
}

impl Area {
    /// The first byte of the range, when the range lies within the area.
    pub(super) fn resolve(&self, range: AreaRange) -> Option<*mut u8> {
        self.mapping
            .contains(range.offset, range.len)
            .then(|| self.mapping.start().wrapping_add(range.offset as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::{Area, Mapping};
    use crate::backend::{AreaId, AreaRange};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn a_range_ends_with_its_area() {
        let memfd = memfd_create("area", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memfd, 8192).unwrap();
        let area = Area {
            mapping: Mapping::area(&memfd, 8192).unwrap(),
            copies: 0,
        };
        let range = |offset, len| AreaRange {
            area: AreaId(0),
            offset,
            len,
        };
        assert!(area.resolve(range(0, 8192)).is_some());
        assert!(area.resolve(range(8192, 0)).is_some());
        assert!(area.resolve(range(1, 8192)).is_none());
        assert!(area.resolve(range(u32::MAX, u32::MAX)).is_none());
        assert!(Mapping::area(&memfd, 0).is_err());
        assert!(Mapping::area(&memfd, (1 << 32) + 1).is_err());
    }
}
