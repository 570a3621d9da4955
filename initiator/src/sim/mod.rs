//! A fabric and a target in one process: seeded, faulty, with a virtual clock.
//!
//! [`SimFabric`] implements [`crate::fabric::Fabric`] over byte vectors and connects to a model [`Target`] that
//! executes real CDBs on model disks. [`World`] adds engines that share sessions, a block client and the clock, and checks at every
//! step what must hold whatever the peer and the network do: the DMA rule, credits, data, order, time limits.
//! A run is a function of its seed: nothing here reads a clock, starts a thread or iterates over a hash map.

mod access;
mod agenda;
mod audit;
mod check;
mod client;
mod control;
mod data_plane;
mod death;
mod detach;
mod doorbell;
mod events;
mod fabric;
mod faults;
mod lease;
mod mailbox;
mod net;
mod odds;
mod order;
mod pattern;
mod queue_pair;
mod reactor;
mod requests;
mod run;
mod scenario;
mod shadow;
mod shrink;
mod spec;
mod tally;
mod target;
mod trace;
mod window;
mod world;

pub use check::Violation;
pub use client::Outcome;
pub use fabric::{Connect, Refusal, SimFabric};
pub use odds::{CreditPolicy, Function, Injection, Odds, Profile, Span};
pub use pattern::{fill_block, stamp_of};
pub use reactor::Seat;
pub use run::{Failure, run, run_seed};
pub use scenario::Scenario;
pub use shrink::shrink;
pub use spec::{SessionSpec, WorldSpec};
pub use tally::Tally;
pub use target::{DiskSpec, Target, TargetProfile};
pub use world::World;
