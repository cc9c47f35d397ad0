//! A snapshot of the cut log takes the place of entries that ordered trimmed positions only.

use alloc::vec;

use ionian_store::{Store, StoreConfig};
use ionian_types::{ClusterId, Durability, EntryNo, Gsn, Inc, Lsn, NodeId, Slot, Time, ViewId};
use ionian_wire::Writer;
use ionian_wire::frame::ShardSnapshot;

use super::super::image::Image;
use super::super::image::tests::{LOG, REPLICAS, SHARD, encoded, state};
use super::super::{Replica, ReplicaConfig};
use crate::cutlog::ShardState;

const CLUSTER: ClusterId = ClusterId::new(7);
const NODE: NodeId = NodeId::new(1);
/// Cuts that the replica has applied, and records of its peer's segment that they ordered.
const CUTS: u64 = 10;
const ORDERED: Lsn = Lsn::new(2 * CUTS);
const PEER: Slot = Slot::new(1);

/// A replica in memory that has applied those cuts and holds what they ordered of its peer's segment.
fn replica() -> Replica {
    let store = Store::new(StoreConfig::new(
        CLUSTER,
        NODE,
        LOG,
        SHARD,
        REPLICAS,
        Durability::D0,
    ));
    let mut config =
        ReplicaConfig::new(CLUSTER, NODE, Inc::new(5), LOG, SHARD, Slot::ZERO, REPLICAS);
    config.cuts_ready = 1;
    let mut replica = Replica::new(config, store, Time::ZERO);
    replica.take_image(Image::read(&encoded(CUTS), REPLICAS, 1).unwrap(), None);
    replica.trim_segment(PEER, ORDERED);
    replica.tail_generation[PEER.index()] = ViewId::new(1);
    replica
}

/// The cut log has dropped what leads to `then`, all of it trimmed.
fn dropped(replica: &mut Replica, then: &ShardState) {
    let mut bytes = vec![0; 1 << 12];
    let mut writer = Writer::new(&mut bytes);
    then.write(&mut writer).unwrap();
    let len = writer.len();
    let end = Gsn::new(1 << 20);
    let snapshot = ShardSnapshot {
        log: LOG,
        shard: SHARD,
        entry: then.last,
        end_gsn: end,
        trim: end,
    };
    replica.on_snapshot(Time::ZERO, &snapshot, &bytes[..len]);
    assert_eq!(replica.applied, then.last);
}

/// The root has lost its cut log; the replica, which was away, returned when what it knew was trimmed and dropped. Its
/// records would have counted as those that stand at the same positions now: reported, and served.
#[test]
fn what_was_held_before_a_shard_was_opened_anew_is_forgotten() {
    let mut replica = replica();
    assert_eq!(replica.reported_len(PEER), ORDERED);
    let mut then = state(1);
    (then.epoch, then.last) = (ViewId::new(9), EntryNo::new(1 << 40));
    for segment in &mut then.segments {
        segment.closed.clear();
        (segment.generation, segment.opened_at) = (ViewId::new(9), Lsn::ZERO);
    }
    assert!(then.segments[PEER.index()].len < ORDERED);
    dropped(&mut replica, &then);
    for (slot, segment) in [Slot::ZERO, PEER].into_iter().zip(&then.segments) {
        assert_eq!(replica.reported_len(slot), segment.len, "{slot:?}");
    }
}

#[test]
fn what_is_held_stays_when_a_shard_goes_on() {
    let mut replica = replica();
    let mut then = state(CUTS);
    then.last = EntryNo::new(11 * CUTS);
    then.segments[PEER.index()].len = Lsn::new(ORDERED.get() - 1);
    dropped(&mut replica, &then);
    assert_eq!(replica.reported_len(PEER), ORDERED);
}
