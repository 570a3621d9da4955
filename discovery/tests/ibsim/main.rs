//! Discovery against opensm, over the fabric that ibsim simulates: a real subnet manager and a real subnet
//! administration, unmodified, on a machine without InfiniBand.
//!
//! What is ours here is everything above [`MadTransport`](srp_discovery::transport::MadTransport): [`client::Client`]
//! takes the place of `/dev/infiniband/umadN` and speaks ibsim's own protocol. The simulation lacks three things that
//! hardware and kernel have, and they are supplied around it: ports never say that they have a device management
//! agent, and headers of tables are left empty, so a [`relay::Relay`] between opensm and ibsim sets the one and fills
//! in the other; there is no agent, so [`agent::AgentPort`] is one, on a port of the fabric. Tables longer than one MAD
//! are cut on opensm's side for good: fabrics here are small, large ones are modelled inside the crate.
//!
//! Needs the programs `ibsim` and `opensm` and the library `libumad2sim.so` (Debian: opensm, ibsim-utils), hence ignored
//! by default: `cargo test -p srp-discovery --features model --test ibsim -- --ignored`
#![allow(clippy::unwrap_used)]

mod agent;
mod client;
mod fabric;
mod relay;
mod scan;
mod watch;
