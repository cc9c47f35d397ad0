//! Several reactors in one process: a cluster on its own, and processes whose sessions reach places on other reactors than
//! the socket's.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::{
    Bed, LOG, PATIENCE, append_all, assert_lost_before, deliveries, follow, local_client, log_spec,
    node, numbered, until,
};
use ionian_client::{Delivery, Gsn, Policy};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::client::{Probe, ProbeTarget};
use ionian_node::config::{NetworkConfig, client_options};
use ionian_node::{Place, Server, ServerOptions};
use ionian_runtime::{CorePlan, ReactorCounter};
use ionian_types::{Durability, ShardId, Slot};

/// Everything of a log with two shards of two replicas, in one process.
fn whole(plan: CorePlan, class: Durability, dir: Option<&Path>) -> Server {
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(node(1), NodeSpec::default())].into(),
        logs: vec![log_spec("default", class, 1, 1, &[&[1, 1], &[1, 1]])],
    });
    options.data_dir = dir.map(Path::to_owned);
    options.plan = plan;
    options.reactors = Some(2);
    options.oversubscribe = true;
    options.shared_core = true;
    Server::start(options).expect("the cluster starts")
}

/// Two clients append at the same time; returns what they appended, with positions.
fn append_by_two(server: &Server, life: u128) -> (Vec<Gsn>, Vec<Vec<u8>>) {
    let append = |client: u128| {
        let mut log = local_client(server, LOG, 10 * life + client);
        log.set_shard_policy(Policy::Spread);
        let from = u64::try_from(10 * life + client).expect("small") * 100_000;
        let payloads = numbered(from, from + 3_000);
        (append_all(&mut log, &payloads), payloads)
    };
    let (mut first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| append(2));
        (append(1), other.join().expect("appended"))
    });
    first.0.extend(second.0);
    first.1.extend(second.1);
    first
}

fn append_tail_restart(plan: CorePlan, reactors: usize, class: Durability) {
    let dir = tempfile::tempdir().expect("a folder");
    let server = whole(plan, class, Some(dir.path()));
    let cores = &server.effective().cores;
    assert_eq!((cores.plan, cores.reactors.len()), (plan, reactors));
    assert_eq!(server.effective().places.len(), 7);
    let (mut positions, mut payloads) = append_by_two(&server, 1);
    let unique: BTreeSet<&Gsn> = positions.iter().collect();
    assert_eq!(unique.len(), positions.len(), "a position has one record");
    let mut log = local_client(&server, LOG, 90);
    let expected = deliveries(&positions, &payloads);
    assert_eq!(follow(&mut log, Gsn::ZERO, expected.len()), expected);
    let status = || server.status(PATIENCE).expect("every reactor answers");
    assert_eq!(status().places.len(), 7);
    // One shard is enough for clients; the other one may open later.
    until(
        "every shard takes appends",
        || status().can_append(),
        || format!("{:#?}", status()),
    );
    // Every replica took part, on whatever reactor.
    let work = |at| server.counter_of(at, ReactorCounter::Work);
    assert!((0..reactors).all(|at| work(at) > 0));
    drop(log);
    assert!(server.drain(PATIENCE), "everything taken is ordered");
    server.stop();

    let server = whole(plan, class, Some(dir.path()));
    let (new, records) = append_by_two(&server, 2);
    let mut log = local_client(&server, LOG, 91);
    if class.is_flushed() {
        positions.extend(new);
        payloads.extend(records);
        let expected = deliveries(&positions, &payloads);
        assert_eq!(follow(&mut log, Gsn::ZERO, expected.len()), expected);
    } else {
        let mut both: Vec<(Gsn, Vec<u8>)> = new.into_iter().zip(records).collect();
        both.sort_unstable_by_key(|(gsn, _)| *gsn);
        let (new, records): (Vec<Gsn>, Vec<Vec<u8>>) = both.into_iter().unzip();
        assert!(new[0] > positions[0]);
        assert_lost_before(&mut log, positions[7], &new, &records);
    }
}

#[test]
fn a_reactor_per_role_in_memory() {
    append_tail_restart(CorePlan::Dedicated, 5, Durability::D0);
}

#[test]
fn a_reactor_per_role_on_disk() {
    append_tail_restart(CorePlan::Dedicated, 5, Durability::D1);
}

#[test]
fn two_reactors_in_memory() {
    append_tail_restart(CorePlan::Packed, 2, Durability::D0);
}

#[test]
fn two_reactors_on_disk() {
    append_tail_restart(CorePlan::Packed, 2, Durability::D1);
}

#[test]
fn reactors_with_nothing_to_do_all_sleep() {
    let server = whole(CorePlan::Dedicated, Durability::D0, None);
    let mut log = local_client(&server, LOG, 1);
    log.append(b"awake").expect("appended");
    let counts = || -> Vec<[u64; 2]> {
        let count = |at, counter| server.counter_of(at, counter);
        (0..5)
            .map(|at| {
                [
                    count(at, ReactorCounter::Sleeps),
                    count(at, ReactorCounter::Loops),
                ]
            })
            .collect()
    };
    let wait = |sleeps: u64| {
        let before = counts();
        let asleep = || {
            let now = counts();
            now.iter()
                .zip(&before)
                .all(|(now, before)| now[0] >= before[0] + sleeps)
        };
        until("every reactor blocks", asleep, || format!("{:?}", counts()));
        (before, counts())
    };
    // Until what the append left behind is done, and idleness is short.
    wait(20);
    let (before, after) = wait(50);
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        let [sleeps, loops] = [0, 1].map(|counter| after[counter] - before[counter]);
        // A thread that only yields makes some ten thousand loops between two deadlines.
        assert!(
            loops < 1_000 * sleeps,
            "reactor {at}: {loops} loops, {sleeps} sleeps"
        );
    }
    // All wake for a client, and for each other.
    for shard in [0, 1] {
        log.append_to_shard(ShardId::new(shard), b"again")
            .expect("appended");
    }
}

/// Controller, root, leaf and a copy of each shard on node 1, with a reactor each; the other copies on node 2, with a
/// reactor each.
fn two_processes(class: Durability) -> Bed {
    let mut bed = Bed::new(vec![log_spec("default", class, 1, 1, &[&[1, 2], &[2, 1]])]);
    bed.adjust = |options| {
        options.plan = CorePlan::Dedicated;
        options.oversubscribe = true;
        // More threads than cores: silence says little.
        options.tuning.dead_after_ms = 5_000;
    };
    bed.start_all();
    for (id, reactors) in [(1, 3), (2, 2)] {
        let server = &bed.servers[&node(id)];
        assert_eq!(server.effective().cores.reactors.len(), reactors);
    }
    bed
}

/// The places that a node tells of over the wire, when asked through a session with `through`.
fn places_told(bed: &Bed, id: u32, through: Place) -> usize {
    let controller = bed.addresses[&bed.controller];
    let network = NetworkConfig::default();
    let options = client_options(controller, bed.secret.clone(), LOG, &network);
    let mut probe = Probe::open(&options).expect("a socket");
    let target = ProbeTarget {
        address: bed.addresses[&node(id)],
        places: vec![through],
    };
    let answers = probe.ask(&[target], PATIENCE);
    let answer = answers[0].as_ref().expect("it answers");
    let json: serde_json::Value = serde_json::from_str(&answer.text).expect("JSON");
    assert!(json["port"].is_object(), "of the socket too: {json}");
    json["places"].as_array().expect("a list").len()
}

#[test]
fn sessions_reach_places_on_any_reactor_and_processes_may_restart() {
    let mut bed = two_processes(Durability::D1);
    let mut log = bed.client();
    log.set_shard_policy(Policy::Spread);
    let mut positions = Vec::new();
    let mut payloads = Vec::new();
    for (round, killed) in [None, Some(2), Some(1), Some(2)].into_iter().enumerate() {
        if let Some(id) = killed {
            bed.kill(id);
            bed.start(id);
        }
        let from = 10_000 * round as u64;
        let records = numbered(from, from + 1_000);
        positions.extend(bed.append_all(&mut log, &records));
        payloads.extend(records);
        let expected = deliveries(&positions, &payloads);
        let seen = follow(&mut bed.client(), Gsn::ZERO, expected.len());
        assert_eq!(seen, expected, "round {round}");
    }
    let replica = |shard, slot| Place::Replica(LOG, ShardId::new(shard), Slot::new(slot));
    for through in [
        Place::Directory,
        Place::Root(LOG, Slot::ZERO),
        replica(0, 0),
        replica(1, 1),
    ] {
        assert_eq!(places_told(&bed, 1, through), 5, "through {through}");
    }
    for through in [replica(0, 1), replica(1, 0)] {
        assert_eq!(places_told(&bed, 2, through), 2, "through {through}");
    }
    let largest = vec![0x5a; ionian_types::RECORD_BYTES_MAX];
    for shard in [0, 1] {
        log.append_to_shard(ShardId::new(shard), &largest)
            .expect("the largest record fits a relay");
    }
    let local = local_client(&bed.servers[&node(2)], LOG, 7);
    drop(local);
    assert!(bed.servers[&node(2)].drain(PATIENCE));
}

#[test]
fn a_slow_reader_on_one_reactor_holds_nobody_else_up() {
    let mut bed = two_processes(Durability::D0);
    let mut slow = bed.client();
    let mut slow = slow.subscribe(Gsn::ZERO).expect("a subscription");
    let mut log = bed.client();
    log.set_shard_policy(Policy::Spread);
    let (mut positions, mut payloads) = (Vec::new(), Vec::new());
    let mut seen: Vec<Delivery> = Vec::new();
    for round in 0..40u64 {
        // More than a ring and the buffers of a session hold, all rounds together.
        let records: Vec<Vec<u8>> = (0..50u64)
            .map(|at| {
                let mut record = vec![round as u8; 20_000];
                record[..8].copy_from_slice(&(round * 50 + at).to_le_bytes());
                record
            })
            .collect();
        positions.extend(bed.append_all(&mut log, &records));
        payloads.extend(records);
        seen.extend(slow.next_timeout(Duration::from_millis(50)));
    }
    assert!(seen.len() <= 40, "it is slow");
    let expected = deliveries(&positions, &payloads);
    let fast = follow(&mut bed.client(), Gsn::ZERO, expected.len());
    assert!(fast == expected, "another reader is not held up");
    while seen.len() < expected.len() {
        let next = slow.next_timeout(PATIENCE);
        seen.push(next.expect("the slow reader gets everything in the end"));
    }
    assert!(seen == expected, "in order, each once");
}
