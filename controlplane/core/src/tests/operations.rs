//! Changes that operators ask for, with controllers that stop at any step: every transaction ends or is given up, views stay
//! dense, and what the log says and what the map says are the same in the end.

mod world;

use ionian_wire::entry::{Change, Changes};
use proptest::prelude::*;

use super::*;
use crate::Progress;
use crate::state::PlaceKey;
use crate::{Asker, Operated, Operation};
use world::NODES;
pub(super) use world::{World, cluster, whole};

#[derive(Clone, Debug)]
enum Step {
    Ask(Operation),
    Copied,
    Crash(usize),
    Persist,
    Carry,
    Deliver,
    Deploy,
    Wait,
}

fn operation() -> impl Strategy<Value = Operation> {
    const LOG: LogId = LogId::new(1);
    let node = (1..=NODES).prop_map(NodeId::new);
    let shard = (0..4u32).prop_map(ShardId::new);
    let mut other = cluster().logs.remove(0);
    other.name = String::from("other");
    other.quorum = Some(2);
    other.shards = vec![[4, 5, 6].map(NodeId::new).to_vec()];
    prop_oneof![
        1 => Just(Operation::CreateLog(other)),
        1 => Just(Operation::DeleteLog { log: LogId::new(2) }),
        3 => Just(Operation::AddShard { log: LOG, nodes: Vec::new() }),
        3 => (shard, any::<bool>()).prop_map(|(shard, successor)| Operation::FinalizeShard { log: LOG, shard, successor }),
        2 => prop::collection::vec(node.clone(), 1..5).prop_map(|nodes| Operation::SetRoot { log: LOG, nodes }),
        1 => (0..4u8).prop_map(|slot| Operation::MoveLeader { log: LOG, slot: Slot::new(slot) }),
        2 => (0..6u32, node.clone()).prop_map(|(vertex, node)| Operation::MoveVertex {
            log: LOG,
            vertex: VertexId::new(vertex),
            node,
        }),
        3 => (2..4u16, prop::option::of(1..4u8)).prop_map(|(fan_in, depth)| Operation::SetTree { log: LOG, fan_in, depth }),
        4 => (1..3u32, 0..4u32, 0..3u8, node.clone()).prop_map(|(log, shard, slot, node)| Operation::ReplaceReplica {
            log: LogId::new(log),
            shard: ShardId::new(shard),
            slot: Slot::new(slot),
            node,
        }),
        2 => node.clone().prop_map(|node| Operation::DrainNode { node }),
        1 => node.clone().prop_map(|node| Operation::UndrainNode { node }),
        1 => (node.clone(), node).prop_map(|(node, with)| Operation::ReplaceNode { node, with }),
        2 => (1..8u64).prop_map(|transaction| Operation::Cancel { transaction }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => operation().prop_map(Step::Ask),
        2 => (0..3usize).prop_map(Step::Crash),
        6 => Just(Step::Persist),
        6 => Just(Step::Carry),
        12 => Just(Step::Deliver),
        3 => Just(Step::Deploy),
        2 => Just(Step::Copied),
        3 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_transaction_ends_wherever_controllers_stop(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Ask(operation) => {
                    let planned = world.operate(true, operation.clone());
                    let answer = world.operate(false, operation);
                    prop_assert_eq!((planned.refused, &planned.text), (answer.refused, &answer.text));
                    prop_assert!(!answer.text.is_empty());
                }
                Step::Crash(agreed) => world.crash(agreed),
                Step::Persist => world.persist(),
                Step::Carry => world.carry(),
                Step::Deliver => drop(world.deliver()),
                Step::Deploy => world.deploy(),
                Step::Copied => world.report_copies(),
                Step::Wait => world.wait(),
            }
        }
        world.heal();
        world.check();
    }

    #[test]
    fn no_bytes_of_a_request_panic(kind in 0..23u8, body in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut directory = directory(Durability::D0);
        let mut bytes = vec![3, 0, kind];
        bytes.extend(body);
        let (version, answer) = directory.operate(Time::ZERO, &Asker::OPERATOR, &bytes);
        prop_assert_eq!(version, directory.version());
        prop_assert!(Operated::decode(&answer).is_ok());
    }
}

#[test]
fn a_replica_is_replaced_by_one_that_learns_first() {
    let mut world = World::new();
    let mut other = cluster().logs.remove(0);
    other.name = String::from("other");
    other.quorum = Some(2);
    other.shards = vec![[4, 5, 6].map(NodeId::new).to_vec()];
    world.operate(false, Operation::CreateLog(other));
    world.heal();
    let replace = |log, node| Operation::ReplaceReplica {
        log: LogId::new(log),
        shard: ShardId::ZERO,
        slot: Slot::new(1),
        node: NodeId::new(node),
    };
    let answer = world.operate(false, replace(1, 7));
    assert!(
        answer.text.contains("finalize it with a successor instead"),
        "{}",
        answer.text
    );
    let answer = world.operate(false, replace(2, 6));
    assert!(
        answer.text.contains("each on a node of its own"),
        "{}",
        answer.text
    );
    let answer = world.operate(false, replace(2, 7));
    assert_eq!(
        answer.text,
        "log 2: replica 0.1 is on node 7, in view 2 or later"
    );
    world.heal();
    world.check();
    let map = world.directory.map();
    let replicas = &map.logs[1].shards[0].replicas;
    let nodes: Vec<u32> = replicas
        .iter()
        .map(|replica| replica.endpoint.node.get())
        .collect();
    assert_eq!(nodes, [4, 7, 6]);
    let views: Vec<bool> = world
        .contents
        .iter()
        .filter(|((log, _), _)| log.get() == 2)
        .map(|(_, changes)| {
            Changes::new(changes)
                .any(|change| matches!(change, Change::Joint { .. } | Change::Activate { .. }))
        })
        .collect();
    assert_eq!(views, [false, true, true]);
}

fn shards(world: &World) -> Vec<(u32, bool)> {
    let map = world.directory.map();
    let shards = map.logs[0].shards.iter();
    shards
        .map(|shard| (shard.shard.get(), shard.open))
        .collect()
}

#[test]
fn a_node_is_drained() {
    let mut world = World::new();
    let answer = world.operate(
        false,
        Operation::DrainNode {
            node: NodeId::new(1),
        },
    );
    assert_eq!(
        answer.text,
        "node 1: takes no new places\n\
         log 1: the root group is nodes 6, 2, 3, in root epoch 2 or later\n\
         log 1: vertex 0 of the tree is on node 6, in view 2 or later"
    );
    world.heal();
    world.check();
    let map = world.directory.map();
    let roots: Vec<u32> = map.logs[0]
        .roots
        .iter()
        .map(|root| root.node.get())
        .collect();
    assert_eq!(roots, [6, 2, 3]);
    let answer = world.operate(
        false,
        Operation::DrainNode {
            node: NodeId::new(5),
        },
    );
    assert!(
        answer.text.contains("log 1: open shard 1 on nodes"),
        "{}",
        answer.text
    );
    world.heal();
    world.check();
    assert_eq!(shards(&world), [(0, false), (1, true)]);
    let list = world.operate(false, Operation::List);
    assert!(
        list.text.starts_with("transaction 1: done, 3 of 3 steps"),
        "{}",
        list.text
    );
}

#[test]
fn what_would_lose_records_is_refused_with_the_reason() {
    let mut world = World::new();
    let log = LogId::new(1);
    let last = Operation::FinalizeShard {
        log,
        shard: ShardId::ZERO,
        successor: false,
    };
    let answer = world.operate(false, last);
    assert!(
        answer.refused && answer.text.contains("is the last open one"),
        "{}",
        answer.text
    );
    let nodes = [7, 8, 3].map(NodeId::new).to_vec();
    let answer = world.operate(false, Operation::SetRoot { log, nodes });
    assert!(
        answer.refused && answer.text.contains("change fewer at a time"),
        "{}",
        answer.text
    );
    let nodes = vec![NodeId::new(6)];
    let alone = world.operate(false, Operation::AddShard { log, nodes });
    assert!(!alone.refused);
    world.heal();
    // In memory only: the only copy is gone with the process.
    let shard = ShardId::new(1);
    let end = Operation::FinalizeShard {
        log,
        shard,
        successor: false,
    };
    assert!(!world.operate(false, end).refused);
    world.heal();
    let alone = PlaceKey::Replica(log, shard, Slot::ZERO);
    let process = world.processes.remove(&alone).unwrap();
    world.directory.disconnected(world.now, process.conn);
    world.heal_but_copies();
    let answer = world.operate(
        false,
        Operation::DrainNode {
            node: NodeId::new(6),
        },
    );
    assert!(
        answer.refused && answer.text.contains("its last copy would go"),
        "{}",
        answer.text
    );
}

/// Where the quorum was said to be all replicas, no shard could be added.
#[test]
fn a_shard_is_added_where_the_quorum_is_said_to_be_all_replicas() {
    let mut world = World::new();
    let mut other = cluster().logs.remove(0);
    other.name = String::from("other");
    other.quorum = Some(2);
    world.operate(false, Operation::CreateLog(other));
    world.heal();
    let add = |nodes: &[u32]| Operation::AddShard {
        log: LogId::new(2),
        nodes: nodes.iter().copied().map(NodeId::new).collect(),
    };
    let answer = world.operate(false, add(&[6, 7, 8, 9]));
    assert!(answer.text.contains("does not fit the log's quorum"));
    assert!(!world.operate(false, add(&[6, 7])).refused);
    world.heal();
    world.check();
}

/// A member that had left counted as one that holds the cut log when its node was asked for again, and the last one that did
/// left with that request.
#[test]
fn members_that_leave_a_root_group_hold_what_they_hold_until_they_have_left() {
    let mut world = World::new();
    let set_root = |nodes: [u32; 3]| Operation::SetRoot {
        log: LOG,
        nodes: nodes.map(NodeId::new).to_vec(),
    };
    let answer = world.operate(false, set_root([1, 7, 6]));
    assert!(answer.refused, "{}", answer.text);
    let few = "too few of those members stay";
    assert!(answer.text.contains(few), "{}", answer.text);
    // Nobody has left yet: another one may leave instead, and the first change is given up.
    assert!(!world.operate(false, set_root([1, 2, 6])).refused);
    assert!(!world.operate(false, set_root([1, 7, 3])).refused);
    world.heal();
    world.check();
    let progress: Vec<Progress> = world
        .directory
        .transactions()
        .map(|it| it.progress)
        .collect();
    assert!(progress.contains(&Progress::Failed), "{progress:?}");
    assert!(!world.operate(false, set_root([1, 7, 6])).refused);
    world.heal();
    world.check();
}

#[test]
fn a_leader_is_moved_and_a_shard_that_nobody_serves_is_given_up() {
    let mut world = World::new();
    let log = LogId::new(1);
    let leader = world.directory.map().logs[0].leader.unwrap();
    let slot = Slot::new((leader.get() + 1) % 3);
    world.operate(false, Operation::MoveLeader { log, slot });
    world.heal();
    world.check();
    assert_eq!(world.directory.map().logs[0].leader, Some(slot));
    let begun = world.operate(
        false,
        Operation::AddShard {
            log,
            nodes: Vec::new(),
        },
    );
    world.persist();
    assert_eq!(shards(&world), [(0, true), (1, false)]);
    world.crash(0);
    let cancel = Operation::Cancel {
        transaction: begun.transaction,
    };
    assert!(!world.operate(false, cancel.clone()).refused);
    assert!(world.operate(false, cancel).refused, "it does not run");
    assert_eq!(shards(&world), [(0, true)]);
    // The number is not used again.
    world.operate(
        false,
        Operation::AddShard {
            log,
            nodes: Vec::new(),
        },
    );
    world.heal();
    world.check();
    assert_eq!(shards(&world), [(0, true), (2, true)]);
}
