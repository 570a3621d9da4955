//! The edge to the kernel: `/dev/infiniband/umadN` (the ABI of `<rdma/ib_user_mad.h>`).
//!
//! One [`Umad`] is one open device with one registered agent, which sends requests and gets their answers only.
//! The kernel sends again, gives up and reports that; it puts its own number into the upper half of each
//! transaction id and drops answers that come from elsewhere than the request went.

#[forbid(unsafe_code)]
mod header;
mod sys;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use zerocopy::IntoBytes;

use crate::mad::{MAD_LEN, class, tid_low};
use crate::ports::{Port, PortState};
use crate::transport::{Address, Event, MadTransport, Patience, SendError, TransportError};
use header::UserMadHeader;

/// Header and MAD; OPA's jumbo MADs (2048 bytes) fit too, else the kernel would keep such an answer for ever.
const READ_LEN: usize = size_of::<UserMadHeader>() + 2048;

/// Why a port's MAD device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel offers no such device for the port.
    #[error("{port} has no umad device: the ib_umad module is not loaded (modprobe ib_umad)")]
    NoModule {
        /// The port.
        port: String,
    },
    /// The kernel has it, but there is no node.
    #[error("{} does not exist: udev has not made it, or it is hidden by a container or a sandbox", path.display())]
    NoNode {
        /// The node.
        path: PathBuf,
    },
    /// Not for this user.
    #[error(
        "no permission to open {}: run as root, or give the user rights on the device node",
        path.display()
    )]
    Permission {
        /// The node.
        path: PathBuf,
    },
    /// The port is not up.
    #[error("{port} is {state}, not ACTIVE: {}", state.remedy())]
    NotActive {
        /// The port.
        port: String,
        /// Its state.
        state: PortState,
    },
    /// The agent was refused.
    #[error("{}: the kernel refuses a device management agent on this port: {cause}", path.display())]
    Register {
        /// The node.
        path: PathBuf,
        /// What it said.
        #[source]
        cause: io::Error,
    },
    /// Anything else.
    #[error("cannot open {}: {cause}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// An open MAD device with an agent for device management.
#[derive(Debug)]
pub struct Umad {
    file: OwnedFd,
    agent: u32,
}

impl Umad {
    /// Opens the device of `port`, which must be active.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(port: &Port) -> Result<Self, OpenError> {
        if port.state != PortState::Active {
            return Err(OpenError::NotActive {
                port: port.name.to_string(),
                state: port.state,
            });
        }
        let path = port.umad.as_deref();
        let path = path.ok_or_else(|| OpenError::NoModule {
            port: port.name.to_string(),
        })?;
        Self::open_path(path)
    }

    fn open_path(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let path = path.to_owned();
        let file = opened.map_err(|errno| match errno {
            Errno::NOENT => OpenError::NoNode { path: path.clone() },
            Errno::ACCESS | Errno::PERM => OpenError::Permission { path: path.clone() },
            _ => OpenError::Open {
                path: path.clone(),
                cause: errno.into(),
            },
        })?;
        let (id, version) = (class::DEVICE_MANAGEMENT, class::DEVICE_MANAGEMENT_VERSION);
        let agent = sys::register_agent(&file, id, version).map_err(|errno| OpenError::Register {
            path,
            cause: errno.into(),
        })?;
        Ok(Self { file, agent })
    }

    /// Reads one event; `None` when the kernel has none.
    fn read(&mut self) -> Result<Option<Event>, TransportError> {
        let mut buffer = [0_u8; READ_LEN];
        let len = match retry_on_intr(|| rustix::io::read(&self.file, &mut buffer)) {
            Ok(len) => len,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(TransportError { cause: errno.into() }),
        };
        let (header, mad) = UserMadHeader::split(&buffer[..len]).ok_or_else(|| TransportError {
            cause: io::Error::other(format!("{len} bytes read from the umad device are no MAD")),
        })?;
        if header.status == 0 {
            return Ok(Some(Event::Mad {
                from: header.source(),
                bytes: mad.to_vec(),
            }));
        }
        // The failed request comes back, as much of it as the kernel kept.
        let tid = mad
            .get(8..16)
            .and_then(|tid| tid.try_into().ok())
            .map(u64::from_be_bytes);
        tracing::trace!(status = header.status, ?tid, "unanswered");
        Ok(tid.map(|tid| Event::Unanswered { tid: tid_low(tid) }))
    }
}

impl MadTransport for Umad {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        let mut buffer = [0_u8; size_of::<UserMadHeader>() + MAD_LEN];
        let (head, body) = buffer.split_at_mut(size_of::<UserMadHeader>());
        head.copy_from_slice(UserMadHeader::request(self.agent, to, patience).as_bytes());
        body.copy_from_slice(mad);
        let cause = match retry_on_intr(|| rustix::io::write(&self.file, &buffer)) {
            Ok(len) if len == buffer.len() => return Ok(()),
            Ok(len) => io::Error::other(format!("the kernel took {len} bytes of {}", buffer.len())),
            Err(errno) => errno.into(),
        };
        let remedy = send_remedy(&cause);
        Err(SendError {
            to: to.to_string(),
            cause,
            remedy,
        })
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        loop {
            if let Some(event) = self.read()? {
                return Ok(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Idle);
            }
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(TransportError { cause: errno.into() }),
            }
        }
    }
}

fn send_remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL) => "the destination is no unicast address, or the port's GID or P_Key entry is not usable",
        Some(
            Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NODATA
            | Errno::TIMEDOUT
            | Errno::ADDRNOTAVAIL
            | Errno::NOENT,
        ) => {
            "this host finds no way there: `ping` that address; RoCE v2 GIDs are found by IPv6, which both ends need on the interface"
        }
        Some(Errno::IO | Errno::NODEV | Errno::PIPE) => "the RDMA device is gone: look at `rdma link`",
        _ => "look at the kernel's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_foreign_nodes() {
        let missing = Umad::open_path(Path::new("/nonexistent/umad0")).unwrap_err();
        assert!(matches!(missing, OpenError::NoNode { .. }), "{missing}");
        let foreign = Umad::open_path(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(foreign, OpenError::Register { .. }), "{foreign}");
    }
}
