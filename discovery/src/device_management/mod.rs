//! The questions put to one device management agent (IBA 16.3, SRP annex B), as a state machine without I/O.
//!
//! A [`Survey`] has one question under way at a time: agents are small machines. Many surveys run side by side
//! over one [`Exchange`](crate::transport::Exchange).

mod survey;

use serde::{Serialize, Serializer};
use srp_addressing::{Gid, Guid, ServiceId};

pub use survey::{MAX_REDIRECTS, MAX_SILENCE, Step, Survey, WayTo};

use crate::mad::{Attribute, ClassPortInfo, IoControllerProfile, MadStatus, SlotState};
use crate::text::FabricText;
use crate::transport::{Address, QueryError};

/// What an I/O unit is made of.
#[derive(Debug, Serialize)]
pub struct IoUnit {
    /// The LID it was asked at; 0 on RoCE.
    pub lid: u16,
    /// The GID it was asked at.
    #[serde(serialize_with = "display")]
    pub gid: Gid,
    /// Changes whenever the slots do.
    pub change_id: u16,
    /// How many slots it has.
    pub max_controllers: u8,
    /// Diagnostics and option ROM bits, as IOUnitInfo has them.
    pub flags: u8,
    /// What its agent says of itself, if it does.
    pub agent: Option<AgentInfo>,
    /// The slots, all of them.
    pub slots: Vec<Slot>,
    /// How often the question was sent elsewhere.
    pub redirects: u32,
}

/// What a device management agent says of itself (ClassPortInfo, IBA 13.4.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AgentInfo {
    /// The MAD version it supports.
    pub base_version: u8,
    /// The version of device management it supports.
    pub class_version: u8,
    /// What it can do: for all classes (low byte) and for this one.
    pub capability_mask: u16,
    /// What it can do besides (27 bits).
    pub capability_mask2: u32,
    /// It may take 4.096 us * 2^n to answer.
    pub response_time_exponent: u8,
    /// The port it sends traps to; 0 for none.
    pub trap_lid: u16,
    /// The same by GID, if it has one.
    #[serde(serialize_with = "display_some")]
    pub trap_gid: Option<Gid>,
}

/// A slot of an I/O unit.
#[derive(Debug, Serialize)]
pub struct Slot {
    /// Its number, from 1.
    pub number: u8,
    /// What the unit says of it.
    pub state: SlotState,
    /// The controller in it, or why that is not known; only for a slot that is present.
    #[serde(serialize_with = "controller", skip_serializing_if = "Option::is_none")]
    pub controller: Option<Result<IoController, SlotError>>,
    /// An earlier slot that shows the same controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u8>,
}

/// An I/O controller.
#[derive(Debug, Serialize)]
pub struct IoController {
    /// Its GUID; half of the port id of an SRP target.
    #[serde(serialize_with = "display")]
    pub guid: Guid,
    /// The vendor (24 bits).
    pub vendor_id: u32,
    /// The device, by the vendor's numbering.
    pub device_id: u32,
    /// The version of the device.
    pub device_version: u16,
    /// The vendor of the subsystem it is part of (24 bits).
    pub subsystem_vendor_id: u32,
    /// The subsystem, by that vendor's numbering.
    pub subsystem_id: u32,
    /// 0x0100 SRP r16a, 0xff00 SRP r10.
    pub io_class: u16,
    /// 0x609e for SRP.
    pub io_subclass: u16,
    /// 0x0108 for SRP.
    pub protocol: u16,
    /// 1 for SRP.
    pub protocol_version: u16,
    /// Depth of its send queue.
    pub send_queue_depth: u16,
    /// Depth of its RDMA READ queue.
    pub rdma_read_depth: u8,
    /// The largest message it takes: the longest information unit.
    pub send_size: u32,
    /// The largest RDMA transfer it announces.
    pub rdma_size: u32,
    /// Which operations it takes and issues.
    pub capability_mask: u8,
    /// Text for people.
    pub id: FabricText,
    /// How many services it announces.
    pub service_entries: u8,
    /// The services that could be read.
    pub services: Vec<Service>,
    /// Why some could not.
    #[serde(serialize_with = "displays", skip_serializing_if = "Vec::is_empty")]
    pub service_errors: Vec<SlotError>,
}

/// A service of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its place in the list, from 0.
    pub index: u8,
    /// Its name.
    pub name: FabricText,
    /// Where to connect.
    #[serde(serialize_with = "display")]
    pub id: ServiceId,
}

/// Why a slot, or some of its services, could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The agent refused.
    #[error("the target answered {attribute}: {status}")]
    Status {
        /// The question.
        attribute: Attribute,
        /// The answer.
        status: MadStatus,
    },
    /// No usable answer came.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It was not asked any more.
    #[error("not asked: {0}")]
    Abandoned(&'static str),
}

/// Why an I/O unit could not be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// The port answers, but has no device management agent: its kernel says so itself.
    #[error(
        "{from} has no device management agent: no I/O unit, or its target is not running (on a Linux target: \
         modprobe ib_srpt)"
    )]
    NoAgent {
        /// Who was asked.
        from: Address,
    },
    /// The agent refused.
    #[error("{from} answered {attribute}: {status}")]
    Status {
        /// Who was asked.
        from: Address,
        /// The question.
        attribute: Attribute,
        /// The answer.
        status: MadStatus,
    },
    /// No usable answer came.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Sent from one place to the next without end.
    #[error(
        "gave up after {MAX_REDIRECTS} redirections, the last one to {to}: the target's management is misconfigured"
    )]
    RedirectLoop {
        /// Where the last one led.
        to: Address,
    },
    /// Sent somewhere that cannot be asked.
    #[error("{from} redirects device management to a place that cannot be asked: {why}")]
    BadRedirect {
        /// Who was asked.
        from: Address,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It took too long altogether.
    #[error("given up: the whole query took longer than the time for one destination")]
    OutOfTime,
}

impl AgentInfo {
    fn of(info: &ClassPortInfo) -> Self {
        let trap_gid = Some(Gid(info.trap_gid)).filter(|gid| *gid != Gid::default());
        Self {
            base_version: info.base_version,
            class_version: info.class_version,
            capability_mask: info.capability_mask.get(),
            capability_mask2: info.capability_mask2_resp_time.get() >> 5,
            response_time_exponent: info.response_time_exponent(),
            trap_lid: info.trap_lid.get(),
            trap_gid,
        }
    }
}

impl IoController {
    fn from_profile(profile: &IoControllerProfile) -> Self {
        Self {
            guid: Guid(profile.guid.get()),
            vendor_id: profile.vendor_id.get() >> 8,
            device_id: profile.device_id.get(),
            device_version: profile.device_version.get(),
            subsystem_vendor_id: profile.subsystem_vendor_id.get() >> 8,
            subsystem_id: profile.subsystem_id.get(),
            io_class: profile.io_class.get(),
            io_subclass: profile.io_subclass.get(),
            protocol: profile.protocol.get(),
            protocol_version: profile.protocol_version.get(),
            send_queue_depth: profile.send_queue_depth.get(),
            rdma_read_depth: profile.rdma_read_depth,
            send_size: profile.send_size.get(),
            rdma_size: profile.rdma_size.get(),
            capability_mask: profile.capability_mask,
            id: FabricText::from_field(&profile.id),
            service_entries: profile.service_entries,
            services: Vec::new(),
            service_errors: Vec::new(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.guid == other.guid && self.id == other.id && self.services == other.services
    }
}

pub(crate) fn display<T: std::fmt::Display, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(v)
}

pub(crate) fn display_some<T: std::fmt::Display, S: Serializer>(v: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
    match v {
        Some(v) => s.collect_str(v),
        None => s.serialize_none(),
    }
}

fn displays<T: std::fmt::Display, S: Serializer>(v: &[T], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(v.iter().map(ToString::to_string))
}

fn controller<S: Serializer>(v: &Option<Result<IoController, SlotError>>, s: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Outcome<'a> {
        Error(String),
        #[serde(untagged)]
        Known(&'a IoController),
    }
    match v {
        Some(Ok(controller)) => Outcome::Known(controller).serialize(s),
        Some(Err(error)) => Outcome::Error(error.to_string()).serialize(s),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
