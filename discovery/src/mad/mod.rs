//! Management datagrams (IBA 13.4): the common header, the classes of device management and of subnet administration,
//! and what a status means.

mod class_port_info;
mod device_management;
mod header;
mod status;
mod subnet_administration;

pub use class_port_info::{ClassPortInfo, Redirect};
pub use device_management::{
    IoControllerProfile, IoUnitInfo, SERVICES_PER_MAD, ServiceEntries, ServiceEntry, SlotState,
    service_entries_modifier,
};
pub(crate) use header::tid_low;
pub use header::{Attribute, Header, Mad, MadError, Method, class};
pub use status::MadStatus;
pub use subnet_administration::{
    IS_DEVICE_MANAGEMENT_SUPPORTED, InformInfo, NodeRecord, Notice, NoticeKind, PathComponents, PathRecord,
    PortInfoRecord, Rmpp, SA_DATA_LEN, SA_DATA_OFFSET, SA_MATCHES_CAPABILITY_MASK, SaMad, SaStatus, Table, TableError,
};

/// The size of a MAD (IBA 13.4.2).
pub const MAD_LEN: usize = 256;
/// Where the attribute of a device management MAD starts (IBA 16.3.1).
pub const DATA_OFFSET: usize = 64;
/// How long the attribute of a device management MAD is.
pub const DATA_LEN: usize = MAD_LEN - DATA_OFFSET;
/// The queue pair of general services (IBA 3.9.6.2).
pub const GSI_QP: u32 = 1;
/// The well-known Q_Key of that queue pair (IBA 10.2.4).
pub const GSI_QKEY: u32 = 0x8001_0000;
