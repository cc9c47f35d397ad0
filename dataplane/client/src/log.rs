//! The blocking face: one log, one thread. Every call makes the progress that it needs.

use std::collections::VecDeque;
use std::time::Duration;

use ionian_core::client::{
    Choice, Client, ClientConfig, ClientStats, Completion, Outcome, Policy, Ticket,
};
use ionian_types::{Durability, Effect, Gsn, Lsn, Nanos, ShardId, Time};
use ionian_wire::grant::Rights;

use crate::driver::Driver;
use crate::error::Error;
use crate::history::{Call, HistoryHook, RecordIdentity, Reply, What, append_op, payload_hash};
use crate::link::Link;

/// Where an append landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Its position in the total order.
    pub gsn: Gsn,
    /// The shard that holds it.
    pub shard: ShardId,
    /// What the acknowledgement means.
    pub class: Durability,
}

/// A log, used from one thread.
///
/// # Examples
/// ```
/// use ionian_client::{Delivery, ReadOutcome, testing};
///
/// let cluster = testing::MemoryCluster::new(2, 2);
/// let mut log = cluster.open(1)?;
/// let first = log.append(b"hello")?;
/// log.append(b"world")?;
/// assert_eq!(log.read(first.gsn)?, ReadOutcome::Record(b"hello".to_vec()));
///
/// let mut subscription = log.subscribe(first.gsn)?;
/// let Some(Delivery::Record { gsn, payload }) = subscription.next() else { panic!() };
/// assert_eq!((gsn, &payload[..]), (first.gsn, &b"hello"[..]));
/// # Ok::<(), ionian_client::Error>(())
/// ```
#[derive(Debug)]
pub struct Log<L: Link> {
    pub(crate) driver: Driver<L>,
    /// Completions polled while waiting for another ticket, and how many records they cover.
    uncollected: VecDeque<Completion>,
    uncollected_records: u64,
}

impl<L: Link> Log<L> {
    /// Makes a client of a log over a link. Nothing is sent before the first call that needs it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn open(link: L, config: ClientConfig) -> Result<Self, Error> {
        Ok(Self {
            driver: Driver::new(link, config)?,
            uncollected: VecDeque::new(),
            uncollected_records: 0,
        })
    }

    /// Appends a record and waits for its position.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::effect`] says whether the record may be in the log.
    pub fn append(&mut self, payload: &[u8]) -> Result<Appended, Error> {
        let ticket = self.submit(payload)?;
        self.wait(ticket)
    }

    /// Appends a record to a given shard and waits for its position.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_to_shard(
        &mut self,
        shard: ShardId,
        payload: &[u8],
    ) -> Result<(Gsn, ShardId), Error> {
        let ticket = self.submit_to(payload, Choice::Shard(shard))?;
        self.wait(ticket)
            .map(|appended| (appended.gsn, appended.shard))
    }

    /// Appends records in order, pipelined, and waits for all of them. The answers come in the order of the payloads. An
    /// error that refuses a record before it is taken ends the batch: the answers are then fewer, the last is that error.
    ///
    /// # Examples
    /// ```
    /// # let mut log = ionian_client::testing::MemoryCluster::new(1, 2).open(1)?;
    /// let positions = log.append_batch(&["a", "b", "c"]);
    /// assert!(positions.iter().all(Result::is_ok));
    /// # Ok::<(), ionian_client::Error>(())
    /// ```
    pub fn append_batch<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Vec<Result<Appended, Error>> {
        let mut results = Vec::with_capacity(payloads.len());
        let mut tickets = VecDeque::new();
        for payload in payloads {
            let ticket = loop {
                match self.try_append(payload.as_ref()) {
                    Err(Error::Busy) => match tickets.pop_front() {
                        Some(oldest) => results.push(self.wait(oldest)),
                        None => break self.submit(payload.as_ref()),
                    },
                    Err(Error::NoServer | Error::NotReady { .. }) => {
                        break self.submit(payload.as_ref());
                    }
                    result => break result,
                }
            };
            match ticket {
                Ok(ticket) => tickets.push_back(ticket),
                Err(error) => {
                    results.extend(tickets.drain(..).map(|ticket| self.wait(ticket)));
                    results.push(Err(error));
                    return results;
                }
            }
        }
        results.extend(tickets.into_iter().map(|ticket| self.wait(ticket)));
        results
    }

    /// Hands a record over and returns at once with a ticket for its outcome, unless the window is full or no server is
    /// known: then it waits, at most for the append timeout.
    ///
    /// # Errors
    /// Any [`Error`] with effect none.
    pub fn submit(&mut self, payload: &[u8]) -> Result<Ticket, Error> {
        self.submit_to(payload, Choice::Policy)
    }

    /// As [`Self::submit`], where `choice` says.
    ///
    /// # Errors
    /// Any [`Error`] with effect none.
    pub fn submit_to(&mut self, payload: &[u8], choice: Choice) -> Result<Ticket, Error> {
        let mut give_up = None;
        loop {
            let error = match self.try_append_to(payload, choice) {
                Err(error @ (Error::Busy | Error::NoServer | Error::NotReady { .. })) => error,
                result => return result,
            };
            let now = self.driver.link.now();
            let timeout = self.driver.client.config().append_timeout;
            let give_up = *give_up
                .get_or_insert_with(|| timeout.map_or(Time::FAR, |timeout| now.after(timeout)));
            if now >= give_up || (error == Error::Busy && !self.has_collection_room()) {
                return Err(error);
            }
            if !self.step(give_up) {
                return Err(error);
            }
        }
    }

    /// Hands a record over without waiting. It goes out with the next [`Self::poll`] or any call that waits.
    ///
    /// # Errors
    /// Any [`Error`] with effect none.
    #[inline]
    pub fn try_append(&mut self, payload: &[u8]) -> Result<Ticket, Error> {
        self.try_append_to(payload, Choice::Policy)
    }

    /// As [`Self::try_append`], where `choice` says.
    ///
    /// # Errors
    /// Any [`Error`] with effect none.
    #[inline]
    pub fn try_append_to(&mut self, payload: &[u8], choice: Choice) -> Result<Ticket, Error> {
        if !self.has_collection_room() {
            return Err(Error::Busy);
        }
        self.driver.may(Rights::APPEND)?;
        let now = self.driver.link.now();
        let ticket = self.driver.client.append(now, payload, choice)?;
        if self.driver.history.is_some() {
            self.record_append(now, ticket, payload);
        }
        Ok(ticket)
    }

    #[cold]
    fn record_append(&mut self, now: Time, ticket: Ticket, payload: &[u8]) {
        self.driver
            .record(now, |client| append_event(client, ticket, payload));
    }

    /// Waits for the outcome of one append. Outcomes of others that come meanwhile are kept for [`Self::completions`].
    ///
    /// # Errors
    /// Why the append was given up; [`Error::UnknownTicket`] for an outcome that was handed out before.
    pub fn wait(&mut self, ticket: Ticket) -> Result<Appended, Error> {
        if let Some(outcome) = self.take_collected(ticket) {
            return outcome;
        }
        loop {
            while let Some(completion) = self.next_completion() {
                self.uncollected_records += u64::from(completion.count);
                self.uncollected.push_back(completion);
                if covers(&completion, ticket) {
                    return self
                        .take_collected(ticket)
                        .unwrap_or(Err(Error::UnknownTicket));
                }
            }
            if !self.driver.client.is_unresolved(ticket) {
                return Err(Error::UnknownTicket);
            }
            self.driver.may_still(Rights::APPEND, Effect::Unknown)?;
            self.step(Time::FAR);
        }
    }

    /// Makes progress without waiting; says whether anything happened.
    pub fn poll(&mut self) -> bool {
        self.driver.pump(&mut ())
    }

    /// Makes progress, and waits for some for at most `timeout`.
    pub fn poll_for(&mut self, timeout: Duration) -> bool {
        let until = self.driver.link.now().after(nanos(timeout));
        if self.driver.pump(&mut ()) {
            return true;
        }
        self.driver.idle(until);
        self.driver.pump(&mut ())
    }

    /// The outcomes that have come and were not handed out, in runs; those of one lane in the order of its tickets.
    ///
    /// # Examples
    /// ```
    /// # let mut log = ionian_client::testing::MemoryCluster::new(1, 2).open(1)?;
    /// let mut open = 0;
    /// for i in 0..1000u32 {
    ///     log.submit(&i.to_le_bytes())?;
    ///     open += 1;
    /// }
    /// while open > 0 {
    ///     log.poll();
    ///     open -= log.completions().map(|run| run.count).sum::<u32>();
    /// }
    /// # Ok::<(), ionian_client::Error>(())
    /// ```
    pub fn completions(&mut self) -> impl Iterator<Item = Completion> + '_ {
        std::iter::from_fn(|| {
            if let Some(kept) = self.uncollected.pop_front() {
                self.uncollected_records -= u64::from(kept.count);
                return Some(kept);
            }
            self.next_completion()
        })
    }

    /// Appends that were taken and whose outcome was not handed out.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        u64::from(self.driver.client.outstanding()) + self.uncollected_records
    }

    /// Sets how later appends choose their shard. Default: sticky.
    pub fn set_shard_policy(&mut self, policy: Policy) {
        self.driver.client.set_policy(policy);
    }

    /// Sets the hook that hears of every operation, from now on; see [`crate::history`].
    pub fn set_history(&mut self, hook: HistoryHook) {
        self.driver.history = Some(hook);
    }

    /// The machine's counters.
    #[must_use]
    pub fn stats(&self) -> &ClientStats {
        self.driver.client.stats()
    }

    /// The link.
    pub fn link(&mut self) -> &mut L {
        &mut self.driver.link
    }

    /// Waits until everything submitted has its outcome (which stays to be collected), at most for `timeout`. Says
    /// whether it has.
    pub fn drain(&mut self, timeout: Duration) -> bool {
        let until = self.driver.link.now().after(nanos(timeout));
        loop {
            while let Some(completion) = self.next_completion() {
                self.uncollected_records += u64::from(completion.count);
                self.uncollected.push_back(completion);
            }
            if self.driver.client.outstanding() == 0 {
                return true;
            }
            if !self.step(until) {
                return false;
            }
        }
    }

    fn has_collection_room(&self) -> bool {
        self.uncollected_records < u64::from(self.driver.client.config().outstanding_max)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.driver.client.poll_completion()?;
        if self.driver.history.is_some() {
            record_completion(&mut self.driver, &completion);
        }
        Some(completion)
    }

    /// Takes one append's outcome out of those kept.
    fn take_collected(&mut self, ticket: Ticket) -> Option<Result<Appended, Error>> {
        let at = self
            .uncollected
            .iter()
            .position(|run| covers(run, ticket))?;
        let run = self.uncollected[at];
        self.uncollected_records -= 1;
        let skip = ticket.number - run.first.number;
        let (before, after) = (
            part(&run, 0, skip),
            part(&run, skip + 1, u64::from(run.count)),
        );
        match (before, after) {
            (None, None) => {
                self.uncollected.remove(at);
            }
            (Some(rest), None) | (None, Some(rest)) => self.uncollected[at] = rest,
            (Some(before), Some(after)) => {
                self.uncollected[at] = before;
                self.uncollected.insert(at + 1, after);
            }
        }
        Some(result_of(&run, skip))
    }

    /// Makes progress once, waiting for it; `false` once `until` has come.
    pub(crate) fn step(&mut self, until: Time) -> bool {
        if self.driver.pump(&mut ()) {
            return true;
        }
        if self.driver.link.now() >= until {
            return false;
        }
        self.driver.idle(until);
        true
    }
}

/// The call of an append that was taken.
pub(crate) fn append_event(client: &Client, ticket: Ticket, payload: &[u8]) -> What {
    let identity = client.identity(ticket);
    let (session, seq) = identity.unwrap_or_default();
    let hash = payload_hash(payload);
    let record = RecordIdentity {
        client: client.config().client,
        session,
        seq,
        hash,
    };
    // At most `window` appends of a lane are open: their numbers modulo the window are all different.
    let place = ticket.number % u64::from(client.config().window);
    let process = append_op(Ticket {
        number: place,
        ..ticket
    });
    let call = Call::Append {
        record,
        named: identity.is_some(),
        bytes: payload.len(),
    };
    What::Inv {
        op: append_op(ticket),
        process,
        call,
    }
}

pub(crate) fn nanos(span: Duration) -> Nanos {
    Nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

fn covers(run: &Completion, ticket: Ticket) -> bool {
    run.first.lane == ticket.lane
        && ticket
            .number
            .checked_sub(run.first.number)
            .is_some_and(|skip| skip < u64::from(run.count))
}

/// The outcome of the append `skip` after the first of a run.
pub(crate) fn result_of(run: &Completion, skip: u64) -> Result<Appended, Error> {
    match run.outcome {
        Outcome::Ordered {
            first_gsn,
            segment,
            class,
            ..
        } => Ok(Appended {
            gsn: Gsn::new(first_gsn.get() + skip),
            shard: segment.shard,
            class,
        }),
        Outcome::Failed { failure, effect } => Err(Error::of_failure(failure, effect)),
    }
}

/// The appends `from..to` of a run, as a run.
fn part(run: &Completion, from: u64, to: u64) -> Option<Completion> {
    if from >= to {
        return None;
    }
    let mut part = *run;
    part.first.number += from;
    part.first_seq = part.first_seq.checked_add(from)?;
    part.count = (to - from) as u32;
    if let Outcome::Ordered {
        first_gsn,
        first_position,
        ..
    } = &mut part.outcome
    {
        *first_gsn = first_gsn.checked_add(from)?;
        *first_position = first_position.checked_add(from)?;
    }
    Some(part)
}

#[cold]
pub(crate) fn record_completion<L: Link>(driver: &mut Driver<L>, run: &Completion) {
    let now = driver.link.now();
    for skip in 0..u64::from(run.count) {
        let op = append_op(Ticket {
            number: run.first.number + skip,
            ..run.first
        });
        driver.record(now, |_| match run.outcome {
            Outcome::Ordered {
                first_gsn,
                segment,
                generation,
                first_position,
                ..
            } => {
                let gsn = Gsn::new(first_gsn.get() + skip);
                let lsn = Lsn::new(first_position.get() + skip);
                let seq = run.first_seq.checked_add(skip).unwrap_or(run.first_seq);
                let answer = Reply::Appended {
                    gsn,
                    segment,
                    generation,
                    lsn,
                    session: run.session,
                    seq,
                };
                What::Ok { op, answer }
            }
            Outcome::Failed { failure, effect } => {
                let error = Error::of_failure(failure, Effect::Unknown).word();
                What::Failed { op, effect, error }
            }
        });
    }
}
