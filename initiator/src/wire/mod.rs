//! SRP information units (SRP r16a clause 6).

/// A direct memory descriptor (SRP r16a 5.6.2): where the target reads or writes data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryDescriptor {
    /// Virtual address.
    pub address: u64,
    /// Memory handle (the R_Key).
    pub key: u32,
    /// Length in bytes.
    pub len: u32,
}
