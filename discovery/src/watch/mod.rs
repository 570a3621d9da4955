//! Keeping watch over one InfiniBand port: which targets are there, and which come and go.
//!
//! A [`Watcher`] subscribes to the subnet's events (InformInfo, IBA 13.4.8.3), scans when they tell of something, and
//! scans again on a period, since events get lost, renewing its subscriptions. It knows no sessions: what should be done about a target is an
//! [`WatchEvent`] for its caller. What happens to the local port comes in as a value, [`Watcher::port_is`].
//!
//! Any node of a fabric can forge a report. One that does not come from the subnet manager's LID is dropped; of the
//! others, one about a port that went away asks for no more than a probe, which decides.

mod subscription;
mod table;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use srp_addressing::Gid;

use crate::mad::{Mad, Notice, NoticeKind};
use crate::ports::{Port, PortState};
use crate::scan::infiniband::{Audience, exchange, scan_port};
use crate::scan::{Destination, Problem, ScanOptions, ScanReport, Severity, SubnetError};
use crate::targets::Target;
use crate::transport::{Address, Exchange, MadTransport, Next, Source, TransportError};
use subscription::Subscriptions;
pub use table::Known;
use table::Table;

/// Within this time the sessions to a port that is said to have gone should be probed.
pub const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// So many ports that came are asked one by one; of more the whole subnet is scanned.
const ONE_BY_ONE: usize = 5;
/// Scans that events ask for are at least this far apart, and so are probes of one port.
const BREATH: Duration = Duration::from_secs(1);
/// Ports that are probed at once at most, more than anybody has sessions to.
const PROBES: usize = 1024;
/// After a scan that failed.
const RETRY: Duration = Duration::from_secs(10);

/// How a port is watched.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// How often everything is scanned, whatever the events say.
    pub period: Duration,
    /// How it is scanned.
    pub scan: ScanOptions,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(60),
            scan: ScanOptions::default(),
        }
    }
}

/// What a watcher has to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A target is there that was not.
    Appeared(Box<Target>),
    /// A target is not there any more: two scans did not find it.
    Vanished(Box<Target>),
    /// The subnet manager says that this port has gone: the sessions to it should be probed within [`PROBE_WITHIN`].
    Probe(Gid),
    /// Everything was scanned; so many targets are known.
    Scanned(usize),
    /// Something went wrong, or looks wrong.
    Problem(Problem),
}

/// Watches one port.
pub struct Watcher<T> {
    port: Port,
    exchange: Exchange<T>,
    options: WatchOptions,
    subscriptions: Subscriptions,
    table: Table,
    /// Ports that came, to be asked.
    came: Vec<Gid>,
    next_scan: Instant,
    not_before: Instant,
    heard: Heard,
}

/// What reports have told.
#[derive(Default)]
struct Heard {
    came: Vec<Gid>,
    everything: bool,
    probed: HashMap<Gid, Instant>,
    forged: u64,
}

impl<T: MadTransport> Watcher<T> {
    /// Starts to watch `port`: with the next [`Watcher::run`] it subscribes and scans.
    pub fn new(port: Port, transport: T, options: WatchOptions) -> Self {
        let exchange = exchange(transport, &options.scan);
        let now = exchange.now();
        Self {
            port,
            exchange,
            options,
            subscriptions: Subscriptions::new(now),
            table: Table::default(),
            came: Vec::new(),
            next_scan: now,
            not_before: now,
            heard: Heard::default(),
        }
    }

    /// The clock of what carries its datagrams.
    pub fn now(&self) -> Instant {
        self.exchange.now()
    }

    /// The targets known now.
    pub fn known(&self) -> &[Known] {
        self.table.known()
    }

    /// How many reports came from elsewhere than the subnet manager.
    pub fn forged(&self) -> u64 {
        self.heard.forged
    }

    /// The port as it is now. `reregister`: its subnet manager wants all subscriptions again (client reregister, SM
    /// change). What has changed is seen here: another LID or manager, other P_Keys, active again.
    pub fn port_is(&mut self, port: Port, reregister: bool) {
        let now = self.exchange.now();
        let old = &self.port;
        let moved = (port.lid, port.sm_lid, port.sm_sl) != (old.lid, old.sm_lid, old.sm_sl);
        let up = port.state == PortState::Active && old.state != PortState::Active;
        if moved || up || reregister {
            self.subscriptions.start_over(now);
        }
        if moved || up || reregister || port.pkeys != old.pkeys || port.gids != old.gids {
            self.next_scan = now;
        }
        self.port = port;
    }

    /// Watches until `until`, and tells `events` what happens. A scan may take longer: it ends early when `interrupted`,
    /// which is asked several times a second, says that there is something to be told to the watcher.
    ///
    /// # Errors
    /// When the MAD device is gone.
    pub fn run(
        &mut self,
        until: Instant,
        events: &mut dyn FnMut(WatchEvent),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), TransportError> {
        loop {
            let now = self.exchange.now();
            if now >= until || interrupted() {
                return Ok(());
            }
            let up = self.port.state == PortState::Active && self.port.sm_lid != 0;
            let mut wake = until;
            if up {
                if self.next_scan <= now && self.not_before <= now {
                    self.scan(events, interrupted)?;
                    continue;
                }
                if !self.came.is_empty() && self.not_before <= now {
                    self.ask_those_that_came(events, interrupted)?;
                    continue;
                }
                self.subscriptions.submit(&mut self.exchange, &self.port);
                let busy = !self.came.is_empty() || self.next_scan <= now;
                let next_work = if busy { self.not_before } else { self.next_scan };
                wake = wake.min(next_work).min(self.subscriptions.wake().unwrap_or(wake));
            }
            match self.exchange.next(wake)? {
                Next::Idle => {}
                Next::Ended(ended) => {
                    let now = self.exchange.now();
                    if let Some(error) = self.subscriptions.answered(ended, now) {
                        events(self.refused(error));
                    }
                }
                Next::Report { from, mad } => {
                    self.heard.hear(&mut self.exchange, &self.port, from, &mad, events);
                }
            }
            self.take_heard();
        }
    }

    /// Ends the subscriptions, without waiting for an answer.
    pub fn close(mut self) {
        self.subscriptions.end(&mut self.exchange, &self.port);
    }

    fn take_heard(&mut self) {
        let everything = std::mem::take(&mut self.heard.everything);
        for gid in self.heard.came.drain(..) {
            if !self.came.contains(&gid) {
                self.came.push(gid);
            }
        }
        if everything || self.came.len() > ONE_BY_ONE {
            self.came.clear();
            self.next_scan = self.exchange.now();
        }
    }

    /// A subscription was not granted.
    fn refused(&self, error: SubnetError) -> WatchEvent {
        WatchEvent::Problem(Problem {
            severity: Severity::Warning,
            port: Some(self.port.name.clone()),
            destination: None,
            cause: error.into(),
        })
    }

    fn scan(
        &mut self,
        events: &mut dyn FnMut(WatchEvent),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), TransportError> {
        self.came.clear();
        // A manager that was started again has forgotten its subscribers, and not everybody is told of that.
        self.subscriptions.renew(self.exchange.now());
        let Some(report) = self.scan_for(Vec::new(), events, interrupted)? else {
            self.next_scan = self.exchange.now();
            return Ok(());
        };
        let whole = report.problems.iter().all(|problem| problem.severity < Severity::Error);
        let now = self.exchange.now();
        self.next_scan = now
            + if whole {
                self.options.period
            } else {
                RETRY.min(self.options.period)
            };
        if self
            .table
            .update(report.targets, now, whole.then_some(&|_: &Target| true), events)
        {
            // What was missed once is looked for again soon.
            self.next_scan = self.next_scan.min(now + RETRY);
        }
        report
            .problems
            .into_iter()
            .for_each(|problem| events(WatchEvent::Problem(problem)));
        events(WatchEvent::Scanned(self.table.known().len()));
        self.take_heard();
        Ok(())
    }

    fn ask_those_that_came(
        &mut self,
        events: &mut dyn FnMut(WatchEvent),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), TransportError> {
        let came = std::mem::take(&mut self.came);
        let destination = |gid: &Gid| Destination {
            address: std::net::Ipv6Addr::from(gid.0).into(),
            interface: None,
        };
        let asked = self.scan_for(came.iter().map(destination).collect(), events, interrupted)?;
        let Some(report) = asked else {
            self.came = came;
            return Ok(());
        };
        // A port without an agent is no problem here: most are.
        let now = self.exchange.now();
        self.table.update(report.targets, now, None, events);
        self.take_heard();
        Ok(())
    }

    /// What a scan has found; nothing when it was interrupted. What is to be subscribed to is before it: what comes
    /// while it is under way is reported, or found.
    fn scan_for(
        &mut self,
        destinations: Vec<Destination>,
        events: &mut dyn FnMut(WatchEvent),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<ScanReport>, TransportError> {
        self.subscriptions.submit(&mut self.exchange, &self.port);
        let mut report = ScanReport::default();
        let options = ScanOptions {
            destinations,
            ..self.options.scan.clone()
        };
        let (port, heard, subscriptions) = (&self.port, &mut self.heard, &mut self.subscriptions);
        let (mut refused, mut cut) = (Vec::new(), false);
        let mut audience = Audience {
            progress: &mut |_| {},
            reports: &mut |exchange, from, mad| heard.hear(exchange, port, from, mad, events),
            others: &mut |ended, now| refused.extend(subscriptions.answered(ended, now)),
            interrupted: &mut || {
                cut |= interrupted();
                cut
            },
        };
        scan_port(port, &mut self.exchange, &options, &mut report, &mut audience)?;
        self.not_before = self.exchange.now() + BREATH;
        refused.into_iter().for_each(|error| events(self.refused(error)));
        Ok((!cut).then_some(report))
    }
}

impl Heard {
    /// Takes a report in and acknowledges it.
    fn hear<T: MadTransport>(
        &mut self,
        exchange: &mut Exchange<T>,
        port: &Port,
        from: Source,
        mad: &Mad,
        events: &mut dyn FnMut(WatchEvent),
    ) {
        let Some(notice) = Notice::of_report(mad) else { return };
        if from.lid != port.sm_lid || from.lid == 0 {
            self.forged += 1;
            // Whoever forges them should not fill the log as well.
            if self.forged.is_power_of_two() {
                tracing::warn!(
                    port = %port.name, lid = from.lid, so_far = self.forged,
                    "a report that is not from the subnet manager was dropped"
                );
            }
            return;
        }
        let pkey_index = port.default_pkey().map_or(0, |(index, _)| index);
        let mut to = Address::infiniband(from.lid, pkey_index);
        to.qpn = from.qpn;
        if let Err(error) = exchange.respond(&to, &Notice::response(mad)) {
            tracing::debug!(%error, "a report could not be acknowledged");
        }
        match notice.kind() {
            NoticeKind::InService(gid) if self.came.len() <= ONE_BY_ONE => self.came.push(gid),
            NoticeKind::InService(_) => self.everything = true,
            NoticeKind::OutOfService(gid) => {
                let now = exchange.now();
                self.probed.retain(|_, since| now - *since < BREATH);
                // A flood of forged reports must not become a flood of probes.
                if self.probed.len() < PROBES && self.probed.insert(gid, now).is_none() {
                    events(WatchEvent::Probe(gid));
                }
                self.everything = true;
            }
            NoticeKind::Capabilities { device_management, .. } => self.everything |= device_management,
            NoticeKind::Other(trap) => tracing::debug!(trap, "a report that was not asked for"),
        }
    }
}

#[cfg(test)]
mod tests;
