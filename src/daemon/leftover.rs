//! What a daemon that was killed has left behind: devices without disk, which hold their numbers for ever.

use std::fs;
use std::time::Duration;

use ublk_frontend::control::{self, DeviceState};

/// Deleting a dead device waits for nothing.
const LIMIT: Duration = Duration::from_secs(2);

/// Deletes the dead devices of earlier daemons. What cannot be told or deleted is logged and left.
pub(crate) fn sweep() {
    let entries = match control::list_devices() {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "devices left behind cannot be looked for"),
    };
    for entry in entries {
        // libublk's state file says whose it was; the kernel does not know.
        let state_file = format!("/run/ublksrvd/{:04}.json", entry.id);
        let ours = fs::read_to_string(&state_file).is_ok_and(|text| text.contains("\"ublk-srp\""));
        if entry.state != DeviceState::Dead || !ours {
            continue;
        }
        match control::delete_device(entry.id, LIMIT) {
            Ok(_) => {
                tracing::info!(device = entry.id, "removed what a daemon that was killed had left");
                if let Err(error) = fs::remove_file(&state_file) {
                    tracing::debug!(%error, state_file, "state file");
                }
            }
            Err(error) => tracing::warn!(device = entry.id, %error, "a dead device stays behind"),
        }
    }
}
