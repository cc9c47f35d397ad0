//! Every instruction set that this CPU has gives what sorting gives, for every class, whatever was set, raised and left out.
#![cfg(not(loom))]

use ionian_slots::{Advance, Isa, Limit, Merged, SHARDS_MAX, SlotsError, Table};
use proptest::prelude::*;

/// (shard, segment, floor, length).
type Change = (usize, usize, u64, u64);

/// The table as a definition: nothing but lengths, and sorting.
#[derive(Clone, Debug)]
struct Model {
    replicas: usize,
    quorum: usize,
    shards: Vec<Shard>,
}

#[derive(Clone, Default, Debug)]
struct Shard {
    lens: [[u64; 7]; 7],
    floor: [u64; 7],
    found: [u64; 7],
    excluded: bool,
}

impl Model {
    fn new(shards: usize, replicas: usize, quorum: usize) -> Self {
        Self {
            replicas,
            quorum,
            shards: vec![Shard::default(); shards],
        }
    }

    fn enough(&self, shard: usize, segment: usize) -> u64 {
        let members = &self.shards[shard].lens[..self.replicas];
        let mut lens: Vec<u64> = members.iter().map(|lens| lens[segment]).collect();
        lens.sort_unstable();
        lens[self.replicas - self.quorum]
    }

    fn merge(&mut self) {
        for shard in 0..self.shards.len() {
            for segment in 0..self.replicas {
                if !self.shards[shard].excluded {
                    self.shards[shard].found[segment] = self.enough(shard, segment);
                }
            }
        }
    }

    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (at, shard) in self.shards.iter_mut().enumerate() {
            for segment in 0..self.replicas {
                let (floor, found) = (shard.floor[segment], shard.found[segment]);
                if found > floor {
                    changes.push((at, segment, floor, found));
                    shard.floor[segment] = found;
                }
            }
        }
        changes
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        shard: usize,
        member: usize,
        lens: [u64; 7],
    },
    Advance {
        shard: usize,
        member: usize,
        lens: [u64; 7],
    },
    Clear {
        shard: usize,
        member: usize,
    },
    RaiseFloor {
        shard: usize,
        segment: usize,
        len: u64,
    },
    Raise {
        shard: usize,
        segment: usize,
        len: u64,
    },
    Exclude {
        shard: usize,
    },
    Include {
        shard: usize,
    },
    MarkAll,
    MergeOne {
        shard: usize,
    },
    Merge,
    Take,
}

/// Ends of the range, small numbers that meet often, and anything.
fn length() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        2 => Just(0),
        1 => Just(u64::MAX),
        1 => Just(1 << 63),
        1 => Just((1 << 63) - 1),
        4 => 0u64..4,
        3 => any::<u64>(),
    ]
}

fn lengths() -> impl Strategy<Value = [u64; 7]> {
    proptest::array::uniform7(length())
}

fn step(shards: usize, replicas: usize) -> impl Strategy<Value = Step> {
    let (shard, member) = (0..shards, 0..replicas);
    let (at, one) = (
        (shard.clone(), member.clone()),
        (shard.clone(), member, length()),
    );
    prop_oneof![
        12 => (at.clone(), lengths()).prop_map(|((shard, member), lens)| Step::Set { shard, member, lens }),
        4 => (at.clone(), lengths()).prop_map(|((shard, member), lens)| Step::Advance { shard, member, lens }),
        1 => at.prop_map(|(shard, member)| Step::Clear { shard, member }),
        2 => one.clone().prop_map(|(shard, segment, len)| Step::RaiseFloor { shard, segment, len }),
        2 => one.prop_map(|(shard, segment, len)| Step::Raise { shard, segment, len }),
        1 => shard.clone().prop_map(|shard| Step::Exclude { shard }),
        1 => shard.clone().prop_map(|shard| Step::Include { shard }),
        1 => Just(Step::MarkAll),
        1 => shard.prop_map(|shard| Step::MergeOne { shard }),
        2 => Just(Step::Merge),
        2 => Just(Step::Take),
    ]
}

fn case() -> impl Strategy<Value = (usize, usize, usize, Vec<Step>)> {
    // Tables of less than one group up to more than one word of marks.
    let shards = prop_oneof![1usize..20, 60usize..70, 500usize..530];
    (shards, 1usize..=7)
        .prop_flat_map(|(shards, replicas)| (Just(shards), Just(replicas), 1..=replicas))
        .prop_flat_map(|(shards, replicas, quorum)| {
            let steps = proptest::collection::vec(step(shards, replicas), 1..80);
            (Just(shards), Just(replicas), Just(quorum), steps)
        })
}

fn take_changes(table: &mut Table) -> Vec<Change> {
    let mut changes = Vec::new();
    table.for_each_changed(|shard, segment, before, after| {
        changes.push((shard, segment, before, after));
    });
    changes
}

fn sums(changes: &[Change]) -> Merged {
    Merged {
        changed_segments: changes.len() as u64,
        growth: changes.iter().fold(0, |sum: u64, (_, _, before, after)| {
            sum.wrapping_add(after - before)
        }),
    }
}

/// Runs the steps on the table and on the definition; says what was handed out.
fn run(shards: usize, replicas: usize, quorum: usize, steps: &[Step], isa: Isa) -> Vec<Change> {
    let mut table =
        Table::with_isa(shards, replicas, quorum, isa).expect("a class and an available set");
    let mut model = Model::new(shards, replicas, quorum);
    let mut all = Vec::new();
    let ending = [Step::Merge, Step::Take];
    for step in steps.iter().chain(&ending) {
        match *step {
            Step::Set {
                shard,
                member,
                lens,
            } => {
                let known = &mut model.shards[shard].lens[member];
                let new = known[..replicas] != lens[..replicas];
                *known = lens;
                assert_eq!(table.set(shard, member, &lens[..replicas]), new);
            }
            Step::Advance {
                shard,
                member,
                lens,
            } => {
                let known = &mut model.shards[shard].lens[member];
                let pairs = || known.iter().zip(&lens).take(replicas);
                let expected = if pairs().any(|(before, after)| before > after) {
                    Advance::Regressed
                } else if pairs().any(|(before, after)| before < after) {
                    Advance::Changed
                } else {
                    Advance::Same
                };
                if expected == Advance::Changed {
                    *known = lens;
                }
                assert_eq!(table.advance(shard, member, &lens[..replicas]), expected);
            }
            Step::Clear { shard, member } => {
                model.shards[shard].lens[member] = [0; 7];
                table.clear(shard, member);
            }
            Step::RaiseFloor {
                shard,
                segment,
                len,
            } => {
                let floor = &mut model.shards[shard].floor[segment];
                *floor = (*floor).max(len);
                table.raise_floor(shard, segment, len);
            }
            Step::Raise {
                shard,
                segment,
                len,
            } => {
                let known = &mut model.shards[shard];
                if !known.excluded {
                    // It would last until the shard is merged.
                    continue;
                }
                let before = known.floor[segment].max(known.found[segment]);
                assert_eq!(table.raise(shard, segment, len), len > before);
                known.found[segment] = before.max(len);
            }
            Step::Exclude { shard } => {
                model.shards[shard].excluded = true;
                table.exclude(shard);
                assert!(table.is_excluded(shard));
            }
            Step::Include { shard } => {
                model.shards[shard].excluded = false;
                table.include(shard);
                assert!(!table.is_excluded(shard));
            }
            Step::MarkAll => table.mark_all(),
            Step::MergeOne { shard } => {
                // Merging one is merging all, as far as that one goes.
                for segment in 0..replicas {
                    let found = model.enough(shard, segment);
                    let shard = &mut model.shards[shard];
                    if !shard.excluded {
                        shard.found[segment] = found;
                    }
                }
                table.merge_scalar_one(shard);
            }
            Step::Merge => {
                model.merge();
                let merged = table.merge();
                assert_eq!(merged, sums(&model.clone().take_changes()));
                assert_eq!(merged, table.merge(), "nothing is found twice");
            }
            Step::Take => {
                let changes = take_changes(&mut table);
                assert_eq!(changes, model.take_changes());
                assert_eq!(take_changes(&mut table), [], "handed out once");
                all.extend(changes);
            }
        }
    }
    assert!(table.is_idle());
    for (at, shard) in model.shards.iter().enumerate() {
        for segment in 0..replicas {
            assert_eq!(table.floor(at, segment), shard.floor[segment]);
            assert_eq!(table.held_by_enough(at, segment), model.enough(at, segment));
            for member in 0..replicas {
                assert_eq!(table.held(at, member, segment), shard.lens[member][segment]);
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn every_instruction_set_gives_what_sorting_gives((shards, replicas, quorum, steps) in case()) {
        for isa in Isa::available() {
            run(shards, replicas, quorum, &steps, isa);
        }
    }
}

/// Every pattern of two values over the members, for every class: each shard has another one.
#[test]
fn every_pattern_of_every_class() {
    for isa in Isa::available() {
        for replicas in 1..=7 {
            for quorum in 1..=replicas {
                let shards = 1 << replicas;
                let mut table = Table::with_isa(shards, replicas, quorum, isa).unwrap();
                for shard in 0..shards {
                    for member in 0..replicas {
                        let bit = shard >> member & 1 == 1;
                        let len = if bit { u64::MAX } else { 5 };
                        table.set(shard, member, &vec![len; replicas]);
                    }
                }
                table.merge();
                let changes = take_changes(&mut table);
                assert_eq!(changes.len(), shards * replicas);
                for (shard, _, before, after) in changes {
                    let enough = shard.count_ones() as usize >= quorum;
                    let expected = if enough { u64::MAX } else { 5 };
                    assert_eq!(
                        (before, after),
                        (0, expected),
                        "{quorum} of {replicas}, {isa}"
                    );
                }
            }
        }
    }
}

/// The limits that the merge is measured against read the same bytes.
#[test]
fn the_limits_find_the_largest() {
    for isa in Isa::available() {
        for replicas in [1, 2, 3, 7] {
            let mut table = Table::with_isa(20, replicas, 1, isa).unwrap();
            table.set(0, replicas - 1, &vec![7; replicas]);
            table.set(19, 0, &vec![9; replicas]);
            let mut limit = Limit::new(&table);
            assert_eq!((limit.streaming_max(&table), Limit::scan(&table)), (7, 9));
            table.raise_floor(0, 0, 11);
            assert_eq!((limit.streaming_max(&table), Limit::scan(&table)), (11, 11));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    let refused = |shards, replicas, quorum| Table::new(shards, replicas, quorum).unwrap_err();
    assert_eq!(refused(1, 0, 0), SlotsError::Replicas { given: 0 });
    assert_eq!(refused(1, 8, 4), SlotsError::Replicas { given: 8 });
    let quorum = |given| SlotsError::Quorum { given, replicas: 3 };
    assert_eq!((refused(1, 3, 0), refused(1, 3, 4)), (quorum(0), quorum(4)));
    let given = SHARDS_MAX + 1;
    assert_eq!(refused(given, 2, 2), SlotsError::Shards { given });
    for isa in [Isa::Avx2, Isa::Avx512] {
        let made = Table::with_isa(1, 1, 1, isa);
        assert_eq!(made.is_ok(), isa.is_available());
        if let Err(error) = made {
            assert!(error.to_string().contains("Isa::available()"), "{error}");
        }
    }
    assert_eq!(Table::new(0, 2, 2).unwrap().merge(), Merged::default());
}
