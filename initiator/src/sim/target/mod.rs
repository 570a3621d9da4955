//! A model SRP target: admission, credit, tasks, disks. It behaves as LIO does where LIO is well-behaved, and keeps
//! strict account of what the initiator may do.

mod backlog;
mod credit;
mod disk;
mod function;
mod login;
mod mischief;
mod pages;
mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use srp_addressing::PortId;

use super::check::rule;
use super::net::Net;
use super::odds::{CreditPolicy, Function, Injection, Span};
use crate::fabric::QueuePairId;
use crate::scsi::Cdb;
use crate::scsi::cdb::Operation;
use crate::time::Instant;
use crate::wire::MemoryDescriptor;
use crate::wire::command::immediate_data;
use crate::wire::{
    Command, Data, FromInitiator, IMMEDIATE_DATA_OFFSET, LogoutReason, Response, TargetLogout, TaskManagement,
};

use backlog::Backlog;
use credit::Credit;
use disk::Disk;
use task::{Memory, Stage, Task};

/// Tags of commands that are over, kept for stale responses.
const OLD_TAGS: usize = 16;

/// A model disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its LUN as on the wire.
    pub lun: u64,
    /// Bytes per logical block.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
}

/// How a target is set up.
#[derive(Clone, Debug)]
pub struct TargetProfile {
    /// Its port id.
    pub port: PortId,
    /// Initiator ports with an ACL; without a list, all are admitted.
    pub initiators: Option<Vec<PortId>>,
    /// The port is enabled.
    pub enabled: bool,
    /// Several channels of one initiator port are supported.
    pub multichannel: bool,
    /// Longest IU taken (`srp_max_req_size`).
    pub max_request_len: u32,
    /// Longest IU sent (`srp_max_rsp_size`), as granted at login.
    pub max_response_len: u32,
    /// Sense data is padded, so that its response is as long as agreed.
    pub full_responses: bool,
    /// A logical unit takes this long for each command that touches the medium.
    pub slow: Option<(u64, Span)>,
    /// Requests granted at login.
    pub request_limit: i32,
    /// How credit comes back.
    pub credit: CreditPolicy,
    /// A new channel finds a UNIT ATTENTION on every logical unit.
    pub attention_at_login: bool,
    /// Immediate data is granted to those who ask.
    pub immediate_data: bool,
    /// What a function of another channel ends is answered TASK ABORTED (TAS of the control mode page).
    pub task_aborted: bool,
    /// Commands a logical unit takes at once; to others it says TASK SET FULL.
    pub task_set: Option<usize>,
    /// Sense data in descriptor format.
    pub descriptor_sense: bool,
    /// Logical units.
    pub disks: Vec<DiskSpec>,
}

impl Default for TargetProfile {
    fn default() -> Self {
        Self {
            port: PortId([2; 16]),
            initiators: None,
            enabled: true,
            multichannel: true,
            max_request_len: 8276,
            max_response_len: 256,
            full_responses: false,
            slow: None,
            request_limit: 128,
            credit: CreditPolicy::Each,
            attention_at_login: false,
            immediate_data: true,
            task_aborted: true,
            task_set: None,
            descriptor_sense: false,
            disks: vec![DiskSpec {
                lun: 0,
                block_size: 512,
                blocks: 2048,
            }],
        }
    }
}

/// A channel as the target has it.
#[derive(Debug)]
pub(super) struct TargetChannel {
    initiator: PortId,
    alive: bool,
    /// Immediate data was granted.
    immediate: bool,
    /// The longest IU it may send.
    max_request_len: u32,
    credit: Credit,
    /// Commands that were not answered yet.
    outstanding: u32,
    /// Logical units with a UNIT ATTENTION for this nexus.
    attention: BTreeSet<u64>,
    event: Option<u64>,
    old_tags: VecDeque<u64>,
    backlog: Backlog,
    /// Tags that were answered before their commands came: nothing is done about these.
    answered: BTreeSet<u64>,
}

/// The next step of a task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Of a command.
    Task(u64),
    /// Credit that was not given with responses is given now.
    Credit(QueuePairId),
    /// Of a task management function.
    Function(u64),
    /// The oldest IU in the backlog of a channel is taken up.
    TakeUp(QueuePairId),
}

/// See the module's text.
#[derive(Debug)]
pub struct Target {
    profile: TargetProfile,
    disks: BTreeMap<u64, Disk>,
    channels: BTreeMap<QueuePairId, TargetChannel>,
    tasks: BTreeMap<u64, Task>,
    /// Task management functions that take their time.
    functions: BTreeMap<u64, (QueuePairId, TaskManagement)>,
    /// What shall become of the next ones.
    function_fates: VecDeque<Function>,
    /// When a function was refused last.
    function_refused: Option<Instant>,
    /// Commands that a lost connection left behind, and that will never be answered, take no place in a task set.
    tidy: bool,
    /// So many commands that do not touch the medium hang.
    hanging: u32,
    /// Commands refused with TASK SET FULL as the task set was.
    refused: u64,
    serial: u64,
    tag: u64,
    /// Numbers of writes answered GOOD and complete.
    good: BTreeSet<(u64, u64)>,
}

impl Target {
    pub(super) fn new(profile: TargetProfile) -> Self {
        let disks = profile.disks.iter().map(|spec| (spec.lun, Disk::new(*spec))).collect();
        Self {
            profile,
            disks,
            channels: BTreeMap::new(),
            tasks: BTreeMap::new(),
            functions: BTreeMap::new(),
            function_fates: VecDeque::new(),
            function_refused: None,
            tidy: false,
            hanging: 0,
            refused: 0,
            serial: 0,
            tag: 0,
            good: BTreeSet::new(),
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.tidy = true;
    }

    /// How it is set up.
    #[must_use]
    pub fn profile(&self) -> &TargetProfile {
        &self.profile
    }

    /// How it is set up; for changes while it runs.
    pub fn profile_mut(&mut self) -> &mut TargetProfile {
        &mut self.profile
    }

    /// What shall become of the next commands of a logical unit that touch the medium, in order.
    pub fn inject(&mut self, lun: u64, what: Injection) {
        if let Some(disk) = self.disks.get_mut(&lun) {
            disk.injections.push_back(what);
        }
    }

    /// What shall become of the next task management functions, in order.
    pub fn arrange(&mut self, what: Function) {
        self.function_fates.push_back(what);
    }

    /// The next commands that do not touch the medium are never answered.
    pub fn hang_control(&mut self, count: u32) {
        self.hanging = count;
    }

    /// Commands refused because the task set of their unit was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// When a task management function was last answered with anything but "complete".
    pub(super) fn refused_function(&self) -> Option<Instant> {
        self.function_refused
    }

    /// The contents of a disk; empty when there is none.
    #[must_use]
    pub fn disk(&self, lun: u64) -> &[u8] {
        self.disks.get(&lun).map_or(&[], |disk| &disk.data)
    }

    /// Bytes per logical block of a disk.
    pub(super) fn block_size(&self, lun: u64) -> Option<u32> {
        let spec = self.profile.disks.iter().find(|spec| spec.lun == lun)?;
        Some(spec.block_size)
    }

    /// Commands of a disk that reached the medium: reads, writes, flushes.
    #[must_use]
    pub fn executed(&self, lun: u64) -> (u64, u64, u64) {
        self.disks
            .get(&lun)
            .map_or((0, 0, 0), |disk| (disk.reads, disk.writes, disk.flushes))
    }

    /// Whether a write of the client with this number was answered GOOD.
    #[must_use]
    pub fn acknowledged(&self, lun: u64, stamp: u64) -> bool {
        self.good.contains(&(lun, stamp))
    }

    /// The request limit of a channel as the target counts it.
    #[must_use]
    pub fn credits(&self, qp: QueuePairId) -> Option<i64> {
        self.channels
            .get(&qp)
            .filter(|channel| channel.alive)
            .map(|channel| channel.credit.limit())
    }

    /// Commands of a queue pair the target still works on.
    #[must_use]
    pub fn tasks(&self, qp: QueuePairId) -> usize {
        self.tasks.values().filter(|task| task.qp == qp).count()
    }

    /// Acts on an IU that was received, also when its connection is gone by now.
    fn take_up(&mut self, qp: QueuePairId, iu: &[u8], net: &mut Net) {
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        if !channel.alive {
            net.tally.count("IU taken up behind a lost connection");
        }
        match FromInitiator::parse(iu) {
            Ok(FromInitiator::Command(command)) => self.command(qp, &command, iu, net),
            Ok(FromInitiator::TaskManagement(task)) => self.manage(qp, task, net),
            Ok(FromInitiator::Logout(_)) => channel.alive = false,
            Ok(FromInitiator::CreditResponse(response)) => {
                if !channel.credit.answered(response.tag) {
                    net.broken(rule::PROTOCOL, "SRP_CRED_RSP nobody asked for");
                }
                self.step(Step::Credit(qp), net);
            }
            Ok(FromInitiator::AsyncEventResponse(response)) => {
                if channel.event.take() != Some(response.tag) {
                    net.broken(rule::PROTOCOL, "SRP_AER_RSP nobody asked for");
                }
            }
            Err(error) => net.broken(rule::PROTOCOL, format!("the initiator sent: {error}")),
        }
    }

    fn command(&mut self, qp: QueuePairId, command: &Command<'_>, iu: &[u8], net: &mut Net) {
        let tag = command.tag;
        if self.tasks.values().any(|task| task.qp == qp && task.tag == tag) {
            net.broken(rule::PROTOCOL, format!("tag {tag:#x} used twice at once"));
        }
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        if !channel.credit.consume() {
            net.broken(rule::CREDIT, format!("tag {tag:#x} came without credit"));
        }
        if iu.len() > channel.max_request_len as usize {
            net.broken(rule::PROTOCOL, format!("an IU of {} bytes", iu.len()));
        }
        if matches!(command.data, Data::WriteImmediate { .. }) && !channel.immediate {
            net.broken(rule::PROTOCOL, "immediate data that was not granted");
        }
        if channel.answered.remove(&tag) {
            return channel.credit.owe();
        }
        channel.outstanding += 1;
        let mut buffer = Vec::new();
        let memory = match command.data {
            Data::None => Memory::None,
            Data::Read(descriptor) => Memory::In(vec![descriptor]),
            Data::Write(descriptor) => Memory::Out(vec![descriptor]),
            Data::ReadIndirect { table, total, inline } | Data::WriteIndirect { table, total, inline } => {
                let list: Vec<MemoryDescriptor> = inline.iter().collect();
                let sum: u32 = list.iter().map(|descriptor| descriptor.len).sum();
                let whole = usize::try_from(table.len).is_ok_and(|len| len == list.len() * Command::DESCRIPTOR_LEN);
                if !whole || sum != total {
                    // As LIO and SCST, which take a table that is in the IU and no other.
                    net.broken(
                        rule::PROTOCOL,
                        format!("{table:?} of {total} bytes, with {list:?} inline"),
                    );
                }
                match command.data {
                    Data::ReadIndirect { .. } => Memory::In(list),
                    _ => Memory::Out(list),
                }
            }
            Data::WriteImmediate { len } => match immediate_data(iu, IMMEDIATE_DATA_OFFSET, len) {
                Ok(bytes) => {
                    buffer = bytes.to_vec();
                    Memory::Immediate(len)
                }
                Err(error) => return net.broken(rule::PROTOCOL, error.to_string()),
            },
        };
        let lun = command.lun.0;
        self.serial += 1;
        let task = Task::new(qp, tag, lun, command.cdb, memory, buffer);
        self.admit(self.serial, task, net);
    }

    /// Sends a response.
    fn send_response(&mut self, qp: QueuePairId, response: &Response<'_>, net: &mut Net) {
        let longest = self.profile.max_response_len as usize;
        let mut iu = vec![0; longest];
        let (mut sense, mut response) = (Vec::new(), *response);
        if let Some(bytes) = response.sense.filter(|_| self.profile.full_responses) {
            let data = response.response_code.map_or(0, |_| 4);
            sense.extend_from_slice(bytes);
            sense.resize(longest - Response::FIXED_LEN - data, 0);
            response.sense = Some(&sense);
            net.tally.count("response as long as agreed");
        }
        match response.emit(&mut iu) {
            Ok(len) => iu.truncate(len),
            Err(error) => return net.broken(rule::PROTOCOL, error.to_string()),
        }
        net.send_to_initiator(qp, iu);
    }

    /// The connection is gone: what has not got its data yet never will, the rest is carried out.
    pub(super) fn lost(&mut self, qp: QueuePairId) {
        if let Some(channel) = self.channels.get_mut(&qp) {
            channel.alive = false;
        }
        self.tasks
            .retain(|_, task| task.qp != qp || task.stage == Stage::Execute);
    }

    /// Ends every channel; returns those that were alive. What was received is carried out too, or forgotten.
    pub(super) fn shut_down(&mut self, finish: bool) -> Vec<QueuePairId> {
        let mut ended = Vec::new();
        for (qp, channel) in &mut self.channels {
            if !finish {
                channel.backlog.forget();
            }
            if std::mem::replace(&mut channel.alive, false) {
                ended.push(*qp);
            }
        }
        self.tasks.retain(|_, task| finish && task.stage == Stage::Execute);
        self.functions.clear();
        ended
    }

    pub(super) fn log_out(&mut self, qp: QueuePairId, net: &mut Net) {
        let logout = TargetLogout {
            tag: self.next_tag(),
            reason: LogoutReason(1),
        };
        let mut iu = vec![0; TargetLogout::LEN];
        if logout.emit(&mut iu).is_ok() {
            net.send_to_initiator(qp, iu);
        }
        if let Some(channel) = self.channels.get_mut(&qp) {
            channel.alive = false;
        }
        let delay = net.profile.notice;
        net.within(delay, super::net::Happening::Notice(qp));
        self.lost(qp);
    }

    fn next_tag(&mut self) -> u64 {
        self.tag += 1;
        0xface_0000_0000_0000 | self.tag
    }
}

/// The first block and the number of blocks a command names.
pub(super) fn extent_of(cdb: &[u8; 16]) -> Option<(u64, u32)> {
    match Cdb::from_bytes(*cdb).operation() {
        Operation::Read { lba, blocks, .. } | Operation::Write { lba, blocks, .. } => Some((lba, blocks)),
        _ => None,
    }
}
