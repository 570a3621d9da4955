//! The text that `add_target` takes, as `srp_daemon -c` prints it.

use std::fmt;
use std::net::SocketAddr;

use srp_addressing::Guid;

use crate::ports::LinkLayer;
use crate::targets::{RdmaCm, Target};

/// The longest line that is printed: ib_srp's peers read no more.
pub const LINE_LIMIT: usize = 254;

/// What a line contains besides the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineOptions {
    /// `initiator_ext=` with the GUID of the target's port (`srp_daemon -n`).
    pub initiator_ext: bool,
    /// `tl_retry_count=` (`srp_daemon -l`, only together with `-e`).
    pub tl_retry_count: Option<u8>,
    /// Options of an allow rule, without a leading comma.
    pub rule_options: String,
    /// The initiator's limit of immediate data, when it uses any: a target that takes less gets
    /// `max_it_iu_size=`.
    pub max_imm_data: Option<u32>,
}

/// Why a target has no line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// RoCE without a port number.
    #[error(
        "target {id_ext} of controller {ioc_guid} at {gid} cannot be printed as a login line: over RoCE a login needs the target's \
         RDMA/CM port, which is not announced (give it with --rdma-cm-port; LIO has it in \
         /sys/kernel/config/target/srpt/discovery_auth/rdma_cm_port)"
    )]
    NoRdmaCmPort {
        /// The target.
        id_ext: String,
        /// Its controller.
        ioc_guid: Guid,
        /// Where it is.
        gid: String,
    },
    /// Too long.
    #[error("the line of target {id_ext} has {len} characters, more than {LINE_LIMIT}: shorten the rule's options")]
    TooLong {
        /// The target.
        id_ext: String,
        /// The length.
        len: usize,
    },
}

impl fmt::Display for RdmaCm {
    /// `ADDRESS:PORT` as `dest=` takes it; a link-local address carries its interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.dest, &self.interface) {
            (SocketAddr::V6(dest), Some(interface)) => {
                write!(f, "[{}%{interface}]:{}", dest.ip(), dest.port())
            }
            (dest, _) => write!(f, "{dest}"),
        }
    }
}

/// The line of a target: `dgid=` for InfiniBand, `dest=` for RoCE, without a newline.
///
/// # Errors
/// When there is no such line; see [`LineError`].
pub fn add_target_line(target: &Target, options: &LineOptions) -> Result<String, LineError> {
    let mut line = format!("id_ext={},ioc_guid={}", target.id_ext, target.ioc_guid);
    match (&target.rdma_cm, target.link_layer) {
        (Some(rdma_cm), LinkLayer::Ethernet) => line += &format!(",dest={rdma_cm}"),
        (None, LinkLayer::Ethernet) => {
            return Err(LineError::NoRdmaCmPort {
                id_ext: target.id_ext.clone(),
                ioc_guid: target.ioc_guid,
                gid: target.gid.to_string(),
            });
        }
        _ => {
            let (gid, pkey, service) = (target.gid.to_hex(), target.pkey, target.service_id);
            line += &format!(",dgid={gid},pkey={pkey},service_id={service}");
        }
    }
    if target.io_class != 0x0100 {
        line += &format!(",io_class={:04x}", target.io_class);
    }
    if options.initiator_ext {
        line += &format!(",initiator_ext={}", target.port_guid);
    }
    if let Some(count) = options.tl_retry_count {
        line += &format!(",tl_retry_count={count}");
    }
    if !options.rule_options.is_empty() {
        line += &format!(",{}", options.rule_options);
    }
    // Last: old kernels stop reading at a key they do not know.
    if options.max_imm_data.is_some_and(|limit| limit > target.send_size) {
        line += &format!(",max_it_iu_size={}", target.send_size);
    }
    match line.len() {
        ..=LINE_LIMIT => Ok(line),
        len => Err(LineError::TooLong {
            id_ext: target.id_ext.clone(),
            len,
        }),
    }
}
