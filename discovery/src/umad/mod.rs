//! The edge to the kernel: `/dev/infiniband/umadN` (the ABI of `<rdma/ib_user_mad.h>`).
//!
//! One [`Umad`] is one open device with an agent for device management and, on InfiniBand, one for subnet
//! administration. They send requests and get their answers; reports of events come only where they were asked for.
//! The kernel sends again, gives up and reports that; it puts its own number into the upper half of each
//! transaction id, drops answers that come from elsewhere than the request went, and puts together what comes in
//! segments (RMPP).

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
use crate::ports::{LinkLayer, Port, PortState};
use crate::transport::{Address, Event, MadTransport, Patience, SendError, TransportError};
use header::UserMadHeader;
use sys::AgentKind;

/// Header and MAD; OPA's jumbo MADs (2048 bytes) fit too, else the kernel would keep such an answer for ever.
const READ_LEN: usize = size_of::<UserMadHeader>() + 2048;
/// The longest table that is read: the NodeRecords of 100,000 ports take 11 MiB.
const TABLE_LIMIT: usize = 32 << 20;

/// Why a port's MAD device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel offers no such device for the port.
    #[error(
        "{port} has no umad device: the ib_umad module is not loaded (modprobe ib_umad), or the port takes no management \
         datagrams, as those of iWARP do not"
    )]
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
    #[error("{}: the kernel refuses an agent for {what} on this port: {cause}", path.display())]
    Register {
        /// The node.
        path: PathBuf,
        /// What it was to be for.
        what: &'static str,
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

/// An open MAD device with its agents.
#[derive(Debug)]
pub struct Umad {
    file: OwnedFd,
    device_management: u32,
    subnet_administration: Option<u32>,
}

impl Umad {
    /// Opens the device of `port`, which must be active.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(port: &Port) -> Result<Self, OpenError> {
        Self::open_with(port, false)
    }

    /// The same, and reports of the subnet's events come too.
    ///
    /// # Errors
    /// See [`OpenError`]; only one program of a host gets a port's reports.
    pub fn open_for_reports(port: &Port) -> Result<Self, OpenError> {
        Self::open_with(port, true)
    }

    fn open_with(port: &Port, reports: bool) -> Result<Self, OpenError> {
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
        Self::open_path(path, port.link_layer == LinkLayer::InfiniBand, reports)
    }

    fn open_path(path: &Path, subnet: bool, reports: bool) -> Result<Self, OpenError> {
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
        let register = |what, kind| {
            sys::register_agent(&file, kind).map_err(|errno| OpenError::Register {
                path: path.clone(),
                what,
                cause: errno.into(),
            })
        };
        let device_management = AgentKind {
            class: class::DEVICE_MANAGEMENT,
            version: class::DEVICE_MANAGEMENT_VERSION,
            tables: false,
            reports: false,
        };
        let subnet_administration = AgentKind {
            class: class::SUBNET_ADMINISTRATION,
            version: class::SUBNET_ADMINISTRATION_VERSION,
            tables: true,
            reports,
        };
        let device_management = register("device management", device_management)?;
        let subnet_administration = match subnet {
            true => Some(register("subnet administration", subnet_administration)?),
            false => None,
        };
        Ok(Self {
            file,
            device_management,
            subnet_administration,
        })
    }

    fn agent_for(&self, mad: &[u8; MAD_LEN]) -> Option<u32> {
        match mad[1] {
            class::SUBNET_ADMINISTRATION => self.subnet_administration,
            _ => Some(self.device_management),
        }
    }

    fn write(&self, to: &Address, header: Option<UserMadHeader>, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        let mut buffer = [0_u8; size_of::<UserMadHeader>() + MAD_LEN];
        let written = match header {
            None => Err(io::Error::other("this port has no subnet administration")),
            Some(header) => {
                let (head, body) = buffer.split_at_mut(size_of::<UserMadHeader>());
                head.copy_from_slice(header.as_bytes());
                body.copy_from_slice(mad);
                retry_on_intr(|| rustix::io::write(&self.file, &buffer)).map_err(io::Error::from)
            }
        };
        let cause = match written {
            Ok(len) if len == buffer.len() => return Ok(()),
            Ok(len) => io::Error::other(format!("the kernel took {len} bytes of {}", buffer.len())),
            Err(cause) => cause,
        };
        let remedy = send_remedy(&cause);
        Err(SendError {
            to: to.to_string(),
            cause,
            remedy,
        })
    }

    /// Reads one event; `None` when the kernel has none.
    fn read(&mut self) -> Result<Option<Event>, TransportError> {
        let mut buffer = vec![0_u8; READ_LEN];
        let mut read = retry_on_intr(|| rustix::io::read(&self.file, &mut buffer[..]));
        if read == Err(Errno::NOSPC) {
            // The header has come all the same, and tells the length; the table waits for the next read.
            let len = UserMadHeader::split(&buffer).map_or(0, |(header, _)| header.total_len());
            if !(READ_LEN..=TABLE_LIMIT).contains(&len) {
                let cause = io::Error::other(format!("a table of {len} bytes is not read"));
                return Err(TransportError { cause });
            }
            buffer = vec![0; len];
            read = retry_on_intr(|| rustix::io::read(&self.file, &mut buffer[..]));
        }
        let len = match read {
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
        let header = self
            .agent_for(mad)
            .map(|agent| UserMadHeader::request(agent, to, patience));
        self.write(to, header, mad)
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        let header = self.agent_for(mad).map(|agent| UserMadHeader::answer(agent, to));
        self.write(to, header, mad)
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
        let missing = Umad::open_path(Path::new("/nonexistent/umad0"), true, false).unwrap_err();
        assert!(matches!(missing, OpenError::NoNode { .. }), "{missing}");
        let foreign = Umad::open_path(Path::new("/dev/null"), false, false).unwrap_err();
        assert!(matches!(foreign, OpenError::Register { .. }), "{foreign}");
    }
}
