//! Information units, in both directions, and the private data of logins.

use srp_addressing::PortId;
use srp_initiator::session::{LoginParameters, reject_reason};
use srp_initiator::wire::command::immediate_data;
use srp_initiator::wire::{
    Data, FromInitiator, FromTarget, IMMEDIATE_DATA_OFFSET, LoginReject, LoginRequest, LoginResponse, WireError,
};

/// Room for any IU that is written out again.
const ROOM: usize = 1 << 16;

/// What a parsed IU says is the same when it is written and parsed again. Only what is parsed counts: reserved
/// fields and what stands behind the IU's end are not kept.
fn written(emit: impl Fn(&mut [u8]) -> Result<usize, WireError>) -> Vec<u8> {
    let mut buffer = vec![0x5a; ROOM];
    match emit(&mut buffer) {
        Ok(len) => buffer.truncate(len),
        Err(error) => panic!("an IU that was parsed cannot be written: {error}"),
    }
    buffer
}

pub(crate) fn from_target(input: &[u8]) {
    let Ok(parsed) = FromTarget::parse(input) else { return };
    let again = match parsed {
        FromTarget::Response(response) => {
            // Sense and response data lie in the IU, so this cannot be longer than the input, but for 4 bytes of
            // response data that were fewer.
            assert!(response.sense.is_none_or(|sense| sense.len() <= input.len()));
            written(|buffer| response.emit(buffer))
        }
        FromTarget::CreditRequest(request) => written(|buffer| request.emit(buffer)),
        FromTarget::AsyncEvent(event) => written(|buffer| event.emit(buffer)),
        FromTarget::Logout(logout) => written(|buffer| logout.emit(buffer)),
    };
    assert_eq!(FromTarget::parse(&again), Ok(parsed));
}

pub(crate) fn from_initiator(input: &[u8]) {
    let Ok(parsed) = FromInitiator::parse(input) else {
        return;
    };
    let again = match parsed {
        FromInitiator::Command(command) => {
            if let Data::WriteImmediate { len } = command.data {
                let _ = immediate_data(input, IMMEDIATE_DATA_OFFSET, len);
            }
            let _ = command.cdb.operation();
            written(|buffer| command.emit(buffer))
        }
        FromInitiator::TaskManagement(task) => written(|buffer| task.emit(buffer)),
        FromInitiator::Logout(logout) => written(|buffer| logout.emit(buffer)),
        FromInitiator::CreditResponse(response) => written(|buffer| response.emit(buffer)),
        FromInitiator::AsyncEventResponse(response) => written(|buffer| response.emit(buffer)),
    };
    assert_eq!(FromInitiator::parse(&again), Ok(parsed));
}

pub(crate) fn login_request(input: &[u8]) {
    if let Ok(request) = LoginRequest::parse(input) {
        assert_eq!(LoginRequest::parse(&request.encode()), Ok(request));
    }
    if let Ok(request) = LoginRequest::parse_rdma_cm(input) {
        assert_eq!(LoginRequest::parse_rdma_cm(&request.encode_rdma_cm()), Ok(request));
    }
}

pub(crate) fn login_response(input: &[u8]) {
    if let Ok(response) = LoginResponse::parse(input) {
        assert_eq!(LoginResponse::parse(&response.encode()), Ok(response));
    }
    if let Ok(reject) = LoginReject::parse(input) {
        assert_eq!(LoginReject::parse(&reject.encode()), Ok(reject));
    }
    let _ = reject_reason(input).map(|reason| reason.to_string());
    let parameters = LoginParameters {
        initiator_port: PortId([1; 16]),
        target_port: PortId([2; 16]),
        descriptors: 12,
        max_it_iu_len: None,
        immediate_data: 8192,
    };
    if let Ok(granted) = parameters.accept(input) {
        assert!(granted.request_limit >= 2);
        assert!((64..=parameters.requested_iu_len()).contains(&granted.max_it_iu_len));
        assert!(granted.max_ti_iu_len <= 1 << 16, "receive buffers are bounded");
        let longest = granted.max_it_iu_len.saturating_sub(IMMEDIATE_DATA_OFFSET as u32);
        assert!(granted.immediate_data <= longest);
    }
}
