//! The subscriptions of a port with its subnet manager, renewed until they hold.

use std::time::{Duration, Instant};

use crate::mad::{Attribute, InformInfo, Notice, SaStatus};
use crate::ports::Port;
use crate::scan::SubnetError;
use crate::transport::{Address, Ended, Exchange, MadTransport, Query, Ticket};

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(10);

/// One subscription per trap.
pub(super) struct Subscriptions([Subscription; Notice::TRAPS.len()]);

struct Subscription {
    trap: u16,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// To be asked for at this time.
    Due(Instant),
    Asked(Ticket),
    Held,
}

impl Subscriptions {
    pub(super) fn new(now: Instant) -> Self {
        Self(Notice::TRAPS.map(|trap| Subscription {
            trap,
            state: State::Due(now),
        }))
    }

    /// Forgets all of them; answers still under way belong to nobody.
    pub(super) fn start_over(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Asks again for those that hold.
    pub(super) fn renew(&mut self, now: Instant) {
        for subscription in &mut self.0 {
            if let State::Held = subscription.state {
                subscription.state = State::Due(now);
            }
        }
    }

    /// When the next one is to be asked for.
    pub(super) fn wake(&self) -> Option<Instant> {
        let due = self.0.iter().filter_map(|subscription| match subscription.state {
            State::Due(at) => Some(at),
            _ => None,
        });
        due.min()
    }

    pub(super) fn submit<T: MadTransport>(&mut self, exchange: &mut Exchange<T>, port: &Port) {
        let now = exchange.now();
        for subscription in &mut self.0 {
            if matches!(subscription.state, State::Due(at) if at <= now) {
                let request = InformInfo::subscription(subscription.trap, true);
                let ticket = exchange.submit(Query::new(manager(port), request));
                subscription.state = State::Asked(ticket);
            }
        }
    }

    /// Takes an answer; why it is none, once for each subscription.
    pub(super) fn answered(&mut self, (ticket, result): Ended, now: Instant) -> Option<SubnetError> {
        let mine =
            |subscription: &&mut Subscription| matches!(subscription.state, State::Asked(asked) if asked == ticket);
        let subscription = self.0.iter_mut().find(mine)?;
        let error = match result {
            Err(error) => error.into(),
            Ok(answer) => match SaStatus::of(answer.status()) {
                status if status.is_good() => {
                    subscription.state = State::Held;
                    return None;
                }
                status => SubnetError::Status {
                    attribute: Attribute::INFORM_INFO,
                    status,
                },
            },
        };
        subscription.state = State::Due(now + AGAIN);
        Some(error)
    }

    #[cfg(test)]
    pub(super) fn all_held(&self) -> bool {
        let mut all = self.0.iter();
        all.all(|subscription| matches!(subscription.state, State::Held))
    }

    /// Asks for the end of those that hold.
    pub(super) fn end<T: MadTransport>(&mut self, exchange: &mut Exchange<T>, port: &Port) {
        for subscription in &mut self.0 {
            if !matches!(subscription.state, State::Asked(_)) {
                exchange.submit(Query::new(
                    manager(port),
                    InformInfo::subscription(subscription.trap, false),
                ));
            }
        }
        // Sent by looking for events that nobody waits for; a device that is gone needs no goodbye.
        let _ = exchange.next(exchange.now() + Duration::from_millis(1));
    }
}

fn manager(port: &Port) -> Address {
    let mut to = Address::infiniband(port.sm_lid, port.default_pkey().map_or(0, |(index, _)| index));
    to.sl = port.sm_sl;
    to
}
