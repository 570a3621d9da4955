//! What one logical unit is.

use super::command::{Answer, optional, required, run};
use super::{BringUpError, DiskGeometry, Execute, LogicalUnit, NotADisk, UnmapLimits};
use crate::scsi::capacity::{Capacity, CapacityError};
use crate::scsi::inquiry::{PeripheralType, StandardInquiry};
use crate::scsi::mode::{self, ModeParameters};
use crate::scsi::vpd::{self, BlockLimits, Provisioning};
use crate::scsi::{Cdb, Lun};

/// Bytes of standard INQUIRY data: what every version has. Some devices choke on more.
const INQUIRY_LEN: u8 = 36;
/// Bytes of a VPD page at first: some devices read only the low byte of the allocation length.
const VPD_LEN: u16 = 252;
/// Bytes of the longest VPD page fetched.
const VPD_LONGEST: u16 = 4096;
const CAPACITY_10_LEN: u32 = 8;
const CAPACITY_16_LEN: u32 = 32;
const MODE_LEN: u8 = 192;

/// Asks a logical unit what it is and, of a disk, how to use it.
///
/// # Errors
/// When the unit does not answer, is not ready in time, or fails a command no disk can fail. What is not a disk,
/// or not one Linux can use, is no error: [`LogicalUnit::disk`] says why.
pub async fn probe<E: Execute + Sync>(exec: &E, lun: Lun) -> Result<LogicalUnit, BringUpError> {
    let cdb = Cdb::inquiry(INQUIRY_LEN.into());
    let data = required(exec, lun, cdb, INQUIRY_LEN.into(), "INQUIRY").await?;
    let inquiry = StandardInquiry::parse(&data)?;
    let mut unit = LogicalUnit {
        lun,
        qualifier: inquiry.qualifier,
        kind: inquiry.kind,
        vendor: inquiry.vendor,
        product: inquiry.product,
        revision: inquiry.revision,
        serial: None,
        identifier: None,
        disk: Err(NotADisk::Absent),
    };
    match inquiry.qualifier {
        0 => {}
        3 => return Ok(unit),
        other => {
            unit.disk = Err(NotADisk::NotConnected(other));
            return Ok(unit);
        }
    }
    let pages = Pages::of(exec, lun).await?;
    if let Some(page) = pages.read(vpd::UNIT_SERIAL_NUMBER).await? {
        unit.serial = vpd::unit_serial_number(&page).ok().filter(|serial| !serial.is_empty());
    }
    if let Some(page) = pages.read(vpd::DEVICE_IDENTIFICATION).await? {
        unit.identifier = vpd::best_identifier(&page).ok().flatten();
    }
    unit.disk = if unit.kind == PeripheralType::DISK {
        disk(exec, &pages).await?
    } else {
        Err(NotADisk::Kind(unit.kind))
    };
    Ok(unit)
}

/// The VPD pages of a logical unit.
struct Pages<'e, E> {
    exec: &'e E,
    lun: Lun,
    supported: Vec<u8>,
}

impl<'e, E: Execute + Sync> Pages<'e, E> {
    async fn of(exec: &'e E, lun: Lun) -> Result<Self, BringUpError> {
        let mut pages = Self {
            exec,
            lun,
            supported: vec![vpd::SUPPORTED_PAGES],
        };
        let list = pages.read(vpd::SUPPORTED_PAGES).await?;
        if let Some(body) = list
            .as_deref()
            .and_then(|page| vpd::body(page, vpd::SUPPORTED_PAGES).ok())
        {
            pages.supported = body.to_vec();
        }
        Ok(pages)
    }

    /// A page, if the unit lists it and returns it.
    async fn read(&self, page: u8) -> Result<Option<Vec<u8>>, BringUpError> {
        const COMMAND: &str = "INQUIRY (VPD page)";
        if !self.supported.contains(&page) {
            return Ok(None);
        }
        let cdb = Cdb::inquiry_vpd(page, VPD_LEN);
        let first = optional(self.exec, self.lun, cdb, VPD_LEN.into(), COMMAND).await?;
        let Some(data) = first.filter(|data| vpd::body(data, page).is_ok()) else {
            return Ok(None);
        };
        let stated = vpd::stated_len(&data).unwrap_or(0);
        // Longer by its own account, and it filled what it was given: worth a second look.
        let stated = u16::try_from(stated).unwrap_or(u16::MAX).min(VPD_LONGEST);
        if stated <= VPD_LEN || data.len() < usize::from(VPD_LEN) {
            return Ok(Some(data));
        }
        let cdb = Cdb::inquiry_vpd(page, stated);
        let whole = optional(self.exec, self.lun, cdb, stated.into(), COMMAND).await?;
        Ok(whole.filter(|whole| vpd::body(whole, page).is_ok()).or(Some(data)))
    }
}

async fn disk<E: Execute + Sync>(
    exec: &E,
    pages: &Pages<'_, E>,
) -> Result<Result<DiskGeometry, NotADisk>, BringUpError> {
    let lun = pages.lun;
    let page = pages.read(vpd::BLOCK_LIMITS).await?;
    let limits = page.and_then(|page| BlockLimits::parse(&page).ok()).unwrap_or_default();
    let page = pages.read(vpd::BLOCK_DEVICE_CHARACTERISTICS).await?;
    let rotational = page.and_then(|page| vpd::rotational(&page).ok()).flatten();
    let page = pages.read(vpd::LOGICAL_BLOCK_PROVISIONING).await?;
    let provisioning = page.and_then(|page| Provisioning::parse(&page).ok());

    required(exec, lun, Cdb::test_unit_ready(), 0, "TEST UNIT READY").await?;
    let capacity = capacity(exec, lun).await?;
    let block_size = match capacity.usable_block_size() {
        Ok(size) => size,
        Err(unusable) => return Ok(Err(unusable.into())),
    };
    let mode = mode_parameters(exec, lun).await?;
    Ok(Ok(DiskGeometry {
        block_size,
        blocks: capacity.blocks,
        physical_block_size: block_size << capacity.physical_exponent.min(15),
        max_transfer_blocks: limits.max_transfer,
        optimal_transfer_blocks: limits.optimal_transfer,
        optimal_granularity_blocks: limits.optimal_granularity,
        read_only: mode.write_protected,
        // As the kernel: a unit that does not say is taken to write through.
        write_cache: mode.write_cache.unwrap_or(false),
        dpo_fua: mode.dpo_fua,
        rotational,
        protection: capacity.protection,
        deallocated_reads_zeros: capacity.reads_zeros,
        unmap: unmap(&capacity, &limits, provisioning),
        write_same_unmaps: capacity.provisioned && provisioning.is_some_and(|p| p.write_same_16),
        max_write_same_blocks: limits.max_write_same,
    }))
}

async fn capacity<E: Execute + Sync>(exec: &E, lun: Lun) -> Result<Capacity, BringUpError> {
    let cdb = Cdb::read_capacity_16(CAPACITY_16_LEN);
    if let Answer::Data(data) = run(exec, lun, cdb, CAPACITY_16_LEN, "READ CAPACITY (16)").await? {
        match Capacity::parse_16(&data) {
            // Some units accept what they do not know and return nothing.
            Err(CapacityError::Truncated { .. }) => {}
            other => return Ok(other?),
        }
    }
    let cdb = Cdb::read_capacity_10();
    let data = required(exec, lun, cdb, CAPACITY_10_LEN, "READ CAPACITY (10)").await?;
    Ok(Capacity::parse_10(&data)?)
}

/// The caching page in the 6-byte form, else in the 10-byte form; without a caching page at least the header of all
/// pages, which has write protection.
async fn mode_parameters<E: Execute + Sync>(exec: &E, lun: Lun) -> Result<ModeParameters, BringUpError> {
    let mut header = None;
    for page in [mode::CACHING_PAGE, mode::ALL_PAGES] {
        let cdb = Cdb::mode_sense_6(page, MODE_LEN, false);
        let six = optional(exec, lun, cdb, MODE_LEN.into(), "MODE SENSE (6)").await?;
        let mut parameters = six.and_then(|data| ModeParameters::parse_6(&data).ok());
        if parameters.is_none() {
            let cdb = Cdb::mode_sense_10(page, MODE_LEN.into(), false);
            let ten = optional(exec, lun, cdb, MODE_LEN.into(), "MODE SENSE (10)").await?;
            parameters = ten.and_then(|data| ModeParameters::parse_10(&data).ok());
        }
        if let Some(parameters) = parameters {
            if parameters.write_cache.is_some() {
                return Ok(parameters);
            }
            header = header.or(Some(parameters));
        }
    }
    Ok(header.unwrap_or_default())
}

fn unmap(capacity: &Capacity, limits: &BlockLimits, provisioning: Option<Provisioning>) -> Option<UnmapLimits> {
    // Without page B2h the limits themselves tell that UNMAP is there.
    let supported = capacity.provisioned && provisioning.is_none_or(|p| p.unmap);
    let max_blocks = limits.max_unmap.filter(|_| supported)?;
    Some(UnmapLimits {
        max_blocks,
        max_descriptors: limits.max_unmap_descriptors.unwrap_or(1),
        granularity: limits.unmap_granularity.unwrap_or(1),
        alignment: limits.unmap_alignment.unwrap_or(0),
    })
}
