//! SCSI: commands, sense, and what a logical unit says of itself.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bringup;
pub mod capacity;
pub mod cdb;
pub mod inquiry;
pub mod lun;
pub mod mode;
pub mod outcome;
pub mod report_luns;
pub mod sense;
pub mod vpd;

mod additional_sense;
mod field;

pub use cdb::Cdb;
pub use lun::{Lun, LunSet};
pub use outcome::BlockError;
