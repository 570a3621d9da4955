//! System calls without a safe form elsewhere.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// Blocks all signals on the calling thread, so that no system call of it ends in EINTR.
pub(crate) fn block_signals() {
    // SAFETY: a zeroed `sigset_t` is a valid object to be overwritten; both pointers are to live stack values.
    let failed = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut())
    };
    if failed != 0 {
        tracing::warn!(errno = failed, "signals cannot be blocked on this thread");
    }
}

/// A second descriptor (close-on-exec) for the open file behind `fd`.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for this call only; a closed number gives EBADF and touches no memory.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned()
}

/// `BLKFLSBUF` on a block device (`linux/fs.h`): syncs a file system mounted on it, then the device's own page
/// cache, and drops what is clean.
pub(crate) fn flush_buffers(device: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    const BLKFLSBUF: libc::Ioctl = 0x1261;
    // SAFETY: the request takes no argument and the descriptor is open.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
