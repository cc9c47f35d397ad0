//! A group, its controllers, and what must be true of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ionian_types::{Gsn, Nanos, RootEpoch};
use ionian_wire::frame::RootGrant;

use super::super::*;
use crate::{DetectionConfig, RootQuorum};

/// Places: the root members first, then the leaf and two replicas of one shard.
pub(super) const LEAF_AT: usize = 10;

pub(super) fn cluster(class: Durability, members: usize, quorum: RootQuorum) -> ClusterSpec {
    let mut spec = spec(class);
    for slot in 0..members {
        spec.nodes.insert(root_node(slot), NodeSpec::default());
        spec.nodes.insert(other_node(slot), NodeSpec::default());
    }
    let log = &mut spec.logs[0];
    log.root = (0..members).map(root_node).collect();
    log.root_quorum = quorum;
    log.shards.truncate(1);
    spec
}

pub(super) const fn root_node(slot: usize) -> NodeId {
    NodeId::new(100 + slot as u32)
}

/// Where the member in `slot` goes when it is moved.
pub(super) const fn other_node(slot: usize) -> NodeId {
    NodeId::new(200 + slot as u32)
}

/// An entry of a cut log: the epoch of its leader, and the view that it holds, if it is one.
pub(super) type Entry = (RootEpoch, u64, Option<Vec<u8>>);

#[derive(Clone, Default)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) conn: Option<ConnId>,
    pub(super) inc: Inc,
    /// The incarnation on the device.
    pub(super) on_device: Inc,
    pub(super) asked: Option<(u64, bool)>,
    /// Whether this life has said hello, and so counts.
    pub(super) begun: bool,
    pub(super) promised: RootEpoch,
    pub(super) log: Vec<Entry>,
    pub(super) committed: usize,
    /// The grant that it leads by.
    pub(super) leads: Option<(RootGrant, Vec<(NodeId, Inc)>)>,
    pub(super) held: BTreeMap<usize, usize>,
    pub(super) led: bool,
    pub(super) inbox: VecDeque<Vec<u8>>,
}

impl Member {
    pub(super) fn on(node: NodeId) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }
}

pub(super) struct World {
    pub(super) class: Durability,
    pub(super) directory: Directory,
    pub(super) config: DirectoryConfig,
    pub(super) agreed: State,
    pub(super) now: Time,
    pub(super) members: Vec<Member>,
    pub(super) others: Vec<Inc>,
    pub(super) next_conn: u32,
    pub(super) request: u64,
    pub(super) committed: Vec<Entry>,
    pub(super) floor: Gsn,
    pub(super) epochs: BTreeMap<RootEpoch, (Inc, Vec<(NodeId, Inc)>)>,
    pub(super) contents: BTreeMap<u64, Vec<u8>>,
    pub(super) incs: BTreeSet<Inc>,
}

impl World {
    pub(super) fn new(class: Durability, members: usize, quorum: RootQuorum) -> Self {
        Self::with(class, members, quorum, None)
    }

    pub(super) fn with(
        class: Durability,
        members: usize,
        quorum: RootQuorum,
        detection: Option<DetectionConfig>,
    ) -> Self {
        let config = DirectoryConfig {
            replicated: true,
            late_after: Nanos::from_ms(1000),
            detection,
            ..DirectoryConfig::default()
        };
        let spec = cluster(class, members, quorum);
        let directory = Directory::new(CLUSTER, &spec, config, Time::ZERO).unwrap();
        let mut world = Self {
            class,
            directory,
            config,
            agreed: State::new(),
            now: Time::ZERO,
            members: (0..members)
                .map(|slot| Member::on(root_node(slot)))
                .collect(),
            others: vec![Inc::ZERO; 3],
            next_conn: 100,
            request: 0,
            committed: Vec::new(),
            floor: Gsn::ZERO,
            epochs: BTreeMap::new(),
            contents: BTreeMap::new(),
            incs: BTreeSet::new(),
        };
        world.persist();
        world.greet_others();
        world
    }

    /// Leaf and replicas are always there.
    pub(super) fn greet_others(&mut self) {
        for at in 0..self.others.len() {
            let conn = ConnId::new((LEAF_AT + at) as u32);
            self.directory.connected(conn);
            let inc = self.others[at];
            let frame = if inc == Inc::ZERO {
                self.request += 1;
                bytes(&register(LEAF + at, self.request, Inc::ZERO, false))
            } else {
                bytes(&hello(LEAF + at, inc))
            };
            self.directory.handle(self.now, conn, &message(&frame));
        }
        self.persist();
        self.carry();
    }

    pub(super) fn send<B: Body>(&mut self, slot: usize, body: &B) {
        if let Some(conn) = self.members[slot].conn {
            let frame = bytes(body);
            self.directory.handle(self.now, conn, &message(&frame));
        }
    }

    pub(super) fn carry(&mut self) {
        for (conn, frame) in drain(&mut self.directory, self.now) {
            if let Message::Intent(intent, changes) = message(&frame) {
                let known = self.contents.entry(intent.view.get());
                let known = known.or_insert_with(|| changes.to_vec());
                assert_eq!(known, changes, "view {} has two contents", intent.view);
            }
            if let (Some(at), Message::Registered(answer, _)) = (
                conn.index().checked_sub(LEAF_AT).filter(|at| *at < 3),
                message(&frame),
            ) {
                self.others[at] = answer.inc;
                let begun = bytes(&hello(LEAF + at, answer.inc));
                self.directory.handle(self.now, conn, &message(&begun));
            }
            let to = self
                .members
                .iter_mut()
                .find(|member| member.conn == Some(conn));
            if let Some(member) = to {
                member.inbox.push_back(frame);
            }
        }
    }

    pub(super) fn connect(&mut self, slot: usize) {
        if let Some(conn) = self.members[slot].conn.take() {
            self.directory.disconnected(self.now, conn);
        }
        self.next_conn += 1;
        let conn = ConnId::new(self.next_conn);
        self.members[slot].conn = Some(conn);
        self.members[slot].inbox.clear();
        self.directory.connected(conn);
    }

    pub(super) fn persist(&mut self) {
        self.agree(usize::MAX);
        let version = self.agreed.version();
        self.directory.persisted(version);
        assert_eq!(self.agreed.snapshot(), self.directory.snapshot());
    }

    pub(super) fn agree(&mut self, most: usize) {
        for command in self.directory.take_commands().into_iter().take(most) {
            let answer = self.agreed.apply_bytes(&command.bytes);
            assert_eq!(answer, command.version.to_le_bytes(), "applied");
            self.agreed = State::restore(&self.agreed.snapshot()).unwrap();
        }
    }

    pub(super) fn crash(&mut self, agreed: usize) {
        self.agree(agreed);
        self.directory = Directory::lead(self.agreed.clone(), self.config, self.now);
        for slot in 0..self.members.len() {
            self.members[slot].conn = None;
            let inbox = core::mem::take(&mut self.members[slot].inbox);
            self.reconnect(slot);
            self.members[slot].inbox = inbox;
        }
        self.greet_others();
    }

    pub(super) fn wait(&mut self) {
        self.now = self.now.after(Nanos::from_ms(60));
        if self.directory.next_deadline() <= self.now {
            self.directory.on_deadline(self.now);
        }
        // What is due by now leaves.
        self.carry();
        assert!(self.directory.next_deadline() > self.now, "it would spin");
    }

    pub(super) fn heal(&mut self) {
        if self.config.detection.is_some() {
            // Whoever does not take part for a while does again.
            self.now = self.now.after(Nanos::from_ms(400_000));
            self.directory.on_deadline(self.now);
        }
        for slot in 0..self.members.len() {
            if self.members[slot].inc == Inc::ZERO && self.members[slot].asked.is_none() {
                self.restart(slot, true);
            } else {
                // What was lost is asked for again.
                self.reconnect(slot);
            }
        }
        for _ in 0..80 {
            self.persist();
            self.carry();
            for slot in 0..self.members.len() {
                self.ask_again(slot);
                while !self.members[slot].inbox.is_empty() {
                    self.deliver(slot);
                }
                self.begin(slot);
                for to in 0..self.members.len() {
                    self.write(slot, to);
                }
                self.report(slot);
            }
            self.wait();
        }
    }

    pub(super) fn check_healed(&self) {
        let log = self.directory.logs().next().unwrap();
        assert_eq!(
            (log.missing.len(), log.pending),
            (0, None),
            "{:?}",
            log.missing
        );
        let map = self.directory.map();
        let leader = map.logs[0].leader.unwrap();
        let (grant, listed) = self.members[leader.index()].leads.clone().unwrap();
        assert!(grant.recorded);
        for (slot, member) in self.members.iter().enumerate() {
            assert_eq!(listed[slot], (member.node, member.inc), "member {slot}");
            assert!(member.leads.is_none() || slot == leader.index());
        }
        assert!(map.logs[0].shards[0].open);
        assert_eq!(self.committed.last().unwrap().1, log.view.get());
    }

    /// Everything works, but nobody writes to one member.
    pub(super) fn heal_unwritten(&mut self, behind: usize) {
        for _ in 0..40 {
            self.persist();
            self.carry();
            for slot in 0..self.members.len() {
                while !self.members[slot].inbox.is_empty() {
                    self.deliver(slot);
                }
                for to in (0..self.members.len()).filter(|to| *to != behind) {
                    self.write(slot, to);
                }
                self.report(slot);
            }
            self.wait();
        }
    }

    /// Everything works, for a second.
    pub(super) fn heal_all(&mut self) {
        self.heal_without(usize::MAX);
    }

    /// Everything works but one member.
    pub(super) fn heal_without(&mut self, away: usize) {
        for _ in 0..20 {
            self.persist();
            self.carry();
            for slot in (0..self.members.len()).filter(|slot| *slot != away) {
                while !self.members[slot].inbox.is_empty() {
                    self.deliver(slot);
                }
                for to in (0..self.members.len()).filter(|to| *to != away) {
                    self.write(slot, to);
                }
                self.report(slot);
            }
            self.wait();
        }
    }
}
