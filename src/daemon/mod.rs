//! The daemon: sessions to targets, and the block devices behind them.

mod attach;
mod attach_queue;
mod channel;
mod channels;
mod connection;
mod detach;
mod device;
mod dismissed;
mod early_events;
mod endpoints;
mod execute;
mod failure;
mod kernel_peer;
mod known;
mod leftover;
mod liveness;
mod login;
mod methods;
mod nexus;
mod reactors;
mod registry;
mod replace;
mod session;
mod snapshot;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use srp_initiator::session::SessionKey;
use srp_verbs::device::Devices;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{RwLock, Semaphore, mpsc};

use crate::backend::Event;
use crate::cli::daemon::DaemonOptions;
use crate::rpc::protocol::{ErrorData, ErrorKind};
use crate::rpc::server::serve;
use crate::rpc::socket::ControlSocket;
use connection::ConnectionManager;
use failure::{chain, failure};
use methods::Methods;
use reactors::Reactors;
use registry::Registry;
use session::Request;

/// How long devices are detached for when the daemon is told to end.
const GOODBYE: Duration = Duration::from_secs(60);

/// What everything in the daemon stands on.
pub(crate) struct Ground {
    pub(crate) reactors: Reactors,
    pub(crate) connections: ConnectionManager,
    pub(crate) devices: Devices,
    /// Block devices the kernel takes apart at a time.
    pub(crate) endings: Arc<Semaphore>,
    /// Held by those who watch numbers of block devices come free, and alone by one who takes one: whoever took a number
    /// at once would seem to be the device that has it no more.
    pub(crate) numbers: Arc<RwLock<()>>,
    routes: Mutex<HashMap<SessionKey, mpsc::UnboundedSender<Request>>>,
    next_key: AtomicU32,
    ending: AtomicBool,
}

impl Ground {
    /// A number for a session, a logical unit or a device, never used before.
    pub(crate) fn next_key(&self) -> u32 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// No attach makes anything any more.
    fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the daemon has been told to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<SessionKey, mpsc::UnboundedSender<Request>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host(error: &dyn std::error::Error) -> ErrorData {
    failure(ErrorKind::Host, chain(error))
}

/// Whether this host lets us serve block devices.
///
/// # Errors
/// What it lacks.
pub(crate) fn check_host() -> Result<(), ErrorData> {
    ublk_frontend::control::check().map(drop).map_err(|error| host(&error))
}

/// Runs the daemon until it is told to end. [`check_host`] comes first.
///
/// # Errors
/// When this host lacks what it needs, or another daemon runs.
pub(crate) async fn run(options: DaemonOptions) -> Result<(), ErrorData> {
    let socket = ControlSocket::bind(&options.socket)?;
    leftover::sweep();
    let (events, from_reactors) = mpsc::unbounded_channel();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = options
        .reactors
        .unwrap_or_else(|| u16::try_from(cores).unwrap_or(u16::MAX))
        .max(1);
    let reactors = Reactors::start(count, options.spin, &events).map_err(|error| host(&error))?;
    let connections = ConnectionManager::start().map_err(|error| host(&error))?;
    let ground = Arc::new(Ground {
        reactors,
        connections,
        devices: Devices::new(),
        endings: Arc::new(Semaphore::new(detach::AT_ONCE)),
        numbers: Arc::default(),
        routes: Mutex::default(),
        next_key: AtomicU32::new(1),
        ending: AtomicBool::new(false),
    });
    tokio::spawn(route_events(Arc::clone(&ground), from_reactors));
    let registry = Arc::new(Registry::new(Arc::clone(&ground)));
    let watch = match options.watch {
        Some(plan) => Some(watch::start(plan, Arc::clone(&registry)).map_err(|error| host(&error))?),
        None => None,
    };
    let methods = Methods {
        registry: Arc::clone(&registry),
        known: watch.as_ref().map(|watch| watch.known()),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| host(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| host(&error))?;
    tracing::info!(reactors = count, socket = %options.socket.display(), "ready");
    tokio::select! {
        () = serve(socket.listener(), Arc::new(methods)) => {}
        _ = terminate.recv() => tracing::info!("told to end"),
        _ = interrupt.recv() => tracing::info!("interrupted"),
    }
    // What is detached now must not be attached again by itself.
    if let Some(watch) = watch {
        watch.end().await;
    }
    if tokio::time::timeout(GOODBYE, registry.end()).await.is_err() {
        tracing::error!("devices could not be detached in time; the kernel takes them away now");
    }
    Ok(())
}

/// Brings what reactors report to the session it is about.
async fn route_events(ground: Arc<Ground>, mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        let (Event::SuccessorWanted { session, .. }
        | Event::ChannelFailed { session, .. }
        | Event::ChannelClosed { session, .. }) = event;
        if let Some(route) = ground.routes().get(&session) {
            // A session that has ended has no channels left to hear of.
            let _ = route.send(Request::Reactor(event));
        }
    }
}
