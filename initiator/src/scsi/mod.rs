//! SCSI: commands, sense, and what a logical unit says of itself.

pub mod cdb;
pub mod lun;

pub use cdb::Cdb;
pub use lun::Lun;
