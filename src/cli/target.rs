//! The options of `attach` that say what the keys of an `add_target` line say.

use clap::Args;
use srp_addressing::TargetOptions;

use super::failure::Failure;
use crate::rpc::protocol::ErrorKind;

/// One option for each key; they win over the same key in the line.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Target (the same as the keys of the line, over which they win)")]
pub(super) struct TargetKeys {
    /// Identifier extension of the target port
    #[arg(long, value_name = "HEX")]
    id_ext: Option<String>,
    /// GUID of the target's I/O controller
    #[arg(long, value_name = "HEX")]
    ioc_guid: Option<String>,
    /// RDMA/CM: address and port of the target
    #[arg(long, value_name = "ADDRESS:PORT")]
    dest: Option<String>,
    /// RDMA/CM: local address to connect from
    #[arg(long, value_name = "ADDRESS")]
    src: Option<String>,
    /// InfiniBand: GID of the target port
    #[arg(long, value_name = "HEX")]
    dgid: Option<String>,
    /// InfiniBand: partition key
    #[arg(long, value_name = "HEX")]
    pkey: Option<String>,
    /// InfiniBand: service id of the target
    #[arg(long, value_name = "HEX")]
    service_id: Option<String>,
    /// Identifier extension of the initiator port; another one makes another path to the same target
    #[arg(long, value_name = "HEX")]
    initiator_ext: Option<String>,
    /// Layout of port ids: 0100 or, for SRP revision 10, ff00
    #[arg(long, value_name = "HEX")]
    io_class: Option<String>,
    /// Channels of the session; without it one for each core, or as many on each as make four
    #[arg(long, value_name = "N")]
    ch_count: Option<String>,
    /// Commands in flight per channel
    #[arg(long, value_name = "N")]
    queue_size: Option<String>,
    /// Commands in flight per LUN
    #[arg(long, value_name = "N")]
    max_cmd_per_lun: Option<String>,
    /// Commands in flight per target
    #[arg(long, value_name = "N")]
    target_can_queue: Option<String>,
    /// Longest request, in units of 512 bytes
    #[arg(long, value_name = "N")]
    max_sect: Option<String>,
    /// Transport retries, 2 to 7
    #[arg(long, value_name = "N")]
    tl_retry_count: Option<String>,
    /// Longest information unit to ask for, in bytes
    #[arg(long, value_name = "N")]
    max_it_iu_size: Option<String>,
    /// How the target reaches data: pool (fastest), or window: each command's bytes alone, while it is under way
    #[arg(long, value_name = "HOW")]
    exposure: Option<String>,
    /// What comes before a write whose fate is unknown is sent again: lun-reset, or, for LUNs shared with other hosts,
    /// relogin
    #[arg(long, value_name = "HOW")]
    fence: Option<String>,
    /// How a session ends: dreq, with the connection alone, or iu, with an SRP_I_LOGOUT before
    #[arg(long, value_name = "HOW")]
    logout: Option<String>,
    #[arg(long, hide = true)]
    cmd_sg_entries: Option<String>,
    #[arg(long, hide = true)]
    allow_ext_sg: Option<String>,
    #[arg(long, hide = true)]
    sg_tablesize: Option<String>,
    #[arg(long, hide = true)]
    comp_vector: Option<String>,
}

const LINE: &str = "give a line as `ublk-srp discover -c` prints it, or see `ublk-srp attach --help`";

impl TargetKeys {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("id_ext", &self.id_ext),
            ("ioc_guid", &self.ioc_guid),
            ("dest", &self.dest),
            ("src", &self.src),
            ("dgid", &self.dgid),
            ("pkey", &self.pkey),
            ("service_id", &self.service_id),
            ("initiator_ext", &self.initiator_ext),
            ("io_class", &self.io_class),
            ("ch_count", &self.ch_count),
            ("queue_size", &self.queue_size),
            ("max_cmd_per_lun", &self.max_cmd_per_lun),
            ("target_can_queue", &self.target_can_queue),
            ("max_sect", &self.max_sect),
            ("tl_retry_count", &self.tl_retry_count),
            ("max_it_iu_size", &self.max_it_iu_size),
            ("exposure", &self.exposure),
            ("fence", &self.fence),
            ("logout", &self.logout),
            ("cmd_sg_entries", &self.cmd_sg_entries),
            ("allow_ext_sg", &self.allow_ext_sg),
            ("sg_tablesize", &self.sg_tablesize),
            ("comp_vector", &self.comp_vector),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }

    /// Whether there is any, so that no line is needed.
    pub(super) fn any(&self) -> bool {
        self.given().next().is_some()
    }

    /// The line with these keys behind it, once it is known to make sense.
    pub(super) fn complete(&self, line: &str) -> Result<String, Failure> {
        let mut parts = Vec::new();
        if !line.is_empty() {
            parts.push(line.to_owned());
        }
        for (key, value) in self.given() {
            if value.is_empty() || value.contains([',', '\n']) {
                let what = format!("--{}: {value:?} is no single value", key.replace('_', "-"));
                return Err(Failure::new(ErrorKind::Usage, what));
            }
            parts.push(format!("{key}={value}"));
        }
        let text = parts.join(",");
        if text.trim().is_empty() {
            return Err(Failure::new(ErrorKind::Usage, "the target is empty").remedy(LINE));
        }
        match text.parse::<TargetOptions>() {
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::of(ErrorKind::Usage, &error).remedy(LINE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(dest: &str) -> TargetKeys {
        TargetKeys {
            id_ext: Some("1".to_owned()),
            ioc_guid: Some("2".to_owned()),
            dest: Some(dest.to_owned()),
            ..TargetKeys::default()
        }
    }

    #[test]
    fn keys_make_the_line() {
        assert_eq!(
            keys("10.0.0.1:5555").complete("").unwrap(),
            "id_ext=1,ioc_guid=2,dest=10.0.0.1:5555"
        );
        let line = "id_ext=5,ioc_guid=6,dest=10.0.0.9:1,";
        let more = TargetKeys {
            queue_size: Some("8".to_owned()),
            ..TargetKeys::default()
        };
        assert_eq!(more.complete(line).unwrap(), format!("{line},queue_size=8"));
        assert!(more.any() && !TargetKeys::default().any());
        assert_eq!(TargetKeys::default().complete(line).unwrap(), line);
    }

    #[test]
    fn what_is_refused_is_named() {
        for (value, named) in [("nowhere", "dest=nowhere"), ("a:1,pkey=1", "--dest"), ("", "--dest")] {
            let text = keys(value).complete("").unwrap_err().text();
            assert!(text.contains(named), "{text}");
        }
        let unknown = TargetKeys::default()
            .complete("id_ext=1,frobnicate=2")
            .unwrap_err()
            .text();
        assert!(unknown.contains("frobnicate"), "{unknown}");
    }
}
