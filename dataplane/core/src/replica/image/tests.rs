//! Images from peers: what is whole is believed, what contradicts itself or the cut log is not, and nothing panics.

use ionian_types::{
    ClientId, ClientSeq, Durability, EntryNo, Gsn, Inc, LogId, Lsn, NodeId, SessionNo, ShardId,
    Slot, ViewId,
};
use ionian_wire::Writer;
use ionian_wire::frame::Member;
use proptest::prelude::*;

use super::Image;
use crate::cutlog::{GenSpan, SegmentState, ShardState};
use crate::dedup::Dedup;
use crate::index::RunIndex;

pub(in crate::replica) const LOG: LogId = LogId::new(1);
pub(in crate::replica) const SHARD: ShardId = ShardId::new(2);
pub(in crate::replica) const REPLICAS: u8 = 2;

/// A shard after `cuts` cuts of 3 records in the first segment and 2 in the second, every tenth entry; the writer of the
/// first was replaced after the fourth.
pub(in crate::replica) fn state(cuts: u64) -> ShardState {
    let segment = |per_cut: u64, closed: Vec<GenSpan>| SegmentState {
        generation: ViewId::new(1 + closed.len() as u64),
        opened_at: closed.last().map_or(Lsn::ZERO, |span| span.close),
        writer: Inc::new(5),
        len: Lsn::new(per_cut * cuts),
        closed,
    };
    let closed = GenSpan {
        generation: ViewId::new(1),
        open: Lsn::ZERO,
        close: Lsn::new(12),
    };
    let member = Member {
        node: NodeId::new(1),
        inc: Inc::new(5),
        domain: 0,
    };
    ShardState {
        shard: SHARD,
        log: LOG,
        rank: 0,
        epoch: ViewId::new(2),
        last: EntryNo::new(10 * cuts),
        class: Durability::D1,
        quorum: REPLICAS,
        open: true,
        members: vec![member; 2],
        joint: Vec::new(),
        segments: vec![segment(3, vec![closed]), segment(2, Vec::new())],
    }
}

pub(in crate::replica) fn encoded(cuts: u64) -> Vec<u8> {
    encoded_with(&state(cuts), cuts)
}

/// An image of `state` after those cuts.
pub(in crate::replica) fn encoded_with(state: &ShardState, cuts: u64) -> Vec<u8> {
    let mut index = RunIndex::new(usize::from(REPLICAS), 1);
    for cut in 1..=cuts {
        let lens = [Lsn::new(3 * cut), Lsn::new(2 * cut)];
        index.push(EntryNo::new(10 * cut), Gsn::new(100 * cut), &lens);
    }
    let mut dedup = Dedup::new();
    let session = dedup
        .open(ClientId::new(9), SessionNo::ZERO, ViewId::new(1))
        .unwrap();
    dedup.took(session, ClientSeq::ZERO, Lsn::ZERO, cuts, ClientSeq::ZERO);
    let mut bytes = vec![0; 1 << 16];
    let mut writer = Writer::new(&mut bytes);
    let applied = EntryNo::new(10 * cuts);
    let end_gsn = Gsn::new(100 * cuts + 5);
    (|| {
        writer.field(applied)?;
        writer.field(applied)?;
        writer.field(end_gsn)?;
        writer.field(Gsn::new(3))?;
        writer.field(Gsn::new(3))?;
        writer.field(true)?;
        state.write(&mut writer)?;
        writer.field(1u32)?;
        writer.field(Gsn::new(20))?;
        writer.field(Gsn::new(30))?;
        index.write(&mut writer)?;
        for _ in 0..REPLICAS {
            writer.field(Lsn::new(cuts))?;
            writer.field(Lsn::ZERO)?;
            dedup.write(&mut writer)?;
        }
        Ok::<_, ionian_wire::WireError>(())
    })()
    .unwrap();
    let len = writer.len();
    bytes.truncate(len);
    bytes
}

fn read(bytes: &[u8]) -> Image {
    Image::read(bytes, REPLICAS, 1).unwrap()
}

fn is_sound(image: &Image) -> bool {
    image.is_sound(LOG, SHARD, REPLICAS)
}

#[test]
fn a_whole_image_is_sound_and_agrees_with_the_cut_log_at_every_entry() {
    let image = read(&encoded(200));
    assert!(is_sound(&image));
    for cuts in 4..=200 {
        assert!(
            image.agrees(&state(cuts), Gsn::new(100 * cuts + 5)),
            "{cuts}"
        );
        assert!(
            image.agrees(&state(cuts), Gsn::new(100 * cuts + 99)),
            "{cuts}"
        );
    }
    assert!(!image.is_sound(LogId::new(7), SHARD, REPLICAS));
    assert!(!image.is_sound(LOG, ShardId::new(7), REPLICAS));
    assert!(!image.is_sound(LOG, SHARD, 3));
}

#[test]
fn an_image_that_the_cut_log_contradicts_is_not_believed() {
    let image = read(&encoded(200));
    // Older than what is missing.
    assert!(!image.agrees(&state(201), Gsn::new(20_105)));
    // Another length at the same entry, and at an earlier one.
    for cuts in [200, 150] {
        let mut other = state(cuts);
        other.segments[1].len = Lsn::new(2 * cuts - 1);
        assert!(!image.agrees(&other, Gsn::new(100 * cuts + 5)), "{cuts}");
    }
    // Another close.
    let mut other = state(150);
    other.segments[0].closed[0].close = Lsn::new(9);
    assert!(!image.agrees(&other, Gsn::new(15_005)));
}

#[test]
fn an_image_that_contradicts_itself_is_not_sound() {
    let broken = |breaks: fn(&mut Image)| {
        let mut image = read(&encoded(70));
        breaks(&mut image);
        is_sound(&image)
    };
    assert!(broken(|_| {}));
    assert!(!broken(|image| image.state = None));
    assert!(!broken(|image| image.end_gsn = Gsn::new(7_004)));
    assert!(!broken(|image| image.applied = EntryNo::new(699)));
    assert!(!broken(|image| image.complete = EntryNo::new(699)));
    assert!(!broken(|image| image.head = Gsn::new(4)));
    assert!(!broken(|image| image.losses[0].to = image.losses[0].from));
    assert!(!broken(|image| image.losses.push(image.losses[0])));
    let segment = |image: &mut Image| {
        image
            .state
            .as_mut()
            .map(|state| state.segments[0].clone())
            .unwrap()
    };
    let mut lengthened = read(&encoded(70));
    let mut longer = segment(&mut lengthened);
    longer.len = Lsn::new(211);
    lengthened.state.as_mut().unwrap().segments[0] = longer;
    assert!(!is_sound(&lengthened));
    let mut torn = read(&encoded(70));
    let mut gap = segment(&mut torn);
    gap.opened_at = Lsn::new(13);
    torn.state.as_mut().unwrap().segments[0] = gap;
    assert!(!is_sound(&torn));
}

proptest! {
    #[test]
    fn damaged_images_never_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(70);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let cut = cut.index(bytes.len() + 1);
        for bytes in [&bytes[..], &bytes[..cut]] {
            let Ok(image) = Image::read(bytes, REPLICAS, 1) else { continue };
            if is_sound(&image) {
                for gsn in (0..8_000).step_by(37) {
                    if let Some(run) = image.index().at_or_after(Gsn::new(gsn)) {
                        prop_assert!(run.end_gsn() > Gsn::new(gsn));
                    }
                    let _ = image.index().lens_at(Gsn::new(gsn));
                    let _ = image.index().by_position(Slot::ZERO, Lsn::new(gsn));
                }
                let _ = image.agrees(&state(50), Gsn::new(5_005));
            }
        }
    }
}
