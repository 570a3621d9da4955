//! Connections: librdmacm's events brought to whoever waits for them, and the steps of connecting one by one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use srp_verbs::cm::{Address, CmError, CmId, CmIdKey, Event, EventChannel, EventChannelError, PortSpace, RejectReason};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// One step of address or route resolution; the kernel initiator uses the same.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

type Routes = Arc<Mutex<HashMap<CmIdKey, mpsc::UnboundedSender<Event>>>>;

/// The connection manager of the daemon: one event channel for all connections.
#[derive(Clone)]
pub(crate) struct ConnectionManager {
    channel: EventChannel,
    routes: Routes,
}

impl ConnectionManager {
    /// Opens librdmacm's event channel and starts the task that reads it.
    pub(crate) fn start() -> Result<Self, EventChannelError> {
        let manager = Self {
            channel: EventChannel::new()?,
            routes: Routes::default(),
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the channel keeps its descriptor as long as it lives"
        )]
        let events = AsyncFd::new(manager.channel.clone()).map_err(EventChannelError::Open)?;
        let routes = Arc::clone(&manager.routes);
        tokio::spawn(async move {
            loop {
                let Ok(mut ready) = events.readable().await else { return };
                ready.clear_ready();
                loop {
                    match events.get_ref().next_event() {
                        Ok(Some((key, event))) => deliver(&routes, key, event),
                        Ok(None) => break,
                        Err(error) => {
                            tracing::error!(%error, "connection events cannot be read any more");
                            return;
                        }
                    }
                }
            }
        });
        Ok(manager)
    }

    /// A new connection, not connected to anything yet.
    pub(crate) fn open(&self, space: PortSpace) -> Result<Connection, ConnectError> {
        let id = self.channel.create_id(space)?;
        let (sender, events) = mpsc::unbounded_channel();
        self.lock().insert(id.key(), sender);
        Ok(Connection {
            id,
            events,
            routes: Arc::clone(&self.routes),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CmIdKey, mpsc::UnboundedSender<Event>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(routes: &Routes, key: CmIdKey, event: Event) {
    let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
    match routes.get(&key) {
        // A receiver that is gone belongs to a connection being dropped.
        Some(sender) => drop(sender.send(event)),
        None => tracing::debug!(?key, ?event, "event of a connection that is gone"),
    }
}

/// A connection and its events.
pub(crate) struct Connection {
    pub(crate) id: CmId,
    events: mpsc::UnboundedReceiver<Event>,
    routes: Routes,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id.key());
    }
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// A call of the connection manager failed.
    #[error(transparent)]
    Cm(#[from] CmError),
    /// Nothing answered in time.
    #[error("no answer within {} s while {step}", limit.as_secs())]
    Timeout {
        /// What was being done.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The address has no RDMA device or neighbour behind it.
    #[error("{address} cannot be resolved to an RDMA port: {}", std::io::Error::from_raw_os_error(*errno))]
    Address {
        /// The target.
        address: Address,
        /// A positive errno.
        errno: i32,
    },
    /// There is no route.
    #[error("no route to {address}: {}", std::io::Error::from_raw_os_error(*errno))]
    Route {
        /// The target.
        address: Address,
        /// A positive errno.
        errno: i32,
    },
    /// The request was never answered.
    #[error("the target does not answer connection requests (status {status})")]
    Unreachable {
        /// As the connection manager says.
        status: i32,
    },
    /// The target's connection manager refused.
    #[error("connection refused: {reason}")]
    Rejected {
        /// Why.
        reason: RejectReason,
    },
    /// The target said SRP_LOGIN_REJ, or something else in its private data.
    #[error("the target refused the login")]
    Consumer {
        /// The private data.
        private_data: Vec<u8>,
    },
    /// The local HCA went away, or the like.
    #[error("the connection broke while {step}: {event}")]
    Broken {
        /// What was being done.
        step: &'static str,
        /// What happened.
        event: String,
    },
}

impl Connection {
    /// Finds the way to the target.
    pub(crate) async fn resolve(
        &mut self,
        source: Option<Address>,
        address: Address,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        self.id.resolve_address(source.as_ref(), &address, RESOLVE_TIMEOUT)?;
        match self.next("resolving the address", deadline).await? {
            Event::AddressResolved => {}
            Event::AddressError { errno } => return Err(ConnectError::Address { address, errno }),
            other => return Err(broken("resolving the address", &other)),
        }
        self.id.resolve_route(RESOLVE_TIMEOUT)?;
        match self.next("resolving the route", deadline).await? {
            Event::RouteResolved => Ok(()),
            Event::RouteError { errno } => Err(ConnectError::Route { address, errno }),
            other => Err(broken("resolving the route", &other)),
        }
    }

    /// Waits for the answer to a connection request: the target's private data. True when the connection still
    /// has to be established by us.
    pub(crate) async fn answer(&mut self, deadline: Instant) -> Result<(Vec<u8>, bool), ConnectError> {
        match self.next("waiting for the login response", deadline).await? {
            Event::ConnectResponse(reply) => Ok((reply.private_data.to_vec(), true)),
            Event::Established(reply) => Ok((reply.private_data.to_vec(), false)),
            Event::Rejected {
                reason: RejectReason::Consumer,
                private_data,
            } => Err(ConnectError::Consumer {
                private_data: private_data.to_vec(),
            }),
            Event::Rejected { reason, .. } => Err(ConnectError::Rejected { reason }),
            Event::Unreachable { status } => Err(ConnectError::Unreachable { status }),
            other => Err(broken("waiting for the login response", &other)),
        }
    }

    /// The next event of an established connection; nothing when the connection manager is gone.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    async fn next(&mut self, step: &'static str, deadline: Instant) -> Result<Event, ConnectError> {
        let started = Instant::now();
        match timeout_at(deadline, self.events.recv()).await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(ConnectError::Broken {
                step,
                event: "no more events".into(),
            }),
            Err(_) => Err(ConnectError::Timeout {
                step,
                limit: deadline.saturating_duration_since(started),
            }),
        }
    }
}

fn broken(step: &'static str, event: &Event) -> ConnectError {
    ConnectError::Broken {
        step,
        event: format!("{event:?}"),
    }
}
