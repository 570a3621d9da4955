//! What is said of a channel before its session has it.
//!
//! A channel made anew is at work at its reactor a moment before the task that made it has told the session. What ends it
//! in that moment would be about no channel, and one that has ended would take the place of one that serves.

use srp_initiator::fabric::QueuePairId;

use super::channel::Channel;
use super::replace::Vacancy;
use super::session::Request;
use crate::backend::Event as ReactorEvent;

/// A channel as its reactor calls it, and as its connection does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) reactor: usize,
    pub(super) qp: QueuePairId,
    pub(super) serial: u32,
}

impl Name {
    /// Whether a request says that this channel is ending or has ended.
    fn is_ended_by(self, request: &Request) -> bool {
        match request {
            Request::Reactor(
                ReactorEvent::ChannelFailed { reactor, qp, .. } | ReactorEvent::ChannelClosed { reactor, qp, .. },
            ) => (self.reactor, self.qp) == (*reactor, *qp),
            Request::ConnectionLost { serial, .. } => self.serial == *serial,
            _ => false,
        }
    }
}

/// See the module's text.
#[derive(Default)]
pub(super) struct EarlyEvents(Vec<Request>);

impl EarlyEvents {
    /// Keeps a request that is about none of these channels and may be about one that is being made for one of these
    /// places. Gives back any other.
    pub(super) fn keep(&mut self, request: Request, channels: &[Channel], making: &[Vacancy]) -> Option<Request> {
        let known = channels.iter().map(Channel::name);
        self.keep_unless_known(request, known, making)
    }

    fn keep_unless_known(
        &mut self,
        request: Request,
        mut known: impl Iterator<Item = Name>,
        making: &[Vacancy],
    ) -> Option<Request> {
        let may_come = match &request {
            Request::Reactor(
                ReactorEvent::ChannelFailed { reactor, .. } | ReactorEvent::ChannelClosed { reactor, .. },
            ) => making.iter().any(|vacancy| vacancy.reactor == *reactor),
            Request::ConnectionLost { .. } => !making.is_empty(),
            _ => false,
        };
        if !may_come || known.any(|name| name.is_ended_by(&request)) {
            return Some(request);
        }
        self.0.push(request);
        None
    }

    /// What was said of a channel, in its order. With nothing being made any more, the rest was about nothing.
    pub(super) fn take(&mut self, name: Name, making: &[Vacancy]) -> Vec<Request> {
        let (its, others) = self.0.drain(..).partition(|request| name.is_ended_by(request));
        self.0 = if making.is_empty() { Vec::new() } else { others };
        its
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_initiator::session::SessionKey;

    const SESSION: SessionKey = SessionKey(1);
    const OLD: Name = name(0, 3, 10);
    const NEW: Name = name(0, 4, 11);

    const fn name(reactor: usize, qp: u32, serial: u32) -> Name {
        Name {
            reactor,
            qp: QueuePairId(qp),
            serial,
        }
    }

    fn closed(name: Name) -> Request {
        Request::Reactor(ReactorEvent::ChannelClosed {
            reactor: name.reactor,
            qp: name.qp,
            session: SESSION,
        })
    }

    fn lost(name: Name) -> Request {
        Request::ConnectionLost {
            serial: name.serial,
            reason: "gone".to_owned(),
        }
    }

    fn vacancies(reactors: &[usize]) -> Vec<Vacancy> {
        let vacancy = |&reactor| Vacancy {
            reactor,
            instead_of: None,
        };
        reactors.iter().map(vacancy).collect()
    }

    fn keep(early: &mut EarlyEvents, request: Request, making: &[usize]) -> bool {
        early
            .keep_unless_known(request, [OLD].into_iter(), &vacancies(making))
            .is_none()
    }

    #[test]
    fn what_ends_a_channel_before_it_is_known_is_kept_for_it() {
        let mut early = EarlyEvents::default();
        assert!(keep(&mut early, lost(NEW), &[0]));
        assert!(keep(&mut early, closed(NEW), &[0]));
        let its = early.take(NEW, &[]);
        assert!(matches!(
            its[..],
            [
                Request::ConnectionLost { serial: 11, .. },
                Request::Reactor(ReactorEvent::ChannelClosed { .. })
            ]
        ));
        assert!(early.take(NEW, &[]).is_empty(), "once");
    }

    #[test]
    fn what_is_about_a_known_channel_or_none_is_not() {
        let mut early = EarlyEvents::default();
        assert!(!keep(&mut early, lost(OLD), &[0]));
        assert!(!keep(&mut early, closed(OLD), &[0]));
        assert!(!keep(&mut early, closed(NEW), &[1]), "nothing is made for reactor 0");
        assert!(!keep(&mut early, lost(NEW), &[]), "nothing is made");
        assert!(!keep(&mut early, Request::PathLost("gone".to_owned()), &[0]));
    }

    #[test]
    fn what_is_about_another_channel_waits_for_it_as_long_as_one_is_made() {
        let mut early = EarlyEvents::default();
        let other = name(1, 4, 12);
        assert!(keep(&mut early, closed(other), &[0, 1]));
        assert!(early.take(NEW, &vacancies(&[1])).is_empty());
        assert_eq!(early.take(other, &[]).len(), 1);
        assert!(keep(&mut early, closed(other), &[0, 1]));
        assert!(early.take(NEW, &[]).is_empty());
        assert!(early.0.is_empty(), "forgotten");
    }
}
