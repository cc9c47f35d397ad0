//! Another life of a place in the same process: that of a member of a root group, or of a vertex of a tree, whose life the
//! controller has ended.
//!
//! A cut log that too few members hold is given up, and with it what the others have of it (at D0, where a majority lost its
//! memory); a member may also be taken off its group and put back, and a vertex may go to another node and come back before
//! anybody has looked whether the place is still to be here. The life that is told so ends with its connections and its
//! store. Once the controller's newest map has the place on this node and nobody in it, or has it come here, it is made ready
//! anew, as at the start of the process, and registers. While another life has the place the map says so, and this one stays
//! away; where the map has the place no more, it is taken away as any other.

use std::sync::Arc;

use ionian_types::{Inc, Nanos, NodeId, Time};
use ionian_wire::directory::{ClusterMap, ComingPlace};
use ionian_wire::frame::DirectoryRequest;

use super::places::{Leaving, Then};
use super::{Host, Newcomer, Remains};
use crate::role::{Machine, Place};
use crate::server::{PlaceSpec, ServerOptions, StartError, make_ready};
use crate::tree::vertex_place;

/// How often the controller is asked for the map.
const ASK_EVERY: Nanos = Nanos::from_ms(500);

/// The pause after a registration that was refused.
const PAUSE: Nanos = Nanos::from_ms(1_000);

/// A life that has ended, while its place is still here.
#[derive(Debug)]
pub(crate) struct Ended {
    /// It has its store, which the device may still be at work for.
    machine: Machine,
    ask_at: Time,
    /// The controller was asked.
    asked: bool,
    /// The map is as new as the last question.
    told: bool,
}

impl Ended {
    pub(crate) const fn new(now: Time, machine: Machine) -> Self {
        Self {
            machine,
            ask_at: now,
            asked: false,
            told: false,
        }
    }

    /// A registration that was refused: where the reason stays, it is refused again.
    pub(crate) fn refused(now: Time, machine: Machine) -> Self {
        Self {
            ask_at: now.after(PAUSE),
            ..Self::new(now, machine)
        }
    }

    /// The controller has sent a map.
    pub(crate) const fn tell(&mut self) {
        self.told = self.asked;
    }

    /// When the controller is to be asked.
    pub(super) const fn ask_at(&self) -> Time {
        self.ask_at
    }

    pub(super) fn into_machine(self) -> Machine {
        self.machine
    }
}

/// Makes places ready that come again.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) options: Arc<ServerOptions>,
    /// The address that its places register.
    pub(crate) address: String,
}

impl Host {
    /// Gives the host what it needs to make a place ready again.
    pub(crate) fn may_make(&mut self, maker: Maker) {
        self.maker = Some(maker);
    }

    /// Looks after places whose life has ended. Returns how much was done.
    pub(super) fn poll_ended(&mut self, now: Time) -> usize {
        let mut work = 0;
        for at in 0..self.tenants.len() {
            let Some(ended) = &mut self.tenants[at].ended else {
                continue;
            };
            let told = ended.told;
            let (shared, place) = (&self.own.shared, self.tenants[at].place);
            if told && is_free(&shared.map(), shared.node, place) {
                self.begin_again(now, at);
                return work + 1;
            }
            work += self.ask_for_map(now, at);
        }
        work
    }

    fn ask_for_map(&mut self, now: Time, at: usize) -> usize {
        let tenant = &mut self.tenants[at];
        let Some(ended) = tenant.ended.as_mut().filter(|ended| ended.ask_at <= now) else {
            return 0;
        };
        ended.ask_at = now.after(ASK_EVERY);
        (ended.asked, ended.told) = (tenant.controller.is_some(), false);
        if let Some(conn) = tenant.controller {
            let known = self.own.shared.map_version();
            let request = DirectoryRequest { request: 1, known };
            self.set_room(conn);
            // Without room it is asked again.
            let _ = self.out.send(conn, &request, &[]);
            self.carry();
        }
        1
    }

    /// The place leaves, to come again.
    fn begin_again(&mut self, now: Time, at: usize) {
        let tenant = self.take_out(now, at);
        let machine = tenant.ended.map_or(tenant.machine, Ended::into_machine);
        let io = tenant.io;
        self.leaving.push(Leaving {
            remains: Remains { machine, io },
            then: Then::Again(tenant.spec),
        });
    }

    /// Makes a place ready that has left. Opening its files takes system calls; it is rare.
    #[cold]
    pub(super) fn make_again(&mut self, now: Time, spec: Box<PlaceSpec>) {
        let Some(maker) = &self.maker else { return };
        match make_ready(
            &maker.options,
            &self.own.shared,
            maker.address.clone(),
            &spec,
        ) {
            Ok(newcomer) => self.expect_again(newcomer),
            Err(error) => self.failed_again(now, spec, &error),
        }
    }

    /// A place cannot come again: that shows in its state.
    #[cold]
    pub(super) fn failed_again(&mut self, now: Time, spec: Box<PlaceSpec>, error: &StartError) {
        let reason = format!("its next life cannot begin: {error}");
        self.own.shared.note(&spec.place.to_string(), &reason);
        let machine = Machine::Refused(reason);
        self.admit(
            now,
            Newcomer {
                spec,
                machine,
                opening: None,
            },
        );
    }
}

/// Whether the cluster map has a member of a root group or a vertex of a tree on this node, and nobody in its place, or has it
/// come here.
fn is_free(map: &ClusterMap, node: NodeId, place: Place) -> bool {
    let known = place.log();
    let Some(log) = map.logs.iter().find(|log| Some(log.log) == known) else {
        return false;
    };
    let end = match place {
        Place::Root(_, slot) => log.roots.get(slot.index()),
        Place::Leaf(..) | Place::Aggregator(..) => {
            let mut vertices = log.tree.iter().chain(&log.tree_next);
            let found = vertices.find(|vertex| vertex_place(log.log, vertex) == place);
            found.map(|vertex| &vertex.endpoint)
        }
        Place::Directory | Place::Replica(..) => None,
    };
    let comes = match place {
        Place::Leaf(_, vertex) => Some(ComingPlace::Leaf(vertex)),
        Place::Aggregator(_, vertex) => Some(ComingPlace::Aggregator(vertex)),
        _ => None,
    };
    let mut coming = log.coming.iter().filter(|coming| coming.node == node);
    end.is_some_and(|end| end.node == node && end.inc == Inc::ZERO)
        || end.is_some() && coming.any(|coming| Some(coming.place) == comes)
}

#[cfg(test)]
mod tests {
    use ionian_types::{Durability, LogId, OrderingMode, ShardId, Slot, VertexId};
    use ionian_wire::directory::{Coming, Endpoint, LogInfo, VertexInfo};

    use super::*;

    const LOG: LogId = LogId::new(4);
    const OWN: NodeId = NodeId::new(1);

    fn end(node: u32, inc: u64) -> Endpoint {
        Endpoint {
            node: NodeId::new(node),
            inc: Inc::new(inc),
            address: String::new(),
        }
    }

    fn vertex(vertex: u32, children: u16, endpoint: Endpoint) -> VertexInfo {
        VertexInfo {
            vertex: VertexId::new(vertex),
            children,
            begins: (0, ShardId::ZERO),
            endpoint,
        }
    }

    fn map(tree: Vec<VertexInfo>, tree_next: Vec<VertexInfo>) -> ClusterMap {
        let log = LogInfo {
            log: LOG,
            name: String::from("sea"),
            mode: OrderingMode::Scalog,
            class: Durability::D0,
            roots: vec![end(1, 0), end(1, 3), end(2, 0)],
            leader: None,
            tree,
            tree_next,
            shards: Vec::new(),
            coming: Vec::new(),
        };
        ClusterMap {
            version: 1,
            logs: vec![log],
        }
    }

    #[test]
    fn a_member_comes_again_where_nobody_has_its_place() {
        let map = map(Vec::new(), Vec::new());
        let free = |slot| is_free(&map, OWN, Place::Root(LOG, Slot::new(slot)));
        assert_eq!([0, 1, 2, 3].map(free), [true, false, false, false]);
        assert!(!is_free(&map, OWN, Place::Root(LogId::new(5), Slot::ZERO)));
    }

    #[test]
    fn a_vertex_comes_again_where_it_is_free_or_to_come() {
        let [aggregator, leaf] =
            [Place::Aggregator, Place::Leaf].map(|place| place(LOG, VertexId::new(7)));
        let of = |children, endpoint: Endpoint| vertex(7, children, endpoint);
        for (place, children) in [(aggregator, 1), (leaf, 0)] {
            let here = |endpoint| vec![of(children, endpoint)];
            let other = if children == 0 { aggregator } else { leaf };
            // Nobody has it, in the tree that is or in the one that is to be.
            for map in [map(here(end(1, 0)), vec![]), map(vec![], here(end(1, 0)))] {
                assert!(is_free(&map, OWN, place) && !is_free(&map, OWN, other));
            }
            // Another life has it, here or elsewhere, or is to have it; or it is gone.
            for held in [end(1, 9), end(2, 9), end(2, 0)] {
                assert!(!is_free(&map(here(held.clone()), vec![]), OWN, place));
                assert!(!is_free(&map(vec![], here(held)), OWN, place));
            }
            assert!(!is_free(&map(vec![], vec![]), OWN, place));
            // It left, and is to come back.
            let to_come = match place {
                Place::Leaf(_, vertex) => ComingPlace::Leaf(vertex),
                _ => ComingPlace::Aggregator(VertexId::new(7)),
            };
            let mut back = map(here(end(2, 9)), vec![]);
            for (node, free) in [(2, false), (1, true)] {
                let node = NodeId::new(node);
                back.logs[0].coming = vec![Coming {
                    node,
                    place: to_come,
                }];
                assert_eq!(is_free(&back, OWN, place), free);
            }
            assert!(!is_free(&back, OWN, other));
            // Gone, whatever else the map says.
            back.logs[0].tree.clear();
            assert!(!is_free(&back, OWN, place));
        }
    }
}
