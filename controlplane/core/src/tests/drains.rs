//! Nodes that are drained while other changes go on, and nodes that take places again.

use super::operations::World;
use super::*;
use crate::{Details, Operated, Operation, Progress};

const NODE: NodeId = NodeId::new(5);

fn begin(world: &mut World, operation: Operation) -> Operated {
    let answer = world.operate(false, operation);
    assert!(!answer.refused, "{}", answer.text);
    answer
}

/// The shard is on the drained node and another one.
fn add_shard(world: &mut World) -> Operated {
    let nodes = vec![NODE, NodeId::new(6)];
    begin(world, Operation::AddShard { log: LOG, nodes })
}

fn is_drained(world: &mut World) -> bool {
    let log = String::new();
    let answer = world.operate(false, Operation::Describe { log });
    let Details::Cluster(picture) = answer.details else {
        panic!("it shows the cluster")
    };
    let mut nodes = picture.nodes.iter();
    nodes.find(|node| node.node == NODE).unwrap().drained
}

fn ends(world: &World) -> Vec<Progress> {
    let known = world.directory.transactions();
    known.map(|transaction| transaction.progress).collect()
}

/// The shard that was added took the number that the next step had planned for its own, and the drain failed half done.
#[test]
fn a_shard_that_is_added_meanwhile_does_not_stop_a_drain() {
    let mut world = World::new();
    add_shard(&mut world);
    world.heal();
    let drain = begin(&mut world, Operation::DrainNode { node: NODE });
    assert!(drain.text.contains("open shard 2 on") && drain.text.contains("open shard 3 on"));
    let nodes = vec![NodeId::new(7), NodeId::new(8)];
    let added = begin(&mut world, Operation::AddShard { log: LOG, nodes });
    assert!(added.text.contains("open shard 3 on"), "{}", added.text);
    world.heal();
    world.check();
    assert_eq!(ends(&world), [Progress::Done; 3]);
    let map = world.directory.map();
    let shards = map.logs[0].shards.iter();
    let shards: Vec<(u32, bool)> = shards
        .map(|shard| (shard.shard.get(), shard.open))
        .collect();
    assert_eq!(
        shards,
        [(0, false), (1, false), (2, true), (3, true), (4, true)]
    );
    // The steps say what was done, not what was planned.
    let drain = world.directory.transactions().nth(1).unwrap();
    let lines: Vec<String> = drain.lines().collect();
    assert!(lines[4].contains("open shard 4 on"), "{lines:?}");
}

#[test]
fn a_drained_node_takes_places_again() {
    let mut world = World::new();
    let undrain = Operation::UndrainNode { node: NODE };
    let answer = begin(&mut world, undrain.clone());
    assert_eq!(answer.text, "nothing is to be done");
    begin(&mut world, Operation::DrainNode { node: NODE });
    let early = world.operate(false, undrain.clone());
    assert!(early.refused && early.text.contains("transaction 1 moves what is on node 5"));
    world.heal();
    let used = |world: &mut World| {
        let nodes = vec![NODE, NodeId::new(6)];
        let with = Operation::ReplaceNode {
            node: NodeId::new(9),
            with: NODE,
        };
        let taken = world.operate(true, with);
        let named = world.operate(true, Operation::AddShard { log: LOG, nodes });
        (!taken.refused, !named.refused)
    };
    assert!(is_drained(&mut world));
    assert!(!used(&mut world).0);
    let planned = world.operate(true, undrain.clone());
    assert_eq!(planned.text, "node 5: takes new places again");
    begin(&mut world, undrain);
    world.heal();
    world.check();
    assert!(!is_drained(&mut world));
    assert_eq!(used(&mut world), (true, true));
    let gone = Operation::UndrainNode {
        node: NodeId::new(99),
    };
    assert!(world.operate(false, gone).refused);
}

#[test]
fn a_node_whose_drain_is_given_up_takes_places_again() {
    let mut world = World::new();
    let drain = begin(&mut world, Operation::DrainNode { node: NODE });
    let other = begin(
        &mut world,
        Operation::ReplaceNode {
            node: NODE,
            with: NodeId::new(6),
        },
    );
    let cancel = |world: &mut World, transaction| {
        let cancel = Operation::Cancel { transaction };
        let given_up = world.operate(false, cancel);
        assert!(!given_up.refused, "{}", given_up.text);
    };
    assert!(is_drained(&mut world));
    cancel(&mut world, drain.transaction);
    assert!(is_drained(&mut world), "the other one goes on");
    cancel(&mut world, other.transaction);
    assert!(!is_drained(&mut world));
    world.heal();
    world.check();
    let again = State::restore(&world.directory.snapshot()).unwrap();
    assert_eq!(again.snapshot(), world.directory.snapshot());
}
