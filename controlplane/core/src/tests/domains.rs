//! D2 means two failure domains: a change that would place the replicas of a shard in one is refused, and says so.

use super::operations::{World, cluster};
use super::*;
use crate::{Operated, Operation};

/// In the cluster of the tests a node is in the domain of its number's remainder by three.
const WIDE: LogId = LogId::new(2);

fn world() -> World {
    let mut world = World::new();
    let mut wide = cluster().logs.remove(0);
    wide.name = String::from("wide");
    wide.class = Durability::D2;
    wide.quorum = Some(2);
    wide.shards = vec![[4, 7, 5].map(NodeId::new).to_vec()];
    let created = world.operate(false, Operation::CreateLog(wide));
    assert!(!created.refused, "{}", created.text);
    world.heal();
    // Lives count once their devices are known to name them, which the next hello says.
    world.crash(usize::MAX);
    world.heal();
    world.check();
    assert!(world.directory.map().logs[1].shards[0].open);
    world
}

fn refused(answer: &Operated) {
    assert!(answer.refused, "{}", answer.text);
    assert!(
        answer
            .text
            .contains("the replicas of a shard of class D2 have to lie in two failure domains"),
        "{}",
        answer.text
    );
}

#[test]
fn a_shard_is_not_added_in_one_domain() {
    let mut world = world();
    for plan in [true, false] {
        let mut add = |nodes: [u32; 3]| {
            let nodes = nodes.map(NodeId::new).to_vec();
            world.operate(plan, Operation::AddShard { log: WIDE, nodes })
        };
        refused(&add([3, 6, 9]));
        let two = add([3, 6, 8]);
        assert!(!two.refused, "{}", two.text);
    }
    world.heal();
    world.crash(usize::MAX);
    world.heal();
    world.check();
}

#[test]
fn a_replica_is_not_replaced_by_one_of_the_others_domain() {
    let mut world = world();
    for plan in [true, false] {
        let mut replace = |node| {
            let operation = Operation::ReplaceReplica {
                log: WIDE,
                shard: ShardId::ZERO,
                slot: Slot::new(2),
                node: NodeId::new(node),
            };
            world.operate(plan, operation)
        };
        refused(&replace(1));
        let other = replace(9);
        assert!(!other.refused, "{}", other.text);
    }
}

/// A log whose shards would lie in one domain is not created at all.
#[test]
fn a_log_is_not_created_in_one_domain() {
    let mut world = World::new();
    let mut wide = cluster().logs.remove(0);
    wide.name = String::from("wide");
    wide.class = Durability::D2;
    wide.shards = vec![[3, 6].map(NodeId::new).to_vec()];
    let answer = world.operate(false, Operation::CreateLog(wide));
    assert!(
        answer.refused && answer.text.contains("failure domain"),
        "{}",
        answer.text
    );
}
