//! What a leaf shows of itself, to the controller and to whoever asks.

use alloc::vec::Vec;

use ionian_types::{Knobs, Nanos, NodeId, ShardId, Slot, Time, ViewId};

use super::Leaf;
use crate::outbox::Outbox;

/// Events counted since the start of this life.
#[derive(Clone, Copy, Default, Debug)]
pub struct LeafCounters {
    /// Reports taken.
    pub reports: u64,
    /// Reports of another epoch, incarnation, or out of order.
    pub stale_reports: u64,
    /// Reports whose lengths fell: their senders are excluded for the epoch.
    pub regressed: u64,
    /// Rounds sent up.
    pub rounds: u64,
    /// Downs applied.
    pub downs: u64,
    /// Downs that did not fit and made the edge start again.
    pub dropped_downs: u64,
    /// Starts of the edge.
    pub edge_starts: u64,
    /// Cuts not sent to a replica for want of room; it asks the cut log.
    pub skipped: u64,
    /// Messages that the peer's role may not send.
    pub unexpected: u64,
}

/// What a leaf knows of one shard, for status.
#[derive(Clone, Debug)]
pub struct ShardStatusRow {
    /// The shard.
    pub shard: ShardId,
    /// The shard epoch.
    pub epoch: ViewId,
    /// Whether every committed length is held by the quorum in this epoch.
    pub whole: bool,
    /// The slot that holds the shard back most, with its node.
    pub slowest: (Slot, NodeId),
    /// Records that another member has reported and the slowest has not, all segments together; 0 when nobody holds the
    /// shard back.
    pub held_back: u64,
    /// Per slot: age of the last report, whether it counts.
    pub members: Vec<(NodeId, Nanos, bool)>,
}

impl<K: Knobs> Leaf<K> {
    /// Tells the controller what holds each shard back.
    pub(super) fn flush_status(&mut self, now: Time, out: &mut Outbox) {
        let Some(conn) = self.controller else { return };
        self.settle_seats();
        for shard in &mut self.shards {
            shard.note_ready(|segment| self.lens[segment]);
            if out.room(conn) < 512 || !shard.status_due(now, self.config.status) {
                continue;
            }
            let (status, tail, used) = shard.status_message(self.config.log, now);
            let _ = out.send(conn, &status, &tail[..used]);
        }
    }

    /// When the last committed cut came that concerned what is below.
    #[must_use]
    pub const fn last_cut_at(&self) -> Option<Time> {
        self.down_at
    }

    /// Rounds sent up and not yet chosen.
    #[must_use]
    pub const fn rounds_in_flight(&self) -> u64 {
        self.rounds.outstanding()
    }

    /// Counters since the start of this life.
    #[must_use]
    pub const fn counters(&self) -> &LeafCounters {
        &self.counters
    }

    /// Whether the edge to the parent runs, as far as is known here.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.uplink.running().is_some()
    }

    /// Every shard at a glance. What servers write to slots shows as of the last sync.
    #[must_use]
    pub fn status(&self, now: Time) -> Vec<ShardStatusRow> {
        self.shards.iter().map(|shard| shard.status(now)).collect()
    }
}
