//! Copies between requests and areas.

use std::os::fd::{AsRawFd, RawFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use libublk::sys::{UBLK_QID_OFF, UBLK_TAG_OFF, UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLKSRV_IO_BUF_OFFSET};

use super::area::Area;
use super::plane::{DataPlane, EnterError, RangeError};
use super::slots::Slots;
use super::tickets::Ticket;
use crate::backend::AreaRanges;

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From a WRITE into an area.
    In,
    /// From an area to a READ.
    Out,
}

/// Memory of an area that a copy in the kernel's hands names, and the list of its pieces where it has several.
#[derive(Debug)]
pub(super) struct Lent {
    area: u32,
    len: u32,
    start: *mut u8,
    vectors: Box<[libc::iovec]>,
}

impl Lent {
    /// Nothing when the ranges are not one area's.
    pub(super) fn new(areas: &mut Slots<Area>, ranges: &AreaRanges) -> Option<Self> {
        let (first, rest) = ranges.pieces();
        let area = areas.get_mut(first.area.0)?;
        let start = area.resolve(first)?;
        let vectors = match rest {
            [] => Box::default(),
            rest => std::iter::once(&first)
                .chain(rest)
                .map(|piece| {
                    let at = area.resolve(*piece).filter(|_| piece.area == first.area)?;
                    Some(libc::iovec {
                        iov_base: at.cast(),
                        iov_len: piece.len as usize,
                    })
                })
                .collect::<Option<_>>()?,
        };
        area.copies += 1;
        Some(Self {
            area: first.area.0,
            len: ranges.len(),
            start,
            vectors,
        })
    }

    /// The entry of the copy. This has to be kept until it has completed.
    pub(super) fn entry(&self, fd: RawFd, position: u64, direction: Direction) -> Entry {
        let (fd, count) = (types::Fd(fd), self.vectors.len() as u32);
        match (direction, count) {
            (Direction::In, 0) => opcode::Read::new(fd, self.start, self.len).offset(position).build(),
            (Direction::Out, 0) => opcode::Write::new(fd, self.start.cast_const(), self.len)
                .offset(position)
                .build(),
            (Direction::In, _) => opcode::Readv::new(fd, self.vectors.as_ptr(), count)
                .offset(position)
                .build(),
            (Direction::Out, _) => opcode::Writev::new(fd, self.vectors.as_ptr(), count)
                .offset(position)
                .build(),
        }
    }

    /// Copies in, and waits for that: bytes, or a negative errno.
    fn read(&self, fd: RawFd, position: u64) -> i32 {
        let Ok(position) = libc::off_t::try_from(position) else {
            return -libc::EINVAL;
        };
        // SAFETY: start, length and vectors name memory of an area that stays mapped while it counts this copy; the kernel
        // writes there, and no reference to it exists.
        let copied = unsafe {
            match libc::c_int::try_from(self.vectors.len()) {
                // The C library's pread is several function calls, as threads may be cancelled in it.
                #[cfg(target_pointer_width = "64")]
                Ok(0) => libc::syscall(libc::SYS_pread64, fd, self.start, self.len as usize, position) as isize,
                #[cfg(not(target_pointer_width = "64"))]
                Ok(0) => libc::pread(fd, self.start.cast(), self.len as usize, position),
                Ok(count) => libc::preadv(fd, self.vectors.as_ptr(), count, position),
                Err(_) => return -libc::EINVAL,
            }
        };
        match i32::try_from(copied) {
            Ok(copied @ 0..) => copied,
            _ => -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// The copy has completed; what that says. A short one counts as `EIO`.
    pub(super) fn came_back(self, areas: &mut Slots<Area>, result: i32) -> Result<(), i32> {
        if let Some(area) = areas.get_mut(self.area) {
            area.copies -= 1;
        }
        match u32::try_from(result) {
            Ok(copied) if copied == self.len => Ok(()),
            Ok(_) => Err(libc::EIO),
            Err(_) => Err(-result),
        }
    }
}

impl DataPlane {
    /// Copies a WRITE's first bytes into an area.
    pub(crate) fn copy_in(
        &mut self,
        queue: u32,
        tag: u16,
        into: &AreaRanges,
    ) -> Result<Result<(), RangeError>, EnterError> {
        match self.copy(queue, tag, into, Direction::In) {
            Some(entry) => self.push(&[entry]).map(Ok),
            None => Ok(Err(RangeError(into.clone()))),
        }
    }

    /// The same, done when this returns: an errno (positive) when it failed.
    pub(crate) fn copy_in_at_once(
        &mut self,
        queue: u32,
        tag: u16,
        into: &AreaRanges,
    ) -> Result<Result<(), i32>, RangeError> {
        let refused = || RangeError(into.clone());
        let queue = self.queues.get(queue).ok_or_else(refused)?;
        let lent = Lent::new(&mut self.areas, into).ok_or_else(refused)?;
        let result = lent.read(queue.char_device.as_raw_fd(), copy_position(queue.id, tag));
        Ok(lent.came_back(&mut self.areas, result))
    }

    /// Copies bytes of an area to the beginning of a READ and, if all of them got there, commits it. The two entries
    /// are linked: a failed or short copy cancels the commit (its completion says `ECANCELED`).
    pub(crate) fn copy_out_and_commit(
        &mut self,
        queue: u32,
        tag: u16,
        from: &AreaRanges,
    ) -> Result<Result<(), RangeError>, EnterError> {
        let refused = || Ok(Err(RangeError(from.clone())));
        let Ok(result) = i32::try_from(from.len()) else {
            return refused();
        };
        let Some(copy) = self.copy(queue, tag, from, Direction::Out) else {
            return refused();
        };
        let Some(commit) = self.command(queue, tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ, result) else {
            return refused();
        };
        self.push(&[copy.flags(Flags::IO_LINK), commit]).map(Ok)
    }

    /// Accounts for a copy and builds its entry; `None` when the tag already copies or the ranges are not an area's.
    fn copy(&mut self, handle: u32, tag: u16, ranges: &AreaRanges, direction: Direction) -> Option<Entry> {
        let queue = self.queues.get_mut(handle)?;
        let place = queue.copying.get_mut(usize::from(tag))?;
        if place.is_some() {
            return None;
        }
        let lent = place.insert(Lent::new(&mut self.areas, ranges)?);
        queue.pending += 1;
        let entry = lent.entry(queue.char_device.as_raw_fd(), copy_position(queue.id, tag), direction);
        Some(entry.user_data(Ticket::Copy { queue: handle, tag }.encode()))
    }
}

/// Where the data of a tag's request begins in `/dev/ublkcN` (USER_COPY). The offset is added, not a flag: tags of 64
/// and more carry into its bit.
pub(super) fn copy_position(queue_id: u16, tag: u16) -> u64 {
    u64::from(UBLKSRV_IO_BUF_OFFSET) + (u64::from(queue_id) << UBLK_QID_OFF) + (u64::from(tag) << UBLK_TAG_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{AreaId, AreaRange};
    use crate::ring::Mapping;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::{pread, pwrite};

    #[test]
    fn a_copy_at_once_fills_its_pieces_in_order_and_says_when_it_is_short() {
        let memfd = |len: u64| {
            let memfd = memfd_create("area", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&memfd, len).unwrap();
            memfd
        };
        let (request, area) = (memfd(0), memfd(8192));
        let content: Vec<u8> = (0..100).collect();
        pwrite(&request, &content, 7).unwrap();
        let mut areas = Slots::new();
        let mapping = Mapping::area(&area, 8192).unwrap();
        let id = AreaId(areas.insert(Area { mapping, copies: 0 }).unwrap());
        let range = |offset, len| AreaRange { area: id, offset, len };
        let mut copy = |ranges: &[AreaRange], position| {
            let ranges = AreaRanges::new(ranges.iter().copied()).unwrap();
            let lent = Lent::new(&mut areas, &ranges).unwrap();
            let result = lent.read(request.as_raw_fd(), position);
            lent.came_back(&mut areas, result)
        };
        assert_eq!(copy(&[range(0, 64)], 7), Ok(()));
        assert_eq!(copy(&[range(4096, 10), range(1000, 20)], 7), Ok(()));
        assert_eq!(copy(&[range(0, 64)], 60), Err(libc::EIO), "47 bytes are there");
        assert_eq!(copy(&[range(0, 64)], u64::MAX), Err(libc::EINVAL));
        assert_eq!(areas.get(id.0).unwrap().copies, 0);
        let mut there = [0; 30];
        pread(&area, &mut there[..10], 4096).unwrap();
        pread(&area, &mut there[10..], 1000).unwrap();
        assert_eq!(there, content[..30]);
    }

    #[test]
    fn every_tag_has_a_position_of_its_own() {
        let tag_of = |position: u64| (position - u64::from(UBLKSRV_IO_BUF_OFFSET)) >> UBLK_TAG_OFF & 0xffff;
        for tag in [0, 1, 63, 64, 127, 4095] {
            assert_eq!(tag_of(copy_position(3, tag)), u64::from(tag));
            assert_eq!(copy_position(3, tag) >> UBLK_QID_OFF, 3);
        }
    }
}
