//! What a backend asks for, turned into entries of the ring.

use std::time::Instant;

use super::ReactorError;
use super::pass::{Pass, find};
use super::served::Misuse;
use crate::backend::{Action, AreaRange, Backend, RequestId};

impl<B: Backend> Pass<B> {
    pub(super) fn act(&mut self, action: Action, now: Instant) -> Result<(), ReactorError> {
        match action {
            Action::CopyIn { id, into } => self.copy_in(id, into, now),
            Action::CompleteRead { id, from } => self.complete_read(id, from, now),
            Action::Complete { id, result } => self.complete(id, result),
            Action::Watch { fd, token } => Ok(self.watches.add(&mut self.plane, fd, token)?),
            Action::Unwatch { token } => Ok(self.watches.end(&mut self.plane, token)?),
        }
    }

    fn copy_in(&mut self, id: RequestId, into: AreaRange, now: Instant) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld);
        };
        let Some(held) = served.holding(id.tag) else {
            return report(id, Misuse::NotHeld);
        };
        if let Err(misuse) = served.copy_in(id.tag, into.len) {
            report(id, misuse)?;
        } else if let Err(error) = self.plane.copy_in(id.queue, id.tag, into)? {
            tracing::error!(?id, %error, "a backend's mistake");
            served.copy_refused(id.tag, held);
        } else {
            return Ok(());
        }
        self.backend.copied(id, Err(libc::EINVAL), now);
        Ok(())
    }

    fn complete_read(&mut self, id: RequestId, from: AreaRange, now: Instant) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, id.queue) else {
            return report(id, Misuse::NotHeld);
        };
        let Some(held) = served.holding(id.tag) else {
            return report(id, Misuse::NotHeld);
        };
        if let Err(misuse) = served.complete_read(id.tag, from.len) {
            report(id, misuse)?;
        } else if let Err(error) = self.plane.copy_out_and_commit(id.queue, id.tag, from)? {
            tracing::error!(?id, %error, "a backend's mistake");
            served.copy_refused(id.tag, held);
        } else {
            return Ok(());
        }
        self.complete(id, Err(libc::EIO))?;
        self.backend.copied(id, Err(libc::EINVAL), now);
        Ok(())
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

/// A backend is part of this program, so its mistakes are defects: loud in tests, harmless otherwise.
fn report(id: RequestId, misuse: Misuse) -> Result<(), ReactorError> {
    tracing::error!(?id, %misuse, "a backend's mistake");
    debug_assert!(false, "{id:?}: {misuse}");
    Ok(())
}
