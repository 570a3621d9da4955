//! What a world is made of.

use srp_addressing::PortId;

use super::odds::{Profile, Span};
use super::target::TargetProfile;
use crate::fabric::Exposure;
use crate::session::{Fence, Limits, Mutation};

/// A session of the world.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// The initiator port it logs in with.
    pub port: PortId,
    /// Its disks, as numbers of logical units below 256; they are their [`crate::session::LunKey`]s too.
    pub luns: Vec<u32>,
    /// How many channels it wants; the reactors get them in turn.
    pub channels: usize,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Everything that is random follows from it.
    pub seed: u64,
    /// The network.
    pub profile: Profile,
    /// The target.
    pub target: TargetProfile,
    /// The engine's time limits.
    pub limits: Limits,
    /// Commands wished for per channel.
    pub queue_size: u16,
    /// Bytes of a send slot at most: what is shorter than the longest IU holds fewer descriptors.
    pub send_slot: u32,
    /// Bytes of each data arena.
    pub arena: u32,
    /// How the target reaches them.
    pub exposure: Exposure,
    /// The longest transfer of one command.
    pub max_transfer: u32,
    /// How many pieces the data of a command may be in.
    pub descriptors: u16,
    /// Bytes of the largest write that is to carry its data in the command.
    pub immediate_data: u32,
    /// Whether logical units may be reset.
    pub fence: Fence,
    /// The sessions.
    pub sessions: Vec<SessionSpec>,
    /// How many reactors share them.
    pub reactors: usize,
    /// From one reactor's mailbox to another's.
    pub mail: Span,
    /// Until a reactor is told by the control side that others got or lost channels.
    pub tell: Span,
    /// A session that lost its channel logs in again after this.
    pub relogin: Option<Span>,
    /// How often per mille the client cannot supply a write's data.
    pub unsupplied: u16,
    /// A defect of the engine (in builds with debug assertions).
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            profile: Profile::default(),
            target: TargetProfile::default(),
            limits: Limits::default(),
            queue_size: 32,
            send_slot: u32::MAX,
            arena: 1 << 20,
            exposure: Exposure::Pool,
            max_transfer: 256 << 10,
            descriptors: 1,
            immediate_data: 0,
            fence: Fence::LunReset,
            sessions: vec![SessionSpec {
                port: PortId([1; 16]),
                luns: vec![0],
                channels: 1,
            }],
            reactors: 1,
            mail: Span::micros(0, 50),
            tell: Span::micros(0, 2000),
            relogin: None,
            unsupplied: 0,
            mutation: None,
        }
    }
}
