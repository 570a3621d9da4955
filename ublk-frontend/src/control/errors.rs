//! Why a device's life did not take its next step, and what to do about it.

use std::io;

use thiserror::Error;

use super::params::ParamError;
use super::preflight::PreflightError;

/// Why a device was not added.
#[derive(Debug, Error)]
pub enum AddError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// The host is not ready.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The number is in use.
    #[error("/dev/ublkc{0} exists already: choose another number, or remove the device if its server is gone")]
    Taken(u32),
    /// The driver said no.
    #[error("the driver did not add a device: {0}; dmesg may say why")]
    Refused(#[source] io::Error),
    /// The device came without its node.
    #[error("/dev/ublkc{id} cannot be opened: {source}; is devtmpfs mounted, is udev busy?")]
    Node {
        /// The device, which has been deleted again.
        id: u32,
        /// The cause.
        source: io::Error,
    },
    /// The command hangs, or its thread failed.
    #[error("ADD_DEV: {0}; look into dmesg for an oops of ublk_drv (some kernels have them)")]
    Unfinished(String),
}

/// Why a device did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Not a device to be started.
    #[error("device {0} was started before")]
    Again(u32),
    /// The driver said no.
    #[error("device {id} does not start: {source}; stop and delete it")]
    Refused {
        /// The device.
        id: u32,
        /// The cause.
        source: io::Error,
    },
    /// The command hangs, or its thread failed.
    #[error(
        "device {id}: START_DEV: {why}; the kernel waits for a queue that is not served, or for I/O to the device that \
         nobody answers: fail that I/O, then stop the device"
    )]
    Unfinished {
        /// The device.
        id: u32,
        /// What is known.
        why: String,
    },
}

/// Why a device did not stop.
#[derive(Debug, Error)]
pub enum StopError {
    /// The driver said no.
    #[error("device {id} does not stop: {source}")]
    Refused {
        /// The device.
        id: u32,
        /// The cause.
        source: io::Error,
    },
    /// The command hangs, or its thread failed.
    #[error("device {id}: STOP_DEV: {why}; it waits for requests the server still has: fail them, then try again")]
    Unfinished {
        /// The device.
        id: u32,
        /// What is known.
        why: String,
    },
}

/// Why a device was not deleted.
#[derive(Debug, Error)]
pub enum DeleteError {
    /// Queues of it are still served.
    #[error("device {0}: a reactor still serves it: wait until every reactor has let go of it")]
    Served(u32),
    /// It was not stopped.
    #[error("device {0} is live: stop it first (deleting it now would hold up the commands of every other device)")]
    Live(u32),
    /// The driver said no.
    #[error("device {id} is not deleted: {source}")]
    Refused {
        /// The device.
        id: u32,
        /// The cause.
        source: io::Error,
    },
    /// The command hangs, or its thread failed.
    #[error("device {id}: DEL_DEV_ASYNC: {why}; look into dmesg")]
    Unfinished {
        /// The device.
        id: u32,
        /// What is known.
        why: String,
    },
}
