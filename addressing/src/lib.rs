//! Names of SRP ports: GID, GUID, P_Key, service id, port ids, and the `add_target` text.
//!
//! Discovery prints these, the initiator parses them; both share the types so that a line printed by one is
//! always understood by the other.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod endpoint;
mod gid;
mod number;
mod port_id;
mod target;

pub use endpoint::{Endpoint, HostAddress, ParseEndpointError, Scope};
pub use gid::{Gid, Guid, ParseGidError, ParseGuidError};
pub use number::{PKey, ParseNumberError, ServiceId};
pub use port_id::{IoClass, PortId};
pub use target::{Exposure, Fence, Logout, ParseChoiceError, ParseTargetError, TargetOptions, Transport};
