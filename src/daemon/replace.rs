//! A channel in place of a lost one, while its session has others, or of one that is about to be lost.

use std::sync::Arc;
use std::time::Duration;

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
use super::session::Request;

/// Before the first attempt: what broke the channel may have broken more.
const FIRST: Duration = Duration::from_secs(1);
/// Between attempts, as ib_srp's `reconnect_delay`.
const AGAIN: Duration = Duration::from_secs(10);
/// A channel that waits for its successor does so no longer.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(10);

/// The reactor that a channel was to be made for, and the channel.
pub(crate) type Made = (usize, Option<Channel>);

/// See the module's text.
pub(crate) struct Replacement {
    pub(crate) ground: Arc<Ground>,
    pub(crate) shared: SessionGround,
    pub(crate) parameters: LoginParameters,
    /// Where the lost one was: the queues of the block devices are there.
    pub(crate) reactor: Reactor,
    pub(crate) requests: mpsc::WeakUnboundedSender<Request>,
    /// True when none is wanted any more.
    pub(crate) over: watch::Receiver<bool>,
}

impl Replacement {
    /// Tries until there is a channel, or none is wanted any more.
    pub(crate) async fn run(self) -> Option<Made> {
        let reactor = self.reactor.index;
        Some((reactor, self.until_made().await))
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
        let reactor = self.reactor.index;
        Some((reactor, self.made_at_once().await))
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
