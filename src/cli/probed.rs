//! What `ublk-srp discover --probe` has found.

use serde::{Serialize, Serializer};
use srp_addressing::{Guid, IoClass, PortId};
use srp_discovery::scan::ScanReport;
use srp_discovery::targets::RdmaCm;

use super::failure::Failure;
use super::output::Output;
use crate::probe::{Answer, ProbeError, probe};
use crate::rpc::protocol::ErrorKind;

/// Who answers where a target is said to take logins.
#[derive(Serialize)]
pub(super) struct Probed {
    id_ext: String,
    #[serde(serialize_with = "written")]
    ioc_guid: Guid,
    #[serde(serialize_with = "written")]
    dest: RdmaCm,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    #[serde(serialize_with = "written")]
    Answer(Answer),
    #[serde(serialize_with = "written")]
    Error(ProbeError),
}

fn written<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Probed {
    pub(super) fn tell(&self, output: &mut Output) {
        let dest = &self.dest;
        match &self.outcome {
            Outcome::Answer(Answer::Target) => output.note(&format!("{dest}: {}", Answer::Target)),
            Outcome::Answer(answer) => {
                output.failure_text(&Failure::new(ErrorKind::Target, format!("{dest}: {answer}")));
            }
            Outcome::Error(error) => {
                output.failure_text(&Failure::of(ErrorKind::Host, error).about(&dest.to_string()));
            }
        }
    }
}

/// Probes all that have an address.
pub(super) fn probe_all(report: &ScanReport) -> Vec<Probed> {
    let probed = report.targets.iter().filter_map(|target| {
        let dest = target.rdma_cm.clone()?;
        let id_ext = u64::from_str_radix(&target.id_ext, 16).ok()?;
        let class = IoClass::from_code(target.io_class).unwrap_or_default();
        let outcome = match probe(dest.socket_address(), PortId::new(id_ext, target.ioc_guid, class)) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Error(error),
        };
        Some(Probed {
            id_ext: target.id_ext.clone(),
            ioc_guid: target.ioc_guid,
            dest,
            outcome,
        })
    });
    probed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_discovery::targets::RdmaCmSource;

    #[test]
    fn json_tells_who_answered() {
        let probed = |outcome| Probed {
            id_ext: "a1".to_owned(),
            ioc_guid: Guid(2),
            dest: RdmaCm {
                dest: "10.9.0.1:5555".parse().unwrap(),
                interface: None,
                source: RdmaCmSource::Given,
            },
            outcome,
        };
        let probes = [Answer::Target, Answer::Silence].map(|answer| probed(Outcome::Answer(answer)));
        let json = serde_json::to_value(&probes).unwrap();
        let expected = serde_json::json!({
            "id_ext": "a1", "ioc_guid": "0000000000000002", "dest": "10.9.0.1:5555", "answer": "an SRP target answers",
        });
        assert_eq!(json[0], expected);
        assert!(json[1]["answer"].as_str().unwrap().starts_with("no answer within"));
    }
}
