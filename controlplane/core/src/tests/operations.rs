//! Changes that operators ask for, with controllers that stop at any step: every transaction ends or is given up, views stay
//! dense, and what the log says and what the map says are the same in the end.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use ionian_types::Nanos;
use ionian_wire::entry::{Change, Changes};
use ionian_wire::frame::{IntentDone, RootGrant, RootLed, Seal, SealAck};
use ionian_wire::tree::TreeVertex;
use proptest::prelude::*;

use super::*;
use crate::state::PlaceKey;
use crate::{Asker, Operated, Operation, Progress, RootQuorum};

const NODES: u32 = 9;

/// A process that always answers.
pub(super) struct Process {
    pub(super) conn: ConnId,
    pub(super) node: NodeId,
    inc: Inc,
    asked: bool,
}

pub(super) struct World {
    pub(super) directory: Directory,
    config: DirectoryConfig,
    agreed: State,
    pub(super) now: Time,
    next: u32,
    pub(super) processes: BTreeMap<PlaceKey, Process>,
    inbox: VecDeque<(ConnId, Vec<u8>)>,
    /// The cut log of each log: its last view, and which shards are open.
    cut_logs: BTreeMap<LogId, (u64, BTreeMap<ShardId, bool>)>,
    /// What they have of trees.
    trees: BTreeMap<LogId, Vec<TreeVertex>>,
    contents: BTreeMap<(LogId, u64), Vec<u8>>,
    floors: BTreeMap<LogId, ionian_types::Gsn>,
}

pub(super) fn cluster() -> ClusterSpec {
    let node = |id: u32| {
        let spec = NodeSpec {
            domain: id % 3,
            address: format!("n{id}:1"),
        };
        (NodeId::new(id), spec)
    };
    let log = LogSpec {
        name: String::from("default"),
        mode: OrderingMode::Scalog,
        class: Durability::D0,
        root: vec![NodeId::new(1), NodeId::new(2), NodeId::new(3)],
        root_quorum: RootQuorum::Majority,
        tree: TreeSpec::leaf(NodeId::new(1)),
        quorum: None,
        shards: vec![vec![NodeId::new(4), NodeId::new(5)]],
    };
    ClusterSpec {
        nodes: (1..=NODES).map(node).collect(),
        logs: vec![log],
    }
}

impl World {
    pub(super) fn new() -> Self {
        let config = DirectoryConfig {
            replicated: true,
            ..DirectoryConfig::default()
        };
        let mut world = Self {
            directory: Directory::new(CLUSTER, &cluster(), config, Time::ZERO).unwrap(),
            config,
            agreed: State::new(),
            now: Time::ZERO,
            next: 0,
            processes: BTreeMap::new(),
            inbox: VecDeque::new(),
            cut_logs: BTreeMap::new(),
            trees: BTreeMap::new(),
            contents: BTreeMap::new(),
            floors: BTreeMap::new(),
        };
        world.heal();
        world
    }

    pub(super) fn operate(&mut self, plan: bool, operation: Operation) -> Operated {
        operate(&mut self.directory, self.now, plan, operation)
    }

    /// Starts what the cluster says should run, and stops the rest.
    pub(super) fn deploy(&mut self) {
        let state = self.agreed.clone();
        let mut wanted: BTreeMap<PlaceKey, NodeId> = state
            .places()
            .map(|(key, place)| (key, place.node))
            .collect();
        for (&id, log) in &state.logs {
            for (vertex, filled) in log.tree.vertices() {
                if let Some(node) = filled.next {
                    wanted.insert(PlaceKey::Vertex(id, vertex), node);
                }
            }
            for (&shard, state) in &log.shards {
                for (slot, member) in state.members.iter().enumerate() {
                    if let Some(node) = member.next.filter(|_| member.copy.is_none()) {
                        let slot = Slot::new(slot as u8);
                        wanted.insert(PlaceKey::Replica(id, shard, slot), node);
                    }
                }
            }
        }
        for key in self.processes.keys().copied().collect::<Vec<_>>() {
            let PlaceKey::Copy(log, shard, slot) = key else {
                continue;
            };
            let replica = PlaceKey::Replica(log, shard, slot);
            let node = self.processes[&key].node;
            if wanted.contains_key(&key) || wanted.get(&replica) != Some(&node) {
                continue;
            }
            // It has copied, and goes on as the replica.
            let process = self.processes.remove(&key).unwrap();
            if let Some(old) = self.processes.insert(replica, process) {
                self.directory.disconnected(self.now, old.conn);
            }
        }
        let gone = self
            .processes
            .iter()
            .filter(|(key, process)| wanted.get(key) != Some(&process.node));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            let process = self.processes.remove(&key).unwrap();
            self.directory.disconnected(self.now, process.conn);
        }
        for (key, node) in wanted {
            if let Entry::Vacant(free) = self.processes.entry(key) {
                let process = Process {
                    conn: ConnId::new(0),
                    node,
                    inc: Inc::ZERO,
                    asked: false,
                };
                free.insert(process);
                self.connect(key);
            }
        }
    }

    fn connect(&mut self, key: PlaceKey) {
        self.next += 1;
        let conn = ConnId::new(self.next);
        self.directory.connected(conn);
        let process = self.processes.get_mut(&key).unwrap();
        process.conn = conn;
        process.asked = process.inc == Inc::ZERO;
        let mut at = VertexId::ZERO;
        let (role, shard, slot) = match key {
            PlaceKey::Root(_, slot) => (Role::Root, ShardId::ZERO, slot),
            PlaceKey::Vertex(log, vertex) => {
                at = vertex;
                let tree = self.agreed.logs.get(&log).map(|log| &log.tree);
                let leaf = tree.and_then(|tree| tree.is_leaf(vertex));
                let role = if leaf == Some(false) {
                    Role::Aggregator
                } else {
                    Role::Leaf
                };
                (role, ShardId::ZERO, Slot::ZERO)
            }
            PlaceKey::Replica(_, shard, slot) | PlaceKey::Copy(_, shard, slot) => {
                (Role::Replica, shard, slot)
            }
        };
        let (node, log) = (process.node, key.log());
        let frame = if process.asked {
            bytes(&Register {
                node,
                role,
                log,
                shard,
                slot,
                vertex: at,
                ..register(LEAF, u64::from(self.next), Inc::ZERO, false)
            })
        } else {
            bytes(&Hello {
                node,
                role,
                log,
                shard,
                slot,
                ..hello(LEAF, process.inc)
            })
        };
        self.directory.handle(self.now, conn, &message(&frame));
    }

    pub(super) fn send<B: Body>(&mut self, key: PlaceKey, body: &B) {
        let frame = bytes(body);
        let conn = self.processes[&key].conn;
        self.directory.handle(self.now, conn, &message(&frame));
    }

    pub(super) fn carry(&mut self) {
        self.inbox.extend(drain(&mut self.directory, self.now));
    }

    /// Hands over a message; whether there was one.
    pub(super) fn deliver(&mut self) -> bool {
        let Some((conn, frame)) = self.inbox.pop_front() else {
            return false;
        };
        let mut processes = self.processes.iter();
        let Some(key) = processes.find(|(_, p)| p.conn == conn).map(|(key, _)| *key) else {
            return true;
        };
        match message(&frame) {
            Message::Registered(answer, why) if answer.inc == Inc::ZERO => {
                // What was to be there when it was started may be called off by now.
                let why = String::from_utf8_lossy(why);
                let called_off = why.contains("belongs to node") || why.contains("has no ");
                assert!(answer.request == 0 || called_off, "refused: {why}");
                // It stops; where it is still wanted, another one is started.
                self.processes.remove(&key);
                self.directory.disconnected(self.now, conn);
            }
            Message::Registered(answer, _) => {
                let process = self.processes.get_mut(&key).unwrap();
                process.inc = answer.inc;
                process.asked = false;
            }
            Message::Seal(seal, _) => self.seal(key, seal),
            Message::RootGrant(grant, _) => self.granted(key, grant),
            Message::Intent(intent, changes) => {
                self.take_intent(key, intent.log, intent.view.get(), changes);
            }
            _ => {}
        }
        true
    }

    fn seal(&mut self, key: PlaceKey, seal: Seal) {
        let ack = SealAck {
            log: seal.log,
            inc: seal.inc,
            promised: seal.epoch,
            last_epoch: ionian_types::RootEpoch::ZERO,
            last: EntryNo::ZERO,
            committed: EntryNo::ZERO,
        };
        self.send(key, &ack);
    }

    fn granted(&mut self, key: PlaceKey, grant: RootGrant) {
        if self.floors.insert(grant.log, grant.floor) < Some(grant.floor) {
            // The cut log was given up: what was open is opened anew, what was finalized stays so.
            let (last, shards) = self.cut_logs.entry(grant.log).or_default();
            *last = grant.view.get().max(*last);
            shards.retain(|_, open| !*open);
            self.trees.remove(&grant.log);
        }
        if !grant.recorded {
            let led = RootLed {
                log: grant.log,
                inc: grant.inc,
                epoch: grant.epoch,
                entry: EntryNo::new(1),
            };
            self.send(key, &led);
        }
    }

    fn take_intent(&mut self, key: PlaceKey, log: LogId, view: u64, changes: &[u8]) {
        let known = self
            .contents
            .entry((log, view))
            .or_insert_with(|| changes.to_vec());
        assert_eq!(known, changes, "view {view} has two contents");
        let (last, shards) = self.cut_logs.entry(log).or_default();
        if view > *last {
            assert_eq!(view, *last + 1, "views are dense");
            *last = view;
            let mut lost = None;
            for change in Changes::new(changes) {
                match change {
                    Change::Open { shard, .. } => {
                        let before = shards.insert(shard, true);
                        let reset = lost.take() == Some(shard);
                        assert!(before.is_none() || reset, "{shard} is opened twice");
                    }
                    Change::Finalize {
                        shard, lost_from, ..
                    } => {
                        lost = lost_from.map(|_| shard);
                        assert_eq!(shards.insert(shard, false), Some(true), "not open");
                    }
                    Change::Tree { vertices } => {
                        let tree: Vec<TreeVertex> = vertices.iter().collect();
                        let mut lives: Vec<Inc> = tree.iter().map(|it| it.inc).collect();
                        lives.sort_unstable();
                        lives.dedup();
                        assert_eq!(lives.len(), tree.len(), "a life twice");
                        self.trees.insert(log, tree);
                    }
                    _ => {}
                }
            }
        }
        let (log, view) = (log, ViewId::new(self.cut_logs[&log].0));
        let entry = EntryNo::new(1);
        self.send(key, &IntentDone { log, view, entry });
    }

    /// Replicas of shards that have ended say that they hold everything.
    pub(super) fn report_copies(&mut self) {
        let map = self.directory.map();
        let keys = self.processes.keys().copied().collect::<Vec<_>>();
        for key in keys {
            let (PlaceKey::Replica(log, shard, slot) | PlaceKey::Copy(log, shard, slot)) = key
            else {
                continue;
            };
            let shards = map.logs.iter().find(|info| info.log == log);
            let mut shards = shards.into_iter().flat_map(|info| &info.shards);
            let info = shards.find(|info| info.shard == shard && info.finalized);
            if let Some(info) = info.filter(|_| self.processes[&key].inc != Inc::ZERO) {
                let report = whole(log, info.shard, info.epoch, 1 << slot.get());
                self.send(key, &report);
            }
        }
    }

    /// Leaves say that all is well.
    fn report(&mut self) {
        for info in self.directory.map().logs {
            for shard in info.shards.iter().filter(|shard| shard.open) {
                let leaf = info.leaves_of(shard).next().unwrap().vertex;
                let leaf = PlaceKey::Vertex(info.log, leaf);
                if self.processes.contains_key(&leaf) {
                    self.send(leaf, &whole(info.log, shard.shard, shard.epoch, 127));
                }
            }
        }
    }

    pub(super) fn persist(&mut self) {
        for command in self.directory.take_commands() {
            let answer = self.agreed.apply_bytes(&command.bytes);
            assert_eq!(answer, command.version.to_le_bytes(), "applied");
        }
        self.agreed = State::restore(&self.agreed.snapshot()).unwrap();
        self.directory.persisted(self.agreed.version());
        assert_eq!(self.agreed.snapshot(), self.directory.snapshot());
    }

    /// The controller stops after the group has agreed on some of its commands.
    pub(super) fn crash(&mut self, agreed: usize) {
        self.lead_anew(agreed);
        for key in self.processes.keys().copied().collect::<Vec<_>>() {
            self.connect(key);
        }
    }

    /// The same, and nobody has come back yet.
    pub(super) fn lead_anew(&mut self, agreed: usize) {
        for command in self.directory.take_commands().into_iter().take(agreed) {
            self.agreed.apply_bytes(&command.bytes);
        }
        self.directory = Directory::lead(self.agreed.clone(), self.config, self.now);
        self.inbox.clear();
    }

    pub(super) fn wait(&mut self) {
        self.now = self.now.after(Nanos::from_ms(60));
        if self.directory.next_deadline() <= self.now {
            self.directory.on_deadline(self.now);
        }
    }

    pub(super) fn heal(&mut self) {
        for _ in 0..120 {
            self.go_on();
            self.report_copies();
        }
        self.persist();
    }

    /// Everything goes its way, but for those that copy: they say nothing.
    pub(super) fn heal_but_copies(&mut self) {
        (0..120).for_each(|_| self.go_on());
        self.persist();
    }

    fn go_on(&mut self) {
        self.persist();
        self.carry();
        while self.deliver() {}
        self.deploy();
        self.report();
        self.wait();
    }

    pub(super) fn check(&self) {
        for transaction in self.directory.transactions() {
            let lines: Vec<String> = transaction.lines().collect();
            assert_ne!(transaction.progress, Progress::Running, "{lines:?}");
        }
        for info in self.directory.map().logs {
            let (_, shards) = &self.cut_logs[&info.log];
            for shard in &info.shards {
                // One that was to be finalized when the cut log was given up is not in the next one.
                let open = shards.get(&shard.shard).copied().unwrap_or(false);
                assert_eq!(open, shard.open, "{}", shard.shard);
            }
            let leader = info.leader.unwrap();
            assert_ne!(info.roots[leader.index()].inc, Inc::ZERO);
            assert_eq!(info.tree_next, [], "{}", info.log);
            if info.shards.iter().any(|shard| shard.open) {
                let tree = info.tree.iter().map(|vertex| TreeVertex {
                    node: vertex.endpoint.node,
                    inc: vertex.endpoint.inc,
                    children: vertex.children,
                    begins: vertex.begins,
                });
                assert!(
                    tree.eq(self.trees[&info.log].iter().copied()),
                    "{}",
                    info.log
                );
            }
        }
    }
}

/// A shard of which everything is held by those that `held` names.
pub(super) fn whole(
    log: LogId,
    shard: ShardId,
    epoch: ViewId,
    held: u8,
) -> ionian_wire::frame::ShardStatus {
    ionian_wire::frame::ShardStatus {
        log,
        shard,
        epoch,
        whole: true,
        ready: true,
        regressed: 0,
        held,
        slowest: 0,
        members: 0,
    }
}

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
fn members_that_have_left_a_root_group_hold_nothing() {
    let mut world = World::new();
    let set_root = |nodes: [u32; 3]| Operation::SetRoot {
        log: LOG,
        nodes: nodes.map(NodeId::new).to_vec(),
    };
    assert!(!world.operate(false, set_root([1, 2, 6])).refused);
    let answer = world.operate(false, set_root([1, 7, 3]));
    assert!(answer.refused, "{}", answer.text);
    assert!(
        answer.text.contains("too few of those members stay"),
        "{}",
        answer.text
    );
    world.heal();
    world.check();
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
