//! Messages of the ordering tree: rounds go up, bases come down.

use ionian_types::{
    Durability, EdgeEpoch, EntryNo, Gsn, Inc, LogId, Lsn, NodeId, RoundNo, ShardId, ViewId,
};

use super::macros::body;
use crate::codec::Field;
use crate::codec::{Reader, WireError, Writer};
use crate::tree::TreeVertex;

body! {
    /// Child to parent: a round. Consecutive within (`edge`, `inc`). Tail: [`UpKeep`]s; then a growth list
    /// ([`Growths`](crate::growth::Growths)) over the segments below, in the order of the tree: by how much they have grown since
    /// the round before, or, when `full`, since the edge's start.
    Up = 48 {
        /// The log.
        log: LogId,
        /// The edge epoch.
        edge: EdgeEpoch,
        /// The child's incarnation.
        inc: Inc,
        /// The round's number.
        round: RoundNo,
        /// The sum of all lengths of the subtree in this round, modulo 2^64.
        total: u64,
        /// Every live member of every shard below has applied, at the log's class, all that touches it up to this entry.
        applied: EntryNo,
        /// Whether the growths are those since the edge's start.
        full: bool,
        /// The number of shards of which fewer members than an ack takes have applied all that `applied` says.
        keeps: u32,
    }
}

/// A shard in an [`Up`] of which some members are away: what touches it after an entry is to be kept for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpKeep {
    /// The shard.
    pub shard: ShardId,
    /// As many members as an ack takes have applied, at the log's class, all that touches the shard up to this entry.
    pub after: EntryNo,
}

impl Field for UpKeep {
    const LEN: usize = ShardId::LEN + EntryNo::LEN;
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            shard: reader.field()?,
            after: reader.field()?,
        })
    }
    fn put(self, bytes: &mut [u8]) {
        let (shard, after) = bytes.split_at_mut(ShardId::LEN);
        self.shard.put(shard);
        self.after.put(&mut after[..EntryNo::LEN]);
    }
}

body! {
    /// Child to parent: what members have applied, when that changed and no round has said so: nothing is cut while the cut
    /// log is full, and without this the parent would never hear that it may drop entries. Tail: [`UpKeep`]s.
    Applied = 57 {
        /// The log.
        log: LogId,
        /// The edge epoch.
        edge: EdgeEpoch,
        /// The child's incarnation.
        inc: Inc,
        /// As in [`Up`].
        applied: EntryNo,
        /// The number of shards of which fewer members than an ack takes have applied all that `applied` says.
        keeps: u32,
    }
}

body! {
    /// Parent to child: your next round must be full. No tail.
    NeedFull = 49 {
        /// The log.
        log: LogId,
        /// The edge epoch.
        edge: EdgeEpoch,
    }
}

body! {
    /// Parent to child: the edge (re)starts; these lengths are round 0. Tail: the vertices below the child, one [`EdgeVertex`]
    /// each, in depth-first order; then [`ShardStart`]s, as many as there is room for. The others follow in [`EdgeShards`].
    EdgeStart = 50 {
        /// The log.
        log: LogId,
        /// The new edge epoch.
        edge: EdgeEpoch,
        /// Whether every Down of the edge before has been sent on this session: edges further below that no view has changed go
        /// on. Otherwise they restart, too.
        resume: bool,
        /// The last committed entry.
        entry: EntryNo,
        /// The position after the last one ordered.
        end_gsn: Gsn,
        /// Positions below are trimmed.
        trim: Gsn,
        /// The number of vertices below the child.
        vertices: u16,
        /// The number of shards below the child.
        shards: u32,
    }
}

body! {
    /// Parent to child: the next shards of an edge that has begun to start. Tail: [`ShardStart`]s.
    EdgeShards = 58 {
        /// The log.
        log: LogId,
        /// The edge epoch.
        edge: EdgeEpoch,
        /// How many shards were sent before these.
        first: u32,
    }
}

/// A vertex below a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeVertex {
    /// The vertex.
    pub vertex: TreeVertex,
    /// The last view that changed who is above it or anything below it.
    pub changed: ViewId,
    /// Of a leaf: how many of the shards are below it. Of an aggregator: 0.
    pub shards: u32,
}

impl Field for EdgeVertex {
    const LEN: usize = TreeVertex::LEN + ViewId::LEN + 4;
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            vertex: reader.field()?,
            changed: reader.field()?,
            shards: reader.field()?,
        })
    }
    fn put(self, bytes: &mut [u8]) {
        let (vertex, rest) = bytes.split_at_mut(TreeVertex::LEN);
        let (changed, shards) = rest.split_at_mut(ViewId::LEN);
        self.vertex.put(vertex);
        self.changed.put(changed);
        Field::put(self.shards, &mut shards[..4]);
    }
}

/// What a leaf must know of one shard when its edge starts. Variable length: members, then lengths, then for a joint
/// epoch the new members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardStart<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The shard epoch: the last view that changed it.
    pub epoch: ViewId,
    /// The last entry that touches it.
    pub last: EntryNo,
    /// The durability class.
    pub class: Durability,
    /// How many replicas must hold a record.
    pub quorum: u8,
    members: &'a [u8],
    segments: &'a [u8],
    joint: &'a [u8],
}

/// Set in the number of members of a [`ShardStart`] when the new members of a joint epoch follow.
const JOINT: u8 = 0x80;

/// The fixed part of a [`ShardStart`], for writing one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardStartHead {
    /// The shard.
    pub shard: ShardId,
    /// The shard epoch.
    pub epoch: ViewId,
    /// The last entry that touches it.
    pub last: EntryNo,
    /// The durability class.
    pub class: Durability,
    /// How many replicas must hold a record.
    pub quorum: u8,
}

/// A member of a shard as [`ShardStart`] lists it, in slot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The incarnation whose reports count.
    pub inc: Inc,
    /// The failure domain, for D2.
    pub domain: u32,
}

impl Field for Member {
    const LEN: usize = 16;
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            node: reader.field()?,
            inc: reader.field()?,
            domain: reader.field()?,
        })
    }
    fn put(self, bytes: &mut [u8]) {
        self.node.put(&mut bytes[..4]);
        self.inc.put(&mut bytes[4..12]);
        Field::put(self.domain, &mut bytes[12..16]);
    }
}

impl<'a> ShardStart<'a> {
    /// Reads one shard's start.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let shard = reader.field()?;
        let epoch = reader.field()?;
        let last = reader.field()?;
        let class = reader.field()?;
        let quorum: u8 = reader.field()?;
        let flagged: u8 = reader.field()?;
        let (count, is_joint) = (flagged & !JOINT, flagged & JOINT != 0);
        if count == 0
            || usize::from(count) > ionian_types::SEGMENTS_PER_SHARD_MAX
            || quorum == 0
            || quorum > count
        {
            return Err(WireError::Range {
                field: "shard members",
                value: u64::from(count),
            });
        }
        let members = reader.bytes(usize::from(count) * Member::LEN)?;
        let segments = reader.bytes(usize::from(count) * 16)?;
        let joint = reader.bytes(if is_joint { members.len() } else { 0 })?;
        Ok(Self {
            shard,
            epoch,
            last,
            class,
            quorum,
            members,
            segments,
            joint,
        })
    }

    /// Writes one shard's start. `segments` holds, per member's segment, its current generation and committed length;
    /// `joint` the new members of a joint epoch, as many as the present ones, or nothing.
    ///
    /// # Errors
    /// [`WireError::Full`].
    ///
    /// # Panics
    /// If members, segments or new members differ in number.
    pub fn write(
        writer: &mut Writer<'_>,
        head: &ShardStartHead,
        members: &[Member],
        segments: impl ExactSizeIterator<Item = (ViewId, Lsn)>,
        joint: &[Member],
    ) -> Result<(), WireError> {
        assert_eq!(members.len(), segments.len(), "one segment per member");
        assert!(
            joint.is_empty() || joint.len() == members.len(),
            "one new member per slot"
        );
        let flag = if joint.is_empty() { 0 } else { JOINT };
        writer.field(head.shard)?;
        writer.field(head.epoch)?;
        writer.field(head.last)?;
        writer.field(head.class)?;
        writer.field(head.quorum)?;
        writer.field(members.len() as u8 | flag)?;
        for member in members {
            writer.field(*member)?;
        }
        for (generation, len) in segments {
            writer.field(generation)?;
            writer.field(len)?;
        }
        joint.iter().try_for_each(|member| writer.field(*member))
    }

    /// The new members of a joint epoch in slot order; none otherwise.
    pub fn joint(&self) -> impl ExactSizeIterator<Item = Member> + 'a {
        self.joint
            .chunks_exact(Member::LEN)
            .map(|bytes| Member::take(bytes).expect("the length was checked"))
    }

    /// The members in slot order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Member> + 'a {
        self.members
            .chunks_exact(Member::LEN)
            .map(|bytes| Member::take(bytes).expect("the length was checked"))
    }

    /// The current generation and the committed length of each segment, in slot order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (ViewId, Lsn)> + use<'a> {
        self.segments.chunks_exact(16).map(|bytes| {
            let mut reader = Reader::new(bytes);
            let generation = reader.field().expect("the length was checked");
            let len = reader.field().expect("the length was checked");
            (generation, len)
        })
    }
}

body! {
    /// Child to parent: start my edge again. No tail.
    NeedEdge = 51 {
        /// The log.
        log: LogId,
        /// The edge epoch known, zero when none.
        edge: EdgeEpoch,
        /// Whether a Down was lost, or did not fit: everything below restarts. Otherwise an edge further below needs to know where
        /// its shards stand.
        lost: bool,
    }
}

body! {
    /// Parent to child, at session start and periodically: how far silence is complete. No tail.
    Sync = 52 {
        /// The log.
        log: LogId,
        /// The edge epoch.
        edge: EdgeEpoch,
        /// Every entry up to this one that concerned the child was sent.
        complete: EntryNo,
        /// The position after the last one ordered by `complete`.
        end_gsn: Gsn,
        /// Positions below are trimmed.
        trim: Gsn,
        /// The last round of the child that an entry chose.
        chosen: RoundNo,
    }
}

body! {
    /// Leaf to replica: how far silence is complete. No tail.
    SyncShard = 53 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The shard epoch.
        epoch: ViewId,
        /// The last entry that touches the shard.
        last: EntryNo,
        /// No later entry up to this one touches the shard.
        complete: EntryNo,
        /// The position after the last one ordered by `complete`.
        end_gsn: Gsn,
        /// Positions below are trimmed.
        trim: Gsn,
    }
}

body! {
    /// Leaf to controller, on change and periodically: what holds a shard back. Tail: per member the age of its last
    /// report in microseconds (`u64`) and its lag behind the last touching entry (`u64`).
    ///
    /// Also replica to controller, when its shard has ended: `whole`, with its own bit in `held`, once it holds every record. No
    /// tail.
    ShardStatus = 54 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The shard epoch.
        epoch: ViewId,
        /// Every segment's k-th largest length has reached the lengths of the edge's start.
        whole: bool,
        /// Joint epochs: the new set holds every committed length.
        ready: bool,
        /// A bit per member whose report fell within one (epoch, inc).
        regressed: u8,
        /// A bit per member that has reported, in this epoch, every length of the edge's start.
        held: u8,
        /// The slot that holds the minimum back.
        slowest: u8,
        /// The number of members.
        members: u8,
    }
}

body! {
    /// Parent to child: a committed entry chose one of your rounds; this is your base. No tail.
    Down = 55 {
        /// The log.
        log: LogId,
        /// The entry.
        entry: EntryNo,
        /// The last entry before it for which this child got a Down in this edge epoch, or the entry of the edge's start.
        prev_entry: EntryNo,
        /// The edge epoch.
        edge: EdgeEpoch,
        /// The child's incarnation.
        inc: Inc,
        /// The round chosen.
        round: RoundNo,
        /// The round chosen by `prev_entry`.
        prev_round: RoundNo,
        /// The first position that belongs to the child's subtree in this entry.
        base: Gsn,
        /// The number of positions that belong to it.
        total: u64,
        /// The position after the last one ordered by the entry.
        end_gsn: Gsn,
    }
}

body! {
    /// Leaf to replica: a committed cut as far as it concerns one shard. Tail: per segment its generation and its new
    /// length (`u64`, `u64`).
    DownShard = 56 {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The entry.
        entry: EntryNo,
        /// The entry before it that touches the shard.
        prev_entry: EntryNo,
        /// The shard epoch.
        epoch: ViewId,
        /// The first position that belongs to the shard in this entry.
        base: Gsn,
        /// The position after the last one ordered by the entry.
        end_gsn: Gsn,
        /// The number of segments in the tail.
        segments: u8,
    }
}
