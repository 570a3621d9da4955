//! Creating rings, and saying why that may be impossible.

use std::fs;
use std::io;

use io_uring::IoUring;
use thiserror::Error;

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// Why there is no io_uring for us.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The sysctl says no.
    #[error("io_uring is switched off (kernel.io_uring_disabled = {0}): run `sysctl kernel.io_uring_disabled=0`")]
    Disabled(u8),
    /// A seccomp filter or LSM says no.
    #[error("io_uring is refused to this process (EPERM): allow io_uring_setup in the service's seccomp filter")]
    Refused,
    /// The kernel has none.
    #[error("this kernel has no io_uring: Linux 6.12 or later with CONFIG_IO_URING is needed")]
    Missing,
    /// The kernel's io_uring is too old.
    #[error("this kernel's io_uring lacks what is needed (EINVAL): Linux 6.12 or later is needed")]
    TooOld,
    /// Anything else.
    #[error("io_uring cannot be set up: {0}")]
    Other(#[source] io::Error),
}

impl SetupError {
    fn new(error: io::Error) -> Self {
        let setting = fs::read_to_string(SYSCTL).ok();
        Self::judge(error, setting.as_deref())
    }

    /// Pure: what an error of `io_uring_setup` means under a setting of the sysctl.
    fn judge(error: io::Error, setting: Option<&str>) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => match setting.and_then(|text| text.trim().parse().ok()) {
                Some(level @ 1..) => Self::Disabled(level),
                _ => Self::Refused,
            },
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EINVAL) => Self::TooOld,
            _ => Self::Other(error),
        }
    }
}

/// The ring of a reactor, made by the thread that will use it.
pub(super) fn data_ring(submissions: u32, completions: u32) -> Result<IoUring, SetupError> {
    IoUring::builder()
        .dontfork()
        .setup_clamp()
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(submissions)
        .map_err(SetupError::new)
}

/// Whether a reactor's ring can be made here.
pub(crate) fn check() -> Result<(), SetupError> {
    data_ring(1, 2).map(drop)
}

#[cfg(test)]
mod tests {
    use super::SetupError;
    use std::io;

    fn judge(errno: i32, setting: Option<&str>) -> String {
        SetupError::judge(io::Error::from_raw_os_error(errno), setting).to_string()
    }

    #[test]
    fn names_the_remedy() {
        assert!(judge(libc::EPERM, Some("2\n")).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(judge(libc::EPERM, Some("0\n")).contains("seccomp"));
        assert!(judge(libc::EPERM, None).contains("seccomp"));
        assert!(judge(libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(judge(libc::EINVAL, None).contains("6.12"));
        assert!(judge(libc::ENOMEM, None).contains("cannot be set up"));
    }
}
