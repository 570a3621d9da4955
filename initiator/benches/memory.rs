//! What an idle channel and an idle unit cost in memory.
//!
//! `cargo bench -p srp-initiator --bench memory`.

#[path = "../tests/bare/mod.rs"]
mod bare;

use bare::Load;
use srp_initiator::fabric::Exposure;

fn bytes<T>(make: impl FnOnce() -> T) -> i64 {
    let mut made = None;
    let held = allocation_counter::measure(|| made = Some(make()));
    drop(made);
    held.bytes_current
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
}
