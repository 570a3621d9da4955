//! Logical unit numbers (SAM-5 4.7).

/// A logical unit number: eight bytes, most significant first on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(pub u64);
