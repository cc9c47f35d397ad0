//! Tests of entries: what was written comes back, what was damaged does not.

use super::*;
use ionian_types::{Durability, LogId};
use proptest::prelude::*;

const START: EntryStart = EntryStart {
    entry: EntryNo::new(7),
    epoch: RootEpoch::new(2),
    prev_crc: 99,
};

fn cut(items: &[CutItem], rounds: &[CutRound]) -> Vec<u8> {
    let mut out = vec![0; 64 + items.len() * 40 + rounds.len() * 60];
    let total: u64 = items.iter().map(CutItem::count).sum();
    let mut writer =
        EntryWriter::cut(&mut out, &START, Gsn::new(100), Gsn::new(100 + total)).unwrap();
    for item in items {
        writer.item(item).unwrap();
    }
    writer.end_items();
    for round in rounds {
        writer.round(round).unwrap();
    }
    let len = writer.finish();
    out.truncate(len);
    out
}

fn arb_item() -> impl Strategy<Value = CutItem> {
    (
        any::<u32>(),
        0u8..7,
        any::<u64>(),
        0u64..1 << 60,
        1u64..1 << 20,
    )
        .prop_map(|(shard, slot, generation, prev, n)| CutItem {
            segment: SegmentId {
                shard: ShardId::new(shard),
                slot: Slot::new(slot),
            },
            generation: ViewId::new(generation),
            prev_len: Lsn::new(prev),
            new_len: Lsn::new(prev + n),
        })
}

proptest! {
    #[test]
    fn cuts_come_back(items in proptest::collection::vec(arb_item(), 0..20), child: u32, round: u64) {
        let rounds = [CutRound {
            child,
            edge: EdgeEpoch { root: RootEpoch::new(round), view: ViewId::new(3), start: 4 },
            inc: Inc::new(5),
            round: RoundNo::new(round),
        }];
        let bytes = cut(&items, &rounds);
        let view = EntryView::new_checked(&bytes).unwrap();
        prop_assert_eq!(view.header.entry, START.entry);
        let EntryBody::Cut(body) = view.body else { panic!("not a cut") };
        prop_assert_eq!(body.items().collect::<Vec<_>>(), items);
        prop_assert_eq!(body.rounds().collect::<Vec<_>>(), rounds);
    }

    #[test]
    fn any_flipped_bit_is_seen(at: prop::sample::Index, bit in 0..8) {
        let item = CutItem {
            segment: SegmentId { shard: ShardId::new(1), slot: Slot::new(0) },
            generation: ViewId::new(1), prev_len: Lsn::new(5), new_len: Lsn::new(9),
        };
        let mut bytes = cut(&[item], &[]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(EntryView::new_checked(&bytes).is_err());
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
    let mut writer = EntryWriter::cut(&mut out, &START, Gsn::new(0), Gsn::new(5)).unwrap();
    writer
        .item(&CutItem {
            segment: SegmentId {
                shard: ShardId::new(0),
                slot: Slot::new(0),
            },
            generation: ViewId::new(1),
            prev_len: Lsn::new(0),
            new_len: Lsn::new(4),
        })
        .unwrap();
    writer.end_items();
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
        Change::Tree { children: &[0; 24] },
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
    assert!(view.touches(ShardId::new(4)));
    assert!(!view.touches(ShardId::new(5)));
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
