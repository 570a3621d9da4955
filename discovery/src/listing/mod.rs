//! How results are shown: as people read them, as `add_target` lines, as JSON (the types are `Serialize`).
//!
//! Listing and lines of InfiniBand targets are those of `ibsrpdm` and `srp_daemon`, byte for byte.

mod human;
mod line;

pub use human::{ListingOptions, Logins, io_unit};
pub use line::{LINE_LIMIT, LineError, LineOptions, add_target_line};

#[cfg(test)]
mod tests;
