//! Copies of shards that have ended: a process at another node copies beside the replica, and is the replica once the controllers
//! say so.

use ionian_core::edge::{Join, Target};
use ionian_types::Knobs;

use crate::edges::shard_slot;
use crate::process::{Peer, Place, ProcId, Process};
use crate::world::{Event, World};

impl<K: Knobs> World<K> {
    /// Whether a process is one that copies a replica of a shard that has ended, to take over from it.
    pub(crate) fn is_copy(&self, proc: ProcId) -> bool {
        let Process { place, node, .. } = self.procs[proc];
        matches!(place, Place::Replica(shard, _) if self.is_finalized(shard))
            && node != self.node(place)
    }

    /// What has copied is the replica now: the others connect to it, and it to those below.
    pub(crate) fn took_over(&mut self, place: Place, proc: ProcId) {
        let Some(inc) = self.procs[proc].join.as_ref().and_then(Join::inc) else {
            return;
        };
        let last = self.last_inc.get(&place).copied().unwrap_or_default();
        self.last_inc.insert(place, last.max(inc));
        self.by_place.insert(place, proc);
        let (_, slot) = shard_slot(place);
        let above = |peer: &Peer| matches!(peer, Peer::Node(Target::Peer(other)) if *other >= slot);
        let mut conns = Vec::new();
        self.procs[proc].dials.retain(|peer, conn| {
            conns.extend(conn.filter(|_| above(peer)));
            !above(peer)
        });
        for conn in conns {
            self.hang_up(proc, conn);
        }
        for peer in self.peers_above(place) {
            self.procs[proc].dials.insert(peer, None);
            self.after(0, Event::Dial(proc, peer));
        }
        self.moved(proc);
    }
}

#[cfg(test)]
mod tests {
    use ionian_control_core::Operation;
    use ionian_types::{Durability, NodeId, ShardId, Slot};

    use super::*;
    use crate::plan::{Fault, Network, Plan};
    use crate::world::LOG;

    /// Until nothing is under way any more.
    fn settle(world: &mut World) {
        let mut steps = 0;
        while world.running_change().is_some() {
            steps += 1;
            assert!(
                world.step_on() && steps < 1_000_000,
                "{:?}",
                world.running_change()
            );
        }
    }

    fn ask(world: &mut World, operation: Operation) {
        let proc = world.live(Place::Controller).unwrap();
        let answer = world.ask(proc, operation).unwrap();
        assert!(!answer.refused, "{}", answer.text);
        world.flush_soon(proc);
    }

    /// A shard takes records and ends. Then each of its replicas moves to another node, and what they left is destroyed: the
    /// last reader finds every record on the copies.
    fn every_copy_moves(seed: u64, plan: Plan) {
        let replicas = plan.replicas;
        let mut world = World::new(seed, plan);
        while world.history.seen.acks < 60 {
            assert!(world.step_on());
        }
        let held = |world: &World, shard: u32| -> u64 {
            let shard = world.history.reference.shards.get(&shard);
            let segments = shard.into_iter().flat_map(|shard| &shard.segments);
            segments.map(|segment| segment.len).sum()
        };
        let number = world
            .shards()
            .into_iter()
            .max_by_key(|it| held(&world, *it));
        let number = number.unwrap();
        let shard = ShardId::new(number);
        let end = Operation::FinalizeShard {
            log: LOG,
            shard,
            successor: false,
        };
        // The last open shard of a log cannot end: another one may be on its way.
        let controller = world.live(Place::Controller).unwrap();
        while world.ask(controller, end.clone()).unwrap().refused {
            assert!(world.step_on());
        }
        world.flush_soon(controller);
        settle(&mut world);
        assert!(held(&world, number) > 0, "the shard has records");
        for slot in 0..replicas {
            let place = Place::Replica(number, slot);
            let old = world.node(place);
            let node = NodeId::new(500 + u32::from(slot));
            let moved = Operation::ReplaceReplica {
                log: LOG,
                shard,
                slot: Slot::new(slot),
                node,
            };
            ask(&mut world, moved);
            settle(&mut world);
            while world.node(place) != node {
                assert!(world.step_on(), "the map says it");
            }
            // The old one is told, and ends.
            let lives = |world: &World| {
                let mut procs = world.procs.iter();
                procs.any(|it| it.alive && it.place == place && it.node == old)
            };
            let mut steps = 0;
            while lives(&world) {
                steps += 1;
                assert!(world.step_on() && steps < 100_000, "the old one goes on");
            }
            world.disks.remove(&(place, old));
        }
        let report = world.run().unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.seen.acks > 60);
    }

    fn plan(class: Durability, replicas: u8, quorum: u8, network: Network) -> Plan {
        Plan {
            class,
            replicas,
            quorum,
            network,
            // Operators may change things; nothing else does.
            faults: vec![(Fault::CancelChange, 1)],
            only: Some(vec![]),
            ..Plan::calm()
        }
    }

    #[test]
    fn every_record_is_read_from_copies_of_copies() {
        for seed in 1..=3 {
            every_copy_moves(seed, plan(Durability::D0, 2, 2, Network::Fabric));
            every_copy_moves(seed, plan(Durability::D1, 2, 2, Network::Datagram));
            every_copy_moves(seed, plan(Durability::D1, 3, 2, Network::Fabric));
            every_copy_moves(seed, plan(Durability::D1, 1, 1, Network::Fabric));
        }
    }
}
