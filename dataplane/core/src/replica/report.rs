//! What a replica tells the leaf above its shard, or, while the tree changes, the leaves.
//!
//! A replica connects to its leaf in the tree and in the one that is to be in its place. It does not know which of them has its
//! shard, and need not: it reports to both, and takes cuts from both. A leaf without the shard passes reports over; one whose
//! edge has ended makes rounds that no root takes. What either says of a cut is in the cut log, and is applied in the order of
//! the chain, whoever says it. So nothing waits at the moment when the shard goes from one to the other. The cost is a second
//! report for as long as both trees are there.

use alloc::vec::Vec;

use ionian_types::{ConnId, Inc, Knobs, Lsn, Mutant, NodeId, SEGMENTS_PER_SHARD_MAX, Slot, Time};
use ionian_wire::frame::Report;

use super::Replica;
use crate::outbox::Outbox;

/// Leaves that a replica reports to, at most: those of two trees, and of each a life that has just begun.
const LEAVES_MAX: usize = 4;

/// A leaf that has said who it is.
#[derive(Clone, Copy, Debug)]
struct Above {
    conn: ConnId,
    node: NodeId,
    inc: Inc,
    /// It has not had the last report.
    due: bool,
    /// It has spoken of the shard.
    heard: bool,
}

/// The leaves that are connected.
#[derive(Default, Debug)]
pub(super) struct Leaves(Vec<Above>);

impl Leaves {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A leaf is there, and knows nothing yet. The connection that this one is in place of, if there is one.
    pub(super) fn here<K: Knobs>(
        &mut self,
        conn: ConnId,
        node: NodeId,
        inc: Inc,
    ) -> Option<ConnId> {
        let same = |it: &Above| (it.node, it.inc) == (node, inc);
        let known = self.0.iter().position(same);
        let full = (self.0.len() == LEAVES_MAX).then_some(0);
        let replaced = known.or(full).map(|at| self.0.remove(at).conn);
        if K::mutant(Mutant::ReportToLatestLeaf) {
            self.0.clear();
        }
        self.0.push(Above {
            conn,
            node,
            inc,
            due: true,
            heard: false,
        });
        replaced
    }

    pub(super) fn gone(&mut self, conn: ConnId) {
        self.0.retain(|it| it.conn != conn);
    }

    /// A leaf speaks of the shard. What it was told before it had the shard it has not kept.
    pub(super) fn heard(&mut self, conn: ConnId) {
        let known = self.0.iter_mut().find(|it| it.conn == conn);
        if let Some(leaf) = known.filter(|it| !it.heard) {
            (leaf.due, leaf.heard) = (true, true);
        }
    }
}

impl<K: Knobs> Replica<K> {
    pub(super) fn flush_report(&mut self, now: Time, out: &mut Outbox) {
        if self.leaves.is_empty() || !self.is_member() {
            return;
        }
        let Some(state) = &self.state else { return };
        let count = state.segments.len();
        let mut lens = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        let mut changed = self.reported_applied != self.applied_durable;
        for (slot, len) in lens.iter_mut().enumerate().take(count) {
            *len = self.reported_len(Slot::new(slot as u8));
            changed |= *len != self.reported[slot];
        }
        let due = changed || now >= self.report_at.after(self.config.timing.report);
        if !due && !self.leaves.0.iter().any(|leaf| leaf.due) {
            return;
        }
        let report = Report {
            shard: self.config.shard,
            epoch: state.epoch,
            inc: self.config.inc,
            seq: self.report_seq + 1,
            applied: self.applied_durable,
            segments: count as u8,
        };
        let mut tail = [0u8; SEGMENTS_PER_SHARD_MAX * 8];
        for (bytes, len) in tail.chunks_exact_mut(8).zip(&lens[..count]) {
            bytes.copy_from_slice(&len.get().to_le_bytes());
        }
        let mut told = false;
        for leaf in &mut self.leaves.0 {
            leaf.due |= due;
            if leaf.due && out.room(leaf.conn) > 0 {
                leaf.due = out.send(leaf.conn, &report, &tail[..count * 8]).is_err();
                told |= !leaf.due;
            }
        }
        if told {
            self.report_seq += 1;
            self.report_at = now;
            self.reported = lens;
            self.reported_applied = self.applied_durable;
        }
    }

    /// What is held of a segment at the class.
    #[inline]
    pub(super) fn reported_len(&self, slot: Slot) -> Lsn {
        if K::mutant(Mutant::ReportNeverFalls) {
            return self
                .store
                .durable_len(slot)
                .max(self.reported[slot.index()]);
        }
        if K::mutant(Mutant::AckBeforePersist) {
            self.store.len(slot)
        } else {
            self.store.durable_len(slot)
        }
    }
}
