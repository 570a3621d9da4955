//! Block devices served from userspace: ublk control commands and queues.
//!
//! * [`backend`]: what serves a device, a trait.
//! * [`reactor`]: the threads that move requests between the block layer and a backend.
//! * [`control`]: making, starting, stopping and removing devices; finding out what is there and who uses it.
//!
//! The order of a device's life: [`control::Device::add`]; [`reactor::ReactorHandle::add_queue`] for every queue;
//! [`control::Device::start`] when all are answered; later [`control::flush`], [`control::Device::stop`],
//! [`reactor::ReactorHandle::remove_device`] answered by every reactor, [`control::Device::delete`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic fails the test"))]

#[forbid(unsafe_code)]
pub mod backend;
#[forbid(unsafe_code)]
pub mod control;
#[forbid(unsafe_code)]
mod moment;
#[forbid(unsafe_code)]
pub mod reactor;
mod ring;

pub use moment::Moment;
pub use ring::{MapAreaError, RetiredArea, SetupError};
