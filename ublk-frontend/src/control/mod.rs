//! Making, starting, stopping and removing ublk devices, and finding out what is there and who uses it.
//!
//! Everything here may block and is meant for the control side, never for a reactor. Each command runs on a thread of
//! its own with all signals blocked and a ring of its own, which end with it, so a kernel that does not answer costs
//! the caller its time limit and no more.

mod bounded;
mod device;
mod errors;
mod flush;
mod holders;
mod list;
mod params;
mod preflight;
mod processors;

pub use device::{Deleted, Device, DeviceConfig, Recovery, delete_device, stop_device};
pub use errors::{AddError, DeleteError, StartError, StopError};
pub use flush::{FlushError, flush};
pub use holders::{Holder, HoldersError, Use, holders};
pub use list::{DeviceEntry, DeviceState, ListError, list_devices};
pub use params::{DeviceParams, Discard, ParamError};
pub use preflight::{Features, PreflightError, check};
pub use processors::only_processors;

use std::path::PathBuf;

fn char_node(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkc{id}"))
}

fn block_name(id: u32) -> String {
    format!("ublkb{id}")
}
