//! A session: one task that owns the channels to a target and the block devices behind them.
//!
//! Others reach it by messages only; what it is like is published as a snapshot, so that a listing never waits
//! for a login or a detach under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use srp_addressing::{Gid, Logout, PortId, TargetOptions};
use srp_initiator::scsi::Lun;
use srp_initiator::session::{LoginParameters, SessionKey};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Ground;
use super::attach::Wanted;
use super::attach_queue::{AttachQueue, Reply};
use super::channel::Channel;
use super::device::BlockDevice;
use super::early_events::EarlyEvents;
use super::failure::failure;
use super::login::{LocalEnd, SessionGround};
use super::reactors::Reactor;
use super::replace::{Made, Vacancy};
use super::snapshot::Snapshot;
use crate::backend::{Event as ReactorEvent, Message};
use crate::rpc::protocol::{Detached, DeviceDetail, ErrorData, ErrorKind, SkippedLun};

/// What others ask of a session.
pub(crate) enum Request {
    /// Make further logical units block devices.
    Attach(Wanted, Reply),
    /// End a block device. With the last one the session ends.
    Detach {
        number: u32,
        force: bool,
        reply: oneshot::Sender<Detached>,
    },
    /// All about a block device.
    Show {
        number: u32,
        reply: oneshot::Sender<Result<DeviceDetail, ErrorData>>,
    },
    /// Something happened to a channel.
    Reactor(ReactorEvent),
    /// The connection of a channel ended, and why.
    ConnectionLost {
        /// The channel.
        serial: u32,
        /// Why.
        reason: String,
    },
    /// The target does not answer any more, and how that was found.
    PathLost(String),
}

/// Answers a client; kept until what it was told is true.
pub(super) type Answer = Box<dyn FnOnce() + Send>;
/// A detach that is over.
type Ended = (Arc<BlockDevice>, Detached, oneshot::Sender<Detached>);

/// A logged-in session.
pub(crate) struct Session {
    pub(crate) ground: Arc<Ground>,
    pub(crate) key: SessionKey,
    pub(crate) target: TargetOptions,
    pub(crate) address: srp_verbs::cm::Address,
    /// What the fabric may call the target's port.
    pub(crate) target_gids: Vec<Gid>,
    pub(crate) local: LocalEnd,
    pub(crate) initiator_port: PortId,
    pub(crate) wanted_channels: u16,
    /// Reactors that channels were made for when it logged in. The device queue q is one of owner q modulo their number.
    pub(crate) owners: Vec<Reactor>,
    /// How many channels it got then; the owners had them in turn.
    pub(crate) granted_channels: usize,
    /// The places for which a channel is being made.
    pub(crate) making: Vec<Vacancy>,
    /// What was said of channels that are only being made.
    pub(crate) early: EarlyEvents,
    /// Those in service, as many of each owner as it had at first or fewer, and those that are being closed.
    pub(crate) channels: Vec<Channel>,
    /// What logging a further channel in takes.
    pub(crate) shared: SessionGround,
    pub(crate) parameters: LoginParameters,
    pub(crate) requests: mpsc::WeakUnboundedSender<Request>,
    /// True when no channel is wanted any more.
    pub(crate) over: watch::Sender<bool>,
    pub(crate) devices: BTreeMap<u32, Arc<BlockDevice>>,
    pub(crate) others: BTreeMap<Lun, SkippedLun>,
    /// What is to become its devices.
    pub(crate) attaches: AttachQueue,
    /// Its devices take turns.
    pub(crate) detaching: Arc<Semaphore>,
    /// Why it is lost.
    pub(crate) lost: Option<String>,
}

/// Requests per hardware queue of a block device, when the target text does not say.
const QUEUE_DEPTH: u16 = 128;

impl Session {
    /// Requests per hardware queue of its block devices (`max_cmd_per_lun`).
    pub(crate) fn queue_depth(&self) -> u16 {
        let most = self.target.max_cmd_per_lun.unwrap_or(u32::from(QUEUE_DEPTH));
        u16::try_from(most).unwrap_or(u16::MAX).clamp(1, QUEUE_DEPTH)
    }

    /// Serves the session until its last device is gone and it has logged out. What ends the session is
    /// answered only then, so that "detached" means that nothing of it is left here and that the target has been told. A target
    /// may list it for half a second more (LIO does).
    pub(crate) async fn run(
        mut self,
        first: Request,
        mut requests: mpsc::UnboundedReceiver<Request>,
        published: watch::Sender<Option<Snapshot>>,
        gone: impl FnOnce(),
    ) {
        let mut detaching = JoinSet::new();
        let mut dismantling = JoinSet::new();
        let mut answers: Vec<Answer> = Vec::new();
        let mut next = Some(first);
        let mut gone = Some(gone);
        published.send_replace(Some(self.snapshot()));
        loop {
            if let Some(request) = next.take() {
                answers.extend(self.handle(request, &mut detaching, &mut dismantling).await);
            }
            let ending = !self.is_wanted() && detaching.is_empty();
            if ending {
                self.close_channels();
            }
            published.send_replace(Some(self.snapshot()));
            let over = ending && self.channels.is_empty() && dismantling.is_empty();
            if over {
                for index in 0..self.ground.reactors.count() {
                    self.ground.reactors.get(index).send(Message::RemoveSession(self.key));
                }
                if let Some(gone) = gone.take() {
                    gone();
                }
                tracing::info!(session = self.key.0, target = %self.address, "logged out");
            }
            if over || !ending {
                answers.drain(..).for_each(|answer| answer());
            }
            if over {
                break;
            }
            let overdue = self.channels.iter().filter_map(|channel| channel.flush_by).min();
            tokio::select! {
                step = self.attaches.step() => answers.extend(self.attach_step(step)),
                Some(ended) = detaching.join_next(), if !detaching.is_empty() => {
                    let Ok((device, outcome, reply)) = ended else { continue };
                    answers.push(self.detached(&device, outcome, reply));
                }
                Some(made) = dismantling.join_next(), if !dismantling.is_empty() => {
                    // The end of a channel that was made may have been told already.
                    while let Ok(request) = requests.try_recv() {
                        answers.extend(self.handle(request, &mut detaching, &mut dismantling).await);
                    }
                    if let Ok(Some((vacancy, channel))) = made
                        && let Some(replacement) = self.made(vacancy, channel)
                    {
                        dismantling.spawn(replacement.run());
                    }
                }
                () = out_of_patience(overdue) => {
                    let now = Instant::now();
                    self.channels.iter_mut().for_each(|channel| channel.destroy_overdue(now));
                }
                request = requests.recv() => next = request,
            }
        }
    }

    /// Ends every channel; each answers with `ChannelClosed` when nothing of it can be touched any more.
    fn close_channels(&mut self) {
        let logout = match self.lost {
            None => self.target.logout.unwrap_or_default(),
            Some(_) => Logout::Disconnect,
        };
        self.over.send_replace(true);
        self.channels.iter_mut().for_each(|channel| channel.close(logout));
    }

    async fn handle(
        &mut self,
        request: Request,
        detaching: &mut JoinSet<Ended>,
        dismantling: &mut JoinSet<Option<Made>>,
    ) -> Option<Answer> {
        let request = self.early.keep(request, &self.channels, &self.making)?;
        match request {
            Request::Attach(wanted, reply) => {
                self.attaches.push(wanted, reply);
                self.attach_next()
            }
            Request::Detach { number, force, reply } => self.detach(number, force, reply, detaching),
            Request::Show { number, reply } => {
                let _ = reply.send(self.show(number).await);
                None
            }
            Request::Reactor(ReactorEvent::SuccessorWanted { reactor, qp, .. }) => {
                if let Some(successor) = self.successor(reactor, qp) {
                    dismantling.spawn(successor.run_once());
                }
                None
            }
            Request::Reactor(ReactorEvent::ChannelFailed {
                reactor, qp, reason, ..
            }) => {
                self.channel_failed(|channel| channel.is(reactor, qp), &reason.to_string());
                None
            }
            Request::Reactor(ReactorEvent::ChannelClosed { reactor, qp, .. }) => {
                if let Some(index) = self.channels.iter().position(|channel| channel.is(reactor, qp)) {
                    let channel = self.channels.remove(index);
                    let replacement = self.replacement(channel.reactor.index);
                    dismantling.spawn(async move {
                        channel.dismantle().await;
                        replacement?.run().await
                    });
                }
                None
            }
            Request::ConnectionLost { serial, reason } => {
                let mut channels = self.channels.iter_mut();
                if let Some(channel) = channels.find(|channel| channel.serial == serial && !channel.failed) {
                    channel.close(Logout::Disconnect);
                    self.channel_failed(|channel| channel.serial == serial, &reason);
                }
                None
            }
            Request::PathLost(reason) => {
                self.lose(&reason);
                None
            }
        }
    }

    /// Whether there is somebody it is for: a device, or who attaches one.
    pub(super) fn is_wanted(&self) -> bool {
        !self.devices.is_empty() || !self.attaches.is_empty()
    }

    /// Starts to detach a device, or says why not.
    fn detach(
        &mut self,
        number: u32,
        force: bool,
        reply: oneshot::Sender<Detached>,
        detaching: &mut JoinSet<Ended>,
    ) -> Option<Answer> {
        let refused = |error| Detached {
            number,
            detached: false,
            notes: Vec::new(),
            error: Some(error),
        };
        let Some(device) = self.devices.get(&number) else {
            let outcome = refused(failure(ErrorKind::NotFound, format!("there is no /dev/ublkb{number}")));
            return Some(Box::new(|| drop(reply.send(outcome))));
        };
        if !device.begin_detach() {
            let outcome = refused(failure(
                ErrorKind::Busy,
                format!("/dev/ublkb{number} is being detached already"),
            ));
            return Some(Box::new(|| drop(reply.send(outcome))));
        }
        let device = Arc::clone(device);
        let channels = self.places();
        let turns = Arc::clone(&self.detaching);
        detaching.spawn(async move {
            let _turn = turns.acquire().await;
            let outcome = device.detach(force, channels).await;
            (device, outcome, reply)
        });
        None
    }

    fn detached(&mut self, device: &BlockDevice, outcome: Detached, reply: oneshot::Sender<Detached>) -> Answer {
        if outcome.detached {
            // Its number may be that of another by now, attached since.
            if self
                .devices
                .get(&outcome.number)
                .is_some_and(|there| there.key() == device.key())
            {
                self.devices.remove(&outcome.number);
            }
            for index in 0..self.ground.reactors.count() {
                self.ground.reactors.get(index).send(Message::RemoveDisk(device.key()));
            }
        } else {
            device.end_detach();
        }
        Box::new(|| drop(reply.send(outcome)))
    }

    /// The session is gone: what it has left of channels is ended.
    pub(super) fn lose(&mut self, reason: &str) {
        // Closing a session ends its channels as well; only what was not asked for is a loss.
        if self.lost.is_some() || !self.is_wanted() {
            return;
        }
        tracing::error!(
            session = self.key.0, reason, target = %self.address,
            "session lost: I/O on its devices fails; detach them and attach again"
        );
        self.lost = Some(reason.to_owned());
        self.introduce();
        self.close_channels();
    }
}

/// Waits until channels being closed should have been flushed.
async fn out_of_patience(overdue: Option<Instant>) {
    match overdue {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}
