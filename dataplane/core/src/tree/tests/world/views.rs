//! Views: what they change of the tree and of the shards.

use alloc::vec;

use super::*;

impl World {
    /// The first shards of the leaves, spread evenly.
    pub(super) fn vertices(&self) -> Vec<TreeVertex> {
        let leaves = self.leaves();
        let mut ranks: Vec<u32> = self.shards.values().copied().collect();
        ranks.sort_unstable();
        let mut leaf = 0;
        let vertex = |(process, below): (usize, usize)| {
            let begins = if below > 0 || leaf == 0 {
                0
            } else {
                // Leaves beyond the shards have none, and begin one after the other.
                let at = leaf * ranks.len() / leaves;
                ranks.get(at).copied().unwrap_or(1000) * 100 + leaf as u32
            };
            leaf += usize::from(below == 0);
            TreeVertex {
                node: NodeId::new(10 + process as u32),
                inc: self.processes[process].inc,
                children: below as u16,
                begins: (begins, ShardId::ZERO),
            }
        };
        self.flat().into_iter().map(vertex).collect()
    }

    /// A view: these shards open, the tree is as it is now, this shard's first segment goes to another life or the shard ends.
    pub(super) fn propose(&mut self, open: &[ShardId], tree: bool, close: Option<(ShardId, bool)>) {
        let mut changes = vec![0; 256 * 1024];
        let mut writer = Writer::new(&mut changes);
        for shard in open {
            let members: Vec<Member> = (0..COPIES).map(|slot| self.member(*shard, slot)).collect();
            let mut bytes = [0; 64];
            let change = Change::Open {
                shard: *shard,
                // Room between the ranks, for leaves to begin at.
                rank: self.shards[shard] * 100 + 99,
                log: LOG,
                class: Durability::D0,
                quorum: COPIES,
                members: encode_members(&mut bytes, &members).unwrap(),
            };
            write_change(&mut writer, &change).unwrap();
            for slot in 0..COPIES {
                self.replicas.entry((*shard, Slot::new(slot))).or_default();
            }
        }
        if let Some((shard, ends)) = close {
            let lens = [0; 8 * COPIES as usize];
            let segment = ionian_types::SegmentId {
                shard,
                slot: Slot::ZERO,
            };
            let member = self.member(shard, 0);
            let change = if ends {
                Change::Finalize {
                    shard,
                    lens: &lens,
                    lost_from: None,
                }
            } else {
                Change::Close {
                    segment,
                    generation: self.generation(shard),
                    len: Lsn::ZERO,
                    writer: Some(member.inc),
                    node: member.node,
                    domain: member.domain,
                }
            };
            write_change(&mut writer, &change).unwrap();
        }
        if tree {
            let vertices = self.vertices();
            let leaves = self.flat().into_iter().zip(&vertices);
            self.begins = leaves
                .filter(|((_, below), _)| *below == 0)
                .map(|((process, _), vertex)| (process, vertex.begins.0))
                .collect();
            let mut bytes = vec![0; vertices.len() * TreeVertex::LEN];
            let vertices = encode_vertices(&mut bytes, vertices.into_iter()).unwrap();
            write_change(&mut writer, &Change::Tree { vertices }).unwrap();
        }
        let len = writer.len();
        self.view += 1;
        self.views += 1;
        let view = ViewId::new(self.view);
        let intent = encoded(&Intent { log: LOG, view }, &changes[..len]);
        self.tell_root(CONTROLLER, &intent);
        assert_eq!(self.root.status().counters.bad_intents, 0);
        self.flush_root();
    }

    pub(super) fn generation(&self, shard: ShardId) -> ViewId {
        let state = self.seen.shard(shard).expect("it is open");
        state.generations().next().expect("it has segments")
    }

    /// The next view opens another generation of the first segment of a shard.
    pub(in crate::tree::tests) fn close_segment(&mut self, shard: ShardId) {
        self.propose(&[], false, Some((shard, false)));
    }
}
