//! A queue's tags: who has each of them, and what may happen to it next. Pure bookkeeping.

use libublk::sys::{
    UBLK_IO_F_FUA, UBLK_IO_F_NOUNMAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ, UBLK_IO_OP_WRITE,
    UBLK_IO_OP_WRITE_ZEROES,
};
use thiserror::Error;

use crate::backend::{DeviceKey, Operation};
use crate::ring::Descriptor;

/// A request the backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    operation: Operation,
    bytes: u64,
}

/// ```text
/// Kernel --request--> Held --CopyIn--> CopyingIn --copied--> Held
///   ^                   |--Complete, CompleteCopied----------------------------> Kernel
///   |                   `--CompleteRead--> CopyingOut --copied--> Kernel
///   |                                        `--failed--> CopyFailed --cancelled--> Kernel (committed with an errno)
///   `--abort--> Ended
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// A FETCH or COMMIT is in the driver's hands.
    Kernel,
    /// The backend has a request.
    Held(Held),
    /// The same, and its data is being copied in.
    CopyingIn(Held),
    /// Data is being copied out, the COMMIT is linked to that.
    CopyingOut,
    /// The copy failed; the linked COMMIT's cancellation is to come.
    CopyFailed(i32),
    /// The COMMIT was cancelled; the copy's own completion is to come.
    CommitCancelled,
    /// No more requests.
    Ended,
}

/// What a command's completion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandStep {
    /// A request is there: read the descriptor and `take` it.
    Request,
    /// Commit the tag's request with this result.
    Commit(i32),
    /// The tag has ended.
    Ended,
    /// The tag has ended because the driver refused a command (errno, positive).
    Refused(i32),
    /// Nothing.
    Wait,
}

/// What a copy's completion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyStep {
    /// Tell the backend.
    Tell,
    /// Tell the backend and commit with this result.
    TellAndCommit(i32),
    /// Nobody waits for it.
    Ignore,
}

/// A backend asked for what cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Misuse {
    /// It does not have that request (completed already, or being copied).
    #[error("the request is not the backend's to act upon")]
    NotHeld,
    /// It has it, but this does not fit the request.
    #[error("the action does not fit a request of {bytes} bytes: {operation:?}")]
    Unfit {
        /// The request's operation.
        operation: Operation,
        /// Its length.
        bytes: u64,
    },
}

#[derive(Debug)]
pub(super) struct Served {
    pub(super) device: DeviceKey,
    pub(super) queue_id: u16,
    max_io_bytes: u32,
    tags: Box<[Tag]>,
    ended: usize,
    refused: Option<i32>,
}

impl Served {
    pub(super) fn new(device: DeviceKey, queue_id: u16, depth: u16, max_io_bytes: u32) -> Self {
        let tags = vec![Tag::Kernel; usize::from(depth)].into_boxed_slice();
        Self {
            device,
            queue_id,
            max_io_bytes,
            tags,
            ended: 0,
            refused: None,
        }
    }

    /// All tags have ended.
    pub(super) fn over(&self) -> bool {
        self.ended == self.tags.len()
    }

    /// The errno of a command the driver refused.
    pub(super) const fn refused(&self) -> Option<i32> {
        self.refused
    }

    /// A FETCH or COMMIT came back.
    pub(super) fn command_ended(&mut self, tag: u16, result: i32) -> CommandStep {
        let Some(state) = self.tags.get_mut(usize::from(tag)) else {
            return CommandStep::Wait;
        };
        match (*state, result) {
            (Tag::Kernel, 0) => CommandStep::Request,
            (Tag::CopyFailed(errno), result) if result == -libc::ECANCELED => {
                *state = Tag::Kernel;
                CommandStep::Commit(-errno)
            }
            (Tag::CopyingOut, result) if result == -libc::ECANCELED => {
                *state = Tag::CommitCancelled;
                CommandStep::Wait
            }
            (Tag::Ended, _) => CommandStep::Wait,
            (_, result) => {
                *state = Tag::Ended;
                self.ended += 1;
                if result == -libc::ENODEV {
                    return CommandStep::Ended;
                }
                // A request (0) can come to a tag in the driver's hands only.
                let errno = if result < 0 { -result } else { libc::EPROTO };
                self.refused = Some(errno);
                CommandStep::Refused(errno)
            }
        }
    }

    /// The tag's request becomes the backend's. An errno (positive) to commit it with when it cannot be served.
    pub(super) fn take(&mut self, tag: u16, descriptor: Descriptor) -> Result<Operation, i32> {
        let operation = operation(descriptor.op_flags).ok_or(libc::EOPNOTSUPP)?;
        let bytes = u64::from(descriptor.sectors) << 9;
        let data = matches!(operation, Operation::Read | Operation::Write { .. });
        if data && (bytes == 0 || bytes > u64::from(self.max_io_bytes)) {
            return Err(libc::EIO);
        }
        let state = self.tags.get_mut(usize::from(tag)).ok_or(libc::EIO)?;
        *state = Tag::Held(Held { operation, bytes });
        Ok(operation)
    }

    /// A copy came back.
    pub(super) fn copy_ended(&mut self, tag: u16, result: Result<(), i32>) -> CopyStep {
        let Some(state) = self.tags.get_mut(usize::from(tag)) else {
            return CopyStep::Ignore;
        };
        match (*state, result) {
            (Tag::CopyingIn(held), _) => {
                *state = Tag::Held(held);
                CopyStep::Tell
            }
            (Tag::CopyingOut, Ok(())) => {
                *state = Tag::Kernel;
                CopyStep::Tell
            }
            (Tag::CopyingOut, Err(errno)) => {
                *state = Tag::CopyFailed(errno);
                CopyStep::Tell
            }
            (Tag::CommitCancelled, result) => {
                *state = Tag::Kernel;
                CopyStep::TellAndCommit(-result.err().unwrap_or(libc::EIO))
            }
            _ => CopyStep::Ignore,
        }
    }

    /// The backend wants the first `len` bytes of a WRITE.
    pub(super) fn copy_in(&mut self, tag: u16, len: u32) -> Result<(), Misuse> {
        let (state, held) = self.held(tag)?;
        let fits = matches!(held.operation, Operation::Write { .. }) && len > 0 && u64::from(len) <= held.bytes;
        *state = if fits {
            Tag::CopyingIn(held)
        } else {
            return Err(held.unfit());
        };
        Ok(())
    }

    /// The backend gives a READ's data, all of it. A shorter commit is no way to give a part: with USER_COPY, Linux 6.12
    /// asks again for the rest, 7.3 takes the whole request for done and shows what was in its pages.
    pub(super) fn complete_read(&mut self, tag: u16, len: u32) -> Result<(), Misuse> {
        let (state, held) = self.held(tag)?;
        let fits = held.operation == Operation::Read && u64::from(len) == held.bytes;
        *state = if fits {
            Tag::CopyingOut
        } else {
            return Err(held.unfit());
        };
        Ok(())
    }

    /// The backend completes a request without data; what to commit. A READ without its data is refused: its pages
    /// would show whatever was in them. So is a part of a WRITE: later kernels take it for all.
    pub(super) fn complete(&mut self, tag: u16, result: Result<u32, i32>) -> Result<i32, Misuse> {
        let (state, held) = self.held(tag)?;
        let code = match result {
            Ok(_) if held.operation == Operation::Read => return Err(held.unfit()),
            Ok(bytes) if matches!(held.operation, Operation::Write { .. }) && u64::from(bytes) != held.bytes => {
                return Err(held.unfit());
            }
            Ok(bytes) => i32::try_from(bytes).map_err(|_| held.unfit())?,
            Err(errno @ 1..4096) => -errno,
            Err(_) => -libc::EIO,
        };
        *state = Tag::Kernel;
        Ok(code)
    }

    /// Another reactor has copied a READ's data out, all of it; what to commit.
    pub(super) fn complete_copied(&mut self, tag: u16) -> Result<i32, Misuse> {
        let (state, held) = self.held(tag)?;
        if held.operation != Operation::Read {
            return Err(held.unfit());
        }
        let code = i32::try_from(held.bytes).map_err(|_| held.unfit())?;
        *state = Tag::Kernel;
        Ok(code)
    }

    /// Takes back a copy that could not be started.
    pub(super) fn copy_refused(&mut self, tag: u16, held_before: Held) {
        if let Some(state) = self.tags.get_mut(usize::from(tag)) {
            *state = Tag::Held(held_before);
        }
    }

    /// The request, if the backend has it to act upon.
    pub(super) fn holding(&self, tag: u16) -> Option<Held> {
        match self.tags.get(usize::from(tag)) {
            Some(Tag::Held(held)) => Some(*held),
            _ => None,
        }
    }

    fn held(&mut self, tag: u16) -> Result<(&mut Tag, Held), Misuse> {
        match self.tags.get_mut(usize::from(tag)) {
            Some(state @ Tag::Held(_)) => {
                let Tag::Held(held) = *state else {
                    return Err(Misuse::NotHeld);
                };
                Ok((state, held))
            }
            _ => Err(Misuse::NotHeld),
        }
    }
}

impl Held {
    const fn unfit(self) -> Misuse {
        Misuse::Unfit {
            operation: self.operation,
            bytes: self.bytes,
        }
    }
}

/// `op_flags` of a descriptor in our words; `None` for what we never asked to be sent.
const fn operation(op_flags: u32) -> Option<Operation> {
    Some(match op_flags & 0xff {
        UBLK_IO_OP_READ => Operation::Read,
        UBLK_IO_OP_WRITE => Operation::Write {
            fua: op_flags & UBLK_IO_F_FUA != 0,
        },
        UBLK_IO_OP_FLUSH => Operation::Flush,
        UBLK_IO_OP_DISCARD => Operation::Discard,
        UBLK_IO_OP_WRITE_ZEROES => Operation::WriteZeroes {
            no_unmap: op_flags & UBLK_IO_F_NOUNMAP != 0,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
