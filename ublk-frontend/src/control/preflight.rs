//! What can be said before the first device: is the driver there, may we use it, what can it do.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use libublk::ctrl::UblkCtrl;
use libublk::sys::{UBLK_F_USER_COPY, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE};
use thiserror::Error;

use super::bounded::{Unfinished, bounded};
use crate::ring::{SetupError, check_io_uring};

const CONTROL: &str = "/dev/ublk-control";
const LIMIT: Duration = Duration::from_secs(5);

/// Why no device can be made on this host.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// No driver.
    #[error("/dev/ublk-control is missing: load the driver with `modprobe ublk_drv` (Linux 6.12 or later)")]
    NotLoaded,
    /// No right to use it.
    #[error("/dev/ublk-control: {0}; run as root (CAP_SYS_ADMIN is needed)")]
    Permission(#[source] io::Error),
    /// It does not open.
    #[error("/dev/ublk-control: {0}")]
    Open(#[source] io::Error),
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// It lacks what is needed.
    #[error("the ublk driver (features {0:#x}) has no UBLK_F_USER_COPY: Linux 6.12 or later is needed")]
    TooOld(u64),
    /// It does not answer.
    #[error("the ublk driver does not tell its features: {0}; look into dmesg for an oops of ublk_drv")]
    NoAnswer(String),
    /// libublk's state folder could be abused.
    #[error("{path}: {problem}; remove it or make it a directory of root's with mode 0755")]
    StateFolder {
        /// The folder.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// The driver's feature word (`UBLK_F_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Asks the driver.
    pub fn probe() -> Result<Self, PreflightError> {
        // libublk prints to standard error when the device is missing: look first.
        open_control()?;
        match bounded(LIMIT, UblkCtrl::get_features, |_| ()) {
            Ok(Some(word)) => Ok(Self(word)),
            Ok(None) => Err(PreflightError::NoAnswer("GET_FEATURES failed".into())),
            Err(unfinished @ (Unfinished::Thread(_) | Unfinished::TimedOut(_) | Unfinished::Panicked)) => {
                Err(PreflightError::NoAnswer(unfinished.to_string()))
            }
        }
    }

    /// The word itself.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Data can be copied to and from any memory: what this crate rests on.
    #[must_use]
    pub const fn user_copy(self) -> bool {
        self.0 & UBLK_F_USER_COPY as u64 != 0
    }

    /// A device can outlive its server, and its requests can be issued again to the next.
    #[must_use]
    pub const fn recovery(self) -> bool {
        const BOTH: u64 = (UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE) as u64;
        self.0 & BOTH == BOTH
    }
}

/// Everything that can be checked before a device is added.
pub fn check() -> Result<Features, PreflightError> {
    check_io_uring()?;
    let features = Features::probe()?;
    if !features.user_copy() {
        return Err(PreflightError::TooOld(features.bits()));
    }
    secure_state_folder()?;
    Ok(features)
}

fn open_control() -> Result<(), PreflightError> {
    fs::File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map(drop)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PreflightError::NotLoaded,
            io::ErrorKind::PermissionDenied => PreflightError::Permission(error),
            _ if error.raw_os_error() == Some(libc::ENXIO) => PreflightError::NotLoaded,
            _ => PreflightError::Open(error),
        })
}

/// libublk keeps a file per device in this folder, makes it world-writable if it has to create it, and follows links in
/// it. We give it nothing to write; should another program on this host use libublk, or a later libublk write after
/// all, the folder is root's alone.
pub(super) fn secure_state_folder() -> Result<(), PreflightError> {
    secure_folder(Path::new(&UblkCtrl::run_dir()), 0)
}

fn secure_folder(path: &Path, owner: u32) -> Result<(), PreflightError> {
    let problem = |problem: String| PreflightError::StateFolder {
        path: path.display().to_string(),
        problem,
    };
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(problem(error.to_string())),
    }
    let metadata = fs::symlink_metadata(path).map_err(|error| problem(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(problem("is not a directory".into()));
    }
    if metadata.uid() != owner {
        return Err(problem(format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    // It was open to others: whatever lies in it may be theirs, links included. Close it, then look.
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(|error| problem(error.to_string()))?;
    for entry in fs::read_dir(path).map_err(|error| problem(error.to_string()))? {
        let entry = entry.map_err(|error| problem(error.to_string()))?;
        let metadata = entry.metadata().map_err(|error| problem(error.to_string()))?;
        if !metadata.is_file() || metadata.uid() != owner || metadata.nlink() != 1 {
            return Err(problem(format!(
                "was writable for everyone and holds a strange {:?}",
                entry.file_name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::secure_folder;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ublk-frontend-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            Self(path)
        }

        fn mode(&self) -> u32 {
            fs::metadata(&self.0).unwrap().permissions().mode() & 0o7777
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn makes_it_and_closes_it() {
        let folder = Folder::new("state");
        secure_folder(&folder.0, me()).unwrap();
        assert_eq!(folder.mode() & 0o022, 0);
        fs::write(folder.0.join("0000.json"), "{}").unwrap();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
        secure_folder(&folder.0, me()).unwrap();
        assert_eq!(folder.mode(), 0o755);
    }

    #[test]
    fn refuses_planted_links_and_strangers() {
        let folder = Folder::new("planted");
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
        symlink("/etc/shadow", folder.0.join("0000.json")).unwrap();
        let error = secure_folder(&folder.0, me()).unwrap_err().to_string();
        assert!(error.contains("0000.json"), "{error}");
        assert!(
            secure_folder(&folder.0, me() + 1)
                .unwrap_err()
                .to_string()
                .contains("belongs to")
        );
    }

    #[test]
    fn refuses_what_is_no_directory() {
        let folder = Folder::new("link");
        symlink("/tmp", &folder.0).unwrap();
        assert!(
            secure_folder(&folder.0, me())
                .unwrap_err()
                .to_string()
                .contains("not a directory")
        );
        fs::remove_file(&folder.0).unwrap();
    }
}
