//! Which ublk devices there are on this host, ours or not.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use libublk::sys::{UBLK_F_USER_RECOVERY, UBLK_S_DEV_DEAD, UBLK_S_DEV_FAIL_IO, UBLK_S_DEV_LIVE, UBLK_S_DEV_QUIESCED};
use thiserror::Error;

use super::device::command;
use crate::ring::{ControlError, ControlRing};

const CLASS: &str = "/sys/class/ublk-char";
const LIMIT: Duration = Duration::from_secs(5);

/// What the driver says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Not started, or stopped, or its server died.
    Dead,
    /// There is a `/dev/ublkbN`.
    Live,
    /// It waits for a successor of its server.
    Quiesced,
    /// The same, failing its I/O meanwhile.
    FailIo,
    /// Something newer.
    Other(u16),
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead => f.write_str("dead"),
            Self::Live => f.write_str("live"),
            Self::Quiesced => f.write_str("quiesced"),
            Self::FailIo => f.write_str("fail-io"),
            Self::Other(state) => write!(f, "state {state}"),
        }
    }
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// N of `/dev/ublkbN`.
    pub id: u32,
    /// What the driver says of it.
    pub state: DeviceState,
    /// Its server, if it has one.
    pub server: Option<u32>,
    /// Hardware queues.
    pub queues: u16,
    /// Tags of each.
    pub depth: u16,
    /// It outlives its server.
    pub recoverable: bool,
}

/// Why the list is not to be had.
#[derive(Debug, Error)]
pub enum ListError {
    /// sysfs does not tell.
    #[error("{CLASS} cannot be read: {0}")]
    Class(#[source] io::Error),
    /// The driver does not tell.
    #[error("the ublk driver does not tell about its devices: {0}; run as root, and look into dmesg")]
    Driver(String),
}

/// All devices, by number. None without a driver.
pub fn list_devices() -> Result<Vec<DeviceEntry>, ListError> {
    let mut ids = Vec::new();
    match fs::read_dir(CLASS) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(ListError::Class)?.file_name();
                ids.extend(
                    name.to_str()
                        .and_then(|name| name.strip_prefix("ublkc")?.parse::<u32>().ok()),
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ListError::Class(error)),
    }
    ids.sort_unstable();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let asked = command(LIMIT, move |first| {
        let mut entries = Vec::new();
        let mut ring = Some(first);
        for id in ids {
            let ring = ring.take().map_or_else(ControlRing::open, Ok)?;
            match ring.info(id, LIMIT) {
                Ok(info) => entries.push(DeviceEntry {
                    id,
                    state: match u32::from(info.state) {
                        UBLK_S_DEV_DEAD => DeviceState::Dead,
                        UBLK_S_DEV_LIVE => DeviceState::Live,
                        UBLK_S_DEV_QUIESCED => DeviceState::Quiesced,
                        UBLK_S_DEV_FAIL_IO => DeviceState::FailIo,
                        _ => DeviceState::Other(info.state),
                    },
                    server: u32::try_from(info.ublksrv_pid).ok().filter(|pid| *pid > 0),
                    queues: info.nr_hw_queues,
                    depth: info.queue_depth,
                    recoverable: info.flags & u64::from(UBLK_F_USER_RECOVERY) != 0,
                }),
                // Deleted since sysfs was read.
                Err(error) if error.errno() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, ControlError>(entries)
    });
    match asked {
        Ok(Ok(entries)) => Ok(entries),
        Ok(Err(error)) => Err(ListError::Driver(error.to_string())),
        Err(unfinished) => Err(ListError::Driver(unfinished.to_string())),
    }
}
