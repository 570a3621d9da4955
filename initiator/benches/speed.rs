//! How fast the codecs, the engine and its arenas are.
//!
//! `cargo bench -p srp-initiator --bench speed`. For changes instructions say more (`--bench instructions`): time is noisy.

#[path = "../tests/bare/mod.rs"]
mod bare;
mod codec;

fn main() {
    divan::main();
}

mod iu {
    use divan::Bencher;

    use super::codec;

    #[divan::bench]
    fn command_written(bencher: Bencher<'_, '_>) {
        let (command, mut slot) = (codec::command(), [0; 256]);
        bencher.bench_local(|| codec::write_command(&command, &mut slot));
    }

    #[divan::bench(args = [false, true])]
    fn response_read(bencher: Bencher<'_, '_>, sense: bool) {
        let slot = codec::response(sense);
        bencher.bench_local(|| codec::read_response(&slot));
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
