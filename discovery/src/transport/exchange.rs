//! Questions under way, and the answers that belong to them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

use super::{Address, Event, MadTransport, Patience, SendError, Source, TransportError};
use crate::mad::{Attribute, MAD_LEN, Mad, MadError, Method, SA_DATA_OFFSET, Table, TableError, class};

/// The transport reports an unanswered request itself; after this much longer it is believed to have forgotten.
const GRACE: Duration = Duration::from_secs(2);

/// One question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whom to ask.
    pub to: Address,
    /// What to ask; the transaction id is set by the [`Exchange`].
    pub request: Mad,
}

impl Query {
    /// Any question.
    #[must_use]
    pub fn new(to: Address, request: Mad) -> Self {
        Self { to, request }
    }

    /// A device management `Get`.
    #[must_use]
    pub fn get(to: Address, attribute: Attribute, modifier: u32) -> Self {
        Self {
            to,
            request: Mad::get(attribute, modifier),
        }
    }
}

/// An answer that fits its question; its status is yet to be read.
#[derive(Clone, Debug)]
pub struct Answer {
    mad: Box<Mad>,
    /// What a table has beyond its first MAD.
    tail: Vec<u8>,
    len: usize,
}

impl Answer {
    /// Reads a whole MAD, a table that the kernel has put together, or one so small that its padding was cut off.
    fn parse(bytes: &[u8]) -> Result<Self, MadError> {
        let (mad, tail) = match Mad::parse(bytes) {
            Ok(mad) => (*mad, bytes.get(MAD_LEN..).unwrap_or_default().to_vec()),
            Err(_) if is_short_table(bytes) => {
                let mut padded = [0; MAD_LEN];
                padded[..bytes.len()].copy_from_slice(bytes);
                (zerocopy::transmute!(padded), Vec::new())
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            mad: Box::new(mad),
            tail,
            len: bytes.len(),
        })
    }

    /// The records of an answer to GetTable, which must have `need` bytes each at least.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn table(&self, need: usize) -> Result<Table, TableError> {
        Table::parse(&self.mad, &self.tail, self.len, need)
    }
}

impl Deref for Answer {
    type Target = Mad;

    fn deref(&self) -> &Mad {
        &self.mad
    }
}

/// Of a table in one segment the kernel hands out no more than its records.
fn is_short_table(bytes: &[u8]) -> bool {
    let class_and_method = [class::SUBNET_ADMINISTRATION, Method::GET_TABLE_RESP.0];
    (SA_DATA_OFFSET..MAD_LEN).contains(&bytes.len()) && [bytes[1], bytes[3]] == class_and_method
}

/// What [`Exchange::next`] has to tell.
#[derive(Debug)]
pub enum Next {
    /// A question has ended.
    Ended(Ended),
    /// Somebody tells of an event (IBA 13.4.11); [`Exchange::respond`] answers.
    Report {
        /// Who.
        from: Source,
        /// The report.
        mad: Box<Mad>,
    },
    /// Nothing happened until the time given.
    Idle,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody answered.
    #[error(
        "no answer from {to} to {attribute} after {tries} tries of {} ms: {}",
        timeout.as_millis(),
        silence(*attribute)
    )]
    Unanswered {
        /// Who was asked.
        to: Address,
        /// For what.
        attribute: Attribute,
        /// How often.
        tries: u32,
        /// How long each time.
        timeout: Duration,
    },
    /// The question could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// What came back is not an answer to the question.
    #[error("{from} answered {attribute} with something else: {cause}")]
    Malformed {
        /// Who was asked.
        from: Address,
        /// For what.
        attribute: Attribute,
        /// What is wrong.
        cause: MadError,
    },
}

fn silence(attribute: Attribute) -> &'static str {
    match attribute.class {
        class::SUBNET_ADMINISTRATION => {
            "the subnet manager is gone or overloaded, or does not let this port in (look at `sminfo`)"
        }
        _ => {
            "the port is unreachable, or nothing there answers device management (on a Linux target: is ib_srpt \
             loaded?)"
        }
    }
}

/// A question that has ended, and how.
pub type Ended = (Ticket, Result<Answer, QueryError>);

/// Names a question that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

struct Pending {
    ticket: Ticket,
    query: Query,
    deadline: Instant,
}

/// Questions and answers over one transport: bounded in number, each with its own patience.
///
/// Answers are matched by transaction id and must come from where the question went. Whatever else arrives is
/// counted and dropped: it cannot end or delay a question.
pub struct Exchange<T> {
    transport: T,
    patience: Patience,
    limit: usize,
    next_tid: u32,
    next_ticket: u64,
    waiting: VecDeque<(Ticket, Query)>,
    pending: HashMap<u32, Pending>,
    strays: u64,
}

impl<T: MadTransport> Exchange<T> {
    /// Over `transport`, with at most `limit` (at least 1) questions under way.
    pub fn new(transport: T, patience: Patience, limit: usize) -> Self {
        Self {
            transport,
            patience,
            limit: limit.max(1),
            // Hard to guess, and different from that of a predecessor whose answers may still arrive.
            next_tid: crate::mad::tid_low(RandomState::new().hash_one(0_u8)),
            next_ticket: 0,
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            strays: 0,
        }
    }

    /// The transport's clock.
    pub fn now(&self) -> Instant {
        self.transport.now()
    }

    /// Gives the transport back; questions under way are forgotten.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// How many datagrams came that belonged to no question: late, duplicate, forged or too short.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Hands a question in; [`Exchange::wait`] hands its answer out.
    pub fn submit(&mut self, query: Query) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back((ticket, query));
        ticket
    }

    /// Drops the questions that are chosen; their answers, should they come, answer nothing.
    pub fn drop_questions(&mut self, chosen: impl Fn(Ticket) -> bool) {
        self.waiting.retain(|(ticket, _)| !chosen(*ticket));
        self.pending.retain(|_, pending| !chosen(pending.ticket));
    }

    /// How many questions are under way or waiting.
    pub fn open(&self) -> usize {
        self.waiting.len() + self.pending.len()
    }

    /// Waits for the next question to end; `None` when none is left. Reports are dropped.
    ///
    /// # Errors
    /// When the transport is gone.
    pub fn wait(&mut self) -> Result<Option<Ended>, TransportError> {
        loop {
            if self.open() == 0 {
                return Ok(None);
            }
            let until = self.transport.now() + self.patience.total() + GRACE;
            match self.next(until)? {
                Next::Ended(ended) => return Ok(Some(ended)),
                Next::Report { .. } => self.strays += 1,
                Next::Idle => {}
            }
        }
    }

    /// Waits for the next event, at most until `until`.
    ///
    /// # Errors
    /// When the transport is gone.
    pub fn next(&mut self, until: Instant) -> Result<Next, TransportError> {
        loop {
            if let Some((ticket, error)) = self.send_waiting() {
                return Ok(Next::Ended((ticket, Err(QueryError::Send(error)))));
            }
            let earliest = self.pending.iter().min_by_key(|(_, p)| p.deadline);
            let earliest = earliest.map(|(tid, pending)| (*tid, pending.deadline));
            let now = self.transport.now();
            // Looked at before every receive, so that a flood of strays cannot postpone it.
            if let Some((tid, _)) = earliest.filter(|(_, deadline)| now >= *deadline)
                && let Some(done) = self.unanswered(tid)
            {
                return Ok(Next::Ended(done));
            }
            if now >= until {
                return Ok(Next::Idle);
            }
            let until = earliest.map_or(until, |(_, deadline)| until.min(deadline));
            let done = match self.transport.receive(until)? {
                Event::Idle => None,
                Event::Unanswered { tid } => self.unanswered(tid),
                Event::Mad { from, bytes } => match report(&bytes) {
                    Some(mad) => return Ok(Next::Report { from, mad }),
                    None => self.accept(&from, &bytes),
                },
            };
            if let Some(done) = done {
                return Ok(Next::Ended(done));
            }
        }
    }

    /// Sends the answer to a report to where that came from.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn respond(&mut self, to: &Address, answer: &Mad) -> Result<(), SendError> {
        let mut bytes = [0; MAD_LEN];
        bytes.copy_from_slice(answer.as_bytes());
        self.transport.respond(to, &bytes)
    }

    /// Asks one question and waits for its answer. Only for an exchange with nothing else under way.
    ///
    /// # Errors
    /// `Err` when the transport is gone, `Ok(Err)` when this question failed.
    pub fn ask(&mut self, query: Query) -> Result<Result<Answer, QueryError>, TransportError> {
        let ticket = self.submit(query);
        loop {
            match self.wait()? {
                Some((done, result)) if done == ticket => return Ok(result),
                Some(_) => {}
                None => {
                    let cause = std::io::Error::other("a question was lost");
                    return Err(TransportError { cause });
                }
            }
        }
    }

    fn send_waiting(&mut self) -> Option<(Ticket, SendError)> {
        while self.pending.len() < self.limit {
            let (ticket, mut query) = self.waiting.pop_front()?;
            let tid = self.free_tid();
            query.request.header.tid = U64::new(tid.into());
            let mut bytes = [0; MAD_LEN];
            bytes.copy_from_slice(query.request.as_bytes());
            if let Err(error) = self.transport.send(&query.to, &bytes, self.patience) {
                return Some((ticket, error));
            }
            let deadline = self.transport.now() + self.patience.total() + GRACE;
            self.pending.insert(
                tid,
                Pending {
                    ticket,
                    query,
                    deadline,
                },
            );
        }
        None
    }

    fn free_tid(&mut self) -> u32 {
        loop {
            let tid = self.next_tid;
            self.next_tid = tid.wrapping_add(1);
            // 0 is skipped: some agents take it for "none".
            if tid != 0 && !self.pending.contains_key(&tid) {
                return tid;
            }
        }
    }

    fn unanswered(&mut self, tid: u32) -> Option<Ended> {
        let pending = self.pending.remove(&tid)?;
        let error = QueryError::Unanswered {
            to: pending.query.to,
            attribute: pending.query.request.attribute(),
            tries: self.patience.retries.saturating_add(1),
            timeout: self.patience.timeout,
        };
        Some((pending.ticket, Err(error)))
    }

    fn accept(&mut self, from: &Source, bytes: &[u8]) -> Option<Ended> {
        let tid = Mad::parse(bytes).map(Mad::tid_low).ok();
        let tid = tid.or_else(|| tid_of_fragment(bytes));
        let known = tid.and_then(|tid| self.pending.get(&tid).map(|pending| (tid, pending)));
        let Some((tid, _)) = known.filter(|(_, pending)| pending.query.to.may_answer_from(from)) else {
            self.strays += 1;
            tracing::debug!(?from, len = bytes.len(), "a MAD that answers nothing was dropped");
            return None;
        };
        let Pending { ticket, query, .. } = self.pending.remove(&tid)?;
        let checked = Answer::parse(bytes).and_then(|mad| mad.check_answers(&query.request).map(|()| mad));
        let result = checked.map_err(|cause| QueryError::Malformed {
            from: query.to,
            attribute: query.request.attribute(),
            cause,
        });
        Some((ticket, result))
    }
}

/// The datagram, if it is a report and no answer.
fn report(bytes: &[u8]) -> Option<Box<Mad>> {
    let mad = Mad::parse(bytes).ok()?;
    (mad.header.method == Method::REPORT.0 && mad.attribute() == Attribute::NOTICE).then(|| Box::new(*mad))
}

/// A datagram too short to be a MAD may still name its transaction: the kernel has then ended it.
fn tid_of_fragment(bytes: &[u8]) -> Option<u32> {
    bytes.get(12..16)?.try_into().ok().map(u32::from_be_bytes)
}
