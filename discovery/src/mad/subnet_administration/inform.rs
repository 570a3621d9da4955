//! Subscriptions (InformInfo, IBA 13.4.8.3) and what subscribers are told (Notice, IBA 13.4.8.2).

use srp_addressing::Gid;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::header::{Attribute, Mad, Method};
use super::{IS_DEVICE_MANAGEMENT_SUPPORTED, SaMad};

/// InformInfo as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InformInfo {
    /// Which port's events; zero: see the LIDs.
    pub gid: [u8; 16],
    /// From this LID on; 0xffff: of all.
    pub lid_begin: U16,
    /// Up to this one.
    pub lid_end: U16,
    /// Reserved.
    pub reserved1: U16,
    /// 1 for the events the standard defines.
    pub is_generic: u8,
    /// 1 to subscribe, 0 to end it.
    pub subscribe: u8,
    /// The type of the event; 0xffff: any.
    pub kind: U16,
    /// The trap number; 0xffff: any.
    pub trap: U16,
    /// Queue pair (24), reserved (3) and response time (5).
    pub qpn_resp_time: U32,
    /// Reserved (8) and producer (24): 1 channel adapter, 2 switch, 4 class manager.
    pub producer: U32,
}

const _: () = assert!(size_of::<InformInfo>() == 36);

impl InformInfo {
    /// Asks for reports of `trap`, which is one of [`Notice::TRAPS`], or asks for no more of them.
    #[must_use]
    pub fn subscription(trap: u16, subscribe: bool) -> Mad {
        const LID_BEGIN: u64 = 1 << 1;
        const GENERIC_SUBSCRIBE_TYPE_TRAP: u64 = 0xf << 4;
        const QPN: u64 = 1 << 8;
        const PRODUCER: u64 = 1 << 12;
        let (kind, producer) = match trap {
            // Of a channel adapter, informational.
            Notice::LOCAL_CHANGE => (4, 1),
            // Of the subnet's manager.
            _ => (3, 4),
        };
        let mut info = Self::new_zeroed();
        info.lid_begin = U16::new(0xffff);
        info.is_generic = 1;
        info.subscribe = subscribe.into();
        info.kind = U16::new(kind);
        info.trap = U16::new(trap);
        info.producer = U32::new(producer);
        let mut mask = LID_BEGIN | GENERIC_SUBSCRIBE_TYPE_TRAP | PRODUCER;
        if !subscribe {
            info.qpn_resp_time = U32::new(crate::mad::GSI_QP << 8);
            mask |= QPN;
        }
        SaMad::request(Method::SET, Attribute::INFORM_INFO, 0, mask, &info).into_mad()
    }
}

/// A Notice as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Notice {
    /// Generic (1) and type (7).
    pub generic_kind: u8,
    /// Who saw it: 1 channel adapter, 2 switch, 4 class manager.
    pub producer: [u8; 3],
    /// Which trap.
    pub trap: U16,
    /// Who tells.
    pub issuer_lid: U16,
    /// Toggle and count.
    pub toggle_count: U16,
    /// What belongs to the trap.
    pub details: [u8; 54],
    /// Who tells, by GID.
    pub issuer_gid: [u8; 16],
}

const _: () = assert!(size_of::<Notice>() == 80);

/// What a notice says (IBA 14.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// Trap 64: a port has come into service.
    InService(Gid),
    /// Trap 65: a port has gone.
    OutOfService(Gid),
    /// Trap 144: a port's capabilities have changed.
    Capabilities {
        /// The LID of the port.
        lid: u16,
        /// Whether it has a device management agent now.
        device_management: bool,
    },
    /// Anything else.
    Other(u16),
}

impl Notice {
    /// A port has come into service.
    pub const IN_SERVICE: u16 = 64;
    /// A port has gone.
    pub const OUT_OF_SERVICE: u16 = 65;
    /// A port's capabilities have changed.
    pub const LOCAL_CHANGE: u16 = 144;
    /// The traps that tell of targets coming and going.
    pub const TRAPS: [u16; 3] = [Self::IN_SERVICE, Self::OUT_OF_SERVICE, Self::LOCAL_CHANGE];

    /// The notice in a report.
    #[must_use]
    pub fn of_report(mad: &Mad) -> Option<Self> {
        let is_report = mad.header.method == Method::REPORT.0 && mad.attribute() == Attribute::NOTICE;
        is_report.then(|| SaMad::from_mad(mad).record())
    }

    /// What it says.
    #[must_use]
    pub fn kind(&self) -> NoticeKind {
        let trap = self.trap.get();
        if self.generic_kind & 0x80 == 0 {
            return NoticeKind::Other(trap);
        }
        let d = &self.details;
        let gid = || Gid(std::array::from_fn(|i| d[6 + i]));
        match trap {
            Self::IN_SERVICE => NoticeKind::InService(gid()),
            Self::OUT_OF_SERVICE => NoticeKind::OutOfService(gid()),
            Self::LOCAL_CHANGE => NoticeKind::Capabilities {
                lid: u16::from_be_bytes([d[2], d[3]]),
                device_management: u32::from_be_bytes([d[6], d[7], d[8], d[9]]) & IS_DEVICE_MANAGEMENT_SUPPORTED != 0,
            },
            other => NoticeKind::Other(other),
        }
    }

    /// The answer to a report, which stops the SA from sending it again (IBA 13.4.11).
    #[must_use]
    pub fn response(report: &Mad) -> Mad {
        let mut answer = *report;
        answer.header.method = Method::REPORT_RESP.0;
        answer.header.status = U16::ZERO;
        answer
    }
}
