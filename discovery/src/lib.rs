//! Finds SRP targets: subnet administration knows the ports of an InfiniBand fabric (IBA chapter 15), their device
//! management agents know the targets (IBA chapter 16, SRP annex B).
//!
//! The layers, bottom up; each knows only those above it in this list:
//!
//! - [`umad`]: the edge to the kernel's MAD layer, the only place with `unsafe`;
//! - [`transport`]: the [`MadTransport`](transport::MadTransport) trait and the
//!   [`Exchange`](transport::Exchange) that matches answers to questions;
//! - [`mad`]: codecs of the datagrams; whatever the bytes, they answer with a value or an error;
//! - [`device_management`]: the questions put to one agent, as a state machine without I/O;
//! - [`targets`] and [`listing`]: what the answers mean, and how they are printed;
//! - [`rules`]: which of them are wanted, as srp_daemon's configuration says it;
//! - [`scan`]: which destinations are asked, and everything together;
//! - [`watch`]: which targets come and go.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[forbid(unsafe_code)]
pub mod device_management;
#[forbid(unsafe_code)]
pub mod listing;
#[forbid(unsafe_code)]
pub mod mad;
#[forbid(unsafe_code)]
pub mod neighbours;
#[forbid(unsafe_code)]
pub mod ports;
#[forbid(unsafe_code)]
pub mod rules;
#[forbid(unsafe_code)]
pub mod scan;
#[forbid(unsafe_code)]
pub mod targets;
#[forbid(unsafe_code)]
pub mod text;
#[forbid(unsafe_code)]
pub mod transport;
pub mod umad;
#[forbid(unsafe_code)]
pub mod watch;

#[cfg(any(test, feature = "model"))]
#[forbid(unsafe_code)]
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        clippy::unwrap_used,
        reason = "benchmarks use only a part of what tests do"
    )
)]
pub mod model;
