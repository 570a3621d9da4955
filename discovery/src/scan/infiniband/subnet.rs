//! What subnet administration is asked, and what follows from its answers.

use srp_addressing::{Gid, Guid, PKey};

use super::job::{Asked, EndPort, Job, Place, What};
use super::{MAX_SILENCE, Scan};
use crate::device_management::{Step, WayTo};
use crate::mad::{
    Attribute, GSI_QKEY, GSI_QP, Mad, NodeRecord, PathComponents, PathRecord, PortInfoRecord,
    SA_MATCHES_CAPABILITY_MASK, SaMad, SaStatus, TableError,
};
use crate::scan::{Node, Severity};
use crate::transport::{Address, Answer, Grh, MadTransport, Query, QueryError, busy_pause};

/// Why subnet administration is of no help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetError {
    /// Nobody has configured the port.
    #[error(
        "the port knows no subnet manager (its sm_lid, or its own LID, is 0): start one in the fabric, such as \
         opensm, or look at `sminfo` and `ibstat`"
    )]
    NoManager,
    /// Nothing to ask for paths with.
    #[error(
        "the port's P_Key table is empty, so that it can reach nobody: the subnet manager's partition configuration \
         must put it into one"
    )]
    NoPKey,
    /// It does not answer, or cannot be asked.
    #[error("subnet administration: {0}")]
    Query(#[from] QueryError),
    /// It has stopped answering.
    #[error(
        "subnet administration has stopped answering: {left} questions were given up (was the subnet manager \
         restarted? try again)"
    )]
    Lost {
        /// How many.
        left: usize,
    },
    /// It refused.
    #[error("subnet administration answered {attribute}: {status}")]
    Status {
        /// The question.
        attribute: Attribute,
        /// The answer.
        status: SaStatus,
    },
    /// It answered with something that is no table.
    #[error("subnet administration answered {attribute}: {cause}")]
    Table {
        /// The question.
        attribute: Attribute,
        /// What is wrong.
        cause: TableError,
    },
    /// No partition in common.
    #[error(
        "port {gid} shares no partition with this port, whose P_Keys are {}: the subnet manager's partition \
         configuration must put both into one",
        list(pkeys)
    )]
    NoPartition {
        /// The port.
        gid: Gid,
        /// The P_Keys of the local port.
        pkeys: Vec<PKey>,
    },
    /// An IP address was named.
    #[error("an InfiniBand port is asked for by its GID, not by an IP address")]
    NotAGid,
}

fn node_of(record: &NodeRecord) -> Node {
    let [port, ..] = record.port_vendor.get().to_be_bytes();
    Node {
        system_guid: Guid(record.system_guid.get()),
        node_guid: Guid(record.node_guid.get()),
        vendor_id: record.port_vendor.get() & 0x00ff_ffff,
        device_id: record.device_id.get(),
        revision: record.revision.get(),
        port,
    }
}

fn list(pkeys: &[PKey]) -> String {
    pkeys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl<T: MadTransport> Scan<'_, T> {
    pub(super) fn to_subnet_administration(&self, request: Mad) -> Query {
        let pkey_index = self.port.default_pkey().map_or(0, |(index, _)| index);
        let mut to = Address::infiniband(self.port.sm_lid, pkey_index);
        to.sl = self.port.sm_sl;
        Query::new(to, request)
    }

    /// Looks for a port the caller has named.
    pub(super) fn seek(&mut self, gid: Gid, name: String) {
        self.add_end_port(EndPort {
            row: self.end_ports.len(),
            lid: 0,
            gid,
            node: None,
            given: Some(name),
            paths_left: 0,
            pkeys: Vec::new(),
            failed: false,
        });
    }

    /// Asks in which partitions a port is reached.
    fn add_end_port(&mut self, mut end_port: EndPort) {
        let pkeys = self.pkeys();
        end_port.paths_left = pkeys.len();
        let index = self.end_ports.len();
        self.end_ports.push(end_port);
        let paths = pkeys.into_iter().map(|pkey| What::Path { end_port: index, pkey });
        self.to_subnet.extend(paths.map(Job::new));
    }

    /// The question for the way to where an agent has redirected.
    pub(super) fn way_to(&self, to: WayTo, pkey: Option<PKey>) -> Option<Query> {
        let ends = match to {
            WayTo::Gid(destination) => PathComponents::Gids {
                source: self.port.first_gid()?,
                destination,
            },
            WayTo::Lid(destination) => PathComponents::Lids {
                source: self.port.lid,
                destination,
            },
        };
        Some(self.to_subnet_administration(PathRecord::query(ends, pkey)))
    }

    /// The answer to that.
    pub(super) fn way_answered(&self, mut survey: Asked, result: Result<Answer, QueryError>) -> (Asked, Step) {
        let way = match result {
            Ok(answer) if answer.status().is_good() => {
                let path: PathRecord = SaMad::from_mad(&answer).record();
                self.address(&path).map(|(to, _)| (to, Gid(path.dgid)))
            }
            Ok(_) => Err("subnet administration knows no way there"),
            Err(_) => Err("subnet administration does not answer for the way there"),
        };
        let step = survey.0.path(way);
        (survey, step)
    }

    fn address(&self, path: &PathRecord) -> Result<(Address, PKey), &'static str> {
        let pkey = path.pkey();
        let index = self.port.pkey_index(pkey).ok_or("a partition this port is not in")?;
        let grh = path.is_routed().then(|| Grh {
            gid: Gid(path.dgid),
            source_index: 0,
            hop_limit: 64,
            traffic_class: path.traffic_class,
            flow_label: (path.flow_hop.get() >> 8) & 0x000f_ffff,
        });
        let to = Address {
            lid: path.dlid.get(),
            qpn: GSI_QP,
            qkey: GSI_QKEY,
            sl: path.sl(),
            pkey_index: index,
            grh,
        };
        Ok((to, pkey))
    }

    pub(super) fn subnet_answered(&mut self, mut job: Job, result: Result<Answer, QueryError>) {
        self.silence = match &result {
            Err(QueryError::Unanswered { .. }) => self.silence + 1,
            _ => 0,
        };
        let status = result.as_ref().map(|answer| SaStatus::of(answer.status()));
        if status.is_ok_and(SaStatus::is_busy)
            && let Some(pause) = busy_pause(job.tries)
        {
            job.tries += 1;
            self.later.push((self.exchange.now() + pause, job));
            return;
        }
        if self.silence >= MAX_SILENCE {
            let left = self.to_subnet.len() + self.later.len();
            self.to_subnet.clear();
            self.later.clear();
            if left > 0 {
                self.report
                    .problem(Severity::Error, Some(self.port), None, SubnetError::Lost { left });
            }
        }
        match job.what {
            What::ClassPortInfo => self.class_port_info(&job, result),
            What::AgentPorts => self.agent_ports(&job, result),
            What::Nodes => self.nodes(&job, result),
            What::Port { row, .. } => {
                if let Some(record) = self.one::<PortInfoRecord>(&job, result) {
                    self.end_port_found(row, &record);
                }
            }
            What::Node { row, lid, gid_prefix } => {
                if let Some(record) = self.one::<NodeRecord>(&job, result) {
                    let guid = Guid(record.port_guid.get());
                    self.add_end_port(EndPort {
                        row,
                        lid,
                        gid: Gid::new(gid_prefix, guid),
                        node: Some(node_of(&record)),
                        given: None,
                        paths_left: 0,
                        pkeys: Vec::new(),
                        failed: false,
                    });
                }
            }
            What::Path { end_port, .. } => self.path(&job, end_port, result),
        }
    }

    fn class_port_info(&mut self, job: &Job, result: Result<Answer, QueryError>) {
        let matches = match result {
            // One that does not answer this will not answer anything else.
            Err(error) => return self.failed(job, error.into()),
            // One that refuses it breaks the standard, but may answer the rest.
            Ok(answer) if !answer.status().is_good() => false,
            Ok(answer) => {
                let info: crate::mad::ClassPortInfo = SaMad::from_mad(&answer).record();
                info.capability_mask.get() & SA_MATCHES_CAPABILITY_MASK != 0
            }
        };
        let next = if matches { What::AgentPorts } else { What::Nodes };
        self.to_subnet.push_back(Job::new(next));
    }

    fn agent_ports(&mut self, job: &Job, result: Result<Answer, QueryError>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.failed(job, error.into()),
        };
        let status = SaStatus::of(answer.status());
        if status.is_nothing() {
            return;
        }
        if !status.is_good() {
            // It has said that it could.
            tracing::debug!(%status, "no table of ports by capability mask");
            return self.to_subnet.push_back(Job::new(What::Nodes));
        }
        match answer.table(PortInfoRecord::LEN) {
            Ok(table) => {
                for (row, record) in table.records().enumerate() {
                    self.end_port_found(row, &record);
                }
            }
            Err(cause) => self.failed(
                job,
                SubnetError::Table {
                    attribute: Attribute::PORT_INFO_RECORD,
                    cause,
                },
            ),
        }
    }

    fn nodes(&mut self, job: &Job, result: Result<Answer, QueryError>) {
        let attribute = Attribute::NODE_RECORD;
        let table = match result {
            Err(error) => Err(error.into()),
            Ok(answer) => match SaStatus::of(answer.status()) {
                status if status.is_good() => answer
                    .table(NodeRecord::LEN)
                    .map_err(|cause| SubnetError::Table { attribute, cause }),
                status => Err(SubnetError::Status { attribute, status }),
            },
        };
        match table {
            Err(error) => self.failed(job, error),
            Ok(table) => {
                let channel_adapters = table.records::<NodeRecord>().filter(NodeRecord::is_channel_adapter);
                let ports = channel_adapters.enumerate().map(|(row, node)| What::Port {
                    row,
                    lid: node.lid.get(),
                });
                self.to_subnet.extend(ports.map(Job::new));
            }
        }
    }

    /// A port, which is asked for its GUID if it has an agent.
    fn end_port_found(&mut self, row: usize, record: &PortInfoRecord) {
        // A mask that was not matched as was asked for shows here.
        if !record.has_device_management() {
            return;
        }
        let lid = match record.lid.get() {
            0 => record.end_port_lid.get(),
            lid => lid,
        };
        let gid_prefix = record.gid_prefix.get();
        self.to_subnet.push_back(Job::new(What::Node { row, lid, gid_prefix }));
    }

    fn path(&mut self, job: &Job, index: usize, result: Result<Answer, QueryError>) {
        let mut failure = None;
        let mut found = None;
        match result {
            Err(error) => failure = Some(SubnetError::from(error)),
            Ok(answer) => {
                let status = SaStatus::of(answer.status());
                let attribute = Attribute::PATH_RECORD;
                if status.is_good() {
                    // A partition that is gone from the table by now counts as none.
                    found = self.address(&SaMad::from_mad(&answer).record()).ok();
                } else if !status.is_nothing() {
                    failure = Some(SubnetError::Status { attribute, status });
                }
            }
        }
        let pkeys = self.pkeys();
        let Some(end_port) = self.end_ports.get_mut(index) else {
            return;
        };
        end_port.paths_left -= 1;
        if let Some((to, pkey)) = found {
            if end_port.lid == 0 {
                end_port.lid = to.lid;
            }
            if !end_port.pkeys.contains(&pkey) {
                end_port.pkeys.push(pkey);
                let place = Place {
                    row: end_port.row,
                    end_port: index,
                    pkey_index: to.pkey_index,
                    pkey,
                };
                self.to_agents.push_back((place, to, end_port.gid));
            }
        }
        let settled = end_port.failed;
        end_port.failed |= failure.is_some();
        let unreached = end_port.paths_left == 0 && end_port.pkeys.is_empty() && !end_port.failed;
        let gid = end_port.gid;
        match failure {
            Some(error) if !settled => self.failed(job, error),
            _ if unreached => self.failed(job, SubnetError::NoPartition { gid, pkeys }),
            _ => {}
        }
    }

    /// The record of an answer that has one.
    fn one<R: zerocopy::FromBytes>(&mut self, job: &Job, result: Result<Answer, QueryError>) -> Option<R> {
        let error = match result {
            Err(error) => error.into(),
            Ok(answer) => match SaStatus::of(answer.status()) {
                status if status.is_good() => return Some(SaMad::from_mad(&answer).record()),
                status => SubnetError::Status {
                    attribute: answer.attribute(),
                    status,
                },
            },
        };
        self.failed(job, error);
        None
    }

    /// A question without a usable answer: the scan goes on without it.
    fn failed(&mut self, job: &Job, error: SubnetError) {
        let name = job.name(&self.end_ports);
        // What concerns everybody, or what the caller asked for, is an error.
        let given = matches!(job.what, What::Path { end_port, .. }
            if self.end_ports.get(end_port).is_some_and(|port| port.given.is_some()));
        let severity = if name.is_none() || given {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.report.problem(severity, Some(self.port), name.as_deref(), error);
    }
}
