//! How a simulated network and target behave, and how often they misbehave.

use std::time::Duration;

use fastrand::Rng;

use crate::wire::TaskResponse;

/// A span of time to draw from, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    min: u64,
    max: u64,
}

impl Span {
    /// From `min` to `max` microseconds.
    #[must_use]
    pub const fn micros(min: u64, max: u64) -> Self {
        Self {
            min: min * 1000,
            max: max * 1000,
        }
    }

    /// Its end.
    pub(super) const fn end(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// A moment of the span.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        Duration::from_nanos(rng.u64(self.min..=self.max))
    }
}

/// The time things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// From a doorbell or a SEND of the target until the message is at the other side.
    pub hop: Span,
    /// The same for an IU to the target that is late.
    pub late: Span,
    /// From the arrival of an IU at the target until our SEND completes.
    pub ack: Span,
    /// Between the RDMA operations of one command.
    pub dma: Span,
    /// What the target takes to execute a command.
    pub service: Span,
    /// How long the target leaves an IU lying that it does not take up at once.
    pub backlog: Span,
    /// From the error state until the last access of the peer, and until requests are flushed.
    pub drain: Span,
    /// Until the other side learns that the connection is gone.
    pub notice: Span,
    /// Until the transport gives up on an unacknowledged SEND.
    pub transport_retry: Span,
    /// Until the initiator looks at its completion queue.
    pub reaction: Span,
    /// What the block client takes to copy data.
    pub copy: Span,
    /// Bytes per RDMA operation.
    pub chunk: u32,
    /// A poll may return fewer completions than there are.
    pub partial_polls: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            hop: Span::micros(1, 40),
            late: Span::micros(0, 0),
            ack: Span::micros(0, 400),
            dma: Span::micros(0, 30),
            service: Span::micros(5, 300),
            backlog: Span::micros(0, 0),
            drain: Span::micros(0, 3000),
            notice: Span::micros(100, 2_000_000),
            transport_retry: Span::micros(500_000, 4_000_000),
            reaction: Span::micros(0, 30),
            copy: Span::micros(0, 200),
            chunk: 4096,
            partial_polls: true,
        }
    }
}

/// How often what goes wrong, per mille of the occasions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// Per command: UNIT ATTENTION.
    pub unit_attention: u16,
    /// Per command: BUSY.
    pub busy: u16,
    /// Per command: TASK SET FULL.
    pub task_set_full: u16,
    /// Per command: GOOD with fewer bytes moved than asked for.
    pub short: u16,
    /// Per command: CHECK CONDITION that no retry heals.
    pub check: u16,
    /// Per command: its fields are said to be invalid.
    pub invalid: u16,
    /// Per command: it is never answered.
    pub swallow: u16,
    /// Per command: it takes seconds.
    pub slow: u16,
    /// Per response: it is sent twice.
    pub duplicate: u16,
    /// Per response: another one, for a command that is over, follows.
    pub stale: u16,
    /// Per response: unreadable bytes follow.
    pub garbage: u16,
    /// Per response: one follows that is made up: for another command, for one that is not sent yet or for none, with any
    /// change of the request limit.
    pub forge: u16,
    /// Per response: it lies about how much was moved.
    pub lie: u16,
    /// Per response: an IU longer than agreed follows.
    pub oversized: u16,
    /// Per response: SRP_AER_REQ follows.
    pub async_event: u16,
    /// Per response: SRP_T_LOGOUT follows, and the target closes.
    pub logout: u16,
    /// Per task management function: it is not answered.
    pub task_silent: u16,
    /// Per task management function: it takes seconds.
    pub task_late: u16,
    /// Per task management function: it is answered, but not with "complete".
    pub task_refused: u16,
    /// Per task management function: a response to the command it ended follows.
    pub task_stray: u16,
    /// Per IU to the target: the queue pair breaks on our side.
    pub break_local: u16,
    /// Per IU to the target: nothing gets through any more, in either direction.
    pub cut: u16,
    /// Per IU to the target: the target drops the connection and says so.
    pub disconnect: u16,
    /// Per IU to the target: no SEND is acknowledged any more, though everything gets through.
    pub unacknowledged: u16,
    /// Per receive posted after an error: the post is refused.
    pub refuse_post: u16,
    /// Per marker: its post is refused.
    pub refuse_marker: u16,
    /// Per login: it is refused, with any reason.
    pub refuse_login: u16,
    /// Per window to be opened: it is not, and the queue pair breaks.
    pub fail_bind: u16,
    /// Per response, where there are windows: the target tries to get at memory no command gives it.
    pub trespass: u16,
    /// Per IU to the target: bursts of IUs that use up all receives.
    pub burst: u16,
    /// Per IU to the target: it is late, and so are those behind it.
    pub late: u16,
    /// Per IU to the target: it is received, and not taken up at once.
    pub backlog: u16,
}

impl Odds {
    /// Some of the faults, each at a rate of its own; most seeds have only a few kinds.
    pub fn swarm(rng: &mut Rng) -> Self {
        let mut odds = Self::default();
        if rng.u8(0..10) == 0 {
            // Healthy connections to a target that does not answer: the long way to a reset.
            odds.swallow = rng.u16(20..=80);
            odds.slow = rng.u16(20..=80);
            odds.task_silent = rng.u16(0..=500);
            odds.task_refused = rng.u16(0..=500);
            odds.task_late = rng.u16(0..=500);
            return odds;
        }
        let severe = rng.u8(0..4);
        for rate in [
            &mut odds.unit_attention,
            &mut odds.busy,
            &mut odds.task_set_full,
            &mut odds.short,
            &mut odds.check,
            &mut odds.slow,
            &mut odds.duplicate,
            &mut odds.stale,
            &mut odds.async_event,
        ] {
            if rng.u8(0..3) == 0 {
                *rate = rng.u16(1..=120);
            }
        }
        for rate in [
            &mut odds.swallow,
            &mut odds.garbage,
            &mut odds.oversized,
            &mut odds.logout,
            &mut odds.break_local,
            &mut odds.cut,
            &mut odds.disconnect,
            &mut odds.burst,
        ] {
            if severe > 0 && rng.u8(0..4) < severe {
                *rate = rng.u16(1..=12);
            }
        }
        for rate in [
            &mut odds.task_silent,
            &mut odds.task_late,
            &mut odds.task_refused,
            &mut odds.task_stray,
        ] {
            if rng.u8(0..3) == 0 {
                *rate = rng.u16(1..=500);
            }
        }
        if rng.u8(0..3) == 0 {
            odds.refuse_login = rng.u16(1..=700);
        }
        if rng.u8(0..4) == 0 {
            odds.swallow = rng.u16(20..=80);
        }
        if rng.u8(0..4) == 0 {
            // What proves an end is told from what does not only when little of the former is left.
            odds.refuse_post = *rng.choice(&[0, 200, 1000]).unwrap_or(&200);
            odds.refuse_marker = *rng.choice(&[200, 1000]).unwrap_or(&200);
            odds.burst = rng.u16(5..=20);
        }
        odds
    }

    /// All rates, by name.
    pub(super) fn rates(&mut self) -> Vec<(&'static str, &mut u16)> {
        // Taken apart, so that none can be forgotten.
        let Self {
            unit_attention,
            busy,
            task_set_full,
            short,
            check,
            invalid,
            swallow,
            slow,
            duplicate,
            stale,
            garbage,
            forge,
            lie,
            oversized,
            async_event,
            logout,
            task_silent,
            task_late,
            task_refused,
            task_stray,
            break_local,
            cut,
            disconnect,
            refuse_post,
            refuse_marker,
            refuse_login,
            fail_bind,
            trespass,
            burst,
            unacknowledged,
            late,
            backlog,
        } = self;
        vec![
            ("unit_attention", unit_attention),
            ("busy", busy),
            ("task_set_full", task_set_full),
            ("short", short),
            ("check", check),
            ("invalid", invalid),
            ("swallow", swallow),
            ("slow", slow),
            ("duplicate", duplicate),
            ("stale", stale),
            ("garbage", garbage),
            ("forge", forge),
            ("lie", lie),
            ("oversized", oversized),
            ("async_event", async_event),
            ("logout", logout),
            ("task_silent", task_silent),
            ("task_late", task_late),
            ("task_refused", task_refused),
            ("task_stray", task_stray),
            ("break_local", break_local),
            ("cut", cut),
            ("disconnect", disconnect),
            ("refuse_post", refuse_post),
            ("refuse_marker", refuse_marker),
            ("refuse_login", refuse_login),
            ("fail_bind", fail_bind),
            ("trespass", trespass),
            ("burst", burst),
            ("unacknowledged", unacknowledged),
            ("late", late),
            ("backlog", backlog),
        ]
    }

    /// Whether something that happens `per_mille` of the time happens now.
    pub(super) fn hit(rng: &mut Rng, per_mille: u16) -> bool {
        per_mille > 0 && rng.u16(0..1000) < per_mille
    }
}

/// How the target gives credit back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreditPolicy {
    /// One with every response.
    #[default]
    Each,
    /// So many at once; all of them with the last response that is outstanding.
    Batch(i32),
    /// More or less than one, also negative; all of them with the last response that is outstanding.
    Wobble,
    /// None with responses, all by SRP_CRED_REQ.
    ByRequest,
    /// None at all.
    Never,
}

impl CreditPolicy {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Each => "credit: one with every response",
            Self::Batch(_) => "credit: several at once",
            Self::Wobble => "credit: more or less than one",
            Self::ByRequest => "credit: by SRP_CRED_REQ",
            Self::Never => "credit: none at all",
        }
    }
}

/// What shall become of a task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Done and answered at once.
    Done,
    /// Done and answered after this long.
    Late(Duration),
    /// Never answered.
    Silent {
        /// It is done all the same.
        done: bool,
    },
    /// Not done, and answered with this.
    Answered(TaskResponse),
    /// Done; a response to the command it ended comes behind its own.
    DoneWithResponse,
}

impl Function {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Done => "task management done",
            Self::Late(_) => "task management takes seconds",
            Self::Silent { .. } => "task management not answered",
            Self::Answered(TaskResponse::Missing) => "task management answered without a code",
            Self::Answered(_) => "task management not complete",
            Self::DoneWithResponse => "response behind the abort of its command",
        }
    }
}

/// What shall become of one command of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// UNIT ATTENTION with this additional sense.
    UnitAttention {
        /// Additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
    },
    /// BUSY.
    Busy,
    /// TASK SET FULL.
    TaskSetFull,
    /// GOOD with this many bytes fewer moved.
    Short(u32),
    /// CHECK CONDITION.
    Check {
        /// Sense key.
        key: u8,
        /// Additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
    },
    /// It is executed, or not, and never answered.
    Swallow {
        /// It is executed.
        executed: bool,
    },
    /// It takes this long.
    Slow(Duration),
    /// Its response is sent twice.
    Duplicate,
    /// Response code 2: request fields invalid.
    Refused,
}

impl Injection {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::UnitAttention { .. } => "UNIT ATTENTION",
            Self::Busy => "BUSY",
            Self::TaskSetFull => "TASK SET FULL",
            Self::Short(_) => "short transfer",
            Self::Check { .. } => "CHECK CONDITION",
            Self::Swallow { .. } => "command not answered",
            Self::Slow(_) => "command takes seconds",
            Self::Duplicate => "response sent twice",
            Self::Refused => "response code: request fields invalid",
        }
    }
}
