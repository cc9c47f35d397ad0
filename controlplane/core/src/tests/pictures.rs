//! What operators are shown: pictures and plans say what is there, and what comes about.

use super::operations::{World, cluster};
use super::*;
use crate::{
    ClusterPicture, Details, LogPicture, Operated, Operation, Progress, ReplicaPicture, ShardStage,
};

const LOG: LogId = LogId::new(1);

fn picture(operated: Operated) -> ClusterPicture {
    match operated.details {
        Details::Cluster(picture) => picture,
        other => panic!("{}: {other:?}", operated.text),
    }
}

fn described(world: &mut World) -> ClusterPicture {
    let log = String::new();
    picture(world.operate(false, Operation::Describe { log }))
}

/// What a plan says of a log, and what is to be seen later: who has which place, and which shards take appends.
type Shape = (String, Vec<u32>, u32, Vec<(u32, ShardStage, Vec<u32>)>);

fn shape(log: &LogPicture) -> Shape {
    let node = |replica: &ReplicaPicture| replica.place.node.get();
    let shards = log.shards.iter().map(|shard| {
        let nodes = shard.replicas.iter().map(node).collect();
        (shard.shard.get(), shard.stage, nodes)
    });
    let roots = log.root.members.iter().map(|place| place.node.get());
    (
        log.name.clone(),
        roots.collect(),
        log.tree[0].place.node.get(),
        shards.collect(),
    )
}

#[test]
fn a_plan_shows_what_comes_about() {
    let mut other = cluster().logs.remove(0);
    other.name = String::from("other");
    other.quorum = Some(2);
    other.shards = vec![[4, 5, 6].map(NodeId::new).to_vec()];
    let operations = [
        Operation::CreateLog(other),
        Operation::AddShard {
            log: LOG,
            nodes: Vec::new(),
        },
        Operation::FinalizeShard {
            log: LOG,
            shard: ShardId::ZERO,
            successor: true,
        },
        Operation::SetRoot {
            log: LOG,
            nodes: [1, 2, 7].map(NodeId::new).to_vec(),
        },
        Operation::MoveVertex {
            log: LOG,
            vertex: VertexId::ZERO,
            node: NodeId::new(8),
        },
        Operation::SetTree {
            log: LOG,
            fan_in: 2,
            depth: Some(3),
        },
        Operation::ReplaceReplica {
            log: LogId::new(2),
            shard: ShardId::ZERO,
            slot: Slot::new(1),
            node: NodeId::new(7),
        },
        Operation::DrainNode {
            node: NodeId::new(1),
        },
        Operation::ReplaceNode {
            node: NodeId::new(2),
            with: NodeId::new(9),
        },
        Operation::DeleteLog { log: LOG },
    ];
    let mut world = World::new();
    for operation in operations {
        let planned = picture(world.operate(true, operation.clone()));
        let before = described(&mut world);
        let answer = world.operate(false, operation.clone());
        assert!(!answer.refused, "{operation:?}: {}", answer.text);
        assert_eq!(answer.details, Details::None);
        world.heal();
        world.check();
        let after = described(&mut world);
        let shapes: Vec<Shape> = planned.logs.iter().map(shape).collect();
        for shape in &shapes {
            let found = after.logs.iter().map(self::shape);
            assert!(
                found.clone().any(|found| found == *shape),
                "{operation:?}: planned {shape:?}, found {:?}",
                found.collect::<Vec<_>>()
            );
        }
        for log in &planned.logs {
            let later = after.logs.iter().find(|later| later.log == log.log);
            let earlier = before.logs.iter().find(|earlier| earlier.log == log.log);
            let view = log.view;
            assert!(later.is_some_and(|later| later.view >= view));
            assert!(earlier.is_none_or(|earlier| earlier.view <= view));
        }
        if let Operation::DeleteLog { .. } = operation {
            assert_eq!((shapes.len(), after.logs.len()), (0, 1));
        } else {
            assert!(!shapes.is_empty());
        }
        let drained = |picture: &ClusterPicture| -> Vec<bool> {
            picture.nodes.iter().map(|node| node.drained).collect()
        };
        assert_eq!(drained(&planned), drained(&after));
    }
}

#[test]
fn a_node_that_cannot_take_over_is_refused() {
    let mut world = World::new();
    let mut refused = |node, with| {
        let (node, with) = (NodeId::new(node), NodeId::new(with));
        let answer = world.operate(true, Operation::ReplaceNode { node, with });
        assert!(answer.refused, "{}", answer.text);
        answer.text
    };
    assert!(refused(4, 4).contains("is not another node"));
    assert!(refused(4, 99).contains("is not another node"));
    assert!(refused(4, 5).contains("it has a place in the same group already"));
    let (node, with) = (NodeId::new(9), NodeId::new(4));
    assert!(!world.operate(false, Operation::DrainNode { node }).refused);
    let back = Operation::ReplaceNode {
        node: with,
        with: node,
    };
    let answer = world.operate(false, back);
    assert!(answer.refused && answer.text.contains("takes no new places"));
}

#[test]
fn the_cluster_is_described() {
    let mut world = World::new();
    let whole = described(&mut world);
    assert_eq!(whole.cluster, CLUSTER);
    assert_eq!(whole.version, world.directory.version());
    let places: Vec<(u32, u32)> = whole.nodes.iter().map(|it| (it.places, it.up)).collect();
    let expected: Vec<(u32, u32)> = [2, 1, 1, 1, 1, 0, 0, 0, 0].map(|n| (n, n)).to_vec();
    assert_eq!(places, expected);
    let log = &whole.logs[0];
    assert_eq!((log.quorum, log.pending, log.view.get()), (None, None, 1));
    assert_eq!(
        (log.root.write_quorum, log.root.leader.is_some()),
        (2, true)
    );
    let shard = &log.shards[0];
    assert_eq!((shard.stage, shard.whole), (ShardStage::Open, true));
    assert!(shard.replicas.iter().all(|replica| replica.holds));

    world.operate(
        false,
        Operation::FinalizeShard {
            log: LOG,
            shard: ShardId::ZERO,
            successor: true,
        },
    );
    let during = described(&mut world);
    let stages: Vec<ShardStage> = during.logs[0].shards.iter().map(|it| it.stage).collect();
    assert_eq!(stages, [ShardStage::Open, ShardStage::Opening]);
    let under_way = &during.under_way[0];
    assert_eq!((under_way.progress, under_way.done), (Progress::Running, 0));
    assert_eq!(under_way.steps.len(), 2);
    world.heal();
    let after = described(&mut world);
    assert!(after.under_way.is_empty());
    let list = world.operate(false, Operation::List);
    let Details::Transactions(transactions) = list.details else {
        panic!("{list:?}");
    };
    let ends: Vec<(u64, Progress, u32)> = transactions
        .iter()
        .map(|it| (it.id, it.progress, it.done))
        .collect();
    assert_eq!(ends, [(1, Progress::Done, 2)]);

    let log = String::from("nothing");
    let refused = world.operate(false, Operation::Describe { log });
    assert_eq!(
        refused.text,
        "the cluster has no log \"nothing\"; it has default"
    );
    let log = String::from("default");
    let history = world.operate(false, Operation::History { log });
    let Details::History(events) = history.details else {
        panic!("{history:?}");
    };
    let expected: Vec<_> = world.directory.history(LOG).cloned().collect();
    assert!(!events.is_empty());
    assert_eq!(events, expected);
}
