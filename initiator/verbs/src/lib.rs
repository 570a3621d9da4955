//! The real fabric of the SRP initiator: libibverbs and librdmacm.
//!
//! - [`cm`]: connections by address, without blocking; every event is an owned value.
//! - [`device`]: HCAs, what they can do, and what happens to them and their ports.
//! - [`memory`]: protection domains and registered arenas, one access direction each.
//! - [`completion_queue`], [`queue_pair`]: what a reactor polls, and what it polls for.
//! - [`fabric`]: [`VerbsFabric`], the data plane of one reactor.
//!
//! # Who owns what
//! A [`QueuePair`] holds its [`CompletionQueue`] and [`ProtectionDomain`], an [`Arena`] its protection domain,
//! and all of them the [`Device`], which this crate opens itself. Rust's ownership is thus the order of
//! destruction: queue pair, then completion queue, memory and protection domain, then the device. A [`CmId`] owns
//! none of these: queue pairs are *not* created on the id, so librdmacm never touches one behind our back (it would
//! move it between states inside `rdma_get_cm_event`, on whatever thread reads events), the target's answer is seen
//! before the connection is confirmed, and an id may die before or after its queue pair. Every destroy verb's result is checked; where it decides whether memory is safe it is returned, else logged.
//!
//! # Threads
//! Everything here is `Send`: control threads build channels and hand them to reactors. Shared through `Arc`, and
//! `Sync`: [`Device`], [`ProtectionDomain`], [`CompletionQueue`] (libibverbs locks inside), [`EventChannel`] (a lock
//! of ours around librdmacm, which has none for the fields of an id). Everything else has one owner at a time.

mod errno;

pub mod cm;
pub mod completion_queue;
pub mod device;
pub mod fabric;
pub mod memory;
pub mod queue_pair;

pub use cm::{Address, CmId, CmIdKey, ConnectParams, Event, EventChannel, RejectReason};
pub use completion_queue::CompletionQueue;
pub use device::{Device, Devices};
pub use fabric::{ChannelParts, IuRing, VerbsFabric};
pub use memory::{Access, Arena, MemoryWindow, ProtectionDomain};
pub use queue_pair::{QueuePair, QueuePairCaps};
