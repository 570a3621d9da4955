use super::*;
use crate::scsi::outcome::{BUSY, CHECK_CONDITION, GOOD, TASK_SET_FULL};

const LEN: u32 = 4096;

fn judged(status: u8, residual: Option<u32>, overflow: bool, refused: Option<u8>) -> Verdict {
    let answer = Answer {
        status,
        underflow: residual.unwrap_or(0),
        overflow,
        refused,
        ..Answer::good()
    };
    judge(&answer, LEN)
}

/// Whatever a target says of the data of a command, what is passed on is never longer than its buffer.
#[test]
fn answers_are_believed_as_far_as_they_can_be_true() {
    let done = |transferred| Verdict::Done { transferred };
    let failed = Verdict::Fail(BlockError::Io);
    let table = [
        ("all of it", (GOOD, None, false, None), done(LEN)),
        ("nothing is missing", (GOOD, Some(0), false, None), done(LEN)),
        ("a byte is missing", (GOOD, Some(1), false, None), done(LEN - 1)),
        ("all is missing", (GOOD, Some(LEN), false, None), done(0)),
        (
            "more is missing than there is",
            (GOOD, Some(LEN + 1), false, None),
            failed,
        ),
        ("the most that can be said", (GOOD, Some(u32::MAX), false, None), failed),
        ("there was more", (GOOD, None, true, None), failed),
        ("there was more, and the unit is busy", (BUSY, None, true, None), failed),
        (
            "more is missing, and the unit is full",
            (TASK_SET_FULL, Some(LEN + 1), false, None),
            failed,
        ),
        (
            "there was more, and no sense",
            (CHECK_CONDITION, None, true, None),
            failed,
        ),
        ("it was refused", (GOOD, None, false, Some(2)), failed),
        (
            "it was refused, and there was more",
            (GOOD, None, true, Some(1)),
            failed,
        ),
    ];
    for (what, (status, residual, overflow, refused), expected) in table {
        assert_eq!(judged(status, residual, overflow, refused), expected, "{what}");
    }
}

#[test]
fn a_command_without_data_has_none_to_miss() {
    let missing = Answer {
        underflow: 1,
        ..Answer::good()
    };
    assert_eq!(judge(&missing, 0), Verdict::Fail(BlockError::Io));
    assert_eq!(judge(&Answer::good(), 0), Verdict::Done { transferred: 0 });
}

#[test]
fn what_is_refused_for_now_is_sent_again() {
    for status in [BUSY, TASK_SET_FULL] {
        assert!(matches!(
            judged(status, None, false, None),
            Verdict::RetryAfterBackoff(_)
        ));
    }
}
