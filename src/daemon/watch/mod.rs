//! Watching the InfiniBand ports of this host, one thread each, also over the removal and return of an HCA.
//!
//! What is found is logged, and logged in to where the administrator has asked for that.

mod attacher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use srp_discovery::ports::{self, LinkLayer, Port, PortName, PortState, Roots};
use srp_discovery::rules::Rules;
use srp_discovery::scan::Severity;
use srp_discovery::umad::Umad;
use srp_discovery::watch::{WatchEvent, WatchOptions, Watcher};
use srp_verbs::device::{Device, DeviceEvent};
use tokio::sync::mpsc;

use super::known::Tables;
use super::registry::Registry;
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
    let mut watched: HashMap<PortName, JoinHandle<()>> = HashMap::new();
    let mut complaints: HashMap<PortName, String> = HashMap::new();
    while !share.stopped() {
        watched.retain(|_, thread| !thread.is_finished());
        let ports = ports::list(&Roots::default()).unwrap_or_default();
        for port in ports.into_iter().filter(is_watchable) {
            if watched.contains_key(&port.name) {
                continue;
            }
            let name = port.name.clone();
            let started = Umad::open_for_reports(&port)
                .map_err(|error| error.to_string())
                .and_then(|umad| {
                    let share = share.clone();
                    let watch = move || {
                        share.known.port_is(&port);
                        let name = port.name.clone();
                        watch_port(port, umad, &share);
                        share.known.forget(&name);
                    };
                    let thread = thread::Builder::new().name("ublk-srp-watch".into()).spawn(watch);
                    thread.map_err(|error| error.to_string())
                });
            match started {
                Ok(thread) => {
                    complaints.remove(&name);
                    watched.insert(name, thread);
                }
                // Once, and not every time.
                Err(error) if complaints.get(&name) != Some(&error) => {
                    tracing::warn!(port = %name, error, "the port cannot be watched for targets");
                    complaints.insert(name, error);
                }
                Err(_) => {}
            }
        }
        let until = Instant::now() + LOOK;
        while !share.stopped() && Instant::now() < until {
            thread::sleep(SLICE);
        }
    }
    for (_, thread) in watched {
        // One that panicked has said so.
        let _ = thread.join();
    }
}

fn is_watchable(port: &Port) -> bool {
    port.link_layer == LinkLayer::InfiniBand && port.state == PortState::Active
}

/// Watches one port until it is gone.
fn watch_port(mut port: Port, umad: Umad, share: &Share) {
    let name = port.name.clone();
    tracing::info!(port = %name, "watching for targets");
    // Its events make what happens to the port known at once; without them it is read from time to time.
    let device = Device::open(&name.device)
        .inspect_err(|error| tracing::warn!(port = %name, %error, "no events of the HCA"))
        .ok();
    let options = WatchOptions {
        period: share.period,
        ..WatchOptions::default()
    };
    let mut watcher = Watcher::new(port.clone(), umad, options);
    let mut read_at = Instant::now() + READ;
    // What happens to the port does not wait for the end of a scan: it may well be why that takes so long.
    let mut seen = Happened::default();
    let look = |seen: &mut Happened| {
        if let Some(device) = device.as_deref() {
            seen.look(device, name.number);
        }
    };
    while !share.stopped() {
        look(&mut seen);
        let happened = std::mem::take(&mut seen);
        if happened.gone {
            tracing::warn!(port = %name, "the HCA is gone");
            return;
        }
        if happened.port || Instant::now() >= read_at {
            read_at = Instant::now() + READ;
            let ports = ports::list(&Roots::default()).unwrap_or_default();
            let Some(now) = ports.into_iter().find(|port| port.name == name) else {
                tracing::warn!(port = %name, "the port is gone");
                return;
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
        let ran = watcher.run(Instant::now() + SLICE, &mut tell, &mut interrupted);
        if changed || scanned {
            share.known.targets_are(&name, watcher.known(), scanned);
        }
        if let Err(error) = ran {
            tracing::warn!(port = %name, %error, "the port is not watched any more");
            return;
        }
    }
    watcher.close();
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
    let attach = {
        let registry = Arc::clone(&registry);
        move |params| {
            let registry = Arc::clone(&registry);
            async move { registry.attach(params).await }
        }
    };
    let mut attacher = rules.map(|rules| Attacher::new(rules, attach));
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
async fn ended<F, R>(attacher: &mut Option<Attacher<F>>)
where
    F: Fn(AttachParams) -> R,
    R: Future<Output = Result<AttachReport, ErrorData>> + Send + 'static,
{
    match attacher {
        Some(attacher) => attacher.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_other_ports_does_not_count() {
        let after = |events: &[DeviceEvent]| {
            let mut happened = Happened::default();
            events.iter().for_each(|event| happened.take(event, 1));
            (happened.port, happened.reregister, happened.gone)
        };
        assert_eq!(
            after(&[DeviceEvent::PortDown(2), DeviceEvent::ClientReregister(2)]),
            (false, false, false)
        );
        assert_eq!(
            after(&[DeviceEvent::PortDown(1), DeviceEvent::PortActive(2)]),
            (true, false, false)
        );
        assert_eq!(
            after(&[DeviceEvent::SubnetManagerChange(1), DeviceEvent::LidChange(1)]),
            (true, true, false)
        );
        assert_eq!(after(&[DeviceEvent::DeviceFatal]), (false, false, true));
    }
}
