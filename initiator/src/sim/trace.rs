//! The last events of a run, one line each, written out only when somebody asks.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::fabric::{Completion, QueuePairId, WorkError, WorkKind};
use crate::scsi::cdb::Operation;
use crate::time::Instant;
use crate::wire::response::Residual;
use crate::wire::{Data, FromInitiator, FromTarget};

/// How many bytes of an IU are kept: enough for its fields.
const KEPT: usize = 72;

#[derive(Debug)]
pub(super) enum Note {
    /// An IU leaves the initiator.
    ToTarget(Vec<u8>, usize),
    /// An IU reaches the initiator.
    ToInitiator(Vec<u8>, usize),
    /// A completion is taken.
    Taken(Completion),
    /// The target reads or writes our memory.
    Access {
        write: bool,
        address: u64,
        len: usize,
        done: bool,
    },
    /// Anything else.
    Text(String),
}

#[derive(Debug)]
struct Line {
    at: Instant,
    qp: Option<QueuePairId>,
    credits: i64,
    note: Note,
}

impl Line {
    fn is_flushed(&self) -> bool {
        matches!(&self.note, Note::Taken(completion) if completion.result == Err(WorkError::Flushed))
    }
}

/// A ring of notes.
#[derive(Debug)]
pub(super) struct Trace {
    lines: VecDeque<Line>,
    kept: usize,
    /// How many there were, those that are not kept any more among them.
    pub(super) total: u64,
}

impl Trace {
    pub(super) fn new(kept: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            kept,
            total: 0,
        }
    }

    pub(super) fn add(&mut self, at: Instant, qp: Option<QueuePairId>, credits: i64, note: Note) {
        if self.lines.len() == self.kept {
            self.lines.pop_front();
        }
        self.total += 1;
        self.lines.push_back(Line { at, qp, credits, note });
    }

    pub(super) fn text(&mut self, at: Instant, qp: Option<QueuePairId>, text: impl Into<String>) {
        self.add(at, qp, 0, Note::Text(text.into()));
    }

    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let mut flushed = usize::from(line.is_flushed());
            while flushed > 0 && lines.next_if(|next| next.is_flushed() && next.qp == line.qp).is_some() {
                flushed += 1;
            }
            let micros = line.at.as_nanos() / 1000;
            let qp = line.qp.map_or(String::new(), |qp| format!("qp{}", qp.0));
            let _ = write!(out, "{micros:>11} us {qp:<5} ");
            let _ = match &line.note {
                _ if flushed > 1 => writeln!(out, "   {flushed} requests flushed"),
                Note::ToTarget(iu, len) => {
                    writeln!(out, "-> {} credits={}", from_initiator(iu, *len), line.credits)
                }
                Note::ToInitiator(iu, len) => {
                    writeln!(out, "<- {} credits={}", from_target(iu, *len), line.credits)
                }
                Note::Taken(completion) => {
                    let kind = match completion.kind {
                        WorkKind::Send => "send",
                        WorkKind::Receive => "receive",
                        WorkKind::Bind => "window opening",
                        WorkKind::Invalidate => "window closing",
                    };
                    let slot = completion.slot;
                    match completion.result {
                        Ok(len) => writeln!(out, "   {kind} {slot} completed, {len} bytes"),
                        Err(error) => writeln!(out, "   {kind} {slot} failed: {error}"),
                    }
                }
                Note::Access {
                    write,
                    address,
                    len,
                    done,
                } => {
                    let what = if *write { "RDMA WRITE" } else { "RDMA READ" };
                    let end = if *done { "" } else { " (refused)" };
                    writeln!(out, "<> {what} {address:#x}+{len}{end}")
                }
                Note::Text(text) => writeln!(out, "   {text}"),
            };
        }
        out
    }
}

/// The start of an IU, and its length.
pub(super) fn keep(iu: &[u8]) -> (Vec<u8>, usize) {
    (iu[..iu.len().min(KEPT)].to_vec(), iu.len())
}

/// The name of a command.
pub(super) fn cdb_name(bytes: &[u8; 16]) -> &'static str {
    match bytes[0] {
        0x00 => "TEST UNIT READY",
        0x12 => "INQUIRY",
        0x1a | 0x5a => "MODE SENSE",
        0x25 => "READ CAPACITY(10)",
        0x28 => "READ(10)",
        0x2a => "WRITE(10)",
        0x35 => "SYNCHRONIZE CACHE(10)",
        0x88 => "READ(16)",
        0x8a => "WRITE(16)",
        0x91 => "SYNCHRONIZE CACHE(16)",
        0x9e => "SERVICE ACTION IN(16)",
        0xa0 => "REPORT LUNS",
        _ => "command",
    }
}

fn from_initiator(iu: &[u8], len: usize) -> String {
    match FromInitiator::parse(iu) {
        Ok(FromInitiator::Command(command)) => {
            let (lba, blocks) = super::target::extent_of(&command.cdb.bytes).unwrap_or_default();
            let name = cdb_name(&command.cdb.bytes);
            let (tag, lun) = (command.tag, command.lun.0 >> 48);
            let fua = match command.cdb.operation() {
                Operation::Read { fua: true, .. } | Operation::Write { fua: true, .. } => " FUA",
                _ => "",
            };
            let data = match command.data {
                Data::None | Data::Read(_) | Data::Write(_) => String::new(),
                Data::WriteImmediate { len } => format!(" immediate={len}"),
                Data::ReadIndirect { inline, .. } | Data::WriteIndirect { inline, .. } => {
                    format!(" descriptors={}", inline.len())
                }
            };
            format!("CMD tag={tag:#x} lun={lun} {name}{fua} lba={lba} blocks={blocks}{data}")
        }
        Ok(FromInitiator::TaskManagement(task)) => {
            let (tag, of) = (task.tag, task.task_tag);
            format!("TSK_MGMT tag={tag:#x} {} of={of:#x}", task.function)
        }
        Ok(FromInitiator::Logout(_)) => "I_LOGOUT".to_owned(),
        Ok(FromInitiator::CreditResponse(response)) => format!("CRED_RSP tag={:#x}", response.tag),
        Ok(FromInitiator::AsyncEventResponse(response)) => format!("AER_RSP tag={:#x}", response.tag),
        Err(_) => format!("{len} bytes"),
    }
}

fn from_target(iu: &[u8], len: usize) -> String {
    match FromTarget::parse(iu) {
        Ok(FromTarget::Response(response)) => {
            let sense = response.sense.map_or(String::new(), |sense| {
                format!(" sense={:02x?}", &sense[..sense.len().min(14)])
            });
            let residual = match response.data_in_residual.or(response.data_out_residual) {
                Some(Residual::Under(bytes)) => format!(" under={bytes}"),
                Some(Residual::Over(bytes)) => format!(" over={bytes}"),
                None => String::new(),
            };
            let (tag, status) = (response.tag, response.status);
            let delta = response.request_limit_delta;
            format!("RSP tag={tag:#x} status={status:#04x}{residual}{sense} delta={delta}")
        }
        Ok(FromTarget::CreditRequest(request)) => {
            format!("CRED_REQ tag={:#x} delta={}", request.tag, request.delta)
        }
        Ok(FromTarget::AsyncEvent(event)) => {
            format!("AER_REQ tag={:#x} delta={}", event.tag, event.delta)
        }
        Ok(FromTarget::Logout(logout)) => format!("T_LOGOUT: {}", logout.reason),
        Err(_) => format!("{len} unreadable bytes {:02x?}", &iu[..iu.len().min(16)]),
    }
}
