//! Every IU against literal bytes at the standard's offsets, there and back.

use srp_addressing::{Guid, IoClass, PortId};

use super::command::immediate_data;
use super::*;
use crate::scsi::{Cdb, Lun};

/// Zeros of the given length with bytes placed at offsets.
fn bytes(len: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; len];
    for (at, field) in fields {
        out[*at..at + field.len()].copy_from_slice(field);
    }
    out
}

const TAG: u64 = 0x0102_0304_0506_0708;
const TAG_BYTES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];
const LUN: Lun = Lun(0x4001_0000_0000_0000);
const LUN_BYTES: &[u8] = &[0x40, 1, 0, 0, 0, 0, 0, 0];

fn login_request() -> LoginRequest {
    LoginRequest {
        tag: TAG,
        max_it_iu_len: 8260,
        buffer_formats: 6,
        multichannel: MultiChannel::Multi,
        immediate_data_offset: Some(68),
        initiator_port: PortId::new(0, Guid(0x1111_1111_1111_1111), IoClass::Rev16a),
        target_port: PortId::new(0x2222_2222_2222_2222, Guid(0x3333_3333_3333_3333), IoClass::Rev16a),
    }
}

#[test]
fn login_request_bytes() {
    let expected = bytes(
        64,
        &[
            (8, TAG_BYTES),
            (16, &[0, 0, 0x20, 0x44]),
            (24, &[0, 6, 0x81]),
            (28, &[0, 68]),
            (40, &[0x11; 8]),
            (48, &[0x22; 8]),
            (56, &[0x33; 8]),
        ],
    );
    let request = login_request();
    assert_eq!(request.encode().as_slice(), expected);
    assert_eq!(LoginRequest::parse(&expected), Ok(request));
    // The CM pads private data.
    assert_eq!(LoginRequest::parse(&[&expected[..], &[0; 28]].concat()), Ok(request));
    assert!(matches!(
        LoginRequest::parse(&expected[..63]),
        Err(WireError::Truncated { need: 64, have: 63, .. })
    ));
    let mut reserved_action = expected.clone();
    reserved_action[26] = 2;
    assert!(matches!(
        LoginRequest::parse(&reserved_action),
        Err(WireError::Invalid { value: 2, .. })
    ));
}

#[test]
fn login_request_rdma_cm_bytes() {
    let expected = bytes(
        56,
        &[
            (0, TAG_BYTES),
            (8, &[0, 6, 0x81, 0]),
            (12, &[0, 0, 0x20, 0x44]),
            (24, &[0x11; 8]),
            (32, &[0x22; 8]),
            (40, &[0x33; 8]),
            (48, &[0, 68]),
        ],
    );
    let request = login_request();
    assert_eq!(request.encode_rdma_cm().as_slice(), expected);
    assert_eq!(LoginRequest::parse_rdma_cm(&expected), Ok(request));
    assert!(matches!(
        LoginRequest::parse_rdma_cm(&expected[..55]),
        Err(WireError::Truncated { need: 56, .. })
    ));
    let mut other = expected.clone();
    other[11] = 2;
    assert!(matches!(
        LoginRequest::parse_rdma_cm(&other),
        Err(WireError::Opcode { found: 2, .. })
    ));
}

#[test]
fn login_response_bytes() {
    let expected = bytes(
        52,
        &[
            (0, &[0xc0]),
            (4, &[0, 0, 0, 128]),
            (8, TAG_BYTES),
            (16, &[0, 0, 0x20, 0x54]),
            (20, &[0, 0, 0x20, 0x44]),
            (24, &[0, 6, 0x81]),
        ],
    );
    let response = LoginResponse {
        tag: TAG,
        request_limit_delta: 128,
        max_it_iu_len: 8276,
        max_ti_iu_len: 8260,
        buffer_formats: 6,
        multichannel: MultiChannelResult::Terminated,
        immediate_data: true,
    };
    assert_eq!(response.encode().as_slice(), expected);
    assert_eq!(LoginResponse::parse(&expected), Ok(response));
    let mut dirty = expected.clone();
    dirty[1..4].fill(0xff);
    dirty[27..52].fill(0xff);
    dirty.resize(196, 0xff);
    assert_eq!(LoginResponse::parse(&dirty), Ok(response));
    dirty[26] = 0xff;
    assert_eq!(
        LoginResponse::parse(&dirty),
        Ok(LoginResponse {
            multichannel: MultiChannelResult::Reserved,
            ..response
        })
    );
    assert!(LoginResponse::parse(&expected[..51]).is_err());
}

#[test]
fn login_reject_bytes() {
    let expected = bytes(32, &[(0, &[0xc2]), (4, &[0, 1, 0, 3]), (8, TAG_BYTES), (24, &[0, 6])]);
    let reject = LoginReject {
        tag: TAG,
        reason: LoginRejectReason::NoNexus,
    };
    assert_eq!(reject.encode().as_slice(), expected);
    assert_eq!(LoginReject::parse(&expected), Ok(reject));
    for code in [0x0001_0000, 0x0001_0001, 0x0001_0004, 0x0001_0005, 0x0001_0006, 3] {
        let reason = LoginRejectReason::from_code(code);
        assert_eq!(reason.code(), code);
        assert!(!reason.to_string().is_empty() && !reason.remedy().is_empty());
    }
    assert_eq!(LoginRejectReason::Other(3).to_string(), "unknown reason 0x00000003");
}

const READ_10: [u8; 16] = [0x28, 0, 0, 0, 0x10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
const BUFFER: MemoryDescriptor = MemoryDescriptor {
    address: 0xaabb_ccdd_1122_3344,
    key: 0x5566_7788,
    len: 4096,
};
const BUFFER_BYTES: &[u8] = &[
    0xaa, 0xbb, 0xcc, 0xdd, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0x10, 0,
];

fn command(data: Data<'_>) -> Command<'_> {
    Command {
        tag: TAG,
        lun: LUN,
        attribute: TaskAttribute::Ordered,
        cdb: Cdb::from_bytes(READ_10),
        data,
    }
}

#[test]
fn command_bytes() {
    let list = [BUFFER; 2];
    let table = MemoryDescriptor { len: 32, ..BUFFER };
    let inline = Descriptors::from(&list[..]);
    let table_bytes = [&BUFFER_BYTES[..12], &[0, 0, 0, 32]].concat();
    let indirect = [&table_bytes[..], &[0, 0, 0x20, 0], BUFFER_BYTES, BUFFER_BYTES].concat();
    let immediate = [&[0, 0, 2, 0][..], &[0; 16]].concat();
    let cases: [(Data<'_>, [u8; 3], &[u8]); 6] = [
        (Data::None, [0, 0, 0], &[]),
        (Data::Read(BUFFER), [0x01, 0, 0], BUFFER_BYTES),
        (Data::Write(BUFFER), [0x10, 0, 0], BUFFER_BYTES),
        (Data::WriteImmediate { len: 512 }, [0x30, 0, 0], &immediate),
        (
            Data::ReadIndirect {
                table,
                total: 8192,
                inline,
            },
            [0x02, 0, 2],
            &indirect,
        ),
        (
            Data::WriteIndirect {
                table,
                total: 8192,
                inline,
            },
            [0x20, 2, 0],
            &indirect,
        ),
    ];
    for (data, formats, descriptors) in cases {
        let fixed = bytes(
            48,
            &[
                (0, &[2]),
                (5, &formats),
                (8, TAG_BYTES),
                (20, LUN_BYTES),
                (29, &[2]),
                (32, &READ_10),
            ],
        );
        let expected = [&fixed[..], descriptors].concat();
        let command = command(data);
        // What the slot held before must not be sent.
        let mut slot = [0xff; 256];
        let len = command.emit(&mut slot).unwrap();
        assert_eq!(&slot[..len], expected, "{data:?}");
        assert_eq!(command.emitted_len(), len);
        assert_eq!(FromInitiator::parse(&slot[..len]), Ok(FromInitiator::Command(command)));
        assert!(matches!(
            command.emit(&mut slot[..len - 1]),
            Err(WireError::SlotTooShort { need, .. }) if need == len
        ));
        if !descriptors.is_empty() {
            let cut = if matches!(data, Data::WriteImmediate { .. }) {
                51
            } else {
                len - 1
            };
            assert!(matches!(
                Command::parse(&expected[..cut]),
                Err(WireError::Truncated { .. })
            ));
        }
    }
}

#[test]
fn command_with_additional_cdb() {
    let mut iu = bytes(
        48 + 8 + 16,
        &[(0, &[2]), (5, &[1]), (31, &[8 | 3]), (32, &READ_10), (56, BUFFER_BYTES)],
    );
    assert_eq!(Command::parse(&iu).unwrap().data, Data::Read(BUFFER));
    iu[31] = 0xfc;
    assert!(matches!(
        Command::parse(&iu),
        Err(WireError::Truncated {
            need: 252,
            have: 24,
            ..
        })
    ));
}

#[test]
fn command_refusals() {
    let list = [BUFFER; 256];
    let many = command(Data::ReadIndirect {
        table: BUFFER,
        total: 0,
        inline: Descriptors::from(&list[..]),
    });
    assert!(matches!(
        many.emit(&mut [0; 8192]),
        Err(WireError::Invalid { value: 256, .. })
    ));
    for formats in [0x11, 0x03, 0x40, 0x05, 0x22] {
        let iu = bytes(128, &[(0, &[2]), (5, &[formats])]);
        assert!(
            matches!(Command::parse(&iu), Err(WireError::Invalid { .. })),
            "{formats:#x}"
        );
    }
    assert!(Command::parse(&bytes(48, &[(0, &[2]), (29, &[3])])).is_err());
    let iu = [0; 100];
    assert_eq!(immediate_data(&iu, 68, 32).unwrap().len(), 32);
    assert!(immediate_data(&iu, 68, 33).is_err());
    assert!(immediate_data(&iu, usize::MAX, u32::MAX).is_err());
}

#[test]
fn response_bytes() {
    let sense = [0x70, 0, 6];
    let expected = bytes(
        43,
        &[
            (0, &[0xc1]),
            (4, &[0xff, 0xff, 0xff, 0xfe]),
            (8, TAG_BYTES),
            (18, &[0x01 | 0x02 | 0x04 | 0x20, 2]),
            (20, &[0, 0, 0, 9]),
            (24, &[0, 0, 2, 0]),
            (28, &[0, 0, 0, 3]),
            (32, &[0, 0, 0, 4]),
            (36, &[0, 0, 0, 5]),
            (40, &sense),
        ],
    );
    let response = Response {
        tag: TAG,
        request_limit_delta: -2,
        status: 2,
        data_out_residual: Some(Residual::Over(9)),
        data_in_residual: Some(Residual::Under(512)),
        response_code: Some(5),
        sense: Some(&sense),
    };
    let mut slot = [0xff; 64];
    assert_eq!(response.emit(&mut slot), Ok(43));
    assert_eq!(&slot[..43], expected);
    assert_eq!(FromTarget::parse(&expected), Ok(FromTarget::Response(response)));
    for cut in 0..43 {
        assert!(
            matches!(Response::parse(&expected[..cut]), Err(WireError::Truncated { .. })),
            "{cut}"
        );
    }
    for (flags, len) in [(0x0c, 43), (0x30, 43)] {
        let mut iu = bytes(len, &[(0, &[0xc1]), (18, &[flags])]);
        assert!(matches!(Response::parse(&iu), Err(WireError::Invalid { .. })));
        // Lengths without their flags are not looked at.
        iu[18] = 0;
        iu[28..36].fill(0xff);
        let parsed = Response::parse(&iu).unwrap();
        assert_eq!((parsed.sense, parsed.response_code), (None, None));
    }
    let huge = bytes(64, &[(0, &[0xc1]), (18, &[3]), (28, &[0xff; 8])]);
    assert!(matches!(Response::parse(&huge), Err(WireError::Truncated { .. })));
    let short_code = bytes(39, &[(0, &[0xc1]), (18, &[1]), (32, &[0, 0, 0, 3])]);
    assert_eq!(Response::parse(&short_code).unwrap().response_code, None);
}

#[test]
fn task_management_bytes() {
    let expected = bytes(
        48,
        &[(0, &[1]), (8, TAG_BYTES), (20, LUN_BYTES), (30, &[8]), (32, &[0xff; 8])],
    );
    let function = TaskFunction::LogicalUnitReset;
    let iu = TaskManagement {
        tag: TAG,
        lun: LUN,
        function,
        task_tag: u64::MAX,
    };
    let mut slot = [0xff; 48];
    assert_eq!(iu.emit(&mut slot), Ok(48));
    assert_eq!(&slot[..], expected);
    assert_eq!(FromInitiator::parse(&expected), Ok(FromInitiator::TaskManagement(iu)));
    assert!(matches!(iu.emit(&mut slot[..47]), Err(WireError::SlotTooShort { .. })));
    let mut unknown = expected.clone();
    unknown[30] = 3;
    assert!(matches!(
        TaskManagement::parse(&unknown),
        Err(WireError::Invalid { value: 3, .. })
    ));
    for code in [Some(0), Some(2), Some(4), Some(5), Some(9), None] {
        assert_eq!(TaskResponse::from_code(code).code(), code);
    }
}

#[test]
fn short_ius_bytes() {
    let mut slot = [0xff; 64];
    let iu = |op: u8, argument: [u8; 4]| bytes(16, &[(0, &[op]), (4, &argument), (8, TAG_BYTES)]);
    let check = |len: Result<usize, WireError>, slot: &[u8], expected: &[u8]| {
        assert_eq!(len, Ok(expected.len()));
        assert_eq!(&slot[..expected.len()], expected);
    };

    let credit = CreditRequest { tag: TAG, delta: -1 };
    let expected = iu(0x81, [0xff; 4]);
    check(credit.emit(&mut slot), &slot, &expected);
    assert_eq!(FromTarget::parse(&expected), Ok(FromTarget::CreditRequest(credit)));

    let answer = CreditResponse { tag: TAG };
    let expected = iu(0x41, [0; 4]);
    check(answer.emit(&mut slot), &slot, &expected);
    assert_eq!(
        FromInitiator::parse(&expected),
        Ok(FromInitiator::CreditResponse(answer))
    );

    let answer = AsyncEventResponse { tag: TAG };
    let expected = iu(0x42, [0; 4]);
    check(answer.emit(&mut slot), &slot, &expected);
    assert_eq!(
        FromInitiator::parse(&expected),
        Ok(FromInitiator::AsyncEventResponse(answer))
    );

    let logout = InitiatorLogout { tag: TAG };
    let expected = iu(0x03, [0; 4]);
    check(logout.emit(&mut slot), &slot, &expected);
    assert_eq!(FromInitiator::parse(&expected), Ok(FromInitiator::Logout(logout)));

    let logout = TargetLogout {
        tag: TAG,
        reason: LogoutReason(4),
    };
    let expected = iu(0x80, [0, 0, 0, 4]);
    check(logout.emit(&mut slot), &slot, &expected);
    assert_eq!(FromTarget::parse(&expected), Ok(FromTarget::Logout(logout)));
    assert_eq!(LogoutReason(77).to_string(), "unknown reason 0x4d");

    let event = AsyncEvent {
        tag: TAG,
        delta: 1,
        lun: LUN,
        sense: &[0x70, 0],
    };
    let expected = bytes(
        38,
        &[
            (0, &[0x82]),
            (4, &[0, 0, 0, 1]),
            (8, TAG_BYTES),
            (20, LUN_BYTES),
            (28, &[0, 0, 0, 2]),
            (36, &[0x70, 0]),
        ],
    );
    check(event.emit(&mut slot), &slot, &expected);
    assert_eq!(FromTarget::parse(&expected), Ok(FromTarget::AsyncEvent(event)));
    assert!(AsyncEvent::parse(&expected[..37]).is_err());
}

#[test]
fn foreign_opcodes() {
    assert_eq!(FromTarget::parse(&[0x02; 64]), Err(WireError::UnknownOpcode(0x02)));
    assert_eq!(FromInitiator::parse(&[0xc1; 64]), Err(WireError::UnknownOpcode(0xc1)));
    assert!(FromTarget::parse(&[]).is_err() && FromInitiator::parse(&[]).is_err());
}
