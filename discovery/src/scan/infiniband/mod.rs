//! One InfiniBand port: what its subnet administration knows (IBA chapter 15), and the agents behind that.
//!
//! Every question is a [`Job`]; an answer may bring further ones. Jobs run side by side, bounded in number: those
//! that ask subnet administration apart from those that ask agents, so that neither starves the other.

mod job;
mod subnet;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use srp_addressing::{Gid, PKey};

use super::run::add_unit;
use super::{Progress, ScanOptions, ScanReport, Severity};
use crate::device_management::{IoUnit, Step, Survey, SurveyError};
use crate::mad::Mad;
use crate::ports::{LinkLayer, Port};
use crate::targets::SeenThrough;
use crate::transport::{Address, Ended, Exchange, MadTransport, Next, Query, Source, Ticket, TransportError};
use job::{EndPort, Job, Paused, Place, Running};
pub use subnet::SubnetError;

/// After so many questions without an answer, one after another, subnet administration is taken for gone.
const MAX_SILENCE: u32 = 8;

/// How soon a scan sees that it is not wanted any more.
const GLANCE: Duration = Duration::from_millis(200);

/// Who is told of what happens meanwhile.
pub(crate) struct Audience<'a, T> {
    /// How far the scan is.
    pub(crate) progress: &'a mut dyn FnMut(&Progress),
    /// Reports of events that come in between.
    pub(crate) reports: &'a mut dyn FnMut(&mut Exchange<T>, Source, &Mad),
    /// Questions of somebody else over the same exchange that have ended, and when.
    pub(crate) others: &'a mut dyn FnMut(Ended, Instant),
    /// Whether the scan should end now, with what it has found.
    pub(crate) interrupted: &'a mut dyn FnMut() -> bool,
}

/// The questions of a scan, over `transport`.
pub(crate) fn exchange<T: MadTransport>(transport: T, options: &ScanOptions) -> Exchange<T> {
    let at_once = options.at_once.max(1) + options.subnet_at_once.max(1);
    Exchange::new(transport, options.subnet_patience, at_once)
}

/// Asks everybody whom the subnet of `port` knows, and adds what they say to the report.
pub(crate) fn scan_port<T: MadTransport>(
    port: &Port,
    exchange: &mut Exchange<T>,
    options: &ScanOptions,
    report: &mut ScanReport,
    audience: &mut Audience<'_, T>,
) -> Result<(), TransportError> {
    if port.sm_lid == 0 || port.lid == 0 {
        report.problem(Severity::Error, Some(port), None, SubnetError::NoManager);
        return Ok(());
    }
    if port.pkeys.is_empty() {
        report.problem(Severity::Error, Some(port), None, SubnetError::NoPKey);
        return Ok(());
    }
    let mut scan = Scan {
        port,
        options,
        exchange,
        to_subnet: VecDeque::new(),
        to_agents: VecDeque::new(),
        later: Vec::new(),
        paused: Vec::new(),
        ways: VecDeque::new(),
        running: HashMap::new(),
        subnet_running: 0,
        agents_running: 0,
        silence: 0,
        asked: 0,
        end_ports: Vec::new(),
        found: Vec::new(),
        report,
    };
    scan.begin();
    let worked = scan.work(audience);
    scan.finish();
    worked
}

struct Scan<'a, T> {
    port: &'a Port,
    options: &'a ScanOptions,
    exchange: &'a mut Exchange<T>,
    to_subnet: VecDeque<Job>,
    to_agents: VecDeque<(Place, Address, Gid)>,
    /// Jobs that a busy subnet administration has put off.
    later: Vec<(Instant, Job)>,
    /// Surveys of agents that are busy.
    paused: Vec<Paused>,
    /// Questions for the way to where an agent has redirected.
    ways: VecDeque<(Query, Running)>,
    running: HashMap<Ticket, Running>,
    /// How many questions subnet administration works on.
    subnet_running: usize,
    /// How many surveys have started and not ended.
    agents_running: usize,
    silence: u32,
    asked: u64,
    /// The ports that have an agent, in the order in which they were found.
    end_ports: Vec<EndPort>,
    found: Vec<(Place, Result<IoUnit, SurveyError>)>,
    report: &'a mut ScanReport,
}

impl<T: MadTransport> Scan<'_, T> {
    fn begin(&mut self) {
        if self.options.destinations.is_empty() {
            return self.to_subnet.push_back(Job::class_port_info());
        }
        for destination in &self.options.destinations {
            match destination.address {
                std::net::IpAddr::V6(v6) => self.seek(Gid(v6.octets()), destination.to_string()),
                std::net::IpAddr::V4(_) => {
                    let name = destination.to_string();
                    self.problem(Severity::Note, &name, SubnetError::NotAGid);
                }
            }
        }
    }

    fn work(&mut self, audience: &mut Audience<'_, T>) -> Result<(), TransportError> {
        loop {
            self.start();
            if self.running.is_empty() && self.later.is_empty() && self.paused.is_empty() {
                return Ok(());
            }
            if (audience.interrupted)() {
                let running = &self.running;
                self.exchange.drop_questions(|ticket| running.contains_key(&ticket));
                return Ok(());
            }
            let later = self.later.iter().map(|(at, _)| *at);
            let until = later.chain(self.paused.iter().map(|paused| paused.until)).min();
            let glance = self.exchange.now() + GLANCE;
            match self.exchange.next(until.map_or(glance, |at| at.min(glance)))? {
                Next::Idle => {}
                Next::Report { from, mad } => (audience.reports)(self.exchange, from, &mad),
                Next::Ended((ticket, result)) => {
                    let Some(running) = self.running.remove(&ticket) else {
                        let now = self.exchange.now();
                        (audience.others)((ticket, result), now);
                        continue;
                    };
                    self.asked += 1;
                    match running {
                        Running::Subnet(job) => {
                            self.subnet_running -= 1;
                            self.subnet_answered(job, result);
                        }
                        Running::Agent(place, survey, since) => {
                            let step = survey.answered(result);
                            self.step(place, step, since);
                        }
                        Running::Way(place, survey, since) => {
                            self.subnet_running -= 1;
                            let step = self.way_answered(survey, result);
                            self.step(place, step, since);
                        }
                    }
                    (audience.progress)(&self.progress());
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let put_off = self.later.len() + self.paused.len() + self.ways.len();
        let left = self.exchange.open() + self.to_subnet.len() + self.to_agents.len() + put_off;
        Progress {
            port: self.port.name.clone(),
            asked: self.asked,
            left: left as u64,
            units: self.found.iter().filter(|(_, outcome)| outcome.is_ok()).count(),
        }
    }

    /// Starts what there is room for.
    fn start(&mut self) {
        let now = self.exchange.now();
        let (due, later) = self.later.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.later = later;
        self.to_subnet.extend(due.into_iter().map(|(_, job)| job));
        for paused in self.paused.extract_if(.., |paused| paused.until <= now) {
            let ticket = self.exchange.submit(paused.query);
            self.running
                .insert(ticket, Running::Agent(paused.place, paused.survey, paused.since));
        }
        while self.subnet_running < self.options.subnet_at_once.max(1) {
            let (query, waits) = if let Some(way) = self.ways.pop_front() {
                way
            } else if let Some(job) = self.to_subnet.pop_front() {
                let question = job.question(self.port, &self.end_ports);
                (self.to_subnet_administration(question), Running::Subnet(job))
            } else {
                break;
            };
            let ticket = self.exchange.submit(query);
            self.subnet_running += 1;
            self.running.insert(ticket, waits);
        }
        while self.agents_running < self.options.at_once.max(1) {
            let Some((place, to, gid)) = self.to_agents.pop_front() else {
                break;
            };
            let (survey, first) = Survey::start(to, gid, &self.port.pkeys);
            let ticket = self.exchange.submit(first);
            self.agents_running += 1;
            let since = self.exchange.now();
            self.running
                .insert(ticket, Running::Agent(place, job::Asked(survey), since));
        }
    }

    /// Goes on with a survey.
    fn step(&mut self, place: Place, (mut survey, step): (job::Asked, Step), since: Instant) {
        let now = self.exchange.now();
        let late = |pause| now + pause - since >= self.options.destination_limit;
        let outcome = match step {
            Step::Done(outcome) => outcome,
            Step::AskLater { pause, query } if !late(pause) => {
                let (until, query) = (now + pause, *query);
                return self.paused.push(Paused {
                    until,
                    place,
                    survey,
                    since,
                    query,
                });
            }
            Step::AskLater { .. } => survey.0.out_of_time(),
            _ if late(Duration::ZERO) => survey.0.out_of_time(),
            Step::Ask(query) => {
                let ticket = self.exchange.submit(*query);
                self.running.insert(ticket, Running::Agent(place, survey, since));
                return;
            }
            Step::FindPath { to, pkey } => match self.way_to(to, pkey) {
                Some(query) => {
                    self.ways.push_back((query, Running::Way(place, survey, since)));
                    return;
                }
                None => {
                    let step = survey.0.path(Err("this port has no GID of its own"));
                    return self.step(place, (survey, step), since);
                }
            },
        };
        self.agents_running -= 1;
        self.found.push((place, outcome));
    }

    /// Puts what was found into the report, in the order of the ports and of the P_Key table.
    fn finish(mut self) {
        if self.exchange.strays() > 0 {
            tracing::debug!(port = %self.port.name, strays = self.exchange.strays(), "datagrams that answered nothing");
        }
        self.found.sort_by_key(|(place, _)| *place);
        for (place, outcome) in self.found {
            let Some(end_port) = self.end_ports.get(place.end_port) else {
                continue;
            };
            let name = end_port.name();
            match outcome {
                Ok(unit) => {
                    let seen = SeenThrough {
                        port: self.port.name.clone(),
                        link_layer: LinkLayer::InfiniBand,
                        pkey: place.pkey,
                        rdma_cm: None,
                    };
                    add_unit(self.port, &name, end_port.node, unit, seen, self.report);
                }
                Err(error) => {
                    // It has said that it has an agent, or the caller has named it.
                    let severity = if end_port.given.is_some() {
                        Severity::Error
                    } else {
                        Severity::Warning
                    };
                    self.report.problem(severity, Some(self.port), Some(&name), error);
                }
            }
        }
    }

    fn problem(&mut self, severity: Severity, destination: &str, error: SubnetError) {
        self.report.problem(severity, Some(self.port), Some(destination), error);
    }

    /// The P_Keys of this port that paths are asked for: each partition once per membership.
    fn pkeys(&self) -> Vec<PKey> {
        self.port.pkeys.iter().map(|(_, key)| *key).collect()
    }
}
