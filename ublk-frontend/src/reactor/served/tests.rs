use proptest::prelude::*;

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
    assert!(served.complete(0, Ok(512)).is_err(), "a part is not the whole");
    assert_eq!(served.complete(0, Ok(4096)), Ok(4096));
    assert_eq!(served.complete(0, Ok(4096)), Err(Misuse::NotHeld), "twice");
    assert_eq!(served.copy_ended(0, Ok(())), CopyStep::Ignore);
}

#[test]
fn a_read_copied_elsewhere_is_completed_once_and_whole() {
    let mut served = served(&[READ, WRITE]);
    assert!(served.complete_copied(1).is_err(), "what a WRITE did is told");
    assert_eq!(served.complete_copied(0), Ok(4096));
    assert_eq!(served.complete_copied(0), Err(Misuse::NotHeld), "twice");
    assert_eq!(served.complete(1, Ok(4096)), Ok(4096));
}

#[test]
fn a_read_is_committed_by_its_copy() {
    let mut served = served(&[READ]);
    assert!(served.complete(0, Ok(4096)).is_err(), "a READ needs data");
    assert!(served.complete_read(0, 8192).is_err());
    assert!(served.complete_read(0, 2048).is_err(), "a part is not the whole");
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

/// What a backend or the kernel may do next to one tag, sensible or not.
#[derive(Clone, Copy, Debug)]
enum Move {
    CopyIn(u32),
    CompleteRead(u32),
    Complete(Result<u32, i32>),
    CopyEnds(Result<(), i32>),
    Abort,
}

fn moves() -> impl Strategy<Value = Move> {
    let len = prop_oneof![Just(0u32), Just(512), Just(4096), Just(8192)];
    prop_oneof![
        len.clone().prop_map(Move::CopyIn),
        len.clone().prop_map(Move::CompleteRead),
        len.prop_map(|bytes| Move::Complete(Ok(bytes))),
        Just(Move::Complete(Err(libc::EIO))),
        Just(Move::CopyEnds(Ok(()))),
        Just(Move::CopyEnds(Err(libc::EFAULT))),
        Just(Move::Abort),
    ]
}

proptest! {
    /// Whatever the backend asks for: a request is committed once, and not while its data is being copied.
    #[test]
    fn commits_each_request_once(
        reads in prop::collection::vec(any::<bool>(), 1..8),
        moves in prop::collection::vec(moves(), 1..64),
    ) {
        let mut served = Served::new(DeviceKey(0), 0, 1, 4096);
        let mut requests = reads.into_iter();
        // The kernel's side: does it have the tag's command, is a copy under way, is a commit linked to that?
        let (mut kernel, mut copying, mut linked) = (true, false, false);
        for next in moves {
            if kernel && !copying {
                let Some(read) = requests.next() else { break };
                prop_assert_eq!(served.command_ended(0, 0), CommandStep::Request);
                served.take(0, if read { READ } else { WRITE }).unwrap();
                kernel = false;
            }
            match next {
                Move::CopyIn(len) => if served.copy_in(0, len).is_ok() {
                    prop_assert!(!kernel && !copying);
                    copying = true;
                },
                Move::CompleteRead(len) => if served.complete_read(0, len).is_ok() {
                    prop_assert!(!kernel && !copying && len == 4096);
                    (copying, linked) = (true, true);
                },
                Move::Complete(result) => if let Ok(code) = served.complete(0, result) {
                    prop_assert!(!kernel && !copying);
                    prop_assert!(code < 0 || code == 4096);
                    kernel = true;
                },
                Move::CopyEnds(result) => {
                    let step = served.copy_ended(0, result);
                    prop_assert_eq!(step, if copying { CopyStep::Tell } else { CopyStep::Ignore });
                    if copying && linked {
                        if let Err(errno) = result {
                            prop_assert_eq!(
                                served.command_ended(0, -libc::ECANCELED),
                                CommandStep::Commit(-errno)
                            );
                        }
                        kernel = true;
                    }
                    (copying, linked) = (false, false);
                }
                Move::Abort => if kernel && !copying {
                    prop_assert_eq!(served.command_ended(0, -libc::ENODEV), CommandStep::Ended);
                    prop_assert!(served.over());
                    break;
                },
            }
        }
    }
}
