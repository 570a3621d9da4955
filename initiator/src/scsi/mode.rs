//! MODE SENSE data (SPC-4): write protection and the write cache.

use super::field;

/// The caching mode page (SBC-3).
pub const CACHING_PAGE: u8 = 0x08;
/// All pages.
pub const ALL_PAGES: u8 = 0x3f;

/// What mode parameters say of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModeParameters {
    /// The medium is write protected (WP).
    pub write_protected: bool,
    /// The FUA and DPO bits are honoured (DPOFUA).
    pub dpo_fua: bool,
    /// A volatile write cache is in use (WCE); `None` without a caching page.
    pub write_cache: Option<bool>,
}

/// Mode data too short for its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MODE SENSE returned {have} of the {need} bytes of its header")]
pub struct ModeTruncated {
    /// Bytes of the header.
    pub need: usize,
    /// Bytes returned.
    pub have: usize,
}

impl ModeParameters {
    /// Reads MODE SENSE (6) data.
    ///
    /// # Errors
    /// When it ends before its header.
    pub fn parse_6(data: &[u8]) -> Result<Self, ModeTruncated> {
        let Some((&[len, _, specific, descriptors], rest)) = data.split_first_chunk::<4>() else {
            return Err(ModeTruncated {
                need: 4,
                have: data.len(),
            });
        };
        // The length does not count itself.
        Ok(Self::new(
            specific,
            rest,
            usize::from(len) + 1,
            4,
            usize::from(descriptors),
        ))
    }

    /// Reads MODE SENSE (10) data.
    ///
    /// # Errors
    /// When it ends before its header.
    pub fn parse_10(data: &[u8]) -> Result<Self, ModeTruncated> {
        let Some((header, rest)) = data.split_first_chunk::<8>() else {
            return Err(ModeTruncated {
                need: 8,
                have: data.len(),
            });
        };
        let len = usize::from(u16::from_be_bytes([header[0], header[1]])) + 2;
        let descriptors = usize::from(u16::from_be_bytes([header[6], header[7]]));
        Ok(Self::new(header[3], rest, len, 8, descriptors))
    }

    fn new(specific: u8, rest: &[u8], len: usize, header: usize, descriptors: usize) -> Self {
        let rest = &rest[..len.saturating_sub(header).min(rest.len())];
        Self {
            write_protected: specific & 0x80 != 0,
            dpo_fua: specific & 0x10 != 0,
            write_cache: write_cache(rest.get(descriptors..).unwrap_or(&[])),
        }
    }
}

/// WCE of the caching page among the pages.
fn write_cache(mut pages: &[u8]) -> Option<bool> {
    while let [code, len, ..] = pages {
        let sub_page_format = code & 0x40 != 0;
        let page_len = if sub_page_format {
            4 + usize::from(field::u16(pages, 2)?)
        } else {
            2 + usize::from(*len)
        };
        if code & 0x7f == CACHING_PAGE {
            return field::u8(pages, 2).filter(|_| *len > 0).map(|flags| flags & 0x04 != 0);
        }
        pages = pages.get(page_len..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        let caching = [0x08, 18, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let other = [0x01, 2, 0xff, 0xff];
        let sub_page = [0x4a, 1, 0, 1, 0xff];
        let six = [&[43, 0, 0x90, 8][..], &[0; 8], &other, &sub_page, &caching].concat();
        let expected = ModeParameters {
            write_protected: true,
            dpo_fua: true,
            write_cache: Some(true),
        };
        assert_eq!(ModeParameters::parse_6(&six), Ok(expected));
        let ten = [&[0, 26, 0, 0x10, 0, 0, 0, 0][..], &caching].concat();
        let expected = ModeParameters {
            write_protected: false,
            ..expected
        };
        assert_eq!(ModeParameters::parse_10(&ten), Ok(expected));
        // A length that ends before the page, descriptors that lie beyond the end.
        let mut short = six.clone();
        short[0] = 20;
        assert_eq!(ModeParameters::parse_6(&short).unwrap().write_cache, None);
        short[3] = 255;
        assert_eq!(ModeParameters::parse_6(&short).unwrap().write_cache, None);
        assert_eq!(ModeParameters::parse_6(&six[..4]).unwrap().write_cache, None);
        assert_eq!(
            ModeParameters::parse_6(&[0; 3]),
            Err(ModeTruncated { need: 4, have: 3 })
        );
        assert_eq!(
            ModeParameters::parse_10(&[0; 7]),
            Err(ModeTruncated { need: 8, have: 7 })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(data in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = ModeParameters::parse_6(&data);
            let _ = ModeParameters::parse_10(&data);
        }
    }
}
