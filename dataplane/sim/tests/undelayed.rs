//! A planned change adds no delay to the shards that it does not concern. Time is virtual, so that what a change costs is seen
//! and not what the machine does beside it: each seed runs with the change and without it.

use std::collections::{BTreeMap, BTreeSet};

use ionian_sim::{Fault, Plan, World};

const SEEDS: u64 = 8;
/// How long after a view was committed the appends count, in virtual nanoseconds.
const AFTER_NS: u64 = 3_000_000;
/// How long before.
const BEFORE_NS: u64 = 1_000_000;

/// An append that was acknowledged.
struct Ack {
    shard: u64,
    slot: u64,
    generation: u64,
    /// The client's session, by client.
    session: (u64, u64),
    called_ns: u64,
    took_ns: u64,
}

/// The number after `"key":` in a line of a history.
fn number(line: &str, key: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// What was acknowledged, and when views were committed.
fn run(seed: u64, plan: Plan) -> (Vec<Ack>, Vec<u64>) {
    let mut world = World::new(seed, plan);
    if let Err(failure) = world.run() {
        panic!("{failure}");
    }
    let text = world.history.recorder.text();
    let (mut called, mut acks, mut views) = (BTreeMap::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let get = |key| number(line, key);
        let at = get("t").unwrap_or(0);
        if line.contains("\"e\":\"epoch\"") {
            views.push(at);
        } else if line.contains("\"f\":\"append\"") {
            called.insert(get("op"), (at, get("cid").expect("a client")));
        } else if line.contains("\"e\":\"ok\"")
            && let Some((called_ns, client)) = called.remove(&get("op"))
        {
            let place = |key| get(key).expect("an append has a place");
            acks.push(Ack {
                shard: place("shard"),
                slot: place("rep"),
                generation: place("gen"),
                session: (client, place("ses")),
                called_ns,
                took_ns: at - called_ns,
            });
        }
    }
    (acks, views)
}

/// The shards of whose segments each goes on as it was.
fn not_concerned(acks: &[Ack], news: &[u64], shards: u64) -> BTreeSet<u64> {
    let (first, last) = (news[0], news[news.len() - 1]);
    let segments = |keep: &dyn Fn(&Ack) -> bool| -> BTreeSet<(u64, u64, u64)> {
        let acks = acks.iter().filter(|ack| keep(ack));
        acks.map(|ack| (ack.shard, ack.slot, ack.generation))
            .collect()
    };
    let before = segments(&|ack| ack.called_ns < first);
    let after = segments(&|ack| ack.called_ns > last + AFTER_NS);
    let goes_on = |shard: &u64| {
        let of = |all: &BTreeSet<(u64, u64, u64)>| -> BTreeSet<_> {
            all.iter().filter(|it| it.0 == *shard).copied().collect()
        };
        !of(&before).is_empty() && of(&before).is_subset(&of(&after))
    };
    (0..shards).filter(goes_on).collect()
}

fn quantile_us(sorted: &[u64], permille: usize) -> u64 {
    sorted[(sorted.len() - 1) * permille / 1000] / 1000
}

/// How long appends took, in order: with the change, and without it.
fn compare(fault: Fault, base: &Plan) {
    let mut took = [Vec::new(), Vec::new()];
    for seed in 1..=SEEDS {
        let plan = Plan {
            faults: vec![(fault, 1)],
            ..base.clone()
        };
        let calm = Plan {
            only: Some(vec![]),
            ..plan.clone()
        };
        let (acks, views) = run(seed, plan);
        let (calm_acks, calm_views) = run(seed, calm);
        // The views that open the shards come first, the same in both.
        let news = &views[calm_views.len().min(views.len())..];
        let Some(first) = news.first() else { continue };
        let shards = not_concerned(&acks, news, u64::from(base.shards));
        for (acks, took) in [acks, calm_acks].iter().zip(&mut took) {
            // What was begun at a shard that the change ended goes on in another session, elsewhere.
            let begun: BTreeSet<_> = acks
                .iter()
                .filter(|ack| ack.called_ns + BEFORE_NS < *first)
                .map(|ack| ack.session)
                .collect();
            let counts = |ack: &&Ack| {
                let mut news = news.iter();
                let near = news
                    .any(|at| ack.called_ns + BEFORE_NS >= *at && ack.called_ns < at + AFTER_NS);
                near && shards.contains(&ack.shard) && begun.contains(&ack.session)
            };
            took.extend(acks.iter().filter(counts).map(|ack| ack.took_ns));
        }
    }
    for took in &mut took {
        took.sort_unstable();
    }
    let figures = took
        .each_ref()
        .map(|took| [500, 990, 999, 1000].map(|at| quantile_us(took, at)));
    let [during, control] = figures;
    let what = format!(
        "{fault:?}: {} and {} appends; p50, p99, p99.9 and most in us: {during:?}, without it {control:?}",
        took[0].len(),
        took[1].len()
    );
    println!("{what}");
    assert!(took[0].len() > 200, "{what}");
    // The network draws other numbers once there is a change: a part of the spread, and no message more. But for the few whose
    // round was on its way when a view ended the edge: they wait until the view is committed and the edge begins, and for a round.
    for (at, (during, control)) in during.iter().zip(control).enumerate() {
        let few = at >= 2;
        let more = if few { control } else { control / 4 };
        assert!(*during <= control + more, "{what}");
    }
}

fn shards_of_two() -> Plan {
    Plan {
        shards: 3,
        think_ns: 100_000,
        ..Plan::calm()
    }
}

fn shards_of_three() -> Plan {
    Plan {
        replicas: 3,
        quorum: 2,
        roots: 3,
        ..shards_of_two()
    }
}

#[test]
fn adding_a_shard_delays_nobody() {
    compare(Fault::AddShard, &shards_of_two());
    compare(Fault::AddShard, &shards_of_three());
}

#[test]
fn ending_a_shard_delays_no_other() {
    compare(Fault::FinalizeShard, &shards_of_two());
}

#[test]
fn replacing_a_replica_delays_no_other_shard() {
    compare(Fault::ReplaceReplica, &shards_of_three());
}

/// The replicas of the shard heard nothing any more, and asked after 50 ms or more; until then clients waited for what became of
/// their last records.
#[test]
fn what_was_begun_at_a_shard_that_ends_goes_on_at_once() {
    for seed in 1..=SEEDS {
        let plan = Plan {
            faults: vec![(Fault::FinalizeShard, 1)],
            ..shards_of_two()
        };
        let (acks, _) = run(seed, plan);
        let begun = acks.iter().filter(|ack| ack.called_ns > 20_000_000);
        let most_us = begun.map(|ack| ack.took_ns / 1000).max();
        // A client hears up to 20 ms late that a new replica that was not ready has hung up, and once more of the next.
        assert!(most_us < Some(45_000), "seed {seed}: {most_us:?} us");
    }
}
