//! Agents that send their class elsewhere.

use super::*;

fn redirect_to(gid: Gid) -> ClassPortInfo {
    ClassPortInfo {
        redirect_gid: gid.0,
        redirect_qp: U32::new(1),
        ..ClassPortInfo::default()
    }
}

#[test]
fn redirections_are_followed() {
    let away = Agent {
        redirect: Some(redirect_to(gid(2))),
        ..Agent::default()
    };
    // The place it leads to names itself, which is no further redirection.
    let home = Agent {
        redirect: Some(redirect_to(gid(2))),
        ..Agent::with([(1, Controller::srp(7))])
    };
    let unit = survey(&mut exchange([(gid(1), away.clone()), (gid(2), home)]), gid(1)).unwrap();
    assert_eq!((unit.gid, unit.redirects), (gid(2), 1));
    assert_eq!(ioc(&unit, 1).guid, Guid(7));

    // The same, told by the status instead.
    let away = Agent {
        class_port_info_status: 0x0002,
        ..away
    };
    let home = Agent::with([(1, Controller::srp(7))]);
    let unit = survey(&mut exchange([(gid(1), away), (gid(2), home)]), gid(1)).unwrap();
    assert_eq!((unit.gid, unit.redirects), (gid(2), 1));
}

#[test]
fn a_redirection_in_the_middle_is_followed() {
    for (attribute, renamed) in [
        (Attribute::IO_UNIT_INFO, true),
        (Attribute::IO_CONTROLLER_PROFILE, false),
        (Attribute::SERVICE_ENTRIES, true),
    ] {
        let to = redirect_to(gid(2));
        let away = Agent {
            redirect_at: Some(RedirectAt { attribute, to, renamed }),
            ..Agent::with([(1, Controller::srp(7)), (2, Controller::srp(9))])
        };
        let home = Agent::with([(1, Controller::srp(8))]);
        let unit = survey(&mut exchange([(gid(1), away.clone()), (gid(2), home)]), gid(1)).unwrap();
        assert_eq!((unit.gid, unit.redirects), (gid(2), 1), "{attribute}");
        assert_eq!((ioc(&unit, 1).guid, ioc(&unit, 1).services.len()), (Guid(8), 1));

        // Where it leads nowhere, what is known is kept.
        let outcome = survey(&mut exchange([(gid(1), away)]), gid(1));
        if attribute == Attribute::IO_UNIT_INFO {
            assert!(matches!(outcome, Err(SurveyError::Query(_))));
            continue;
        }
        let unit = outcome.unwrap();
        assert_eq!(unit.gid, gid(1));
        match &unit.slots[0].controller {
            Some(Ok(ioc)) => assert_eq!(ioc.service_errors.len(), 1),
            other => assert!(matches!(other, Some(Err(SlotError::Abandoned(_)))), "{attribute}"),
        }
        assert!(matches!(unit.slots[1].controller, Some(Err(SlotError::Abandoned(_)))));
    }
}

#[test]
fn a_redirection_uses_the_very_key_it_names() {
    let pkeys = [(0, PKey(0x7fff)), (4, PKey(0xffff))];
    let (mut survey, question) = Survey::start(Address::roce(gid(1), 0, 0), gid(1), &pkeys);
    let mut to = redirect_to(gid(2));
    to.redirect_pkey = U16::new(0xffff);
    let away = Agent {
        redirect: Some(to),
        ..Agent::default()
    };
    let answer = exchange([(gid(1), away)]).ask(question).unwrap();
    let Step::Ask(next) = survey.answer(answer) else {
        panic!()
    };
    assert_eq!(next.to.pkey_index, 4);
}

#[test]
fn bad_redirections_end() {
    let to = |n| Agent {
        redirect: Some(redirect_to(gid(n))),
        ..Agent::default()
    };
    let error = survey(&mut exchange([(gid(1), to(2)), (gid(2), to(1))]), gid(1)).unwrap_err();
    assert!(matches!(error, SurveyError::RedirectLoop { .. }), "{error}");

    let mapped = redirect_to("::ffff:10.0.0.1".parse().unwrap());
    let mut partition = redirect_to(gid(2));
    partition.redirect_pkey = U16::new(0x8009);
    for redirect in [mapped, partition] {
        let error = survey_one(Agent {
            redirect: Some(redirect),
            ..Agent::default()
        })
        .unwrap_err();
        assert!(matches!(error, SurveyError::BadRedirect { .. }), "{error}");
    }
    let nowhere = Agent {
        class_port_info_status: 0x0002,
        ..Agent::default()
    };
    let error = survey_one(nowhere).unwrap_err();
    assert!(error.to_string().contains("names no address"), "{error}");
}

#[test]
fn a_redirection_into_another_partition_uses_its_index() {
    let mut redirect = redirect_to(gid(2));
    (redirect.redirect_pkey, redirect.redirect_qp) = (U16::new(0x0001), U32::new(0xff00_0123));
    let away = Agent {
        redirect: Some(redirect),
        ..Agent::default()
    };
    let mut exchange = exchange([(gid(1), away)]);
    let error = survey(&mut exchange, gid(1)).unwrap_err();
    assert!(
        matches!(error, SurveyError::Query(QueryError::Unanswered { .. })),
        "{error}"
    );
    let (to, _) = *exchange.into_transport().sent.last().unwrap();
    assert_eq!((to.grh.unwrap().gid, to.qpn, to.pkey_index), (gid(2), 0x123, 4));
}
