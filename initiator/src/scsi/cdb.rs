//! Command descriptor blocks (SPC-4, SBC-3): building the ones this initiator sends. How a target reads them: [`Cdb::operation`].

mod operation;

pub use operation::Operation;

/// A command descriptor block: `len` leading bytes of `bytes` are the command, the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cdb {
    /// The command, zero-padded to the field of an SRP_CMD.
    pub bytes: [u8; 16],
    /// Length in bytes: 6, 10, 12 or 16.
    pub len: u8,
}

const FUA: u8 = 0x08;
const DBD: u8 = 0x08;
const EVPD: u8 = 0x01;
const WRITE_SAME_UNMAP: u8 = 0x08;
const READ_CAPACITY_16: u8 = 0x10;

const TEST_UNIT_READY: u8 = 0x00;
const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0a;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const UNMAP: u8 = 0x42;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const WRITE_SAME_16: u8 = 0x93;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const REPORT_LUNS: u8 = 0xa0;
const READ_12: u8 = 0xa8;
const WRITE_12: u8 = 0xaa;

impl Cdb {
    /// A CDB as received; its length follows from the operation code's group (SPC-4).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let len = match bytes[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            5 => 12,
            _ => 16,
        };
        Self { bytes, len }
    }

    /// The command without padding.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(16)]
    }

    fn new(fields: &[(usize, &[u8])]) -> Self {
        let mut bytes = [0; 16];
        for (at, field) in fields {
            bytes[*at..*at + field.len()].copy_from_slice(field);
        }
        Self::from_bytes(bytes)
    }

    /// TEST UNIT READY (SPC-4).
    #[must_use]
    pub fn test_unit_ready() -> Self {
        Self::new(&[(0, &[TEST_UNIT_READY])])
    }

    /// INQUIRY (SPC-4) for standard data of at most `allocation` bytes.
    #[must_use]
    pub fn inquiry(allocation: u16) -> Self {
        Self::new(&[(0, &[INQUIRY]), (3, &allocation.to_be_bytes())])
    }

    /// INQUIRY for a vital product data page of at most `allocation` bytes.
    #[must_use]
    pub fn inquiry_vpd(page: u8, allocation: u16) -> Self {
        Self::new(&[(0, &[INQUIRY, EVPD, page]), (3, &allocation.to_be_bytes())])
    }

    /// REPORT LUNS (SPC-4) for at most `allocation` bytes; `select` 0 asks for all but well-known units.
    #[must_use]
    pub fn report_luns(select: u8, allocation: u32) -> Self {
        Self::new(&[(0, &[REPORT_LUNS, 0, select]), (6, &allocation.to_be_bytes())])
    }

    /// READ CAPACITY (10) (SBC-3); answers 8 bytes.
    #[must_use]
    pub fn read_capacity_10() -> Self {
        Self::new(&[(0, &[READ_CAPACITY_10])])
    }

    /// READ CAPACITY (16) (SBC-3) for at most `allocation` bytes; answers 32.
    #[must_use]
    pub fn read_capacity_16(allocation: u32) -> Self {
        Self::new(&[
            (0, &[SERVICE_ACTION_IN_16, READ_CAPACITY_16]),
            (10, &allocation.to_be_bytes()),
        ])
    }

    /// MODE SENSE (6) (SPC-4) for the current values of `page`; `dbd` leaves block descriptors out.
    #[must_use]
    pub fn mode_sense_6(page: u8, allocation: u8, dbd: bool) -> Self {
        let dbd = if dbd { DBD } else { 0 };
        Self::new(&[(0, &[MODE_SENSE_6, dbd, page & 0x3f, 0, allocation])])
    }

    /// MODE SENSE (10) (SPC-4) for the current values of `page`; `dbd` leaves block descriptors out.
    #[must_use]
    pub fn mode_sense_10(page: u8, allocation: u16, dbd: bool) -> Self {
        let dbd = if dbd { DBD } else { 0 };
        Self::new(&[(0, &[MODE_SENSE_10, dbd, page & 0x3f]), (7, &allocation.to_be_bytes())])
    }

    /// READ of `blocks` logical blocks, in the 10-byte form where it reaches, else the 16-byte form.
    #[must_use]
    #[inline(always)]
    pub fn read(lba: u64, blocks: u32, fua: bool) -> Self {
        Self::transfer([READ_10, READ_16], lba, blocks, fua)
    }

    /// WRITE of `blocks` logical blocks, in the 10-byte form where it reaches, else the 16-byte form. `fua` asks
    /// for the data to be on the medium before status (SBC-3).
    #[must_use]
    #[inline(always)]
    pub fn write(lba: u64, blocks: u32, fua: bool) -> Self {
        Self::transfer([WRITE_10, WRITE_16], lba, blocks, fua)
    }

    /// In the 10-byte form where it reaches, else the 16-byte form, with the code of either.
    #[inline(always)]
    fn transfer([short, long]: [u8; 2], lba: u64, blocks: u32, fua: bool) -> Self {
        let flags = if fua { FUA } else { 0 };
        Self::of_numbers(match (u32::try_from(lba), u16::try_from(blocks)) {
            (Ok(lba), Ok(blocks)) => numbers_10(short, lba, blocks, flags),
            _ => numbers_16(long, lba, blocks, flags),
        })
    }

    /// READ (10) (SBC-3).
    #[must_use]
    pub fn read_10(lba: u32, blocks: u16, fua: bool) -> Self {
        Self::of_numbers(numbers_10(READ_10, lba, blocks, if fua { FUA } else { 0 }))
    }

    /// WRITE (10) (SBC-3).
    #[must_use]
    pub fn write_10(lba: u32, blocks: u16, fua: bool) -> Self {
        Self::of_numbers(numbers_10(WRITE_10, lba, blocks, if fua { FUA } else { 0 }))
    }

    /// READ (16) (SBC-3).
    #[must_use]
    pub fn read_16(lba: u64, blocks: u32, fua: bool) -> Self {
        Self::of_numbers(numbers_16(READ_16, lba, blocks, if fua { FUA } else { 0 }))
    }

    /// WRITE (16) (SBC-3).
    #[must_use]
    pub fn write_16(lba: u64, blocks: u32, fua: bool) -> Self {
        Self::of_numbers(numbers_16(WRITE_16, lba, blocks, if fua { FUA } else { 0 }))
    }

    /// Of two big-endian numbers: one is made for every command, and numbers stay in registers where bytes do not.
    #[inline(always)]
    fn of_numbers([first, second]: [u64; 2]) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        Self::from_bytes(bytes)
    }

    /// SYNCHRONIZE CACHE (10) (SBC-3) of the whole medium, status only once it is done.
    #[must_use]
    pub fn synchronize_cache() -> Self {
        Self::new(&[(0, &[SYNCHRONIZE_CACHE_10])])
    }

    /// SYNCHRONIZE CACHE (16) (SBC-3) of the whole medium, status only once it is done.
    #[must_use]
    pub fn synchronize_cache_16() -> Self {
        Self::new(&[(0, &[SYNCHRONIZE_CACHE_16])])
    }

    /// UNMAP (SBC-3) with a parameter list of `parameter_len` bytes, see [`unmap_list`].
    #[must_use]
    pub fn unmap(parameter_len: u16) -> Self {
        Self::new(&[(0, &[UNMAP]), (7, &parameter_len.to_be_bytes())])
    }

    /// WRITE SAME (16) (SBC-3) of the one logical block sent as data; `unmap` lets the target deallocate
    /// where that reads back the same.
    #[must_use]
    pub fn write_same_16(lba: u64, blocks: u32, unmap: bool) -> Self {
        let flags = if unmap { WRITE_SAME_UNMAP } else { 0 };
        Self::of_numbers(numbers_16(WRITE_SAME_16, lba, blocks, flags))
    }
}

/// A transfer in the 10-byte form, as two big-endian numbers.
#[inline(always)]
fn numbers_10(code: u8, lba: u32, blocks: u16, flags: u8) -> [u64; 2] {
    let blocks = u64::from(blocks);
    [begin(code, flags) | u64::from(lba) << 16 | blocks >> 8, blocks << 56]
}

/// The same in the 16-byte form.
#[cold]
fn numbers_16(code: u8, lba: u64, blocks: u32, flags: u8) -> [u64; 2] {
    [begin(code, flags) | lba >> 16, lba << 48 | u64::from(blocks) << 16]
}

/// The first two bytes.
#[inline(always)]
fn begin(code: u8, flags: u8) -> u64 {
    u64::from(code) << 56 | u64::from(flags) << 48
}

/// The parameter list of an UNMAP of one range (SBC-3).
#[must_use]
pub fn unmap_list(lba: u64, blocks: u32) -> [u8; 24] {
    let mut list = [0; 24];
    list[0..2].copy_from_slice(&22u16.to_be_bytes());
    list[2..4].copy_from_slice(&16u16.to_be_bytes());
    list[8..16].copy_from_slice(&lba.to_be_bytes());
    list[16..20].copy_from_slice(&blocks.to_be_bytes());
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_the_standard() {
        let cases: [(Cdb, &[u8]); 18] = [
            (Cdb::test_unit_ready(), &[0; 6]),
            (Cdb::inquiry(36), &[0x12, 0, 0, 0, 36, 0]),
            (Cdb::inquiry_vpd(0x83, 0x102), &[0x12, 1, 0x83, 1, 2, 0]),
            (Cdb::report_luns(0, 0x1000), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]),
            (Cdb::read_capacity_10(), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (
                Cdb::read_capacity_16(32),
                &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
            ),
            (Cdb::mode_sense_6(8, 192, false), &[0x1a, 0, 8, 0, 192, 0]),
            (
                Cdb::mode_sense_10(0x3f, 512, true),
                &[0x5a, 8, 0x3f, 0, 0, 0, 0, 2, 0, 0],
            ),
            (Cdb::read(0x0102_0304, 0x506, false), &[0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]),
            (Cdb::write(0x0102_0304, 8, true), &[0x2a, 8, 1, 2, 3, 4, 0, 0, 8, 0]),
            (
                Cdb::read(1 << 32, 8, true),
                &[0x88, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0],
            ),
            (
                Cdb::write(5, 65536, false),
                &[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 0, 0, 0],
            ),
            (
                Cdb::read_16(5, 1, false),
                &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0],
            ),
            (Cdb::synchronize_cache(), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (
                Cdb::synchronize_cache_16(),
                &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Cdb::unmap(24), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
            (
                Cdb::write_same_16(6, 7, true),
                &[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0],
            ),
            (
                Cdb::write_same_16(6, 7, false),
                &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0],
            ),
        ];
        for (cdb, expected) in cases {
            assert_eq!(cdb.as_slice(), expected);
        }
        let list = unmap_list(0x0102, 3);
        assert_eq!(
            list,
            [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0]
        );
    }

    #[test]
    fn reading_back() {
        let six = |bytes: [u8; 6]| {
            let mut padded = [0; 16];
            padded[..6].copy_from_slice(&bytes);
            Cdb::from_bytes(padded).operation()
        };
        assert_eq!(
            six([0x08, 0xe1, 2, 3, 0, 0]),
            Operation::Read {
                lba: 0x0001_0203,
                blocks: 256,
                fua: false
            }
        );
        assert_eq!(
            six([0x0a, 0, 0, 3, 9, 0]),
            Operation::Write {
                lba: 3,
                blocks: 9,
                fua: false
            }
        );
        assert_eq!(six([0xa3, 0, 0, 0, 0, 0]), Operation::Other(0xa3));
        assert_eq!(six([0x9e, 0x12, 0, 0, 0, 0]), Operation::Other(0x9e));
        assert_eq!(
            Cdb::inquiry_vpd(0xb0, 64).operation(),
            Operation::Inquiry {
                page: Some(0xb0),
                allocation: 64
            }
        );
        assert_eq!(
            Cdb::inquiry(96).operation(),
            Operation::Inquiry {
                page: None,
                allocation: 96
            }
        );
        assert_eq!(
            Cdb::mode_sense_6(8, 4, true).operation(),
            Operation::ModeSense6 {
                page: 8,
                allocation: 4,
                dbd: true
            }
        );
        assert_eq!(
            Cdb::report_luns(2, 64).operation(),
            Operation::ReportLuns {
                select: 2,
                allocation: 64
            }
        );
        assert_eq!(
            Cdb::synchronize_cache().operation(),
            Operation::SynchronizeCache { lba: 0, blocks: 0 }
        );
    }

    proptest! {
        #[test]
        fn transfers_round_trip(lba: u64, blocks: u32, fua: bool, small: bool) {
            let lba = if small { lba & 0xffff_ffff } else { lba };
            let blocks = if small { blocks & 0xffff } else { blocks };
            let cdb = Cdb::read(lba, blocks, fua);
            prop_assert_eq!(cdb.operation(), Operation::Read { lba, blocks, fua });
            let cdb = Cdb::write(lba, blocks, fua);
            prop_assert_eq!(cdb.operation(), Operation::Write { lba, blocks, fua });
            prop_assert_eq!(cdb.len, if small { 10 } else { cdb.len });
            let cdb = Cdb::write_same_16(lba, blocks, fua);
            prop_assert_eq!(cdb.operation(), Operation::WriteSame { lba, blocks, unmap: fua });
        }

        #[test]
        fn any_bytes_are_answered(bytes: [u8; 16], len: u8) {
            let _ = Cdb::from_bytes(bytes).operation();
            let _ = Cdb { bytes, len }.as_slice();
        }
    }
}
