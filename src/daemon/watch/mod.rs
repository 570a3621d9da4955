//! Watching the InfiniBand ports of this host, one thread each, also over the removal and return of an HCA.
//!
//! What is found is logged, and logged in to where the administrator has asked for that.

mod attacher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use srp_discovery::ports::{self, LinkLayer, Port, PortName, Roots};
use srp_discovery::rules::Rules;
use srp_discovery::scan::Severity;
use srp_discovery::targets::Target;
use srp_discovery::transport::MadTransport;
use srp_discovery::umad::{OpenError, Umad};
use srp_discovery::watch::{WatchEvent, WatchOptions, Watcher};
use srp_verbs::device::{Device, DeviceEvent};
use tokio::sync::mpsc;

use super::known::Tables;
use super::registry::{Registry, Standing};
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData};
use attacher::Attacher;

/// How often ports are looked for that nobody watches yet.
const LOOK: Duration = Duration::from_secs(5);
/// How soon what happens to a port is seen.
const SLICE: Duration = Duration::from_millis(200);
/// How long its end may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often a port is read anew though no event told of it.
const READ: Duration = Duration::from_secs(2);

/// Why sessions are probed: any node can forge such a report, so it decides nothing.
const GONE: &str = "the subnet manager says that the target's port has gone";

/// What to do about targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How often everything is scanned, whatever events tell.
    pub(crate) period: Duration,
    /// Which targets are logged in to by themselves; none without it.
    pub(crate) attach: Option<Rules>,
}

/// The watch over all ports; ends with it.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    known: Arc<Tables>,
    ports: JoinHandle<()>,
    acting: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// What is known about the targets.
    pub(super) fn known(&self) -> Arc<Tables> {
        Arc::clone(&self.known)
    }

    /// Ends it: nothing is attached by itself any more, and the subnet managers are asked to report no further.
    pub(super) async fn end(self) {
        self.acting.abort();
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(move || self.ports.join());
        // The threads see it within a slice, and hold nothing that the end of the program would harm.
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("the watch over the ports does not end; subscriptions may be left with the subnet manager");
        }
    }
}

/// Starts to watch.
///
/// # Errors
/// When there is no thread for it.
pub(crate) fn start(plan: Plan, registry: Arc<Registry>) -> std::io::Result<Watch> {
    let stop = Arc::new(AtomicBool::new(false));
    let known = Arc::new(Tables::new(plan.period, plan.attach.is_some()));
    let (events, told) = mpsc::unbounded_channel();
    let acting = tokio::spawn(act(told, plan.attach, registry));
    let share = Share {
        period: plan.period,
        stop: Arc::clone(&stop),
        events,
        known: Arc::clone(&known),
    };
    let ports = thread::Builder::new()
        .name("ublk-srp-watch".into())
        .spawn(move || look_after_ports(&share))?;
    Ok(Watch {
        stop,
        known,
        ports,
        acting,
    })
}

/// What the threads have in common.
#[derive(Clone)]
struct Share {
    period: Duration,
    stop: Arc<AtomicBool>,
    events: mpsc::UnboundedSender<WatchEvent>,
    known: Arc<Tables>,
}

impl Share {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn look_after_ports(share: &Share) {
    let mut ports = Ports::default();
    while !share.stopped() {
        ports.look(listed(), |port| start_on(port, share));
        let until = Instant::now() + LOOK;
        while !share.stopped() && Instant::now() < until {
            thread::sleep(SLICE);
        }
    }
    for (_, thread) in ports.watched {
        // One that panicked has said so.
        let _ = thread.join();
    }
}

fn listed() -> Vec<Port> {
    ports::list(&Roots::default()).unwrap_or_default()
}

/// The ports that are watched, and what was said about others.
#[derive(Default)]
struct Ports {
    watched: HashMap<PortName, JoinHandle<()>>,
    complaints: HashMap<PortName, String>,
}

impl Ports {
    /// Starts on every InfiniBand port that nobody watches: that is new, or back again, or could not be watched before.
    fn look(&mut self, ports: Vec<Port>, mut start: impl FnMut(&Port) -> Result<JoinHandle<()>, String>) {
        self.watched.retain(|_, thread| !thread.is_finished());
        let is_there = |name: &PortName| ports.iter().any(|port| port.name == *name);
        self.complaints.retain(|name, _| is_there(name));
        for port in ports {
            if port.link_layer != LinkLayer::InfiniBand || self.watched.contains_key(&port.name) {
                continue;
            }
            match start(&port) {
                Ok(thread) => {
                    self.complaints.remove(&port.name);
                    self.watched.insert(port.name, thread);
                }
                // Once, and not every time.
                Err(error) if self.complaints.get(&port.name) != Some(&error) => {
                    tracing::warn!(port = %port.name, error, "the port cannot be watched for targets so far");
                    self.complaints.insert(port.name, error);
                }
                Err(_) => {}
            }
        }
    }
}

fn start_on(port: &Port, share: &Share) -> Result<JoinHandle<()>, String> {
    let umad = opened(port, Umad::open_for_reports, Umad::open).map_err(|error| error.to_string())?;
    let (port, share) = (port.clone(), share.clone());
    let watch = move || {
        let name = port.name.clone();
        // Its events make what happens to the port known at once; without them it is read from time to time.
        let device = Device::open(&name.device)
            .inspect_err(|error| tracing::warn!(port = %name, %error, "no events of the HCA"))
            .ok();
        let look = |seen: &mut Happened| {
            if let Some(device) = device.as_deref() {
                seen.look(device, name.number);
            }
        };
        watch_port(port, umad, look, listed, &share);
    };
    let thread = thread::Builder::new().name("ublk-srp-watch".into()).spawn(watch);
    thread.map_err(|error| error.to_string())
}

/// The MAD device of a port: with the reports of its subnet, which one program of a host can have, or without.
fn opened<T>(
    port: &Port,
    for_reports: impl Fn(&Port) -> Result<T, OpenError>,
    without: impl Fn(&Port) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    match for_reports(port) {
        Err(error @ OpenError::Register { .. }) => {
            let opened = without(port)?;
            tracing::warn!(
                port = %port.name, %error,
                "another program has the reports of this subnet: what comes and goes is seen by scans alone"
            );
            Ok(opened)
        }
        other => other,
    }
}

/// Watches one port until it is gone, or the watch ends. `look` tells what has happened to it since the last time, `list`
/// what it is like now.
fn watch_port(
    port: Port,
    transport: impl MadTransport,
    look: impl Fn(&mut Happened),
    list: impl Fn() -> Vec<Port>,
    share: &Share,
) {
    let name = port.name.clone();
    tracing::info!(port = %name, "watching for targets");
    share.known.port_is(&port);
    let options = WatchOptions {
        period: share.period,
        ..WatchOptions::default()
    };
    let mut watcher = Watcher::new(port.clone(), transport, options);
    match watch_until_lost(port, &mut watcher, look, list, share) {
        None => watcher.close(),
        Some(reason) => {
            tracing::warn!(port = %name, reason, "the port is not watched any more, until it is back");
            for known in watcher.known() {
                drop(share.events.send(WatchEvent::Vanished(Box::new(known.target.clone()))));
            }
        }
    }
    share.known.forget(&name);
}

/// Why the port is lost; nothing when the watch ends.
fn watch_until_lost<T: MadTransport>(
    mut port: Port,
    watcher: &mut Watcher<T>,
    look: impl Fn(&mut Happened),
    list: impl Fn() -> Vec<Port>,
    share: &Share,
) -> Option<String> {
    let name = port.name.clone();
    let mut read_at = watcher.now() + READ;
    // What happens to the port does not wait for the end of a scan: it may well be why that takes so long.
    let mut seen = Happened::default();
    while !share.stopped() {
        look(&mut seen);
        let happened = std::mem::take(&mut seen);
        if happened.gone {
            return Some("the HCA is gone".to_owned());
        }
        if happened.port || watcher.now() >= read_at {
            read_at = watcher.now() + READ;
            let Some(now) = list().into_iter().find(|port| port.name == name) else {
                return Some("the port is gone".to_owned());
            };
            if now.state != port.state {
                tracing::info!(port = %name, state = %now.state, "the port's state has changed");
            }
            port = now;
            share.known.port_is(&port);
            watcher.port_is(port.clone(), happened.reregister);
        }
        let (mut changed, mut scanned) = (false, false);
        let mut tell = |event| {
            changed |= matches!(event, WatchEvent::Appeared(_) | WatchEvent::Vanished(_));
            scanned |= matches!(event, WatchEvent::Scanned(_));
            // Nobody listens any more when the daemon ends.
            drop(share.events.send(event));
        };
        let mut interrupted = || {
            look(&mut seen);
            seen.port || seen.gone || share.stopped()
        };
        let ran = watcher.run(watcher.now() + SLICE, &mut tell, &mut interrupted);
        if changed || scanned {
            share.known.targets_are(&name, watcher.known(), scanned);
        }
        if let Err(error) = ran {
            return Some(error.to_string());
        }
    }
    None
}

/// What the HCA has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Happened {
    port: bool,
    reregister: bool,
    gone: bool,
}

impl Happened {
    /// Takes in what has happened to one port of the HCA since the last look.
    fn look(&mut self, device: &Device, number: u32) {
        while !self.gone {
            match device.next_event() {
                Ok(None) => return,
                Ok(Some(event)) => self.take(&event, number),
                // A device that cannot tell is about to go.
                Err(_) => self.gone = true,
            }
        }
    }

    fn take(&mut self, event: &DeviceEvent, number: u32) {
        let mine = |port: u8| u32::from(port) == number;
        match *event {
            DeviceEvent::DeviceFatal => self.gone = true,
            DeviceEvent::ClientReregister(port) | DeviceEvent::SubnetManagerChange(port) => {
                self.port |= mine(port);
                self.reregister |= mine(port);
            }
            DeviceEvent::PortActive(port)
            | DeviceEvent::PortDown(port)
            | DeviceEvent::LidChange(port)
            | DeviceEvent::PKeyChange(port)
            | DeviceEvent::GidChange(port) => self.port |= mine(port),
            _ => {}
        }
    }
}

/// Does what the plan says about what was seen.
async fn act(mut told: mpsc::UnboundedReceiver<WatchEvent>, rules: Option<Rules>, registry: Arc<Registry>) {
    let mut attacher = rules.map(|rules| {
        let (attaching, asking) = (Arc::clone(&registry), Arc::clone(&registry));
        let attach = move |params| {
            let registry = Arc::clone(&attaching);
            async move { registry.attach(params).await }
        };
        Attacher::new(rules, attach, move |target: &Target| asking.standing(target))
    });
    loop {
        let event = tokio::select! {
            event = told.recv() => event,
            () = ended(&mut attacher) => continue,
        };
        let Some(event) = event else { return };
        if let Some(attacher) = &mut attacher {
            attacher.see(&event);
        }
        match event {
            WatchEvent::Appeared(target) => tracing::info!(
                port = %target.port, id_ext = target.id_ext, ioc_guid = %target.ioc_guid, dgid = %target.gid,
                pkey = %target.pkey, "a target has appeared"
            ),
            WatchEvent::Vanished(target) => tracing::warn!(
                port = %target.port, id_ext = target.id_ext, ioc_guid = %target.ioc_guid, dgid = %target.gid,
                "a target has vanished"
            ),
            WatchEvent::Probe(gid) => {
                tracing::warn!(%gid, "the subnet manager says that this port has gone");
                // Probes take their time, and further events must not wait for it.
                let registry = Arc::clone(&registry);
                tokio::spawn(async move { registry.probe(gid, GONE).await });
            }
            WatchEvent::Problem(problem) if problem.severity > Severity::Note => tracing::warn!("{problem}"),
            _ => {}
        }
    }
}

/// Waits until an attach by itself has ended; for ever where nothing is attached so.
async fn ended<F, R, S>(attacher: &mut Option<Attacher<F, S>>)
where
    F: Fn(AttachParams) -> R,
    S: Fn(&Target) -> Standing,
    R: Future<Output = Result<AttachReport, ErrorData>> + Send + 'static,
{
    match attacher {
        Some(attacher) => attacher.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
