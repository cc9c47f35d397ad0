//! Silence made explicit (ORDERING.md, Sync): replicas hear now and then up to where they know everything.

use ionian_types::{Knobs, Mutant, Nanos, Time};
use ionian_wire::frame::{SyncShard, encode};

use super::{DownSink, Leaf};
use crate::outbox::Outbox;

/// Bytes of what makes silence explicit.
const SYNC_BYTES_MAX: usize = 96;
/// Shards whose replicas are told of silence in one flush, and when the next ones are if nothing else happens.
const SYNCS_PER_FLUSH: usize = 128;
pub(super) const SYNC_ON: Nanos = Nanos::from_us(20);

impl<K: Knobs> Leaf<K> {
    /// Makes silence explicit, to the replicas of some shards in each flush: no round waits for those of thousands.
    pub(super) fn flush_sync(&mut self, now: Time, out: &mut Outbox, sink: &mut impl DownSink) {
        if now >= self.sync_at {
            self.sync_at = now.after(self.config.sync);
            self.sync_left = self.shards.len();
            if self.uplink.edge().is_some() && !K::mutant(Mutant::NoSync) {
                self.tell_ended(out);
            }
            self.flush_applied(out);
            self.flush_status(now, out);
        }
        let told = self.sync_left.min(SYNCS_PER_FLUSH);
        self.sync_left -= told;
        if self.uplink.edge().is_none() || K::mutant(Mutant::NoSync) {
            return;
        }
        for _ in 0..told {
            // Whoever was told last is told last again, also when another turn begins before one has ended.
            self.sync_next = if self.sync_next + 1 < self.shards.len() {
                self.sync_next + 1
            } else {
                0
            };
            self.tell_sync(self.sync_next, out, sink);
        }
    }

    fn tell_sync(&self, at: usize, out: &mut Outbox, sink: &mut impl DownSink) {
        let shard = &self.shards[at];
        let sync = SyncShard {
            log: self.config.log,
            shard: shard.shard,
            epoch: shard.epoch,
            last: self.downs.last(at),
            complete: self.uplink.complete,
            end_gsn: self.uplink.end_gsn,
            trim: self.uplink.trim,
        };
        for member in &shard.members {
            match (member.conn, member.seat) {
                (Some(conn), _) if out.room(conn) > 512 => {
                    let _ = out.send(conn, &sync, &[]);
                }
                (None, Some(seat)) => {
                    let mut frame = [0u8; SYNC_BYTES_MAX];
                    let len = encode(&mut frame, &sync, &[]).unwrap_or(0);
                    let _ = sink.put(seat as usize, &frame[..len]);
                }
                _ => {}
            }
        }
    }
}
