//! Sessions: login, channels, commands in flight.
//!
//! A session is an I_T nexus: one or more channels to the same target port. They are dealt out to the reactors; each
//! reactor's [`Engine`] owns the ones that are its own.

mod buffer;
mod channel;
mod close;
mod control;
mod depth;
mod due;
mod engine;
mod event;
mod expiry;
mod failover;
mod figures;
mod handover;
mod key_map;
mod login;
mod mutation;
mod post;
mod queue;
mod receive;
mod request;
mod roster;
mod scattered;
mod settle;
mod short;
mod slots;
mod start;
mod task;
mod window;

pub use channel::{ChannelError, ChannelSetup, Fence};
pub use control::{TaskRequest, UnitFunction};
pub use engine::{Engine, Limits};
pub use event::{Event, Handle};
pub use figures::{ChannelState, DiskState, Holdings};
pub use handover::Handover;
pub use login::{ChannelSequence, Granted, LoginError, LoginParameters, reject_reason};
#[doc(hidden)]
pub use mutation::Mutation;
pub use request::{
    BlockOperation, BlockRequest, BlockResult, ControlReply, ControlRequest, LunKey, RequestId, SessionKey,
};
pub use roster::DiskSetup;
pub use slots::SlotPlan;
