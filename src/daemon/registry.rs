//! All sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use srp_addressing::{Gid, TargetOptions};
use srp_discovery::targets::Target;
use srp_discovery::watch::PROBE_WITHIN;
use srp_initiator::session::SessionKey;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Ground;
use super::attach::Wanted;
use super::channels;
use super::dismissed::Dismissed;
use super::failure::{ending, failure};
use super::nexus::{self, Holder, Nexuses};
use super::session::Request;
use super::snapshot::Snapshot;
use crate::rpc::protocol::{
    AttachParams, AttachReport, DaemonStatus, DetachParams, DetachReport, Detached, DeviceDetail, ErrorData, ErrorKind,
    Listing, ProbeReport, Probed, ShowParams,
};

/// An attach of a unit that does not answer is not waited for any longer when the daemon ends.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at until then.
const GLANCE: Duration = Duration::from_millis(50);

/// The sessions of the daemon.
pub(crate) struct Registry {
    ground: Arc<Ground>,
    sessions: Mutex<HashMap<SessionKey, Entry>>,
    nexuses: Nexuses,
    dismissed: Dismissed,
}

/// How a target that is to be attached by itself stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody has it.
    Free,
    /// It has a session, whoever wanted that, or is about to have one.
    Held,
    /// Somebody has detached it.
    Dismissed,
}

/// How a session is reached.
struct Entry {
    target: TargetOptions,
    requests: mpsc::UnboundedSender<Request>,
    /// Nothing until it has logged in.
    snapshot: watch::Receiver<Option<Snapshot>>,
    /// Somebody has asked for the detach of one of its devices.
    detaches: bool,
}

impl Registry {
    pub(crate) fn new(ground: Arc<Ground>) -> Self {
        Self {
            ground,
            sessions: Mutex::default(),
            nexuses: Nexuses::default(),
            dismissed: Dismissed::default(),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionKey, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn attach(self: &Arc<Self>, params: AttachParams) -> Result<AttachReport, ErrorData> {
        let wanted = Wanted::parse(&params)?;
        let (reply, answer) = oneshot::channel();
        let target = wanted.target.clone();
        let request = Request::Attach(wanted, reply);
        let key = {
            let mut sessions = self.sessions();
            let same = sessions.iter().find(|(_, entry)| same_target(&entry.target, &target));
            match same {
                Some((&key, entry)) => {
                    entry.requests.send(request).map_err(|_| ending(key))?;
                    key
                }
                None => self.start(&mut sessions, target, request),
            }
        };
        answer.await.unwrap_or_else(|_| Err(ending(key)))
    }

    /// Starts the task of a new session, with its first request.
    fn start(
        self: &Arc<Self>,
        sessions: &mut HashMap<SessionKey, Entry>,
        target: TargetOptions,
        first: Request,
    ) -> SessionKey {
        let key = SessionKey(self.ground.next_key());
        let (requests, inbox) = mpsc::unbounded_channel();
        let (publish, snapshot) = watch::channel(None);
        self.ground.routes().insert(key, requests.clone());
        sessions.insert(
            key,
            Entry {
                target: target.clone(),
                requests: requests.clone(),
                snapshot,
                detaches: false,
            },
        );
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let take = |pair| {
                let taken = registry.nexuses.take(pair, key);
                taken.map_err(|session| Holder {
                    session,
                    port: registry
                        .sessions()
                        .get(&session)
                        .and_then(|entry| nexus::port(&entry.target)),
                })
            };
            let login = channels::log_in(&registry.ground, key, &target, &requests, take).await;
            drop(requests);
            match login {
                Ok(session) => session.run(first, inbox, publish, || registry.forget(key)).await,
                Err(error) => {
                    registry.forget(key);
                    refuse(first, &error);
                    let mut inbox = inbox;
                    inbox.close();
                    while let Some(request) = inbox.recv().await {
                        refuse(request, &error);
                    }
                }
            }
        });
        key
    }

    /// From now on the target can be attached afresh.
    fn forget(&self, key: SessionKey) {
        {
            let mut sessions = self.sessions();
            let ended = sessions.get(&key).filter(|entry| entry.detaches);
            if let Some(entry) = ended
                && let Some(snapshot) = &*entry.snapshot.borrow()
            {
                // Before anybody can see that it has no session.
                self.dismissed.dismiss(&entry.target, &snapshot.target_gids);
            }
            sessions.remove(&key);
        }
        self.nexuses.give_back(key);
        self.ground.routes().remove(&key);
    }

    fn snapshots(&self) -> Vec<(SessionKey, Snapshot)> {
        let sessions = self.sessions();
        let logged_in = sessions
            .iter()
            .filter_map(|(key, entry)| Some((*key, entry.snapshot.borrow().clone()?)));
        let mut all: Vec<_> = logged_in.collect();
        all.sort_by_key(|(key, _)| key.0);
        all
    }

    pub(super) fn list(&self) -> Listing {
        let mut listing = Listing {
            devices: Vec::new(),
            sessions: Vec::new(),
        };
        for (_, snapshot) in self.snapshots() {
            listing.devices.extend(snapshot.devices);
            listing.sessions.push(snapshot.session);
        }
        listing.devices.sort_by_key(|device| device.number);
        listing
    }

    /// The session a device belongs to.
    fn session_of(&self, number: u32) -> Option<mpsc::UnboundedSender<Request>> {
        let has = |snapshot: &Snapshot| snapshot.devices.iter().any(|device| device.number == number);
        let (key, _) = self.snapshots().into_iter().find(|(_, snapshot)| has(snapshot))?;
        Some(self.sessions().get(&key)?.requests.clone())
    }

    /// The same, for somebody who wants that device detached.
    fn session_to_detach(&self, number: u32) -> Option<mpsc::UnboundedSender<Request>> {
        let has = |snapshot: &Snapshot| snapshot.devices.iter().any(|device| device.number == number);
        let (key, _) = self.snapshots().into_iter().find(|(_, snapshot)| has(snapshot))?;
        let mut sessions = self.sessions();
        let entry = sessions.get_mut(&key)?;
        entry.detaches = true;
        Some(entry.requests.clone())
    }

    pub(super) async fn detach(&self, params: &DetachParams) -> Result<DetachReport, ErrorData> {
        let numbers = match (params.all, params.devices.is_empty()) {
            (true, true) => self.list().devices.iter().map(|device| device.number).collect(),
            (false, false) => params.devices.clone(),
            _ => return Err(failure(ErrorKind::Usage, "either device numbers or all of them")),
        };
        let mut waiting = Vec::new();
        for number in numbers {
            let (reply, answer) = oneshot::channel();
            let request = Request::Detach {
                number,
                force: params.force,
                reply,
            };
            let sent = self
                .session_to_detach(number)
                .is_some_and(|session| session.send(request).is_ok());
            waiting.push((number, sent, answer));
        }
        let mut devices = Vec::new();
        for (number, sent, answer) in waiting {
            devices.push(answer.await.unwrap_or_else(|_| not_found(number, sent)));
        }
        Ok(DetachReport { devices })
    }

    pub(super) async fn show(&self, params: &ShowParams) -> Result<DeviceDetail, ErrorData> {
        let number = params.device;
        let missing = || {
            failure(
                ErrorKind::NotFound,
                format!("/dev/ublkb{number} is not a device of this daemon"),
            )
            .remedy("`ublk-srp list` shows the devices")
        };
        let session = self.session_of(number).ok_or_else(missing)?;
        let (reply, answer) = oneshot::channel();
        session.send(Request::Show { number, reply }).map_err(|_| missing())?;
        answer.await.unwrap_or_else(|_| Err(missing()))
    }

    /// How a target stands for being attached by itself.
    pub(super) fn standing(&self, target: &Target) -> Standing {
        let id_ext = u64::from_str_radix(&target.id_ext, 16).ok();
        let comes = self.sessions().values().any(|entry| {
            (Some(entry.target.id_ext), entry.target.ioc_guid) == (id_ext, target.ioc_guid)
                && entry.snapshot.borrow().is_none()
                && nexus::port(&entry.target).is_none_or(|gid| gid == target.gid)
        });
        if comes || self.session_to(target).is_some() {
            Standing::Held
        } else if self.dismissed.has(target) {
            Standing::Dismissed
        } else {
            Standing::Free
        }
    }

    /// Attaches what somebody wants, whatever they have detached before.
    pub(super) async fn attach_as_wanted(self: &Arc<Self>, params: AttachParams) -> Result<AttachReport, ErrorData> {
        if let Ok(target) = params.target.parse() {
            self.dismissed.recall(&target);
        }
        self.attach(params).await
    }

    /// The session to a target.
    pub(super) fn session_to(&self, target: &Target) -> Option<u32> {
        let id_ext = u64::from_str_radix(&target.id_ext, 16).ok()?;
        let sessions = self.sessions();
        let mut found = sessions.iter().filter(|(_, entry)| {
            (entry.target.id_ext, entry.target.ioc_guid) == (id_ext, target.ioc_guid)
                && entry
                    .snapshot
                    .borrow()
                    .as_ref()
                    .is_some_and(|s| s.target_gids.contains(&target.gid))
        });
        found.next().map(|(key, _)| key.0)
    }

    /// Has every session to a port ask its target whether it is there. One that does not answer within
    /// [`PROBE_WITHIN`] is lost; `why` it was asked is part of the reason.
    pub(super) async fn probe(&self, port: Gid, why: &str) -> ProbeReport {
        let mut probes = JoinSet::new();
        for (key, snapshot) in self.snapshots() {
            if snapshot.target_gids.contains(&port) && snapshot.session.reason.is_none() {
                let subject = snapshot.subject;
                probes.spawn(async move { (key, subject.answers(PROBE_WITHIN).await) });
            }
        }
        let mut report = ProbeReport { sessions: Vec::new() };
        while let Some(ended) = probes.join_next().await {
            let Ok((key, alive)) = ended else { continue };
            report.sessions.push(Probed { session: key.0, alive });
            if alive {
                tracing::info!(session = key.0, %port, why, "the target answers: its session stays");
                continue;
            }
            let limit = PROBE_WITHIN.as_secs();
            let reason = format!("{why}, and the target does not answer within {limit} s");
            if let Some(entry) = self.sessions().get(&key) {
                let _ = entry.requests.send(Request::PathLost(reason));
            }
        }
        report.sessions.sort_by_key(|probed| probed.session);
        report
    }

    pub(super) fn status(&self) -> DaemonStatus {
        let listing = self.list();
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            reactors: count(self.ground.reactors.count()),
            devices: count(listing.devices.len()),
            sessions: count(listing.sessions.len()),
        }
    }

    /// Detaches everything, whoever uses it: the daemon ends, and its devices cannot outlive it. An attach under way comes to
    /// the end of the unit it is at, whose device is detached as well.
    pub(crate) async fn end(&self) {
        self.ground.end();
        let patience = Instant::now() + ATTACH_LIMIT;
        let mut kept = BTreeSet::new();
        loop {
            let devices: Vec<u32> = self.list().devices.iter().map(|device| device.number).collect();
            let devices: Vec<u32> = devices.into_iter().filter(|number| !kept.contains(number)).collect();
            if devices.is_empty() {
                // It attaches, or logs out.
                let is_busy = |snapshot: &Snapshot| snapshot.devices.is_empty();
                let busy = self.snapshots().iter().any(|(_, snapshot)| is_busy(snapshot));
                if !busy || Instant::now() >= patience {
                    return;
                }
                sleep(GLANCE).await;
                continue;
            }
            let all = DetachParams {
                devices,
                all: false,
                force: true,
            };
            match self.detach(&all).await {
                Ok(report) => {
                    for device in report.devices {
                        kept.extend((!device.detached).then_some(device.number));
                        match device.error {
                            None => tracing::info!(device = device.number, notes = ?device.notes, "detached"),
                            Some(error) => {
                                tracing::error!(device = device.number, error = error.message, "not detached");
                            }
                        }
                    }
                }
                Err(error) => return tracing::error!(error = error.message, "devices could not be detached"),
            }
        }
    }
}

/// Whether two texts mean the same session: the same target port by the same way, as the same initiator.
fn same_target(one: &TargetOptions, other: &TargetOptions) -> bool {
    let key = |target: &TargetOptions| (target.id_ext, target.ioc_guid, target.initiator_ext.unwrap_or(0));
    key(one) == key(other) && one.transport == other.transport
}

fn not_found(number: u32, ended: bool) -> Detached {
    let message = if ended {
        format!("the session of /dev/ublkb{number} ended meanwhile")
    } else {
        format!("/dev/ublkb{number} is not a device of this daemon")
    };
    let error = failure(ErrorKind::NotFound, message).remedy("`ublk-srp list` shows the devices");
    Detached {
        number,
        detached: false,
        notes: Vec::new(),
        error: Some(error),
    }
}

/// Answers a request to a session that could not log in.
fn refuse(request: Request, error: &ErrorData) {
    match request {
        Request::Attach(_, reply) => drop(reply.send(Err(error.clone()))),
        Request::Detach { number, reply, .. } => drop(reply.send(not_found(number, true))),
        Request::Show { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Reactor(_) | Request::ConnectionLost { .. } | Request::PathLost(_) => {}
    }
}
