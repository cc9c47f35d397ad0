//! What a merge costs beside the plainest pass over the same bytes, and what a report costs from the slot's words to the round.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ionian_slots::{Isa, Limit, Table};

use crate::report::{Median, ROUNDS, calls_for, median, nanos_of, verdict};

/// Classes: replicas, and how many are enough.
const CLASSES: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 2), (3, 3), (4, 4), (5, 3), (7, 4)];
const SHARDS: [usize; 4] = [10, 100, 1_000, 10_000];

/// Time of one sample, in nanoseconds.
const SAMPLE: f64 = 100_000.0;

/// A merge is at least this part of a streaming maximum.
const RATIO_GOAL: f64 = 0.80;
/// A report in a large table costs at most so many times what it costs in a small one.
const FLAT_GOAL: f64 = 1.5;

pub(crate) fn tables() {
    println!(
        "\nmerge of all shards, ns per shard; streaming maximum: the largest length of any member instead of the k-th largest, over \
         the same lengths, with as many written; reading: the maximum of all, nothing written. Ratio: streaming maximum / merge."
    );
    println!(
        "{:>5} {:>7} {:>9} {:>8} {:>9} {:>8} {:>6} {:>13}  goal >= {RATIO_GOAL:.2}",
        "R, k", "shards", "set", "merge", "streaming", "reading", "ratio", "middle half"
    );
    let mut best = Vec::new();
    for (replicas, quorum) in CLASSES {
        for shards in SHARDS {
            for isa in Isa::available() {
                let ratio = one(replicas, quorum, shards, isa);
                if isa == Isa::best() {
                    best.push(ratio.value);
                }
            }
        }
    }
    let met = best.iter().filter(|ratio| **ratio >= RATIO_GOAL).count();
    println!(
        "{}: goal >= {RATIO_GOAL:.2} met in {met} of {}, least {:.2}, median {:.2}",
        Isa::best(),
        best.len(),
        best.iter().copied().fold(f64::MAX, f64::min),
        median(best.iter().copied()).value
    );
    reports();
}

fn one(replicas: usize, quorum: usize, shards: usize, isa: Isa) -> Median {
    let mut table = filled(replicas, quorum, shards, isa);
    let mut limit = Limit::new(&table);
    let mut merge = || {
        table.mark_all();
        black_box(table.merge());
    };
    let calls = calls_for(SAMPLE, &mut merge);
    let plain = filled(replicas, quorum, shards, isa);
    let (mut merges, mut maxima, mut scans) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        merges.push(nanos_of(calls, &mut merge) / shards as f64);
        let maximum = nanos_of(calls, || {
            black_box(limit.streaming_max(black_box(&plain)));
        });
        maxima.push(maximum / shards as f64);
        let scan = nanos_of(calls, || {
            black_box(Limit::scan(black_box(&plain)));
        });
        scans.push(scan / shards as f64);
    }
    let pairs = maxima.iter().zip(&merges);
    let ratio = median(pairs.map(|(maximum, merge)| maximum / merge));
    println!(
        "{:>5} {shards:>7} {:>9} {:>8.3} {:>9.3} {:>8.3} {:>6.2} {:>5.2} .. {:>4.2}  {}",
        format!("{replicas}, {quorum}"),
        isa.to_string(),
        median(merges).value,
        median(maxima).value,
        median(scans).value,
        ratio.value,
        ratio.low,
        ratio.high,
        verdict(ratio.value >= RATIO_GOAL)
    );
    ratio
}

/// A table whose floors are what enough members hold, so that a merge finds nothing new; the kernel does the same work either way.
fn filled(replicas: usize, quorum: usize, shards: usize, isa: Isa) -> Table {
    let mut table =
        Table::with_isa(shards, replicas, quorum, isa).expect("a class and an available set");
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for shard in 0..shards {
        for member in 0..replicas {
            let mut lens = [0; 7];
            for len in &mut lens {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *len = random >> 20;
            }
            table.set(shard, member, &lens[..replicas]);
        }
    }
    table.merge();
    table.for_each_changed(|_, _, _, _| {});
    table
}

/// From a report's words to the items of a round: everything is merged, and every change is handed out.
fn reports() {
    println!("\none report, ns: its lengths set, its share of the merge, its changes handed out");
    println!(
        "{:>5} {:>24} {:>8} {:>8} {:>8} {:>8}  largest / least, goal <= {FLAT_GOAL}",
        "R, k", "reporting in each round", "10", "100", "1,000", "10,000"
    );
    for (replicas, quorum) in CLASSES {
        for (who, every) in [("every server", 1), ("those of one shard in 10", 10)] {
            let costs = SHARDS.map(|shards| {
                let mut table = Table::new(shards, replicas, quorum).expect("a class");
                let mut len = 0;
                let mut round = || {
                    len += 1;
                    report_all(&mut table, len, every);
                };
                let calls = calls_for(SAMPLE, &mut round);
                let samples = (0..ROUNDS).map(|_| nanos_of(calls, &mut round));
                median(samples).value / (shards / every * replicas) as f64
            });
            let least = costs.iter().copied().fold(f64::MAX, f64::min);
            let times = costs.iter().copied().fold(0.0, f64::max) / least;
            println!(
                "{:>5} {who:>24} {:>8.2} {:>8.2} {:>8.2} {:>8.2}  {times:.2}: {}",
                format!("{replicas}, {quorum}"),
                costs[0],
                costs[1],
                costs[2],
                costs[3],
                // With few reports in a round, what a merge costs at least is theirs: no goal.
                if every == 1 {
                    verdict(times <= FLAT_GOAL)
                } else {
                    "no goal"
                }
            );
        }
    }
}

/// Every member of one shard in `every` reports `len` for each segment, which is more than before; each round other shards.
fn report_all(table: &mut Table, len: u64, every: usize) {
    let (shards, replicas) = (table.shards(), table.replicas());
    let lens = [len; 7];
    for shard in (len as usize % every..shards).step_by(every) {
        for member in 0..replicas {
            black_box(table.advance(shard, member, &lens[..replicas]));
        }
    }
    black_box(table.merge());
    table.for_each_changed(|shard, segment, before, after| {
        black_box((shard, segment, before, after));
    });
}

pub(crate) fn criterion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernels/merge");
    for (replicas, quorum) in [(2, 2), (3, 2)] {
        for shards in SHARDS {
            let mut table = filled(replicas, quorum, shards, Isa::best());
            let id = BenchmarkId::new(format!("{quorum} of {replicas}"), shards);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    table.mark_all();
                    table.merge()
                });
            });
        }
    }
    group.finish();
}
