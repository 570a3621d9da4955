//! The daemon's end of the control socket: made for this daemon alone, and gone with it.

use std::error::Error as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use super::protocol::{ErrorData, ErrorKind};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 64;

/// Why the daemon has no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("another daemon is running and listens on {path}")]
    Running { path: PathBuf },
    #[error("{path} is in the way: it is no socket")]
    NotASocket { path: PathBuf },
    #[error("a control socket cannot be at {path:?}")]
    Unusable { path: PathBuf },
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Running { .. } => "use it, stop it first, or give this one another --socket",
            Self::NotASocket { .. } => "move it away, or give another --socket",
            Self::Unusable { .. } => "give a --socket of 1 to 107 bytes inside a directory",
            Self::Io { .. } => "run the daemon as root, or give a --socket where you may write",
        }
    }
}

impl From<BindError> for ErrorData {
    fn from(error: BindError) -> Self {
        let kind = match &error {
            BindError::Running { .. } => ErrorKind::Exists,
            BindError::NotASocket { .. } | BindError::Unusable { .. } => ErrorKind::Usage,
            BindError::Io { .. } => ErrorKind::Host,
        };
        let message = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Self {
            kind,
            message,
            remedy: Some(error.remedy().to_owned()),
            holders: Vec::new(),
        }
    }
}

/// A listening control socket; dropping it removes the file.
///
/// A lock on `<path>.lock` tells a live daemon from one that left its socket behind, however it ended. The lock
/// file stays: removing it would let two daemons each hold a lock.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file, to remove none but our own.
    identity: (u64, u64),
    _lock: File,
}

impl ControlSocket {
    /// Listens at `path`, mode 0600, in a directory that is made with mode 0755 where it is missing.
    ///
    /// Needs a tokio runtime around it.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let unusable = || BindError::Unusable { path: path.to_owned() };
        let address = SocketAddrUnix::new(path).map_err(|_| unusable())?;
        if path.file_name().is_none() {
            return Err(unusable());
        }
        let failed = |what| {
            move |source: io::Error| BindError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        make_directory(path).map_err(failed("make the directory of"))?;
        let lock = lock(path)?;
        clear(path)?;

        // Nobody can connect between bind and listen, so nobody can before the mode is right.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| failed("make the socket of")(errno.into()))?;
        rustix::net::bind(&socket, &address).map_err(|errno| failed("listen on")(errno.into()))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("set the mode of"))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed("listen on")(errno.into()))?;
        let listener = UnixListener::from_std(StdListener::from(socket)).map_err(failed("listen on"))?;
        let made = fs::symlink_metadata(path).map_err(failed("look at"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: (made.dev(), made.ino()),
            _lock: lock,
        })
    }

    /// What [`serve`](super::server::serve) takes.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // A socket left behind is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    if parent.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    // The umask may have taken bits away.
    fs::set_permissions(parent, Permissions::from_mode(0o755))
}

fn lock(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |what| {
        let path = name.clone();
        move |source: io::Error| BindError::Io { what, path, source }
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed("open the lock file"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BindError::Running { path: path.to_owned() }),
        Err(errno) => Err(failed("lock")(errno.into())),
    }
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |what| {
        move |source: io::Error| BindError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("look at"))?,
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Running { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(error) => Err(failed("find out who listens on")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn life_of_a_socket() {
        let scratch = Scratch::new();
        let path = scratch.path("a/b/control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::Running { .. })));
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
        drop(ControlSocket::bind(&path).unwrap());
    }

    #[tokio::test]
    async fn what_is_in_the_way() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        // A daemon that was killed leaves a socket without listener.
        drop(StdListener::bind(&path).unwrap());
        drop(ControlSocket::bind(&path).unwrap());
        // One that does not take the lock is respected all the same.
        let other = StdListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::Running { .. })));
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        let long = scratch.path(&"x".repeat(120));
        assert!(matches!(ControlSocket::bind(&long), Err(BindError::Unusable { .. })));
        let data = ErrorData::from(ControlSocket::bind(&path.join("below")).unwrap_err());
        assert_eq!(data.kind, ErrorKind::Host);
        assert!(data.message.contains("below: "), "{}", data.message);
    }

    #[tokio::test]
    async fn a_successors_socket_is_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        let socket = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = StdListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
