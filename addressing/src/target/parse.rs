//! Reading the `add_target` text.

use std::str::FromStr;

use super::{Exposure, Fence, Logout, ParseTargetError, TargetOptions, Transport, key};
use crate::number::{hex, integer};
use crate::{Endpoint, Gid, Guid, IoClass, PKey, ServiceId};

/// The kernel keeps these in an `int`.
const INT_MAX: u64 = i32::MAX as u64;

/// What was given so far.
#[derive(Default)]
struct Given {
    id_ext: Option<u64>,
    ioc_guid: Option<Guid>,
    dgid: Option<Gid>,
    pkey: Option<PKey>,
    service_id: Option<ServiceId>,
    dest: Option<Endpoint>,
    src: Option<Endpoint>,
    io_class: IoClass,
    initiator_ext: Option<u64>,
    max_sect: Option<u32>,
    max_cmd_per_lun: Option<u32>,
    target_can_queue: Option<u32>,
    queue_size: Option<u32>,
    tl_retry_count: Option<u8>,
    max_it_iu_size: Option<u32>,
    ch_count: Option<u32>,
    cmd_sg_entries: Option<u8>,
    allow_ext_sg: Option<bool>,
    sg_tablesize: Option<u16>,
    comp_vector: Option<u32>,
    exposure: Option<Exposure>,
    fence: Option<Fence>,
    logout: Option<Logout>,
}

impl FromStr for TargetOptions {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut given = Given::default();
        for token in text.split([',', '\n']).map(str::trim).filter(|token| !token.is_empty()) {
            let (name, value) = token.split_once('=').map_or((token, None), |(n, v)| (n, Some(v)));
            let Some((name, expected)) = key::find(name) else {
                return Err(unknown(name));
            };
            let value = value.ok_or_else(|| ParseTargetError::NoValue(name.to_owned()))?;
            given.take(name, value).ok_or_else(|| ParseTargetError::BadValue {
                key: name,
                value: value.escape_debug().collect(),
                expected,
            })?;
        }
        given.finish()
    }
}

fn unknown(name: &str) -> ParseTargetError {
    match key::not_an_option(name) {
        Some((key, why)) => ParseTargetError::NotAnOption { key, why },
        None => ParseTargetError::UnknownKey {
            key: name.to_owned(),
            nearest: key::nearest(name),
        },
    }
}

/// An integer of the kernel's syntax within a range, as whatever type holds that range.
fn number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Option<T> {
    integer(text)
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| T::try_from(n).ok())
}

impl Given {
    /// Keeps one value; `None` if it is not what the key takes.
    fn take(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "id_ext" => self.id_ext = Some(hex(value, u64::MAX)?),
            "ioc_guid" => self.ioc_guid = Some(Guid(hex(value, u64::MAX)?)),
            "dgid" => self.dgid = Some(value.parse().ok()?),
            "pkey" => self.pkey = Some(value.parse().ok()?),
            "service_id" => self.service_id = Some(value.parse().ok()?),
            // Only a source may leave the port open.
            "dest" => self.dest = Some(value.parse().ok().filter(|dest: &Endpoint| dest.port != 0)?),
            "src" => self.src = Some(value.parse().ok()?),
            "io_class" => self.io_class = value.parse().ok()?,
            "initiator_ext" => self.initiator_ext = Some(hex(value, u64::MAX)?),
            "max_sect" => self.max_sect = Some(number(value, 0, INT_MAX)?),
            "max_cmd_per_lun" => self.max_cmd_per_lun = Some(number(value, 1, INT_MAX)?),
            "target_can_queue" => self.target_can_queue = Some(number(value, 1, INT_MAX)?),
            "queue_size" => self.queue_size = Some(number(value, 1, INT_MAX)?),
            "tl_retry_count" => self.tl_retry_count = Some(number(value, 2, 7)?),
            "max_it_iu_size" => {
                self.max_it_iu_size = Some(number(value, 0, INT_MAX)?).filter(|size| *size != 0);
            }
            "ch_count" => self.ch_count = Some(number(value, 1, INT_MAX)?),
            "cmd_sg_entries" => self.cmd_sg_entries = Some(number(value, 1, 255)?),
            "allow_ext_sg" => self.allow_ext_sg = Some(number::<u64>(value, 0, INT_MAX)? != 0),
            "sg_tablesize" => self.sg_tablesize = Some(number(value, 1, 2048)?),
            "exposure" => self.exposure = Some(value.parse().ok()?),
            "fence" => self.fence = Some(value.parse().ok()?),
            "logout" => self.logout = Some(value.parse().ok()?),
            "comp_vector" => self.comp_vector = Some(number(value, 0, INT_MAX)?),
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Result<TargetOptions, ParseTargetError> {
        let missing = self.missing();
        // As in the kernel, dest selects the RDMA/CM whatever else is given.
        let transport = match (self.dest, self.dgid, self.pkey, self.service_id) {
            (Some(dest), ..) => Some(Transport::RdmaCm { dest, src: self.src }),
            (None, Some(dgid), Some(pkey), Some(service_id)) => Some(Transport::InfiniBand { dgid, pkey, service_id }),
            _ => None,
        };
        let (Some(id_ext), Some(ioc_guid), Some(transport)) = (self.id_ext, self.ioc_guid, transport) else {
            return Err(ParseTargetError::Missing(missing));
        };
        Ok(TargetOptions {
            io_class: self.io_class,
            initiator_ext: self.initiator_ext,
            max_sect: self.max_sect,
            max_cmd_per_lun: self.max_cmd_per_lun,
            target_can_queue: self.target_can_queue,
            queue_size: self.queue_size,
            tl_retry_count: self.tl_retry_count,
            max_it_iu_size: self.max_it_iu_size,
            ch_count: self.ch_count,
            cmd_sg_entries: self.cmd_sg_entries,
            allow_ext_sg: self.allow_ext_sg,
            sg_tablesize: self.sg_tablesize,
            comp_vector: self.comp_vector,
            exposure: self.exposure,
            fence: self.fence,
            logout: self.logout,
            ..TargetOptions::new(id_ext, ioc_guid, transport)
        })
    }

    fn missing(&self) -> Vec<&'static str> {
        let infiniband = [
            ("dgid", self.dgid.is_some()),
            ("pkey", self.pkey.is_some()),
            ("service_id", self.service_id.is_some()),
        ];
        let names = [("id_ext", self.id_ext.is_some()), ("ioc_guid", self.ioc_guid.is_some())];
        let absent = |keys: &[(&'static str, bool)]| -> Vec<&'static str> {
            keys.iter().filter(|(_, given)| !given).map(|(key, _)| *key).collect()
        };
        let mut missing = absent(&names);
        if self.dest.is_none() {
            // With none of its keys given it is open which transport is meant.
            if infiniband.iter().all(|(_, given)| !given) {
                missing.push("dest (or dgid, pkey, service_id)");
            } else {
                missing.extend(absent(&infiniband));
            }
        }
        missing
    }
}
