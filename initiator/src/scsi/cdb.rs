//! Command descriptor blocks (SPC-4, SBC-3).

/// A command descriptor block: `len` leading bytes of `bytes` are the command, the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cdb {
    /// The command, zero-padded to the field of an SRP_CMD.
    pub bytes: [u8; 16],
    /// Length in bytes: 6, 10, 12 or 16.
    pub len: u8,
}

impl Cdb {
    /// A CDB as received; its length follows from the operation code's group (SPC-4 4.2.5.1).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let len = match bytes[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            5 => 12,
            _ => 16,
        };
        Self { bytes, len }
    }

    /// The command without padding.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(16)]
    }
}
