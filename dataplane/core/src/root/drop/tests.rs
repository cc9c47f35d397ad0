//! Members of one shard are away while the log goes on: what they need stays, and only that.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use ionian_store::{BlockOpKind, FileNo, Store, StoreConfig, StoreState};
use ionian_types::{
    ClusterId, ConnId, Durability, EdgeEpoch, EntryNo, Gsn, Inc, LogId, NodeId, RootEpoch, RoundNo,
    ShardId, Time, ViewId,
};
use ionian_wire::Writer;
use ionian_wire::codec::Field as _;
use ionian_wire::entry::{Change, ShardEntry, encode_members, write_change};
use ionian_wire::frame::{
    Applied, Backfill, Intent, Member, Message, NeedEdge, RootGrant, TrimRequest, Up, UpKeep,
};
use ionian_wire::growth::GrowthWriter;
use ionian_wire::tree::{TreeVertex, encode_vertices};

use super::KEEP_AGAIN;
use crate::cutlog::Kept;
use crate::outbox::{Outbox, OutboxLimits};
use crate::root::{Kind, Root, RootConfig};

const CLUSTER: ClusterId = ClusterId::new(7);
const LOG: LogId = LogId::new(1);
const LEAF: ConnId = ConnId::new(1);
const LEAF_NODE: NodeId = NodeId::new(5);
const LEAF_INC: Inc = Inc::new(9);
const REPLICA: ConnId = ConnId::new(2);
const AWAY: ShardId = ShardId::new(0);
const BUSY: ShardId = ShardId::new(1);

/// What a backfill brings.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Entries(Vec<u64>, EntryNo, Gsn),
    /// Its end of the order.
    Snapshot(Gsn),
}

/// A device that does all it is asked.
#[derive(Default)]
struct Device(BTreeMap<FileNo, Vec<u8>>);

impl Device {
    fn work(&mut self, store: &mut Store) {
        while let Some(op) = store.next_op() {
            let files = &mut self.0;
            match op.kind {
                BlockOpKind::Create { bytes } => {
                    files.insert(op.file, vec![0; bytes as usize]);
                }
                BlockOpKind::Delete => drop(files.remove(&op.file)),
                BlockOpKind::Write { offset, len } => {
                    let (from, to) = (offset as usize, offset as usize + len as usize);
                    let file = files.entry(op.file).or_default();
                    file.resize(file.len().max(to), 0);
                    store.fill(&op, &mut file[from..to]);
                }
                BlockOpKind::Read { offset, len } => {
                    let (from, to) = (offset as usize, offset as usize + len as usize);
                    store.complete(op.token, Ok(&files[&op.file][from..to]));
                    continue;
                }
                BlockOpKind::Flush => {}
            }
            store.complete(op.token, Ok(&[]));
        }
    }
}

struct Desk {
    root: Root,
    device: Device,
    out: Outbox,
    now: Time,
    edge: EdgeEpoch,
    round: u64,
    lens: [u64; 2],
}

impl Desk {
    /// A root of a flushed log that drops entries one by one, with two shards of two below one leaf. Entry 3 opened them.
    fn new() -> Self {
        Self::with_snapshots_of(64 << 20)
    }

    fn with_snapshots_of(checkpoint_bytes_max: u64) -> Self {
        let node = NodeId::new(1);
        let store = StoreConfig {
            checkpoint_bytes_max,
            ..StoreConfig::new(CLUSTER, node, LOG, ShardId::MAX, 0, Durability::D1)
        };
        let store = Store::format(store, Inc::ZERO, &[]);
        let config = RootConfig {
            cut_log_chunk_entries: 1,
            ..RootConfig::new(CLUSTER, node, Inc::new(1), LOG, Durability::D1)
        };
        let now = Time::from_ns(1_000_000);
        let mut desk = Self {
            root: Root::new(config, store, now),
            device: Device::default(),
            out: Outbox::new(OutboxLimits {
                connections: 8,
                ..OutboxLimits::default()
            }),
            now,
            edge: EdgeEpoch::default(),
            round: 0,
            lens: [0; 2],
        };
        desk.work();
        assert_eq!(desk.root.store.state(), StoreState::Ready);
        desk.grant(1);
        desk.root.set_kind(LEAF, Kind::Child(LEAF_NODE, LEAF_INC));
        desk.root.set_kind(REPLICA, Kind::Replica);
        desk.open();
        desk.settle();
        assert_eq!(desk.root.status().commit, EntryNo::new(3));
        assert_eq!(desk.root.status().edges, 1);
        desk.edge = desk.root.children[0].link.edge().unwrap();
        desk
    }

    fn open(&mut self) {
        let mut changes = [0u8; 512];
        let mut writer = Writer::new(&mut changes);
        for shard in [AWAY, BUSY] {
            let member = |slot: u32| Member {
                node: NodeId::new(10 + 2 * shard.get() + slot),
                inc: Inc::new(u64::from(2 + slot)),
                domain: slot,
            };
            let mut members = [0u8; 64];
            let members = encode_members(&mut members, &[member(0), member(1)]).unwrap();
            let change = Change::Open {
                shard,
                rank: shard.get(),
                log: LOG,
                class: Durability::D1,
                quorum: 2,
                members,
            };
            write_change(&mut writer, &change).unwrap();
        }
        let mut vertices = [0; TreeVertex::LEN];
        let vertices = encode_vertices(
            &mut vertices,
            [TreeVertex::first_leaf(LEAF_NODE, LEAF_INC)].into_iter(),
        );
        write_change(
            &mut writer,
            &Change::Tree {
                vertices: vertices.unwrap(),
            },
        )
        .unwrap();
        let len = writer.len();
        let (log, view) = (LOG, ViewId::new(1));
        let intent = Intent { log, view };
        self.root
            .on_intent(REPLICA, &intent, &changes[..len], &mut self.out);
    }

    fn grant(&mut self, life: u64) {
        self.root.on_grant(
            &RootGrant {
                log: LOG,
                inc: Inc::new(life),
                epoch: RootEpoch::new(life),
                floor: Gsn::ZERO,
                ceiling: Gsn::new(1 << 40),
                view: ViewId::ZERO,
                write_quorum: 1,
                seal_quorum: 1,
                members: 1,
                recorded: false,
            },
            &only(Inc::new(life)),
        );
    }

    /// The process ends, and another one starts on the same device.
    fn restart(&mut self) {
        let config = *self.root.store.config();
        let files: Vec<FileNo> = self.device.0.keys().copied().collect();
        let mut store = Store::recover(config, &files);
        self.device.work(&mut store);
        assert_eq!(store.state(), StoreState::Ready);
        let config = RootConfig {
            inc: Inc::new(2),
            ..self.root.config
        };
        self.root = Root::new(config, store, self.now);
        self.root.set_kind(REPLICA, Kind::Replica);
        self.grant(2);
        self.settle();
    }

    fn work(&mut self) {
        self.device.work(&mut self.root.store);
    }

    /// Commits what is there, and lets the time pass after which entries are dropped.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.work();
        self.now = self.now.after(ionian_types::Nanos::from_ms(60));
        self.out.set_room(LEAF, 4 << 20);
        self.root.flush(self.now, &mut self.out);
        self.out.clear();
    }

    /// A record more in a shard: an entry more.
    fn cut(&mut self, shard: ShardId, applied: u64, keeps: &[(ShardId, u64)]) {
        let len = &mut self.lens[shard.get() as usize];
        *len += 1;
        self.round += 1;
        let up = Up {
            log: LOG,
            edge: self.edge,
            inc: LEAF_INC,
            round: RoundNo::new(self.round),
            total: self.lens.iter().sum(),
            applied: EntryNo::new(applied),
            full: false,
            keeps: keeps.len() as u32,
        };
        let mut tail = vec![0; 256];
        let mut writer = Writer::new(&mut tail);
        for (shard, after) in keeps {
            let (shard, after) = (*shard, EntryNo::new(*after));
            writer.field(UpKeep { shard, after }).unwrap();
        }
        // Shards have two segments each; those that have ended are not below.
        let state = &self.root.state;
        let mut open = state
            .order()
            .iter()
            .filter(|it| state.shard(**it).unwrap().is_open());
        let segment = 2 * open.position(|it| *it == shard).unwrap();
        GrowthWriter::write(&mut writer, segment..segment + 1, |_| 1).unwrap();
        let len = writer.len();
        let (root, out) = (&mut self.root, &mut self.out);
        root.on_up(LEAF_NODE, LEAF_INC, &up, &tail[..len], out);
        self.settle();
    }

    fn backfill(&mut self, shard: ShardId, after: u64) -> Answer {
        let (log, after) = (LOG, EntryNo::new(after));
        let body = Backfill { log, shard, after };
        self.out.set_room(REPLICA, 4 << 20);
        self.root.on_backfill(REPLICA, &body, &mut self.out);
        let envelope = self.out.envelopes().last().unwrap();
        let answer = match Message::new_checked(self.out.head(envelope)).unwrap().0 {
            Message::Entries(body, tail) => {
                let mut reader = ionian_wire::Reader::new(tail);
                let entries =
                    (0..body.count).map(|_| ShardEntry::read(&mut reader).unwrap().entry().get());
                Answer::Entries(entries.collect(), body.through, body.end_gsn)
            }
            Message::ShardSnapshot(body, _) => Answer::Snapshot(body.end_gsn),
            other => panic!("{other:?}"),
        };
        self.out.clear();
        answer
    }

    fn trim(&mut self, upto: Gsn) {
        let (log, request) = (LOG, 1);
        let trim = TrimRequest { log, request, upto };
        self.out.set_room(REPLICA, 4 << 20);
        self.root.on_trim(REPLICA, &trim, &mut self.out);
        self.settle();
    }

    /// One member of a shard has applied entry 4 and went away, the other one 6; the log went on to 12.
    fn with_a_member_away() -> Self {
        let mut desk = Self::new();
        desk.cut(AWAY, 0, &[]);
        desk.cut(BUSY, 0, &[]);
        desk.cut(AWAY, 3, &[]);
        for entry in 7..=12 {
            desk.cut(BUSY, entry - 2, &[(AWAY, 4)]);
        }
        assert_eq!(desk.root.status().commit, EntryNo::new(12));
        assert_eq!(desk.root.status().cut_log_first, EntryNo::new(11));
        desk
    }
}

/// The one that had applied it was given an old image of its device: nobody knew any more where the records stood.
#[test]
fn what_only_one_member_has_applied_is_kept() {
    let mut desk = Desk::with_a_member_away();
    let all = |entries: &[u64]| Answer::Entries(entries.into(), EntryNo::new(12), Gsn::new(9));
    assert_eq!(desk.backfill(AWAY, 4), all(&[6]));
    assert_eq!(desk.backfill(AWAY, 5), all(&[6]), "as the old image says");
    assert_eq!(desk.backfill(AWAY, 6), all(&[]), "and nothing after it");
    assert!(
        matches!(desk.backfill(AWAY, 3), Answer::Snapshot(_)),
        "both had applied it"
    );
    assert!(
        matches!(desk.backfill(BUSY, 7), Answer::Snapshot(_)),
        "nobody is away there"
    );
}

/// Nobody speaks of a shard that has ended. What its members had not applied by then was dropped as soon as the other shards
/// had applied it: no member knew any more that the shard had ended, and where its last records stood.
#[test]
fn what_ends_a_shard_is_kept_until_it_is_trimmed() {
    let mut desk = Desk::new();
    desk.cut(AWAY, 0, &[]);
    let mut changes = [0u8; 64];
    let mut writer = Writer::new(&mut changes);
    let end = Change::Finalize {
        shard: AWAY,
        lens: &[0; 16],
        lost_from: None,
    };
    write_change(&mut writer, &end).unwrap();
    let len = writer.len();
    let (log, view) = (LOG, ViewId::new(2));
    let intent = Intent { log, view };
    let root = &mut desk.root;
    root.on_intent(REPLICA, &intent, &changes[..len], &mut desk.out);
    desk.settle();
    assert_eq!(desk.root.status().commit, EntryNo::new(5));
    desk.edge = desk.root.children[0].link.edge().unwrap();
    (desk.round, desk.lens[0]) = (0, 0);
    for entry in 6..=12 {
        desk.cut(BUSY, entry - 1, &[]);
    }
    assert!(desk.root.status().cut_log_first > EntryNo::new(5));
    let missed = Answer::Entries(vec![4, 5], EntryNo::new(12), Gsn::new(8));
    assert_eq!(desk.backfill(AWAY, 3), missed);
    // What was dropped before that, others have: it is not trimmed.
    assert!(matches!(desk.backfill(AWAY, 0), Answer::Snapshot(end) if end > Gsn::new(3)));
    assert_eq!(desk.root.needed_by_nobody(), desk.root.applied_everywhere());
    desk.trim(Gsn::new(3));
    desk.cut(BUSY, 12, &[]);
    desk.cut(BUSY, 14, &[]);
    assert_eq!(desk.root.kept, Kept::default());
    // All that the shard held is trimmed, though other shards went on.
    assert!(desk.root.base.end_gsn > Gsn::new(3));
    assert_eq!(desk.backfill(AWAY, 3), Answer::Snapshot(Gsn::new(3)));
}

#[test]
fn what_enough_members_have_applied_goes() {
    let mut desk = Desk::with_a_member_away();
    desk.cut(BUSY, 11, &[]);
    assert_eq!(desk.root.kept, Kept::default());
    assert!(matches!(desk.backfill(AWAY, 4), Answer::Snapshot(_)));
}

/// A member comes back with less than it had: from then on it counts.
#[test]
fn the_newest_round_says_what_is_kept() {
    let mut desk = Desk::with_a_member_away();
    desk.cut(BUSY, 4, &[]);
    desk.cut(BUSY, 4, &[]);
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(11));
    let entries = |entries: &[u64]| Answer::Entries(entries.into(), EntryNo::new(14), Gsn::new(11));
    assert_eq!(desk.backfill(AWAY, 4), entries(&[6]));
}

#[test]
fn what_is_trimmed_is_not_kept() {
    let mut desk = Desk::with_a_member_away();
    let end = desk.root.status().tail;
    desk.trim(end);
    assert_eq!(desk.root.kept, Kept::default());
    assert!(matches!(desk.backfill(AWAY, 4), Answer::Snapshot(_)));
}

/// What members miss has no room in a snapshot. Then nothing went, not even what was trimmed, until the cut log was full.
#[test]
fn what_is_trimmed_goes_when_there_is_too_much_to_keep() {
    let mut desk = Desk::with_snapshots_of(1024);
    for entry in 4..=20 {
        desk.cut(AWAY, entry - 2, &[(AWAY, 3)]);
    }
    let first = desk.root.status().cut_log_first;
    assert!(first > EntryNo::new(4), "as many as there is room for");
    assert!(first < EntryNo::new(15), "and the others stay");
    desk.now = desk.now.after(KEEP_AGAIN);
    desk.trim(Gsn::new(14));
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(18));
    assert_eq!(desk.root.kept, Kept::default());
    desk.now = desk.now.after(KEEP_AGAIN);
    desk.cut(AWAY, 20, &[(AWAY, 3)]);
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(21));
    assert!(!desk.root.kept.is_empty());
}

/// A leaf that names what is not below it, or names it again and again, would have every entry looked at for each of them.
#[test]
fn a_round_names_shards_of_its_subtree_only() {
    let mut desk = Desk::with_a_member_away();
    let before = desk.root.status().counters;
    desk.cut(BUSY, 11, &[(AWAY, 4), (ShardId::new(7), 4)]);
    desk.cut(BUSY, 11, &[(AWAY, 4), (BUSY, 4), (BUSY, 5)]);
    let after = desk.root.status().counters;
    assert_eq!(after.refused_rounds - before.refused_rounds, 2);
    assert_eq!(after.rounds, before.rounds);
}

/// An edge says more than the log can know, or less than it says it does.
#[test]
fn a_round_that_is_cut_off_changes_nothing() {
    let mut desk = Desk::with_a_member_away();
    let up = Up {
        log: LOG,
        edge: desk.edge,
        inc: LEAF_INC,
        round: RoundNo::new(desk.round + 1),
        total: desk.lens.iter().sum(),
        applied: EntryNo::new(12),
        full: false,
        keeps: u32::MAX,
    };
    let before = desk.root.kept.clone();
    let (root, out) = (&mut desk.root, &mut desk.out);
    root.on_up(LEAF_NODE, LEAF_INC, &up, &[], out);
    desk.settle();
    assert_eq!(desk.root.kept, before);
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(11));
}

/// Entries that order nothing are trimmed as soon as they are committed. One that was committed and dropped by the same
/// flush was never seen by whoever follows the log at the root.
#[test]
fn what_a_flush_commits_it_does_not_drop() {
    let mut desk = Desk::new();
    for ceiling in [1 << 41, 1 << 42] {
        desk.root.on_grant(
            &RootGrant {
                log: LOG,
                inc: Inc::new(1),
                epoch: RootEpoch::new(1),
                floor: Gsn::ZERO,
                ceiling: Gsn::new(ceiling),
                view: ViewId::ZERO,
                write_quorum: 1,
                seal_quorum: 1,
                members: 1,
                recorded: false,
            },
            &only(Inc::new(1)),
        );
    }
    desk.flush();
    assert_eq!(desk.root.status().commit, EntryNo::new(5));
    for entry in [4, 5] {
        let entry = EntryNo::new(entry);
        assert!(desk.root.committed_entry(entry).is_some(), "entry {entry}");
    }
    desk.flush();
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(5));
}

/// Nobody has told the new life anything yet.
#[test]
fn a_root_that_starts_again_has_what_is_kept() {
    let mut desk = Desk::with_a_member_away();
    let before = desk.root.kept.clone();
    desk.restart();
    assert_eq!(desk.root.kept, before);
    assert_eq!(desk.root.status().cut_log_first, EntryNo::new(11));
    let Answer::Entries(entries, through, end) = desk.backfill(AWAY, 4) else {
        panic!("the entries are gone");
    };
    assert_eq!((&entries[..], end), (&[6][..], Gsn::new(9)));
    assert!(through > EntryNo::new(12), "the epoch of the new life");
    // Its leaf has said nothing of what was applied.
    desk.settle();
    assert_eq!(desk.root.kept, before);
}

/// Nothing is cut while the cut log is full, so that no round grows; only a round said what members have applied, and the
/// log stayed full for good.
#[test]
fn a_full_cut_log_is_told_that_it_may_drop() {
    let mut desk = Desk::new();
    desk.root.config.cut_log_bytes_max = 1024;
    while desk.root.status().counters.held_back == 0 {
        desk.cut(BUSY, 0, &[]);
    }
    let full = desk.root.status();
    assert!(full.cut_log_bytes > 1024);
    desk.settle();
    assert_eq!(desk.root.status().commit, full.commit);
    let applied = |edge, applied| Applied {
        log: LOG,
        edge,
        inc: LEAF_INC,
        applied,
        keeps: 0,
    };
    let strange = applied(EdgeEpoch::default(), full.commit);
    desk.root.on_applied(LEAF_NODE, LEAF_INC, &strange, &[]);
    desk.settle();
    assert_eq!(
        desk.root.status().commit,
        full.commit,
        "of an edge that ended"
    );
    let body = applied(desk.edge, full.commit);
    desk.root.on_applied(LEAF_NODE, LEAF_INC, &body, &[]);
    desk.settle();
    let status = desk.root.status();
    assert!(
        status.commit > full.commit,
        "the round that waited: {status:?}"
    );
    assert!(status.cut_log_bytes < 1024);
}

/// What was kept for a member that was away filled the cut log. The member came back and applied it, and since nothing is cut
/// while the cut log is full, no entry was dropped that what was kept would have gone with.
#[test]
fn a_cut_log_that_is_full_of_what_was_kept_lets_it_go() {
    let mut desk = Desk::with_a_member_away();
    let applied = |desk: &mut Desk, keeps: &[(ShardId, u64)]| {
        let body = Applied {
            log: LOG,
            edge: desk.edge,
            inc: LEAF_INC,
            applied: desk.root.status().commit,
            keeps: keeps.len() as u32,
        };
        let mut tail = [0; 64];
        let mut writer = Writer::new(&mut tail);
        for (shard, after) in keeps {
            let (shard, after) = (*shard, EntryNo::new(*after));
            writer.field(UpKeep { shard, after }).unwrap();
        }
        let len = writer.len();
        desk.root
            .on_applied(LEAF_NODE, LEAF_INC, &body, &tail[..len]);
        desk.settle();
    };
    desk.root.config.cut_log_bytes_max = desk.root.kept.bytes() / 2;
    applied(&mut desk, &[(AWAY, 4)]);
    let full = desk.root.status();
    assert_eq!(full.cut_log_first, full.commit, "what can be dropped is");
    assert!(!desk.root.kept.is_empty());
    let record = desk.root.store.checkpoint_durable();
    applied(&mut desk, &[]);
    assert_eq!(desk.root.kept, Kept::default());
    assert_eq!(desk.root.status().cut_log_first, full.cut_log_first);
    assert_eq!(desk.root.store.checkpoint_durable(), record);
    // The last of two snapshots of one record is the one that is found.
    desk.restart();
    assert_eq!(desk.root.kept, Kept::default());
}

/// Snapshots and trims take the place of entries for ever: memory and device hold no more at the end of a long run than they
/// did early in it.
#[test]
fn a_long_run_keeps_the_cut_log_bounded() {
    for trims in [false, true] {
        let mut desk = Desk::new();
        let mut peaks = [(0, 0); 2];
        for cut in 0..4000u64 {
            let commit = desk.root.status().commit.get();
            let applied = if trims { 0 } else { commit - 2 };
            desk.cut([AWAY, BUSY][cut as usize % 2], applied, &[]);
            if trims && cut % 50 == 49 {
                desk.trim(desk.root.status().tail);
            }
            let peak = &mut peaks[cut as usize / 2000];
            let files = desk.device.0.values().map(Vec::len).sum::<usize>();
            peak.0 = peak.0.max(desk.root.status().cut_log_bytes);
            peak.1 = peak.1.max(files);
        }
        let status = desk.root.status();
        assert!(status.commit > EntryNo::new(4000) && status.counters.held_back == 0);
        let [early, late] = peaks;
        assert!(
            late.0 <= early.0 && late.0 < 16 * 1024,
            "memory {peaks:?}, trims: {trims}"
        );
        assert!(late.1 <= early.1, "device {peaks:?}, trims: {trims}");
    }
}

/// What was said on an edge that has ended is not believed on the next one: a member may have come back with less.
#[test]
fn an_edge_begins_without_what_members_had_applied() {
    let mut desk = Desk::with_a_member_away();
    assert!(desk.root.children[0].link.applied > EntryNo::ZERO);
    assert!(!desk.root.children[0].link.keeps().is_empty());
    let need = NeedEdge {
        log: LOG,
        edge: desk.edge,
        lost: true,
    };
    desk.root.restart_edge(LEAF_NODE, LEAF_INC, &need);
    desk.settle();
    assert_eq!(desk.root.status().edges, 1);
    assert_eq!(desk.root.children[0].link.applied, EntryNo::ZERO);
    assert!(desk.root.children[0].link.keeps().is_empty());
}

/// The configuration that lists this node alone.
fn only(inc: Inc) -> Vec<u8> {
    [&1u32.to_le_bytes()[..], &inc.get().to_le_bytes()].concat()
}
