//! A channel in place of a lost one, while its session has others, or of one that is about to be lost.

use std::sync::Arc;
use std::time::Duration;

use srp_addressing::Logout;
use srp_initiator::fabric::QueuePairId;
use srp_initiator::session::LoginParameters;
use srp_initiator::wire::login::MultiChannel;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Ground;
use super::channel::Channel;
use super::channels::serve;
use super::failure::chain;
use super::login::{self, Accepted, ChannelSetupError, SessionGround};
use super::reactors::Reactor;
use super::session::{Request, Session};

/// Before the first attempt: what broke the channel may have broken more.
const FIRST: Duration = Duration::from_secs(1);
/// Between attempts, as ib_srp's `reconnect_delay`.
const AGAIN: Duration = Duration::from_secs(10);
/// A channel that waits for its successor does so no longer.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(10);

/// A place of a session that a channel is being made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vacancy {
    /// Where: the queues of the block devices are there.
    pub(crate) reactor: usize,
    /// The channel whose place it is as long as it lasts, by its serial: one that is stuck.
    pub(crate) instead_of: Option<u32>,
}

/// The place that a channel was to be made for, and the channel.
pub(crate) type Made = (Vacancy, Option<Channel>);

/// See the module's text.
pub(crate) struct Replacement {
    pub(crate) ground: Arc<Ground>,
    pub(crate) shared: SessionGround,
    pub(crate) parameters: LoginParameters,
    vacancy: Vacancy,
    /// The vacancy's.
    reactor: Reactor,
    pub(crate) requests: mpsc::WeakUnboundedSender<Request>,
    /// True when none is wanted any more.
    pub(crate) over: watch::Receiver<bool>,
}

impl Replacement {
    /// Tries until there is a channel, or none is wanted any more.
    pub(crate) async fn run(self) -> Option<Made> {
        Some((self.vacancy, self.until_made().await))
    }

    async fn until_made(mut self) -> Option<Channel> {
        let mut over = self.over.clone();
        let mut pause = FIRST;
        loop {
            // A session that is gone wants no channel either.
            let ended = async { drop(over.wait_for(|over| *over).await) };
            let accepted = tokio::select! {
                () = ended => return None,
                accepted = self.attempt(pause) => accepted,
            };
            let error = match accepted {
                Ok(accepted) => match serve(accepted, &self.ground, &self.shared, self.requests.clone()).await {
                    Ok(channel) => return Some(channel),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let (session, reactor, error) = (self.shared.key.0, self.reactor.index, chain(&error));
            if pause == FIRST {
                tracing::warn!(
                    session,
                    reactor,
                    error,
                    "the channel cannot be made anew yet: tried again"
                );
            } else {
                tracing::debug!(session, reactor, error, "the channel cannot be made anew yet");
            }
            pause = AGAIN;
        }
    }

    /// Tries once, at once: the channel that it is to succeed does not wait for long.
    pub(crate) async fn run_once(self) -> Option<Made> {
        Some((self.vacancy, self.made_at_once().await))
    }

    async fn made_at_once(mut self) -> Option<Channel> {
        let (session, reactor) = (self.shared.key.0, self.reactor.index);
        let mut over = self.over.clone();
        let ended = async { drop(over.wait_for(|over| *over).await) };
        let accepted = tokio::select! {
            () = ended => return None,
            accepted = timeout(SUCCESSOR_LIMIT, self.attempt(Duration::ZERO)) => accepted,
        };
        let error = match accepted {
            Ok(Ok(accepted)) => match serve(accepted, &self.ground, &self.shared, self.requests.clone()).await {
                Ok(channel) => return Some(channel),
                Err(error) => chain(&error),
            },
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(session, reactor, error, "no channel can be made in its place");
        None
    }

    /// SINGLE would end the session's other channels.
    async fn attempt(&mut self, pause: Duration) -> Result<Accepted, ChannelSetupError> {
        sleep(pause).await;
        let ground = &self.ground;
        let resolved = login::resolve(&ground.connections, &ground.devices, &self.shared).await?;
        let reactor = self.reactor.clone();
        resolved
            .connect(
                &mut self.shared,
                &self.parameters,
                MultiChannel::Multi,
                &ground.reactors,
                reactor,
            )
            .await
    }
}

impl Session {
    /// What makes a channel anew for a reactor that has lost one of its own; nothing when none is wanted, or as many are
    /// under way as are.
    pub(super) fn replacement(&mut self, reactor: usize) -> Option<Replacement> {
        let there = self.live().filter(|channel| channel.reactor.index == reactor);
        let staying = there.filter(|channel| !self.making.iter().any(|vacancy| vacancy.is_of(channel)));
        let coming = self.making.iter().filter(|vacancy| vacancy.reactor == reactor);
        if staying.count() + coming.count() >= self.wanted_on(reactor) {
            return None;
        }
        self.fill(Vacancy {
            reactor,
            instead_of: None,
        })
    }

    /// What makes another channel beside one that does not get rid of a command: one unit that is stuck is no reason for
    /// the others to lose their session.
    pub(super) fn successor(&mut self, reactor: usize, qp: QueuePairId) -> Option<Replacement> {
        let stuck = self.live().find(|channel| channel.is(reactor, qp))?;
        // One is enough.
        if self.making.iter().any(|vacancy| vacancy.is_of(stuck)) {
            return None;
        }
        let vacancy = Vacancy {
            reactor,
            instead_of: Some(stuck.serial),
        };
        let successor = self.fill(vacancy)?;
        tracing::warn!(
            session = self.key.0, reactor, target = %self.address,
            "a command is neither answered nor ended: its channel is made anew"
        );
        Some(successor)
    }

    fn fill(&mut self, vacancy: Vacancy) -> Option<Replacement> {
        let reactor = self.owners.iter().find(|owner| owner.index == vacancy.reactor)?.clone();
        if self.lost.is_some() || !self.is_wanted() {
            return None;
        }
        self.making.push(vacancy);
        Some(Replacement {
            ground: Arc::clone(&self.ground),
            shared: self.shared.clone(),
            parameters: self.parameters.clone(),
            vacancy,
            reactor,
            requests: self.requests.clone(),
            over: self.over.subscribe(),
        })
    }

    /// What came of making a channel. What makes another when there is none and its place is empty.
    pub(super) fn made(&mut self, vacancy: Vacancy, channel: Option<Channel>) -> Option<Replacement> {
        if let Some(place) = self.making.iter().position(|other| *other == vacancy) {
            self.making.swap_remove(place);
        }
        let reactor = vacancy.reactor;
        let Some(mut channel) = channel else {
            return self.replacement(reactor);
        };
        let early = self.early.take(channel.name(), &self.making);
        if early.is_empty() {
            self.replaced(channel, vacancy);
            return None;
        }
        // It ended before it could serve, and is the end of no other.
        tracing::warn!(session = self.key.0, reactor, target = %self.address, "a channel made anew was lost at once");
        channel.close(Logout::Disconnect);
        channel.failed = true;
        self.channels.push(channel);
        if let Some(requests) = self.requests.upgrade() {
            early.into_iter().for_each(|request| drop(requests.send(request)));
        }
        None
    }

    /// A channel came in place of a lost one, or of one that is about to be.
    fn replaced(&mut self, mut channel: Channel, vacancy: Vacancy) {
        if self.lost.is_some() {
            // Too late: it goes the way of the others.
            channel.close(Logout::Disconnect);
            return self.channels.push(channel);
        }
        let mut others = self.channels.iter_mut().filter(|other| !other.failed);
        if let Some(stuck) = others.find(|other| vacancy.is_of(other)) {
            stuck.retire();
        }
        self.channels.push(channel);
        self.channels.sort_by_key(|channel| channel.reactor.index);
        tracing::info!(
            session = self.key.0, reactor = vacancy.reactor, channels = self.live().count(), target = %self.address,
            "channel back"
        );
        self.introduce();
    }
}

impl Vacancy {
    /// Whether it is the place of a channel that is still there.
    fn is_of(&self, channel: &Channel) -> bool {
        self.instead_of == Some(channel.serial)
    }
}
