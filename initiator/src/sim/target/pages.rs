//! What a model disk says of itself.

use super::DiskSpec;
use crate::scsi::cdb::Operation;

/// The DATA-IN of an enquiring command; nothing when the disk does not know it.
pub(super) fn answer(spec: &DiskSpec, operation: Operation) -> Option<Vec<u8>> {
    let (mut data, allocation) = match operation {
        Operation::Inquiry { page: None, allocation } => (inquiry(), u32::from(allocation)),
        Operation::Inquiry {
            page: Some(page),
            allocation,
        } => (vpd(spec, page)?, u32::from(allocation)),
        Operation::ReadCapacity10 => (capacity_10(spec), 8),
        Operation::ReadCapacity16 { allocation } => (capacity_16(spec), allocation),
        Operation::ModeSense6 { page, allocation, .. } => {
            let pages = mode_pages(page)?;
            let len = u8::try_from(pages.len() + 3).ok()?;
            ([vec![len, 0, 0x10, 0], pages].concat(), u32::from(allocation))
        }
        Operation::ModeSense10 { page, allocation, .. } => {
            let pages = mode_pages(page)?;
            let len = u8::try_from(pages.len() + 6).ok()?;
            (
                [vec![0, len, 0, 0x10, 0, 0, 0, 0], pages].concat(),
                u32::from(allocation),
            )
        }
        _ => return None,
    };
    data.truncate(allocation as usize);
    Some(data)
}

/// REPORT LUNS.
pub(super) fn report_luns(luns: impl Iterator<Item = u64>, allocation: u32) -> Vec<u8> {
    let list: Vec<u8> = luns.flat_map(u64::to_be_bytes).collect();
    let len = u32::try_from(list.len()).unwrap_or(0);
    let mut data = [&len.to_be_bytes()[..], &[0; 4], &list].concat();
    data.truncate(allocation as usize);
    data
}

/// INQUIRY of a LUN that does not exist: qualifier 3, type 1fh.
pub(super) fn no_unit(allocation: u16) -> Vec<u8> {
    let mut data = inquiry();
    data[0] = 0x7f;
    data.truncate(usize::from(allocation));
    data
}

fn inquiry() -> Vec<u8> {
    // Direct access, SPC-4, response format 2, command queueing.
    let mut data = vec![0, 0, 0x06, 0x12, 31, 0, 0, 0x02];
    data.extend_from_slice(b"LIO-ORG ");
    data.extend_from_slice(b"model disk      ");
    data.extend_from_slice(b"1.0 ");
    data
}

fn vpd(spec: &DiskSpec, page: u8) -> Option<Vec<u8>> {
    let serial = format!("{:016x}", spec.lun);
    let body = match page {
        0x00 => vec![0x00, 0x80, 0x83, 0xb0, 0xb1],
        0x80 => serial.into_bytes(),
        0x83 => {
            // NAA 6, binary, of the logical unit.
            let mut naa = vec![0x01, 0x03, 0, 16, 0x60, 0x01, 0x40, 0x50];
            naa.extend_from_slice(&[0; 4]);
            naa.extend_from_slice(&spec.lun.to_be_bytes());
            naa
        }
        0xb0 => {
            let mut limits = vec![0; 60];
            // Maximum transfer length, optimal transfer length, in blocks.
            limits[4..8].copy_from_slice(&2048u32.to_be_bytes());
            limits[8..12].copy_from_slice(&128u32.to_be_bytes());
            limits
        }
        0xb1 => {
            let mut characteristics = vec![0; 60];
            characteristics[1] = 1;
            characteristics
        }
        _ => return None,
    };
    let len = u16::try_from(body.len()).ok()?.to_be_bytes();
    Some([&[0, page, len[0], len[1]][..], &body].concat())
}

fn capacity_10(spec: &DiskSpec) -> Vec<u8> {
    let last = u32::try_from(spec.blocks - 1).unwrap_or(u32::MAX);
    [last.to_be_bytes(), spec.block_size.to_be_bytes()].concat()
}

fn capacity_16(spec: &DiskSpec) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&(spec.blocks - 1).to_be_bytes());
    data[8..12].copy_from_slice(&spec.block_size.to_be_bytes());
    data
}

/// The caching page, with a write-back cache.
fn mode_pages(page: u8) -> Option<Vec<u8>> {
    if !matches!(page, 0x08 | 0x3f) {
        return None;
    }
    let mut caching = vec![0; 20];
    (caching[0], caching[1], caching[2]) = (0x08, 18, 0x04);
    Some(caching)
}
