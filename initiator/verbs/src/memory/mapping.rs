//! Shared memory of fixed size that fork does not duplicate.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A mapped memory file.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
}

impl Mapping {
    /// `len` zeroed bytes (more than 0), page-aligned.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("srp-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: the kernel chooses the address, so no existing mapping is touched. The file cannot shrink (sealed),
        // so no access inside the mapping can fault for want of a page behind it.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { base, len, file };
        // SAFETY: the range is the mapping just made. A child that lacks it cannot miss it: children only exec.
        unsafe { rustix::mm::madvise(mapping.base.as_ptr().cast::<c_void>(), len, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }

    pub(super) const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, is unmapped once, and every pointer into it is behind a borrow of
        // self. An arena only drops its mapping when the HCA has given the memory back.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) } {
            tracing::warn!(%error, len = self.len, "an arena could not be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_zeroed_shared_and_sealed() {
        let mapping = Mapping::new(8192).expect("memory");
        // SAFETY: inside the mapping, which nobody else uses.
        unsafe {
            assert_eq!(mapping.base().add(8191).read(), 0);
            mapping.base().add(4096).write(7);
        }
        let mut byte = [0];
        rustix::io::pread(&mapping, &mut byte, 4096).expect("readable");
        assert_eq!(byte, [7]);
        assert!(rustix::fs::ftruncate(&mapping, 4096).is_err());
        assert!(rustix::fs::ftruncate(&mapping, 16384).is_err());
        assert_eq!(mapping.len(), 8192);
    }
}
