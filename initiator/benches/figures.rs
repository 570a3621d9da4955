//! What an idle channel and an idle unit cost in memory, and how fast the codecs are.
//!
//! `cargo bench -p srp-initiator --bench figures`.

#[path = "../tests/bare/mod.rs"]
mod bare;

use std::hint::black_box;
use std::time::Instant;

use bare::Load;
use srp_initiator::fabric::Exposure;
use srp_initiator::scsi::{Cdb, Lun};
use srp_initiator::wire::{Command, Data, FromTarget, MemoryDescriptor, Response, TaskAttribute};

/// Codec calls timed.
const CALLS: u32 = 5_000_000;

fn bytes<T>(make: impl FnOnce() -> T) -> i64 {
    let mut made = None;
    let held = allocation_counter::measure(|| made = Some(make()));
    drop(made);
    held.bytes_current
}

fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..CALLS).for_each(|_| call());
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn main() {
    let (one, many) = (
        bytes(|| Load::new(1, Exposure::Pool)),
        bytes(|| Load::new(1025, Exposure::Pool)),
    );
    let fabric = bytes(bare::fabric);
    println!(
        "memory of an engine with a channel of 62 commands and arenas of 4 MiB: {} bytes",
        one - fabric
    );
    println!("memory of an idle unit: {} bytes", (many - one) / 1024);

    let command = Command {
        tag: 7,
        lun: Lun::from_index(3),
        attribute: TaskAttribute::Simple,
        cdb: Cdb::read(4711, 8, false),
        data: Data::Read(MemoryDescriptor {
            address: 0x1000,
            key: 5,
            len: 4096,
        }),
    };
    let mut slot = [0; 256];
    let emit = nanoseconds(|| {
        black_box(black_box(&command).emit(black_box(&mut slot)).is_ok());
    });
    let response = Response {
        tag: 7,
        request_limit_delta: 1,
        status: 2,
        data_out_residual: None,
        data_in_residual: None,
        response_code: None,
        sense: Some(&[0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]),
    };
    let len = response.emit(&mut slot).unwrap_or(0);
    let parse = nanoseconds(|| {
        black_box(FromTarget::parse(black_box(&slot[..len])).is_ok());
    });
    println!("SRP_CMD written: {emit:.1} ns, {:.0} million a second", 1000.0 / emit);
    println!(
        "SRP_RSP with sense parsed: {parse:.1} ns, {:.0} million a second",
        1000.0 / parse
    );
}
