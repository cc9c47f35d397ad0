//! What was promised to a segment fits, whatever comes meanwhile to the others, and however it is batched.

mod common;

use common::disk::{Disk, Rng};
use common::{append, config, record};
use ionian_store::{Store, StoreConfig, StoreError, StoreState};
use ionian_types::{Durability, Inc, Lsn, Slot};
use proptest::prelude::*;

const RUN_BYTES_MAX: usize = 700;

#[derive(Clone, Debug)]
enum Step {
    /// Runs of records of these payload lengths, as long as the promise covers them.
    Append {
        slot: u8,
        payloads: Vec<u16>,
    },
    Promise {
        slot: u8,
    },
    Trim {
        slot: u8,
        back: u64,
    },
    /// The device does some of what it was asked to.
    Device {
        count: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..2u8, prop::collection::vec(0..900u16, 1..6))
            .prop_map(|(slot, payloads)| Step::Append { slot, payloads }),
        3 => (0..2u8).prop_map(|slot| Step::Promise { slot }),
        1 => (0..2u8, 0..12u64).prop_map(|(slot, back)| Step::Trim { slot, back }),
        4 => (1..9u8).prop_map(|count| Step::Device { count }),
    ];
    prop::collection::vec(step, 1..120)
}

struct Bench {
    store: Store,
    disk: Disk,
    rng: Rng,
}

impl Bench {
    fn new(config: StoreConfig) -> Self {
        let disk = Disk::default();
        let store = if config.class.is_flushed() {
            Store::format(config, Inc::new(1), &disk.files())
        } else {
            Store::new(config)
        };
        let rng = Rng(7);
        let mut bench = Self { store, disk, rng };
        bench.settle();
        assert_eq!(bench.store.state(), StoreState::Ready);
        bench
    }

    fn device(&mut self, count: u8) {
        for _ in 0..count {
            self.disk.take_ops(&mut self.store);
            if !self.disk.idle() {
                self.disk.complete_one(&mut self.store, &mut self.rng);
            }
        }
    }

    fn settle(&mut self) {
        self.disk.take_ops(&mut self.store);
        while !self.disk.idle() {
            self.disk.complete_one(&mut self.store, &mut self.rng);
            self.disk.take_ops(&mut self.store);
        }
    }

    /// The last `back` records go.
    fn truncate(&mut self, slot: Slot, back: u64) {
        let len = self.store.len(slot).get();
        let to = len.saturating_sub(back).max(self.store.first(slot).get());
        self.store.truncate(slot, Lsn::new(to));
    }

    /// Another process starts from what is on the device.
    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.store = Store::recover(*self.store.config(), &self.disk.files());
        self.settle();
        prop_assert_eq!(self.store.state(), StoreState::Ready);
        Ok(())
    }

    /// Appends what was promised: at a device it may wait for a file or for memory, but never for room.
    fn append(&mut self, slot: Slot, records: &[Vec<u8>]) -> Result<(), StoreError> {
        match append(&mut self.store, slot, records) {
            Err(StoreError::Full) => {
                self.settle();
                append(&mut self.store, slot, records)
            }
            result => result,
        }
    }
}

fn run(class: Durability, config: StoreConfig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(config);
    let charge = bench.store.charge(RUN_BYTES_MAX);
    // Per segment: charged, and promised up to.
    let mut ledgers = [(0u64, 0u64); 2];
    for step in steps {
        match step {
            Step::Promise { slot } => {
                let credit = bench.store.promise(Slot::new(slot), RUN_BYTES_MAX);
                let (charged, upto) = &mut ledgers[usize::from(slot)];
                *upto = (*upto).max(*charged + credit);
            }
            Step::Append { slot, payloads } => {
                let (charged, upto) = &mut ledgers[usize::from(slot)];
                let slot = Slot::new(slot);
                let from = bench.store.len(slot).get();
                let records: Vec<_> = (from..)
                    .zip(&payloads)
                    .map(|(position, len)| record(slot, position, 1, &vec![3; usize::from(*len)]))
                    .collect();
                let bytes = records.iter().map(|record| record.len() as u64).sum();
                let cost = charge.of(bytes, records.len() as u64);
                if *charged + cost > *upto || records.concat().len() > 3000 {
                    continue;
                }
                *charged += cost;
                let before = bench.store.taken(slot);
                prop_assert_eq!(
                    bench.append(slot, &records),
                    Ok(()),
                    "{:?} {:?}",
                    class,
                    slot
                );
                prop_assert!(bench.store.taken(slot) >= before);
            }
            Step::Trim { slot, back } => {
                let slot = Slot::new(slot);
                let upto = bench.store.durable_len(slot).get().saturating_sub(back);
                bench.store.trim(slot, Lsn::new(upto));
            }
            Step::Device { count } => bench.device(count),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_promise_of_memory_is_kept(steps in steps(), chunks in 6..14u64) {
        run(Durability::D0, config(Durability::D0, 2, 4096, chunks), steps)?;
    }

    #[test]
    fn a_promise_of_files_is_kept(steps in steps(), extents in 3..9u64) {
        let mut config = config(Durability::D1, 2, 6144, 10);
        config.disk_bytes_max = extents * config.extent_bytes;
        run(Durability::D1, config, steps)?;
    }
}

/// Nothing more goes in, and a truncation still finds the chunk that records it: the journal, trims included, waits for it.
#[test]
fn a_full_device_takes_a_truncation_and_a_trim() {
    let slot = Slot::new(0);
    let mut config = config(Durability::D1, 1, 4096, 8);
    config.disk_bytes_max = config.disk_bytes_min();
    let mut bench = Bench::new(config);
    let charge = bench.store.charge(RUN_BYTES_MAX);
    let mut refused = 0;
    while refused < 3 {
        let position = bench.store.len(slot).get();
        let next = record(slot, position, 1, &[7; 200]);
        if bench.store.promise(slot, RUN_BYTES_MAX) >= charge.of(next.len() as u64, 1) {
            bench.append(slot, &[next]).expect("it was promised");
        } else {
            refused += 1;
        }
        bench.settle();
        assert!(position < 1000, "the disk is bounded");
    }
    let len = bench.store.len(slot).get();
    bench.store.truncate(slot, Lsn::new(len - 2));
    let entry = bench.store.journal_append(b"a trim").expect("taken");
    bench.settle();
    assert_eq!(bench.store.journal_durable(), entry);
    assert_eq!(bench.store.promise(slot, RUN_BYTES_MAX), 0);
    bench.store.trim(slot, Lsn::new(len - 2));
    bench.settle();
    assert!(bench.store.promise(slot, RUN_BYTES_MAX) > 0);
    let next = record(slot, len - 2, 2, &[7; 200]);
    assert_eq!(bench.append(slot, &[next]), Ok(()));
}

#[derive(Clone, Debug)]
enum Life {
    /// As many records of this payload length as a new promise covers, at most so many.
    Fill { slot: u8, payload: u16, most: u8 },
    /// The last records go.
    Truncate { slot: u8, back: u64 },
    /// The process ends and another one starts.
    Restart,
    /// The last records go, and the process dies when the device has done so much more.
    Cut { slot: u8, back: u64, count: u8 },
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = prop_oneof![
        6 => (0..2u8, 0..900u16, 1..60u8)
            .prop_map(|(slot, payload, most)| Life::Fill { slot, payload, most }),
        1 => (0..2u8, 0..5u64).prop_map(|(slot, back)| Life::Truncate { slot, back }),
        2 => Just(Life::Restart),
        1 => (0..2u8, prop_oneof![0..5u64, 0..100u64], 0..12u8)
            .prop_map(|(slot, back, count)| Life::Cut { slot, back, count }),
    ];
    prop::collection::vec(life, 1..40)
}

/// Lives that fill a device as small as may be; then everything is trimmed, and `first` asks for room first.
fn all_have_room(lives: Vec<Life>, first: u8) -> Result<(), TestCaseError> {
    let mut config = config(Durability::D1, 2, 6144, 10);
    config.disk_bytes_max = config.disk_bytes_min();
    let mut bench = Bench::new(config);
    let charge = bench.store.charge(RUN_BYTES_MAX);
    for life in lives {
        bench.settle();
        match life {
            Life::Fill {
                slot,
                payload,
                most,
            } => {
                let slot = Slot::new(slot);
                for _ in 0..most {
                    let position = bench.store.len(slot).get();
                    let next = record(slot, position, 1, &vec![5; usize::from(payload)]);
                    if bench.store.promise(slot, RUN_BYTES_MAX) < charge.of(next.len() as u64, 1) {
                        break;
                    }
                    prop_assert_eq!(bench.append(slot, &[next]), Ok(()));
                }
            }
            Life::Truncate { slot, back } => bench.truncate(Slot::new(slot), back),
            Life::Restart => bench.restart()?,
            Life::Cut { slot, back, count } => {
                bench.truncate(Slot::new(slot), back);
                bench.device(count);
                bench.disk.kill(&mut bench.rng);
                bench.restart()?;
            }
        }
    }
    bench.settle();
    for slot in [0, 1].map(Slot::new) {
        let len = bench.store.len(slot);
        bench.store.trim(slot, len);
    }
    bench.settle();
    for slot in [first, 1 - first].map(Slot::new) {
        let credit = bench.store.promise(slot, RUN_BYTES_MAX);
        prop_assert!(credit > 2000, "{slot:?} has room for {credit}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A replica that was full, started again and trimmed promised all that it had to one segment, and nothing to the other
    /// one, ever: what its peer had taken under an earlier promise could not be ordered any more.
    #[test]
    fn when_everything_is_trimmed_every_segment_has_room(lives in lives(), first in 0..2u8) {
        all_have_room(lives, first)?;
    }
}

/// The chunks that a truncation to the trim mark made void were kept: a trim to the length had nothing to pass.
#[test]
fn a_segment_truncated_to_nothing_keeps_no_files() {
    let lives = vec![
        Life::Fill {
            slot: 1,
            payload: 345,
            most: 7,
        },
        Life::Fill {
            slot: 1,
            payload: 681,
            most: 2,
        },
        Life::Truncate { slot: 1, back: 1 },
        Life::Truncate { slot: 1, back: 4 },
        Life::Truncate { slot: 1, back: 4 },
        Life::Restart,
        Life::Fill {
            slot: 0,
            payload: 0,
            most: 1,
        },
    ];
    all_have_room(lives, 0).expect("every segment has room");
}

/// The process died before it gave up those chunks, whatever the device had done by then: restarts shift its choices.
#[test]
fn a_truncation_that_was_cut_short_keeps_no_files() {
    for (restarts, count) in (0..8).flat_map(|restarts| (0..6).map(move |count| (restarts, count)))
    {
        let mut lives = vec![Life::Fill {
            slot: 0,
            payload: 425,
            most: 46,
        }];
        lives.resize(1 + restarts, Life::Restart);
        lives.push(Life::Cut {
            slot: 0,
            back: 46,
            count,
        });
        all_have_room(lives, 0).expect("every segment has room");
    }
}

/// A segment that has no file goes on with the last chunk of one: it was promised that file, kept its chunk for a
/// truncation, and was promised no more.
#[test]
fn a_segment_that_goes_on_at_the_end_of_a_file_is_promised_another() {
    let lives = vec![
        Life::Fill {
            slot: 0,
            payload: 337,
            most: 45,
        },
        Life::Fill {
            slot: 1,
            payload: 681,
            most: 2,
        },
        Life::Truncate { slot: 1, back: 1 },
        Life::Truncate { slot: 1, back: 1 },
        Life::Restart,
        Life::Restart,
    ];
    all_have_room(lives, 0).expect("every segment has room");
}
