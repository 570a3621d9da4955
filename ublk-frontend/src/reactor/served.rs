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
///   ^                   |--Complete--------------------------------------------> Kernel
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

    /// The backend gives a READ's data. Fewer bytes than asked for are committed as such: the block layer asks again
    /// for the rest.
    pub(super) fn complete_read(&mut self, tag: u16, len: u32) -> Result<(), Misuse> {
        let (state, held) = self.held(tag)?;
        let fits = held.operation == Operation::Read && len > 0 && u64::from(len) <= held.bytes;
        *state = if fits {
            Tag::CopyingOut
        } else {
            return Err(held.unfit());
        };
        Ok(())
    }

    /// The backend completes a request without data; what to commit. A READ without its data is refused: its pages
    /// would show whatever was in them.
    pub(super) fn complete(&mut self, tag: u16, result: Result<u32, i32>) -> Result<i32, Misuse> {
        let (state, held) = self.held(tag)?;
        let code = match result {
            Ok(_) if held.operation == Operation::Read => return Err(held.unfit()),
            Ok(bytes) => i32::try_from(bytes).map_err(|_| held.unfit())?,
            Err(errno @ 1..4096) => -errno,
            Err(_) => -libc::EIO,
        };
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
mod tests {
    use super::*;

    const READ: Descriptor = Descriptor {
        op_flags: UBLK_IO_OP_READ,
        sectors: 8,
        start: 0,
    };
    const WRITE: Descriptor = Descriptor {
        op_flags: UBLK_IO_OP_WRITE | UBLK_IO_F_FUA,
        sectors: 8,
        start: 0,
    };
    const FLUSH: Descriptor = Descriptor {
        op_flags: UBLK_IO_OP_FLUSH,
        sectors: 0,
        start: 0,
    };

    fn served(requests: &[Descriptor]) -> Served {
        let mut served = Served::new(DeviceKey(1), 0, requests.len() as u16, 4096);
        for (tag, descriptor) in (0..).zip(requests) {
            assert_eq!(served.command_ended(tag, 0), CommandStep::Request);
            served.take(tag, *descriptor).unwrap();
        }
        served
    }

    #[test]
    fn a_write_is_copied_then_completed_once() {
        let mut served = served(&[WRITE]);
        assert_eq!(
            served.complete_read(0, 4096),
            Err(Misuse::Unfit {
                operation: Operation::Write { fua: true },
                bytes: 4096
            })
        );
        served.copy_in(0, 4096).unwrap();
        assert_eq!(
            served.complete(0, Ok(4096)),
            Err(Misuse::NotHeld),
            "not while it is being copied"
        );
        assert_eq!(served.copy_ended(0, Ok(())), CopyStep::Tell);
        assert_eq!(served.complete(0, Ok(4096)), Ok(4096));
        assert_eq!(served.complete(0, Ok(4096)), Err(Misuse::NotHeld), "twice");
        assert_eq!(served.copy_ended(0, Ok(())), CopyStep::Ignore);
    }

    #[test]
    fn a_read_is_committed_by_its_copy() {
        let mut served = served(&[READ]);
        assert!(served.complete(0, Ok(4096)).is_err(), "a READ needs data");
        assert!(served.complete_read(0, 8192).is_err());
        assert!(served.complete_read(0, 0).is_err());
        served.complete_read(0, 4096).unwrap();
        assert_eq!(served.copy_ended(0, Ok(())), CopyStep::Tell);
        assert_eq!(served.command_ended(0, 0), CommandStep::Request);
    }

    #[test]
    fn a_failed_copy_is_committed_with_its_error_in_either_order() {
        let mut served = served(&[READ, READ]);
        served.complete_read(0, 4096).unwrap();
        assert_eq!(served.copy_ended(0, Err(libc::EFAULT)), CopyStep::Tell);
        assert_eq!(
            served.command_ended(0, -libc::ECANCELED),
            CommandStep::Commit(-libc::EFAULT)
        );
        served.complete_read(1, 4096).unwrap();
        assert_eq!(served.command_ended(1, -libc::ECANCELED), CommandStep::Wait);
        assert_eq!(
            served.copy_ended(1, Err(libc::EFAULT)),
            CopyStep::TellAndCommit(-libc::EFAULT)
        );
    }

    #[test]
    fn errors_reach_the_kernel_as_such() {
        let mut served = served(&[FLUSH, READ, READ]);
        assert_eq!(served.complete(0, Ok(0)), Ok(0));
        assert_eq!(served.complete(1, Err(libc::ENOLINK)), Ok(-libc::ENOLINK));
        assert_eq!(served.complete(2, Err(0)), Ok(-libc::EIO), "an error is never success");
    }

    #[test]
    fn is_over_when_every_tag_was_aborted() {
        let mut served = served(&[FLUSH, FLUSH]);
        served.complete(0, Ok(0)).unwrap();
        assert_eq!(served.command_ended(0, -libc::ENODEV), CommandStep::Ended);
        assert!(!served.over(), "one request is still the backend's");
        served.complete(1, Err(libc::EIO)).unwrap();
        assert_eq!(
            served.command_ended(1, -libc::EINVAL),
            CommandStep::Refused(libc::EINVAL)
        );
        assert!(served.over());
        assert_eq!(served.refused(), Some(libc::EINVAL));
        assert_eq!(served.command_ended(1, -libc::ENODEV), CommandStep::Wait);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let mut served = Served::new(DeviceKey(1), 0, 1, 4096);
        let strange = Descriptor {
            op_flags: 10,
            sectors: 8,
            start: 0,
        };
        assert_eq!(served.take(0, strange), Err(libc::EOPNOTSUPP));
        assert_eq!(
            served.take(0, Descriptor { sectors: 9, ..READ }),
            Err(libc::EIO),
            "beyond max_io_bytes"
        );
        assert_eq!(served.take(0, Descriptor { sectors: 0, ..READ }), Err(libc::EIO));
        assert_eq!(
            operation(UBLK_IO_OP_WRITE_ZEROES | UBLK_IO_F_NOUNMAP),
            Some(Operation::WriteZeroes { no_unmap: true })
        );
        assert_eq!(operation(UBLK_IO_OP_DISCARD), Some(Operation::Discard));
    }
}
