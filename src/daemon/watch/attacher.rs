//! Attaching by itself: the targets that rules allow, while they are there.
//!
//! A target is attached when it appears, and after each scan where that failed, or somebody else had it and has let it go.
//! What somebody has detached stays so, also when it vanishes and appears again, until somebody attaches it or the daemon
//! is started anew: a detach is a decision, which a rule made beforehand must not undo.

use std::collections::HashMap;

use srp_discovery::listing::{LineOptions, add_target_line};
use srp_discovery::ports::PortName;
use srp_discovery::rules::{Rules, Verdict};
use srp_discovery::targets::Target;
use srp_discovery::watch::WatchEvent;
use tokio::task::JoinSet;

use crate::daemon::registry::Standing;
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData, ErrorKind};

/// How an attach ends.
type Outcome = Result<AttachReport, ErrorData>;
/// A target as a local port sees it: the port, and the login that the rules want.
type Sight = (PortName, String);

/// What is said of a target that is left alone.
const LEFT_ALONE: &str = "somebody has detached it: it is not attached by itself until somebody attaches it";

/// Decides what is attached by itself, by way of a function that attaches and one that knows how a target stands.
pub(super) struct Attacher<F, S> {
    rules: Rules,
    attach: F,
    standing: S,
    under_way: JoinSet<(Sight, Outcome)>,
    /// The targets that are there and wanted.
    wanted: HashMap<Sight, Wanted>,
}

struct Wanted {
    target: Target,
    under_way: bool,
    /// Why it is not attached, as it was said last.
    said: Option<String>,
}

impl<F, R, S> Attacher<F, S>
where
    F: Fn(AttachParams) -> R,
    R: Future<Output = Outcome> + Send + 'static,
    S: Fn(&Target) -> Standing,
{
    pub(super) fn new(rules: Rules, attach: F, standing: S) -> Self {
        Self {
            rules,
            attach,
            standing,
            under_way: JoinSet::new(),
            wanted: HashMap::new(),
        }
    }

    /// Starts what an event asks for.
    pub(super) fn see(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Appeared(target) => {
                if let Some(sight) = self.sight(target) {
                    let wanted = Wanted {
                        target: (**target).clone(),
                        under_way: false,
                        said: None,
                    };
                    self.wanted.entry(sight.clone()).or_insert(wanted);
                    self.attempt(&sight);
                }
            }
            WatchEvent::Vanished(target) => {
                if let Some(sight) = self.sight(target) {
                    self.wanted.remove(&sight);
                }
            }
            WatchEvent::Scanned(_) => {
                let mut all: Vec<Sight> = self.wanted.keys().cloned().collect();
                all.sort();
                all.iter().for_each(|sight| self.attempt(sight));
            }
            _ => {}
        }
    }

    fn sight(&self, target: &Target) -> Option<Sight> {
        Some((target.port.clone(), login(&self.rules, target)?))
    }

    fn attempt(&mut self, sight: &Sight) {
        let (_, line) = sight;
        // Two ports of this host may see the same target.
        let mut same = self.wanted.iter().filter(|((_, other), _)| other == line);
        if same.any(|(_, wanted)| wanted.under_way) {
            return;
        }
        let Some(wanted) = self.wanted.get_mut(sight) else {
            return;
        };
        match (self.standing)(&wanted.target) {
            Standing::Free => {}
            // Which of its units are attached is the business of whoever attached it.
            Standing::Held => return,
            Standing::Dismissed => {
                if wanted.says(LEFT_ALONE) {
                    tracing::info!(target = line, "{LEFT_ALONE}");
                }
                return;
            }
        }
        wanted.under_way = true;
        let attaching = (self.attach)(AttachParams {
            target: line.clone(),
            ..AttachParams::default()
        });
        let sight = sight.clone();
        self.under_way.spawn(async move { (sight, attaching.await) });
    }

    /// Waits until an attempt has ended, and takes note of it; for ever while there is none. May be given up.
    pub(super) async fn ended(&mut self) {
        let Some(ended) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        // One that panicked is not tried again.
        let Ok((sight, result)) = ended else { return };
        let (_, target) = &sight;
        if let Ok(report) = &result {
            tracing::info!(target, devices = report.devices.len(), "attached by itself");
        }
        // It may have vanished meanwhile.
        let Some(wanted) = self.wanted.get_mut(&sight) else {
            return;
        };
        wanted.under_way = false;
        let Err(error) = result else {
            wanted.said = None;
            return;
        };
        if !wanted.says(&error.message) {
            return;
        }
        let (reason, remedy) = (error.message, error.remedy.unwrap_or_default());
        // Another session has it, of ours or of the kernel's initiator.
        if error.kind == ErrorKind::Exists {
            tracing::info!(
                target,
                reason,
                "not attached by itself; it is tried again after each scan"
            );
        } else {
            tracing::warn!(
                target,
                reason,
                remedy,
                "could not be attached by itself; it is tried again after each scan"
            );
        }
    }
}

impl Wanted {
    /// Whether this is news; from now on it is none.
    fn says(&mut self, reason: &str) -> bool {
        let new = self.said.as_deref() != Some(reason);
        if new {
            self.said = Some(reason.to_owned());
        }
        new
    }
}

/// The login that the rules want for a target.
fn login(rules: &Rules, target: &Target) -> Option<String> {
    let Verdict::Allow(rule_options) = rules.verdict(target) else {
        return None;
    };
    let options = LineOptions {
        rule_options,
        ..LineOptions::default()
    };
    add_target_line(target, &options)
        .inspect_err(|error| tracing::warn!("{error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use crate::daemon::known::samples::target;

    type Asked = Arc<Mutex<Vec<String>>>;

    fn failed(kind: ErrorKind) -> Outcome {
        Err(crate::daemon::failure::failure(kind, "refused"))
    }

    fn attached() -> Outcome {
        Ok(AttachReport {
            session: crate::cli::samples::session(),
            devices: Vec::new(),
            skipped: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// What the attacher under test reaches.
    struct World {
        /// How attempts end, last to first.
        answers: Mutex<Vec<Outcome>>,
        asked: Asked,
        standing: Mutex<Standing>,
    }

    impl World {
        fn is(&self, standing: Standing) {
            *self.standing.lock().unwrap() = standing;
        }

        fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn world(answers: Vec<Outcome>) -> Arc<World> {
        Arc::new(World {
            answers: Mutex::new(answers.into_iter().rev().collect()),
            asked: Asked::default(),
            standing: Mutex::new(Standing::Free),
        })
    }

    fn attacher(
        rules: &str,
        world: &Arc<World>,
    ) -> Attacher<impl Fn(AttachParams) -> std::future::Ready<Outcome>, impl Fn(&Target) -> Standing> {
        let (attaching, asking) = (Arc::clone(world), Arc::clone(world));
        let attach = move |params: AttachParams| {
            attaching.asked.lock().unwrap().push(params.target);
            let answer = attaching.answers.lock().unwrap().pop().unwrap();
            if answer.is_ok() {
                attaching.is(Standing::Held);
            }
            std::future::ready(answer)
        };
        let standing = move |_: &Target| *asking.standing.lock().unwrap();
        Attacher::new(Rules::parse(rules).unwrap(), attach, standing)
    }

    fn appeared(guid: u64) -> WatchEvent {
        WatchEvent::Appeared(Box::new(target(guid)))
    }

    fn vanished(guid: u64) -> WatchEvent {
        WatchEvent::Vanished(Box::new(target(guid)))
    }

    const SCANNED: WatchEvent = WatchEvent::Scanned(1);

    #[tokio::test]
    async fn what_failed_is_tried_again_until_it_works() {
        let answers = vec![failed(ErrorKind::Target), failed(ErrorKind::Target), attached()];
        let world = world(answers);
        let mut attacher = attacher("a queue_size=8", &world);
        attacher.see(&appeared(0xa1));
        // A scan while it is under way does not try it twice, nor does another port that sees it.
        attacher.see(&SCANNED);
        let mut other = target(0xa1);
        other.port.number += 1;
        attacher.see(&WatchEvent::Appeared(Box::new(other)));
        assert_eq!(world.count(), 1);
        assert!(world.asked.lock().unwrap()[0].ends_with(",queue_size=8"));
        for tries in 2..=3 {
            attacher.ended().await;
            attacher.see(&SCANNED);
            assert_eq!(world.count(), tries);
        }
        attacher.ended().await;
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 3, "it has its session");
    }

    #[tokio::test]
    async fn what_somebody_else_had_is_attached_when_it_is_let_go() {
        let answers = vec![failed(ErrorKind::Exists), failed(ErrorKind::Exists), attached()];
        let world = world(answers);
        let mut attacher = attacher("a", &world);
        attacher.see(&appeared(0xa1));
        attacher.ended().await;
        let wanted = attacher.wanted.values_mut().next().unwrap();
        assert_eq!(wanted.said.as_deref(), Some("refused"));
        assert!(!wanted.says("refused"), "not said again");
        // The kernel's initiator still has it, and then has not.
        attacher.see(&SCANNED);
        attacher.ended().await;
        attacher.see(&SCANNED);
        attacher.ended().await;
        let said = &attacher.wanted.values().next().unwrap().said;
        assert_eq!((world.count(), said), (3, &None));
        // A session of ours, whoever asked for it, is not looked into.
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 3);
        // It has ended, and nobody has detached it.
        world.is(Standing::Free);
        world.answers.lock().unwrap().push(attached());
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 4);
    }

    #[tokio::test]
    async fn what_somebody_has_detached_stays_so() {
        let world = world(vec![attached(), attached()]);
        let mut attacher = attacher("a", &world);
        attacher.see(&appeared(0xa1));
        attacher.ended().await;
        world.is(Standing::Dismissed);
        attacher.see(&SCANNED);
        // Nor does it count that the target goes and comes back, or its HCA.
        attacher.see(&vanished(0xa1));
        attacher.see(&SCANNED);
        attacher.see(&appeared(0xa1));
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 1);
        // Somebody has attached it by hand, and the session has ended otherwise.
        world.is(Standing::Held);
        attacher.see(&SCANNED);
        world.is(Standing::Free);
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 2);
    }

    #[tokio::test]
    async fn what_is_not_wanted_or_not_there() {
        let world = world(vec![failed(ErrorKind::Target)]);
        let mut attacher = attacher("d ioc_guid=b1", &world);
        attacher.see(&appeared(0xb1));
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 0, "disallowed");
        attacher.see(&appeared(0xa2));
        attacher.see(&vanished(0xa2));
        attacher.ended().await;
        attacher.see(&SCANNED);
        assert_eq!(world.count(), 1, "it is gone");
    }
}
