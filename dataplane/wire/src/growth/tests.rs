//! Tests of growth lists: what was written comes back, in few bytes; what nobody writes is refused.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn written(from: usize, growths: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + growths.len() * 12];
    let mut writer = Writer::new(&mut bytes);
    let all = from..from + growths.len();
    GrowthWriter::write(&mut writer, all, |at| growths[at - from]).unwrap();
    let len = writer.len();
    bytes.truncate(len);
    let mut again = vec![0; 64 + growths.len() * 12];
    let mut same = Writer::new(&mut again);
    GrowthWriter::write_all(&mut same, from, growths).unwrap();
    let len = same.len();
    assert_eq!(bytes, &again[..len]);
    bytes
}

fn grown(from: usize, growths: &[u64]) -> Vec<(usize, u64)> {
    let all = growths.iter().enumerate();
    let grown = all.filter(|(_, growth)| **growth != 0);
    grown.map(|(at, growth)| (from + at, *growth)).collect()
}

#[derive(Default)]
struct List(Vec<(usize, u64)>);

impl GrowthSink for List {
    fn one(&mut self, index: usize, growth: u64) {
        self.0.push((index, growth));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lists of every density, with short growths and long ones.
fn arb_growths() -> impl Strategy<Value = Vec<u64>> {
    let growth = prop_oneof![8 => 1u64..128, 1 => 128u64..1 << 40];
    let one = (0u32..100, growth);
    (0u32..=100, proptest::collection::vec(one, 0..700)).prop_map(|(density, all)| {
        let grown = all.into_iter();
        grown
            .map(|(drawn, growth)| if drawn < density { growth } else { 0 })
            .collect()
    })
}

proptest! {
    #[test]
    fn lists_come_back(from in 0usize..100_000, growths in arb_growths(), end in 0usize..700) {
        let bytes = written(from, &growths);
        let list = Growths::new_checked(&bytes).unwrap();
        let expected = grown(from, &growths);
        prop_assert_eq!(list.changed(), expected.len());
        prop_assert_eq!(list.total(), growths.iter().sum::<u64>());
        prop_assert_eq!(list.end(), expected.last().map_or(0, |(at, _)| at + 1));
        prop_assert_eq!(&list.iter().collect::<Vec<_>>(), &expected);
        let mut walked = List::default();
        list.walk(&mut walked);
        prop_assert_eq!(&walked.0, &expected);
        let mut some = List::default();
        list.walk_below(from + end, &mut some);
        prop_assert_eq!(&some.0[..], &expected[..some.0.len()]);
        let below = expected.iter().filter(|(at, _)| *at < from + end).count();
        prop_assert!(some.0.len() >= below);
    }

    #[test]
    fn the_shorter_form_is_chosen(growths in arb_growths()) {
        let bytes = written(0, &growths);
        let expected = grown(0, &growths);
        let (Some((first, _)), Some((last, _))) = (expected.first(), expected.last()) else {
            prop_assert!(bytes.is_empty());
            return Ok(());
        };
        let dense = expected.len() * 8 > last + 1 - first;
        prop_assert_eq!(bytes[0], if dense { DENSE } else { SPARSE });
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, form in 0u8..2) {
        let bytes = [&[form][..], &bytes].concat();
        if let Ok(list) = Growths::new_checked(&bytes) {
            let all: Vec<_> = list.iter().collect();
            let mut walked = List::default();
            list.walk(&mut walked);
            prop_assert_eq!(&walked.0, &all);
            prop_assert_eq!(list.changed(), all.len());
            prop_assert!(all.iter().is_sorted_by(|one, next| one.0 < next.0));
            prop_assert!(all.iter().all(|(at, growth)| *at < SEGMENTS_MAX && *growth > 0));
        }
    }
}

/// The bytes of lists, for ever: a change of any of them needs new versions.
#[test]
fn golden_bytes() {
    let sparse: Vec<u64> = (0..40).map(|at| if at % 20 == 3 { 5 } else { 0 }).collect();
    let long = [0, 1, 0, 300, 1 << 40];
    let mut all = vec![7; 70];
    all[66] = 0;
    let table: String = [
        (0, &sparse[..]),
        (1000, &long[..]),
        (0, &all[..]),
        (3, &[0][..]),
    ]
    .iter()
    .map(|(from, growths)| format!("{}\n", hex(&written(*from, growths))))
    .collect();
    let golden = include_str!("../../golden/growths.txt");
    assert_eq!(table, golden, "the layout changed: raise both versions");
}

#[test]
fn what_nobody_writes_is_refused() {
    let refused = |bytes: &[u8]| {
        let found = Growths::new_checked(bytes);
        assert!(found.is_err(), "{} is {found:?}", hex(bytes));
    };
    refused(&[2]);
    refused(&[SPARSE]);
    refused(&[SPARSE, 0]);
    refused(&[SPARSE, 0, 0]);
    refused(&[SPARSE, 0x80, 0x80, 0x80, 0x08, 1]);
    refused(&[DENSE, 0, 8, 0]);
    refused(&[DENSE, 0, 8, 1]);
    refused(&[DENSE, 0, 8, 1, 0]);
    refused(&[DENSE, 0, 8, 1, 1, 1]);
    refused(&[DENSE, 0, 7, 0x81, 1, 1]);
    refused(&[DENSE, 0xff, 0xff, 0xff, 0x07, 2, 3, 1, 1]);
    // Two growths whose sum has more than 64 bits.
    let much = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    refused(&[&[DENSE, 0, 2, 3][..], &much, &[1]].concat());
    refused(&[&[SPARSE, 0][..], &much, &[0, 1]].concat());
    assert_eq!(Growths::new_checked(&[]).unwrap().changed(), 0);
}

#[test]
fn a_list_without_room_is_refused_and_leaves_nothing_behind_it() {
    let growths = vec![1u64; 200];
    let needed = written(0, &growths).len();
    for room in 0..needed {
        let mut bytes = vec![0; room];
        let mut writer = Writer::new(&mut bytes);
        let all = GrowthWriter::write(&mut writer, 0..200, |at| growths[at]);
        assert!(matches!(all, Err(WireError::Full { .. })), "{room}");
    }
    // The dense form has no room, the sparse one has.
    let mut bytes = [0; 16];
    let mut writer = Writer::new(&mut bytes);
    let ends = |at| u64::from(at == 0 || at == 999);
    GrowthWriter::write(&mut writer, 0..1000, ends).unwrap();
    let list: Vec<_> = Growths::new_checked(writer.written())
        .unwrap()
        .iter()
        .collect();
    assert_eq!(list, [(0, 1), (999, 1)]);
}

/// What a busy log has: segments grow by 1 to 127 records, half of thousands of them, or all.
#[test]
fn a_segment_that_grew_takes_at_most_two_bytes() {
    for segments in [1000usize, 7000, 20_000] {
        for (every, most) in [(1, 1.14), (2, 1.27), (4, 1.52), (7, 1.91), (9, 2.01)] {
            let grow = |at: usize| {
                if at.is_multiple_of(every) {
                    1 + at as u64 % 127
                } else {
                    0
                }
            };
            let growths: Vec<u64> = (0..segments).map(grow).collect();
            let bytes = written(0, &growths).len() as f64;
            let each = bytes / grown(0, &growths).len() as f64;
            assert!(each <= most, "{each} bytes, every {every} of {segments}");
        }
    }
}
