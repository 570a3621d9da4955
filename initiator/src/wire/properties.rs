//! What holds for every IU: whatever is written is read as it was, and any bytes at all get an answer.

use proptest::prelude::*;
use srp_addressing::PortId;

use super::command::immediate_data;
use super::*;
use crate::scsi::{Cdb, Lun};

fn memory_descriptor() -> impl Strategy<Value = MemoryDescriptor> {
    any::<(u64, u32, u32)>().prop_map(|(address, key, len)| MemoryDescriptor { address, key, len })
}

fn residual() -> impl Strategy<Value = Option<Residual>> {
    prop_oneof![
        Just(None),
        any::<u32>().prop_map(|n| Some(Residual::Under(n))),
        any::<u32>().prop_map(|n| Some(Residual::Over(n))),
    ]
}

/// Bytes that begin like an IU, so that parsing gets past byte 0.
fn iu_like() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![0, 1, 2, 3, 0x41, 0x42, 0x80, 0x81, 0x82, 0xc0, 0xc1, 0xc2]);
    (opcode, prop::collection::vec(any::<u8>(), 0..400), any::<bool>()).prop_map(
        |(opcode, mut bytes, small_lengths)| {
            if let Some(first) = bytes.first_mut() {
                *first = opcode;
            }
            // Without this nearly every length is gigantic.
            if small_lengths && bytes.len() > 36 {
                bytes[28..31].fill(0);
                bytes[32..35].fill(0);
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn login_round_trips(
        tag: u64, len: u32, formats: u16, multi: bool, offset: Option<u16>,
        i: [u8; 16], t: [u8; 16], delta: i32, result in 0u8..4, immediate: bool, code: u32,
    ) {
        let multichannel = if multi { MultiChannel::Multi } else { MultiChannel::Single };
        let request = LoginRequest {
            tag, max_it_iu_len: len, buffer_formats: formats, multichannel,
            immediate_data_offset: offset, initiator_port: PortId(i), target_port: PortId(t),
        };
        prop_assert_eq!(LoginRequest::parse(&request.encode()), Ok(request));
        prop_assert_eq!(LoginRequest::parse_rdma_cm(&request.encode_rdma_cm()), Ok(request));
        let multichannel = [
            MultiChannelResult::NoneExisted, MultiChannelResult::Terminated,
            MultiChannelResult::Maintained, MultiChannelResult::Reserved,
        ][usize::from(result)];
        let response = LoginResponse {
            tag, request_limit_delta: delta, max_it_iu_len: len, max_ti_iu_len: code,
            buffer_formats: formats, multichannel, immediate_data: immediate,
        };
        prop_assert_eq!(LoginResponse::parse(&response.encode()), Ok(response));
        let reject = LoginReject { tag, reason: LoginRejectReason::from_code(code) };
        prop_assert_eq!(LoginReject::parse(&reject.encode()), Ok(reject));
    }

    #[test]
    fn commands_round_trip(
        tag: u64, lun: u64, cdb: [u8; 16], attribute in 0usize..4, kind in 0usize..6,
        buffer in memory_descriptor(), total: u32,
        list in prop::collection::vec(memory_descriptor(), 0..=255),
    ) {
        let inline = Descriptors::from(&list[..]);
        let command = Command {
            tag,
            lun: Lun(lun),
            attribute: [
                TaskAttribute::Simple, TaskAttribute::HeadOfQueue,
                TaskAttribute::Ordered, TaskAttribute::Aca,
            ][attribute],
            cdb: Cdb::from_bytes(cdb),
            data: [
                Data::None, Data::Read(buffer), Data::Write(buffer), Data::WriteImmediate { len: total },
                Data::ReadIndirect { table: buffer, total, inline },
                Data::WriteIndirect { table: buffer, total, inline },
            ][kind],
        };
        let mut slot = vec![0xa5; 8192];
        let len = command.emit(&mut slot).unwrap();
        prop_assert_eq!(Command::parse(&slot[..len]), Ok(command));
    }

    #[test]
    fn responses_round_trip(
        tag: u64, delta: i32, status: u8, out in residual(), inn in residual(), code: Option<u8>,
        sense in prop::option::of(prop::collection::vec(any::<u8>(), 0..252)), lun: u64,
    ) {
        let response = Response {
            tag, request_limit_delta: delta, status, data_out_residual: out,
            data_in_residual: inn, response_code: code, sense: sense.as_deref(),
        };
        let mut slot = [0xa5; 512];
        let len = response.emit(&mut slot).unwrap();
        prop_assert_eq!(Response::parse(&slot[..len]), Ok(response));

        let event = AsyncEvent { tag, delta, lun: Lun(lun), sense: sense.as_deref().unwrap_or(&[]) };
        let len = event.emit(&mut slot).unwrap();
        prop_assert_eq!(AsyncEvent::parse(&slot[..len]), Ok(event));
    }

    #[test]
    fn task_management_round_trips(tag: u64, lun: u64, task_tag: u64, function in 0usize..5) {
        let iu = TaskManagement {
            tag, lun: Lun(lun), task_tag,
            function: [
                TaskFunction::AbortTask, TaskFunction::AbortTaskSet, TaskFunction::ClearTaskSet,
                TaskFunction::LogicalUnitReset, TaskFunction::ClearAca,
            ][function],
        };
        let mut slot = [0xa5; 48];
        let len = iu.emit(&mut slot).unwrap();
        prop_assert_eq!(TaskManagement::parse(&slot[..len]), Ok(iu));
    }

    #[test]
    fn any_bytes_are_answered(iu in iu_like(), offset: usize, len: u32) {
        if let Ok(FromTarget::Response(response)) = FromTarget::parse(&iu) {
            prop_assert!(response.sense.is_none_or(|sense| sense.len() <= iu.len() - 36));
        }
        if let Ok(FromInitiator::Command(command)) = FromInitiator::parse(&iu) {
            let mut again = vec![0; 8192];
            let len = command.emit(&mut again).unwrap();
            prop_assert_eq!(Command::parse(&again[..len]), Ok(command));
        }
        let _ = LoginRequest::parse(&iu);
        let _ = LoginRequest::parse_rdma_cm(&iu);
        let _ = LoginResponse::parse(&iu);
        let _ = LoginReject::parse(&iu);
        let _ = Response::parse(&iu);
        let _ = Command::parse(&iu);
        let _ = TaskManagement::parse(&iu);
        let _ = CreditRequest::parse(&iu);
        let _ = CreditResponse::parse(&iu);
        let _ = AsyncEvent::parse(&iu);
        let _ = AsyncEventResponse::parse(&iu);
        let _ = InitiatorLogout::parse(&iu);
        let _ = TargetLogout::parse(&iu);
        let _ = immediate_data(&iu, offset, len);
    }
}
