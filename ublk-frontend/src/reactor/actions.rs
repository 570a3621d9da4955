//! What a backend asks for, turned into entries of the ring.

use super::ReactorError;
use super::pass::{Pass, find};
use super::served::{Misuse, Served};
use crate::backend::{Action, AreaRanges, Backend, ForeignRequest, RequestId};
use crate::moment::Moment;
use crate::ring::{Direction, RangeError};

impl<B: Backend> Pass<B> {
    pub(super) fn act(&mut self, action: Action, now: Moment) -> Result<(), ReactorError> {
        match action {
            Action::CopyIn { id, into } => self.copy_in(id, into, false, now).map(drop),
            Action::CompleteRead { id, from } => self.complete_read(id, from, now),
            Action::Complete { id, result } => self.complete(id, result),
            Action::CompleteCopied { id } => self.complete_copied(id),
            Action::CopyInForeign { token, request, into } => {
                self.copy_foreign(token, request, into, Direction::In, now)
            }
            Action::CopyOutForeign { token, request, from } => {
                self.copy_foreign(token, request, from, Direction::Out, now)
            }
            Action::Watch { fd, token } => Ok(self.watches.add(&mut self.plane, fd, token)?),
            Action::Unwatch { token } => Ok(self.watches.end(&mut self.plane, token)?),
        }
    }

    /// Carries out all that the backend asks for, and has it send what was copied at once.
    pub(super) fn act_on_all(&mut self, now: Moment) -> Result<(), ReactorError> {
        while let Some(last) = self.actions.pop() {
            match last {
                // A copy that is alone is made at once, so that its command leaves in this pass. Several are cheaper together.
                Action::CopyIn { id, into } if self.actions.is_empty() => {
                    if self.copy_in(id, into, true, now)? {
                        self.backend.send(now, &mut self.actions);
                    }
                }
                last => self.act_in_order(last, now)?,
            }
        }
        Ok(())
    }

    /// Carries out all actions there are, and `last` behind them.
    fn act_in_order(&mut self, last: Action, now: Moment) -> Result<(), ReactorError> {
        if !self.actions.is_empty() {
            let mut actions = std::mem::take(&mut self.actions);
            for action in actions.drain(..) {
                self.act(action, now)?;
            }
            self.actions = actions;
        }
        self.act(last, now)
    }

    /// True when the copy is over.
    fn copy_in(&mut self, id: RequestId, into: AreaRanges, at_once: bool, now: Moment) -> Result<bool, ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld).map(|()| false);
        };
        let Some(held) = served.holding(id.tag) else {
            return report(id, Misuse::NotHeld).map(|()| false);
        };
        let started = match served.copy_in(id.tag, into.len()) {
            Err(misuse) => {
                report(id, misuse)?;
                None
            }
            Ok(()) => {
                let started = match at_once {
                    true => self.plane.copy_in_at_once(id.queue, id.tag, &into).map(Some),
                    false => self.plane.copy_in(id.queue, id.tag, &into)?.map(|()| None),
                };
                if let Err(error) = &started {
                    mistaken(id, error);
                    served.copy_refused(id.tag, held);
                }
                started.ok()
            }
        };
        match started {
            Some(Some(result)) => self.copy_ended(id.queue, id.tag, result, now)?,
            Some(None) => return Ok(false),
            None => self.backend.copied(id, Err(libc::EINVAL), now),
        }
        Ok(true)
    }

    fn complete_read(&mut self, id: RequestId, from: AreaRanges, now: Moment) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld);
        };
        let Some(held) = served.holding(id.tag) else {
            return report(id, Misuse::NotHeld);
        };
        if let Err(misuse) = served.complete_read(id.tag, from.len()) {
            report(id, misuse)?;
        } else if let Err(error) = self.plane.copy_out_and_commit(id.queue, id.tag, &from)? {
            mistaken(id, &error);
            served.copy_refused(id.tag, held);
        } else {
            return Ok(());
        }
        self.complete(id, Err(libc::EIO))?;
        self.backend.copied(id, Err(libc::EINVAL), now);
        Ok(())
    }

    fn copy_foreign(
        &mut self,
        token: u64,
        request: ForeignRequest,
        ranges: AreaRanges,
        direction: Direction,
        now: Moment,
    ) -> Result<(), ReactorError> {
        let serves = |(_, served): &&(u32, Served)| served.device == request.device;
        // Devices go when all of their requests have ended; a backend that hands over requests of another is mistaken.
        let Some((queue, _)) = self.queues.iter().flatten().find(serves) else {
            tracing::error!(?request, "no queue of that device is served here");
            self.backend.copied_foreign(token, Err(libc::ENODEV), now);
            return Ok(());
        };
        if let Err(error) = self.plane.copy_foreign(*queue, request, &ranges, direction, token)? {
            tracing::error!(?request, %error, "a backend's mistake");
            self.backend.copied_foreign(token, Err(libc::EINVAL), now);
        }
        Ok(())
    }

    fn complete_copied(&mut self, id: RequestId) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld);
        };
        match served.complete_copied(id.tag) {
            Ok(code) => Ok(self.plane.commit(id.queue, id.tag, code)?),
            Err(misuse) => {
                report(id, misuse)?;
                self.complete(id, Err(libc::EIO))
            }
        }
    }

    fn complete(&mut self, id: RequestId, result: Result<u32, i32>) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld);
        };
        let code = match served.complete(id.tag, result) {
            Ok(code) => code,
            Err(misuse) => {
                report(id, misuse)?;
                match served.complete(id.tag, Err(libc::EIO)) {
                    Ok(code) => code,
                    Err(_) => return Ok(()),
                }
            }
        };
        Ok(self.plane.commit(id.queue, id.tag, code)?)
    }
}

#[cold]
fn mistaken(id: RequestId, error: &RangeError) {
    tracing::error!(?id, %error, "a backend's mistake");
}

/// A backend is part of this program, so its mistakes are defects: loud in tests, harmless otherwise.
#[cold]
fn report(id: RequestId, misuse: Misuse) -> Result<(), ReactorError> {
    tracing::error!(?id, %misuse, "a backend's mistake");
    debug_assert!(false, "{id:?}: {misuse}");
    Ok(())
}
