//! Control commands on `/dev/ublk-control` that libublk cannot send for us.
//!
//! libublk drives ADD_DEV, SET_PARAMS, START_DEV and GET_FEATURES. The commands here are ours because
//!
//! * its handle of an existing device, `UblkCtrl::new_simple`, prints to standard error when it finds no state file
//!   (we keep none), so a predecessor's device can be neither asked nor removed through it in silence;
//! * `UblkCtrl` holds its lock for as long as START_DEV takes, so a device that does not come up could not be stopped;
//! * its synchronous commands wait for ever, and one interrupted wait leaves a stale completion for the next command.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use libublk::sys::{
    UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_STOP_DEV, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};
use thiserror::Error;

/// What became of a command.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The driver (or the way to it) said no.
    #[error("{0}")]
    Failed(#[source] io::Error),
    /// No answer in time; it was cancelled.
    #[error("no answer from the kernel within {0:?}")]
    TimedOut(Duration),
}

impl ControlError {
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Failed(error) => error.raw_os_error(),
            Self::TimedOut(_) => None,
        }
    }
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The driver's view of a device (`struct ublksrv_ctrl_dev_info`).
pub(crate) type DeviceInfo = ublksrv_ctrl_dev_info;

const COMMAND: u64 = 1;
const CANCEL: u64 = 2;
/// How long a cancelled command may take to come back.
const GRACE: Duration = Duration::from_millis(500);

/// A control device and a ring of its own. One per command: the driver runs a command on a worker thread of the ring,
/// which ends with it.
pub(crate) struct ControlRing {
    ring: IoUring<squeue::Entry128>,
    control: File,
}

impl ControlRing {
    pub(crate) fn open() -> io::Result<Self> {
        let control = File::options().read(true).write(true).open("/dev/ublk-control")?;
        Ok(Self {
            ring: IoUring::builder().dontfork().build(4)?,
            control,
        })
    }

    pub(crate) fn stop(self, device: u32, limit: Duration) -> Result<(), ControlError> {
        self.run::<()>(UBLK_U_CMD_STOP_DEV, simple(device), None, limit)
            .map(drop)
    }

    pub(crate) fn delete_async(self, device: u32, limit: Duration) -> Result<(), ControlError> {
        self.run::<()>(UBLK_U_CMD_DEL_DEV_ASYNC, simple(device), None, limit)
            .map(drop)
    }

    pub(crate) fn info(self, device: u32, limit: Duration) -> Result<DeviceInfo, ControlError> {
        let mut buffer = Box::new(DeviceInfo::default());
        let command = ublksrv_ctrl_cmd {
            addr: &raw mut *buffer as u64,
            len: size_of::<DeviceInfo>() as u16,
            ..simple(device)
        };
        self.run(UBLK_U_CMD_GET_DEV_INFO, command, Some(buffer), limit)?
            .map(|info| *info)
            .ok_or_else(|| ControlError::Failed(io::Error::other("the answer got lost")))
    }

    /// Sends the command and waits. `buffer` is what `command.addr` points at; it is leaked when the kernel does not
    /// let go of the command, for it may still write there.
    fn run<T>(
        mut self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<T>>,
        limit: Duration,
    ) -> Result<Option<Box<T>>, ControlError> {
        let entry = opcode::UringCmd80::new(types::Fd(self.control.as_raw_fd()), operation)
            .cmd(bytes(command))
            .build()
            .user_data(COMMAND);
        self.push(entry);
        let mut result = self.wait(limit);
        if matches!(result, Ok(None)) {
            let cancel = opcode::AsyncCancel::new(COMMAND).build().user_data(CANCEL);
            self.push(cancel.into());
            result = match self.wait(GRACE) {
                // It ended at the last moment: that is its result. Else the cancellation is.
                Ok(Some(code)) if code == -libc::ECANCELED || code == -libc::EINTR => Ok(None),
                Ok(Some(code)) => Ok(Some(code)),
                Ok(None) => {
                    std::mem::forget(buffer);
                    return Err(ControlError::TimedOut(limit));
                }
                Err(error) => Err(error),
            };
        }
        match result {
            Ok(Some(0..)) => Ok(buffer),
            Ok(Some(code)) => Err(ControlError::Failed(io::Error::from_raw_os_error(-code))),
            Ok(None) => Err(ControlError::TimedOut(limit)),
            Err(error) => {
                std::mem::forget(buffer);
                Err(ControlError::Failed(error))
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry128) {
        // SAFETY: the only memory an entry names is `run`'s buffer, which outlives the command or is leaked.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "at most two entries in a ring of four");
    }

    /// The command's result, or `None` when the time is up.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<i32>> {
        let deadline = Instant::now() + limit;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let timespec = types::Timespec::from(rest);
            let arguments = types::SubmitArgs::new().timespec(&timespec);
            let submit = self.ring.submission().len() as u32;
            let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
            // SAFETY: as in `push`; the argument is of the type EXT_ARG asks for and lives through the call.
            let entered = unsafe { self.ring.submitter().enter(submit, 1, flags.bits(), Some(&arguments)) };
            let mut done = None;
            for completion in self.ring.completion() {
                let completion: cqueue::Entry = completion;
                if completion.user_data() == COMMAND {
                    done = Some(completion.result());
                }
            }
            if done.is_some() {
                return Ok(done);
            }
            match entered {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN)) => {
                    return Err(error);
                }
                _ if rest.is_zero() => return Ok(None),
                _ => {}
            }
        }
    }
}

const NO_QUEUE: u16 = u16::MAX;

fn simple(device: u32) -> ublksrv_ctrl_cmd {
    ublksrv_ctrl_cmd {
        dev_id: device,
        queue_id: NO_QUEUE,
        ..Default::default()
    }
}

/// `struct ublksrv_ctrl_cmd` as the 80 bytes of an entry.
fn bytes(command: ublksrv_ctrl_cmd) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[0..4].copy_from_slice(&command.dev_id.to_ne_bytes());
    bytes[4..6].copy_from_slice(&command.queue_id.to_ne_bytes());
    bytes[6..8].copy_from_slice(&command.len.to_ne_bytes());
    bytes[8..16].copy_from_slice(&command.addr.to_ne_bytes());
    bytes[16..24].copy_from_slice(&command.data[0].to_ne_bytes());
    bytes[24..26].copy_from_slice(&command.dev_path_len.to_ne_bytes());
    bytes
}
