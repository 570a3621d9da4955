//! The request descriptors of a queue: written by the driver, mapped read-only from `/dev/ublkcN`.

use std::os::fd::OwnedFd;

use libublk::sys::{UBLK_MAX_QUEUE_DEPTH, UBLKSRV_CMD_BUF_OFFSET, ublksrv_io_desc};
use rustix::mm::ProtFlags;

use super::area::Mapping;

/// One request as the driver describes it (`struct ublksrv_io_desc`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// Operation in bits 0..8, flags above.
    pub(crate) op_flags: u32,
    /// 512-byte units.
    pub(crate) sectors: u32,
    /// 512-byte units.
    pub(crate) start: u64,
}

#[derive(Debug)]
pub(super) struct Descriptors {
    mapping: Mapping,
    depth: u16,
}

impl Descriptors {
    pub(super) fn map(char_device: &OwnedFd, queue_id: u16, depth: u16) -> rustix::io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes = |tags: usize| (tags * size_of::<ublksrv_io_desc>()).next_multiple_of(page);
        let offset =
            u64::from(UBLKSRV_CMD_BUF_OFFSET) + u64::from(queue_id) * bytes(UBLK_MAX_QUEUE_DEPTH as usize) as u64;
        let mapping = Mapping::new(char_device, offset, bytes(usize::from(depth)), ProtFlags::READ)?;
        Ok(Self { mapping, depth })
    }

    /// The descriptor of a tag; `None` beyond the queue's depth.
    pub(super) fn read(&self, tag: u16) -> Option<Descriptor> {
        if tag >= self.depth {
            return None;
        }
        let descriptor = self
            .mapping
            .start()
            .cast::<ublksrv_io_desc>()
            .wrapping_add(usize::from(tag));
        // SAFETY: `tag` lies within the mapping, which is page-aligned and at least depth * 24 bytes long. The driver
        // writes a descriptor before it completes the tag's FETCH or COMMIT and not again until the next one; a raw
        // volatile read makes no claim about that memory anyway.
        let value = unsafe { descriptor.read_volatile() };
        Some(Descriptor {
            op_flags: value.op_flags,
            sectors: value.nr_sectors,
            start: value.start_sector,
        })
    }
}
