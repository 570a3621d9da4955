//! One device, from ADD_DEV to DEL_DEV.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use libublk::sys::{
    UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_USER_COPY, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE, UBLK_S_DEV_LIVE,
    ublk_params,
};
use libublk::{UblkError, UblkFlags};

use super::bounded::{Unfinished, bounded};
use super::errors::{AddError, DeleteError, StartError, StopError};
use super::params::{DeviceParams, ParamError, require};
use super::preflight::secure_state_folder;
use super::{block_name, char_node};
use crate::ring::{ControlError, ControlRing, duplicate};

/// A healthy kernel adds a device in milliseconds; some have oopsed there and left the command hanging.
const ADD_LIMIT: Duration = Duration::from_secs(10);
/// For commands that ask or that undo.
const SHORT_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// What happens to a device whose server dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// It is removed.
    #[default]
    None,
    /// It waits for a successor; requests its server had are issued again to that.
    Reissue,
}

/// A device to be made.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// The number N of `/dev/ublkbN`, or any free one.
    pub id: Option<u32>,
    /// Hardware queues; the driver makes no more than there are CPUs.
    pub queues: u16,
    /// Tags of each queue, at most 4,096.
    pub depth: u16,
    /// What the disk is like.
    pub params: DeviceParams,
    /// What happens when the server dies.
    pub recovery: Recovery,
}

/// What has become of a deleted device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Nodes and number are free.
    Gone,
    /// The driver keeps the number until the last user of the block device lets go; see [`holders`](super::holders).
    Held,
}

/// What libublk keeps between ADD_DEV and START_DEV.
struct Unstarted {
    control: UblkCtrl,
    target: UblkDev,
}

/// A device of this process. Dropping it closes our end, no more: what the driver does then depends on its
/// [`Recovery`].
pub struct Device {
    id: u32,
    queues: u16,
    depth: u16,
    max_io_bytes: u32,
    char_device: Option<Arc<OwnedFd>>,
    unstarted: Option<Unstarted>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("id", &self.id)
            .field("queues", &self.queues)
            .field("depth", &self.depth)
            .field("started", &self.unstarted.is_none())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// ADD_DEV. `/dev/ublkcN` exists afterwards, `/dev/ublkbN` only after [`start`](Self::start).
    pub fn add(config: &DeviceConfig) -> Result<Self, AddError> {
        let page_size = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
        let params = config.params.to_ublk(page_size)?;
        require(
            (1..=4096).contains(&config.queues),
            "queues",
            config.queues,
            "must be 1 to 4096",
        )?;
        require(
            (1..=4096).contains(&config.depth),
            "depth",
            config.depth,
            "must be 1 to 4096",
        )?;
        let id = match config.id {
            None => -1,
            Some(id) => i32::try_from(id).map_err(|_| ParamError {
                field: "id",
                value: id.into(),
                rule: "must be less than 2^31",
            })?,
        };
        secure_state_folder()?;
        let config = config.clone();
        let add = move || add_here(&config, id, params);
        let undo = |late: Result<Self, AddError>| {
            if let Ok(mut device) = late {
                tracing::warn!(device = device.id, "ADD_DEV came back after all: deleting the device");
                if let Err(error) = device.delete(SHORT_LIMIT) {
                    tracing::error!(%error, "a late device");
                }
            }
        };
        bounded(ADD_LIMIT, add, undo).map_err(|unfinished| AddError::Unfinished(unfinished.to_string()))?
    }

    /// N of `/dev/ublkbN`.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Queues the driver made, each to be added to a reactor.
    #[must_use]
    pub const fn queues(&self) -> u16 {
        self.queues
    }

    /// Tags of each queue.
    #[must_use]
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// Longest read or write.
    #[must_use]
    pub const fn max_io_bytes(&self) -> u32 {
        self.max_io_bytes
    }

    /// `/dev/ublkcN`, for [`AddQueue`](crate::reactor::AddQueue); `None` after a delete.
    #[must_use]
    pub fn char_device(&self) -> Option<Arc<OwnedFd>> {
        self.char_device.clone()
    }

    /// SET_PARAMS and START_DEV; returns when `/dev/ublkbN` is there. Only after every queue was added with success,
    /// and while the backend answers: the kernel may read the partition table meanwhile.
    pub fn start(&mut self, limit: Duration) -> Result<(), StartError> {
        let id = self.id;
        let Some(unstarted) = self.unstarted.take() else {
            return Err(StartError::Again(id));
        };
        // libublk's objects go with the thread, and with them the second descriptor of /dev/ublkcN.
        let result =
            bounded(limit, move || start_here(&unstarted), |_| ()).map_err(|unfinished| StartError::Unfinished {
                id,
                why: unfinished.to_string(),
            })?;
        result.map_err(|source| StartError::Refused { id, source })
    }

    /// [`stop_device`]; also ends the fetches of a device that was never started.
    pub fn stop(&self, limit: Duration) -> Result<(), StopError> {
        stop_device(self.id, limit)
    }

    /// Closes `/dev/ublkcN` and removes the device. To be called when it is stopped and every reactor has answered
    /// [`remove_device`](crate::reactor::ReactorHandle::remove_device).
    pub fn delete(&mut self, limit: Duration) -> Result<Deleted, DeleteError> {
        if self.char_device.as_ref().is_some_and(|fd| Arc::strong_count(fd) > 1) {
            return Err(DeleteError::Served(self.id));
        }
        self.unstarted = None;
        self.char_device = None;
        delete_device(self.id, limit)
    }
}

/// STOP_DEV for any device. On a device with recovery, what is dirty in the page cache is lost unless it was
/// [flushed](super::flush) before. Waits for requests the server has: fail those first when the target is dead.
/// One that is not there any more is as good as stopped.
pub fn stop_device(id: u32, limit: Duration) -> Result<(), StopError> {
    match command(limit, move |ring| ring.stop(id, limit)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.errno() == Some(libc::ENODEV) => Ok(()),
        Ok(Err(ControlError::Failed(source))) => Err(StopError::Refused { id, source }),
        Ok(Err(late @ ControlError::TimedOut(_))) => Err(StopError::Unfinished {
            id,
            why: late.to_string(),
        }),
        Err(unfinished) => Err(StopError::Unfinished {
            id,
            why: unfinished.to_string(),
        }),
    }
}

/// DEL_DEV_ASYNC for any device that is not live, and a look whether it is gone; it may have gone before.
pub fn delete_device(id: u32, limit: Duration) -> Result<Deleted, DeleteError> {
    let deadline = Instant::now() + limit;
    let unfinished = |why: String| DeleteError::Unfinished { id, why };
    let done = command(limit, move |ring| {
        let info = ring.info(id, SHORT_LIMIT)?;
        if u32::from(info.state) == UBLK_S_DEV_LIVE {
            return Ok(false);
        }
        ControlRing::open()?.delete_async(id, limit)?;
        Ok(true)
    });
    match done {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Err(DeleteError::Live(id)),
        Ok(Err(error)) if error.errno() == Some(libc::ENODEV) => return Ok(Deleted::Gone),
        Ok(Err(ControlError::Failed(source))) => return Err(DeleteError::Refused { id, source }),
        Ok(Err(late @ ControlError::TimedOut(_))) => return Err(unfinished(late.to_string())),
        Err(late) => return Err(unfinished(late.to_string())),
    }
    let number_free = move || {
        let asked = command(SHORT_LIMIT, move |ring| ring.info(id, SHORT_LIMIT));
        matches!(asked, Ok(Err(error)) if error.errno() == Some(libc::ENODEV))
    };
    loop {
        let nodes = char_node(id).exists() || std::path::Path::new("/dev").join(block_name(id)).exists();
        if !nodes && number_free() {
            return Ok(Deleted::Gone);
        }
        if Instant::now() >= deadline {
            return Ok(Deleted::Held);
        }
        thread::sleep(POLL);
    }
}

/// A command of our own, on a thread of its own.
pub(super) fn command<T: Send + 'static>(
    limit: Duration,
    send: impl FnOnce(ControlRing) -> Result<T, ControlError> + Send + 'static,
) -> Result<Result<T, ControlError>, Unfinished> {
    // The command has its own limit and cancels itself; the thread's is for a kernel that does not even do that.
    bounded(limit + SHORT_LIMIT, move || send(ControlRing::open()?), |_| ())
}

fn add_here(config: &DeviceConfig, id: i32, params: ublk_params) -> Result<Device, AddError> {
    let recovery = match config.recovery {
        Recovery::None => 0,
        Recovery::Reissue => UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE,
    };
    let built = UblkCtrlBuilder::default()
        .name("ublk-srp")
        .id(id)
        .nr_queues(config.queues)
        .depth(config.depth)
        .io_buf_bytes(config.params.max_io_bytes)
        .ctrl_flags(u64::from(UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE | recovery))
        .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV | UblkFlags::UBLK_DEV_F_DEL_DEV_ASYNC)
        .build();
    let control = match built {
        Ok(control) => control,
        Err(error) => {
            let error = io_error(error);
            return Err(match (error.raw_os_error(), config.id) {
                (Some(libc::EEXIST), Some(id)) => AddError::Taken(id),
                _ => AddError::Refused(error),
            });
        }
    };
    // From here on its drop sends no DEL_DEV: on whatever thread that happened, it would panic for want of a ring
    // there, and it would delete a device that is in use.
    control.disown();
    let info = control.dev_info();
    // libublk takes EBUSY for success; then the driver has filled in no number.
    if info.dev_id == u32::MAX {
        return Err(AddError::Refused(io::Error::from_raw_os_error(libc::EBUSY)));
    }
    let id = info.dev_id;
    let opened = UblkDev::new(
        "ublk-srp".into(),
        |target| {
            target.tgt.dev_size = params.basic.dev_sectors << 9;
            target.tgt.params = params;
            Ok(())
        },
        &control,
    )
    .map_err(io_error)
    // UblkDev lends its descriptor as a number only, and START_DEV needs UblkDev, which may not open it twice.
    .and_then(|target| Ok((duplicate(target.tgt.fds[0])?, target)));
    let (char_device, target) = match opened {
        Ok(opened) => opened,
        Err(source) => {
            let deleted = ControlRing::open()
                .map_err(Into::into)
                .and_then(|ring| ring.delete_async(id, SHORT_LIMIT));
            if let Err(error) = deleted {
                tracing::error!(device = id, %error, "a device without node is left behind");
            }
            return Err(AddError::Node { id, source });
        }
    };
    Ok(Device {
        id,
        queues: info.nr_hw_queues,
        depth: info.queue_depth,
        max_io_bytes: config.params.max_io_bytes.min(info.max_io_buf_bytes),
        char_device: Some(Arc::new(char_device)),
        unstarted: Some(Unstarted { control, target }),
    })
}

fn start_here(unstarted: &Unstarted) -> io::Result<()> {
    // libublk's control ring is per thread and made with a device only; elsewhere its commands panic.
    libublk::ublk_init_ctrl_task_ring(|ring| {
        if ring.is_none() {
            *ring = Some(IoUring::builder().build(16)?);
        }
        Ok(())
    })
    .map_err(io_error)?;
    match unstarted.control.start_dev(&unstarted.target) {
        Ok(0..) => Ok(()),
        // EBUSY comes as a success of libublk's.
        Ok(code) => Err(io::Error::from_raw_os_error(-code)),
        Err(error) => Err(io_error(error)),
    }
}

fn io_error(error: UblkError) -> io::Error {
    match error {
        UblkError::UringIOError(code) | UblkError::OtherError(code) => io::Error::from_raw_os_error(-code),
        UblkError::IOError(error) => error,
        UblkError::InvalidVal => io::Error::from_raw_os_error(libc::EINVAL),
        other => io::Error::other(other),
    }
}
