//! Messages between the replicas of a shard, and between a replica and the cut log.

use ionian_types::{EntryNo, Gsn, Inc, LogId, Lsn, SegmentId, ShardId, ViewId};

use super::macros::body;

body! {
    /// Primary to peer: a run of its segment's records. Tail: sealed records, back to back.
    Replicate = 32 {
        /// The log.
        log: LogId,
        /// The segment, owned by the sender.
        segment: SegmentId,
        /// The generation, opened by the sender's life.
        generation: ViewId,
        /// The first record's position.
        from: Lsn,
        /// The number of records.
        count: u32,
    }
}

body! {
    /// Peer to primary: how much of the primary's segment this replica holds. Opens and resumes replication. No tail.
    Have = 33 {
        /// The segment, owned by the receiver.
        segment: SegmentId,
        /// The generation that the sender has entered for it.
        generation: ViewId,
        /// The contiguous length held.
        len: Lsn,
    }
}

body! {
    /// Replica to peer: send me committed records that I miss. No tail.
    CopyRequest = 34 {
        /// The segment.
        segment: SegmentId,
        /// The shard epoch that both must have entered.
        epoch: ViewId,
        /// The first position wanted.
        from: Lsn,
        /// The position after the last wanted.
        to: Lsn,
    }
}

body! {
    /// Answer to [`CopyRequest`]: a run of committed records, each with the generation that owns it. Tail: sealed records.
    CopyData = 35 {
        /// The segment.
        segment: SegmentId,
        /// The shard epoch.
        epoch: ViewId,
        /// The first record's position.
        from: Lsn,
        /// The number of records; 0 when the sender does not hold the first one.
        count: u32,
    }
}

body! {
    /// Receiver of a copy to its sender: held up to here. No tail.
    CopyAck = 36 {
        /// The segment.
        segment: SegmentId,
        /// The shard epoch.
        epoch: ViewId,
        /// The contiguous length held.
        len: Lsn,
    }
}

body! {
    /// Replica to leaf: lengths of the contiguous prefixes held at the log's class. Tail: one `u64` per segment of the shard.
    Report = 37 {
        /// The shard.
        shard: ShardId,
        /// The shard epoch entered.
        epoch: ViewId,
        /// The sender's incarnation.
        inc: Inc,
        /// The report's number, rising within one incarnation.
        seq: u64,
        /// The last entry applied, at the log's class.
        applied: EntryNo,
        /// The number of lengths.
        segments: u8,
    }
}

body! {
    /// Replica to the cut log: send the entries that touch my shard after this one. No tail.
    Backfill = 38 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The last entry applied.
        after: EntryNo,
    }
}

body! {
    /// The cut log to a replica: what every entry in (`after`, `through`] says that touches its shard, and nothing else. Tail:
    /// of each cut a [`Row`](crate::entry::Row), of anything else the entry ([`ShardEntry`](crate::entry::ShardEntry)). An
    /// empty tail says that none touched the shard.
    Entries = 39 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The entry after which this begins.
        after: EntryNo,
        /// The last entry considered.
        through: EntryNo,
        /// The number of rows and entries in the tail.
        count: u32,
        /// The position after the last one ordered by `through`.
        end_gsn: Gsn,
        /// Positions below are trimmed.
        trim: Gsn,
    }
}

body! {
    /// The cut log to a replica that asks for entries which were dropped: the shard's whole state after `entry`. Tail: the
    /// state, as the cut log's snapshot encodes a shard.
    ShardSnapshot = 40 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The entry after which the state holds.
        entry: EntryNo,
        /// The position after the last one ordered by `entry`.
        end_gsn: Gsn,
        /// Positions below are trimmed.
        trim: Gsn,
    }
}

body! {
    /// Replica to peer: entries that touch the shard were dropped before I had applied them; send me what they said. No tail.
    StateRequest = 41 {
        /// The shard.
        shard: ShardId,
        /// The last of the dropped entries that touched the shard: the peer must have applied it.
        need: EntryNo,
        /// The entry at which the peer's state, of which a part was received, was taken; 0 before the first part.
        applied: EntryNo,
        /// The first byte wanted.
        from: u64,
    }
}

body! {
    /// Answer to [`StateRequest`]: a part of the sender's state as its checkpoint encodes it (index, generations, lengths,
    /// losses, dedup sets). Tail: the bytes from `from` on.
    StateData = 42 {
        /// The shard.
        shard: ShardId,
        /// The last entry applied in this state.
        applied: EntryNo,
        /// CRC-32C of the whole.
        crc: u32,
        /// Bytes of the whole.
        total: u64,
        /// The first byte of this part; 0 begins a new state.
        from: u64,
    }
}

body! {
    /// Replica to the writer of a segment: what I take of it from `len` on. Never falls within a generation; the writer
    /// takes no record beyond what every peer has granted. No tail.
    Grant = 43 {
        /// The segment, owned by the receiver.
        segment: SegmentId,
        /// The generation that the sender has entered for it.
        generation: ViewId,
        /// The length held when this was said.
        len: Lsn,
        /// The charge that fits beyond, in bytes: what records take wherever they are stored.
        credit: u64,
    }
}
