//! How fast the codecs, the engine and its arenas are.
//!
//! `cargo bench -p srp-initiator --bench speed`. For changes instructions say more (`--bench instructions`): time is noisy.

#[path = "../tests/bare/mod.rs"]
mod bare;

fn main() {
    divan::main();
}

mod codec {
    use divan::{Bencher, black_box};
    use srp_initiator::scsi::{Cdb, Lun};
    use srp_initiator::wire::{Command, Data, FromTarget, MemoryDescriptor, Response, TaskAttribute};

    #[divan::bench]
    fn command_written(bencher: Bencher<'_, '_>) {
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
        bencher.bench_local(|| black_box(&command).emit(black_box(&mut slot)).is_ok());
    }

    #[divan::bench]
    fn response_with_sense_read(bencher: Bencher<'_, '_>) {
        let response = Response {
            tag: 7,
            request_limit_delta: 1,
            status: 2,
            data_out_residual: None,
            data_in_residual: None,
            response_code: None,
            sense: Some(&[0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]),
        };
        let mut slot = [0; 256];
        let len = response.emit(&mut slot).unwrap_or(0);
        bencher.bench_local(|| FromTarget::parse(black_box(&slot[..len])).is_ok());
    }
}

mod engine {
    use divan::Bencher;
    use divan::counter::ItemsCount;
    use srp_initiator::fabric::Exposure;

    use super::bare::Load;

    /// Commands of an iteration.
    const COMMANDS: u64 = 1024;

    /// Commands from submission to completion, so many at once.
    fn commands(bencher: Bencher<'_, '_>, exposure: Exposure, depth: u64, blocks: u32, write: bool) {
        let mut load = Load::new(1, exposure).with_blocks(blocks);
        let bencher = bencher.counter(ItemsCount::new(COMMANDS));
        bencher.bench_local(|| assert_eq!(load.run(COMMANDS, depth, write), COMMANDS));
    }

    #[divan::bench(args = [1, 32])]
    fn read(bencher: Bencher<'_, '_>, depth: u64) {
        commands(bencher, Exposure::Pool, depth, 8, false);
    }

    #[divan::bench(args = [1, 32])]
    fn write(bencher: Bencher<'_, '_>, depth: u64) {
        commands(bencher, Exposure::Pool, depth, 8, true);
    }

    #[divan::bench(args = [1, 32])]
    fn read_with_window(bencher: Bencher<'_, '_>, depth: u64) {
        commands(bencher, Exposure::Window, depth, 8, false);
    }

    /// What differs is what the arena does: blocks of so many KiB, eight at once.
    #[divan::bench(args = [4, 64, 256, 512])]
    fn read_of_kib(bencher: Bencher<'_, '_>, kib: u32) {
        commands(bencher, Exposure::Pool, 8, kib * 2, false);
    }

    #[divan::bench]
    fn pass_with_nothing_to_do(bencher: Bencher<'_, '_>) {
        let mut load = Load::new(1, Exposure::Pool);
        let bencher = bencher.counter(ItemsCount::new(COMMANDS));
        bencher.bench_local(|| load.idle(COMMANDS));
    }
}
