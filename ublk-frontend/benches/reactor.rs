//! How long a reactor takes for a pass: a message is answered by one, awake or asleep.
//!
//! `cargo bench -p ublk-frontend`. What requests cost takes a block device: lab/bench has them.

use std::time::Duration;

use divan::Bencher;
use ublk_frontend::Moment;
use ublk_frontend::backend::{Action, Backend, BlockRequest, Pumped, RequestId};
use ublk_frontend::reactor::{Reactor, ReactorConfig, ReactorHandle, Reply, wait};

fn main() {
    divan::main();
}

/// Answers messages.
struct Echo;

impl Backend for Echo {
    type Message = Reply<()>;

    fn message(&mut self, message: Reply<()>, _now: Moment, _out: &mut Vec<Action>) {
        message(());
    }

    fn submit(&mut self, _request: BlockRequest, _now: Moment) {}

    fn copied(&mut self, _id: RequestId, _result: Result<(), i32>, _now: Moment) {}

    fn copied_foreign(&mut self, _token: u64, _result: Result<(), i32>, _now: Moment) {}

    fn ready(&mut self, _token: u64, _now: Moment) {}

    fn send(&mut self, _: Moment, _: &mut Vec<Action>) {}

    fn pump(&mut self, _now: Moment, _out: &mut Vec<Action>) -> Pumped {
        Pumped::default()
    }

    fn prepare_sleep(&mut self) -> bool {
        true
    }
}

/// A reactor that looks for work for so long, as long as `work` runs.
fn with_reactor(spin: Duration, work: impl FnOnce(&ReactorHandle<Reply<()>>)) {
    let config = ReactorConfig {
        spin,
        ..ReactorConfig::new(0)
    };
    let reactor = Reactor::spawn(config, || Ok(Echo)).expect("a reactor: does this kernel have io_uring?");
    work(reactor.handle());
    reactor.handle().stop().expect("the reactor runs");
    reactor.join().expect("it ends well");
}

#[divan::bench]
fn message_to_one_that_looks(bencher: Bencher<'_, '_>) {
    with_reactor(Duration::from_secs(1), |handle| {
        bencher.bench_local(|| wait(|reply| handle.message(reply)).expect("an answer"));
    });
}

#[divan::bench]
fn message_to_one_that_sleeps(bencher: Bencher<'_, '_>) {
    with_reactor(Duration::ZERO, |handle| {
        bencher.bench_local(|| wait(|reply| handle.message(reply)).expect("an answer"));
    });
}
