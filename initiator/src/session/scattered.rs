//! Extents of several blocks of an arena, for commands that no single free block holds.
//!
//! Such an extent is named by its first block and has the length of the whole. What it consists of is asked for here by
//! those who touch the bytes or tell the target of them; everybody else takes it for one.

use crate::fabric::Extent;

/// The scattered extents of an arena. There are few at a time, and mostly none.
#[derive(Debug, Default)]
pub(super) struct Scattered(Vec<Box<[Extent]>>);

impl Scattered {
    /// There are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes the pieces of an extent of `len` bytes; one piece is nothing to note.
    pub(super) fn add(&mut self, len: u32, pieces: Vec<Extent>) -> Option<Extent> {
        let first = *pieces.first()?;
        if pieces.len() > 1 {
            self.0.push(pieces.into());
        }
        Some(Extent { len, ..first })
    }

    fn place(&self, extent: Extent) -> Option<usize> {
        self.0
            .iter()
            .position(|pieces| pieces.first().is_some_and(|first| first.offset == extent.offset))
    }

    /// Whether an extent consists of several pieces.
    #[inline]
    pub(super) fn has(&self, extent: Extent) -> bool {
        !self.is_empty() && self.place(extent).is_some()
    }

    /// Forgets a scattered extent and returns its pieces.
    pub(super) fn take(&mut self, extent: Extent) -> Option<Box<[Extent]>> {
        self.place(extent).map(|place| self.0.swap_remove(place))
    }

    /// The pieces of an extent, in order, as far as its length goes; of one that is not scattered itself.
    pub(super) fn pieces(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let scattered = self.place(extent).and_then(|place| self.0.get(place));
        let whole = scattered.is_none().then_some(extent);
        let mut left = extent.len;
        let pieces = scattered.into_iter().flat_map(|pieces| pieces.iter().copied());
        whole.into_iter().chain(pieces).map_while(move |piece| {
            let len = piece.len.min(left);
            left -= len;
            (len > 0).then_some(Extent { len, ..piece })
        })
    }
}
