//! NodeRecord, PortInfoRecord and PathRecord (IBA 15.2.5).

use srp_addressing::{Gid, Guid, PKey};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::header::{Attribute, Mad, Method};
use super::{IS_DEVICE_MANAGEMENT_SUPPORTED, SaMad};

/// NodeRecord (IBA 15.2.5.2): a LID and the NodeInfo (IBA 14.2.5.3) behind it. The description is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NodeRecord {
    /// The LID of the port.
    pub lid: U16,
    /// Reserved.
    pub reserved: U16,
    /// MAD version.
    pub base_version: u8,
    /// Version of the subnet management class.
    pub class_version: u8,
    /// 1 channel adapter, 2 switch, 3 router.
    pub node_type: u8,
    /// How many ports the node has.
    pub ports: u8,
    /// The GUID of the system around it.
    pub system_guid: U64,
    /// The GUID of the node.
    pub node_guid: U64,
    /// The GUID of the port.
    pub port_guid: U64,
    /// Size of its P_Key table.
    pub partition_cap: U16,
    /// The device, by the vendor's numbering.
    pub device_id: U16,
    /// Its revision.
    pub revision: U32,
    /// Port number (8) and vendor (24).
    pub port_vendor: U32,
}

const _: () = assert!(size_of::<NodeRecord>() == 44);

impl NodeRecord {
    /// How much of a NodeRecord there must be; on the wire it goes on with a description of 64 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Whether device management can be behind it: channel adapters only.
    #[must_use]
    pub const fn is_channel_adapter(&self) -> bool {
        self.node_type == 1
    }

    /// Asks for the node behind a LID.
    #[must_use]
    pub fn of_lid(lid: u16) -> Mad {
        let mut record = Self::new_zeroed();
        record.lid = U16::new(lid);
        SaMad::request(Method::GET, Attribute::NODE_RECORD, 0, 1, &record).into_mad()
    }

    /// Asks for all nodes.
    #[must_use]
    pub fn all() -> Mad {
        SaMad::request(Method::GET_TABLE, Attribute::NODE_RECORD, 0, 0, &Self::new_zeroed()).into_mad()
    }
}

/// PortInfoRecord (IBA 15.2.5.3): the start of it, as far as it is needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PortInfoRecord {
    /// The LID of the node's end port.
    pub end_port_lid: U16,
    /// The port.
    pub port: u8,
    /// Options.
    pub options: u8,
    /// PortInfo starts here (IBA 14.2.5.6): a key, zero for everybody who is not a manager.
    pub m_key: U64,
    /// The subnet prefix of its GIDs.
    pub gid_prefix: U64,
    /// Its LID.
    pub lid: U16,
    /// The LID of its subnet manager.
    pub sm_lid: U16,
    /// What it can do.
    pub capability_mask: U32,
    /// Diagnostic code.
    pub diagnostic_code: U16,
    /// How long the key lives.
    pub m_key_lease: U16,
    /// The number of the port that answered the SM.
    pub local_port: u8,
    /// Link widths: enabled, supported, active.
    pub link_width: [u8; 3],
    /// Link speeds supported (4) and state (4).
    pub speed_state: u8,
    /// Physical state (4) and default state (4).
    pub physical_state: u8,
}

const _: () = assert!(size_of::<PortInfoRecord>() == 38);

impl PortInfoRecord {
    /// How much of a PortInfoRecord there must be; on the wire it is longer.
    pub const LEN: usize = size_of::<Self>();

    /// Whether the port has a device management agent.
    #[must_use]
    pub fn has_device_management(&self) -> bool {
        self.capability_mask.get() & IS_DEVICE_MANAGEMENT_SUPPORTED != 0
    }

    /// Asks for all ports that have a device management agent. Only an SA that says
    /// [`SA_MATCHES_CAPABILITY_MASK`](super::SA_MATCHES_CAPABILITY_MASK) understands the modifier.
    #[must_use]
    pub fn with_device_management() -> Mad {
        const MATCH_BITS: u32 = 1 << 31;
        const CAPABILITY_MASK: u64 = 1 << 7;
        let mut record = Self::new_zeroed();
        record.capability_mask = U32::new(IS_DEVICE_MANAGEMENT_SUPPORTED);
        let attribute = Attribute::PORT_INFO_RECORD;
        SaMad::request(Method::GET_TABLE, attribute, MATCH_BITS, CAPABILITY_MASK, &record).into_mad()
    }

    /// Asks for the port behind a LID.
    #[must_use]
    pub fn of_lid(lid: u16) -> Mad {
        let mut record = Self::new_zeroed();
        record.end_port_lid = U16::new(lid);
        SaMad::request(Method::GET, Attribute::PORT_INFO_RECORD, 0, 1, &record).into_mad()
    }
}

/// PathRecord (IBA 15.2.5.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PathRecord {
    /// The service the path is for.
    pub service_id: U64,
    /// Destination.
    pub dgid: [u8; 16],
    /// Source.
    pub sgid: [u8; 16],
    /// Destination LID.
    pub dlid: U16,
    /// Source LID.
    pub slid: U16,
    /// Raw traffic (1), reserved (3), flow label (20), hop limit (8).
    pub flow_hop: U32,
    /// Traffic class of the GRH.
    pub traffic_class: u8,
    /// Reversible (1) and how many paths are wanted (7).
    pub reversible_count: u8,
    /// The partition.
    pub pkey: U16,
    /// QoS class (12) and service level (4).
    pub qos_sl: U16,
    /// MTU selector (2) and MTU (6).
    pub mtu: u8,
    /// Rate selector (2) and rate (6).
    pub rate: u8,
    /// Life time selector (2) and life time (6).
    pub life_time: u8,
    /// Preference.
    pub preference: u8,
    /// Reserved.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<PathRecord>() == 64);

/// Which way is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathComponents {
    /// Between two LIDs of this subnet.
    Lids {
        /// From.
        source: u16,
        /// To.
        destination: u16,
    },
    /// Between two GIDs.
    Gids {
        /// From.
        source: Gid,
        /// To.
        destination: Gid,
    },
}

impl PathRecord {
    /// Asks for one path, in one partition if one is named.
    #[must_use]
    pub fn query(ends: PathComponents, pkey: Option<PKey>) -> Mad {
        let mut record = Self::new_zeroed();
        let mut mask;
        match ends {
            PathComponents::Lids { source, destination } => {
                record.dlid = U16::new(destination);
                record.slid = U16::new(source);
                mask = (1 << 4) | (1 << 5);
            }
            PathComponents::Gids { source, destination } => {
                record.dgid = destination.0;
                record.sgid = source.0;
                mask = (1 << 2) | (1 << 3);
            }
        }
        record.reversible_count = 0x80 | 1;
        mask |= (1 << 11) | (1 << 12);
        if let Some(pkey) = pkey {
            record.pkey = U16::new(pkey.0);
            mask |= 1 << 13;
        }
        SaMad::request(Method::GET, Attribute::PATH_RECORD, 0, mask, &record).into_mad()
    }

    /// The service level.
    #[must_use]
    pub fn sl(&self) -> u8 {
        (self.qos_sl.get() & 0xf) as u8
    }

    /// The partition.
    #[must_use]
    pub fn pkey(&self) -> PKey {
        PKey(self.pkey.get())
    }

    /// Whether the path leaves the subnet, so that a GRH is needed (IBA 15.2.5.16: hop limit above 1).
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.flow_hop.get() & 0xff > 1
    }

    /// The GUID of the destination.
    #[must_use]
    pub fn destination_guid(&self) -> Guid {
        Gid(self.dgid).interface()
    }
}
