//! What goes in and out on the application's side of the client machine: tickets, completions, answers, deliveries.

use ionian_types::{
    ClientId, ClientSeq, Durability, Effect, EntryNo, GapKind, Gen, Gsn, Lsn, NodeId, SegmentId,
    SessionNo, ShardId, Slot,
};
use ionian_wire::frame::RefusalReason;
use ionian_wire::record::{RECORD_HEADER_BYTES, RecordHeader, parse_header};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerKind {
    /// The root leader of the log.
    Root,
    /// A replica.
    Replica {
        /// Its shard.
        shard: ShardId,
        /// Its slot.
        slot: Slot,
    },
}

/// How appends choose their server.
#[derive(Clone, Copy, Debug, Default)]
pub enum Policy {
    /// One server, until it closes. Keeps the order in which the client issued its appends.
    #[default]
    Sticky,
    /// Every open server in turn. Order holds per server only.
    Spread,
    /// The shard that the payload's key falls to, by the hash that the function computes. Order holds per key while the
    /// set of open shards stays.
    ByKey(fn(&[u8]) -> u64),
    /// The shard that the function picks from the open ones; `None` or a shard that is not open refuses the append.
    Custom(fn(&[u8], &[ShardId]) -> Option<ShardId>),
}

/// Where one append goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// Where the policy says.
    #[default]
    Policy,
    /// To this shard. Appends to one shard keep their order among each other.
    Shard(ShardId),
}

/// Names one append of one client machine. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    /// The lane that carries it. Completions of one lane come in the order of the appends.
    pub lane: u32,
    /// Its number within the lane, from 0, dense.
    pub number: u64,
}

/// What became of a run of appends with consecutive tickets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The first append.
    pub first: Ticket,
    /// How many.
    pub count: u32,
    /// The session that the records carry in their headers.
    pub session: SessionNo,
    /// The sequence number of the first record in that session.
    pub first_seq: ClientSeq,
    /// What became of them.
    pub outcome: Outcome,
}

/// The outcome of a run of appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// They have their positions: consecutive from the first.
    Ordered {
        /// The first record's position in the total order.
        first_gsn: Gsn,
        /// The entry that ordered them.
        entry: EntryNo,
        /// The segment that holds them.
        segment: SegmentId,
        /// Its generation.
        generation: Gen,
        /// The first record's position in the segment.
        first_position: Lsn,
        /// What the acknowledgement means.
        class: Durability,
    },
    /// They were given up.
    Failed {
        /// Why.
        failure: AppendFailure,
        /// What they may have done.
        effect: Effect,
    },
}

/// Why an append that was taken did not get a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendFailure {
    /// The time allowed passed.
    TimedOut {
        /// The last refusal before that, and the node that it names, when there was one.
        refusal: Option<(RefusalReason, NodeId)>,
    },
    /// The server refused it for good.
    Refused(RefusalReason),
    /// Its shard was declared lost and opened anew before the record was acknowledged. It may have been ordered before, and
    /// be lost with the rest; it will not be ordered any more.
    Lost,
}

/// Why an append was not taken. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is longer than a record may be.
    #[error("a payload of {bytes} bytes exceeds the largest record, {max} bytes")]
    TooLarge {
        /// The payload's length in bytes.
        bytes: usize,
        /// The largest payload in bytes.
        max: usize,
    },
    /// Too many appends are unresolved or not polled; make progress, poll completions, try again.
    #[error("too many appends wait for their outcome")]
    Busy,
    /// The log has no open shard, or the map of the cluster has not arrived.
    #[error("no server takes appends: the cluster map names no open shard")]
    NoServer,
    /// The shard takes no appends now; the node is down.
    #[error("shard {shard} takes no appends: node {node} is missing")]
    NotReady {
        /// The shard.
        shard: ShardId,
        /// The node that is missing; 0 when the map names none.
        node: NodeId,
    },
    /// The machine was closed.
    #[error("the client is closed")]
    Closed,
}

/// Names one request of one client machine. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub(super) u64);

impl RequestId {
    /// The bare number, for histories and traces.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Why a request or subscription was not taken. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too many are open or not polled.
    #[error("too many requests are open")]
    Busy,
    /// The machine was closed.
    #[error("the client is closed")]
    Closed,
}

/// The answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To a tail request.
    Tail {
        /// The position after the last one ordered when the request was made, or later.
        tail: Gsn,
        /// The first position not trimmed.
        head: Gsn,
        /// The last committed entry.
        entry: EntryNo,
    },
    /// To a read: the record, whose payload lies in the buffer given to `poll_answer`.
    Record {
        /// The position.
        gsn: Gsn,
        /// The segment that holds it.
        segment: SegmentId,
        /// The client that appended it.
        client: ClientId,
        /// Its session.
        session: SessionNo,
        /// Its sequence number.
        seq: ClientSeq,
    },
    /// To a read: the position holds no record and never will.
    Gap {
        /// The position.
        gsn: Gsn,
        /// Why.
        kind: GapKind,
    },
    /// To a read: the position was trimmed.
    Trimmed {
        /// The position.
        gsn: Gsn,
    },
    /// To a read: the position was at or beyond the tail, confirmed after the read was made.
    Unwritten {
        /// The position.
        gsn: Gsn,
    },
    /// To a trim: done.
    TrimDone {
        /// The first position kept.
        head: Gsn,
        /// The position after the last one ordered.
        tail: Gsn,
    },
    /// To a trim: refused, the position lies beyond the tail.
    TrimBeyondTail {
        /// The position after the last one ordered.
        tail: Gsn,
        /// None, unless the request had to be sent again and an earlier sending is unanswered: that one may reach the root
        /// once the log is long enough.
        effect: Effect,
    },
    /// The time allowed passed.
    TimedOut {
        /// What the request may have done: a trim that was sent may be done yet.
        effect: Effect,
    },
}

/// Names one subscription of one client machine. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriptionId(pub(super) u32);

impl SubscriptionId {
    /// The bare number, for histories and traces.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

/// A run of records with consecutive positions, checked, borrowed from where it lies.
#[derive(Clone, Copy, Debug)]
pub struct RecordRun<'a> {
    /// The first record's position in the total order.
    pub first_gsn: Gsn,
    /// The number of records.
    pub count: u32,
    /// The shard that holds them.
    pub shard: ShardId,
    /// The entry that ordered them.
    pub entry: EntryNo,
    /// The sealed records, back to back; both checksums of each were found good.
    pub bytes: &'a [u8],
}

impl<'a> RecordRun<'a> {
    /// The records: position, header, payload.
    #[must_use]
    pub const fn records(&self) -> RunRecords<'a> {
        RunRecords {
            gsn: self.first_gsn,
            left: self.count,
            rest: self.bytes,
        }
    }
}

/// Walks the records of a [`RecordRun`].
#[derive(Clone, Copy, Debug)]
pub struct RunRecords<'a> {
    gsn: Gsn,
    left: u32,
    rest: &'a [u8],
}

impl<'a> RunRecords<'a> {
    /// The bytes of the records not yet walked.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RunRecords<'a> {
    type Item = (Gsn, RecordHeader, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let header = parse_header(self.rest).ok()?;
        let (record, rest) = self.rest.split_at_checked(header.encoded_bytes())?;
        let payload =
            record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + header.payload_bytes as usize)?;
        let gsn = self.gsn;
        self.gsn = gsn.next().unwrap_or(Gsn::MAX);
        self.left -= 1;
        self.rest = rest;
        Some((gsn, header, payload))
    }
}

/// Where deliveries of subscriptions go, in the total order. What is not taken is kept, and offered again by
/// [`Client::resume`](super::Client::resume); its shard's server stops when its credit is used up.
pub trait Sink {
    /// Takes records from the front of a run and returns how many it took. Fewer than `run.count` means: not now.
    fn records(&mut self, subscription: SubscriptionId, run: &RecordRun<'_>) -> u32;
    /// Takes a gap: positions `from <= g < to` hold no record. `false` means: not now.
    fn gap(&mut self, subscription: SubscriptionId, from: Gsn, to: Gsn, kind: GapKind) -> bool;
}

/// Takes nothing: every delivery stays in the machine.
impl Sink for () {
    fn records(&mut self, _: SubscriptionId, _: &RecordRun<'_>) -> u32 {
        0
    }

    fn gap(&mut self, _: SubscriptionId, _: Gsn, _: Gsn, _: GapKind) -> bool {
        false
    }
}

/// Counters of one client machine. Each only rises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClientStats {
    /// Appends taken.
    pub appends: u64,
    /// Appends that got a position.
    pub acked: u64,
    /// Appends given up.
    pub failed: u64,
    /// Append frames sent.
    pub append_frames: u64,
    /// Records sent more than once.
    pub resent: u64,
    /// Refused runs.
    pub refusals: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Fate queries sent.
    pub fates: u64,
    /// Lanes moved to another session with records in them.
    pub rebinds: u64,
    /// Requests taken.
    pub requests: u64,
    /// Requests sent again.
    pub request_retries: u64,
    /// Records delivered to subscriptions.
    pub delivered: u64,
    /// Deliveries that had to wait in the machine, in runs.
    pub buffered: u64,
    /// Shard streams started again elsewhere.
    pub stream_restarts: u64,
    /// Records that failed a check (subscriptions and reads).
    pub bad_records: u64,
    /// Messages that contradict what the machine knows, dropped.
    pub bad_messages: u64,
}
