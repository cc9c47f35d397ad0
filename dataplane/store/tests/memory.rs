//! Class D0 against a plain model: what was accepted is found by position until it is trimmed or void.

mod common;

use common::{append, config, record};
use ionian_store::{Fetch, Store, StoreError};
use ionian_types::{Durability, Lsn, Slot};
use ionian_wire::record::Records;
use proptest::prelude::*;

const SLOT: Slot = Slot::new(0);

#[derive(Clone, Debug)]
enum Step {
    Append {
        slot: u8,
        payloads: Vec<u8>,
    },
    Truncate {
        slot: u8,
        back: u64,
    },
    Trim {
        slot: u8,
        upto: u64,
    },
    Read {
        slot: u8,
        from: u64,
        count: u64,
        bytes_max: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2u8, prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(slot, payloads)| Step::Append { slot, payloads }),
        1 => (0..2u8, 0..6u64).prop_map(|(slot, back)| Step::Truncate { slot, back }),
        1 => (0..2u8, 0..40u64).prop_map(|(slot, upto)| Step::Trim { slot, upto }),
        3 => (0..2u8, 0..60u64, 0..10u64, 0..900usize)
            .prop_map(|(slot, from, count, bytes_max)| Step::Read { slot, from, count, bytes_max }),
    ];
    prop::collection::vec(step, 1..60)
}

/// The model: all records ever, by position, and the trim mark.
#[derive(Default)]
struct Model {
    records: Vec<Vec<u8>>,
    first: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_store_equals_a_vector(steps in steps()) {
        let mut store = Store::new(config(Durability::D0, 2, 2048, 8));
        let mut models = [Model::default(), Model::default()];
        let mut generation = 1;
        for step in steps {
            match step {
                Step::Append { slot, payloads } => {
                    let model = &mut models[usize::from(slot)];
                    let from = model.records.len() as u64;
                    let slot = Slot::new(slot);
                    let new: Vec<_> = payloads
                        .iter()
                        .enumerate()
                        .map(|(i, &len)| record(slot, from + i as u64, generation, &vec![len; usize::from(len)]))
                        .collect();
                    match append(&mut store, slot, &new) {
                        Ok(()) => model.records.extend(new),
                        Err(error) => prop_assert_eq!(error, StoreError::Full),
                    }
                }
                Step::Truncate { slot, back } => {
                    let model = &mut models[usize::from(slot)];
                    let len = (model.records.len() as u64).saturating_sub(back).max(model.first);
                    store.truncate(Slot::new(slot), Lsn::new(len));
                    model.records.truncate(len as usize);
                    generation += 1;
                }
                Step::Trim { slot, upto } => {
                    let model = &mut models[usize::from(slot)];
                    let upto = upto.min(model.records.len() as u64);
                    store.trim(Slot::new(slot), Lsn::new(upto));
                    model.first = model.first.max(upto);
                }
                Step::Read { slot, from, count, bytes_max } => {
                    let model = &models[usize::from(slot)];
                    let slot = Slot::new(slot);
                    match store.run(slot, Lsn::new(from), Lsn::new(from + count), bytes_max) {
                        Fetch::Ready(run) => {
                            prop_assert!(u64::from(run.count) <= count);
                            prop_assert!(run.count == 1 || run.bytes as usize <= bytes_max);
                            let expected = model.records[from as usize..from as usize + run.count as usize].concat();
                            prop_assert_eq!(store.bytes(&run), &expected[..]);
                            let header = store.header(slot, Lsn::new(from)).unwrap();
                            prop_assert_eq!(header.position, Lsn::new(from));
                        }
                        Fetch::Trimmed => prop_assert!(from < model.first),
                        Fetch::Beyond => prop_assert!(count == 0 || from >= model.records.len() as u64),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            for (slot, model) in models.iter().enumerate() {
                let slot = Slot::new(slot as u8);
                prop_assert_eq!(store.len(slot).get(), model.records.len() as u64);
                prop_assert_eq!(store.durable_len(slot), store.len(slot));
                prop_assert_eq!(store.first(slot).get(), model.first);
            }
            prop_assert!(store.stats().memory_bytes <= 8 * 2048 + (1 << 16));
        }
    }
}

#[test]
fn a_run_takes_all_that_fits_and_never_crosses_a_chunk() {
    let mut store = Store::new(config(Durability::D0, 1, 2048, 4));
    for pos in 0..30 {
        append(&mut store, SLOT, &[record(SLOT, pos, 1, &[1; 40])]).unwrap();
    }
    // 128 bytes each: 16 to a chunk of 2,048.
    let Fetch::Ready(run) = store.run(SLOT, Lsn::new(3), Lsn::new(30), 1 << 20) else {
        panic!("records are in memory");
    };
    assert_eq!((run.count, run.bytes, run.offset), (13, 13 * 128, 3 * 128));
    let walked: Vec<u64> = Records::sealed(store.bytes(&run))
        .map(|record| record.unwrap().header().position.get())
        .collect();
    assert_eq!(walked, (3..16).collect::<Vec<_>>());
}

#[test]
fn a_full_memory_store_refuses_until_it_is_trimmed() {
    let mut store = Store::new(config(Durability::D0, 1, 2048, 4));
    let mut pos = 0;
    let error = loop {
        match append(&mut store, SLOT, &[record(SLOT, pos, 1, &[1; 40])]) {
            Ok(()) => pos += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, pos), (StoreError::Full, 64));
    assert_eq!(store.len(SLOT), Lsn::new(64));
    store.trim(SLOT, Lsn::new(15));
    assert_eq!(
        append(&mut store, SLOT, &[record(SLOT, pos, 1, &[1; 40])]),
        Err(StoreError::Full)
    );
    store.trim(SLOT, Lsn::new(16));
    append(&mut store, SLOT, &[record(SLOT, pos, 1, &[1; 40])]).unwrap();
}

#[test]
fn more_than_a_chunk_is_too_large() {
    let mut store = Store::new(config(Durability::D0, 1, 2048, 4));
    assert_eq!(store.reserve(SLOT, 2049).unwrap_err(), StoreError::TooLarge);
    assert_eq!(store.reserve(SLOT, 2048).unwrap().len(), 2048);
}

#[test]
fn a_mark_beyond_the_length_moves_the_length() {
    let mut store = Store::new(config(Durability::D0, 1, 2048, 4));
    append(&mut store, SLOT, &[record(SLOT, 0, 1, b"a")]).unwrap();
    store.trim(SLOT, Lsn::new(100));
    assert_eq!(store.len(SLOT), Lsn::new(100));
    append(&mut store, SLOT, &[record(SLOT, 100, 1, b"b")]).unwrap();
    assert!(store.header(SLOT, Lsn::new(0)).is_none());
    assert!(store.header(SLOT, Lsn::new(100)).is_some());
}

#[test]
fn journal_entries_are_numbered_kept_and_freed_by_a_checkpoint() {
    let mut store = Store::new(config(Durability::D0, 0, 2048, 2));
    let mut full = false;
    for number in 1..=10_000u64 {
        let body = vec![number as u8; number as usize % 60];
        match store.journal_append(&body) {
            Ok(given) => assert_eq!(given, number),
            Err(error) => {
                assert_eq!(error, StoreError::Full);
                full = true;
                break;
            }
        }
        assert_eq!(store.journal_durable(), number);
        assert_eq!(store.journal_read(number), Some(&body[..]));
    }
    assert!(full, "the journal is bounded");
    let last = store.journal_last();
    assert_eq!(store.journal_read(last + 1), None);
    store.journal_checkpoint(last - 1, b"snapshot").unwrap();
    assert_eq!(store.checkpoint_durable(), last - 1);
    assert_eq!(store.journal_first(), last);
    assert!(store.journal_read(last - 1).is_none());
    assert!(store.journal_read(last).is_some());
    assert_eq!(store.journal_append(b"more"), Ok(last + 1));
    assert_eq!(store.journal_append(&[0; 2048]), Err(StoreError::TooLarge));
}
