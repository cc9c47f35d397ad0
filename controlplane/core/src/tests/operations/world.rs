//! A cluster whose processes always answer, and controllers that stop at any step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use ionian_types::Nanos;
use ionian_wire::entry::{Change, Changes};
use ionian_wire::frame::{IntentDone, RootGrant, RootLed, Seal, SealAck};
use ionian_wire::tree::TreeVertex;

use super::super::*;
use crate::state::PlaceKey;
use crate::{Operated, Operation, Progress, RootQuorum};

pub(super) const NODES: u32 = 9;

/// A process that always answers.
pub(in crate::tests) struct Process {
    pub(in crate::tests) conn: ConnId,
    pub(in crate::tests) node: NodeId,
    inc: Inc,
    asked: bool,
}

pub(in crate::tests) struct World {
    pub(in crate::tests) directory: Directory,
    config: DirectoryConfig,
    agreed: State,
    pub(in crate::tests) now: Time,
    next: u32,
    pub(in crate::tests) processes: BTreeMap<PlaceKey, Process>,
    inbox: VecDeque<(ConnId, Vec<u8>)>,
    /// The cut log of each log: its last view, and which shards are open.
    cut_logs: BTreeMap<LogId, (u64, BTreeMap<ShardId, bool>)>,
    /// What they have of trees.
    trees: BTreeMap<LogId, Vec<TreeVertex>>,
    pub(super) contents: BTreeMap<(LogId, u64), Vec<u8>>,
    floors: BTreeMap<LogId, ionian_types::Gsn>,
}

pub(in crate::tests) fn cluster() -> ClusterSpec {
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
    pub(in crate::tests) fn new() -> Self {
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

    pub(in crate::tests) fn operate(&mut self, plan: bool, operation: Operation) -> Operated {
        operate(&mut self.directory, self.now, plan, operation)
    }

    /// Starts what the cluster says should run, and stops the rest.
    pub(in crate::tests) fn deploy(&mut self) {
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

    pub(in crate::tests) fn send<B: Body>(&mut self, key: PlaceKey, body: &B) {
        let frame = bytes(body);
        let conn = self.processes[&key].conn;
        self.directory.handle(self.now, conn, &message(&frame));
    }

    pub(in crate::tests) fn carry(&mut self) {
        self.inbox.extend(drain(&mut self.directory, self.now));
    }

    /// Hands over a message; whether there was one.
    pub(in crate::tests) fn deliver(&mut self) -> bool {
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
    pub(in crate::tests) fn report_copies(&mut self) {
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

    pub(in crate::tests) fn persist(&mut self) {
        for command in self.directory.take_commands() {
            let answer = self.agreed.apply_bytes(&command.bytes);
            assert_eq!(answer, command.version.to_le_bytes(), "applied");
        }
        self.agreed = State::restore(&self.agreed.snapshot()).unwrap();
        self.directory.persisted(self.agreed.version());
        assert_eq!(self.agreed.snapshot(), self.directory.snapshot());
    }

    /// The controller stops after the group has agreed on some of its commands.
    pub(in crate::tests) fn crash(&mut self, agreed: usize) {
        self.lead_anew(agreed);
        for key in self.processes.keys().copied().collect::<Vec<_>>() {
            self.connect(key);
        }
    }

    /// The same, and nobody has come back yet.
    pub(in crate::tests) fn lead_anew(&mut self, agreed: usize) {
        for command in self.directory.take_commands().into_iter().take(agreed) {
            self.agreed.apply_bytes(&command.bytes);
        }
        self.directory = Directory::lead(self.agreed.clone(), self.config, self.now);
        self.inbox.clear();
    }

    pub(in crate::tests) fn wait(&mut self) {
        self.now = self.now.after(Nanos::from_ms(60));
        if self.directory.next_deadline() <= self.now {
            self.directory.on_deadline(self.now);
        }
    }

    pub(in crate::tests) fn heal(&mut self) {
        for _ in 0..120 {
            self.go_on();
            self.report_copies();
        }
        self.persist();
    }

    /// Everything goes its way, but for those that copy: they say nothing.
    pub(in crate::tests) fn heal_but_copies(&mut self) {
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

    pub(in crate::tests) fn check(&self) {
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
pub(in crate::tests) fn whole(
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
