//! Space in a data arena: a buddy allocator over one registered region.
//!
//! It hands out extents and never looks at the memory itself, so it works the same over verbs and in the
//! simulator. Nothing allocates after construction, but where an extent is put together of several blocks.

use super::scattered::Scattered;
use crate::fabric::{Extent, RegionId};

/// The smallest unit handed out, in bytes.
const UNIT: u32 = 4096;

/// How many freed blocks of each size are kept as they are, for the next request of that size.
const KEPT: usize = 64;

/// Free space of one arena.
#[derive(Debug)]
pub(super) struct ArenaSpace {
    region: RegionId,
    /// Per order, where blocks begin that are free but neither marked so nor joined with their neighbours: mostly the
    /// next request is as long as the last, and would only split them again.
    kept: Vec<Vec<u32>>,
    /// One bitmap per order; a set bit is a free block of `UNIT << order` bytes.
    free: Vec<Vec<u64>>,
    /// How many blocks are free, per order.
    count: Vec<u32>,
    /// Bytes of the whole.
    len: u32,
    /// Extents of several blocks.
    pub(super) scattered: Scattered,
}

impl ArenaSpace {
    /// All of a region of `len` bytes free; `largest` is the longest extent that must fit. The tail of `len`
    /// that does not fill a block of `largest` (rounded up to a power of two) is left unused.
    pub(super) fn new(region: RegionId, len: u32, largest: u32) -> Self {
        let top = order_of(largest);
        let blocks = len / (UNIT << top);
        let mut free = Vec::with_capacity(top + 1);
        for order in 0..=top {
            let bits = (blocks as usize) << (top - order);
            free.push(vec![0u64; bits.div_ceil(64)]);
        }
        let mut space = Self {
            region,
            kept: vec![Vec::with_capacity(KEPT); top + 1],
            free,
            count: vec![0; top + 1],
            len: blocks * (UNIT << top),
            scattered: Scattered::default(),
        };
        for block in 0..blocks {
            space.set(top, block);
        }
        space
    }

    /// Whether it is the space of this region.
    pub(super) fn is_of(&self, region: RegionId) -> bool {
        self.region == region
    }

    /// Bytes handed out, in whole blocks.
    pub(super) fn in_use(&self) -> u32 {
        let kept = self
            .kept
            .iter()
            .map(|kept| u32::try_from(kept.len()).unwrap_or(u32::MAX));
        let free = kept.zip(&self.count).map(|(kept, marked)| kept + marked);
        let bytes = (0..)
            .zip(free)
            .map(|(order, blocks): (u32, u32)| blocks * (UNIT << order));
        self.len - bytes.sum::<u32>()
    }

    /// Takes room for `len` bytes, or nothing when no block is large enough.
    #[inline(always)]
    pub(super) fn allocate(&mut self, len: u32) -> Option<Extent> {
        let wanted = order_of(len);
        let offset = match self.kept.get_mut(wanted)?.pop() {
            Some(offset) => offset,
            None => self.cut(wanted)? * (UNIT << wanted),
        };
        Some(Extent {
            region: self.region,
            offset,
            len,
        })
    }

    /// Gives an extent back. It must have come from [`ArenaSpace::allocate`] of this arena.
    #[inline(always)]
    pub(super) fn release(&mut self, extent: Extent) {
        debug_assert_eq!(extent.region, self.region, "extent of another arena");
        if !self.scattered.is_empty()
            && let Some(pieces) = self.scattered.take(extent)
        {
            return pieces.iter().for_each(|piece| self.release(*piece));
        }
        let order = order_of(extent.len);
        let kept = &mut self.kept[order];
        debug_assert!(!kept.contains(&extent.offset), "extent released twice");
        if kept.len() < KEPT {
            kept.push(extent.offset);
        } else {
            self.join(order, extent.offset / (UNIT << order));
        }
    }

    /// A block of this order when none of it is kept.
    #[cold]
    fn cut(&mut self, wanted: usize) -> Option<u32> {
        self.split(wanted).or_else(|| {
            self.join_kept();
            self.split(wanted)
        })
    }

    /// Takes room for `len` bytes in at most so many pieces, of which the first names them all. For when no block is
    /// large enough.
    #[cold]
    pub(super) fn gather(&mut self, len: u32, most: usize) -> Option<Extent> {
        self.join_kept();
        let (region, mut pieces, mut left) = (self.region, Vec::new(), len);
        while left > 0 && pieces.len() < most {
            let largest = (0..self.free.len()).rev().find(|&order| self.count[order] > 0);
            let Some(order) = largest.map(|largest| largest.min(order_of(left))) else {
                break;
            };
            let Some(block) = self.split(order) else { break };
            let len = left.min(UNIT << order);
            let offset = block * (UNIT << order);
            pieces.push(Extent { region, offset, len });
            left -= len;
        }
        if left == 0 {
            return self.scattered.add(len, pieces);
        }
        for piece in pieces {
            let order = order_of(piece.len);
            self.join(order, piece.offset / (UNIT << order));
        }
        None
    }

    /// A block of this order, cut from the smallest that is free.
    fn split(&mut self, wanted: usize) -> Option<u32> {
        let found = (wanted..self.free.len()).find(|&order| self.count[order] > 0)?;
        let mut block = self.take_first(found)?;
        for order in (wanted..found).rev() {
            block <<= 1;
            self.set(order, block + 1);
        }
        Some(block)
    }

    /// Joins what was kept with its neighbours.
    fn join_kept(&mut self) {
        for order in 0..self.kept.len() {
            while let Some(offset) = self.kept[order].pop() {
                self.join(order, offset / (UNIT << order));
            }
        }
    }

    /// Marks a block as free, together with its neighbours as far as they are.
    #[cold]
    fn join(&mut self, mut order: usize, mut block: u32) {
        while order + 1 < self.free.len() && self.is_set(order, block ^ 1) {
            self.clear(order, block ^ 1);
            block >>= 1;
            order += 1;
        }
        debug_assert!(!self.is_set(order, block), "extent released twice");
        self.set(order, block);
    }

    fn take_first(&mut self, order: usize) -> Option<u32> {
        let (word, bits) = self.free[order].iter().enumerate().find(|(_, bits)| **bits != 0)?;
        let block = u32::try_from(word).ok()? * 64 + bits.trailing_zeros();
        self.clear(order, block);
        Some(block)
    }

    fn set(&mut self, order: usize, block: u32) {
        self.free[order][block as usize / 64] |= 1 << (block % 64);
        self.count[order] += 1;
    }

    fn clear(&mut self, order: usize, block: u32) {
        self.free[order][block as usize / 64] &= !(1 << (block % 64));
        self.count[order] -= 1;
    }

    fn is_set(&self, order: usize, block: u32) -> bool {
        self.free[order]
            .get(block as usize / 64)
            .is_some_and(|bits| bits >> (block % 64) & 1 == 1)
    }
}

/// The order of the smallest block that holds `len` bytes.
fn order_of(len: u32) -> usize {
    // The bits that the number of its last unit takes, and one more, so that there is one.
    let last = len.saturating_sub(1) / UNIT;
    (2 * last + 1).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_exhausted_arena_says_so_and_heals() {
        let mut space = ArenaSpace::new(RegionId(0), 1 << 20, 1 << 20);
        let whole = space.allocate(1 << 20).expect("fits");
        assert_eq!(space.allocate(512), None);
        space.release(whole);
        assert_eq!(space.in_use(), 0);
        assert!(space.allocate(1 << 20).is_some());
    }

    #[test]
    fn a_block_holds_what_it_is_for() {
        let orders = [(0, 0), (1, 0), (4096, 0), (4097, 1), (8192, 1), (8193, 2), (1 << 20, 8)];
        for (len, order) in orders {
            assert_eq!(order_of(len), order, "{len}");
        }
    }

    #[test]
    fn a_tail_shorter_than_the_largest_extent_is_unused() {
        let mut space = ArenaSpace::new(RegionId(0), (1 << 20) + 4096, 1 << 20);
        assert!(space.allocate(1 << 20).is_some());
        assert_eq!(space.allocate(1), None);
    }

    proptest! {
        #[test]
        fn what_is_gathered_is_whole_and_comes_back(
            taken in proptest::collection::vec(1u32..=1 << 18, 1..60),
            dropped in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
            len in 1u32..=1 << 20,
            most in 1usize..=12,
        ) {
            let mut space = ArenaSpace::new(RegionId(3), 2 << 20, 1 << 20);
            let mut live: Vec<Extent> = taken.iter().filter_map(|len| space.allocate(*len)).collect();
            for index in dropped.iter().filter(|_| true) {
                if !live.is_empty() {
                    space.release(live.swap_remove(index.index(live.len())));
                }
            }
            let before = space.in_use();
            match space.gather(len, most) {
                Some(extent) => {
                    prop_assert_eq!(extent.len, len);
                    let pieces: Vec<Extent> = space.scattered.pieces(extent).collect();
                    prop_assert!(pieces.len() <= most);
                    prop_assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u32>(), len);
                    for (place, piece) in pieces.iter().enumerate() {
                        for other in live.iter().chain(&pieces[..place]) {
                            let apart = piece.offset + piece.len <= other.offset
                                || other.offset + other.len <= piece.offset;
                            prop_assert!(apart, "{piece:?} overlaps {other:?}");
                        }
                    }
                    let part = Extent { len: len / 2, ..extent };
                    let came: Vec<Extent> = space.scattered.pieces(part).collect();
                    prop_assert_eq!(came.iter().map(|piece| piece.len).sum::<u32>(), len / 2);
                    space.release(extent);
                }
                None => prop_assert!(space.allocate(len).is_none() || most == 0),
            }
            prop_assert_eq!(space.in_use(), before);
            live.into_iter().for_each(|extent| space.release(extent));
            prop_assert_eq!(space.in_use(), 0);
            prop_assert!(space.allocate(1 << 20).is_some() && space.allocate(1 << 20).is_some());
        }

        #[test]
        fn extents_never_overlap_and_all_space_comes_back(
            steps in proptest::collection::vec((any::<bool>(), 1u32..=1 << 18), 1..200),
        ) {
            let mut space = ArenaSpace::new(RegionId(3), 4 << 20, 1 << 20);
            let mut live: Vec<Extent> = Vec::new();
            for (take, len) in steps {
                if take || live.is_empty() {
                    if let Some(extent) = space.allocate(len) {
                        prop_assert_eq!(extent.len, len);
                        prop_assert!(extent.offset + len <= 4 << 20);
                        for other in &live {
                            let apart = extent.offset + extent.len <= other.offset
                                || other.offset + other.len <= extent.offset;
                            prop_assert!(apart, "{extent:?} overlaps {other:?}");
                        }
                        live.push(extent);
                    }
                } else {
                    let index = len as usize % live.len();
                    space.release(live.swap_remove(index));
                }
            }
            for extent in live {
                space.release(extent);
            }
            prop_assert_eq!(space.in_use(), 0);
            for _ in 0..4 {
                prop_assert!(space.allocate(1 << 20).is_some());
            }
        }
    }
}
