//! One agent's survey: which question comes next.

use std::time::Duration;

use srp_addressing::{Gid, PKey, ServiceId};

use super::{AgentInfo, IoController, IoUnit, Service, Slot, SlotError, SurveyError};
use crate::mad::{
    Attribute, ClassPortInfo, GSI_QKEY, GSI_QP, IoControllerProfile, IoUnitInfo, Mad, MadStatus, Redirect,
    SERVICES_PER_MAD, ServiceEntries, SlotState, service_entries_modifier,
};
use crate::ports::{is_ipv4_mapped, pkey_index};
use crate::text::FabricText;
use crate::transport::{Address, Answer, Query, QueryError, busy_pause};

/// How many redirections are followed.
pub const MAX_REDIRECTS: u32 = 4;
/// After this many questions in a row without an answer the agent is given up.
pub const MAX_SILENCE: u32 = 2;

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Ask this and hand the answer in.
    Ask(Box<Query>),
    /// The same, but not at once: the agent is busy.
    AskLater {
        /// How much later.
        pause: Duration,
        /// What to ask then.
        query: Box<Query>,
    },
    /// On InfiniBand: ask subnet administration for the way there and hand it in with [`Survey::path`].
    FindPath {
        /// Where to.
        to: WayTo,
        /// In which partition, if it matters.
        pkey: Option<PKey>,
    },
    /// Finished.
    Done(Result<IoUnit, SurveyError>),
}

/// Where a redirection leads that names half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayTo {
    /// The LID is to be found.
    Gid(Gid),
    /// The GID is to be found.
    Lid(u16),
}

enum State {
    ClassPortInfo,
    IoUnitInfo,
    Profile { slot: usize },
    Services { slot: usize, first: u8 },
}

/// The questions to one agent and what came of them.
pub struct Survey {
    to: Address,
    gid: Gid,
    /// The local P_Key table, for redirections into another partition.
    pkeys: Vec<(u16, PKey)>,
    state: State,
    /// The attribute asked for last, and its modifier.
    asked: (Attribute, u32),
    /// How often it was too busy for that.
    busy: u8,
    redirects: u32,
    silence: u32,
    /// A redirection, while the way there is looked for.
    awaits: Option<Redirect>,
    agent: Option<AgentInfo>,
    unit: Option<IoUnit>,
}

impl Survey {
    /// Starts to ask the agent at `to`, and says what to ask first. `gid` is the GID of that port.
    #[must_use]
    pub fn start(to: Address, gid: Gid, pkeys: &[(u16, PKey)]) -> (Self, Query) {
        let survey = Self {
            to,
            gid,
            pkeys: pkeys.to_vec(),
            state: State::ClassPortInfo,
            asked: (Attribute::CLASS_PORT_INFO, 0),
            busy: 0,
            redirects: 0,
            silence: 0,
            awaits: None,
            agent: None,
            unit: None,
        };
        (survey, Query::get(to, Attribute::CLASS_PORT_INFO, 0))
    }

    /// Takes the answer to the question asked last.
    pub fn answer(&mut self, result: Result<Answer, QueryError>) -> Step {
        self.silence = match &result {
            Err(QueryError::Unanswered { .. }) => self.silence + 1,
            _ => 0,
        };
        let busy = result.as_ref().is_ok_and(|mad| mad.status().is_busy());
        if let Some(pause) = busy_pause(self.busy).filter(|_| busy) {
            self.busy += 1;
            let (attribute, modifier) = self.asked;
            let query = Box::new(Query::get(self.to, attribute, modifier));
            return Step::AskLater { pause, query };
        }
        self.busy = 0;
        let step = match self.state {
            State::ClassPortInfo => self.class_port_info(result),
            State::IoUnitInfo => self.io_unit_info(result),
            State::Profile { slot } => self.profile(slot, result),
            State::Services { slot, first } => self.services(slot, first, result),
        };
        self.kept(step)
    }

    /// What is known by now is not lost to a redirection that leads nowhere.
    fn kept(&mut self, step: Step) -> Step {
        match step {
            Step::Done(Err(error)) if self.unit.is_some() => {
                tracing::debug!(to = %self.to, %error, "redirected in vain");
                self.abandon("the target has redirected this to a place that does not answer");
                self.done()
            }
            step => step,
        }
    }

    fn done(&mut self) -> Step {
        Step::Done(self.unit.take().map(same_controllers).ok_or(SurveyError::OutOfTime))
    }

    /// Takes the way asked for with [`Step::FindPath`], and the GID it leads to.
    pub fn path(&mut self, way: Result<(Address, Gid), &'static str>) -> Step {
        let step = match (way, self.awaits.take()) {
            (Ok((way, gid)), Some(redirect)) => {
                let found = self.redirected(&Redirect {
                    lid: way.lid,
                    ..redirect
                });
                let found = found.map(|to| Address {
                    sl: way.sl,
                    grh: way.grh,
                    pkey_index: way.pkey_index,
                    ..to
                });
                match found {
                    // An agent may name its own place when it tells where that is; else it would be asked for ever.
                    Ok(to) if to == self.to && matches!(self.state, State::ClassPortInfo) => {
                        self.ask(State::IoUnitInfo, Attribute::IO_UNIT_INFO, 0)
                    }
                    found => self.go(found, redirect.gid.or(Some(gid))),
                }
            }
            (way, _) => {
                let why = way.err().unwrap_or("a way nobody asked for");
                Step::Done(Err(SurveyError::BadRedirect { from: self.to, why }))
            }
        };
        self.kept(step)
    }

    /// Ends a survey that has used up its time: what is known by now is kept.
    ///
    /// # Errors
    /// When nothing is known.
    pub fn out_of_time(mut self) -> Result<IoUnit, SurveyError> {
        self.abandon("the time for one destination is used up");
        self.unit.take().ok_or(SurveyError::OutOfTime)
    }

    fn ask(&mut self, state: State, attribute: Attribute, modifier: u32) -> Step {
        self.state = state;
        self.asked = (attribute, modifier);
        Step::Ask(Box::new(Query::get(self.to, attribute, modifier)))
    }

    fn class_port_info(&mut self, result: Result<Answer, QueryError>) -> Step {
        let mad = match result {
            Ok(mad) => mad,
            Err(error) => return Step::Done(Err(error.into())),
        };
        let info = ClassPortInfo::from_data(&mad.data);
        self.agent = mad.status().is_good().then(|| AgentInfo::of(&info));
        if let Some(step) = self.follow(&mad) {
            return step;
        }
        // An agent without ClassPortInfo breaks the standard, but may answer the rest.
        if !mad.status().is_good() {
            tracing::debug!(to = %self.to, status = %mad.status(), "no ClassPortInfo");
        }
        self.ask(State::IoUnitInfo, Attribute::IO_UNIT_INFO, 0)
    }

    /// Follows a redirection: the ClassPortInfo asked for, or the one sent instead of any other answer
    /// (IBA 13.5.2). `None` when there is none.
    fn follow(&mut self, mad: &Mad) -> Option<Step> {
        let status = mad.status();
        let asked_for = mad.attribute() == Attribute::CLASS_PORT_INFO && status.is_good();
        if !asked_for && !status.is_redirect() {
            return None;
        }
        let redirect = ClassPortInfo::from_data(&mad.data).redirect();
        if let Some(redirect) = redirect.filter(|_| self.to.lid != 0)
            && let Some(to) = match (redirect.gid, redirect.lid) {
                (Some(gid), 0) => Some(WayTo::Gid(gid)),
                (None, lid) if lid != self.to.lid => Some(WayTo::Lid(lid)),
                _ => None,
            }
        {
            self.awaits = Some(redirect);
            let pkey = redirect.pkey;
            return Some(Step::FindPath { to, pkey });
        }
        let to = match redirect.map(|redirect| self.redirected(&redirect)) {
            None if asked_for => return None,
            None => Err("it names no address"),
            // An agent may name its own place.
            Some(Ok(to)) if to == self.to && asked_for => return None,
            Some(to) => to,
        };
        Some(self.go(to, redirect.and_then(|redirect| redirect.gid)))
    }

    fn go(&mut self, to: Result<Address, &'static str>, gid: Option<Gid>) -> Step {
        match to {
            Err(why) => Step::Done(Err(SurveyError::BadRedirect { from: self.to, why })),
            Ok(to) if self.redirects == MAX_REDIRECTS => Step::Done(Err(SurveyError::RedirectLoop { to })),
            Ok(to) => {
                tracing::debug!(from = %self.to, %to, "redirected");
                self.redirects += 1;
                self.to = to;
                self.gid = gid.unwrap_or(self.gid);
                self.ask(State::ClassPortInfo, Attribute::CLASS_PORT_INFO, 0)
            }
        }
    }

    fn redirected(&self, redirect: &Redirect) -> Result<Address, &'static str> {
        let mut to = self.to;
        match (redirect.gid, &mut to.grh) {
            (Some(gid), _) if is_ipv4_mapped(gid) => {
                return Err("a GID with an IPv4 address, from which answers are dropped");
            }
            (Some(gid), Some(grh)) => {
                grh.gid = gid;
                grh.traffic_class = redirect.traffic_class;
                grh.flow_label = redirect.flow_label;
            }
            _ => {}
        }
        if to.lid != 0 {
            to.lid = redirect.lid;
            to.grh = None;
        }
        if let Some(pkey) = redirect.pkey {
            to.pkey_index = pkey_index(&self.pkeys, pkey).ok_or("a partition this port is not in")?;
        }
        to.sl = redirect.sl;
        to.qpn = if redirect.qpn == 0 { GSI_QP } else { redirect.qpn };
        to.qkey = if redirect.qkey == 0 { GSI_QKEY } else { redirect.qkey };
        Ok(to)
    }

    fn io_unit_info(&mut self, result: Result<Answer, QueryError>) -> Step {
        let mad = match result {
            Ok(mad) => mad,
            Err(error) => return Step::Done(Err(error.into())),
        };
        if let Some(step) = self.follow(&mad) {
            return step;
        }
        let status = mad.status();
        if matches!(status, MadStatus::BAD_METHOD | MadStatus::BAD_METHOD_ATTRIBUTE) {
            return Step::Done(Err(SurveyError::NoAgent { from: self.to }));
        }
        if !status.is_good() {
            let attribute = Attribute::IO_UNIT_INFO;
            return Step::Done(Err(SurveyError::Status {
                from: self.to,
                attribute,
                status,
            }));
        }
        let info = IoUnitInfo::from_data(&mad.data);
        let slot = |number| Slot {
            number,
            state: info.slot(number),
            controller: None,
            same_as: None,
        };
        self.unit = Some(IoUnit {
            lid: self.to.lid,
            gid: self.gid,
            change_id: info.change_id.get(),
            max_controllers: info.max_controllers,
            flags: info.flags,
            agent: self.agent,
            slots: (1..=info.max_controllers).map(slot).collect(),
            redirects: self.redirects,
        });
        self.next_slot(0)
    }

    fn next_slot(&mut self, from: usize) -> Step {
        if self.silence >= MAX_SILENCE {
            self.abandon("the target has stopped answering");
        }
        let open = |slot: &Slot| slot.state == SlotState::Present && slot.controller.is_none();
        let slots = self.unit.as_ref().map_or(&[][..], |unit| &unit.slots);
        let next = slots.iter().enumerate().skip(from).find(|(_, slot)| open(slot));
        match next.map(|(index, slot)| (index, slot.number)) {
            Some((slot, number)) => self.ask(State::Profile { slot }, Attribute::IO_CONTROLLER_PROFILE, number.into()),
            None => self.done(),
        }
    }

    fn abandon(&mut self, why: &'static str) {
        for slot in self.unit.iter_mut().flat_map(|unit| &mut unit.slots) {
            if slot.state == SlotState::Present && slot.controller.is_none() {
                slot.controller = Some(Err(SlotError::Abandoned(why)));
            }
        }
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.unit.as_mut()?.slots.get_mut(slot)
    }

    /// A redirection instead of an answer about a slot. ClassPortInfo redirects the class as a whole: the survey
    /// starts over at the new place. `None` when there is none, or none that can be followed.
    fn follow_from_slot(&mut self, result: &Result<Answer, QueryError>) -> Option<Step> {
        let mad = result.as_ref().ok().filter(|mad| mad.status().is_redirect())?;
        match self.follow(mad)? {
            Step::Done(outcome) => {
                tracing::debug!(to = %self.to, error = ?outcome.err(), "a redirection is not followed");
                None
            }
            step => Some(step),
        }
    }

    fn profile(&mut self, slot: usize, result: Result<Answer, QueryError>) -> Step {
        if let Some(step) = self.follow_from_slot(&result) {
            return step;
        }
        let attribute = Attribute::IO_CONTROLLER_PROFILE;
        let outcome =
            good(attribute, result).map(|mad| IoController::from_profile(&IoControllerProfile::from_data(&mad.data)));
        let asks_services = matches!(&outcome, Ok(controller) if controller.service_entries > 0);
        if let Some(slot) = self.slot_mut(slot) {
            slot.controller = Some(outcome);
        }
        if asks_services {
            self.ask_services(slot, 0)
        } else {
            self.next_slot(slot + 1)
        }
    }

    fn ask_services(&mut self, slot: usize, first: u8) -> Step {
        let Some((number, count)) = self.slot_mut(slot).and_then(|slot| match &slot.controller {
            Some(Ok(controller)) => Some((slot.number, controller.service_entries)),
            _ => None,
        }) else {
            return self.next_slot(slot + 1);
        };
        if first >= count || self.silence >= MAX_SILENCE {
            return self.next_slot(slot + 1);
        }
        let last = last_service(first, count);
        let modifier = service_entries_modifier(number, first, last);
        self.ask(State::Services { slot, first }, Attribute::SERVICE_ENTRIES, modifier)
    }

    fn services(&mut self, slot: usize, first: u8, result: Result<Answer, QueryError>) -> Step {
        let elsewhere = self.follow_from_slot(&result);
        let outcome = good(Attribute::SERVICE_ENTRIES, result);
        if let Some(Some(Ok(controller))) = self.slot_mut(slot).map(|slot| &mut slot.controller) {
            match outcome {
                Ok(mad) => {
                    let indices = first..=last_service(first, controller.service_entries);
                    let entries = ServiceEntries::from_data(&mad.data);
                    controller
                        .services
                        .extend(indices.zip(entries.0).map(|(index, entry)| Service {
                            index,
                            name: FabricText::from_field(&entry.name),
                            id: ServiceId(entry.id.get()),
                        }));
                }
                Err(error) => controller.service_errors.push(error),
            }
        }
        if let Some(step) = elsewhere {
            return step;
        }
        match first.checked_add(SERVICES_PER_MAD) {
            Some(next) => self.ask_services(slot, next),
            None => self.next_slot(slot + 1),
        }
    }
}

/// The last of the services asked for together with `first`; `count` is above `first`.
fn last_service(first: u8, count: u8) -> u8 {
    first.saturating_add(SERVICES_PER_MAD - 1).min(count.saturating_sub(1))
}

fn good(attribute: Attribute, result: Result<Answer, QueryError>) -> Result<Answer, SlotError> {
    let mad = result?;
    let status = mad.status();
    if status.is_good() {
        Ok(mad)
    } else {
        Err(SlotError::Status { attribute, status })
    }
}

/// Marks slots that show a controller another slot has already shown: LIO answers its only controller in slots
/// 1 and 2.
fn same_controllers(mut unit: IoUnit) -> IoUnit {
    for later in 1..unit.slots.len() {
        let (earlier, rest) = unit.slots.split_at_mut(later);
        let Some(slot) = rest.first_mut() else { break };
        let Some(Ok(controller)) = &slot.controller else {
            continue;
        };
        let same = earlier
            .iter()
            .find(|e| e.same_as.is_none() && matches!(&e.controller, Some(Ok(other)) if other.is_same(controller)));
        slot.same_as = same.map(|e| e.number);
    }
    unit
}
