//! Finding out what a target has: its logical units, and for each what it is and how to use it.
//!
//! Knows no runtime and no session: commands go through [`Execute`]. Everything is bounded, whatever the target
//! answers: the number of commands, of retries, and the memory for answers.

mod command;
mod probe;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

pub use probe::probe;

use self::command::{Answer, run};
use super::capacity::{CapacityError, UnusableBlockSize};
use super::cdb::Cdb;
use super::inquiry::{InquiryTruncated, PeripheralType};
use super::report_luns::{LunList, LunListTruncated};
use super::sense::Sense;
use super::{BlockError, Lun};

/// What carries commands to a target.
pub trait Execute {
    /// Sends one command that reads at most `data_in` bytes and waits for its end. Retries at the transport
    /// only; statuses come back as they are.
    fn execute(&self, lun: Lun, cdb: Cdb, data_in: u32) -> impl Future<Output = Result<Reply, ExecuteError>> + Send;

    /// Waits, for a logical unit that is not ready yet or busy.
    fn pause(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// How a command ended at the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// SCSI status.
    pub status: u8,
    /// Sense data, if there was some and it could be read.
    pub sense: Option<Sense>,
    /// The bytes that came.
    pub data: Vec<u8>,
}

/// A command that got no answer from the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command could not be carried out: {0}")]
pub struct ExecuteError(#[from] pub BlockError);

/// Why a logical unit, or the list of them, could not be brought up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BringUpError {
    /// No answer.
    #[error("{command}: {source}")]
    Execute {
        /// The command.
        command: &'static str,
        /// Why.
        source: ExecuteError,
    },
    /// The target failed it.
    #[error("{command} failed with {}", ending(*status, sense.as_ref()))]
    Failed {
        /// The command.
        command: &'static str,
        /// SCSI status.
        status: u8,
        /// Sense, if there was some.
        sense: Option<Sense>,
    },
    /// It went on asking for a retry.
    #[error("{command} still answers {} after {attempts} attempts", ending(*status, sense.as_ref()))]
    Exhausted {
        /// The command.
        command: &'static str,
        /// How often it was sent.
        attempts: u32,
        /// The last SCSI status.
        status: u8,
        /// The last sense, if there was some.
        sense: Option<Sense>,
    },
    /// INQUIRY data of no use.
    #[error(transparent)]
    Inquiry(#[from] InquiryTruncated),
    /// READ CAPACITY data of no use.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// REPORT LUNS data of no use.
    #[error(transparent)]
    LunList(#[from] LunListTruncated),
}

fn ending(status: u8, sense: Option<&Sense>) -> String {
    sense.map_or_else(|| format!("status {status:#04x}"), Sense::to_string)
}

/// What a logical unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalUnit {
    /// Its number.
    pub lun: Lun,
    /// Peripheral qualifier; 0 is a unit that is there.
    pub qualifier: u8,
    /// What kind of device.
    pub kind: PeripheralType,
    /// T10 vendor.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Product revision.
    pub revision: String,
    /// Unit serial number, if it has one.
    pub serial: Option<String>,
    /// The name most likely unique, such as `naa.6001405…`, if it has one.
    pub identifier: Option<String>,
    /// How to use it as a disk, or why that is not possible.
    pub disk: Result<DiskGeometry, NotADisk>,
}

/// Why a logical unit cannot be a disk here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotADisk {
    /// There is no unit with this number.
    #[error("there is no logical unit with this number")]
    Absent,
    /// The unit is known to the target but not connected.
    #[error("the logical unit is not connected (peripheral qualifier {0})")]
    NotConnected(u8),
    /// It is something else.
    #[error("not a disk but of type: {0}")]
    Kind(PeripheralType),
    /// A block size Linux cannot use.
    #[error(transparent)]
    BlockSize(#[from] UnusableBlockSize),
}

/// A disk. Lengths and limits are in logical blocks unless they say bytes; `None` is "not reported".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskGeometry {
    /// Bytes in a logical block: 512, 1024, 2048 or 4096.
    pub block_size: u32,
    /// How many there are.
    pub blocks: u64,
    /// Bytes in a physical block.
    pub physical_block_size: u32,
    /// The longest read or write.
    pub max_transfer_blocks: Option<u32>,
    /// The best length of reads and writes.
    pub optimal_transfer_blocks: Option<u32>,
    /// Reads and writes are best a multiple of this.
    pub optimal_granularity_blocks: Option<u16>,
    /// Writing is not possible.
    pub read_only: bool,
    /// There is a volatile write cache, so that flushes matter. Taken as absent when the unit does not say.
    pub write_cache: bool,
    /// FUA is honoured.
    pub dpo_fua: bool,
    /// The medium rotates.
    pub rotational: Option<bool>,
    /// Protection information type the unit is formatted with.
    pub protection: Option<u8>,
    /// Deallocated blocks read as zeros.
    pub deallocated_reads_zeros: bool,
    /// UNMAP, if it can be used.
    pub unmap: Option<UnmapLimits>,
    /// WRITE SAME (16) with the UNMAP bit deallocates.
    pub write_same_unmaps: bool,
    /// The most blocks of one WRITE SAME.
    pub max_write_same_blocks: Option<u64>,
}

/// What one UNMAP may do, in logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnmapLimits {
    /// The most blocks, over all descriptors.
    pub max_blocks: u32,
    /// The most descriptors.
    pub max_descriptors: u32,
    /// Deallocation happens in multiples of this; 1 when not reported.
    pub granularity: u32,
    /// The first block a multiple is counted from.
    pub alignment: u32,
}

/// Bytes of the first REPORT LUNS: 511 units.
const FIRST_LIST: u32 = 4096;
/// Bytes of the longest list fetched: 16,383 units.
const LONGEST_LIST: u32 = 128 * 1024;

/// The logical units of a target, in its order, each once. A target that does not know REPORT LUNS has LUN 0.
///
/// Of a list that grows while it is fetched, or is longer than 16,383 units, the part that came is returned.
///
/// # Errors
/// When the target does not answer, or answers something else.
pub async fn report_luns<E: Execute + Sync>(exec: &E) -> Result<Vec<Lun>, BringUpError> {
    let mut allocation = FIRST_LIST;
    loop {
        let cdb = Cdb::report_luns(0, allocation);
        let data = match run(exec, Lun::default(), cdb, allocation, "REPORT LUNS").await? {
            Answer::Data(data) => data,
            Answer::Refused { .. } => return Ok(vec![Lun::default()]),
        };
        let list = LunList::parse(&data)?;
        let needed = u32::try_from(list.needed()).unwrap_or(u32::MAX).min(LONGEST_LIST);
        if !list.is_truncated() || needed <= allocation {
            let mut seen = std::collections::HashSet::new();
            return Ok(list.luns.into_iter().filter(|lun| seen.insert(*lun)).collect());
        }
        // Grows every time round, up to a limit: it ends.
        allocation = needed;
    }
}
