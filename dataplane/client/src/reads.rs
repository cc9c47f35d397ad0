//! Reading and trimming, blocking.

use ionian_core::client::{Answer, RequestId};
use ionian_types::{Effect, Frontiers, GapKind, Gsn, ShardId, Time};
use ionian_wire::grant::Rights;

use crate::error::Error;
use crate::history::{Call, RecordIdentity, Reply, What, payload_hash};
use crate::link::Link;
use crate::log::Log;

/// What a position holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// A record's payload.
    Record(Vec<u8>),
    /// No record, now or ever.
    Gap(GapKind),
    /// No record any more.
    Trimmed,
    /// Nothing yet: the position lay at or beyond the tail, confirmed after the call.
    Unwritten,
}

impl<L: Link> Log<L> {
    /// Reads the record at a position.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Busy`] or [`Error::Closed`]; reading has no effect.
    pub fn read(&mut self, gsn: Gsn) -> Result<ReadOutcome, Error> {
        self.driver.may(Rights::READ)?;
        let now = self.driver.link.now();
        let id = self.driver.client.read(now, gsn)?;
        self.finish_read(now, id, gsn)
    }

    /// Reads the record at a position that `shard` holds, as its append said: one question less than [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_record(&mut self, gsn: Gsn, shard: ShardId) -> Result<ReadOutcome, Error> {
        self.driver.may(Rights::READ)?;
        let now = self.driver.link.now();
        let id = self.driver.client.read_at(now, gsn, shard)?;
        self.finish_read(now, id, gsn)
    }

    fn finish_read(&mut self, now: Time, id: RequestId, gsn: Gsn) -> Result<ReadOutcome, Error> {
        let mut payload = Vec::new();
        let answer = self.ask(now, id, Call::Read(gsn), &mut payload)?;
        read_outcome(&answer, payload)
    }

    /// The position after the last record ordered, confirmed after the call: every append acknowledged before it lies
    /// below.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn tail(&mut self) -> Result<Gsn, Error> {
        self.ends().map(|(_, tail)| tail)
    }

    /// The first position that is not trimmed.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn head(&mut self) -> Result<Gsn, Error> {
        self.ends().map(|(head, _)| head)
    }

    /// How far the log has come, in each sense of the word. In `scalog` mode what is ordered is durable at the log's
    /// class and visible, and nothing is speculative.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn frontiers(&mut self) -> Result<Frontiers, Error> {
        self.ends().map(|(_, tail)| Frontiers {
            durable: tail,
            ordered: tail,
            visible: tail,
            speculative: tail,
        })
    }

    pub(crate) fn ends(&mut self) -> Result<(Gsn, Gsn), Error> {
        self.driver.may(Rights::READ)?;
        let now = self.driver.link.now();
        let id = self.driver.client.tail(now)?;
        match self.ask(now, id, Call::Tail, &mut Vec::new())? {
            Answer::Tail { tail, head, .. } => Ok((head, tail)),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Removes every position below `upto`, and returns the first one kept.
    ///
    /// # Errors
    /// [`Error::Busy`] without effect; [`Error::TrimBeyondTail`] says whether it has none; after [`Error::TimedOut`] the trim
    /// may be done.
    ///
    /// # Examples
    /// ```
    /// # let mut log = ionian_client::testing::MemoryCluster::new(1, 2).open(1)?;
    /// let first = log.append(b"old")?.gsn;
    /// let second = log.append(b"new")?.gsn;
    /// assert_eq!(log.trim(second)?, second);
    /// assert_eq!(log.read(first)?, ionian_client::ReadOutcome::Trimmed);
    /// # Ok::<(), ionian_client::Error>(())
    /// ```
    pub fn trim(&mut self, upto: Gsn) -> Result<Gsn, Error> {
        self.driver.may(Rights::TRIM)?;
        let now = self.driver.link.now();
        let id = self.driver.client.trim(now, upto)?;
        match self.ask(now, id, Call::Trim(upto), &mut Vec::new())? {
            Answer::TrimDone { head, .. } => Ok(head),
            Answer::TrimBeyondTail { tail, effect } => {
                Err(Error::TrimBeyondTail { upto, tail, effect })
            }
            answer => Err(unexpected(&answer)),
        }
    }

    /// Waits for the answer to a request.
    fn ask(
        &mut self,
        now: Time,
        id: RequestId,
        call: Call,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, Error> {
        let op = request_op(id.get());
        let (right, effect) = match call {
            Call::Trim(_) => (Rights::TRIM, Effect::Unknown),
            _ => (Rights::READ, Effect::None),
        };
        // Requests of this face are made one at a time.
        self.driver.record(now, |_| What::Inv {
            op,
            process: 1,
            call,
        });
        loop {
            while let Some((answered, answer)) = self.driver.client.poll_answer(payload) {
                if answered == id {
                    let now = self.driver.link.now();
                    self.driver
                        .record(now, |_| outcome_event(op, &answer, payload));
                    return match answer {
                        Answer::TimedOut { effect } => Err(Error::TimedOut { effect }),
                        answer => Ok(answer),
                    };
                }
            }
            // Nobody answers whoever has lost the right meanwhile.
            self.driver.may_still(right, effect)?;
            self.step(Time::FAR);
        }
    }
}

/// The operation number of a request: odd, where those of appends are even.
pub(crate) const fn request_op(number: u64) -> u64 {
    (number << 1) | 1
}

pub(crate) fn read_outcome(answer: &Answer, payload: Vec<u8>) -> Result<ReadOutcome, Error> {
    match answer {
        Answer::Record { .. } => Ok(ReadOutcome::Record(payload)),
        Answer::Gap { kind, .. } => Ok(ReadOutcome::Gap(*kind)),
        Answer::Trimmed { .. } => Ok(ReadOutcome::Trimmed),
        Answer::Unwritten { .. } => Ok(ReadOutcome::Unwritten),
        answer => Err(unexpected(answer)),
    }
}

/// The machine answers each request in kind; a time-out is the one other answer.
pub(crate) fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::TimedOut { effect } => Error::TimedOut { effect: *effect },
        answer => unreachable!("the machine answers each request in kind, not with {answer:?}"),
    }
}

pub(crate) fn outcome_event(op: u64, answer: &Answer, payload: &[u8]) -> What {
    let answer = match *answer {
        Answer::TimedOut { effect } => {
            return What::Failed {
                op,
                effect,
                error: "timeout",
            };
        }
        Answer::TrimBeyondTail { effect, .. } => {
            return What::Failed {
                op,
                effect,
                error: "beyond-tail",
            };
        }
        Answer::Tail { tail, head, .. } => Reply::Tail { tail, head },
        Answer::Record {
            client,
            session,
            seq,
            ..
        } => Reply::Record(RecordIdentity {
            client,
            session,
            seq,
            hash: payload_hash(payload),
        }),
        Answer::Gap { kind, .. } => Reply::Hole(kind),
        Answer::Trimmed { .. } => Reply::Trimmed,
        Answer::Unwritten { .. } => Reply::Unwritten,
        Answer::TrimDone { head, .. } => Reply::Head(head),
    };
    What::Ok { op, answer }
}
