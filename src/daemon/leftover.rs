//! What a daemon that was killed has left behind: devices without disk, which hold their numbers for ever.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ublk_frontend::control::{self, DeviceState};

/// Deleting a dead device waits for nothing.
const LIMIT: Duration = Duration::from_secs(2);

/// The kernel does not know whose a device is: a file says that it is ours.
fn record(number: u32) -> PathBuf {
    PathBuf::from(format!("/run/ublk-srp/ublk{number}"))
}

/// Notes that a device is ours, from before it serves anything.
pub(crate) fn remember(number: u32) {
    if let Err(error) = fs::write(record(number), []) {
        tracing::warn!(device = number, %error, "the device will not be swept up should the daemon be killed");
    }
}

/// The device is gone.
pub(crate) fn forget(number: u32) {
    if let Err(error) = fs::remove_file(record(number)) {
        tracing::debug!(device = number, %error, "record of a device");
    }
}

/// Deletes the dead devices of earlier daemons. What cannot be told or deleted is logged and left.
pub(crate) fn sweep() {
    let entries = match control::list_devices() {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "devices left behind cannot be looked for"),
    };
    for entry in entries {
        if entry.state != DeviceState::Dead || !record(entry.id).exists() {
            continue;
        }
        match control::delete_device(entry.id, LIMIT) {
            Ok(_) => {
                tracing::info!(device = entry.id, "removed what a daemon that was killed had left");
                forget(entry.id);
            }
            Err(error) => tracing::warn!(device = entry.id, %error, "a dead device stays behind"),
        }
    }
}
