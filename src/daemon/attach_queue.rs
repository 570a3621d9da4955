//! The attaches of a session: beside everything else it does, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use srp_initiator::scsi::Lun;
use tokio::sync::{mpsc, oneshot};

use super::attach::{Attach, Wanted};
use super::device::{BlockDevice, DeviceGround};
use super::execute::SessionCommands;
use super::failure::{chain, ending, failure};
use super::session::{Answer, Session};
use crate::rpc::protocol::{AttachReport, ErrorData, ErrorKind, SkippedLun};

/// Who is told what came of an attach.
pub(crate) type Reply = oneshot::Sender<Result<AttachReport, ErrorData>>;

/// What comes of an attach, one by one.
pub(crate) enum Step {
    /// There is a block device.
    Attached(BlockDevice),
    /// There is none for this unit.
    LeftOut(Lun, SkippedLun),
    /// That was all.
    Over(Result<AttachReport, ErrorData>, Reply),
}

/// The attaches of a session, in the order they were asked for.
pub(crate) struct AttachQueue {
    waiting: VecDeque<(Wanted, Reply)>,
    under_way: bool,
    tell: mpsc::UnboundedSender<Step>,
    steps: mpsc::UnboundedReceiver<Step>,
}

impl AttachQueue {
    pub(crate) fn new() -> Self {
        let (tell, steps) = mpsc::unbounded_channel();
        Self {
            waiting: VecDeque::new(),
            under_way: false,
            tell,
            steps,
        }
    }

    /// Nothing is under way, and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        !self.under_way && self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, wanted: Wanted, reply: Reply) {
        self.waiting.push_back((wanted, reply));
    }

    /// The next one, unless one is under way. It sees what those before it have made.
    pub(crate) fn next(&mut self) -> Option<(Wanted, Reply)> {
        if self.under_way { None } else { self.waiting.pop_front() }
    }

    /// Starts one.
    pub(crate) fn start(&mut self, attach: Attach, wanted: Wanted, reply: Reply) {
        self.under_way = true;
        let tell = self.tell.clone();
        let disks = tokio::spawn(attach.disks(wanted, self.tell.clone()));
        tokio::spawn(async move {
            let outcome = disks.await;
            let outcome = outcome.unwrap_or_else(|error| Err(failure(ErrorKind::Internal, chain(&error))));
            let _ = tell.send(Step::Over(outcome, reply));
        });
    }

    /// Waits for the next step of the one under way.
    pub(crate) async fn step(&mut self) -> Step {
        match self.steps.recv().await {
            Some(step) => {
                self.under_way &= !matches!(step, Step::Over(..));
                step
            }
            // Not as long as there is a sender here.
            None => std::future::pending().await,
        }
    }
}

impl Session {
    /// Starts the next attach when it is its turn, or says why it cannot be.
    pub(super) fn attach_next(&mut self) -> Option<Answer> {
        let (wanted, reply) = self.attaches.next()?;
        match self.attach() {
            Ok(attach) => {
                self.attaches.start(attach, wanted, reply);
                None
            }
            Err(refused) => Some(Box::new(|| drop(reply.send(Err(refused))))),
        }
    }

    /// What an attach goes by that starts now, unless the session takes none.
    fn attach(&self) -> Result<Attach, ErrorData> {
        if self.ground.is_ending() {
            return Err(failure(ErrorKind::Busy, "the daemon has been told to end"));
        }
        if let Some(reason) = self.lost.as_ref().filter(|_| !self.devices.is_empty()) {
            let message = format!("session {} to this target is lost ({reason})", self.key.0);
            return Err(failure(ErrorKind::Exists, message)
                .remedy("detach its devices (`ublk-srp list` names them), then attach again"));
        }
        let channel = self.live().next().filter(|_| !*self.over.borrow());
        let reactor = channel.ok_or_else(|| ending(self.key))?.reactor.clone();
        let commands = self.live().map(|channel| channel.plan.commands).min().unwrap_or(1);
        Ok(Attach {
            ground: DeviceGround {
                daemon: Arc::clone(&self.ground),
                session: self.key,
                owners: self.owners.clone(),
                depth: commands.min(self.queue_depth()),
                max_transfer: self.shared.max_transfer,
            },
            commands: SessionCommands {
                session: self.key,
                reactor,
            },
            address: self.address,
            session: self.snapshot().session,
            there: self
                .devices
                .values()
                .map(|device| (device.lun(), device.number()))
                .collect(),
            over: self.over.subscribe(),
        })
    }

    /// Something came of the attach under way. Once it is over, its answer and that of a next one that cannot be.
    pub(super) fn attach_step(&mut self, step: Step) -> Vec<Answer> {
        match step {
            Step::Attached(device) => {
                self.others.remove(&device.lun());
                self.devices.insert(device.number(), Arc::new(device));
                Vec::new()
            }
            Step::LeftOut(lun, skipped) => {
                self.others.insert(lun, skipped);
                Vec::new()
            }
            Step::Over(mut outcome, reply) => {
                if let Ok(report) = &mut outcome {
                    report.session = self.snapshot().session;
                    // Somebody may have detached some already.
                    report.devices.retain(|told| {
                        let there = self.devices.get(&told.number);
                        there.is_some_and(|device| device.lun().to_string() == told.lun)
                    });
                }
                let mut answers: Vec<Answer> = vec![Box::new(|| drop(reply.send(outcome)))];
                answers.extend(std::iter::from_fn(|| self.attach_next()));
                answers
            }
        }
    }
}
