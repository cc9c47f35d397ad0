//! What the cut log says of each shard at each entry, compared with a plain model of it: logs of random views and cuts are
//! taken back, dropped and kept, and read from everywhere.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{
    Durability, EdgeEpoch, EntryNo, Gsn, Inc, LogId, Lsn, NodeId, RootEpoch, RoundNo, SegmentId,
    ShardId, Slot, ViewId,
};
use ionian_wire::entry::{
    Change, CutRound, EntryBody, EntryStart, EntryView, EntryWriter, RowItem, ShardEntry,
    encode_members, write_change,
};
use ionian_wire::frame::Member;
use ionian_wire::{Reader, Writer};
use proptest::prelude::*;

use super::*;

/// One segment, as plainly as can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Segment {
    generation: u64,
    len: u64,
    written: bool,
}

#[derive(Clone, Debug)]
struct Shard {
    rank: u32,
    open: bool,
    segments: Vec<Segment>,
}

/// What an entry said of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Row(Gsn, Gsn, Vec<RowItem>),
    Entry,
}

#[derive(Clone)]
struct Desk {
    base: LogState,
    state: LogState,
    shards: BTreeMap<u32, Shard>,
    said: BTreeMap<(u32, u64), Said>,
    /// What the model was after each entry.
    past: BTreeMap<u64, (BTreeMap<u32, Shard>, Gsn)>,
}

/// One step of a log: what kind it is, and numbers to choose with.
type Step = (u8, u32, u64);

impl Desk {
    fn new() -> (Self, EntryLog) {
        let mut desk = Self {
            base: LogState::default(),
            state: LogState::default(),
            shards: BTreeMap::new(),
            said: BTreeMap::new(),
            past: BTreeMap::new(),
        };
        let mut log = EntryLog::new(&desk.base, 3);
        let mut out = [0; 64];
        let start = desk.start();
        let len = EntryWriter::ceiling(&mut out, &start, Gsn::new(1 << 40)).unwrap();
        desk.take(&out[..len], &mut log);
        (desk, log)
    }

    fn start(&self) -> EntryStart {
        EntryStart {
            entry: self.state.entry.next().unwrap(),
            epoch: RootEpoch::new(1),
            prev_crc: self.state.crc,
        }
    }

    fn take(&mut self, encoded: &[u8], log: &mut EntryLog) {
        let view = EntryView::new_checked(encoded).unwrap();
        self.state.apply(&view).unwrap();
        log.push(encoded, &self.state);
        let now = (self.shards.clone(), self.state.end_gsn);
        self.past.insert(self.state.entry.get(), now);
    }

    fn number(&self) -> u64 {
        self.state.entry.get() + 1
    }

    fn step(&mut self, (kind, which, seed): Step, log: &mut EntryLog) {
        let open: Vec<u32> = self.open().map(|(id, _)| id).collect();
        match kind {
            0 => self.open_shard(which % 12, seed, log),
            1 if !open.is_empty() => {
                self.close(open[which as usize % open.len()], seed, log);
            }
            2 if open.len() > 2 => self.finalize(open[which as usize % open.len()], log),
            _ => self.cut(which, seed, log),
        }
    }

    /// The open shards in the order of the tree.
    fn open(&self) -> impl Iterator<Item = (u32, &Shard)> {
        let mut open: Vec<_> = self.shards.iter().filter(|(_, it)| it.open).collect();
        open.sort_by_key(|(id, it)| (it.rank, **id));
        open.into_iter().map(|(id, it)| (*id, it))
    }

    fn view(&mut self, id: u32, change: &Change<'_>, log: &mut EntryLog) {
        let mut changes = [0; 256];
        let mut writer = Writer::new(&mut changes);
        write_change(&mut writer, change).unwrap();
        let len = writer.len();
        let mut out = [0; 512];
        let (view, gsn) = (self.state.view.next().unwrap(), self.state.end_gsn);
        let changes = &changes[..len];
        let len = EntryWriter::view(&mut out, &self.start(), view, gsn, changes).unwrap();
        self.said.insert((id, self.number()), Said::Entry);
        self.take(&out[..len], log);
    }

    /// Opens a shard, or opens it again.
    fn open_shard(&mut self, id: u32, seed: u64, log: &mut EntryLog) {
        let count = 1 + seed as usize % 3;
        let member = |slot: usize| Member {
            node: NodeId::new(slot as u32),
            inc: Inc::new(1 + slot as u64),
            domain: 0,
        };
        let members: Vec<Member> = (0..count).map(member).collect();
        let mut bytes = [0; 64];
        let members = encode_members(&mut bytes, &members).unwrap();
        let rank = (seed / 3 % 5) as u32;
        let segment = Segment {
            generation: self.state.view.get() + 1,
            len: 0,
            written: true,
        };
        let shard = Shard {
            rank,
            open: true,
            segments: vec![segment; count],
        };
        self.shards.insert(id, shard);
        let change = Change::Open {
            shard: ShardId::new(id),
            rank,
            log: LogId::new(1),
            class: Durability::D0,
            quorum: 1,
            members,
        };
        self.view(id, &change, log);
    }

    fn close(&mut self, id: u32, seed: u64, log: &mut EntryLog) {
        let view = self.state.view.get() + 1;
        let shard = self.shards.get_mut(&id).unwrap();
        let slot = seed as usize % shard.segments.len();
        let segment = &mut shard.segments[slot];
        let before = *segment;
        segment.written = seed & 8 == 0;
        segment.generation = if segment.written { view } else { 0 };
        let change = Change::Close {
            segment: SegmentId {
                shard: ShardId::new(id),
                slot: Slot::new(slot as u8),
            },
            generation: ViewId::new(before.generation),
            len: Lsn::new(before.len),
            writer: segment.written.then_some(Inc::new(100 + view)),
            node: NodeId::new(9),
            domain: 0,
        };
        self.view(id, &change, log);
    }

    fn finalize(&mut self, id: u32, log: &mut EntryLog) {
        let shard = self.shards.get_mut(&id).unwrap();
        shard.open = false;
        let lens = shard.segments.iter().flat_map(|it| it.len.to_le_bytes());
        let lens: Vec<u8> = lens.collect();
        let change = Change::Finalize {
            shard: ShardId::new(id),
            lens: &lens,
            lost_from: None,
        };
        self.view(id, &change, log);
    }

    fn cut(&mut self, which: u32, seed: u64, log: &mut EntryLog) {
        let mut growths = Vec::new();
        let mut rows: Vec<(u32, Said)> = Vec::new();
        let start_gsn = self.state.end_gsn;
        let mut gsn = start_gsn.get();
        let order: Vec<u32> = self.open().map(|(id, _)| id).collect();
        for id in order {
            let base = gsn;
            let mut items = Vec::new();
            for (slot, segment) in self
                .shards
                .get_mut(&id)
                .unwrap()
                .segments
                .iter_mut()
                .enumerate()
            {
                let at = growths.len() as u32;
                let drawn = seed.rotate_left(at * 7) % 300;
                let density = u64::from(which % 4) * 100;
                let growth = if segment.written && drawn < density {
                    1 + drawn % 140
                } else {
                    0
                };
                growths.push(growth);
                if growth > 0 {
                    items.push(RowItem {
                        slot: Slot::new(slot as u8),
                        generation: ViewId::new(segment.generation),
                        prev_len: Lsn::new(segment.len),
                        new_len: Lsn::new(segment.len + growth),
                    });
                    segment.len += growth;
                    gsn += growth;
                }
            }
            if !items.is_empty() {
                rows.push((id, Said::Row(Gsn::new(base), Gsn::ZERO, items)));
            }
        }
        let end_gsn = Gsn::new(gsn);
        for (id, said) in rows {
            if let Said::Row(base, _, items) = said {
                let row = Said::Row(base, end_gsn, items);
                self.said.insert((id, self.number()), row);
            }
        }
        let mut out = vec![0; 4096];
        let all = 0..growths.len();
        let growth = |at: usize| growths[at];
        let start = self.start();
        let writer = EntryWriter::cut(&mut out, &start, start_gsn, end_gsn, all, growth).unwrap();
        let len = writer.finish();
        let items: Vec<u64> = match EntryView::new_checked(&out[..len]).unwrap().body {
            EntryBody::Cut(cut) => self.state.items(&cut).map(|it| it.count()).collect(),
            _ => panic!("not a cut"),
        };
        let grown: Vec<u64> = growths.iter().copied().filter(|it| *it > 0).collect();
        assert_eq!(items, grown);
        self.take(&out[..len], log);
    }

    /// Entries that were never committed are taken back.
    fn take_back(&mut self, to: u64, log: &mut EntryLog) {
        let to = EntryNo::new(to.max(self.base.entry.get()));
        log.truncate_after(to);
        let mut state = self.base.clone();
        while state.entry < to {
            let encoded = log.get(state.entry.next().unwrap()).unwrap();
            state
                .apply(&EntryView::new_checked(encoded).unwrap())
                .unwrap();
        }
        self.state = state;
        self.said.retain(|(_, entry), _| *entry <= to.get());
        self.past.retain(|entry, _| *entry <= to.get());
        let model = self.past.get(&to.get()).map(|it| it.0.clone());
        self.shards = model.unwrap_or_default();
    }

    /// The first entries are dropped.
    fn drop_through(&mut self, upto: EntryNo, log: &mut EntryLog) {
        while self.base.entry < upto {
            let encoded = log.get(self.base.entry.next().unwrap()).unwrap();
            self.base
                .apply(&EntryView::new_checked(encoded).unwrap())
                .unwrap();
        }
        log.drop_exactly(upto);
    }

    fn expected(&self, id: u32, after: u64) -> Vec<(u64, Said)> {
        let all = self.said.range((id, after + 1)..=(id, u64::MAX));
        all.map(|((_, entry), said)| (*entry, said.clone()))
            .collect()
    }

    fn check(&self, log: &EntryLog) {
        let entries = (log.first().get()..=log.last().get()).map(EntryNo::new);
        let bytes = entries.filter_map(|entry| log.get(entry)).map(<[u8]>::len);
        assert_eq!(log.bytes() - log.beside(), bytes.sum::<usize>() as u64);
        for (id, shard) in &self.shards {
            let state = self.state.shard(ShardId::new(*id)).unwrap();
            let lens: Vec<u64> = state.lens().map(Lsn::get).collect();
            let model: Vec<u64> = shard.segments.iter().map(|it| it.len).collect();
            assert_eq!((lens, state.is_open()), (model, shard.open));
            let said = self.said.range((*id, 0)..=(*id, u64::MAX)).next_back();
            assert_eq!(said.map(|((_, entry), _)| *entry), Some(state.last().get()));
        }
        let mut bytes = vec![0; 1 << 16];
        let mut writer = Writer::new(&mut bytes);
        self.state.write(&mut writer).unwrap();
        let again = LogState::read(&mut Reader::new(writer.written())).unwrap();
        assert_eq!(again, self.state);
        assert_eq!(
            (again.lens(), again.layout()),
            (self.state.lens(), self.state.layout())
        );
        for id in 0..12 {
            for after in self.base.entry.get()..=self.state.entry.get() {
                let found = self.read(log, id, after);
                assert_eq!(found, self.expected(id, after), "shard {id} after {after}");
            }
        }
        let first = log.first().get() - 1;
        if let Some(before) = first.checked_sub(1) {
            let shard = ShardId::new(0);
            let after = EntryNo::new(before);
            assert!(ShardReader::new(log, &self.base, &self.state, shard, after).is_none());
        }
    }

    fn read(&self, log: &EntryLog, id: u32, after: u64) -> Vec<(u64, Said)> {
        let (shard, after) = (ShardId::new(id), EntryNo::new(after));
        let mut reader = ShardReader::new(log, &self.base, &self.state, shard, after).unwrap();
        let mut found = Vec::new();
        let mut number = after.get();
        while let Some(told) = reader.read() {
            number += 1;
            match told {
                Told::Nothing => {}
                Told::Entry(view) => found.push((view.header.entry.get(), Said::Entry)),
                Told::Cut(row) => {
                    let mut bytes = [0; 512];
                    let mut writer = Writer::new(&mut bytes);
                    row.write(&mut writer).unwrap();
                    found.push(said(writer.written()));
                }
            }
        }
        assert_eq!(number, log.last().get());
        found
    }
}

/// What the bytes that a replica gets say.
fn said(bytes: &[u8]) -> (u64, Said) {
    match ShardEntry::read(&mut Reader::new(bytes)).unwrap() {
        ShardEntry::Cut(row) => {
            let items = row.items().collect();
            (row.entry.get(), Said::Row(row.base, row.end_gsn, items))
        }
        ShardEntry::Entry(view) => (view.header.entry.get(), Said::Entry),
    }
}

fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..10, any::<u32>(), any::<u64>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn readers_are_told_what_entries_say(steps in arb_steps(), back in 0u64..40, more in arb_steps(), drop in 0u64..60) {
        let (mut desk, mut log) = Desk::new();
        for step in steps {
            desk.step(step, &mut log);
        }
        desk.check(&log);
        let to = desk.state.entry.get().saturating_sub(back).max(1);
        desk.take_back(to, &mut log);
        desk.check(&log);
        for step in more {
            desk.step(step, &mut log);
        }
        desk.check(&log);
        let upto = EntryNo::new(drop.min(desk.state.entry.get()));
        desk.drop_through(upto, &mut log);
        desk.check(&log);
        desk.cut(3, 99, &mut log);
        desk.check(&log);
    }

    #[test]
    fn what_is_kept_is_what_entries_said(steps in arb_steps(), more in arb_steps(), drops in (0u64..40, 0u64..80), after in 0u64..20) {
        let (mut desk, mut log) = Desk::new();
        let wanted: BTreeMap<ShardId, EntryNo> =
            [0, 3, 5].map(|id| (ShardId::new(id), EntryNo::new(after))).into();
        let mut kept = Kept::default();
        for (steps, drop) in [(steps, drops.0), (more, drops.1)] {
            for step in steps {
                desk.step(step, &mut log);
            }
            let upto = EntryNo::new(drop.clamp(desk.base.entry.get(), desk.state.entry.get()));
            let mut base = desk.base.clone();
            kept = kept.advanced(&wanted, &mut base, &log, upto, 1 << 20).unwrap();
            desk.drop_through(upto, &mut log);
            prop_assert!(kept.is_empty() || base == desk.base);
        }
        let mut bytes = vec![0; 1 << 16];
        let mut writer = Writer::new(&mut bytes);
        kept.write(&mut writer).unwrap();
        let mut reader = Reader::new(writer.written());
        prop_assert_eq!(&Kept::read(&mut reader).unwrap(), &kept);
        prop_assert!(reader.is_empty());
        for shard in kept.shards() {
            let first = kept.first_after(|it| it == shard).unwrap();
            prop_assert!(kept.entries(shard, EntryNo::new(first.get().saturating_sub(1))).is_none() || first == EntryNo::ZERO);
            for after in first.get()..desk.base.entry.get() {
                let entries = kept.entries(shard, EntryNo::new(after)).unwrap();
                let found: Vec<_> = entries.map(|(number, end, bytes)| {
                    let (entry, said) = said(bytes);
                    assert_eq!(number.get(), entry);
                    assert_eq!(end, desk.past[&entry].1);
                    (entry, said)
                }).collect();
                let expected: Vec<_> = desk.expected(shard.get(), after)
                    .into_iter()
                    .filter(|(entry, _)| *entry <= desk.base.entry.get())
                    .collect();
                if let Some((last, _)) = expected.last() {
                    prop_assert_eq!(kept.end_gsn(shard), Some(desk.past[last].1));
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}

/// Nothing of a cut that does not follow from the state is applied.
#[test]
fn a_cut_of_what_nobody_writes_is_refused() {
    let (mut desk, mut log) = Desk::new();
    desk.open_shard(4, 2, &mut log);
    desk.close(4, 8, &mut log);
    let cut = |desk: &Desk, grown: &[usize], end: u64| {
        let mut out = vec![0; 256];
        let (from, to) = (desk.state.end_gsn, Gsn::new(end));
        let growth = |at: usize| u64::from(grown.contains(&at));
        let writer = EntryWriter::cut(&mut out, &desk.start(), from, to, 0..200, growth).unwrap();
        let len = writer.finish();
        out.truncate(len);
        out
    };
    for (grown, refused) in [(&[2, 3][..], 3), (&[0, 2], 2), (&[1, 199], 199)] {
        let bytes = cut(&desk, grown, 2);
        let view = EntryView::new_checked(&bytes).unwrap();
        let before = desk.state.clone();
        // Slot 2 lost its writer, and there are three.
        let error = ApplyError::Index {
            index: refused,
            segments: 3,
        };
        assert_eq!(desk.state.apply(&view), Err(error));
        assert_eq!(desk.state, before);
    }
    let all: Vec<usize> = (0..128).collect();
    let bytes = cut(&desk, &all, 128);
    assert!(
        desk.state
            .check(&EntryView::new_checked(&bytes).unwrap())
            .is_err()
    );
    let bytes = cut(&desk, &[0, 1], 2);
    assert!(
        desk.state
            .check(&EntryView::new_checked(&bytes).unwrap())
            .is_ok()
    );
}

/// Thousands of segments: marks come with the bytes of entries and take a part of them, and whoever reads begins near.
#[test]
fn a_reader_begins_near_what_it_wants() {
    let (mut desk, mut log) = Desk::new();
    for id in 0..900 {
        desk.open_shard(id, 2 + 3 * u64::from(id), &mut log);
    }
    let segments = desk.state.lens().len();
    assert_eq!(segments, 2700);
    let mut out = vec![0; 8192];
    for _ in 0..1200 {
        let start = desk.start();
        let from = desk.state.end_gsn;
        let to = Gsn::new(from.get() + segments as u64);
        let writer = EntryWriter::cut(&mut out, &start, from, to, 0..segments, |_| 1).unwrap();
        let len = writer.finish();
        let view = EntryView::new_checked(&out[..len]).unwrap();
        desk.state.apply(&view).unwrap();
        log.push(&out[..len], &desk.state);
    }
    let marks = log.marks();
    let bytes: u64 = marks.iter().map(|mark| mark.lens.len() as u64 * 8).sum();
    assert!(marks.len() >= 10, "{}", marks.len());
    assert!(bytes * 4 <= log.bytes(), "{bytes} of {}", log.bytes());
    let last = log.last().get();
    let far = (last - 1200..=last).map(|entry| {
        let from = log
            .mark_before(entry)
            .map_or(log.first().get(), |mark| mark.from);
        (from..entry)
            .filter_map(|entry| log.get(EntryNo::new(entry)))
            .map(<[u8]>::len)
            .sum::<usize>()
    });
    assert!(far.max().unwrap() <= 300 * 1024);
    let after = EntryNo::new(last - 1);
    let mut reader =
        ShardReader::new(&log, &desk.base, &desk.state, ShardId::new(7), after).unwrap();
    let Some(Told::Cut(row)) = reader.read() else {
        panic!("nothing of a shard that grew");
    };
    let lens = |item: &RowItem| (item.prev_len.get(), item.new_len.get());
    assert!(row.items().iter().map(lens).eq([(1199, 1200); 3]));
    assert!(reader.read().is_none());
    leaps_to_what_the_entries_say(&desk, &mut log);
}

/// Entries are dropped by a mark: the state before the first that is left is the one that they lead to.
fn leaps_to_what_the_entries_say(desk: &Desk, log: &mut EntryLog) {
    let (first, last) = (log.first().get(), log.last().get());
    let upto = EntryNo::new(last - 700);
    let mut views = desk.base.clone();
    assert!(!log.leap(&mut views, upto), "shards are opened on the way");
    assert_eq!(log.first().get(), first, "nothing was dropped");
    let to = |log: &EntryLog, mut state: LogState, entry: u64| {
        for number in state.entry.get() + 1..=entry {
            let bytes = log.get(EntryNo::new(number)).unwrap();
            state
                .apply(&EntryView::new_checked(bytes).unwrap())
                .unwrap();
        }
        state
    };
    // From after the views on.
    let mut base = to(log, desk.base.clone(), last - 1150);
    let before = base.clone();
    let all: Vec<Vec<u8>> = (base.entry.get() + 1..=last)
        .map(|entry| log.get(EntryNo::new(entry)).unwrap().to_vec())
        .collect();
    assert!(log.leap(&mut base, upto));
    assert_eq!(log.first().get(), base.entry.get() + 1);
    assert!(base.entry <= upto && upto.get() - base.entry.get() < 200);
    let mut wanted = before.clone();
    for bytes in &all[..(base.entry.get() - before.entry.get()) as usize] {
        wanted
            .apply(&EntryView::new_checked(bytes).unwrap())
            .unwrap();
    }
    assert_eq!(base, wanted);
    assert_eq!((base.lens(), base.crc), (wanted.lens(), wanted.crc));
    // It goes on from there.
    let end = to(log, base.clone(), last);
    assert_eq!(end, desk.state);
    assert!(!log.leap(&mut base, upto), "it is there");
}

/// Whole entries, at the load of a benchmark: 7,000 segments of which all or half grow by 1 to 127 records, and two children.
#[test]
fn a_cut_takes_at_most_two_bytes_for_each_segment_that_grew() {
    let (desk, _) = Desk::new();
    let mut out = vec![0; 1 << 16];
    for every in [1, 2, 4, 7] {
        let grew = |at: usize| (at * 7919).is_multiple_of(every);
        let growth = |at: usize| {
            if grew(at) {
                1 + at as u64 * 31 % 127
            } else {
                0
            }
        };
        let total: u64 = (0..7000).map(growth).sum();
        let (start, end) = (desk.start(), Gsn::new(total));
        let mut writer =
            EntryWriter::cut(&mut out, &start, Gsn::ZERO, end, 0..7000, growth).unwrap();
        for child in 0..2 {
            let round = CutRound {
                child,
                edge: EdgeEpoch {
                    root: RootEpoch::new(3),
                    view: ViewId::new(900),
                    start: 7,
                },
                inc: Inc::new(5000),
                round: RoundNo::new(1 << 40),
            };
            writer.round(&round).unwrap();
        }
        let bytes = writer.finish();
        let changed = (0..7000).filter(|at| grew(*at)).count();
        assert!(bytes <= 2 * changed, "{bytes} bytes for {changed} segments");
    }
}
