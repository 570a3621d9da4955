//! A device management agent on a port of the simulated fabric.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use srp_discovery::mad::{Mad, class};
use srp_discovery::model::SrpAgent;
use zerocopy::IntoBytes;

use super::client::Attached;

/// An agent with one SRP controller; gone when it is dropped.
pub(crate) struct AgentPort {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AgentPort {
    /// One at `node`, whose controller has `guid`.
    pub(crate) fn new(socket: &str, node: &str, guid: u64) -> Self {
        // ibsim hands requests only to a program that calls itself a subnet manager.
        let node = Attached::new(socket, node, true);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let agent = SrpAgent::new(guid);
            while !stopped.load(Ordering::Relaxed) {
                let Some((from, false, bytes)) = node.receive(Duration::from_millis(50)) else {
                    continue;
                };
                let request = Mad::parse(&bytes).unwrap();
                if request.header.mgmt_class == class::DEVICE_MANAGEMENT && request.header.method == 1 {
                    let answer = agent.answer(request);
                    node.transmit(from.lid, from.qpn, answer.as_bytes()).unwrap();
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for AgentPort {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
