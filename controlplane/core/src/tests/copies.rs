//! Copies of shards that have ended: who is let go when, what is refused, and what a new leader finds.

use super::operations::{World, whole};
use super::*;
use crate::operation::{Operate, Operated};
use crate::state::PlaceKey;
use crate::{Operation, Progress};

const SHARD: ShardId = ShardId::ZERO;

fn replace(slot: u8, node: u32) -> Operation {
    Operation::ReplaceReplica {
        log: LOG,
        shard: SHARD,
        slot: Slot::new(slot),
        node: NodeId::new(node),
    }
}

/// A world whose first shard, with replicas on nodes 4 and 5, has ended.
fn ended() -> World {
    let mut world = World::new();
    let end = Operation::FinalizeShard {
        log: LOG,
        shard: SHARD,
        successor: true,
    };
    assert!(!world.operate(false, end).refused);
    world.heal();
    world.check();
    world
}

fn nodes(world: &World) -> Vec<u32> {
    let map = world.directory.map();
    let replicas = map.logs[0].shards[0].replicas.iter();
    replicas
        .map(|replica| replica.endpoint.node.get())
        .collect()
}

/// Everything but the report of the copy, which is the last word.
fn copying(world: &mut World, operation: Operation) -> Operated {
    let answer = world.operate(false, operation);
    assert!(!answer.refused, "{}", answer.text);
    for _ in 0..20 {
        world.persist();
        world.carry();
        while world.deliver() {}
        world.deploy();
        world.wait();
    }
    answer
}

fn progress(world: &World) -> Progress {
    world.directory.transactions().last().unwrap().progress
}

const COPY: PlaceKey = PlaceKey::Copy(LOG, SHARD, Slot::new(1));
const REPLICA: PlaceKey = PlaceKey::Replica(LOG, SHARD, Slot::new(1));

#[test]
fn the_old_replica_goes_once_the_new_one_holds_everything() {
    let mut world = ended();
    let answer = copying(&mut world, replace(1, 7));
    assert_eq!(answer.text, "log 1: replica 0.1 is on node 7");
    assert_eq!(progress(&world), Progress::Running);
    assert_eq!(nodes(&world), [4, 5], "the map says who serves");
    assert!(world.processes.contains_key(&COPY) && world.processes.contains_key(&REPLICA));
    // What it says of another epoch, or of less than everything, changes nothing.
    let epoch = world.directory.map().logs[0].shards[0].epoch;
    let old = ViewId::new(epoch.get() - 1);
    world.send(COPY, &whole(LOG, SHARD, old, 0b10));
    let behind = ionian_wire::frame::ShardStatus {
        whole: false,
        ..whole(LOG, SHARD, epoch, 0b10)
    };
    world.send(COPY, &behind);
    // Nor what the replica that stays says of the other's slot.
    let other = PlaceKey::Replica(LOG, SHARD, Slot::ZERO);
    world.send(other, &whole(LOG, SHARD, epoch, 0b10));
    assert_eq!(nodes(&world), [4, 5]);
    world.send(COPY, &whole(LOG, SHARD, epoch, 0b10));
    assert_eq!(nodes(&world), [4, 7]);
    assert_eq!(progress(&world), Progress::Done);
    world.heal();
    world.check();
    assert!(!world.processes.contains_key(&COPY));
    assert_eq!(world.processes[&REPLICA].node, NodeId::new(7));
    let views = world.directory.map().logs[0].shards[0].epoch;
    assert_eq!(views, epoch, "no view is made of it");
}

#[test]
fn a_copy_that_is_under_way_is_given_up_and_the_replica_stays() {
    let mut world = ended();
    let answer = copying(&mut world, replace(1, 7));
    let transaction = answer.transaction;
    let cancel = Operation::Cancel { transaction };
    assert!(!world.operate(false, cancel.clone()).refused);
    world.heal();
    world.check();
    assert_eq!(
        (nodes(&world), progress(&world)),
        (vec![4, 5], Progress::Cancelled)
    );
    assert!(!world.processes.contains_key(&COPY));
    assert!(world.operate(false, cancel).refused);
}

#[test]
fn a_new_leader_goes_on_with_a_copy() {
    for agreed in 0..3 {
        let mut world = ended();
        copying(&mut world, replace(1, 7));
        world.crash(0);
        assert_eq!(progress(&world), Progress::Running);
        assert_eq!(nodes(&world), [4, 5]);
        let epoch = world.directory.map().logs[0].shards[0].epoch;
        world.heal_but_copies();
        world.send(COPY, &whole(LOG, SHARD, epoch, 0b10));
        // The command that makes it the replica is agreed on, or not.
        world.crash(agreed);
        world.heal();
        world.check();
        assert_eq!(
            (nodes(&world), progress(&world)),
            (vec![4, 7], Progress::Done)
        );
    }
}

#[test]
fn what_could_not_be_copied_is_refused_with_the_reason() {
    let mut world = ended();
    let says = |world: &mut World, operation, why: &str| {
        let answer = world.operate(false, operation);
        assert!(
            answer.refused && answer.text.contains(why),
            "{}",
            answer.text
        );
    };
    says(&mut world, replace(1, 4), "each on a node of its own");
    says(&mut world, replace(1, 77), "no such node");
    says(&mut world, replace(3, 7), "no such replica");
    copying(&mut world, replace(1, 7));
    says(
        &mut world,
        replace(0, 8),
        "one replica of a shard at a time",
    );
    world.heal();
    world.check();
    // Neither is there.
    for slot in 0..2 {
        let key = PlaceKey::Replica(LOG, SHARD, Slot::new(slot));
        let process = world.processes.remove(&key).unwrap();
        world.directory.disconnected(world.now, process.conn);
    }
    let why = "that holds its records is connected; a new one could copy them from nobody";
    says(&mut world, replace(1, 8), why);
    let drain = Operation::DrainNode {
        node: NodeId::new(7),
    };
    says(&mut world, drain, why);
}

/// A controller that has just begun to lead knows of nobody's connection: what it would refuse for that waits until processes have
/// come, or have had the time to.
#[test]
fn what_a_new_leader_cannot_know_is_not_refused() {
    let request = |operation| {
        Operate {
            plan: false,
            operation,
        }
        .encode()
    };
    let drain = |node| Operation::DrainNode {
        node: NodeId::new(node),
    };
    let mut world = ended();
    assert!(
        !world.directory.is_asked_early(&request(drain(5))),
        "all are there"
    );
    world.lead_anew(usize::MAX);
    assert!(world.directory.is_asked_early(&request(drain(5))));
    assert!(!world.directory.is_asked_early(&request(Operation::List)));
    world.crash(usize::MAX);
    assert!(!world.directory.is_asked_early(&request(drain(5))));
    copying(&mut world, drain(5));
    world.heal();
    world.check();
    // Those that do not come are waited for as long as any that went.
    world.lead_anew(usize::MAX);
    world.processes.clear();
    assert!(world.directory.is_asked_early(&request(drain(4))));
    let patience = world.directory.next_deadline();
    for _ in 0..100 {
        world.wait();
    }
    assert!(world.now > patience && !world.directory.is_asked_early(&request(drain(4))));
    assert!(world.operate(false, drain(4)).refused);
}

/// Its only replica goes nowhere before another one has everything.
#[test]
fn the_only_copy_moves() {
    let mut world = World::new();
    let log = LOG;
    let nodes = vec![NodeId::new(6)];
    assert!(
        !world
            .operate(false, Operation::AddShard { log, nodes })
            .refused
    );
    world.heal();
    let drain = Operation::DrainNode {
        node: NodeId::new(6),
    };
    copying(&mut world, drain);
    let at = |world: &World| {
        let map = world.directory.map();
        map.logs[0].shards[1].replicas[0].endpoint.node.get()
    };
    assert_eq!((at(&world), progress(&world)), (6, Progress::Running));
    world.heal();
    world.check();
    assert_ne!(at(&world), 6);
}

#[test]
fn a_replica_that_lost_its_records_holds_them_again_when_it_says_so() {
    let other = PlaceKey::Replica(LOG, SHARD, Slot::ZERO);
    for says_so in [true, false] {
        let mut world = ended();
        // In memory only: each life begins with nothing.
        for key in [REPLICA, other] {
            let process = world.processes.remove(&key).unwrap();
            world.directory.disconnected(world.now, process.conn);
            world.heal_but_copies();
            if says_so && key == REPLICA {
                world.report_copies();
            }
        }
        let answer = world.operate(true, replace(0, 7));
        assert_eq!(answer.refused, !says_so, "{}", answer.text);
        assert_eq!(answer.text.contains("from nobody"), !says_so);
    }
}

#[test]
fn a_drained_node_keeps_no_copy() {
    let mut world = World::new();
    let drain = Operation::DrainNode {
        node: NodeId::new(5),
    };
    let answer = world.operate(false, drain);
    let lines: Vec<&str> = answer.text.lines().collect();
    assert_eq!(lines[0], "node 5: takes no new places");
    assert!(
        lines[1].starts_with("log 1: open shard 1 on nodes"),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("log 1: finalize shards 0, in view"),
        "{lines:?}"
    );
    assert!(
        lines[3].starts_with("log 1: replica 0.1 is on node"),
        "{lines:?}"
    );
    world.heal();
    world.check();
    let places = world.directory.assignments();
    assert!(places.into_iter().all(|place| place.node != NodeId::new(5)));
    let again = Operation::DrainNode {
        node: NodeId::new(4),
    };
    assert!(!world.operate(false, again).refused);
    world.heal();
    world.check();
    assert!(!nodes(&world).contains(&4) && !nodes(&world).contains(&5));
}

/// Between the request and the first word of the new node the shard ended: the new one was the replica as soon as it came, and
/// nobody had seen to it that it had any records.
#[test]
fn a_replica_that_was_to_learn_copies_when_its_shard_ends_first() {
    let mut world = World::new();
    let mut wide = operations::cluster().logs.remove(0);
    wide.name = String::from("wide");
    wide.quorum = Some(2);
    wide.shards = vec![[4, 5, 6].map(NodeId::new).to_vec(); 2];
    world.operate(false, Operation::CreateLog(wide));
    world.heal();
    let log = LogId::new(2);
    let moved = Operation::ReplaceReplica {
        log,
        shard: SHARD,
        slot: Slot::ZERO,
        node: NodeId::new(7),
    };
    let end = Operation::FinalizeShard {
        log,
        shard: SHARD,
        successor: false,
    };
    assert!(!world.operate(false, moved).refused);
    assert!(!world.operate(false, end).refused);
    for _ in 0..20 {
        world.persist();
        world.carry();
        while world.deliver() {}
        world.wait();
    }
    let first = |world: &World| {
        let map = world.directory.map();
        map.logs[1].shards[0].replicas[0].endpoint.node.get()
    };
    world.heal_but_copies();
    assert_eq!(first(&world), 4);
    world.heal();
    world.check();
    assert_eq!(first(&world), 7);
}
