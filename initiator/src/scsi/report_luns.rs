//! REPORT LUNS data (SPC-4).

use super::{Lun, field};

const HEADER: usize = 8;

/// The logical units of a target, as many as were returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LunList {
    /// Those returned, in the target's order.
    pub luns: Vec<Lun>,
    /// How many the target has; more than returned when the buffer was too short.
    pub listed: usize,
}

/// REPORT LUNS data too short for its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("REPORT LUNS returned {0} bytes, fewer than its header of 8")]
pub struct LunListTruncated(pub usize);

impl LunList {
    /// Reads what was returned; never more LUNs than the data holds.
    ///
    /// # Errors
    /// When the data ends before its header.
    pub fn parse(data: &[u8]) -> Result<Self, LunListTruncated> {
        let truncated = LunListTruncated(data.len());
        let len = field::u32(data, 0).ok_or(truncated)?;
        let entries = data.get(HEADER..).ok_or(truncated)?;
        let listed = usize::try_from(len / 8).unwrap_or(usize::MAX);
        let luns = entries
            .chunks_exact(8)
            .take(listed)
            .filter_map(|entry| entry.first_chunk().copied())
            .map(|entry| Lun(u64::from_be_bytes(entry)))
            .collect();
        Ok(Self { luns, listed })
    }

    /// Not all of them were returned.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.luns.len() < self.listed
    }

    /// Bytes that would hold them all.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.listed.saturating_mul(8).saturating_add(HEADER)
    }

    /// The data a target returns for these LUNs, before it is cut to the allocation length.
    #[must_use]
    pub fn encode(luns: &[Lun]) -> Vec<u8> {
        let len = u32::try_from(luns.len() * 8).unwrap_or(u32::MAX).to_be_bytes();
        let entries = luns.iter().flat_map(|lun| lun.0.to_be_bytes());
        len.into_iter().chain([0; 4]).chain(entries).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_cut_and_lying() {
        let luns = [Lun::from_index(0), Lun::from_index(300)];
        let data = LunList::encode(&luns);
        assert_eq!(
            data,
            [
                0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x2c, 0, 0, 0, 0, 0, 0
            ]
        );
        let list = LunList::parse(&data).unwrap();
        assert_eq!(
            (&list.luns[..], list.is_truncated(), list.needed()),
            (&luns[..], false, 24)
        );
        let cut = LunList::parse(&data[..23]).unwrap();
        assert_eq!((cut.luns.len(), cut.is_truncated(), cut.needed()), (1, true, 24));
        let fewer = LunList::parse(&[&[0, 0, 0, 8], &data[4..]].concat()).unwrap();
        assert_eq!((fewer.luns.len(), fewer.listed), (1, 1));
        let lying = LunList::parse(&[0xff; 16]).unwrap();
        assert_eq!((lying.luns.len(), lying.listed), (1, 0x1fff_ffff));
        assert_eq!(LunList::parse(&data[..7]), Err(LunListTruncated(7)));
    }

    proptest! {
        #[test]
        fn round_trips(values in prop::collection::vec(any::<u64>(), 0..64)) {
            let luns: Vec<Lun> = values.into_iter().map(Lun).collect();
            let listed = luns.len();
            prop_assert_eq!(LunList::parse(&LunList::encode(&luns)), Ok(LunList { luns, listed }));
        }

        #[test]
        fn any_bytes_are_answered(data in prop::collection::vec(any::<u8>(), 0..128)) {
            if let Ok(list) = LunList::parse(&data) {
                prop_assert!(list.luns.len() * 8 + 8 <= data.len());
            }
        }
    }
}
