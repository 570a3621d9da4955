//! The reactors of a daemon: an engine each, and one network for all of them.

use std::collections::BTreeMap;

use super::fabric::SimFabric;
use crate::fabric::{Completion, Extent, Fabric, QueuePairId, RemoteAccess};
use crate::session::{Engine, Limits, Mutation, RequestId};
use crate::wire::MemoryDescriptor;

/// Why a seat that is used is not empty.
const SEATED: &str = "the world seats the fabric at the engine it calls";

/// The place of the simulated fabric at an engine. There is one fabric, and it sits where the next call goes.
#[derive(Debug)]
pub struct Seat(Option<Box<SimFabric>>);

impl Seat {
    fn fabric(&self) -> &SimFabric {
        self.0.as_ref().expect(SEATED)
    }

    pub(super) fn fabric_mut(&mut self) -> &mut SimFabric {
        self.0.as_mut().expect(SEATED)
    }
}

/// The siblings of a reactor for a session, as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    /// Other reactors with a channel of the session.
    pub(super) reactors: Vec<usize>,
    /// How many lists have come. What is sent back of what was handed over by an earlier one says nothing of this one.
    pub(super) lists: u32,
}

/// A reactor.
#[derive(Debug)]
pub(super) struct Reactor {
    engine: Engine<Seat>,
    /// It is going to look at its completion queue.
    pub(super) pump_due: bool,
    /// By session.
    pub(super) siblings: BTreeMap<u32, Siblings>,
    /// Requests of other reactors: whose, and by which of its lists they were handed over.
    pub(super) foreign: BTreeMap<RequestId, (usize, u32)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Reactors {
    all: Vec<Reactor>,
    /// Where the fabric is.
    active: usize,
    limits: Limits,
    mutation: Option<Mutation>,
}

impl Reactors {
    pub(super) fn new(count: usize, fabric: SimFabric, limits: Limits, mutation: Option<Mutation>) -> Self {
        let mut fabric = Some(Box::new(fabric));
        let reactor = |_| Reactor {
            engine: engine(fabric.take(), limits, mutation),
            pump_due: false,
            siblings: BTreeMap::new(),
            foreign: BTreeMap::new(),
        };
        Self {
            all: (0..count.max(1)).map(reactor).collect(),
            active: 0,
            limits,
            mutation,
        }
    }

    /// The process is gone, and another one there.
    pub(super) fn anew(&mut self) {
        let mut fabric = self.all[self.active].engine.fabric_mut().0.take();
        for reactor in &mut self.all {
            reactor.engine = engine(fabric.take(), self.limits, self.mutation);
            reactor.siblings.clear();
            reactor.foreign.clear();
        }
        self.active = 0;
        self.fabric_mut().reactor = 0;
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn fabric(&self) -> &SimFabric {
        self.all[self.active].engine.fabric().fabric()
    }

    pub(super) fn fabric_mut(&mut self) -> &mut SimFabric {
        self.all[self.active].engine.fabric_mut().fabric_mut()
    }

    /// An engine, to be called.
    pub(super) fn at(&mut self, reactor: usize) -> &mut Engine<Seat> {
        if reactor != self.active {
            let mut fabric = self.all[self.active].engine.fabric_mut().0.take();
            if let Some(fabric) = &mut fabric {
                fabric.reactor = reactor;
            }
            self.all[reactor].engine.fabric_mut().0 = fabric;
            self.active = reactor;
        }
        &mut self.all[reactor].engine
    }

    /// An engine, to be looked at.
    pub(super) fn engine(&self, reactor: usize) -> &Engine<Seat> {
        &self.all[reactor].engine
    }

    pub(super) fn of(&mut self, reactor: usize) -> &mut Reactor {
        &mut self.all[reactor]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reactor> {
        self.all.iter()
    }

    pub(super) fn engines(&self) -> impl Iterator<Item = &Engine<Seat>> {
        self.all.iter().map(|reactor| &reactor.engine)
    }
}

#[cfg_attr(
    not(debug_assertions),
    expect(unused_mut, unused_variables, reason = "no defects there")
)]
fn engine(fabric: Option<Box<SimFabric>>, limits: Limits, mutation: Option<Mutation>) -> Engine<Seat> {
    let mut engine = Engine::new(Seat(fabric), limits);
    #[cfg(debug_assertions)]
    if let Some(mutation) = mutation {
        engine.mutate(mutation);
    }
    engine
}

impl Fabric for Seat {
    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.fabric_mut().poll(out);
    }

    fn send_slot(&mut self, qp: QueuePairId, slot: u16) -> &mut [u8] {
        self.fabric_mut().send_slot(qp, slot)
    }

    fn receive_slot(&self, qp: QueuePairId, slot: u16) -> &[u8] {
        self.fabric().receive_slot(qp, slot)
    }

    fn post_send(&mut self, qp: QueuePairId, slot: u16, len: u32, payload: Option<Extent>) {
        self.fabric_mut().post_send(qp, slot, len, payload);
    }

    fn post_receive(&mut self, qp: QueuePairId, slot: u16) {
        self.fabric_mut().post_receive(qp, slot);
    }

    fn post_bind(&mut self, qp: QueuePairId, slot: u16, extent: Extent, access: RemoteAccess) {
        self.fabric_mut().post_bind(qp, slot, extent, access);
    }

    fn post_invalidate(&mut self, qp: QueuePairId, slot: u16) {
        self.fabric_mut().post_invalidate(qp, slot);
    }

    fn flush(&mut self) {
        self.fabric_mut().flush();
    }

    fn flush_sends(&mut self) {
        self.fabric_mut().flush_sends();
    }

    fn fail(&mut self, qp: QueuePairId) {
        self.fabric_mut().fail(qp);
    }

    fn describe(&self, qp: QueuePairId, extent: Extent) -> MemoryDescriptor {
        self.fabric().describe(qp, extent)
    }

    fn describe_window(&self, qp: QueuePairId, slot: u16, extent: Extent) -> MemoryDescriptor {
        self.fabric().describe_window(qp, slot, extent)
    }

    fn copy_out(&self, qp: QueuePairId, extent: Extent, into: &mut [u8]) {
        self.fabric().check_there(qp, extent);
        self.fabric().copy_out(qp, extent, into);
    }

    fn copy_in(&mut self, qp: QueuePairId, extent: Extent, from: &[u8]) {
        self.fabric_mut().copy_in(qp, extent, from);
    }
}
