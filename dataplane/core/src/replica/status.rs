//! What a replica tells of itself.

use ionian_types::{EntryNo, Gsn, Knobs, Lsn, NodeId, SEGMENTS_PER_SHARD_MAX, Slot, Time, ViewId};

use super::{Replica, Stranded};
use crate::cutlog::ShardState;

/// Events counted since the start of this life.
#[derive(Clone, Copy, Default, Debug)]
pub struct ReplicaCounters {
    /// Append frames received.
    pub append_frames: u64,
    /// Records placed in the own segment.
    pub appended: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Append frames refused, in part or whole.
    pub refused: u64,
    /// Append frames that repeated records.
    pub repeats: u64,
    /// Records taken from peers.
    pub replicated: u64,
    /// Cuts applied.
    pub cuts: u64,
    /// Views applied.
    pub views: u64,
    /// Records delivered to subscriptions.
    pub delivered: u64,
    /// Reads received.
    pub reads: u64,
    /// Backfills asked for.
    pub backfills: u64,
    /// Copies asked for.
    pub copies: u64,
    /// Checkpoints started.
    pub checkpoints: u64,
    /// Entries that came out of order.
    pub chain_gaps: u64,
    /// Messages that the peer's role may not send, or that name another shard.
    pub unexpected: u64,
    /// Messages of an old generation or epoch.
    pub stale: u64,
    /// Peers of another cluster, log or version.
    pub foreign: u64,
    /// Records that failed their check.
    pub bad_records: u64,
    /// Entries that contradict what was applied before.
    pub contradictions: u64,
    /// Times that entries were needed which the cut log has dropped: a peer's state is asked for.
    pub stranded: u64,
    /// States taken over from a peer.
    pub adoptions: u64,
    /// Entries that waited for room in the journal.
    pub journal_full: u64,
    /// Times the applied state was too large for a checkpoint, or to be handed over to a peer.
    pub states_too_large: u64,
}

/// A replica at a glance.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaStatus {
    /// The shard epoch entered.
    pub epoch: ViewId,
    /// Whether this life is a member of it.
    pub member: bool,
    /// Whether another life has its slot: it serves nothing any more, and its process can end.
    pub replaced: bool,
    /// Whether appends are taken: a member, with an open generation, its committed prefix held, no peer missing, and room.
    pub appendable: bool,
    /// The last append was refused for want of room, here or at a peer, and would still be.
    pub full: bool,
    /// The node of a peer that is missing, if one is.
    pub missing: Option<NodeId>,
    /// What is missing while entries are that the cut log no longer has.
    pub stranded: Option<Stranded>,
    /// The last entry applied.
    pub applied: EntryNo,
    /// The end of the order as known here.
    pub end_gsn: Gsn,
    /// Positions below are trimmed here.
    pub head: Gsn,
    /// Per slot: held, durable, committed.
    pub lens: [(Lsn, Lsn, Lsn); SEGMENTS_PER_SHARD_MAX],
    /// The number of segments.
    pub segments: usize,
    /// Own records that wait for a cut.
    pub waiting: u64,
    /// Bytes of the index.
    pub index_bytes: usize,
    /// Counters.
    pub counters: ReplicaCounters,
}

impl<K: Knobs> Replica<K> {
    /// The shard as of the last entry applied; `None` before its first view.
    #[must_use]
    pub const fn shard_state(&self) -> Option<&ShardState> {
        self.state.as_ref()
    }

    /// The replica at a glance.
    #[must_use]
    pub fn status(&self, now: Time) -> ReplicaStatus {
        let own = self.config.slot;
        let mut lens = [(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO); SEGMENTS_PER_SHARD_MAX];
        for (slot, lens) in lens
            .iter_mut()
            .enumerate()
            .take(usize::from(self.config.replicas))
        {
            let slot = Slot::new(slot as u8);
            *lens = (
                self.store.len(slot),
                self.store.durable_len(slot),
                self.committed(slot),
            );
        }
        let open = self.state.as_ref().is_some_and(|state| {
            let segment = &state.segments[own.index()];
            segment.writer == self.config.inc && self.store.len(own) >= segment.len
        });
        let missing = self.missing_peer(now);
        let full = self.full && self.room.is_short();
        ReplicaStatus {
            epoch: self.epoch(),
            member: self.is_member(),
            replaced: self.is_replaced(),
            appendable: open && self.is_member() && missing.is_none() && !full,
            full,
            missing,
            stranded: self.stranded(),
            applied: self.applied,
            end_gsn: self.end_gsn,
            head: self.head,
            lens,
            segments: usize::from(self.config.replicas),
            waiting: self.store.len(own).saturating_since(self.committed(own)),
            index_bytes: self.index.bytes(),
            counters: self.counters,
        }
    }
}
