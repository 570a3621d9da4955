//! The only module with `unsafe`: io_uring, mapped descriptors, mapped areas, signal masks.
//!
//! What it offers to the rest of the crate is safe to call in any order: [`DataPlane`] owns the ring, the queues'
//! descriptors and the areas, so a buffer named in a submitted entry outlives that entry.
//!
//! Numbers and layouts are the kernel's (`linux/ublk_cmd.h`, `linux/io_uring.h`).

mod area;
mod command;
mod copy;
mod descriptors;
mod foreign;
mod plane;
mod setup;
mod slots;
mod thread;
mod tickets;

pub use area::{MapAreaError, RetiredArea};
pub use setup::SetupError;

pub(crate) use area::Mapping;
pub(crate) use command::{ControlError, ControlRing};
pub(crate) use copy::Direction;
pub(crate) use descriptors::Descriptor;
pub(crate) use plane::{DataPlane, EnterError, Event, RangeError, Wait};
pub(crate) use setup::check as check_io_uring;
pub(crate) use slots::Slots;
pub(crate) use thread::{block_signals, duplicate, flush_buffers};
