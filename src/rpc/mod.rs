//! The control socket: JSON-RPC 2.0, one message per line, over a Unix socket.

pub(crate) mod client;
mod connection;
mod message;
mod params;
pub(crate) mod protocol;
#[cfg(test)]
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod socket;
