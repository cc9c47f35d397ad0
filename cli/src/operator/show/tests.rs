//! Golden texts: what operators see of a cluster, letter by letter.

use super::*;
use ionian_control_core::{RootPhase, RootPicture, VertexPicture, VertexShape};
use ionian_types::{ClusterId, Gsn, LogId, OrderingMode, RootEpoch, ShardId, Slot, VertexId};

fn place(node: u32, life: u64) -> PlacePicture {
    PlacePicture {
        node: NodeId::new(node),
        inc: Inc::new(life),
        up: life > 0,
    }
}

fn replica(node: u32, life: u64, generation: u64) -> ReplicaPicture {
    ReplicaPicture {
        place: place(node, life),
        listed: Inc::new(life),
        generation: ViewId::new(generation),
        holds: life > 0,
        next: None,
    }
}

/// A log with a shard that has ended, one that takes appends while a replica moves, and one that opens.
pub(in crate::operator) fn cluster() -> ClusterPicture {
    let node = |id: u32, domain| NodePicture {
        node: NodeId::new(id),
        domain,
        address: format!("10.0.0.{id}:7400"),
        drained: id == 4,
        places: 2,
        up: 2,
    };
    let mut moving = replica(2, 12, 5);
    moving.next = Some(NodeId::new(4));
    let shard = |shard, epoch, stage, whole, replicas| ShardPicture {
        shard: ShardId::new(shard),
        epoch: ViewId::new(epoch),
        stage,
        whole,
        replicas,
    };
    let log = LogPicture {
        log: LogId::new(1),
        name: String::from("orders"),
        mode: OrderingMode::Scalog,
        class: Durability::D2,
        quorum: Some(2),
        view: ViewId::new(7),
        pending: Some(ViewId::new(8)),
        floor: Gsn::ZERO,
        ceiling: Gsn::new(1 << 32),
        root: RootPicture {
            epoch: RootEpoch::new(3),
            phase: RootPhase::Recorded,
            quorum: RootQuorum::Majority,
            write_quorum: 2,
            leader: Some(Slot::new(1)),
            preferred: None,
            members: vec![place(1, 1), place(2, 2), place(3, 0)],
        },
        tree: vec![VertexPicture {
            vertex: VertexId::ZERO,
            shape: VertexShape {
                children: 0,
                begins: (0, ShardId::ZERO),
            },
            place: place(1, 4),
            next: Some(NodeId::new(3)),
            shards: 3,
        }],
        tree_next: Vec::new(),
        shards: vec![
            shard(0, 6, ShardStage::Finalized, true, vec![replica(1, 9, 0)]),
            shard(
                1,
                7,
                ShardStage::Open,
                false,
                vec![replica(1, 11, 5), moving, replica(3, 13, 0)],
            ),
            shard(2, 0, ShardStage::Opening, false, vec![replica(3, 0, 0)]),
        ],
    };
    ClusterPicture {
        cluster: ClusterId::new(7),
        version: 99,
        nodes: vec![node(1, 0), node(2, 1), node(3, 1), node(4, 0)],
        logs: vec![log],
        under_way: vec![TransactionPicture {
            id: 5,
            at_us: 1_700_000_000_123_456,
            progress: Progress::Running,
            done: 1,
            why: String::new(),
            steps: vec![
                String::from("log 1: open shard 2 on nodes 3"),
                String::from("log 1: finalize shards 1"),
            ],
        }],
    }
}

pub(in crate::operator) fn names() -> Names {
    Names::of(&[(1, "n1"), (2, "n2"), (3, "n3")])
}

#[test]
fn a_log_is_described() {
    let cluster = cluster();
    let text = log(&cluster.logs[0], &cluster, &names());
    let expected = "\
log orders (scalog, id 1)
an ack means D2: flushed on 2 replicas of a shard, in two failure domains
view 7, view 8 on its way
every shard that takes appends lies in 1 failure domain or more

replica  node  domain  incarnation  process  shard      copy      segment
    0.0  n1         0  9            there    finalized  whole     closed
    1.0  n1         0  11           there    open       present   generation 5
    1.1  n2         1  12           there    open       present   goes to node 4
    1.2  n3         1  13           there    open       present   learns
    2.0  n3         1  -            missing  opening    none yet  closed

root epoch 3 (leads); a majority holds an entry before it is committed
role                     node  domain  incarnation  process
root 0                   n1         0  1            there
root 1, leads            n2         1  2            there
root 2                   n3         1  -            missing
leaf 0, goes to node n3  n1         0  4            there

transaction 5: 1 of 2 steps done: log 1: finalize shards 1
";
    assert_eq!(text, expected, "{text}");
}

#[test]
fn logs_are_listed() {
    let text = logs(&cluster(), &names());
    let expected = "\
log     id  durability  quorum           open  view  root leader
orders   1  D2               2  1 of 3 shards     7  n2
";
    assert_eq!(text, expected, "{text}");
    assert_eq!(logs(&ClusterPicture::default(), &names()), "no logs\n");
}

#[test]
fn a_plan_shows_its_steps_and_the_view_that_results() {
    let mut then = cluster();
    then.logs[0].shards.remove(1);
    let text = plan(&then.under_way[0].steps, &then, &names());
    let expected = "\
would be done, in this order:
  log 1: open shard 2 on nodes 3
  log 1: finalize shards 1

log orders would then be, in view 7 or later:
replica  node  domain  incarnation  process  shard      copy      segment
    0.0  n1         0  9            there    finalized  whole     closed
    2.0  n3         1  -            missing  opening    none yet  closed
root group: node n1, node n2 (leads), node n3
leaf: node n1

nodes that take no new places: 4
";
    assert_eq!(text, expected, "{text}");
}

#[test]
fn transactions_are_shown() {
    let known = cluster().under_way;
    let text = transactions(&known);
    let expected = "\
transaction  state   steps                     began  what
          5  runs   1 of 2  2023-11-14T22:13:20.123Z  log 1: finalize shards 1
";
    assert_eq!(text, expected, "{text}");
    assert_eq!(transactions(&[]), "no transactions\n");
    let mut done = known[0].clone();
    done.done = 2;
    done.progress = Progress::Done;
    let (text, json) = ended(&done);
    let expected = "\
transaction 5: done
  done  log 1: open shard 2 on nodes 3
  done  log 1: finalize shards 1
";
    assert_eq!(text, expected, "{text}");
    assert_eq!(json["state"], "done");
    done.progress = Progress::Failed;
    done.done = 1;
    done.why = String::from("another change");
    let (text, json) = ended(&done);
    assert!(
        text.starts_with("transaction 5: failed after 1 of 2 steps: another change\n"),
        "{text}"
    );
    assert_eq!(
        (&json["state"], &json["why"]),
        (&"failed".into(), &"another change".into())
    );
    let text = transactions(&[done]);
    assert!(
        text.ends_with("finalize shards 1: another change\n"),
        "{text}"
    );
}

#[test]
fn programs_get_numbers_and_names() {
    let json = cluster_json(&cluster(), &names());
    let log = &json["logs"][0];
    assert_eq!(log["durability"], "D2");
    assert_eq!(log["root"]["leader"], 1);
    assert_eq!(log["root"]["members"][1]["name"], "n2");
    assert_eq!(log["shards"][1]["replicas"][1]["next"], 4);
    assert_eq!(log["shards"][1]["replicas"][0]["next"], Value::Null);
    assert_eq!(log["shards"][0]["stage"], "finalized");
    assert_eq!(json["nodes"][3]["drained"], true);
    assert_eq!(json["nodes"][3]["name"], Value::Null);
    assert_eq!(log["tree"][0]["next"], 3);
    assert_eq!(json["under_way"][0]["state"], "running");
}

#[test]
fn moments_are_written_in_utc() {
    assert_eq!(utc(0), "-");
    assert_eq!(utc(1), "1970-01-01T00:00:00.000Z");
    assert_eq!(utc(951_782_399_999_999), "2000-02-28T23:59:59.999Z");
    assert_eq!(utc(951_782_400_000_000), "2000-02-29T00:00:00.000Z");
    assert_eq!(utc(1_709_251_200_000_000), "2024-03-01T00:00:00.000Z");
    assert_eq!(utc(4_107_542_399_000_000), "2100-02-28T23:59:59.000Z");
    assert_eq!(utc(4_107_542_400_000_000), "2100-03-01T00:00:00.000Z");
}
