//! What the members below have durably applied: the root drops entries of its cut log by it.

use alloc::vec::Vec;

use ionian_types::{EntryNo, Knobs, Mutant, Time};
use ionian_wire::codec::Field;
use ionian_wire::frame::{Applied, UpKeep};

use super::Leaf;
use crate::outbox::Outbox;

/// Shards that one flush looks at, so that no round waits for thousands of them.
const SHARDS_PER_FLUSH: usize = 128;

/// A look at what members have applied, shard by shard over several flushes. What was true of a shard when it was looked at stays
/// true: what is found is what all of them had applied by then, or a little less than now.
#[derive(Default, Debug)]
pub(super) struct Look {
    /// The next shard.
    next: usize,
    applied: Option<EntryNo>,
    /// Shards of which too few members have applied so much.
    few: Vec<UpKeep>,
}

impl<K: Knobs> Leaf<K> {
    /// Finds out what every live member has applied, and the shards of which too few members have applied all of that: those with
    /// members away. One flush looks at some of the shards.
    pub(super) fn look_applied(&mut self, now: Time) {
        if now < self.applied_due {
            return;
        }
        let first = self.look.next.min(self.shards.len());
        let end = self.shards.len().min(first + SHARDS_PER_FLUSH);
        // Silence from before this life is not known.
        let (started_at, gone) = (self.started_at, self.config.gone);
        let silent = |at: Option<Time>| now.since(at.unwrap_or(started_at).max(started_at)) >= gone;
        for at in first..end {
            self.settle_members(at);
            let (shard, last) = (&self.shards[at], self.downs.last(at));
            let applied = shard.applied_by_live(last, self.uplink.complete, silent);
            let least = self
                .look
                .applied
                .map_or(applied, |least| least.min(applied));
            self.look.applied = Some(least);
            if let Some(after) = shard.applied_by_quorum(last) {
                let shard = shard.shard;
                self.look.few.push(UpKeep { shard, after });
            }
        }
        self.look.next = end;
        if end < self.shards.len() {
            return;
        }
        // Without shards nothing is needed.
        let applied = self.look.applied.take().unwrap_or(self.uplink.complete);
        self.look.next = 0;
        self.applied = applied;
        self.applied_due = now.after(self.config.applied);
        self.keeps.clear();
        let few = self.look.few.drain(..);
        let few = few.filter(|keep| keep.after < applied && !K::mutant(Mutant::DropAtFastest));
        self.keeps.extend(few);
    }

    /// An edge has started: what was found of another one's shards is of no use.
    pub(super) fn look_again(&mut self, now: Time) {
        self.look.next = 0;
        self.look.applied = None;
        self.look.few.clear();
        self.applied_due = now;
    }

    /// The parent was told what was noted last.
    pub(super) fn applied_told(&mut self) {
        let told = self.told.get_or_insert_with(Default::default);
        told.0 = self.applied;
        told.1.clone_from(&self.keeps);
    }

    /// Tells the parent what was applied since the last round. While its cut log is full it cuts nothing, so that no round
    /// grows, and without this it would never hear that there is something to drop.
    pub(super) fn flush_applied(&mut self, out: &mut Outbox) {
        let Some((parent, edge)) = self.uplink.running() else {
            return;
        };
        let applied = self.applied;
        let told = self.told.as_ref();
        let same = told.is_some_and(|told| told.0 == applied && told.1 == self.keeps);
        if same || out.room(parent) < 64 + self.keeps.len() * UpKeep::LEN {
            return;
        }
        let body = Applied {
            log: self.config.log,
            edge,
            inc: self.config.inc,
            applied,
            keeps: self.keeps.len() as u32,
        };
        let keeps = &self.keeps;
        let sent = out.send_with(parent, &body, |writer| {
            keeps.iter().try_for_each(|keep| writer.field(*keep))
        });
        if sent.is_ok() {
            self.applied_told();
        }
    }
}

#[cfg(test)]
mod tests {
    use ionian_types::{
        ClientId, ClusterId, ConnId, Durability, EdgeEpoch, Gsn, Inc, LogId, Lsn, NodeId,
        SessionNo, ShardId, Slot, ViewId,
    };
    use ionian_wire::frame::{
        EdgeStart, Hello, Member, Message, Report, Role, ShardStart, ShardStartHead,
    };
    use ionian_wire::{WIRE_VERSION, Writer};

    use super::*;
    use crate::leaf::LeafConfig;
    use crate::outbox::OutboxLimits;

    const CLUSTER: ClusterId = ClusterId::new(7);
    const LOG: LogId = LogId::new(1);
    const SHARD: ShardId = ShardId::new(4);
    const ROOT: ConnId = ConnId::new(0);

    struct Desk {
        leaf: Leaf,
        out: Outbox,
        now: Time,
        seq: u64,
    }

    impl Desk {
        /// A leaf with an edge, one shard of two and both of them connected. Entry 9 opened the shard.
        fn new() -> Self {
            let now = Time::from_ns(1_000_000);
            let config = LeafConfig::new(CLUSTER, NodeId::new(3), Inc::new(5), LOG);
            let mut desk = Self {
                leaf: Leaf::new(config, now),
                out: Outbox::new(OutboxLimits {
                    connections: 8,
                    ..OutboxLimits::default()
                }),
                now,
                seq: 0,
            };
            desk.hello(ROOT, Role::Root, Slot::ZERO, Inc::new(1));
            for slot in 0..2 {
                let inc = Inc::new(10 + u64::from(slot));
                let conn = ConnId::new(1 + u32::from(slot));
                desk.hello(conn, Role::Replica, Slot::new(slot), inc);
            }
            desk.start(1);
            desk
        }

        fn start(&mut self, start: u64) {
            let members = [0, 1].map(|slot| Member {
                node: NodeId::new(20 + slot),
                inc: Inc::new(10 + u64::from(slot)),
                domain: slot,
            });
            let head = ShardStartHead {
                shard: SHARD,
                epoch: ViewId::new(1),
                last: EntryNo::new(9),
                class: Durability::D1,
                quorum: 2,
            };
            let mut tail = [0; 256];
            let mut writer = Writer::new(&mut tail);
            let segments = [(ViewId::new(1), Lsn::ZERO); 2];
            ShardStart::write(&mut writer, &head, &members, segments.into_iter(), &[]).unwrap();
            let len = writer.len();
            let body = EdgeStart {
                log: LOG,
                edge: EdgeEpoch {
                    start,
                    ..EdgeEpoch::default()
                },
                entry: EntryNo::new(9),
                end_gsn: Gsn::ZERO,
                trim: Gsn::ZERO,
                resume: false,
                vertices: 0,
                shards: 1,
            };
            let message = Message::EdgeStart(body, &tail[..len]);
            self.leaf.handle(self.now, ROOT, &message, &mut self.out);
        }

        fn hello(&mut self, conn: ConnId, role: Role, slot: Slot, inc: Inc) {
            let hello = Hello {
                cluster: CLUSTER,
                wire_version: WIRE_VERSION,
                role,
                node: NodeId::new(1),
                inc,
                log: LOG,
                shard: SHARD,
                slot,
                epoch: ViewId::ZERO,
                last: EntryNo::ZERO,
                client: ClientId::default(),
                session: SessionNo::ZERO,
            };
            self.leaf.opened(conn, &mut self.out);
            let message = Message::Hello(hello, &[]);
            self.leaf.handle(self.now, conn, &message, &mut self.out);
        }

        /// Every member reports lengths that are the same as before, and what it has applied.
        fn report(&mut self, applied: u64) {
            self.seq += 1;
            for slot in 0..2u8 {
                let report = Report {
                    shard: SHARD,
                    epoch: ViewId::new(1),
                    inc: Inc::new(10 + u64::from(slot)),
                    seq: self.seq,
                    applied: EntryNo::new(applied),
                    segments: 2,
                };
                let conn = ConnId::new(1 + u32::from(slot));
                let message = Message::Report(report, &[0; 16]);
                self.leaf.handle(self.now, conn, &message, &mut self.out);
            }
        }

        /// What the root is told by the next sync: entries applied, and shards of which something is to be kept.
        fn told(&mut self) -> Vec<(u64, u32)> {
            self.now = self.now.after(self.leaf.config.sync);
            self.out.clear();
            for conn in 0..3 {
                self.out.set_room(ConnId::new(conn), 4 << 20);
            }
            self.leaf.flush(self.now, &mut self.out);
            let heads = self.out.envelopes().iter();
            heads
                .filter_map(|envelope| {
                    match Message::new_checked(self.out.head(envelope)).unwrap().0 {
                        Message::Applied(body, _) => Some((body.applied.get(), body.keeps)),
                        Message::Up(..) => panic!("no length has grown"),
                        _ => None,
                    }
                })
                .collect()
        }
    }

    /// It was said with rounds only, and there is none while nothing is cut.
    #[test]
    fn the_root_hears_of_what_is_applied_without_a_round() {
        let mut desk = Desk::new();
        assert_eq!(desk.told(), [(0, 0)]);
        assert_eq!(desk.told(), [], "nothing new");
        desk.report(8);
        assert_eq!(desk.told(), [(8, 0)]);
        desk.report(9);
        assert_eq!(desk.told(), [(9, 0)]);
        desk.report(9);
        assert_eq!(desk.told(), []);
        desk.start(2);
        assert_eq!(desk.told(), [(9, 0)], "the next edge knows nothing");
    }
}
