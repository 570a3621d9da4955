//! Big-endian fields of parameter data, which ends where it ends: what lies beyond is absent, not a panic.

use std::ops::Range;

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn u8(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn u16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(super) fn u64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// A text field, or as much of it as there is: trimmed, unprintable bytes replaced.
pub(super) fn text(bytes: &[u8], at: Range<usize>) -> String {
    let end = at.end.min(bytes.len());
    let raw = bytes.get(at.start..end).unwrap_or(&[]);
    let printable = |b: &u8| if matches!(b, 0x20..=0x7e) { char::from(*b) } else { '?' };
    // Texts are padded with blanks, by some targets with NULs.
    let padding = raw.iter().rev().take_while(|b| matches!(b, 0 | b' ')).count();
    let shown: String = raw[..raw.len() - padding].iter().map(printable).collect();
    shown.trim().to_owned()
}
