//! The `add_target` text: how to reach one SRP target and how to log in to it.

mod choice;
mod error;
mod key;
mod parse;

#[cfg(test)]
mod tests;

use std::fmt;

pub use choice::{Exposure, Fence, Logout, ParseChoiceError};
pub use error::ParseTargetError;

use crate::{Endpoint, Gid, Guid, IoClass, PKey, PortId, ServiceId};

/// One target, as written to the kernel's `add_target` and printed by `ibsrpdm -c`.
///
/// [`FromStr`](std::str::FromStr) takes every key of ib_srp, and some of our own: `key=value` separated by commas or
/// newlines, empty parts skipped, the last of several wins. `None` means not given, so that the default is the user's
/// business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetOptions {
    /// `id_ext`: the extension half of the target port id.
    pub id_ext: u64,
    /// `ioc_guid`: the GUID half of the target port id.
    pub ioc_guid: Guid,
    /// How the connection is made.
    pub transport: Transport,
    /// `io_class`: the port id layout.
    pub io_class: IoClass,
    /// `initiator_ext`: the extension half of the initiator port id; not given it is 0.
    pub initiator_ext: Option<u64>,
    /// `max_sect`: longest request, in units of 512 bytes.
    pub max_sect: Option<u32>,
    /// `max_cmd_per_lun`: commands in flight per logical unit, at least 1.
    pub max_cmd_per_lun: Option<u32>,
    /// `target_can_queue`: commands in flight per target, at least 1.
    pub target_can_queue: Option<u32>,
    /// `queue_size`: commands in flight per channel, at least 1.
    pub queue_size: Option<u32>,
    /// `tl_retry_count`: transport retries of the queue pair, 2 to 7.
    pub tl_retry_count: Option<u8>,
    /// `max_it_iu_size`: longest IU to ask for, in bytes; 0 in the text is `None`.
    pub max_it_iu_size: Option<u32>,
    /// `ch_count`: channels, at least 1.
    pub ch_count: Option<u32>,
    /// `cmd_sg_entries`: descriptors in a command IU, 1 to 255: the pieces that the data of a request may be in.
    pub cmd_sg_entries: Option<u8>,
    /// `allow_ext_sg`: descriptors outside the command IU. Of no use outside the kernel.
    pub allow_ext_sg: Option<bool>,
    /// `sg_tablesize`: scatter entries per command, 1 to 2048. Of no use outside the kernel.
    pub sg_tablesize: Option<u16>,
    /// `comp_vector`: without effect in the kernel too, since channels choose their own.
    pub comp_vector: Option<u32>,
    /// `exposure`: how the target reaches our memory. Not of the kernel.
    pub exposure: Option<Exposure>,
    /// `fence`: what comes before a write of unknown fate is sent again. Not of the kernel.
    pub fence: Option<Fence>,
    /// `logout`: how a session ends. Not of the kernel.
    pub logout: Option<Logout>,
}

/// How the connection to a target is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The InfiniBand CM, by port GID and service id.
    InfiniBand {
        /// `dgid`: the target port.
        dgid: Gid,
        /// `pkey`: the partition of the path.
        pkey: PKey,
        /// `service_id`: the listener.
        service_id: ServiceId,
    },
    /// The RDMA/CM, by IP address.
    RdmaCm {
        /// `dest`: address and port of the target.
        dest: Endpoint,
        /// `src`: local address, and port unless 0.
        src: Option<Endpoint>,
    },
}

impl TargetOptions {
    /// A target with nothing given but its names.
    #[must_use]
    pub const fn new(id_ext: u64, ioc_guid: Guid, transport: Transport) -> Self {
        Self {
            id_ext,
            ioc_guid,
            transport,
            io_class: IoClass::Rev16a,
            initiator_ext: None,
            max_sect: None,
            max_cmd_per_lun: None,
            target_can_queue: None,
            queue_size: None,
            tl_retry_count: None,
            max_it_iu_size: None,
            ch_count: None,
            cmd_sg_entries: None,
            allow_ext_sg: None,
            sg_tablesize: None,
            comp_vector: None,
            exposure: None,
            fence: None,
            logout: None,
        }
    }

    /// The target port id to log in with.
    #[must_use]
    pub const fn target_port(&self) -> PortId {
        PortId::new(self.id_ext, self.ioc_guid, self.io_class)
    }

    /// The initiator port id to log in with from the local port whose GUID is `port`.
    #[must_use]
    pub const fn initiator_port(&self, port: Guid) -> PortId {
        let extension = match self.initiator_ext {
            Some(extension) => extension,
            None => 0,
        };
        PortId::new(extension, port, self.io_class)
    }

    /// The keys that were given but change nothing for an initiator outside the kernel.
    #[must_use]
    pub fn ignored_options(&self) -> Vec<&'static str> {
        let given = [
            ("allow_ext_sg", self.allow_ext_sg.is_some()),
            ("sg_tablesize", self.sg_tablesize.is_some()),
            ("comp_vector", self.comp_vector.is_some()),
        ];
        given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(key, _)| key)
            .collect()
    }
}

impl fmt::Display for TargetOptions {
    /// The canonical line, in the order of `ibsrpdm -c`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id_ext={:016x},ioc_guid={}", self.id_ext, self.ioc_guid)?;
        match &self.transport {
            Transport::InfiniBand { dgid, pkey, service_id } => {
                write!(f, ",dgid={},pkey={pkey},service_id={service_id}", dgid.to_hex())?;
            }
            Transport::RdmaCm { dest, src } => {
                write!(f, ",dest={dest}")?;
                option(f, "src", src.as_ref())?;
            }
        }
        if self.io_class != IoClass::default() {
            write!(f, ",io_class={}", self.io_class)?;
        }
        if let Some(extension) = self.initiator_ext {
            write!(f, ",initiator_ext={extension:016x}")?;
        }
        option(f, "tl_retry_count", self.tl_retry_count)?;
        option(f, "max_sect", self.max_sect)?;
        option(f, "max_cmd_per_lun", self.max_cmd_per_lun)?;
        option(f, "target_can_queue", self.target_can_queue)?;
        option(f, "queue_size", self.queue_size)?;
        option(f, "ch_count", self.ch_count)?;
        option(f, "cmd_sg_entries", self.cmd_sg_entries)?;
        option(f, "allow_ext_sg", self.allow_ext_sg.map(u8::from))?;
        option(f, "sg_tablesize", self.sg_tablesize)?;
        option(f, "comp_vector", self.comp_vector)?;
        // Last of the kernel's, because old ones stop reading at a key they do not know; then those that none knows.
        option(f, "max_it_iu_size", self.max_it_iu_size)?;
        option(f, "exposure", self.exposure)?;
        option(f, "fence", self.fence)?;
        option(f, "logout", self.logout)
    }
}

fn option(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, ",{key}={value}"))
}
