//! Tests of entries: what was written comes back, what was damaged does not.

use super::*;
use crate::tree::{TreeVertex, encode_vertices};
use ionian_types::{Durability, LogId, SegmentId, Slot};
use proptest::prelude::*;

const START: EntryStart = EntryStart {
    entry: EntryNo::new(7),
    epoch: RootEpoch::new(2),
    prev_crc: 99,
};

fn cut(growths: &[u64], rounds: &[CutRound]) -> Vec<u8> {
    let mut out = vec![0; 128 + growths.len() * 12 + rounds.len() * 60];
    let (from, to) = (Gsn::new(100), Gsn::new(100 + growths.iter().sum::<u64>()));
    let all = 0..growths.len();
    let mut writer = EntryWriter::cut(&mut out, &START, from, to, all, |at| growths[at]).unwrap();
    for round in rounds {
        writer.round(round).unwrap();
    }
    let len = writer.finish();
    out.truncate(len);
    out
}

fn arb_item(slot: u8) -> impl Strategy<Value = RowItem> {
    (any::<u64>(), 0u64..1 << 60, 1u64..1 << 20).prop_map(move |(generation, prev, n)| RowItem {
        slot: Slot::new(slot),
        generation: ViewId::new(generation),
        prev_len: Lsn::new(prev),
        new_len: Lsn::new(prev + n),
    })
}

proptest! {
    #[test]
    fn cuts_come_back(growths in proptest::collection::vec(0u64..1 << 20, 0..20), child: u32, round: u64) {
        let rounds = [CutRound {
            child,
            edge: EdgeEpoch { root: RootEpoch::new(round), view: ViewId::new(3), start: 4 },
            inc: Inc::new(5),
            round: RoundNo::new(round),
        }];
        let bytes = cut(&growths, &rounds);
        let view = EntryView::new_checked(&bytes).unwrap();
        prop_assert_eq!(view.header.entry, START.entry);
        let EntryBody::Cut(body) = view.body else { panic!("not a cut") };
        let grown = growths.iter().copied().enumerate().filter(|(_, growth)| *growth > 0);
        prop_assert_eq!(body.growths().iter().collect::<Vec<_>>(), grown.collect::<Vec<_>>());
        prop_assert_eq!(body.rounds().collect::<Vec<_>>(), rounds);
    }

    #[test]
    fn any_flipped_bit_is_seen(at: prop::sample::Index, bit in 0..8) {
        let mut bytes = cut(&[0, 4], &[]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(EntryView::new_checked(&bytes).is_err());
    }

    #[test]
    fn rows_come_back(entry: u64, base in 0u64..1 << 40, first in arb_item(1), second in arb_item(4)) {
        let items = [first, second];
        let end = Gsn::new(base + first.count() + second.count());
        let (entry, base) = (EntryNo::new(entry), Gsn::new(base));
        let mut out = [0; Row::BYTES_MAX];
        let mut writer = Writer::new(&mut out);
        Row::write(&mut writer, entry, base, end, &items).unwrap();
        let mut reader = Reader::new(writer.written());
        let Ok(ShardEntry::Cut(row)) = ShardEntry::read(&mut reader) else { panic!("not a row") };
        prop_assert!(reader.is_empty());
        prop_assert_eq!((row.entry, row.base, row.end_gsn), (entry, base, end));
        prop_assert_eq!(row.items().collect::<Vec<_>>(), items);
        for len in 0..writer.len() {
            prop_assert!(ShardEntry::read(&mut Reader::new(&writer.written()[..len])).is_err());
        }
    }

    #[test]
    fn arbitrary_rows_never_panic(count: u8, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [&[64, count][..], &bytes].concat();
        let mut reader = Reader::new(&bytes);
        if let Ok(ShardEntry::Cut(row)) = ShardEntry::read(&mut reader) {
            prop_assert_eq!(row.items().count(), usize::from(count));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = EntryView::new_checked(&bytes);
        let _ = Changes::check(&bytes);
    }
}

#[test]
fn a_cut_whose_sum_is_wrong_is_refused() {
    let mut out = [0; 128];
    let (from, to) = (Gsn::new(0), Gsn::new(5));
    let writer = EntryWriter::cut(&mut out, &START, from, to, 0..1, |_| 4).unwrap();
    let len = writer.finish();
    assert!(matches!(
        EntryView::new_checked(&out[..len]),
        Err(WireError::Range {
            field: "cut end_gsn",
            ..
        })
    ));
}

#[test]
fn a_row_that_says_more_than_its_cut_is_refused() {
    let item = |slot, prev, new| RowItem {
        slot: Slot::new(slot),
        generation: ViewId::new(1),
        prev_len: Lsn::new(prev),
        new_len: Lsn::new(new),
    };
    let read = |end: u64, items: &[RowItem]| {
        let mut out = [0; Row::BYTES_MAX];
        let mut writer = Writer::new(&mut out);
        let (entry, base) = (EntryNo::new(3), Gsn::new(10));
        Row::write(&mut writer, entry, base, Gsn::new(end), items).unwrap();
        ShardEntry::read(&mut Reader::new(writer.written())).is_ok()
    };
    assert!(read(15, &[item(0, 0, 2), item(1, 7, 10)]));
    assert!(
        !read(14, &[item(0, 0, 2), item(1, 7, 10)]),
        "beyond its end"
    );
    assert!(!read(15, &[item(1, 7, 10), item(0, 0, 2)]), "not by slot");
    assert!(!read(15, &[item(1, 7, 10), item(1, 7, 8)]), "one twice");
    assert!(!read(15, &[item(1, 7, 7)]), "nothing");
    assert!(!read(15, &[item(7, 7, 8)]), "no such slot");
    assert!(!read(15, &[]), "nothing at all");
    assert!(!read(u64::MAX, &[item(0, 0, u64::MAX)]), "too much");
}

#[test]
fn a_whole_cut_is_nothing_that_replicas_are_told() {
    let bytes = cut(&[4], &[]);
    assert!(EntryView::new_checked(&bytes).is_ok());
    assert!(ShardEntry::read(&mut Reader::new(&bytes)).is_err());
    let mut out = [0; 64];
    let len = EntryWriter::trim(&mut out, &START, Gsn::new(6)).unwrap();
    let mut reader = Reader::new(&out[..len]);
    let entry = ShardEntry::read(&mut reader).unwrap();
    assert!(reader.is_empty() && entry.entry() == START.entry);
}

/// The bytes of a cut and of a row, for ever: a change of any of them needs new versions.
#[test]
fn golden_bytes() {
    let item = RowItem {
        slot: Slot::new(1),
        generation: ViewId::new(2),
        prev_len: Lsn::new(3),
        new_len: Lsn::new(7),
    };
    let mut out = [0; Row::BYTES_MAX];
    let mut writer = Writer::new(&mut out);
    Row::write(
        &mut writer,
        EntryNo::new(9),
        Gsn::new(100),
        Gsn::new(110),
        &[item],
    )
    .unwrap();
    let round = CutRound {
        child: 1,
        edge: EdgeEpoch {
            root: RootEpoch::new(2),
            view: ViewId::new(3),
            start: 4,
        },
        inc: Inc::new(5),
        round: RoundNo::new(600),
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let table = format!(
        "{}\n{}\n",
        hex(&cut(&[0, 4, 200], &[round])),
        hex(writer.written())
    );
    let golden = include_str!("../../golden/cuts.txt");
    assert_eq!(table, golden, "the layout changed: raise both versions");
}

#[test]
fn views_come_back() {
    let mut member_bytes = [0; 64];
    let members = [
        crate::frame::Member {
            node: NodeId::new(1),
            inc: Inc::new(11),
            domain: 0,
        },
        crate::frame::Member {
            node: NodeId::new(2),
            inc: Inc::new(12),
            domain: 1,
        },
    ];
    let list = encode_members(&mut member_bytes, &members).unwrap();
    let lens = [1u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    let mut vertex_bytes = [0; TreeVertex::LEN];
    let leaf = TreeVertex::first_leaf(NodeId::new(3), Inc::new(13));
    let vertices = encode_vertices(&mut vertex_bytes, [leaf].into_iter()).unwrap();
    let changes = [
        Change::Open {
            shard: ShardId::new(4),
            rank: 0,
            log: LogId::new(0),
            class: Durability::D1,
            quorum: 2,
            members: list,
        },
        Change::Close {
            segment: SegmentId {
                shard: ShardId::new(4),
                slot: Slot::new(1),
            },
            generation: ViewId::new(1),
            len: Lsn::new(33),
            writer: None,
            node: NodeId::new(2),
            domain: 1,
        },
        Change::Joint {
            shard: ShardId::new(4),
            members: list,
        },
        Change::Activate {
            shard: ShardId::new(4),
        },
        Change::Finalize {
            shard: ShardId::new(4),
            lens: &lens,
            lost_from: Some(Gsn::new(8)),
        },
        Change::Tree { vertices },
    ];
    let mut encoded = [0; 512];
    let mut writer = Writer::new(&mut encoded);
    for change in &changes {
        write_change(&mut writer, change).unwrap();
    }
    let len = writer.len();
    let mut out = [0; 512];
    let len = EntryWriter::view(
        &mut out,
        &START,
        ViewId::new(3),
        Gsn::new(44),
        &encoded[..len],
    )
    .unwrap();
    let view = EntryView::new_checked(&out[..len]).unwrap();
    let EntryBody::View(body) = view.body else {
        panic!("not a view")
    };
    assert_eq!(body.changes().collect::<Vec<_>>(), changes);
    assert!(view.names(ShardId::new(4)));
    assert!(!view.names(ShardId::new(5)));
}

#[test]
fn the_smaller_entries_come_back() {
    let mut out = [0; 256];
    let members = [(NodeId::new(3), Inc::new(4))];
    let len = EntryWriter::root_epoch(&mut out, &START, 1, 1, &members).unwrap();
    let view = EntryView::new_checked(&out[..len]).unwrap();
    let EntryBody::RootEpoch(body) = view.body else {
        panic!("not a root epoch")
    };
    assert_eq!(body.members().collect::<Vec<_>>(), members);
    let loss = LossView {
        shard: None,
        from: Gsn::new(5),
        to: Gsn::new(9),
        end_gsn: Gsn::new(9),
    };
    let len = EntryWriter::loss(&mut out, &START, &loss).unwrap();
    assert!(
        matches!(EntryView::new_checked(&out[..len]).unwrap().body, EntryBody::Loss(found) if found == loss)
    );
    let len = EntryWriter::trim(&mut out, &START, Gsn::new(6)).unwrap();
    assert!(
        matches!(EntryView::new_checked(&out[..len]).unwrap().body, EntryBody::Trim { upto } if upto == Gsn::new(6))
    );
    let len = EntryWriter::ceiling(&mut out, &START, Gsn::new(6)).unwrap();
    assert!(
        matches!(EntryView::new_checked(&out[..len]).unwrap().body, EntryBody::Ceiling { gsn } if gsn == Gsn::new(6))
    );
}
