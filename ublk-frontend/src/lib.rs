//! Block devices served from userspace: ublk control commands and queues.

pub mod backend;
