//! What a block device is like, and the driver's words for it.

use libublk::sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_ROTATIONAL, UBLK_ATTR_VOLATILE_CACHE, UBLK_PARAM_TYPE_BASIC,
    UBLK_PARAM_TYPE_DISCARD, ublk_param_basic, ublk_param_discard, ublk_params,
};
use thiserror::Error;

const SECTOR: u32 = 512;
/// What later kernels check; earlier ones take anything.
const LARGEST_HINT: u32 = 256 << 20;
/// libublk's and the position encoding's limit.
const LARGEST_IO: u32 = 32 << 20;

/// Properties of a device, fixed from start to stop.
///
/// There is no DMA alignment: data is copied, so any memory will do, and the driver's default (4 bytes) stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceParams {
    /// Capacity in units of 512 bytes.
    pub sectors: u64,
    /// Bytes; a power of two from 512 to the page size.
    pub logical_block: u32,
    /// Bytes; a power of two, not less than the logical block.
    pub physical_block: u32,
    /// Smallest efficient transfer in bytes; 0 for the physical block.
    pub io_min: u32,
    /// Best transfer in bytes; 0 for none known. The driver knows powers of two only: the largest one that divides
    /// this is told.
    pub io_opt: u32,
    /// Longest read or write in bytes: whole pages, at most 32 MiB.
    pub max_io_bytes: u32,
    /// Writes are refused by the kernel.
    pub read_only: bool,
    /// A seek costs.
    pub rotational: bool,
    /// There is a volatile write cache: flushes are sent.
    pub write_cache: bool,
    /// Writes can bypass that cache (`fua` of a write); without a cache it means nothing and is not told.
    pub fua: bool,
    /// Discards are wanted.
    pub discard: Option<Discard>,
    /// Longest write of zeroes in units of 512 bytes; 0 for none.
    pub max_write_zeroes_sectors: u32,
}

/// How ranges can be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes: offset of the first granule.
    pub alignment: u32,
    /// Bytes.
    pub granularity: u32,
    /// Longest range in units of 512 bytes.
    pub max_sectors: u32,
}

/// A field that does not make sense.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field} = {value}: {rule}")]
pub struct ParamError {
    /// Its name in [`DeviceParams`] or [`DeviceConfig`](super::DeviceConfig).
    pub field: &'static str,
    /// What it is.
    pub value: u64,
    /// What it should be.
    pub rule: &'static str,
}

pub(super) fn require(
    holds: bool,
    field: &'static str,
    value: impl Into<u64>,
    rule: &'static str,
) -> Result<(), ParamError> {
    if holds {
        Ok(())
    } else {
        Err(ParamError {
            field,
            value: value.into(),
            rule,
        })
    }
}

impl DeviceParams {
    /// A plain disk of that many 512-byte sectors: 512-byte blocks, 1 MiB transfers, no cache, no discard.
    #[must_use]
    pub const fn new(sectors: u64) -> Self {
        Self {
            sectors,
            logical_block: 512,
            physical_block: 4096,
            io_min: 0,
            io_opt: 0,
            max_io_bytes: 1 << 20,
            read_only: false,
            rotational: false,
            write_cache: false,
            fua: false,
            discard: None,
            max_write_zeroes_sectors: 0,
        }
    }

    /// In the driver's form, or the first field that is wrong.
    pub(super) fn to_ublk(&self, page_size: u32) -> Result<ublk_params, ParamError> {
        self.check_blocks(page_size)?;
        self.check_lengths(page_size)?;
        let mut attributes = 0;
        for (wanted, attribute) in [
            (self.read_only, UBLK_ATTR_READ_ONLY),
            (self.rotational, UBLK_ATTR_ROTATIONAL),
            (self.write_cache, UBLK_ATTR_VOLATILE_CACHE),
            (self.write_cache && self.fua, UBLK_ATTR_FUA),
        ] {
            attributes |= if wanted { attribute } else { 0 };
        }
        let io_min = if self.io_min == 0 {
            self.physical_block
        } else {
            self.io_min
        };
        // "None" has no number (a shift of 0 says one byte, which confuses mkfs); the physical block says nothing new.
        let io_opt = if self.io_opt == 0 {
            self.physical_block
        } else {
            self.io_opt
        };
        let mut params = ublk_params {
            types: UBLK_PARAM_TYPE_BASIC,
            basic: ublk_param_basic {
                attrs: attributes,
                logical_bs_shift: shift(self.logical_block),
                physical_bs_shift: shift(self.physical_block),
                io_min_shift: shift(io_min),
                io_opt_shift: shift(io_opt),
                max_sectors: self.max_io_bytes / SECTOR,
                dev_sectors: self.sectors,
                ..Default::default()
            },
            ..Default::default()
        };
        if self.discard.is_some() || self.max_write_zeroes_sectors > 0 {
            let fallback = Discard {
                alignment: 0,
                granularity: self.logical_block,
                max_sectors: 0,
            };
            let Discard {
                alignment,
                granularity,
                max_sectors,
            } = self.discard.unwrap_or(fallback);
            params.types |= UBLK_PARAM_TYPE_DISCARD;
            params.discard = ublk_param_discard {
                discard_alignment: alignment,
                discard_granularity: granularity,
                max_discard_sectors: max_sectors,
                max_write_zeroes_sectors: self.max_write_zeroes_sectors,
                max_discard_segments: 1,
                ..Default::default()
            };
        }
        Ok(params)
    }

    fn check_blocks(&self, page_size: u32) -> Result<(), ParamError> {
        let logical = self.logical_block;
        require(
            logical.is_power_of_two() && (SECTOR..=page_size).contains(&logical),
            "logical_block",
            logical,
            "must be a power of two from 512 to the page size; other disks cannot be ublk devices on this host",
        )?;
        require(
            self.physical_block.is_power_of_two() && (logical..=LARGEST_HINT).contains(&self.physical_block),
            "physical_block",
            self.physical_block,
            "must be a power of two, not less than logical_block",
        )?;
        require(
            self.io_min == 0 || self.io_min.is_power_of_two() && self.io_min <= LARGEST_HINT,
            "io_min",
            self.io_min,
            "must be 0 or a power of two up to 256 MiB",
        )?;
        require(
            self.io_opt == 0 || 1 << shift(self.io_opt) >= logical && self.io_opt <= LARGEST_HINT,
            "io_opt",
            self.io_opt,
            "must be 0 or a multiple of logical_block up to 256 MiB",
        )
    }

    fn check_lengths(&self, page_size: u32) -> Result<(), ParamError> {
        let blocks = self.logical_block / SECTOR;
        require(
            self.sectors > 0 && self.sectors.is_multiple_of(u64::from(blocks)),
            "sectors",
            self.sectors,
            "must be a positive whole number of logical blocks",
        )?;
        require(
            self.max_io_bytes >= page_size
                && self.max_io_bytes.is_multiple_of(page_size)
                && self.max_io_bytes <= LARGEST_IO,
            "max_io_bytes",
            self.max_io_bytes,
            "must be whole pages, at most 32 MiB",
        )?;
        let Some(discard) = self.discard else { return Ok(()) };
        require(
            discard.granularity > 0 && discard.granularity.is_multiple_of(self.logical_block),
            "discard.granularity",
            discard.granularity,
            "must be a positive multiple of logical_block",
        )?;
        require(
            discard.max_sectors > 0 && discard.max_sectors.is_multiple_of(blocks),
            "discard.max_sectors",
            discard.max_sectors,
            "must be a positive whole number of logical blocks",
        )
    }
}

/// The largest power of two that divides `value`, as a shift.
const fn shift(value: u32) -> u8 {
    value.trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut DeviceParams)) -> &'static str {
        let mut params = DeviceParams::new(2048);
        change(&mut params);
        params.to_ublk(4096).map_or_else(|error| error.field, |_| "")
    }

    #[test]
    fn a_plain_disk() {
        let ublk = DeviceParams::new(2048).to_ublk(4096).unwrap();
        assert_eq!(ublk.types, UBLK_PARAM_TYPE_BASIC);
        assert_eq!(ublk.basic.attrs, 0);
        assert_eq!((ublk.basic.logical_bs_shift, ublk.basic.physical_bs_shift), (9, 12));
        assert_eq!((ublk.basic.io_min_shift, ublk.basic.io_opt_shift), (12, 12));
        assert_eq!((ublk.basic.dev_sectors, ublk.basic.max_sectors), (2048, 2048));
    }

    #[test]
    fn attributes_and_limits() {
        let params = DeviceParams {
            logical_block: 4096,
            io_min: 65_536,
            io_opt: 3 * 65_536,
            read_only: true,
            rotational: true,
            write_cache: true,
            fua: true,
            discard: Some(Discard {
                alignment: 4096,
                granularity: 65_536,
                max_sectors: 8192,
            }),
            max_write_zeroes_sectors: 4096,
            ..DeviceParams::new(2048)
        };
        let ublk = params.to_ublk(4096).unwrap();
        assert_eq!(ublk.basic.attrs, 0b1111);
        assert_eq!((ublk.basic.io_min_shift, ublk.basic.io_opt_shift), (16, 16));
        assert_eq!(ublk.types, UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD);
        assert_eq!(ublk.discard.discard_alignment, 4096);
        assert_eq!(ublk.discard.discard_granularity, 65_536);
        assert_eq!(ublk.discard.max_discard_sectors, 8192);
        assert_eq!(ublk.discard.max_write_zeroes_sectors, 4096);
        assert_eq!(ublk.discard.max_discard_segments, 1);
    }

    #[test]
    fn fua_needs_a_cache() {
        let params = DeviceParams {
            fua: true,
            ..DeviceParams::new(8)
        };
        assert_eq!(params.to_ublk(4096).unwrap().basic.attrs, 0);
    }

    #[test]
    fn zeroes_without_discard() {
        let params = DeviceParams {
            max_write_zeroes_sectors: 64,
            ..DeviceParams::new(8)
        };
        let discard = params.to_ublk(4096).unwrap().discard;
        assert_eq!((discard.max_discard_sectors, discard.discard_granularity), (0, 512));
    }

    #[test]
    fn names_the_wrong_field() {
        assert_eq!(field(|_| ()), "");
        assert_eq!(field(|params| params.logical_block = 520), "logical_block");
        assert_eq!(field(|params| params.logical_block = 8192), "logical_block");
        assert_eq!(field(|params| params.physical_block = 256), "physical_block");
        assert_eq!(field(|params| params.io_min = 3), "io_min");
        assert_eq!(field(|params| params.io_opt = 100), "io_opt");
        assert_eq!(field(|params| params.sectors = 0), "sectors");
        assert_eq!(
            field(|params| (params.logical_block, params.sectors) = (4096, 12)),
            "sectors"
        );
        assert_eq!(field(|params| params.max_io_bytes = 1000), "max_io_bytes");
        assert_eq!(field(|params| params.max_io_bytes = 64 << 20), "max_io_bytes");
        let discard = Discard {
            alignment: 0,
            granularity: 0,
            max_sectors: 8,
        };
        assert_eq!(field(|params| params.discard = Some(discard)), "discard.granularity");
    }
}
