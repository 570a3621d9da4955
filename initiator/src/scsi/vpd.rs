//! Vital product data pages (SPC-4, SBC-3).

use std::fmt::Write as _;

use super::field;

/// Supported VPD pages.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Unit serial number.
pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
/// Device identification.
pub const DEVICE_IDENTIFICATION: u8 = 0x83;
/// Block limits.
pub const BLOCK_LIMITS: u8 = 0xb0;
/// Block device characteristics.
pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xb1;
/// Logical block provisioning.
pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;

const HEADER: usize = 4;

/// Data that is not the VPD page asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VpdError {
    /// Shorter than a page's header.
    #[error("VPD page {page:#04x} returned {have} bytes, fewer than a page header")]
    Truncated {
        /// The page asked for.
        page: u8,
        /// Bytes returned.
        have: usize,
    },
    /// Another page than asked for: some devices answer any page with standard data.
    #[error("asked for VPD page {page:#04x}, got page {found:#04x}")]
    Page {
        /// The page asked for.
        page: u8,
        /// The page code returned.
        found: u8,
    },
}

/// Length in bytes, header included, that a page says it has.
#[must_use]
pub fn stated_len(data: &[u8]) -> Option<usize> {
    field::u16(data, 2).map(|len| HEADER + usize::from(len))
}

/// The page without its header: what was returned of it, never more than its stated length.
///
/// # Errors
/// When it is another page or no page.
pub fn body(data: &[u8], page: u8) -> Result<&[u8], VpdError> {
    let truncated = VpdError::Truncated { page, have: data.len() };
    let len = stated_len(data).ok_or(truncated)?;
    match data[1] {
        found if found == page => Ok(&data[HEADER..len.min(data.len())]),
        found => Err(VpdError::Page { page, found }),
    }
}

/// The unit serial number of page 80h.
///
/// # Errors
/// As [`body`].
pub fn unit_serial_number(data: &[u8]) -> Result<String, VpdError> {
    body(data, UNIT_SERIAL_NUMBER).map(|body| field::text(body, 0..body.len()))
}

/// How a designator names a device (SPC-4), least preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DesignatorKind {
    /// A type this code does not use.
    Other(u8),
    /// Type 0h.
    VendorSpecific,
    /// Type 1h: T10 vendor identification based.
    T10Vendor,
    /// Type 8h: SCSI name string.
    NameString,
    /// Type 2h.
    Eui64,
    /// Type 3h.
    Naa,
}

/// One designator of page 83h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Designator<'a> {
    /// What it names: 0 the logical unit, 1 the target port, 2 the target device.
    pub association: u8,
    /// How.
    pub kind: DesignatorKind,
    /// Its code set: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// The name.
    pub value: &'a [u8],
}

impl Designator<'_> {
    /// The name in the form Linux prints: `naa.`, `eui.` or `t10.` before it, a name string as it is.
    #[must_use]
    pub fn identifier(&self) -> String {
        let text = || field::text(self.value, 0..self.value.len());
        match self.kind {
            DesignatorKind::Naa => hex("naa.", self.value),
            DesignatorKind::Eui64 => hex("eui.", self.value),
            DesignatorKind::T10Vendor => format!("t10.{}", text()),
            DesignatorKind::NameString => text(),
            DesignatorKind::VendorSpecific | DesignatorKind::Other(_) if self.code_set == 1 => hex("0x", self.value),
            DesignatorKind::VendorSpecific | DesignatorKind::Other(_) => text(),
        }
    }

    /// Preference among the names of one logical unit: NAA first, of those the IEEE registered extended (6) and
    /// registered (5) ones, as they are unique; then EUI-64, name strings, T10 vendor names.
    fn preference(&self) -> (DesignatorKind, u8) {
        let registered = match self.value.first().map(|byte| byte >> 4) {
            Some(6) => 3,
            Some(5) => 2,
            // 3 is locally assigned: it may exist twice.
            Some(3) => 0,
            _ => 1,
        };
        (
            self.kind,
            if self.kind == DesignatorKind::Naa {
                registered
            } else {
                0
            },
        )
    }
}

fn hex(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The designators of page 83h, as far as they are whole.
///
/// # Errors
/// As [`body`].
pub fn designators(data: &[u8]) -> Result<impl Iterator<Item = Designator<'_>>, VpdError> {
    let mut rest = body(data, DEVICE_IDENTIFICATION)?;
    Ok(std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<4>()?;
        let (value, next) = after.split_at_checked(usize::from(header[3]))?;
        rest = next;
        Some(Designator {
            association: (header[1] >> 4) & 0x03,
            kind: match header[1] & 0x0f {
                0 => DesignatorKind::VendorSpecific,
                1 => DesignatorKind::T10Vendor,
                2 => DesignatorKind::Eui64,
                3 => DesignatorKind::Naa,
                8 => DesignatorKind::NameString,
                other => DesignatorKind::Other(other),
            },
            code_set: header[0] & 0x0f,
            value,
        })
    }))
}

/// The name of the logical unit in page 83h that is most likely unique and stable.
///
/// # Errors
/// As [`body`].
pub fn best_identifier(data: &[u8]) -> Result<Option<String>, VpdError> {
    let own = designators(data)?.filter(|d| d.association == 0 && !d.value.is_empty());
    let known = own.filter(|d| !matches!(d.kind, DesignatorKind::Other(_)));
    let mut best: Option<Designator<'_>> = None;
    for designator in known {
        // Of equals the first: the order is the target's preference.
        if best.is_none_or(|best| designator.preference() > best.preference()) {
            best = Some(designator);
        }
    }
    Ok(best.map(|d| d.identifier()))
}

/// Block limits (page B0h). `None` is "not reported", which the standard writes as 0. In logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockLimits {
    /// WRITE SAME must give a non-zero number of blocks (WSNZ).
    pub write_same_non_zero: bool,
    /// Optimal transfer length granularity.
    pub optimal_granularity: Option<u16>,
    /// Maximum transfer length.
    pub max_transfer: Option<u32>,
    /// Optimal transfer length.
    pub optimal_transfer: Option<u32>,
    /// Maximum blocks in one UNMAP; 0 there means no UNMAP.
    pub max_unmap: Option<u32>,
    /// Maximum descriptors in one UNMAP.
    pub max_unmap_descriptors: Option<u32>,
    /// Optimal unmap granularity.
    pub unmap_granularity: Option<u32>,
    /// Unmap granularity alignment, when valid.
    pub unmap_alignment: Option<u32>,
    /// Maximum blocks in one WRITE SAME.
    pub max_write_same: Option<u64>,
}

impl BlockLimits {
    /// Reads page B0h; fields beyond the end are not reported (SBC-2 pages are shorter).
    ///
    /// # Errors
    /// As [`body`].
    pub fn parse(data: &[u8]) -> Result<Self, VpdError> {
        let body = body(data, BLOCK_LIMITS)?;
        // Offsets of the standard count the header.
        let word = |at: usize| field::u32(body, at - HEADER).filter(|value| *value != 0);
        let alignment = field::u32(body, 32 - HEADER).filter(|value| value & 0x8000_0000 != 0);
        Ok(Self {
            write_same_non_zero: field::u8(body, 0).is_some_and(|byte| byte & 0x01 != 0),
            optimal_granularity: field::u16(body, 2).filter(|value| *value != 0),
            max_transfer: word(8),
            optimal_transfer: word(12),
            max_unmap: word(20),
            max_unmap_descriptors: word(24),
            unmap_granularity: word(28),
            unmap_alignment: alignment.map(|value| value & 0x7fff_ffff),
            max_write_same: field::u64(body, 36 - HEADER).filter(|value| *value != 0),
        })
    }
}

/// Whether the medium rotates (page B1h), `None` when not reported.
///
/// # Errors
/// As [`body`].
pub fn rotational(data: &[u8]) -> Result<Option<bool>, VpdError> {
    let body = body(data, BLOCK_DEVICE_CHARACTERISTICS)?;
    Ok(match field::u16(body, 0) {
        Some(1) => Some(false),
        Some(0x0401..=0xfffe) => Some(true),
        _ => None,
    })
}

/// How blocks are provisioned (SBC-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProvisioningType {
    /// Not reported, or fully provisioned.
    #[default]
    NotReported,
    /// As many physical blocks as needed.
    Resource,
    /// Fewer physical blocks than logical ones may exist.
    Thin,
    /// A value this code does not know.
    Other(u8),
}

/// Logical block provisioning (page B2h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Provisioning {
    /// UNMAP is supported (LBPU).
    pub unmap: bool,
    /// WRITE SAME (16) can deallocate (LBPWS).
    pub write_same_16: bool,
    /// WRITE SAME (10) can deallocate (LBPWS10).
    pub write_same_10: bool,
    /// Deallocated blocks read as zeros (LBPRZ).
    pub reads_zeros: bool,
    /// The type.
    pub kind: ProvisioningType,
}

impl Provisioning {
    /// Reads page B2h.
    ///
    /// # Errors
    /// As [`body`].
    pub fn parse(data: &[u8]) -> Result<Self, VpdError> {
        let body = body(data, LOGICAL_BLOCK_PROVISIONING)?;
        let flags = field::u8(body, 1).unwrap_or(0);
        Ok(Self {
            unmap: flags & 0x80 != 0,
            write_same_16: flags & 0x40 != 0,
            write_same_10: flags & 0x20 != 0,
            // xx1b of SBC-4's three bits; SBC-3 has the one.
            reads_zeros: flags & 0x04 != 0,
            kind: match field::u8(body, 2).unwrap_or(0) & 0x07 {
                0 => ProvisioningType::NotReported,
                1 => ProvisioningType::Resource,
                2 => ProvisioningType::Thin,
                other => ProvisioningType::Other(other),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(code: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[0, code, len[0], len[1]], body].concat()
    }

    #[test]
    fn identifiers() {
        let t10 = [&[2, 1, 0, 12][..], b"LIO-ORG disk"].concat();
        let naa3 = [1, 3, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, 1];
        let naa5 = [1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, 2];
        let naa6 = [1, 3, 0, 16, 0x60, 1, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let eui = [1, 2, 0, 8, 0, 2, 0xc9, 3, 0, 0, 0, 1];
        let port = [1, 0x13, 0, 16, 0x6f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let name = [&[3, 8, 0, 7][..], b"iqn.x\0\0"].concat();
        let best = |parts: &[&[u8]]| best_identifier(&page(0x83, &parts.concat())).unwrap();
        let all: [&[u8]; 7] = [&t10, &port, &eui, &naa3, &naa5, &naa6, &name];
        assert_eq!(best(&all), Some("naa.60010405000000000000000000000009".to_owned()));
        assert_eq!(best(&[&t10, &naa3, &naa5]), Some("naa.5000000000000002".to_owned()));
        assert_eq!(best(&[&t10, &name, &eui]), Some("eui.0002c90300000001".to_owned()));
        assert_eq!(best(&[&t10, &name]), Some("iqn.x".to_owned()));
        assert_eq!(best(&[&port, &t10]), Some("t10.LIO-ORG disk".to_owned()));
        assert_eq!(best(&[&port]), None);
        // A designator that claims more than the page has ends the list.
        assert_eq!(
            best(&[&t10, &[1, 3, 0, 200, 0x60]]),
            Some("t10.LIO-ORG disk".to_owned())
        );
    }

    #[test]
    fn lengths_that_lie() {
        let mut serial = page(0x80, b" 0001-abc ");
        assert_eq!(unit_serial_number(&serial).unwrap(), "0001-abc");
        serial[2] = 0xff;
        assert_eq!(unit_serial_number(&serial).unwrap(), "0001-abc");
        serial[2..4].copy_from_slice(&[0, 5]);
        assert_eq!(unit_serial_number(&serial).unwrap(), "0001");
        assert_eq!(
            body(&serial, 0x83),
            Err(VpdError::Page {
                page: 0x83,
                found: 0x80
            })
        );
        assert_eq!(
            body(&[0, 0x83, 0], 0x83),
            Err(VpdError::Truncated { page: 0x83, have: 3 })
        );
    }

    #[test]
    fn block_pages() {
        let mut b0 = [0; 60];
        b0[0] = 1;
        b0[3] = 8;
        b0[4..8].copy_from_slice(&[0, 0, 0x80, 0]);
        b0[16..20].copy_from_slice(&[0, 0, 1, 0]);
        b0[20..24].copy_from_slice(&[0, 0, 0, 1]);
        b0[28..32].copy_from_slice(&[0x80, 0, 0, 7]);
        b0[32..40].copy_from_slice(&0x1_0000u64.to_be_bytes());
        let limits = BlockLimits {
            write_same_non_zero: true,
            optimal_granularity: Some(8),
            max_transfer: Some(0x8000),
            max_unmap: Some(256),
            max_unmap_descriptors: Some(1),
            unmap_alignment: Some(7),
            max_write_same: Some(0x1_0000),
            ..BlockLimits::default()
        };
        assert_eq!(BlockLimits::parse(&page(0xb0, &b0)), Ok(limits));
        let short = BlockLimits::parse(&page(0xb0, &b0[..12])).unwrap();
        assert_eq!((short.max_transfer, short.max_unmap), (Some(0x8000), None));
        for (rate, expected) in [(0, None), (1, Some(false)), (7200, Some(true)), (0xffff, None)] {
            let page = page(0xb1, &u16::to_be_bytes(rate));
            assert_eq!(rotational(&page), Ok(expected));
        }
        let thin = Provisioning {
            unmap: true,
            write_same_16: true,
            write_same_10: false,
            reads_zeros: true,
            kind: ProvisioningType::Thin,
        };
        assert_eq!(Provisioning::parse(&page(0xb2, &[0, 0xc4, 2, 0])), Ok(thin));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            code in prop::sample::select(vec![0u8, 0x80, 0x83, 0xb0, 0xb1, 0xb2]), len: u8,
            mut data in prop::collection::vec(any::<u8>(), 0..256), honest: bool,
        ) {
            if let [_, page, high, low, ..] = &mut data[..] {
                *page = code;
                if honest {
                    (*high, *low) = (0, len);
                }
            }
            let _ = unit_serial_number(&data);
            let _ = best_identifier(&data);
            let _ = BlockLimits::parse(&data);
            let _ = rotational(&data);
            let _ = Provisioning::parse(&data);
        }
    }
}
