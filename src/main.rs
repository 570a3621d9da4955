//! A userspace SRP initiator: remote SRP LUNs as `/dev/ublkbN`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod cli;
mod daemon;
mod probe;
mod rpc;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os()).into()
}
