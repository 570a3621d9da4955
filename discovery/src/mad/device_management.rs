//! The attributes of device management (IBA 16.3.3): IOUnitInfo, IOControllerProfile, ServiceEntries.

use serde::Serialize;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DATA_LEN;

/// How many service entries one MAD carries.
pub const SERVICES_PER_MAD: u8 = 4;

/// What an I/O unit says of one of its slots (IBA 16.3.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// The slot is empty.
    NotInstalled,
    /// A controller is in it.
    Present,
    /// There is no such slot.
    NoSlot,
    /// A value the standard does not define.
    Unknown(u8),
}

impl SlotState {
    /// The state a nibble of the list stands for.
    #[must_use]
    pub const fn from_nibble(nibble: u8) -> Self {
        match nibble & 0xf {
            0x0 => Self::NotInstalled,
            0x1 => Self::Present,
            0xf => Self::NoSlot,
            other => Self::Unknown(other),
        }
    }

    /// The nibble of a state.
    #[must_use]
    pub const fn nibble(self) -> u8 {
        match self {
            Self::NotInstalled => 0x0,
            Self::Present => 0x1,
            Self::NoSlot => 0xf,
            Self::Unknown(other) => other & 0xf,
        }
    }
}

impl std::fmt::Display for SlotState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotInstalled => "not installed",
            Self::Present => "present",
            Self::NoSlot => "no slot",
            Self::Unknown(_) => "<unknown>",
        })
    }
}

/// IOUnitInfo (IBA 16.3.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IoUnitInfo {
    /// Changes whenever the list does.
    pub change_id: U16,
    /// How many slots the list has.
    pub max_controllers: u8,
    /// Diagnostics support and option ROM bits.
    pub flags: u8,
    /// One nibble per slot; slot 1 is the high nibble of the first byte.
    pub controller_list: [u8; 128],
}

impl IoUnitInfo {
    /// Reads the attribute of a MAD.
    #[must_use]
    pub fn from_data(data: &[u8; DATA_LEN]) -> Self {
        zerocopy::transmute!(prefix::<132>(data))
    }

    /// What is in slot `number`, counted from 1.
    #[must_use]
    pub fn slot(&self, number: u8) -> SlotState {
        let Some(index) = number.checked_sub(1) else {
            return SlotState::NoSlot;
        };
        // 255 slots need 128 bytes, which the list has.
        let byte = self.controller_list[usize::from(index / 2)];
        SlotState::from_nibble(if index % 2 == 0 { byte >> 4 } else { byte })
    }

    /// Sets what is in slot `number`; slot 0 does not exist.
    pub fn set_slot(&mut self, number: u8, state: SlotState) {
        if let Some(index) = number.checked_sub(1) {
            let byte = &mut self.controller_list[usize::from(index / 2)];
            *byte = if index % 2 == 0 {
                (*byte & 0x0f) | (state.nibble() << 4)
            } else {
                (*byte & 0xf0) | state.nibble()
            };
        }
    }
}

/// IOControllerProfile (IBA 16.3.3.4; SRP annex B.7 for the values of an SRP target).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IoControllerProfile {
    /// Names the controller; half of an SRP target port id.
    pub guid: U64,
    /// Vendor (24 bits) and a reserved byte.
    pub vendor_id: U32,
    /// Device, by the vendor's numbering.
    pub device_id: U32,
    /// Version of the device.
    pub device_version: U16,
    /// Reserved.
    pub reserved1: U16,
    /// Vendor (24 bits) of the enclosing subsystem.
    pub subsystem_vendor_id: U32,
    /// The subsystem, by that vendor's numbering.
    pub subsystem_id: U32,
    /// 0x0100 SRP r16a, 0xff00 SRP r10.
    pub io_class: U16,
    /// 0x609e for SRP.
    pub io_subclass: U16,
    /// 0x0108 for SRP.
    pub protocol: U16,
    /// 1 for SRP.
    pub protocol_version: U16,
    /// Reserved.
    pub reserved2: U32,
    /// Depth of the send queue.
    pub send_queue_depth: U16,
    /// Reserved.
    pub reserved3: u8,
    /// Depth of the RDMA READ queue.
    pub rdma_read_depth: u8,
    /// Largest message that may be sent to the controller.
    pub send_size: U32,
    /// Largest RDMA transfer.
    pub rdma_size: U32,
    /// Which operations the controller takes and issues.
    pub capability_mask: u8,
    /// Reserved.
    pub reserved4: u8,
    /// How many services it has.
    pub service_entries: u8,
    /// Reserved.
    pub reserved5: [u8; 9],
    /// Text for people.
    pub id: [u8; 64],
}

impl IoControllerProfile {
    /// Reads the attribute of a MAD.
    #[must_use]
    pub fn from_data(data: &[u8; DATA_LEN]) -> Self {
        zerocopy::transmute!(prefix::<128>(data))
    }
}

/// One service of a controller (IBA 16.3.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ServiceEntry {
    /// NUL-padded name.
    pub name: [u8; 40],
    /// The CM service id to connect to.
    pub id: U64,
}

/// ServiceEntries (IBA 16.3.3.5): four of them, from the first one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ServiceEntries(pub [ServiceEntry; SERVICES_PER_MAD as usize]);

impl ServiceEntries {
    /// Reads the attribute of a MAD.
    #[must_use]
    pub fn from_data(data: &[u8; DATA_LEN]) -> Self {
        zerocopy::transmute!(*data)
    }
}

/// The attribute modifier that asks for services `first..=last` of the controller in `slot`.
#[must_use]
pub fn service_entries_modifier(slot: u8, first: u8, last: u8) -> u32 {
    u32::from_be_bytes([0, slot, last, first])
}

/// The first `N` bytes; `N` is checked when the program is compiled.
pub(super) fn prefix<const N: usize>(data: &[u8; DATA_LEN]) -> [u8; N] {
    const { assert!(N <= DATA_LEN) };
    std::array::from_fn(|i| data[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    #[test]
    fn sizes_and_offsets() {
        assert_eq!(size_of::<IoUnitInfo>(), 132);
        assert_eq!(size_of::<IoControllerProfile>(), 128);
        assert_eq!(size_of::<ServiceEntries>(), 192);
        type P = IoControllerProfile;
        assert_eq!(offset_of!(P, io_class), 28);
        assert_eq!(offset_of!(P, send_queue_depth), 40);
        assert_eq!(offset_of!(P, rdma_read_depth), 43);
        assert_eq!(offset_of!(P, send_size), 44);
        assert_eq!(offset_of!(P, capability_mask), 52);
        assert_eq!(offset_of!(P, service_entries), 54);
        assert_eq!(offset_of!(P, id), 64);
    }

    #[test]
    fn slots_are_nibbles_counted_from_one() {
        let mut data = [0u8; DATA_LEN];
        data[..8].copy_from_slice(&[0x00, 0x2a, 16, 0, 0x1f, 0x01, 0x30, 0]);
        data[131] = 0x1f;
        let mut info = IoUnitInfo::from_data(&data);
        assert_eq!(info.change_id.get(), 42);
        assert_eq!(info.max_controllers, 16);
        let states: Vec<_> = (0..=5).map(|n| info.slot(n)).collect();
        use SlotState::*;
        assert_eq!(states, [NoSlot, Present, NoSlot, NotInstalled, Present, Unknown(3)]);
        assert_eq!(info.slot(255), Present);
        info.set_slot(2, Present);
        info.set_slot(5, NotInstalled);
        info.set_slot(0, Present);
        assert_eq!(info.controller_list[..3], [0x11, 0x01, 0x00]);
    }

    #[test]
    fn services() {
        assert_eq!(service_entries_modifier(2, 4, 7), 0x0002_0704);
        let mut data = [0u8; DATA_LEN];
        data[48..56].copy_from_slice(b"SRP.T10:");
        data[88..96].copy_from_slice(&[0, 2, 0xc9, 3, 0, 0xe, 0x8a, 0xcd]);
        let entries = ServiceEntries::from_data(&data);
        assert_eq!(&entries.0[1].name[..9], b"SRP.T10:\0");
        assert_eq!(entries.0[1].id.get(), 0x0002_c903_000e_8acd);
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(data in proptest::collection::vec(any::<u8>(), DATA_LEN)) {
            let data: [u8; DATA_LEN] = data.try_into().unwrap();
            let unit = IoUnitInfo::from_data(&data);
            prop_assert_eq!(unit.as_bytes(), &data[..132]);
            let mut again = unit;
            for number in 0..=u8::MAX {
                again.set_slot(number, unit.slot(number));
            }
            prop_assert_eq!(again, unit);
            let profile = IoControllerProfile::from_data(&data);
            prop_assert_eq!(profile.as_bytes(), &data[..128]);
            let services = ServiceEntries::from_data(&data);
            prop_assert_eq!(services.as_bytes(), &data[..]);
        }
    }
}
