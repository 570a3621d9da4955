//! READ CAPACITY data (SBC-3).

use super::field;

/// How big a logical unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// A physical block has two to this power logical blocks.
    pub physical_exponent: u8,
    /// The lowest logical block that begins a physical one.
    pub lowest_aligned: u16,
    /// Logical block provisioning is managed (LBPME).
    pub provisioned: bool,
    /// Deallocated blocks read as zeros (LBPRZ).
    pub reads_zeros: bool,
    /// Protection information type (P_TYPE + 1), if formatted with it.
    pub protection: Option<u8>,
}

/// READ CAPACITY data that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// Too short.
    #[error("READ CAPACITY returned {have} of {need} bytes")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes returned.
        have: usize,
    },
    /// READ CAPACITY (10) cannot express the size.
    #[error("the logical unit is too big for READ CAPACITY (10) and refuses READ CAPACITY (16)")]
    Needs16,
    /// More bytes than 64 bits count.
    #[error("last block {last} of {block_size} bytes: not a possible size")]
    Overflow {
        /// The last logical block address.
        last: u64,
        /// The block size.
        block_size: u32,
    },
}

/// A block size that a Linux block device cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("logical blocks of {0} bytes: only 512, 1024, 2048 and 4096 can be used; reformat the unit")]
pub struct UnusableBlockSize(pub u32);

impl Capacity {
    /// Reads READ CAPACITY (10) data.
    ///
    /// # Errors
    /// When it is too short, or says that the 16-byte command is needed.
    pub fn parse_10(data: &[u8]) -> Result<Self, CapacityError> {
        let truncated = CapacityError::Truncated {
            need: 8,
            have: data.len(),
        };
        let last = field::u32(data, 0).ok_or(truncated)?;
        let block_size = field::u32(data, 4).ok_or(truncated)?;
        if last == u32::MAX {
            return Err(CapacityError::Needs16);
        }
        Self::new(u64::from(last), block_size)
    }

    /// Reads READ CAPACITY (16) data; the flags of old, shorter data are unset.
    ///
    /// # Errors
    /// When it is too short or the size is impossible.
    pub fn parse_16(data: &[u8]) -> Result<Self, CapacityError> {
        let truncated = CapacityError::Truncated {
            need: 12,
            have: data.len(),
        };
        let last = field::u64(data, 0).ok_or(truncated)?;
        let block_size = field::u32(data, 8).ok_or(truncated)?;
        let protection = field::u8(data, 12).unwrap_or(0);
        let alignment = field::u16(data, 14).unwrap_or(0);
        Ok(Self {
            physical_exponent: field::u8(data, 13).unwrap_or(0) & 0x0f,
            lowest_aligned: alignment & 0x3fff,
            provisioned: alignment & 0x8000 != 0,
            reads_zeros: alignment & 0x4000 != 0,
            protection: (protection & 0x01 != 0).then_some(((protection >> 1) & 0x07) + 1),
            ..Self::new(last, block_size)?
        })
    }

    fn new(last: u64, block_size: u32) -> Result<Self, CapacityError> {
        let overflow = CapacityError::Overflow { last, block_size };
        let blocks = last.checked_add(1).ok_or(overflow)?;
        blocks.checked_mul(u64::from(block_size)).ok_or(overflow)?;
        Ok(Self {
            blocks,
            block_size,
            physical_exponent: 0,
            lowest_aligned: 0,
            provisioned: false,
            reads_zeros: false,
            protection: None,
        })
    }

    /// The block size, if a Linux block device can have it: a power of two from 512 to 4096.
    ///
    /// # Errors
    /// When not.
    pub const fn usable_block_size(&self) -> Result<u32, UnusableBlockSize> {
        match self.block_size {
            512 | 1024 | 2048 | 4096 => Ok(self.block_size),
            other => Err(UnusableBlockSize(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        let ten = Capacity::parse_10(&[0, 0, 0xff, 0xff, 0, 0, 2, 0]).unwrap();
        assert_eq!(
            (ten.blocks, ten.block_size, ten.usable_block_size()),
            (0x1_0000, 512, Ok(512))
        );
        assert_eq!(Capacity::parse_10(&[0xff; 8]), Err(CapacityError::Needs16));
        let truncated = CapacityError::Truncated { need: 8, have: 7 };
        assert_eq!(Capacity::parse_10(&[0; 7]), Err(truncated));

        let mut data = [0; 32];
        data[7] = 99;
        data[10] = 0x10;
        data[12] = 0x03;
        data[13] = 0xf3;
        data[14..16].copy_from_slice(&[0xc0, 5]);
        let expected = Capacity {
            blocks: 100,
            block_size: 4096,
            physical_exponent: 3,
            lowest_aligned: 5,
            provisioned: true,
            reads_zeros: true,
            protection: Some(2),
        };
        assert_eq!(Capacity::parse_16(&data), Ok(expected));
        assert!(!Capacity::parse_16(&data[..12]).unwrap().provisioned);
        data[..8].fill(0xff);
        assert!(matches!(Capacity::parse_16(&data), Err(CapacityError::Overflow { .. })));
        data[7] = 0xfe;
        assert!(matches!(Capacity::parse_16(&data), Err(CapacityError::Overflow { .. })));
        let odd = Capacity {
            block_size: 520,
            ..expected
        };
        assert_eq!(odd.usable_block_size(), Err(UnusableBlockSize(520)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(data in prop::collection::vec(any::<u8>(), 0..40)) {
            for capacity in [Capacity::parse_10(&data), Capacity::parse_16(&data)].into_iter().flatten() {
                prop_assert!(capacity.blocks.checked_mul(u64::from(capacity.block_size)).is_some());
            }
        }
    }
}
