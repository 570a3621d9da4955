//! Surveys of agents, obedient and others.

mod redirection;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use srp_addressing::PKey;
use zerocopy::big_endian::{U16, U32};

use super::*;
use crate::mad::ClassPortInfo;
use crate::model::{Agent, Controller, Fabric, Mischief, RedirectAt};
use crate::transport::{Event, Exchange, MadTransport, Patience, Query, SendError, Source, TransportError};

const PATIENCE: Patience = Patience {
    timeout: Duration::from_millis(100),
    retries: 2,
};
const PKEYS: [(u16, PKey); 2] = [(0, PKey(0xffff)), (4, PKey(0x8001))];

fn gid(n: u8) -> Gid {
    let mut gid = Gid([0; 16]);
    (gid.0[0], gid.0[1], gid.0[15]) = (0xfe, 0x80, n);
    gid
}

fn exchange(agents: impl IntoIterator<Item = (Gid, Agent)>) -> Exchange<Fabric> {
    Exchange::new(Fabric::new(agents), PATIENCE, 4)
}

fn survey(exchange: &mut Exchange<Fabric>, of: Gid) -> Result<IoUnit, SurveyError> {
    let (mut survey, first) = Survey::start(Address::roce(of, 0, 0), of, &PKEYS);
    let mut query = first;
    loop {
        match survey.answer(exchange.ask(query).unwrap()) {
            Step::Ask(next) => query = *next,
            Step::AskLater { pause, query: next } => {
                let until = exchange.now() + pause;
                assert!(matches!(exchange.next(until).unwrap(), crate::transport::Next::Idle));
                query = *next;
            }
            Step::Done(result) => return result,
            step @ Step::FindPath { .. } => panic!("{step:?}"),
        }
    }
}

#[test]
fn what_an_agent_says_of_itself() {
    let info = ClassPortInfo {
        capability_mask: U16::new(0x0102),
        capability_mask2_resp_time: U32::new(5 << 5 | 18),
        trap_lid: U16::new(1),
        trap_gid: gid(9).0,
        ..ClassPortInfo::default()
    };
    let says = |info| Agent {
        redirect: Some(info),
        ..Agent::with([])
    };
    let unit = survey_one(says(info)).unwrap();
    assert_eq!(unit.flags, 2);
    let json = serde_json::to_value(&unit).unwrap();
    let expected = serde_json::json!({
        "base_version": 1, "class_version": 1, "capability_mask": 0x0102, "capability_mask2": 5,
        "response_time_exponent": 18, "trap_lid": 1, "trap_gid": gid(9).to_string(),
    });
    assert_eq!(json["agent"], expected);
    let silent = Agent {
        class_port_info_status: 0x000c,
        ..says(ClassPortInfo::default())
    };
    assert_eq!(survey_one(silent).unwrap().agent, None);
}

fn survey_one(agent: Agent) -> Result<IoUnit, SurveyError> {
    survey(&mut exchange([(gid(1), agent)]), gid(1))
}

fn mischievous(mischief: Mischief) -> Result<IoUnit, SurveyError> {
    survey_one(Agent {
        mischief,
        ..Agent::with([(1, Controller::srp(7))])
    })
}

fn ioc(unit: &IoUnit, slot: usize) -> &IoController {
    unit.slots[slot - 1].controller.as_ref().unwrap().as_ref().unwrap()
}

#[test]
fn an_obedient_agent() {
    let mut controller = Controller::srp(0x0002_c903_000e_8acd);
    controller
        .services
        .extend((0..5).map(|n| (format!("OTHER{n}").into_bytes(), n)));
    let unit = survey_one(Agent::with([(3, controller)])).unwrap();
    assert_eq!((unit.change_id, unit.max_controllers, unit.slots.len()), (1, 16, 16));
    assert_eq!((unit.gid, unit.lid, unit.redirects), (gid(1), 0, 0));
    assert_eq!(unit.slots[0].state, SlotState::NotInstalled);
    let ioc = ioc(&unit, 3);
    assert_eq!(ioc.guid, Guid(0x0002_c903_000e_8acd));
    assert_eq!((ioc.vendor_id, ioc.device_id, ioc.send_size), (0x02c9, 0x1003, 8276));
    assert_eq!(
        (ioc.device_version, ioc.subsystem_vendor_id, ioc.subsystem_id),
        (0x00a1, 0x1405, 0x2010)
    );
    assert_eq!(ioc.id.to_string(), "Linux SRP target");
    let names: Vec<_> = ioc.services.iter().map(|s| (s.index, s.name.to_string())).collect();
    assert_eq!(names.len(), 6);
    assert_eq!(names[0], (0, "SRP.T10:0002c903000e8acd".to_owned()));
    assert_eq!(names[5], (5, "OTHER4".to_owned()));
    assert!(ioc.service_errors.is_empty());
}

#[test]
fn every_service_of_a_full_list_is_asked_for_once() {
    let mut controller = Controller::srp(7);
    controller.services = (0..255_u64).map(|n| (format!("S{n}").into_bytes(), n)).collect();
    let unit = survey_one(Agent::with([(255, controller)]).with_slots(255)).unwrap();
    let ids: Vec<u64> = ioc(&unit, 255).services.iter().map(|s| s.id.0).collect();
    assert_eq!(ids, (0..255).collect::<Vec<_>>());
}

impl Agent {
    fn with_slots(mut self, max_controllers: u8) -> Self {
        self.max_controllers = max_controllers;
        self
    }
}

#[test]
fn a_broken_slot_is_an_error_for_that_slot_only() {
    let mut broken = Controller::srp(1);
    broken.profile_status = 0x0100;
    let mut half = Controller::srp(2);
    half.services_status = 0x001c;
    let agent = Agent::with([(1, broken), (2, half), (3, Controller::srp(3))]);
    let unit = survey_one(agent).unwrap();
    let error = unit.slots[0].controller.as_ref().unwrap().as_ref().unwrap_err();
    assert!(
        error.to_string().contains("no response from the I/O controller"),
        "{error}"
    );
    assert_eq!(ioc(&unit, 2).guid, Guid(2));
    assert_eq!(
        (ioc(&unit, 2).services.len(), ioc(&unit, 2).service_errors.len()),
        (0, 1)
    );
    assert_eq!(ioc(&unit, 3).services.len(), 1);
}

#[test]
fn the_same_controller_in_two_slots() {
    let agent = Agent::with([
        (1, Controller::srp(7)),
        (2, Controller::srp(7)),
        (3, Controller::srp(8)),
    ]);
    let unit = survey_one(agent).unwrap();
    let same: Vec<_> = unit.slots[..3].iter().map(|slot| slot.same_as).collect();
    assert_eq!(same, [None, Some(1), None]);
}

#[test]
fn nobody_there_and_an_agent_without_class_port_info() {
    let error = survey(&mut exchange([]), gid(9)).unwrap_err();
    assert!(error.to_string().contains("after 3 tries of 100 ms"), "{error}");
    let refusing = |io_unit_info_status| Agent {
        io_unit_info_status,
        ..Agent::default()
    };
    let error = survey_one(refusing(0x000c)).unwrap_err();
    assert!(matches!(error, SurveyError::NoAgent { .. }), "{error}");
    let error = survey_one(refusing(0x0001)).unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    let agent = Agent {
        class_port_info_status: 0x000c,
        ..Agent::with([(1, Controller::srp(7))])
    };
    assert_eq!(ioc(&survey_one(agent).unwrap(), 1).guid, Guid(7));
}

#[test]
fn a_busy_agent_is_asked_again_but_not_for_ever() {
    let busy = |times| Agent {
        busy: times,
        ..Agent::with([(1, Controller::srp(7))])
    };
    for times in [1, 5] {
        let unit = survey_one(busy(times)).unwrap();
        assert_eq!(ioc(&unit, 1).services.len(), 1, "{times}");
    }
    let mut exchange = exchange([(gid(1), busy(u32::MAX))]);
    let before = exchange.now();
    let error = survey(&mut exchange, gid(1)).unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    // ClassPortInfo, which is dispensable, and IOUnitInfo.
    assert!(exchange.now() - before < Duration::from_secs(13));
    assert_eq!(exchange.into_transport().sent.len(), 12);
}

#[test]
fn answers_that_are_none_do_no_harm() {
    for mischief in [
        Mischief::Silent,
        Mischief::WrongTid,
        Mischief::OtherSource,
        Mischief::Truncated(15),
    ] {
        let error = mischievous(mischief).unwrap_err();
        let unanswered = matches!(error, SurveyError::Query(QueryError::Unanswered { .. }));
        assert!(unanswered, "{mischief:?}: {error}");
    }
    for mischief in [
        Mischief::WrongClass,
        Mischief::WrongAttribute,
        Mischief::Truncated(24),
        Mischief::Truncated(255),
    ] {
        let error = mischievous(mischief).unwrap_err();
        let malformed = matches!(error, SurveyError::Query(QueryError::Malformed { .. }));
        assert!(malformed, "{mischief:?}: {error}");
    }
    let error = mischievous(Mischief::CannotSend).unwrap_err();
    assert!(error.to_string().contains("cannot send to GID fe80"), "{error}");
}

#[test]
fn late_lost_and_repeated_answers_are_answers() {
    for mischief in [
        Mischief::Duplicates,
        Mischief::Lossy(2),
        Mischief::Late(Duration::from_millis(250)),
    ] {
        let unit = mischievous(mischief).unwrap();
        assert_eq!(ioc(&unit, 1).guid, Guid(7), "{mischief:?}");
    }
    let error = mischievous(Mischief::Lossy(3)).unwrap_err();
    assert!(
        matches!(error, SurveyError::Query(QueryError::Unanswered { .. })),
        "{error}"
    );
}

#[test]
fn a_flood_cannot_postpone_the_end() {
    let mut exchange = exchange([(
        gid(1),
        Agent {
            mischief: Mischief::Flood,
            ..Agent::with([])
        },
    )]);
    let before = exchange.now();
    let error = survey(&mut exchange, gid(1)).unwrap_err();
    assert!(
        matches!(error, SurveyError::Query(QueryError::Unanswered { .. })),
        "{error}"
    );
    assert!(exchange.now() - before <= Duration::from_secs(3));
    assert!(exchange.strays() > 1000);
}

#[test]
fn questions_side_by_side_do_not_hurt_each_other() {
    let bad = [
        Mischief::WrongTid,
        Mischief::WrongClass,
        Mischief::Truncated(100),
        Mischief::Duplicates,
        Mischief::OtherSource,
        Mischief::Silent,
        Mischief::Late(Duration::from_secs(9)),
    ];
    let agents = (0..40_u8).map(|n| {
        let mischief = bad.get(usize::from(n)).copied().unwrap_or_default();
        (
            gid(n),
            Agent {
                mischief,
                ..Agent::default()
            },
        )
    });
    let mut exchange = exchange(agents);
    let tickets: Vec<_> = (0..40)
        .map(|n| exchange.submit(Query::get(Address::roce(gid(n), 0, 0), Attribute::IO_UNIT_INFO, 0)))
        .collect();
    let mut good = vec![false; tickets.len()];
    while let Some((ticket, result)) = exchange.wait().unwrap() {
        let index = tickets.iter().position(|t| *t == ticket).unwrap();
        assert!(!good[index], "answered twice");
        good[index] = result.is_ok();
    }
    let expected: Vec<bool> = (0..40)
        .map(|n| bad.get(n).is_none_or(|m| *m == Mischief::Duplicates))
        .collect();
    assert_eq!(good, expected);
    assert!(exchange.strays() > 0);
}

#[test]
fn no_more_questions_under_way_than_allowed() {
    let mut exchange = exchange([]);
    for n in 0..20 {
        exchange.submit(Query::get(Address::roce(gid(n), 0, 0), Attribute::IO_UNIT_INFO, 0));
    }
    let mut ended = 0;
    while exchange.wait().unwrap().is_some() {
        ended += 1;
    }
    assert_eq!(ended, 20);
    assert_eq!(exchange.into_transport().most_under_way, 4);
}

#[test]
fn an_agent_that_dies_is_given_up_soon() {
    let slots = (1..=100).map(|n| (n, Controller::srp(n.into())));
    let agent = Agent {
        dies_after: Some(6),
        ..Agent::with(slots)
    }
    .with_slots(255);
    let mut exchange = exchange([(gid(1), agent)]);
    let unit = survey(&mut exchange, gid(1)).unwrap();
    assert_eq!(ioc(&unit, 2).services.len(), 1);
    let error = |slot: usize| unit.slots[slot - 1].controller.as_ref().unwrap().as_ref().unwrap_err();
    assert!(matches!(error(3), SlotError::Query(_)));
    assert!(matches!(error(100), SlotError::Abandoned(_)));
    assert!(exchange.into_transport().sent.len() <= 6 + MAX_SILENCE as usize);
}

/// A transport that answers every question with given bytes in the data.
struct Echo(Vec<u8>, Option<Vec<u8>>);

impl MadTransport for Echo {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn send(&mut self, _: &Address, mad: &[u8; 256], _: Patience) -> Result<(), SendError> {
        let mut answer = mad.to_vec();
        answer[3] = 0x81;
        answer[64..].copy_from_slice(&self.0);
        // A different attribute each time, from the same bytes.
        self.0.rotate_left(7);
        self.1 = Some(answer);
        Ok(())
    }

    fn respond(&mut self, _: &Address, _: &[u8; crate::mad::MAD_LEN]) -> Result<(), SendError> {
        Ok(())
    }

    fn receive(&mut self, _: Instant) -> Result<Event, TransportError> {
        let from = Source {
            lid: 3,
            qpn: 1,
            gid: None,
        };
        let bytes = self.1.take().unwrap();
        Ok(Event::Mad { from, bytes })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answers_end_a_survey(bytes in proptest::collection::vec(any::<u8>(), 192)) {
        let mut exchange = Exchange::new(Echo(bytes, None), PATIENCE, 1);
        let (mut survey, mut query) = Survey::start(Address::infiniband(3, 0), gid(1), &PKEYS);
        let mut asked = 0;
        loop {
            asked += 1;
            prop_assert!(asked < 255 * 70);
            let mut step = survey.answer(exchange.ask(query).unwrap());
            if let Step::FindPath { .. } = step {
                step = survey.path(Ok((Address::infiniband(3, 0), gid(1))));
            }
            match step {
                Step::FindPath { .. } => panic!("one way leads to another"),
                Step::Ask(mut next) | Step::AskLater { query: mut next, .. } => {
                    next.to = Address::infiniband(3, 0);
                    query = *next;
                }
                Step::Done(result) => {
                    if let Ok(unit) = result {
                        serde_json::to_string(&unit).unwrap();
                        let _ = crate::listing::io_unit(&unit, Default::default(), Default::default());
                    }
                    break;
                }
            }
        }
    }
}
