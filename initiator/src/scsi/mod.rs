//! SCSI: commands, sense, and what a logical unit says of itself.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cdb;
pub mod lun;
pub mod outcome;
pub mod sense;

mod additional_sense;
mod field;

pub use cdb::Cdb;
pub use lun::{Lun, LunSet};
pub use outcome::BlockError;
