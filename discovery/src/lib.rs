//! Finds SRP targets by asking the device management agents of a fabric (IBA chapter 16, SRP annex B).
//!
//! The layers, bottom up; each knows only those above it in this list:
//!
//! - [`umad`]: the edge to the kernel's MAD layer, the only place with `unsafe`;
//! - [`transport`]: the [`MadTransport`](transport::MadTransport) trait and the
//!   [`Exchange`](transport::Exchange) that matches answers to questions;
//! - [`mad`]: codecs of the datagrams; whatever the bytes, they answer with a value or an error;
//! - [`device_management`]: the questions put to one agent, as a state machine without I/O;
//! - [`targets`] and [`listing`]: what the answers mean, and how they are printed;
//! - [`scan`]: which destinations are asked, and everything together.
//!
//! Subnet administration (InfiniBand path and node queries) and traps are further users of the same
//! transport and exchange; they are not here yet.
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
pub mod scan;
#[forbid(unsafe_code)]
pub mod targets;
#[forbid(unsafe_code)]
pub mod text;
#[forbid(unsafe_code)]
pub mod transport;
pub mod umad;

#[cfg(test)]
#[forbid(unsafe_code)]
mod model;
