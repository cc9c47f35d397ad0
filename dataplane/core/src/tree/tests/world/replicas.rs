//! What replicas report, and what they are told, held against the cut log.

use alloc::vec::Vec;

use super::*;

impl World {
    pub(super) fn member(&self, shard: ShardId, slot: u8) -> Member {
        let node = 1000 + shard.get() * 10 + u32::from(slot);
        Member {
            node: NodeId::new(node),
            inc: Inc::new(u64::from(node)),
            domain: u32::from(slot),
        }
    }

    /// Whether replicas of a shard write to a slot, instead of sending: in one world none, in others all or some.
    pub(super) fn writes_slots(&self, shard: ShardId) -> bool {
        match self.seed % 3 {
            0 => false,
            1 => true,
            _ => shard.get().is_multiple_of(2),
        }
    }

    pub(super) fn seat(&mut self, leaf: Who, shard: ShardId, slot: Slot) {
        let Who::Vertex(at) = leaf else { return };
        let Process { machine, slots, .. } = &mut self.processes[at];
        let Machine::Leaf(leaf) = machine else { return };
        let next = slots.writers.len();
        if let Entry::Vacant(vacant) = slots.writers.entry((shard, slot)) {
            vacant.insert(slots.table.writer(next).expect("a free slot"));
            leaf.seat(next, shard, slot);
        }
    }

    /// A replica says what it holds.
    pub(super) fn report(&mut self, shard: ShardId, slot: Slot) {
        let (Some(state), Some(replica)) = (
            self.seen.shard(shard),
            self.replicas.get_mut(&(shard, slot)),
        ) else {
            return;
        };
        let epoch = state.epoch();
        replica.seq += 1;
        let (seq, applied, lens) = (replica.seq, replica.told, replica.lens);
        let report = Report {
            shard,
            epoch,
            inc: self.member(shard, slot.get()).inc,
            seq,
            applied,
            segments: COPIES,
        };
        let who = Who::Replica(shard, slot);
        let ends = self.wires.iter().map(|wire| wire.ends);
        let Some([own, leaf]) = ends.into_iter().find(|ends| ends[0].0 == who) else {
            return;
        };
        if let Who::Vertex(at) = leaf.0
            && let Some(writer) = self.processes[at].slots.writers.get_mut(&(shard, slot))
        {
            let (epoch, inc) = (report.epoch, report.inc);
            let lens = &lens;
            let written = writer.write(&SlotReport {
                epoch,
                inc,
                seq,
                applied,
                lens,
            });
            written.expect("as many lengths as segments");
            return;
        }
        let tail: Vec<u8> = lens.iter().flat_map(|len| len.to_le_bytes()).collect();
        self.send(own, encoded(&report, &tail));
    }

    /// A record is written somewhere, and after a while held by the other replica.
    pub(super) fn write(&mut self) {
        let keys: Vec<(ShardId, Slot)> = self.replicas.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let (shard, slot) = keys[self.draw(keys.len())];
        let more = 1 + self.draw(200) as u64;
        let own = self.replicas.get_mut(&(shard, slot)).unwrap();
        own.lens[slot.index()] += more;
        self.report(shard, slot);
        let (shard, slot) = keys[self.draw(keys.len())];
        self.copy(shard, slot);
    }

    pub(super) fn copy(&mut self, shard: ShardId, slot: Slot) {
        let len = self.replicas[&(shard, slot)].lens[slot.index()];
        for other in (0..COPIES).map(Slot::new).filter(|other| *other != slot) {
            let copy = self.replicas.get_mut(&(shard, other)).unwrap();
            copy.lens[slot.index()] = len;
            self.report(shard, other);
        }
    }

    /// A replica is told something: of a cut it must be what the cut log says.
    pub(super) fn hear(&mut self, shard: ShardId, slot: Slot, bytes: &[u8]) {
        let Some(replica) = self.replicas.get_mut(&(shard, slot)) else {
            return;
        };
        match Message::new_checked(bytes).unwrap().0 {
            Message::DownShard(down, tail) => {
                let said = said(&down, tail);
                let expected = self.expected.get(&(shard, down.entry));
                assert_eq!(Some(&said), expected, "shard {shard}, entry {}", down.entry);
                replica.told = replica.told.max(down.entry);
                self.downs += 1;
            }
            Message::SyncShard(sync, _) => {
                assert!(
                    sync.last <= self.seen.entry,
                    "an entry that is not committed"
                );
                // A leaf that a shard has left says that there is more to ask for.
                let last = self.seen.shard(shard).map_or(EntryNo::ZERO, |it| it.last());
                if sync.last <= last {
                    replica.told = replica.told.max(sync.last);
                }
            }
            _ => {}
        }
    }

    /// Reads what is newly committed.
    pub(super) fn see(&mut self) {
        while let Some(next) = self.seen.entry.next()
            && let Some(bytes) = self.root.committed_entry(next)
        {
            let view = EntryView::new_checked(bytes).unwrap();
            let mut touched: Vec<(ShardId, Gsn, EntryNo)> = Vec::new();
            if let EntryBody::Cut(cut) = view.body {
                let mut base = cut.start_gsn.get();
                for item in self.seen.items(&cut) {
                    let shard = item.segment.shard;
                    if touched.last().is_none_or(|(last, ..)| *last != shard) {
                        let prev = self.seen.shard(shard).unwrap().last();
                        touched.push((shard, Gsn::new(base), prev));
                    }
                    base += item.count();
                }
                assert_eq!(base, cut.end_gsn.get());
            }
            self.seen.apply(&view).unwrap();
            for (shard, base, prev) in touched {
                let mut lens = [0; COPIES as usize];
                for (len, now) in lens.iter_mut().zip(self.seen.shard(shard).unwrap().lens()) {
                    *len = now.get();
                }
                let end = self.seen.end_gsn;
                let expected = Expected {
                    prev,
                    base,
                    end,
                    lens,
                };
                self.expected.insert((shard, next), expected);
            }
            if let EntryBody::View(body) = view.body {
                for change in body.changes() {
                    match change {
                        // Whoever has entered the view has dropped what no generation owns any more.
                        Change::Close { segment, len, .. } => {
                            for slot in 0..COPIES {
                                let key = (segment.shard, Slot::new(slot));
                                let replica = self.replicas.get_mut(&key).unwrap();
                                replica.lens[segment.slot.index()] = len.get();
                            }
                        }
                        Change::Finalize { shard, .. } => {
                            self.shards.remove(&shard);
                            self.replicas.retain(|(of, _), _| *of != shard);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn said(down: &DownShard, tail: &[u8]) -> Expected {
    let mut reader = Reader::new(tail);
    let lens = [(); COPIES as usize].map(|()| {
        let _generation: ViewId = reader.field().unwrap();
        reader.field::<u64>().unwrap()
    });
    Expected {
        prev: down.prev_entry,
        base: down.base,
        end: down.end_gsn,
        lens,
    }
}
