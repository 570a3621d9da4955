//! The SRP initiator without I/O: wire formats, SCSI, sessions.
//!
//! Inputs are bytes, completions and the time; outputs are posts, completed requests and deadlines. The same
//! code runs over verbs, in the simulator and under the fuzzer.
#![forbid(unsafe_code)]

pub mod fabric;
pub mod scsi;
pub mod session;
pub mod sim;
pub mod time;
pub mod wire;
