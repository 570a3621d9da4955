//! Attaching by itself: the targets that rules allow, as they appear.
//!
//! An attach that failed is tried again after each scan, as long as the target is there. What was attached and is detached
//! by somebody stays so, as they will have meant it, until its target vanishes and appears again.

use std::collections::HashMap;

use srp_discovery::listing::{LineOptions, add_target_line};
use srp_discovery::rules::{Rules, Verdict};
use srp_discovery::targets::Target;
use srp_discovery::watch::WatchEvent;
use tokio::task::JoinSet;

use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData, ErrorKind};

/// How an attach ends.
type Outcome = Result<AttachReport, ErrorData>;

/// Decides what is attached by itself, by way of a function that attaches.
pub(super) struct Attacher<F> {
    rules: Rules,
    attach: F,
    under_way: JoinSet<(String, Outcome)>,
    /// The lines that are being tried, or are to be tried again, with what was said about the last attempt.
    unfinished: HashMap<String, Attempt>,
}

#[derive(Default)]
struct Attempt {
    under_way: bool,
    error: Option<String>,
}

impl<F, R> Attacher<F>
where
    F: Fn(AttachParams) -> R,
    R: Future<Output = Outcome> + Send + 'static,
{
    pub(super) fn new(rules: Rules, attach: F) -> Self {
        Self {
            rules,
            attach,
            under_way: JoinSet::new(),
            unfinished: HashMap::new(),
        }
    }

    /// Starts what an event asks for.
    pub(super) fn see(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Appeared(target) => {
                if let Some(line) = login(&self.rules, target) {
                    self.attempt(line);
                }
            }
            WatchEvent::Vanished(target) => {
                if let Some(line) = login(&self.rules, target) {
                    self.unfinished.remove(&line);
                }
            }
            WatchEvent::Scanned(_) => {
                let failed = self.unfinished.iter().filter(|(_, attempt)| !attempt.under_way);
                let again: Vec<String> = failed.map(|(line, _)| line.clone()).collect();
                again.into_iter().for_each(|line| self.attempt(line));
            }
            _ => {}
        }
    }

    fn attempt(&mut self, line: String) {
        let attempt = self.unfinished.entry(line.clone()).or_default();
        if attempt.under_way {
            return;
        }
        attempt.under_way = true;
        let attaching = (self.attach)(AttachParams {
            target: line.clone(),
            ..AttachParams::default()
        });
        self.under_way.spawn(async move { (line, attaching.await) });
    }

    /// Waits until an attempt has ended, and takes note of it; for ever while there is none. May be given up.
    pub(super) async fn ended(&mut self) {
        let Some(ended) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        // One that panicked is not tried again.
        let Ok((target, result)) = ended else { return };
        match result {
            Ok(report) => {
                self.unfinished.remove(&target);
                tracing::info!(target, devices = report.devices.len(), "attached by itself");
            }
            // By us, or by the kernel's initiator.
            Err(error) if error.kind == ErrorKind::Exists => {
                self.unfinished.remove(&target);
                tracing::info!(target, reason = error.message, "not attached by itself");
            }
            Err(error) => {
                // It may have vanished meanwhile.
                let Some(attempt) = self.unfinished.get_mut(&target) else {
                    return;
                };
                attempt.under_way = false;
                if attempt.error.as_ref() != Some(&error.message) {
                    tracing::warn!(
                        target,
                        error = error.message,
                        "could not be attached by itself; it is tried again after each scan"
                    );
                    attempt.error = Some(error.message);
                }
            }
        }
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

    type Answers = Arc<Mutex<Vec<Outcome>>>;
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

    /// An attacher whose attempts end as the answers say, first to last; and what it has asked for.
    fn bench(
        rules: &str,
        answers: Vec<Outcome>,
    ) -> (Attacher<impl Fn(AttachParams) -> std::future::Ready<Outcome>>, Asked) {
        let answers: Answers = Arc::new(Mutex::new(answers.into_iter().rev().collect()));
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let attach = move |params: AttachParams| {
            seen.lock().unwrap().push(params.target);
            std::future::ready(answers.lock().unwrap().pop().unwrap())
        };
        (Attacher::new(Rules::parse(rules).unwrap(), attach), asked)
    }

    fn count(asked: &Asked) -> usize {
        asked.lock().unwrap().len()
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_until_it_works() {
        let answers = vec![failed(ErrorKind::Target), failed(ErrorKind::Target), attached()];
        let (mut attacher, asked) = bench("a queue_size=8", answers);
        attacher.see(&WatchEvent::Appeared(Box::new(target(0xa1))));
        // A scan while it is under way does not try it twice.
        attacher.see(&WatchEvent::Scanned(1));
        assert_eq!(count(&asked), 1);
        assert!(asked.lock().unwrap()[0].ends_with(",queue_size=8"));
        for tries in 2..=3 {
            attacher.ended().await;
            attacher.see(&WatchEvent::Scanned(1));
            assert_eq!(count(&asked), tries);
        }
        attacher.ended().await;
        attacher.see(&WatchEvent::Scanned(1));
        assert_eq!(count(&asked), 3, "what is detached by somebody stays so");
    }

    #[tokio::test]
    async fn what_is_not_tried_again() {
        let (mut attacher, asked) = bench(
            "d ioc_guid=b1",
            vec![failed(ErrorKind::Exists), failed(ErrorKind::Target)],
        );
        attacher.see(&WatchEvent::Appeared(Box::new(target(0xb1))));
        assert_eq!(count(&asked), 0, "disallowed");
        attacher.see(&WatchEvent::Appeared(Box::new(target(0xa1))));
        attacher.ended().await;
        attacher.see(&WatchEvent::Scanned(1));
        assert_eq!(count(&asked), 1, "somebody has it already");
        attacher.see(&WatchEvent::Appeared(Box::new(target(0xa2))));
        attacher.see(&WatchEvent::Vanished(Box::new(target(0xa2))));
        attacher.ended().await;
        attacher.see(&WatchEvent::Scanned(0));
        assert_eq!(count(&asked), 2, "it is gone");
    }
}
