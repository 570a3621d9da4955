//! One agent's survey: which question comes next.

mod redirection;

use std::time::Duration;

use srp_addressing::{Gid, PKey, ServiceId};

pub use redirection::WayTo;

use super::{AgentInfo, IoController, IoUnit, Service, Slot, SlotError, SurveyError};
use crate::mad::{
    Attribute, ClassPortInfo, IoControllerProfile, IoUnitInfo, MadStatus, Redirect, SERVICES_PER_MAD, ServiceEntries,
    SlotState, service_entries_modifier,
};
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

    fn done(&mut self) -> Step {
        Step::Done(self.unit.take().map(same_controllers).ok_or(SurveyError::OutOfTime))
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
