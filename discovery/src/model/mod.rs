//! Device management agents behind a [`MadTransport`], for tests: obedient or hostile, on a clock of their own.

pub mod subnet;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use srp_addressing::Gid;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::mad::*;
use crate::transport::*;

/// A controller of the model.
#[derive(Clone)]
pub(crate) struct Controller {
    pub(crate) guid: u64,
    pub(crate) id: &'static [u8],
    pub(crate) io_class: u16,
    pub(crate) services: Vec<(Vec<u8>, u64)>,
    pub(crate) profile_status: u16,
    pub(crate) services_status: u16,
}

impl Controller {
    pub(crate) fn srp(guid: u64) -> Self {
        Self {
            guid,
            id: b"Linux SRP target",
            io_class: 0x0100,
            services: vec![(format!("SRP.T10:{guid:016x}").into_bytes(), guid)],
            profile_status: 0,
            services_status: 0,
        }
    }

    fn profile(&self) -> IoControllerProfile {
        let mut profile = IoControllerProfile::new_zeroed();
        profile.guid = U64::new(self.guid);
        profile.vendor_id = U32::new(0x0002_c900);
        profile.device_id = U32::new(0x1003);
        profile.device_version = U16::new(0x00a1);
        profile.subsystem_vendor_id = U32::new(0x0014_0500);
        profile.subsystem_id = U32::new(0x2010);
        profile.io_class = U16::new(self.io_class);
        profile.io_subclass = U16::new(0x609e);
        profile.send_size = U32::new(8276);
        profile.rdma_size = U32::new(65536);
        profile.service_entries = self.services.len() as u8;
        profile.id[..self.id.len()].copy_from_slice(self.id);
        profile
    }
}

/// What an agent does besides answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mischief {
    #[default]
    None,
    Silent,
    /// Loses this many datagrams before it answers one.
    Lossy(u32),
    WrongTid,
    WrongClass,
    WrongAttribute,
    Truncated(usize),
    Duplicates,
    OtherSource,
    /// Answers after this long.
    Late(Duration),
    /// An endless stream of nonsense instead of an answer.
    Flood,
    CannotSend,
}

/// What comes of a question to an agent.
struct Reply {
    bytes: Vec<u8>,
    /// How often they arrive.
    copies: u32,
    /// How much later than an answer does.
    after: Duration,
    /// Whether they come from somebody else.
    elsewhere: bool,
    /// Whether the transport tells in the end that nobody has answered.
    unanswered: bool,
    /// Whether nonsense arrives from now on without end.
    flood: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct RedirectAt {
    pub(crate) attribute: Attribute,
    pub(crate) to: ClassPortInfo,
    /// Whether the answer's attribute is ClassPortInfo.
    pub(crate) renamed: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Agent {
    pub(crate) slots: HashMap<u8, Controller>,
    pub(crate) max_controllers: u8,
    pub(crate) redirect: Option<ClassPortInfo>,
    /// Redirects only who asks for this attribute.
    pub(crate) redirect_at: Option<RedirectAt>,
    pub(crate) class_port_info_status: u16,
    pub(crate) io_unit_info_status: u16,
    pub(crate) mischief: Mischief,
    /// From this many answers on it is silent.
    pub(crate) dies_after: Option<u32>,
    pub(crate) answers: u32,
    /// So many times it is busy.
    pub(crate) busy: u32,
}

impl Agent {
    pub(crate) fn with(slots: impl IntoIterator<Item = (u8, Controller)>) -> Self {
        Self {
            slots: slots.into_iter().collect(),
            max_controllers: 16,
            ..Self::default()
        }
    }

    /// What comes of the next question.
    fn reply(&mut self, request: &Mad, patience: Patience) -> io::Result<Reply> {
        self.answers += 1;
        let dead = self.dies_after.is_some_and(|n| self.answers > n);
        let mut answer = self.answer(request);
        if let Some(left) = self.busy.checked_sub(1) {
            self.busy = left;
            answer.header.status = U16::new(0x0001);
            answer.data = [0; DATA_LEN];
        }
        // The kernel's half, which a question must not rely on.
        answer.header.tid = U64::new(request.header.tid.get() | 0xdead_0000_0000_0000);
        let mut reply = Reply {
            bytes: Vec::new(),
            copies: 1,
            after: Duration::ZERO,
            elsewhere: false,
            unanswered: true,
            flood: false,
        };
        let mut len = MAD_LEN;
        match self.mischief {
            _ if dead => reply.copies = 0,
            Mischief::None => reply.unanswered = false,
            Mischief::Silent => reply.copies = 0,
            Mischief::Lossy(lost) if lost > patience.retries => reply.copies = 0,
            Mischief::Lossy(lost) => (reply.after, reply.unanswered) = (patience.timeout * lost, false),
            Mischief::WrongTid => {
                answer.header.tid = U64::new(request.header.tid.get().wrapping_add(0x1000_0000) & 0xffff_ffff);
            }
            Mischief::WrongClass => answer.header.mgmt_class = 0x03,
            Mischief::WrongAttribute => answer.header.attribute = U16::new(0x7777),
            Mischief::Truncated(to) => len = to,
            Mischief::Duplicates => (reply.copies, reply.unanswered) = (3, false),
            Mischief::OtherSource => reply.elsewhere = true,
            Mischief::Late(by) => (reply.after, reply.unanswered) = (by, false),
            Mischief::Flood => (reply.flood, reply.copies) = (true, 0),
            Mischief::CannotSend => return Err(io::ErrorKind::HostUnreachable.into()),
        }
        reply.bytes = answer.as_bytes()[..len].to_vec();
        Ok(reply)
    }

    pub(crate) fn answer(&self, request: &Mad) -> Mad {
        let mut mad = *request;
        mad.header.method = Method::GET_RESP.0;
        mad.data = [0; DATA_LEN];
        let modifier = request.header.modifier.get();
        let status;
        let mut put = |bytes: &[u8]| mad.data[..bytes.len()].copy_from_slice(bytes);
        if let Some(redirect) = self.redirect_at.filter(|at| at.attribute == request.attribute()) {
            put(redirect.to.as_bytes());
            mad.header.status = U16::new(0x0002);
            if redirect.renamed {
                mad.header.attribute = U16::new(Attribute::CLASS_PORT_INFO.id);
            }
            return mad;
        }
        match request.attribute() {
            Attribute::CLASS_PORT_INFO => {
                let mut info = self.redirect.unwrap_or_default();
                (info.base_version, info.class_version) = (1, 1);
                put(info.as_bytes());
                status = self.class_port_info_status;
            }
            Attribute::IO_UNIT_INFO => {
                let mut info = IoUnitInfo::new_zeroed();
                info.change_id = U16::new(1);
                info.flags = 0x02;
                info.max_controllers = self.max_controllers;
                self.slots
                    .keys()
                    .for_each(|slot| info.set_slot(*slot, SlotState::Present));
                put(info.as_bytes());
                status = self.io_unit_info_status;
            }
            Attribute::IO_CONTROLLER_PROFILE => match self.slots.get(&(modifier as u8)) {
                Some(controller) => {
                    put(controller.profile().as_bytes());
                    status = controller.profile_status;
                }
                None => status = 0x0100,
            },
            Attribute::SERVICE_ENTRIES => {
                let [_, slot, _, first] = modifier.to_be_bytes();
                let controller = &self.slots[&slot];
                let mut entries = ServiceEntries::new_zeroed();
                let wanted = controller.services.iter().skip(first.into()).take(4);
                for (entry, (name, id)) in entries.0.iter_mut().zip(wanted) {
                    entry.name[..name.len()].copy_from_slice(name);
                    entry.id = U64::new(*id);
                }
                put(entries.as_bytes());
                status = controller.services_status;
            }
            _ => status = 0x000c,
        }
        mad.header.status = U16::new(status);
        mad
    }
}

/// The agent of a port that has one SRP controller, for tests elsewhere.
pub struct SrpAgent(Agent);

impl SrpAgent {
    /// One whose controller has this GUID.
    #[must_use]
    pub fn new(guid: u64) -> Self {
        Self(Agent::with([(1, Controller::srp(guid))]))
    }

    /// What it answers.
    #[must_use]
    pub fn answer(&self, request: &Mad) -> Mad {
        self.0.answer(request)
    }
}

/// Agents by GID, and what is on its way back from them.
pub(crate) struct Fabric {
    now: Instant,
    agents: HashMap<Gid, Agent>,
    events: VecDeque<(Instant, Event)>,
    flood: bool,
    pub(crate) sent: Vec<(Address, Attribute)>,
    pub(crate) most_under_way: usize,
}

impl Fabric {
    pub(crate) fn new(agents: impl IntoIterator<Item = (Gid, Agent)>) -> Self {
        Self {
            now: Instant::now(),
            agents: agents.into_iter().collect(),
            events: VecDeque::new(),
            flood: false,
            sent: Vec::new(),
            most_under_way: 0,
        }
    }
}

impl MadTransport for Fabric {
    fn now(&self) -> Instant {
        self.now
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        let request = Mad::parse(mad).unwrap();
        self.sent.push((*to, request.attribute()));
        let gid = to.grh.unwrap().gid;
        let end = self.now + patience.total();
        let unanswered = (end, Event::Unanswered { tid: request.tid_low() });
        let Some(agent) = self.agents.get_mut(&gid) else {
            self.events.push_back(unanswered);
            self.most_under_way = self.most_under_way.max(self.events.len());
            return Ok(());
        };
        let reply = agent.reply(request, patience).map_err(|cause| SendError {
            to: to.to_string(),
            cause,
            remedy: "ping it",
        })?;
        let from = Source {
            lid: 0,
            qpn: 1,
            gid: Some(if reply.elsewhere { Gid([9; 16]) } else { gid }),
        };
        let at = self.now + Duration::from_micros(20) + reply.after;
        for _ in 0..reply.copies {
            let bytes = reply.bytes.clone();
            self.events.push_back((at, Event::Mad { from, bytes }));
        }
        self.flood |= reply.flood;
        if reply.unanswered {
            self.events.push_back(unanswered);
        }
        self.most_under_way = self.most_under_way.max(self.events.len());
        Ok(())
    }

    fn respond(&mut self, _: &Address, _: &[u8; MAD_LEN]) -> Result<(), SendError> {
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        if self.flood {
            self.now += Duration::from_millis(1);
            let from = Source {
                lid: 0,
                qpn: 1,
                gid: Some(Gid([7; 16])),
            };
            return Ok(Event::Mad {
                from,
                bytes: vec![0xaa; MAD_LEN],
            });
        }
        let first = self
            .events
            .iter()
            .enumerate()
            .min_by_key(|(_, (at, _))| *at)
            .map(|(i, _)| i);
        match first {
            Some(i) if self.events[i].0 <= until => {
                let (at, event) = self.events.remove(i).unwrap();
                self.now = self.now.max(at);
                Ok(event)
            }
            _ => {
                self.now = self.now.max(until);
                Ok(Event::Idle)
            }
        }
    }
}
