//! The surveys of one port, side by side.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::candidates::Candidate;
use super::{Cause, FoundUnit, Node, Progress, ScanOptions, ScanReport, Severity};
use crate::device_management::{IoUnit, Step, Survey, SurveyError};
use crate::ports::{LinkLayer, Port};
use crate::targets::{SeenThrough, targets_of};
use crate::transport::{Exchange, MadTransport, Next, Query, Ticket, TransportError};

struct Running {
    index: usize,
    survey: Survey,
    started: Instant,
}

type Outcome = Result<IoUnit, SurveyError>;

/// Asks all candidates of a port and adds what they say to the report, in the order of the candidates.
pub(super) fn scan_port(
    port: &Port,
    transport: impl MadTransport,
    candidates: Vec<Candidate>,
    options: &ScanOptions,
    report: &mut ScanReport,
    progress: &mut dyn FnMut(&Progress),
) {
    let mut exchange = Exchange::new(transport, options.patience, options.at_once);
    let mut outcomes: Vec<Option<Outcome>> = candidates.iter().map(|_| None).collect();
    let ended = survey_all(&mut exchange, port, &candidates, options, &mut outcomes, progress);
    if exchange.strays() > 0 {
        tracing::debug!(port = %port.name, strays = exchange.strays(), "datagrams that answered nothing");
    }
    for (candidate, outcome) in candidates.iter().zip(outcomes) {
        match outcome {
            Some(Ok(unit)) => found(port, candidate, unit, report),
            Some(Err(error)) => {
                let severity = match error {
                    _ if candidate.given => Severity::Error,
                    SurveyError::Query(_) | SurveyError::NoAgent { .. } => Severity::Note,
                    _ => Severity::Warning,
                };
                report.problem(severity, Some(port), Some(&candidate.name), error);
            }
            None => {}
        }
    }
    if let Err(error) = ended {
        report.problem(Severity::Error, Some(port), None, error);
    }
}

fn survey_all<T: MadTransport>(
    exchange: &mut Exchange<T>,
    port: &Port,
    candidates: &[Candidate],
    options: &ScanOptions,
    outcomes: &mut [Option<Outcome>],
    progress: &mut dyn FnMut(&Progress),
) -> Result<(), TransportError> {
    let mut waiting: VecDeque<(usize, &Candidate)> = candidates.iter().enumerate().collect();
    let mut running: HashMap<Ticket, Running> = HashMap::new();
    // Surveys of agents that are busy, and what they are asked when.
    let mut paused: Vec<(Instant, Query, Running)> = Vec::new();
    let mut told = Progress {
        port: port.name.clone(),
        asked: 0,
        left: 0,
        units: 0,
    };
    loop {
        told.left = (waiting.len() + running.len() + paused.len()) as u64;
        if told.asked > 0 {
            progress(&told);
        }
        let now = exchange.now();
        for (_, query, run) in paused.extract_if(.., |(until, ..)| *until <= now) {
            running.insert(exchange.submit(query), run);
        }
        while running.len() + paused.len() < options.at_once.max(1) {
            let Some((index, candidate)) = waiting.pop_front() else {
                break;
            };
            let (survey, first) = Survey::start(candidate.to, candidate.gid, &port.pkeys);
            let started = exchange.now();
            running.insert(exchange.submit(first), Running { index, survey, started });
        }
        if running.is_empty() && paused.is_empty() {
            return Ok(());
        }
        let until = paused.iter().map(|(until, ..)| *until).min();
        let Next::Ended((ticket, result)) = exchange.next(until.unwrap_or(now + Duration::from_secs(3600)))? else {
            continue;
        };
        let Some(mut run) = running.remove(&ticket) else {
            continue;
        };
        told.asked += 1;
        let outcome = match run.survey.answer(result) {
            Step::Done(outcome) => outcome,
            // RoCE has no subnet administration to ask; a survey over a GRH does not want it either.
            Step::FindPath { .. } => Err(SurveyError::OutOfTime),
            Step::AskLater { pause, query } => {
                let until = exchange.now() + pause;
                if until - run.started < options.destination_limit {
                    paused.push((until, *query, run));
                    continue;
                }
                run.survey.out_of_time()
            }
            Step::Ask(_) if exchange.now() - run.started >= options.destination_limit => run.survey.out_of_time(),
            Step::Ask(query) => {
                running.insert(exchange.submit(*query), run);
                continue;
            }
        };
        told.units += usize::from(outcome.is_ok());
        if let Some(place) = outcomes.get_mut(run.index) {
            *place = Some(outcome);
        }
    }
}

fn found(port: &Port, candidate: &Candidate, unit: IoUnit, report: &mut ScanReport) {
    let Some((_, pkey)) = port.default_pkey() else { return };
    let seen = SeenThrough {
        port: port.name.clone(),
        link_layer: LinkLayer::Ethernet,
        pkey,
        rdma_cm: candidate.rdma_cm.clone(),
    };
    add_unit(port, &candidate.name, None, unit, seen, report);
}

/// Adds a unit, its targets, and what is wrong with them.
pub(super) fn add_unit(
    port: &Port,
    destination: &str,
    node: Option<Node>,
    unit: IoUnit,
    seen: SeenThrough,
    report: &mut ScanReport,
) {
    let name = Some(destination);
    for slot in &unit.slots {
        match &slot.controller {
            Some(Err(error)) => {
                report.problem(Severity::Warning, Some(port), name, Cause::slot(slot.number, error));
            }
            Some(Ok(controller)) => {
                for error in &controller.service_errors {
                    report.problem(Severity::Warning, Some(port), name, Cause::slot(slot.number, error));
                }
            }
            None => {}
        }
    }
    let (targets, warnings) = targets_of(&unit, &seen);
    report.targets.extend(targets);
    for warning in warnings {
        report.problem(Severity::Warning, Some(port), name, warning);
    }
    report.units.push(FoundUnit {
        port: port.name.clone(),
        link_layer: seen.link_layer,
        destination: destination.to_owned(),
        pkey: seen.pkey,
        node,
        rdma_cm: seen.rdma_cm,
        unit,
    });
}
