//! Why an information unit was not understood, or not written.

/// An information unit that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The received bytes end before the IU does.
    #[error("{what} needs {need} bytes but {have} were received: the peer cut it short, or its lengths are wrong")]
    Truncated {
        /// The IU or the part of it.
        what: &'static str,
        /// Bytes it takes.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The slot is too short for the IU to be sent.
    #[error(
        "{what} takes {need} bytes but the slot has {have}: use a longer IU (max_it_iu_size, or the target's limit)"
    )]
    SlotTooShort {
        /// The IU.
        what: &'static str,
        /// Bytes it takes.
        need: usize,
        /// Bytes the slot has.
        have: usize,
    },
    /// An IU of another type than the one asked for.
    #[error("expected {what} (type {expected:#04x}) but the IU has type {found:#04x}")]
    Opcode {
        /// The IU asked for.
        what: &'static str,
        /// Its type code.
        expected: u8,
        /// Byte 0 of the bytes given.
        found: u8,
    },
    /// A type code that has no place here.
    #[error("IU of unexpected type {0:#04x}: not SRP, or not sent in this direction")]
    UnknownOpcode(u8),
    /// A field with a value the standard does not allow.
    #[error("{what}: {field} is {value:#x}, {why}")]
    Invalid {
        /// The IU.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What is wrong with that.
        why: &'static str,
    },
}
