//! Reads, subscriptions, tail, locate and trim.

use ionian_types::{EntryNo, GapKind, Gsn, LogId, Lsn, SegmentId, ShardId, ViewId};

use super::macros::{body, code_enum};

body! {
    /// Client to root: where does the log end? No tail.
    Tail = 64 {
        /// The log.
        log: LogId,
        /// Names the answer.
        request: u64,
    }
}

body! {
    /// Answer to [`Tail`], confirmed after the request came. No tail.
    TailAnswer = 65 {
        /// The request.
        request: u64,
        /// The position after the last one ordered.
        tail: Gsn,
        /// The first position not trimmed.
        head: Gsn,
        /// The last committed entry.
        entry: EntryNo,
    }
}

body! {
    /// Client to root: which segment holds this position? No tail.
    Locate = 66 {
        /// The log.
        log: LogId,
        /// Names the answer.
        request: u64,
        /// The position.
        gsn: Gsn,
    }
}

code_enum! {
    /// What is known of a position.
    LocateStatus {
        /// It lies in a segment.
        Found = 1,
        /// It is trimmed.
        Trimmed = 2,
        /// It is at or beyond the confirmed tail.
        Unwritten = 3,
        /// It is declared lost.
        Lost = 4,
        /// The entry that ordered it is no longer in the cut log: ask the replicas.
        Forgotten = 5,
        /// The member that was asked does not lead and does not know: ask the leader.
        NotLeader = 6,
    }
}

body! {
    /// Answer to [`Locate`]. No tail.
    LocateAnswer = 67 {
        /// The request.
        request: u64,
        /// What is known.
        status: LocateStatus,
        /// The first position of the run that `gsn` lies in.
        from: Gsn,
        /// The position after the last of the run (or of the gap).
        to: Gsn,
        /// The segment.
        segment: SegmentId,
        /// The generation that owns the run.
        generation: ViewId,
        /// The position of `from` in the segment.
        position: Lsn,
        /// The entry that ordered the run, or the last committed one.
        entry: EntryNo,
    }
}

body! {
    /// Client to replica: the record at a position. No tail.
    Read = 68 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// Names the answer.
        request: u64,
        /// The position.
        gsn: Gsn,
        /// The entry that ordered it, if the client knows it, else 0: a replica below it waits, never denies.
        entry: EntryNo,
    }
}

code_enum! {
    /// A replica's answer to a read. It never says "unwritten": only a confirmed tail can.
    ReadStatus {
        /// The record is in the tail.
        Record = 1,
        /// A gap, of kind `gap`.
        Gap = 2,
        /// Trimmed.
        Trimmed = 3,
        /// Not in this shard, as far as entries up to `applied` say.
        NotHere = 4,
        /// The record should be here but cannot be read now.
        Unavailable = 5,
    }
}

body! {
    /// Answer to [`Read`]. Tail: the sealed record, when there is one.
    ReadAnswer = 69 {
        /// The request.
        request: u64,
        /// The position.
        gsn: Gsn,
        /// The answer.
        status: ReadStatus,
        /// The kind of gap; meaningful with [`ReadStatus::Gap`].
        gap: GapKind,
        /// The replica has applied every entry up to this one.
        applied: EntryNo,
    }
}

body! {
    /// Client to replica: deliver this shard's records from a position on, in order. No tail.
    Subscribe = 70 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// Names the subscription within the session.
        subscription: u32,
        /// The first position wanted.
        from: Gsn,
        /// Wait until this entry is applied before delivering.
        entry: EntryNo,
        /// How many bytes of records may be sent before more credit comes.
        credit_bytes: u64,
    }
}

body! {
    /// Client to replica: end a subscription. No tail.
    Unsubscribe = 71 {
        /// The subscription.
        subscription: u32,
    }
}

body! {
    /// Client to replica: the running total of bytes of records that may have been sent. Cumulative, hence idempotent. No tail.
    SubCredit = 72 {
        /// The subscription.
        subscription: u32,
        /// The total since the subscription began.
        credit_bytes: u64,
    }
}

body! {
    /// Replica to client: a run of consecutive positions of one segment. Tail: sealed records.
    Deliver = 73 {
        /// The subscription.
        subscription: u32,
        /// The first record's position in the total order.
        first_gsn: Gsn,
        /// The number of records.
        count: u32,
        /// The entry that ordered them.
        entry: EntryNo,
    }
}

body! {
    /// Replica to client: positions that hold no record. No tail.
    DeliverGap = 74 {
        /// The subscription.
        subscription: u32,
        /// The first position.
        from: Gsn,
        /// The position after the last.
        to: Gsn,
        /// Why.
        kind: GapKind,
    }
}

code_enum! {
    /// Why a subscription ended.
    EndReason {
        /// The replica does not serve the shard (any more).
        NotHere = 1,
        /// Too many subscriptions on the replica.
        Limit = 2,
        /// The replica shuts down.
        Closing = 3,
    }
}

body! {
    /// Replica to client: no more will come. No tail.
    DeliverEnd = 75 {
        /// The subscription.
        subscription: u32,
        /// Why.
        reason: EndReason,
    }
}

body! {
    /// Client to root: remove positions below `upto`. No tail.
    TrimRequest = 76 {
        /// The log.
        log: LogId,
        /// Names the answer.
        request: u64,
        /// The first position to keep.
        upto: Gsn,
    }
}

code_enum! {
    /// What became of a trim.
    TrimStatus {
        /// Committed: `head` holds the new first position.
        Done = 1,
        /// Refused: `upto` lies beyond the committed tail. No effect.
        BeyondTail = 2,
        /// Refused for now: too many trims wait, the journal takes no more, or the root has not begun. No effect; ask again.
        /// `head` and `tail` are zero.
        Busy = 3,
    }
}

body! {
    /// Answer to [`TrimRequest`]. No tail.
    TrimAnswer = 77 {
        /// The request.
        request: u64,
        /// What became of it.
        status: TrimStatus,
        /// The first position kept.
        head: Gsn,
        /// The position after the last one ordered.
        tail: Gsn,
    }
}
