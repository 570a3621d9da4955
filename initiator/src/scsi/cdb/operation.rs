//! What a command descriptor block asks for, as a target reads it.

use super::*;
use crate::scsi::field;

/// A command as a target understands it. Lengths are in bytes, LBAs and block counts in logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// TEST UNIT READY.
    TestUnitReady,
    /// INQUIRY; `page` is the VPD page, `None` for standard data.
    Inquiry {
        /// The VPD page.
        page: Option<u8>,
        /// Most bytes to return.
        allocation: u16,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// Most bytes to return.
        allocation: u32,
    },
    /// READ CAPACITY (10).
    ReadCapacity10,
    /// READ CAPACITY (16).
    ReadCapacity16 {
        /// Most bytes to return.
        allocation: u32,
    },
    /// MODE SENSE (6).
    ModeSense6 {
        /// The page.
        page: u8,
        /// Most bytes to return.
        allocation: u8,
        /// Without block descriptors.
        dbd: bool,
    },
    /// MODE SENSE (10).
    ModeSense10 {
        /// The page.
        page: u8,
        /// Most bytes to return.
        allocation: u16,
        /// Without block descriptors.
        dbd: bool,
    },
    /// READ (6), (10), (12) or (16).
    Read {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
        /// From the medium, not the cache.
        fua: bool,
    },
    /// WRITE (6), (10), (12) or (16).
    Write {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
        /// On the medium before status.
        fua: bool,
    },
    /// SYNCHRONIZE CACHE (10) or (16).
    SynchronizeCache {
        /// First block.
        lba: u64,
        /// How many; 0 is up to the end.
        blocks: u32,
    },
    /// UNMAP.
    Unmap {
        /// Bytes of parameter list.
        parameter_len: u16,
    },
    /// WRITE SAME (16).
    WriteSame {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
        /// Deallocating is fine.
        unmap: bool,
    },
    /// Anything else, by operation code.
    Other(u8),
}

impl Cdb {
    /// What the command asks for, as a target reads it.
    #[must_use]
    pub fn operation(&self) -> Operation {
        let b = &self.bytes;
        let short = |at| field::u16(b, at).unwrap_or(0);
        let word = |at| field::u32(b, at).unwrap_or(0);
        let long = |at| field::u64(b, at).unwrap_or(0);
        let fua = b[1] & FUA != 0;
        let dbd = b[1] & DBD != 0;
        let read = |lba, blocks| Operation::Read { lba, blocks, fua };
        let write = |lba, blocks| Operation::Write { lba, blocks, fua };
        // In the 6-byte forms LBA has 21 bits, 0 means 256 blocks, and there is no FUA.
        let lba_6 = u64::from(word(0) & 0x001f_ffff);
        let blocks_6 = if b[4] == 0 { 256 } else { u32::from(b[4]) };
        match b[0] {
            TEST_UNIT_READY => Operation::TestUnitReady,
            INQUIRY => Operation::Inquiry {
                page: (b[1] & EVPD != 0).then_some(b[2]),
                allocation: short(3),
            },
            REPORT_LUNS => Operation::ReportLuns {
                select: b[2],
                allocation: word(6),
            },
            READ_CAPACITY_10 => Operation::ReadCapacity10,
            SERVICE_ACTION_IN_16 if b[1] & 0x1f == READ_CAPACITY_16 => {
                Operation::ReadCapacity16 { allocation: word(10) }
            }
            MODE_SENSE_6 => Operation::ModeSense6 {
                page: b[2] & 0x3f,
                allocation: b[4],
                dbd,
            },
            MODE_SENSE_10 => Operation::ModeSense10 {
                page: b[2] & 0x3f,
                allocation: short(7),
                dbd,
            },
            READ_6 => Operation::Read {
                lba: lba_6,
                blocks: blocks_6,
                fua: false,
            },
            WRITE_6 => Operation::Write {
                lba: lba_6,
                blocks: blocks_6,
                fua: false,
            },
            READ_10 => read(word(2).into(), short(7).into()),
            WRITE_10 => write(word(2).into(), short(7).into()),
            READ_12 => read(word(2).into(), word(6)),
            WRITE_12 => write(word(2).into(), word(6)),
            READ_16 => read(long(2), word(10)),
            WRITE_16 => write(long(2), word(10)),
            SYNCHRONIZE_CACHE_10 => Operation::SynchronizeCache {
                lba: word(2).into(),
                blocks: short(7).into(),
            },
            SYNCHRONIZE_CACHE_16 => Operation::SynchronizeCache {
                lba: long(2),
                blocks: word(10),
            },
            UNMAP => Operation::Unmap {
                parameter_len: short(7),
            },
            WRITE_SAME_16 => Operation::WriteSame {
                lba: long(2),
                blocks: word(10),
                unmap: b[1] & WRITE_SAME_UNMAP != 0,
            },
            other => Operation::Other(other),
        }
    }
}
