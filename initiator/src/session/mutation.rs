//! Deliberate defects of the engine, for the test that proves the simulator sees them.
//!
//! They exist in builds with debug assertions only: in others [`Mutated`] is empty, every question is answered
//! with a constant `false`, and no code is left of them.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A command ends with its answer, while its SEND may be in flight.
    AnswerEndsSend,
    /// A response now and then returns one credit less than it says.
    CreditDropped,
    /// A response now and then returns one credit more than it says.
    CreditInvented,
    /// Commands take the credit kept for task management.
    LastCreditUsed,
    /// Credit taken back between claim and SEND is not noticed.
    CreditNotChecked,
    /// A tag is told by its slot alone.
    StaleTagAccepted,
    /// A channel is over when its queue pair returned all requests; nothing proves that accesses ended.
    NoMarker,
    /// Any flushed receive stands for the marker.
    AnyFlushProves,
    /// A marker that was refused stands for one that was flushed.
    RefusedMarkerProves,
    /// A marker posted again stands for the first, which an IU took.
    SecondMarkerProves,
    /// A channel is over while SENDs are in flight.
    SendsNotAwaited,
    /// New requests go before older ones of their unit.
    LastInFirstOut,
    /// What is sent again goes before all that waits.
    LastBackFirst,
    /// A unit keeps its turn as long as it has requests.
    NoTurns,
    /// A request that is just made is started before those of other units that wait.
    PassesOver,
    /// The buffer of a write that is sent again is given back first.
    RetryWithoutBuffer,
    /// A short read is reported in full.
    ShortReadInFull,
    /// The queue of a disk that was removed stays.
    QueueForgotten,
    /// SRP_CRED_REQ is not answered.
    CreditRequestIgnored,
    /// BUSY is taken for success.
    BusyIsGood,
    /// What holds a buffer waits behind what needs one.
    HoldersInLine,
    /// A request that holds a buffer of a channel without credit waits for that channel.
    BoundForEver,
    /// What waits for the end of a pause is forgotten when its queue fails.
    DelayedForgotten,
    /// What the target is too busy for is sent again after ten minutes.
    BackoffForEver,
    /// A target that gives no credit is waited for.
    StarvedForEver,
    /// A write whose data could not be had leaves the others waiting.
    UnsuppliedSilently,
    /// An end is reported twice.
    DoneTwice,
    /// A channel's end is not reported.
    ClosedSilently,
    /// Commands of before are sent behind SRP_I_LOGOUT.
    SentBehindLogout,
    /// Overdue commands are not acted on.
    NoTimeout,
    /// A command is taken for over when its time is, without asking the target.
    TimeoutEnds,
    /// The SEND of a command that was answered is waited for.
    AnsweredForEver,
    /// Any response to ABORT TASK is taken for "complete".
    AbortNotExamined,
    /// The response to LOGICAL UNIT RESET ends all commands of the channel.
    ResetEndsAll,
    /// Commands posted behind LOGICAL UNIT RESET are ended by it.
    ResetEndsLater,
    /// An unanswered ABORT TASK is waited for.
    NoEscalation,
    /// Task management is sent without credit.
    TaskWithoutCredit,
    /// A write of unknown fate is sent again without a fence.
    ResendUnfenced,
    /// A unit is reset for a write of unknown fate while the target may still take that up.
    ResetAtOnce,
    /// A write of unknown fate is handed over as one that was never sent.
    HandedOverUnfenced,
    /// A write of unknown fate is taken over as one that was never sent.
    TakenOverUnfenced,
    /// A request that is handed over ends here, too.
    HandedOverAndEnded,
    /// A request of another engine that cannot be served is forgotten.
    ForeignForgotten,
    /// Immediate data is sent whether it was granted or not.
    ImmediateUnchecked,
    /// A unit that is shared with others is reset.
    SharedReset,
    /// Data in several pieces is described as if it were in one.
    OnePieceDescribed,
    /// A window is opened on one byte more than the command has.
    WindowTooLong,
    /// The window of a write lets the target write.
    WindowWrongWay,
    /// A command is over while its window is being closed.
    WindowNotAwaited,
    /// A command is over and its window stays open.
    WindowLeftOpen,
    /// A window is closed when the command was sent.
    WindowClosedEarly,
    /// Receives that came back wait until something is sent.
    ReceivesKept,
}

impl Mutation {
    /// Every defect there is.
    pub const ALL: &[Self] = &[
        Self::AnswerEndsSend,
        Self::CreditDropped,
        Self::CreditInvented,
        Self::LastCreditUsed,
        Self::CreditNotChecked,
        Self::StaleTagAccepted,
        Self::NoMarker,
        Self::AnyFlushProves,
        Self::RefusedMarkerProves,
        Self::SecondMarkerProves,
        Self::SendsNotAwaited,
        Self::LastInFirstOut,
        Self::LastBackFirst,
        Self::NoTurns,
        Self::PassesOver,
        Self::RetryWithoutBuffer,
        Self::ShortReadInFull,
        Self::QueueForgotten,
        Self::CreditRequestIgnored,
        Self::BusyIsGood,
        Self::HoldersInLine,
        Self::BoundForEver,
        Self::DelayedForgotten,
        Self::BackoffForEver,
        Self::StarvedForEver,
        Self::UnsuppliedSilently,
        Self::DoneTwice,
        Self::ClosedSilently,
        Self::SentBehindLogout,
        Self::NoTimeout,
        Self::TimeoutEnds,
        Self::AnsweredForEver,
        Self::AbortNotExamined,
        Self::ResetEndsAll,
        Self::ResetEndsLater,
        Self::NoEscalation,
        Self::TaskWithoutCredit,
        Self::ResendUnfenced,
        Self::ResetAtOnce,
        Self::HandedOverUnfenced,
        Self::TakenOverUnfenced,
        Self::HandedOverAndEnded,
        Self::ForeignForgotten,
        Self::ImmediateUnchecked,
        Self::SharedReset,
        Self::OnePieceDescribed,
        Self::WindowTooLong,
        Self::WindowWrongWay,
        Self::WindowNotAwaited,
        Self::WindowLeftOpen,
        Self::WindowClosedEarly,
        Self::ReceivesKept,
    ];
}

/// The defect an engine has, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mutated {
    #[cfg(debug_assertions)]
    mutation: Option<Mutation>,
}

impl Mutated {
    #[cfg(debug_assertions)]
    pub(super) const fn by(mutation: Mutation) -> Self {
        Self {
            mutation: Some(mutation),
        }
    }

    /// Whether the engine has this defect.
    #[cfg(debug_assertions)]
    pub(super) fn is(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether the engine has this defect.
    #[cfg(not(debug_assertions))]
    #[inline]
    pub(super) const fn is(self, _mutation: Mutation) -> bool {
        false
    }
}
