//! How processes start: the machine that is made of a place, and the life that it begins with its number.

use std::collections::BTreeMap;

use ionian_control_core::{ClusterSpec, Directory, DirectoryConfig, LogSpec, NodeSpec, RootQuorum};
use ionian_core::aggregator::{Aggregator, AggregatorConfig};
use ionian_core::client::{Client, ClientConfig};
use ionian_core::edge::{self, Target};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::replica::{Replica, ReplicaConfig};
use ionian_core::root::{Root, RootConfig};
use ionian_store::Store;
use ionian_types::{Inc, Knobs, Nanos, NodeId, OrderingMode, Slot, Time};
use ionian_wire::frame::Message;
use ionian_wire::record::RECORD_ENCODED_BYTES_MAX;

use super::{client_id, role, shard_slot};
use crate::app::App;
use crate::process::{Machine, Peer, Place, ProcId, Process};
use crate::trees::is_vertex;
use crate::world::{CLUSTER, Event, LOG, World};

impl<K: Knobs> World<K> {
    /// A process starts at a place and is the reachable one from now on.
    pub(crate) fn start(&mut self, place: Place) {
        if self
            .live(place)
            .is_some_and(|proc| self.procs[proc].paused_until <= self.now)
            || self.is_removed(place)
        {
            return;
        }
        let proc = self.start_on(place, self.node(place));
        self.by_place.insert(place, proc);
    }

    /// A process starts at a node that has a place, or is to take it.
    pub(crate) fn start_on(&mut self, place: Place, node: NodeId) -> ProcId {
        let proc = self.procs.len();
        let clock = self.new_clock();
        let mut dials = BTreeMap::new();
        let process = match place {
            Place::Controller => Process::new(
                place,
                node,
                Machine::Directory(Box::new(self.directory(clock.read(self.now)))),
                None,
            ),
            Place::Client(number) => {
                let config = ClientConfig {
                    seed: self.seed ^ u64::from(number),
                    append_timeout: Some(self.plan.append_timeout),
                    request_timeout: Some(Nanos::from_ms(3_000)),
                    rebind_after: Nanos::from_ms(60),
                    probe_after: Nanos::from_ms(150),
                    retry_after: Nanos::from_ms(60),
                    connections_max: 64,
                    // As small as may be: memory is most of what a seed costs.
                    send_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    answer_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    subscribe_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    ..ClientConfig::new(CLUSTER, LOG, client_id(number))
                };
                let mut client = Client::with_knobs(config).expect("the limits are in range");
                let app = App::new(number, self.seed, &mut client);
                if app.sticky {
                    self.history.sticky.insert(number);
                }
                dials.insert(Peer::ClientToController, None);
                Process::new(
                    place,
                    node,
                    Machine::Client(Box::new(client), Box::new(app)),
                    None,
                )
            }
            _ => Process::new(place, node, Machine::None, None),
        };
        self.procs.push(Process { clock, ..process });
        for peer in dials.keys().copied() {
            let after = self.rng_proc.below(1_000_000);
            self.after(after, Event::Dial(proc, peer));
        }
        self.procs[proc].dials = dials;
        match place {
            Place::Root(_) | Place::Replica(..) if self.plan.class.is_flushed() => {
                self.start_store(proc);
            }
            Place::Controller | Place::Client(_) => {}
            _ => {
                let last_inc = self.last_inc.get(&place).copied();
                let last_inc = last_inc.filter(|_| node == self.node(place));
                self.join(proc, last_inc.unwrap_or(Inc::ZERO), false);
            }
        }
        if matches!(place, Place::Client(_)) {
            self.after(1_000_000, Event::Act(proc));
        }
        self.flush_soon(proc);
        proc
    }

    fn directory(&self, now: Time) -> Directory<K> {
        let config = DirectoryConfig {
            node: self.node(Place::Controller),
            resend_after: Nanos::from_ms(40),
            down_after: Nanos::from_ms(100),
            ..DirectoryConfig::default()
        };
        if let Some(bytes) = &self.controller_disk {
            return Directory::restore(bytes, config, now).expect("a snapshot that was durable");
        }
        let spares = crate::changes::spares();
        let nodes = Self::places_of(&self.plan).into_iter().map(|place| {
            let (shard, slot) = shard_slot(place);
            let spec = NodeSpec {
                domain: self.plan.domain(shard.get(), slot.get()),
                address: String::new(),
            };
            (Self::planned_node(place), spec)
        });
        let shards = (0..self.plan.shards).map(|shard| {
            (0..self.plan.replicas)
                .map(|slot| Self::planned_node(Place::Replica(shard, slot)))
                .collect()
        });
        let spec = ClusterSpec {
            nodes: nodes.chain(spares).collect(),
            logs: vec![LogSpec {
                name: "default".into(),
                mode: OrderingMode::Scalog,
                class: self.plan.class,
                root: (0..self.plan.roots)
                    .map(|slot| Self::planned_node(Place::Root(slot)))
                    .collect(),
                root_quorum: if self.plan.all_write {
                    RootQuorum::All
                } else {
                    RootQuorum::Majority
                },
                tree: self.plan.tree_spec(),
                quorum: Some(self.plan.quorum),
                shards: shards.collect(),
            }],
        };
        Directory::new(CLUSTER, &spec, config, now).expect("a sound cluster")
    }

    /// The process has its place: its life begins once the incarnation is durable.
    pub(super) fn admitted(&mut self, proc: ProcId, inc: Inc) {
        let place = self.procs[proc].place;
        // The last one that registered is where the others connect, even if it was started before another one, and
        // whoever hears of its registration first. One that copies is not the replica yet.
        if self.is_copy(proc) {
            self.say(|| format!("{place} is to be copied as incarnation {inc}"));
        } else if self.last_inc.get(&place).is_none_or(|last| *last < inc) {
            self.last_inc.insert(place, inc);
            self.by_place.insert(place, proc);
            self.moved(proc);
        }
        self.changes.nodes.insert(inc, self.procs[proc].node);
        if let Some(store) = &mut self.procs[proc].store {
            store.set_inc(inc);
        }
        self.run_disk(proc);
        self.begin_life(proc);
    }

    /// Makes the machine of a process that has its place, once a restart would find its incarnation.
    pub(crate) fn begin_life(&mut self, proc: ProcId) {
        let process = &mut self.procs[proc];
        let (Some(join), Machine::None) = (&mut process.join, &process.machine) else {
            return;
        };
        let store = process.store.as_ref();
        let durable = |inc| store.is_none_or(|store| store.inc_durable() == inc);
        let Some(inc) = join.inc().filter(|inc| process.alive && durable(*inc)) else {
            return;
        };
        join.settle();
        let place = process.place;
        let node = self.procs[proc].node;
        let (shard, slot) = shard_slot(place);
        let store = match self.procs[proc].store.take() {
            Some(store) => Some(*store),
            None if is_vertex(place) => None,
            None => Some(Store::new(self.store_config(place, node))),
        };
        let now = self.local(proc);
        self.procs[proc].machine = match (place, store) {
            (Place::Root(_), Some(store)) => {
                let config = RootConfig {
                    slot,
                    cut_interval: Nanos::from_us(self.plan.cut_interval_us),
                    cut_log_chunk_entries: self.plan.cut_log_chunk_entries,
                    cut_log_bytes_max: self.plan.cut_log_bytes_max,
                    ..RootConfig::new(CLUSTER, node, inc, LOG, self.plan.class)
                };
                Machine::Root(Box::new(Root::new(config, store, now)))
            }
            (Place::Replica(..), Some(store)) => {
                let mut config = ReplicaConfig {
                    run_bytes_max: 16 << 10,
                    cuts_ready: 1,
                    checkpoint_every: self.plan.checkpoint_every,
                    ..ReplicaConfig::new(CLUSTER, node, inc, LOG, shard, slot, self.plan.replicas)
                };
                config.timing.quiet = self.plan.quiet;
                Machine::Replica(Box::new(Replica::new(config, store, now)))
            }
            (Place::Aggregator(_), _) => {
                let config = AggregatorConfig::new(CLUSTER, node, inc, LOG, slot);
                Machine::Aggregator(Box::new(Aggregator::new(config, now)))
            }
            _ => Machine::Leaf(Box::new(Leaf::new(
                LeafConfig {
                    gone: self.plan.gone,
                    ..LeafConfig::new(CLUSTER, node, inc, LOG)
                },
                now,
            ))),
        };
        let targets = edge::dials(role(place), slot);
        let by_map = [Target::Controller, Target::Parent, Target::Leaf];
        let targets = targets.filter(|target| !by_map.contains(target));
        let mut peers: Vec<Peer> = targets.map(Peer::Node).collect();
        if self.is_copy(proc) {
            // Nobody connects to it, and the leaf knows the other one.
            let above = slot.get()..self.plan.replicas;
            peers.extend(above.map(|peer| Peer::Node(Target::Peer(Slot::new(peer)))));
        } else {
            self.tell_trees(place);
            peers.extend(self.peers_above(place));
        }
        for peer in peers {
            self.procs[proc].dials.insert(peer, None);
            self.after(0, Event::Dial(proc, peer));
        }
        let Some(conn) = self.procs[proc].controller_conn() else {
            return;
        };
        self.greet(proc, conn);
        let hello = self.procs[proc]
            .join
            .as_ref()
            .and_then(|join| join.controller_hello().copied());
        if let Some(hello) = hello {
            self.machine_handles(proc, conn, &Message::Hello(hello, &[]));
        }
    }
}
