//! What the end of a command means: done, again, or an error for the block layer.
//!
//! A ublk server's user never sees SCSI, so the policy the kernel's SCSI mid-layer has is needed here.

use std::fmt;

use super::sense::{Sense, SenseKey};

/// SCSI status GOOD (SAM-5 5.3.1).
pub const GOOD: u8 = 0x00;
/// SCSI status CHECK CONDITION.
pub const CHECK_CONDITION: u8 = 0x02;
/// SCSI status CONDITION MET.
pub const CONDITION_MET: u8 = 0x04;
/// SCSI status BUSY.
pub const BUSY: u8 = 0x08;
/// SCSI status RESERVATION CONFLICT.
pub const RESERVATION_CONFLICT: u8 = 0x18;
/// SCSI status TASK SET FULL.
pub const TASK_SET_FULL: u8 = 0x28;
/// SCSI status ACA ACTIVE.
pub const ACA_ACTIVE: u8 = 0x30;
/// SCSI status TASK ABORTED.
pub const TASK_ABORTED: u8 = 0x40;

/// An error as the block layer knows it. Which one decides what users above do: dm-multipath fails a path over
/// for some and not for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BlockError {
    /// EOPNOTSUPP: the logical unit has no such command. Not a path error.
    #[error("operation not supported by the logical unit")]
    Unsupported,
    /// ETIMEDOUT: no answer in time, and aborting did not help.
    #[error("command timed out")]
    Timeout,
    /// ENOSPC: a thin-provisioned unit cannot allocate. Not a path error.
    #[error("no space left on the logical unit")]
    NoSpace,
    /// ENOLINK: the path is lost or does not lead to the medium.
    #[error("path to the logical unit lost")]
    Transport,
    /// EREMOTEIO: the target refuses or failed for good; another path would not help. Not a path error.
    #[error("the target failed the command")]
    Target,
    /// EBADE: another initiator holds a reservation. Not a path error.
    #[error("reservation conflict")]
    ReservationConflict,
    /// ENODATA: the medium is defective there. Not a path error.
    #[error("medium error")]
    Medium,
    /// EILSEQ: a protection information check failed. Not a path error.
    #[error("protection information check failed")]
    Protection,
    /// ENODEV: the device is not there any more.
    #[error("device offline")]
    Offline,
    /// ENOMEM: out of memory; the block layer retries.
    #[error("out of memory")]
    NoMemory,
    /// EINVAL: the request cannot be expressed.
    #[error("invalid request")]
    Invalid,
    /// EIO: anything else.
    #[error("I/O error")]
    Io,
}

impl BlockError {
    /// The errno, positive, as generic Linux numbers it (x86, Arm, POWER, RISC-V; not MIPS, Alpha, SPARC).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Offline => 19,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::ReservationConflict => 52,
            Self::Medium => 61,
            Self::Transport => 67,
            Self::Protection => 84,
            Self::Unsupported => 95,
            Self::Timeout => 110,
            Self::Target => 121,
        }
    }
}

/// Why a command should be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// The logical unit had something to report first; its additional code and qualifier say what.
    UnitAttention(u8, u8),
    /// An earlier command failed after its status was given; this one was not carried out.
    DeferredError(Sense),
    /// The target gave the command up; its additional code and qualifier say why.
    AbortedCommand(u8, u8),
    /// Status TASK ABORTED: another initiator's task management ended it.
    TaskAborted,
    /// Status BUSY.
    Busy,
    /// Status TASK SET FULL.
    TaskSetFull,
    /// Status ACA ACTIVE.
    AcaActive,
    /// Not ready, but it will pass by itself; the additional code qualifier says how.
    BecomingReady(u8),
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sense = |key, asc, ascq| Sense::new(key, asc, ascq);
        match *self {
            Self::UnitAttention(asc, ascq) => sense(SenseKey::UnitAttention, asc, ascq).fmt(f),
            Self::DeferredError(sense) => sense.fmt(f),
            Self::AbortedCommand(asc, ascq) => sense(SenseKey::AbortedCommand, asc, ascq).fmt(f),
            Self::TaskAborted => f.write_str("TASK ABORTED"),
            Self::Busy => f.write_str("BUSY"),
            Self::TaskSetFull => f.write_str("TASK SET FULL"),
            Self::AcaActive => f.write_str("ACA ACTIVE"),
            Self::BecomingReady(ascq) => sense(SenseKey::NotReady, NOT_READY, ascq).fmt(f),
        }
    }
}

/// What to do with a command that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It succeeded.
    Done {
        /// Bytes moved.
        transferred: u32,
    },
    /// Send it again at once.
    RetryNow(RetryReason),
    /// Send it again after a pause.
    RetryAfterBackoff(RetryReason),
    /// It failed.
    Fail(BlockError),
}

const NOT_READY: u8 = 0x04;
const PROTECTION: u8 = 0x10;

/// Judges a read, write or flush by its status, its sense, and how many bytes it moved (the length asked for less
/// the residual).
#[inline]
#[must_use]
pub fn judge(status: u8, sense: Option<&Sense>, transferred: u32) -> Verdict {
    match status {
        GOOD | CONDITION_MET => Verdict::Done { transferred },
        // SRP delivers sense with the status; a target that gives none cannot be asked again.
        CHECK_CONDITION => sense.map_or(Verdict::Fail(BlockError::Io), |sense| judge_sense(sense, transferred)),
        BUSY => Verdict::RetryAfterBackoff(RetryReason::Busy),
        TASK_SET_FULL => Verdict::RetryAfterBackoff(RetryReason::TaskSetFull),
        ACA_ACTIVE => Verdict::RetryAfterBackoff(RetryReason::AcaActive),
        TASK_ABORTED => Verdict::RetryNow(RetryReason::TaskAborted),
        RESERVATION_CONFLICT => Verdict::Fail(BlockError::ReservationConflict),
        _ => Verdict::Fail(BlockError::Io),
    }
}

/// Judges an UNMAP or WRITE SAME: as [`judge`], but a target that does not know the command, or not in this form,
/// makes it unsupported, so that the block layer stops asking.
#[must_use]
pub fn judge_deallocation(status: u8, sense: Option<&Sense>, transferred: u32) -> Verdict {
    let unknown = sense.is_some_and(|sense| {
        !sense.deferred && sense.key == SenseKey::IllegalRequest && matches!(sense.asc, 0x20 | 0x24 | 0x26)
    });
    if status == CHECK_CONDITION && unknown {
        return Verdict::Fail(BlockError::Unsupported);
    }
    judge(status, sense, transferred)
}

#[cold]
fn judge_sense(sense: &Sense, transferred: u32) -> Verdict {
    if sense.deferred {
        return Verdict::RetryNow(RetryReason::DeferredError(*sense));
    }
    let Sense { asc, ascq, .. } = *sense;
    match sense.key {
        SenseKey::NoSense | SenseKey::RecoveredError | SenseKey::Completed => Verdict::Done { transferred },
        SenseKey::UnitAttention => Verdict::RetryNow(RetryReason::UnitAttention(asc, ascq)),
        SenseKey::NotReady => judge_not_ready(asc, ascq),
        SenseKey::AbortedCommand | SenseKey::IllegalRequest if asc == PROTECTION => {
            Verdict::Fail(BlockError::Protection)
        }
        SenseKey::AbortedCommand => Verdict::RetryNow(RetryReason::AbortedCommand(asc, ascq)),
        SenseKey::MediumError => Verdict::Fail(BlockError::Medium),
        // LOGICAL UNIT NOT SUPPORTED: the LUN was unmapped under us; another path may still have it.
        SenseKey::IllegalRequest if asc == 0x25 => Verdict::Fail(BlockError::Offline),
        SenseKey::DataProtect if (asc, ascq) == (0x27, 0x07) => Verdict::Fail(BlockError::NoSpace),
        SenseKey::HardwareError
        | SenseKey::IllegalRequest
        | SenseKey::DataProtect
        | SenseKey::BlankCheck
        | SenseKey::CopyAborted
        | SenseKey::VolumeOverflow
        | SenseKey::Miscompare => Verdict::Fail(BlockError::Target),
        SenseKey::VendorSpecific | SenseKey::Reserved => Verdict::Fail(BlockError::Io),
    }
}

fn judge_not_ready(asc: u8, ascq: u8) -> Verdict {
    match (asc, ascq) {
        // Becoming ready, format, rebuild, recalculation, operation, long write, self-test, ALUA transition, spin-up,
        // space allocation, start, sanitize, configuration, depopulation: each passes by itself.
        (NOT_READY, 0x01 | 0x04..=0x0a | 0x11 | 0x14 | 0x1a | 0x1b | 0x1d | 0x24 | 0x25) => {
            Verdict::RetryAfterBackoff(RetryReason::BecomingReady(ascq))
        }
        // Standby or unavailable target port: only another path helps.
        (NOT_READY, 0x0b | 0x0c) => Verdict::Fail(BlockError::Transport),
        _ => Verdict::Fail(BlockError::Io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SenseKey::{
        AbortedCommand, BlankCheck, Completed, DataProtect, HardwareError, IllegalRequest, MediumError, Miscompare,
        NoSense, NotReady, RecoveredError, UnitAttention, VendorSpecific,
    };
    use proptest::prelude::*;

    const DONE: Verdict = Verdict::Done { transferred: 512 };

    #[test]
    fn statuses() {
        let table = [
            (GOOD, DONE),
            (CONDITION_MET, DONE),
            (BUSY, Verdict::RetryAfterBackoff(RetryReason::Busy)),
            (TASK_SET_FULL, Verdict::RetryAfterBackoff(RetryReason::TaskSetFull)),
            (ACA_ACTIVE, Verdict::RetryAfterBackoff(RetryReason::AcaActive)),
            (TASK_ABORTED, Verdict::RetryNow(RetryReason::TaskAborted)),
            (RESERVATION_CONFLICT, Verdict::Fail(BlockError::ReservationConflict)),
            (CHECK_CONDITION, Verdict::Fail(BlockError::Io)),
            (0xff, Verdict::Fail(BlockError::Io)),
        ];
        for (status, verdict) in table {
            assert_eq!(judge(status, None, 512), verdict, "{status:#x}");
        }
        // Sense counts only with CHECK CONDITION.
        let stale = Sense::new(MediumError, 0x11, 0);
        assert_eq!(judge(GOOD, Some(&stale), 512), DONE);
    }

    #[test]
    fn sense_keys() {
        let table = [
            ((NoSense, 0, 0), DONE),
            ((RecoveredError, 0x17, 1), DONE),
            ((Completed, 0, 0), DONE),
            (
                (UnitAttention, 0x29, 7),
                Verdict::RetryNow(RetryReason::UnitAttention(0x29, 7)),
            ),
            (
                (NotReady, 4, 1),
                Verdict::RetryAfterBackoff(RetryReason::BecomingReady(1)),
            ),
            (
                (NotReady, 4, 0x0a),
                Verdict::RetryAfterBackoff(RetryReason::BecomingReady(0x0a)),
            ),
            ((NotReady, 4, 0x0b), Verdict::Fail(BlockError::Transport)),
            ((NotReady, 4, 3), Verdict::Fail(BlockError::Io)),
            ((NotReady, 0x3a, 0), Verdict::Fail(BlockError::Io)),
            ((MediumError, 0x11, 0), Verdict::Fail(BlockError::Medium)),
            ((HardwareError, 0x44, 0), Verdict::Fail(BlockError::Target)),
            ((IllegalRequest, 0x21, 0), Verdict::Fail(BlockError::Target)),
            ((IllegalRequest, 0x25, 0), Verdict::Fail(BlockError::Offline)),
            ((IllegalRequest, 0x10, 1), Verdict::Fail(BlockError::Protection)),
            ((AbortedCommand, 0x10, 3), Verdict::Fail(BlockError::Protection)),
            (
                (AbortedCommand, 0x4b, 0),
                Verdict::RetryNow(RetryReason::AbortedCommand(0x4b, 0)),
            ),
            ((DataProtect, 0x27, 0), Verdict::Fail(BlockError::Target)),
            ((DataProtect, 0x27, 7), Verdict::Fail(BlockError::NoSpace)),
            ((BlankCheck, 0, 0), Verdict::Fail(BlockError::Target)),
            ((Miscompare, 0x1d, 0), Verdict::Fail(BlockError::Target)),
            ((VendorSpecific, 0x80, 0), Verdict::Fail(BlockError::Io)),
        ];
        for ((key, asc, ascq), verdict) in table {
            let sense = Sense::new(key, asc, ascq);
            assert_eq!(judge(CHECK_CONDITION, Some(&sense), 512), verdict, "{sense}");
        }
        let deferred = Sense {
            deferred: true,
            ..Sense::new(MediumError, 0x0c, 0)
        };
        let again = Verdict::RetryNow(RetryReason::DeferredError(deferred));
        assert_eq!(judge(CHECK_CONDITION, Some(&deferred), 512), again);
        let unknown = Sense::new(IllegalRequest, 0x20, 0);
        let unsupported = Verdict::Fail(BlockError::Unsupported);
        assert_eq!(judge_deallocation(CHECK_CONDITION, Some(&unknown), 0), unsupported);
        let range = Sense::new(IllegalRequest, 0x21, 0);
        assert_eq!(
            judge_deallocation(CHECK_CONDITION, Some(&range), 0),
            Verdict::Fail(BlockError::Target)
        );
    }

    #[test]
    fn errnos() {
        let table = [
            (BlockError::Unsupported, 95),
            (BlockError::Timeout, 110),
            (BlockError::NoSpace, 28),
            (BlockError::Transport, 67),
            (BlockError::Target, 121),
            (BlockError::ReservationConflict, 52),
            (BlockError::Medium, 61),
            (BlockError::Protection, 84),
            (BlockError::Offline, 19),
            (BlockError::NoMemory, 12),
            (BlockError::Invalid, 22),
            (BlockError::Io, 5),
        ];
        for (error, errno) in table {
            assert_eq!(error.errno(), errno, "{error}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_judged(status: u8, deferred: bool, key: u8, asc: u8, ascq: u8, n: u32) {
            let sense = Sense { deferred, ..Sense::new(SenseKey::from_code(key), asc, ascq) };
            let verdict = judge(status, Some(&sense), n);
            if let Verdict::RetryNow(why) | Verdict::RetryAfterBackoff(why) = verdict {
                prop_assert!(!why.to_string().is_empty());
            }
            // EAGAIN and EBUSY never go up.
            if let Verdict::Fail(error) = verdict {
                prop_assert!(error.errno() != 11 && error.errno() != 16);
            }
        }
    }
}
