//! Sending questions and receiving answers, whatever carries them.

mod exchange;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use srp_addressing::Gid;

pub use exchange::{Answer, Ended, Exchange, Next, Query, QueryError, Ticket};

use crate::mad::{GSI_QKEY, GSI_QP, MAD_LEN};

/// Where a MAD is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The LID; 0 on RoCE, where the GRH alone leads there.
    pub lid: u16,
    /// The queue pair.
    pub qpn: u32,
    /// Its Q_Key.
    pub qkey: u32,
    /// The service level.
    pub sl: u8,
    /// Which entry of the local P_Key table to send with.
    pub pkey_index: u16,
    /// The global route header, if one is sent; RoCE always needs one.
    pub grh: Option<Grh>,
}

/// A global route header (IBA 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grh {
    /// The destination.
    pub gid: Gid,
    /// Which entry of the local GID table to send from; the kernel's interface has eight bits for it.
    pub source_index: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The traffic class.
    pub traffic_class: u8,
    /// The flow label.
    pub flow_label: u32,
}

impl Address {
    /// The general service queue pair of a RoCE port.
    #[must_use]
    pub const fn roce(gid: Gid, source_index: u8, pkey_index: u16) -> Self {
        let grh = Grh {
            gid,
            source_index,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        Self {
            lid: 0,
            qpn: GSI_QP,
            qkey: GSI_QKEY,
            sl: 0,
            pkey_index,
            grh: Some(grh),
        }
    }

    /// The general service queue pair of an InfiniBand port in the same subnet.
    #[must_use]
    pub const fn infiniband(lid: u16, pkey_index: u16) -> Self {
        Self {
            lid,
            qpn: GSI_QP,
            qkey: GSI_QKEY,
            sl: 0,
            pkey_index,
            grh: None,
        }
    }

    /// Whether a MAD that came from `source` may be the answer of this address.
    #[must_use]
    pub fn may_answer_from(&self, source: &Source) -> bool {
        match self.grh {
            Some(grh) => source.gid == Some(grh.gid),
            None => source.lid == self.lid,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.grh {
            Some(grh) => write!(f, "GID {}", grh.gid)?,
            None => write!(f, "LID 0x{:04x}", self.lid)?,
        }
        if self.qpn == GSI_QP {
            Ok(())
        } else {
            write!(f, " QP 0x{:x}", self.qpn)
        }
    }
}

/// Where a MAD came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The LID; 0 on RoCE.
    pub lid: u16,
    /// The queue pair.
    pub qpn: u32,
    /// The source GID, if a GRH came with it.
    pub gid: Option<Gid>,
}

/// How long and how often to wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long one try may take.
    pub timeout: Duration,
    /// How often to send again after the first try.
    pub retries: u32,
}

impl Patience {
    /// How long all tries take.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.timeout.saturating_mul(self.retries.saturating_add(1))
    }
}

impl Default for Patience {
    /// What `ibsrpdm` waits: three retries of 5 s.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            retries: 3,
        }
    }
}

/// How often a question is put again to somebody who is busy.
const BUSY_TRIES: u8 = 5;
/// After the first time; doubled after each.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// When to put a question again that somebody was too busy for, and `before` that so many times; `None`: not again.
pub(crate) fn busy_pause(before: u8) -> Option<Duration> {
    (before < BUSY_TRIES).then(|| BUSY_PAUSE * (1 << before))
}

/// What a transport has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A MAD arrived.
    Mad {
        /// From where.
        from: Source,
        /// Its bytes, as many as came; of an answer in several segments (RMPP) the first header and all data.
        bytes: Vec<u8>,
    },
    /// A request was sent as often as was asked for, and nobody answered.
    Unanswered {
        /// The lower 32 bits of its transaction id.
        tid: u32,
    },
    /// Nothing happened until the time given.
    Idle,
}

/// A request that could not be sent. The transport lives on.
#[derive(Debug, thiserror::Error)]
#[error("cannot send to {to}: {cause} ({remedy})")]
pub struct SendError {
    /// The destination, in words.
    pub to: String,
    /// What the kernel said.
    #[source]
    pub cause: io::Error,
    /// What may help.
    pub remedy: &'static str,
}

/// A transport that is gone, and every question with it.
#[derive(Debug, thiserror::Error)]
#[error("the MAD device failed: {cause} (was the RDMA device removed? look at `rdma link`)")]
pub struct TransportError {
    /// What the kernel said.
    #[source]
    pub cause: io::Error,
}

/// Something that carries MADs.
pub trait MadTransport {
    /// The transport's clock.
    fn now(&self) -> Instant;

    /// Sends a request, again and again while `patience` lasts, always with the same transaction id. Only the
    /// lower 32 bits of the id reach the other side unchanged.
    ///
    /// # Errors
    /// When this request cannot be sent.
    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError>;

    /// Sends an answer, once.
    ///
    /// # Errors
    /// When it cannot be sent.
    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError>;

    /// Waits for the next event, at most until `until`.
    ///
    /// # Errors
    /// When the transport is gone.
    fn receive(&mut self, until: Instant) -> Result<Event, TransportError>;
}
