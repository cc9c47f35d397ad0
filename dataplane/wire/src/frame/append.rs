//! Appends, their answers, and the questions that resolve unknown outcomes.

use ionian_types::{
    ClientId, ClientSeq, Durability, EntryNo, Gsn, LogId, Lsn, NodeId, NsEpoch, SegmentId,
    SessionNo, ViewId,
};

use super::macros::{body, code_enum};

body! {
    /// Client to primary: a run of records with consecutive sequence numbers. Tail: the records, encoded as
    /// [`emit_unplaced`](crate::record::emit_unplaced) does, back to back.
    Append = 16 {
        /// The log.
        log: LogId,
        /// The segment that the run is bound to.
        segment: SegmentId,
        /// The generation that the run is bound to; another one answers `closed`, without effect.
        generation: ViewId,
        /// The client life.
        client: ClientId,
        /// The client's session.
        session: SessionNo,
        /// The client's lowest unresolved sequence number in this session.
        floor: ClientSeq,
        /// The first record's sequence number.
        first_seq: ClientSeq,
        /// The number of records.
        count: u32,
    }
}

body! {
    /// Primary to client: a run of records has its place, in one committed entry. No tail.
    AppendAck = 17 {
        /// The log.
        log: LogId,
        /// The segment.
        segment: SegmentId,
        /// The generation.
        generation: ViewId,
        /// The client's session.
        session: SessionNo,
        /// The first record's sequence number.
        first_seq: ClientSeq,
        /// The number of records; sequence numbers, positions and gsn are consecutive.
        count: u32,
        /// The namespace epoch of the positions; 0 in `scalog` mode.
        ns_epoch: NsEpoch,
        /// The first record's position in the total order.
        first_gsn: Gsn,
        /// The entry that ordered the run.
        entry: EntryNo,
        /// The first record's position in the segment.
        first_position: Lsn,
        /// What the acknowledgement means.
        class: Durability,
    }
}

code_enum! {
    /// Why an append was not taken.
    RefusalReason {
        /// The generation is closed or unknown here: the outcome of earlier tries is for a fate query.
        Closed = 1,
        /// Below the client's own floor. No effect.
        Stale = 2,
        /// Too many records wait to be ordered. No effect; try again.
        Busy = 3,
        /// The store is full (memory bound or disk). No effect; trim, or wait for retention.
        StoreFull = 4,
        /// A replica that the shard needs is missing (see `node`). No effect.
        ReplicaMissing = 5,
        /// The same sequence number came before with another payload. No effect.
        Mismatch = 6,
        /// Beyond the window above the floor. No effect.
        Window = 7,
        /// The session was closed by `CloseSession`. No effect.
        SessionClosed = 8,
        /// The records do not parse, or name another session or sequence than the frame. No effect.
        Malformed = 9,
        /// The replica is not ready: it has not entered its epoch, or does not hold its committed prefix. No effect.
        NotReady = 10,
        /// The device failed. No effect for this run.
        Device = 11,
    }
}

body! {
    /// Primary to client: a run of records was refused. No tail.
    AppendRefused = 18 {
        /// The segment.
        segment: SegmentId,
        /// The generation that the run was bound to.
        generation: ViewId,
        /// The client's session.
        session: SessionNo,
        /// The first refused sequence number.
        first_seq: ClientSeq,
        /// The number of records refused.
        count: u32,
        /// Why.
        reason: RefusalReason,
        /// The node concerned, where the reason names one; else 0.
        node: NodeId,
    }
}

body! {
    /// Client to primary: refuse every later append of a session in this generation. No tail.
    CloseSession = 19 {
        /// The segment.
        segment: SegmentId,
        /// The generation.
        generation: ViewId,
        /// The client life.
        client: ClientId,
        /// The session to close.
        session: SessionNo,
    }
}

body! {
    /// Answer to [`CloseSession`]. No tail.
    SessionClosed = 20 {
        /// The segment.
        segment: SegmentId,
        /// The generation.
        generation: ViewId,
        /// The session.
        session: SessionNo,
        /// The sequence number after the last one taken in this generation; meaningful when `known`.
        next_seq: ClientSeq,
        /// Whether this replica may answer: it is the live primary of that generation.
        known: bool,
    }
}

body! {
    /// Client to any replica of the shard: what became of one record? No tail.
    Fate = 21 {
        /// The segment that the record was bound to.
        segment: SegmentId,
        /// The generation that the record was bound to.
        generation: ViewId,
        /// The client life.
        client: ClientId,
        /// The client's session.
        session: SessionNo,
        /// The record's sequence number.
        seq: ClientSeq,
    }
}

code_enum! {
    /// What became of a record.
    FateOutcome {
        /// It is in the total order, at `gsn`.
        Ordered = 1,
        /// It is stored and may still be ordered.
        Pending = 2,
        /// It never was and never will be ordered under this binding: a promise about the future.
        Never = 3,
        /// This replica cannot tell.
        Unknown = 4,
        /// Its shard was declared lost and opened anew since. If it was ordered before, it is lost; it will not be ordered.
        Lost = 5,
    }
}

body! {
    /// Answer to [`Fate`]. No tail.
    FateAnswer = 22 {
        /// The segment.
        segment: SegmentId,
        /// The generation.
        generation: ViewId,
        /// The session.
        session: SessionNo,
        /// The sequence number asked for.
        seq: ClientSeq,
        /// The answer.
        outcome: FateOutcome,
        /// The position, when ordered.
        gsn: Gsn,
        /// The entry, when ordered.
        entry: EntryNo,
        /// The position in the segment, when ordered.
        position: Lsn,
    }
}
