//! What replicas are told of cuts: noted when a Down has come, sent by the next flush, since sending needs room.
//!
//! Of each shard only what every cut needs is here, close together: a cut of thousands of shards would miss the cache for each of
//! them if it went by what else a leaf knows of them.

use alloc::vec::Vec;

use ionian_types::{ConnId, EntryNo, Gsn, Knobs, LogId, Lsn, Mutant, ShardId, ViewId};
use ionian_wire::frame::{Down, DownShardFrame, ShardCut};

use super::shard::{MemberSlot, Shard};
use super::{DownSink, Leaf};
use crate::outbox::Outbox;
use crate::tree::rounds::Rounds;

/// No run of seats.
const NOWHERE: u32 = u32::MAX;

/// What every cut of a shard needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// The last entry that touches it.
    pub(super) last: EntryNo,
    epoch: ViewId,
    shard: ShardId,
    first_segment: u32,
    count: u32,
    /// Its members' seats begin here, one after the other, and no member has a connection.
    seats: u32,
}

/// A cut of a shard that waits to be sent.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u32,
    prev_entry: EntryNo,
    base: Gsn,
}

/// A cut of some shards: the pieces up to here are its.
#[derive(Clone, Copy, Debug)]
struct Head {
    entry: EntryNo,
    end_gsn: Gsn,
    pieces: usize,
}

/// What replicas are to be told.
#[derive(Default, Debug)]
pub(super) struct Downs {
    shards: Vec<Told>,
    /// By segment.
    generations: Vec<ViewId>,
    heads: Vec<Head>,
    pieces: Vec<Piece>,
    /// Of all segments of each piece's shard.
    lens: Vec<Lsn>,
    /// Members have come or gone, or were given seats.
    stale: bool,
}

impl Downs {
    /// An edge has started: what was noted is of another one.
    pub(super) fn start<K: Knobs>(
        &mut self,
        shards: &[Shard<K>],
        lasts: impl Iterator<Item = EntryNo>,
    ) {
        self.heads.clear();
        self.pieces.clear();
        self.lens.clear();
        self.shards.clear();
        self.generations.clear();
        for (shard, last) in shards.iter().zip(lasts) {
            self.shards.push(Told {
                last,
                epoch: shard.epoch,
                shard: shard.shard,
                first_segment: shard.first_segment as u32,
                count: shard.members.len() as u32,
                seats: NOWHERE,
            });
            self.generations.extend(shard.generations());
        }
        self.stale = true;
    }

    pub(super) const fn members_changed(&mut self) {
        self.stale = true;
    }

    /// The last entry that touches a shard, by its place at the leaf.
    pub(super) fn last(&self, at: usize) -> EntryNo {
        self.shards[at].last
    }

    /// Notes a Down: which shards grew is what the rounds say that it chose. `false`, and nothing is noted, if they do not have it;
    /// then nothing of them may be used any more.
    pub(super) fn note<K: Knobs>(&mut self, down: &Down, rounds: &mut Rounds<Lsn>) -> bool {
        let Self {
            shards,
            heads,
            pieces,
            lens,
            ..
        } = self;
        let (first_piece, first_len) = (pieces.len(), lens.len());
        let mut base = down.base.get();
        // The shard that the next segment is of, unless it is of a later one.
        let mut at = 0;
        let mut end = 0;
        let (prev, round, total) = (down.prev_round, down.round, down.total);
        let fits = rounds.choose_each::<K>(prev, round, total, |parts, segment, growth| {
            if segment >= end {
                at = shard_at(shards, at, segment);
                let told = &mut shards[at];
                end = (told.first_segment + told.count) as usize;
                let shard_base = if K::mutant(Mutant::SplitWithoutSums) {
                    down.base.get()
                } else {
                    base
                };
                pieces.push(Piece {
                    at: at as u32,
                    prev_entry: core::mem::replace(&mut told.last, down.entry),
                    base: Gsn::new(shard_base),
                });
                // A few: a copy of a slice is a call.
                lens.extend(parts[told.first_segment as usize..end].iter().copied());
            }
            base += growth;
        });
        if !fits {
            for piece in pieces.drain(first_piece..) {
                shards[piece.at as usize].last = piece.prev_entry;
            }
            lens.truncate(first_len);
            return false;
        }
        heads.push(Head {
            entry: down.entry,
            end_gsn: down.end_gsn,
            pieces: pieces.len(),
        });
        true
    }

    /// Finds out whose frames go to seats in a row.
    fn find_seats<K: Knobs>(&mut self, shards: &[Shard<K>]) {
        for (told, shard) in self.shards.iter_mut().zip(shards) {
            let first = shard.members.first().and_then(|member| member.seat);
            let in_a_row = |first: u32| {
                let seats = first..;
                let mut members = shard.members.iter().zip(seats);
                members.all(|(it, seat)| it.conn.is_none() && it.seat == Some(seat))
            };
            told.seats = first.filter(|first| in_a_row(*first)).unwrap_or(NOWHERE);
        }
    }

    /// Sends everything that was noted. The number of frames that did not leave: their replicas ask the cut log, nobody waits for
    /// them.
    pub(super) fn send<K: Knobs>(
        &mut self,
        log: LogId,
        members: &[Shard<K>],
        out: &mut Outbox,
        sink: &mut impl DownSink,
    ) -> u64 {
        if self.heads.is_empty() {
            return 0;
        }
        if core::mem::take(&mut self.stale) {
            self.find_seats(members);
        }
        let mut skipped = 0;
        let (mut piece, mut len) = (0, 0);
        for head in &self.heads {
            let mut frame = DownShardFrame::new(log, head.entry, head.end_gsn);
            for told in &self.pieces[piece..head.pieces] {
                let at = told.at as usize;
                let shard = &self.shards[at];
                let cut = ShardCut {
                    shard: shard.shard,
                    prev_entry: told.prev_entry,
                    epoch: shard.epoch,
                    base: told.base,
                };
                let (first, count) = (shard.first_segment as usize, shard.count as usize);
                let generations = &self.generations[first..first + count];
                frame.fill(&cut, generations, &self.lens[len..len + count]);
                len += count;
                if shard.seats == NOWHERE {
                    skipped += send_each(&members[at].members, &frame, out, sink);
                } else {
                    skipped += sink.put_run(shard.seats as usize, count, &frame);
                }
            }
            piece = head.pieces;
        }
        self.heads.clear();
        self.pieces.clear();
        self.lens.clear();
        skipped
    }
}

/// The place of the shard that a segment is of, which is not before the shard at `from`.
#[inline]
fn shard_at(shards: &[Told], from: usize, segment: usize) -> usize {
    let is_of = |told: &Told| segment < (told.first_segment + told.count) as usize;
    // In a busy log it is the next one.
    if shards.get(from).is_some_and(is_of) {
        return from;
    }
    if shards.get(from + 1).is_some_and(is_of) {
        return from + 1;
    }
    let begun = shards.partition_point(|told| told.first_segment as usize <= segment);
    begun.saturating_sub(1)
}

/// Sends a frame to every member by its own way; the number of those whom it did not reach.
fn send_each(
    members: &[MemberSlot],
    frame: &DownShardFrame,
    out: &mut Outbox,
    sink: &mut impl DownSink,
) -> u64 {
    let mut bytes = [0; DownShardFrame::BYTES_MAX];
    let frame = frame.bytes(&mut bytes);
    let to = |member: &MemberSlot| match (member.conn, member.seat) {
        (Some(conn), _) => out.room(conn) >= 512 && out.send_frame(conn, frame).is_ok(),
        (None, Some(seat)) => sink.put(seat as usize, frame),
        (None, None) => true,
    };
    members.iter().map(to).filter(|left| !left).count() as u64
}

impl<K: Knobs> Leaf<K> {
    /// A connection of a member came or went.
    pub(super) fn set_member_conn(
        &mut self,
        at: usize,
        slot: ionian_types::Slot,
        conn: Option<ConnId>,
    ) {
        if let Some(shard) = self.shards.get_mut(at) {
            shard.set_conn(slot, conn);
            self.downs.members_changed();
        }
    }
}
