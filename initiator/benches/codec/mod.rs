//! The IUs whose writing and reading is measured.

use std::hint::black_box;

use srp_initiator::scsi::{Cdb, Lun};
use srp_initiator::wire::{Command, Data, FromTarget, MemoryDescriptor, Response, TaskAttribute};

/// A read's command.
pub(crate) fn command() -> Command<'static> {
    Command {
        tag: 7,
        lun: Lun::from_index(3),
        attribute: TaskAttribute::Simple,
        cdb: Cdb::read(4711, 8, false),
        data: Data::Read(MemoryDescriptor {
            address: 0x1000,
            key: 5,
            len: 4096,
        }),
    }
}

const SENSE: &[u8] = &[0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0];

/// The bytes of a response, with sense data or without.
pub(crate) fn response(sense: bool) -> Vec<u8> {
    let response = Response {
        tag: 7,
        request_limit_delta: 1,
        status: if sense { 2 } else { 0 },
        data_out_residual: None,
        data_in_residual: None,
        response_code: None,
        sense: sense.then_some(SENSE),
    };
    let mut slot = vec![0; 256];
    let len = response.emit(&mut slot).unwrap_or(0);
    slot.truncate(len);
    slot
}

pub(crate) fn write_command(command: &Command<'_>, slot: &mut [u8]) -> bool {
    black_box(command).emit(black_box(slot)).is_ok()
}

pub(crate) fn read_response(slot: &[u8]) -> bool {
    FromTarget::parse(black_box(slot)).is_ok()
}
