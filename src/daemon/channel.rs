//! A channel in service, and how it is taken apart.

use std::time::Duration;

use srp_addressing::Logout;
use srp_initiator::fabric::QueuePairId;
use srp_initiator::session::{Granted, SlotPlan};
use srp_verbs::cm::Event as CmEvent;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use ublk_frontend::backend::AreaId;

use super::connection::Connection;
use super::early_events::Name;
use super::reactors::Reactor;
use crate::backend::Message;

/// A disconnect is waited for this long; the target learns of it either way.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A queue pair in error is flushed by the HCA at once; one that is not by then is destroyed.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// A channel in service.
pub(crate) struct Channel {
    /// Its number in the daemon, never used again.
    pub(crate) serial: u32,
    /// It is out of service, and taken apart when it has been closed.
    pub(crate) failed: bool,
    /// By when its queue pair should have been flushed, once it is being closed.
    pub(crate) flush_by: Option<Instant>,
    pub(crate) reactor: Reactor,
    pub(crate) qp: QueuePairId,
    pub(crate) granted: Granted,
    pub(crate) plan: SlotPlan,
    pub(super) areas: [AreaId; 2],
    /// Ends the watch over the connection and gets it back.
    pub(super) watch: oneshot::Sender<()>,
    pub(super) connection: tokio::task::JoinHandle<Connection>,
}

/// Waits for the connection's end, by the peer or by us.
pub(super) async fn watch_connection(
    mut connection: Connection,
    mut ended: oneshot::Receiver<()>,
    lost: impl FnOnce(String) + Send + 'static,
) -> Connection {
    let reason = loop {
        tokio::select! {
            _ = &mut ended => return connection,
            event = connection.event() => match event {
                Some(CmEvent::Disconnected) => break "the target closed the connection",
                Some(CmEvent::DeviceRemoval) => break "the local RDMA device was removed",
                Some(CmEvent::TimewaitExit) => break "the connection ended",
                Some(CmEvent::AddressChange) => tracing::info!("a local address changed"),
                Some(other) => tracing::debug!(event = ?other, "connection event"),
                None => break "the connection manager ended",
            },
        }
    };
    lost(reason.to_owned());
    connection
}

impl Channel {
    /// Whether a reactor's queue pair is this channel's.
    pub(crate) fn is(&self, reactor: usize, qp: QueuePairId) -> bool {
        self.reactor.index == reactor && self.qp == qp
    }

    /// What others call it.
    pub(super) fn name(&self) -> Name {
        Name {
            reactor: self.reactor.index,
            qp: self.qp,
            serial: self.serial,
        }
    }

    /// Tells the reactor to end it; `ChannelClosed` follows.
    pub(crate) fn close(&mut self, logout: Logout) {
        self.expect_flush();
        self.reactor.send(match logout {
            Logout::Disconnect => Message::CloseChannel(self.qp),
            Logout::Iu => Message::LogOut(self.qp),
        });
    }

    /// Another one has taken its place: it ends as soon as what is under way has had the time to end.
    pub(crate) fn retire(&mut self) {
        self.failed = true;
        self.expect_flush();
        self.reactor.send(Message::RetireChannel(self.qp));
    }

    /// It is being closed: a flush that does not come in time is not waited for.
    pub(crate) fn expect_flush(&mut self) {
        self.flush_by.get_or_insert_with(|| Instant::now() + FLUSH_LIMIT);
    }

    /// Destroys the queue pair when its flush is overdue, which proves as much.
    pub(crate) fn destroy_overdue(&mut self, now: Instant) {
        if self.flush_by.is_some_and(|limit| limit <= now) {
            tracing::warn!(
                reactor = self.reactor.index,
                "a queue pair was not flushed in time and is destroyed"
            );
            self.reactor.send(Message::DestroyChannel(self.qp));
            self.flush_by = Some(now + FLUSH_LIMIT);
        }
    }

    /// Takes apart a channel whose `ChannelClosed` has come: the connection is ended, the queue pair and its
    /// memory are given back.
    pub(crate) async fn dismantle(self) {
        let Self {
            reactor,
            qp,
            areas,
            watch,
            connection,
            ..
        } = self;
        let parts = reactor
            .ask(|reply| Message::ReleaseChannel(qp, reply))
            .await
            .ok()
            .flatten();
        let _ = watch.send(());
        let Ok(mut connection) = connection.await else { return };
        match connection.id.disconnect() {
            Ok(()) => {
                let ended = async { while !matches!(connection.event().await, Some(CmEvent::Disconnected) | None) {} };
                if timeout(DISCONNECT_LIMIT, ended).await.is_err() {
                    tracing::debug!("the target did not confirm the disconnect in time");
                }
            }
            Err(error) => tracing::debug!(%error, "disconnect"),
        }
        for area in areas {
            reactor.remove_area(area).await;
        }
        // Destroying verbs objects may wait for the kernel.
        let destroyed = tokio::task::spawn_blocking(move || {
            drop(parts);
            drop(connection);
        });
        let _ = destroyed.await;
    }
}
