//! Which places of a node share a reactor, and which core each reactor has.

use std::collections::BTreeMap;

use ionian_runtime::{CorePlan, Placement, PlanOptions, Topology, assign};

use super::ServerOptions;
use super::shared::Home;
use crate::role::Place;

/// The core plan in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CoreUse {
    /// The plan that was asked for.
    pub asked: CorePlan,
    /// The plan in force: packed where a dedicated one has more roles than cores.
    pub plan: CorePlan,
    /// The reactors; the first has the socket.
    pub reactors: Vec<ReactorUse>,
    /// Busy threads are more than cores: figures measured now say as much about the scheduler as about the log.
    pub oversubscribed: bool,
}

/// One reactor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReactorUse {
    /// Its places.
    pub places: Vec<Place>,
    /// The core that it is to be pinned to; none leaves it to the scheduler.
    pub core: Option<usize>,
    /// Others need the same core: it yields at once instead of spinning.
    pub shared: bool,
}

impl CoreUse {
    /// Lays the places of a node out as its options ask.
    pub(super) fn new(options: &ServerOptions, places: &[Place]) -> Self {
        let asked = options.plan;
        if asked == CorePlan::Cooperative {
            let all = ReactorUse {
                places: places.to_vec(),
                core: options.cores.first().copied(),
                shared: options.shared_core,
            };
            return Self {
                asked,
                plan: asked,
                reactors: vec![all],
                oversubscribed: false,
            };
        }
        let topology = topology(&options.cores);
        let plan_options = PlanOptions {
            other_busy_threads: options.other_busy_threads,
            reactors: options.reactors,
        };
        let single = units(places, false);
        let fits = single.len() <= topology.parallelism();
        let (plan, units) = match asked {
            CorePlan::Dedicated if fits || options.oversubscribe => (asked, single),
            _ => {
                let most = assign(CorePlan::Packed, single.len(), &topology, plan_options);
                let whole = units(places, true);
                let enough = whole.len() >= most.reactors.len();
                (CorePlan::Packed, if enough { whole } else { single })
            }
        };
        let assignment = assign(plan, units.len(), &topology, plan_options);
        let reactor = |(at, placement): (usize, &Placement)| ReactorUse {
            places: placement
                .roles
                .iter()
                .flat_map(|unit| units[*unit].iter().copied())
                .collect(),
            // In the order in which the cores were given.
            core: placement
                .core
                .map(|core| options.cores.get(at).copied().unwrap_or(core)),
            shared: placement.shared || options.shared_core,
        };
        Self {
            asked,
            plan,
            reactors: assignment
                .reactors
                .iter()
                .enumerate()
                .map(reactor)
                .collect(),
            oversubscribed: assignment.oversubscribed,
        }
    }

    /// The reactor that a place runs on.
    #[must_use]
    pub fn reactor_of(&self, place: Place) -> Option<usize> {
        self.reactors
            .iter()
            .position(|reactor| reactor.places.contains(&place))
    }

    /// The reactor for a place that comes while the process runs, beside those of `homes`: that of its log's tree or root, or
    /// of its shard's other replicas, else the one with the fewest places. There are no more reactors than at the start.
    #[must_use]
    pub(super) fn reactor_for(&self, place: Place, homes: &BTreeMap<Place, Home>) -> usize {
        let beside = |other: &Place| match (place, *other) {
            (own, other) if orders(own) && orders(other) => own.log() == other.log(),
            (Place::Replica(log, shard, _), Place::Replica(of, other, _)) => {
                (log, shard) == (of, other)
            }
            _ => false,
        };
        let apart = self.plan == CorePlan::Dedicated && matches!(place, Place::Replica(..));
        let mut near = homes.iter().filter(|(other, _)| beside(other) && !apart);
        if let Some((_, home)) = near.next() {
            return home.host;
        }
        let load = |at: &usize| homes.values().filter(|home| home.host == *at).count();
        (0..self.reactors.len()).min_by_key(load).unwrap_or(0)
    }

    /// Cores that a reactor is pinned to.
    pub fn cores(&self) -> impl Iterator<Item = usize> + '_ {
        self.reactors.iter().filter_map(|reactor| reactor.core)
    }
}

impl std::fmt::Display for CoreUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.plan)?;
        if self.asked != self.plan {
            write!(f, " ({} needs more cores than there are)", self.asked)?;
        }
        let count = self.reactors.len();
        write!(f, ": {count} reactor{}", if count == 1 { "" } else { "s" })?;
        let cores: Vec<String> = self.cores().map(|core| core.to_string()).collect();
        match cores.len() {
            0 => f.write_str(" on any core")?,
            1 => write!(f, " on core {}", cores[0])?,
            _ => write!(f, " on cores {}", cores.join(", "))?,
        }
        if self.oversubscribed {
            f.write_str(", OVERSUBSCRIBED: more busy threads than cores, so all yield")?;
        }
        Ok(())
    }
}

/// The cores that reactors may have.
fn topology(cores: &[usize]) -> Topology {
    let machine = Topology::read().unwrap_or_else(|_| Topology {
        cpus: Vec::new(),
        allowed: (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
        cpu_quota: None,
    });
    if cores.is_empty() {
        return machine;
    }
    Topology {
        allowed: cores.to_vec(),
        ..machine
    }
}

/// Whether every cut of a log goes through the place.
const fn orders(place: Place) -> bool {
    matches!(
        place,
        Place::Root(..) | Place::Leaf(..) | Place::Aggregator(..)
    )
}

/// What is not to be taken apart, most connected first: a log's tree and root, since every cut goes through them, with the
/// controller, which has little to do; then replicas, or all replicas of a shard that are here, so that an append crosses
/// to another reactor only to be ordered.
fn units(places: &[Place], whole_shards: bool) -> Vec<Vec<Place>> {
    let mut units: Vec<Vec<Place>> = Vec::new();
    let mut gather = |place: Place, fits: &dyn Fn(&Place) -> bool| match units
        .iter_mut()
        .find(|unit| unit.iter().any(fits))
    {
        Some(unit) => unit.push(place),
        None => units.push(vec![place]),
    };
    for place in places {
        if orders(*place) {
            gather(*place, &|other| {
                orders(*other) && other.log() == place.log()
            });
        }
    }
    for place in places {
        if let Place::Replica(log, shard, _) = *place {
            gather(*place, &|other| {
                whole_shards && matches!(other, Place::Replica(l, s, _) if (*l, *s) == (log, shard))
            });
        }
    }
    if places.contains(&Place::Directory) {
        match units.first_mut() {
            Some(first) => first.push(Place::Directory),
            None => units.push(vec![Place::Directory]),
        }
    }
    // A node without a place has a socket all the same.
    if units.is_empty() {
        units.push(Vec::new());
    }
    units
}

#[cfg(test)]
mod tests {
    use ionian_types::{LogId, ShardId, Slot, VertexId};

    use super::*;

    const LOG: LogId = LogId::new(1);

    const fn replica(shard: u32, slot: u8) -> Place {
        Place::Replica(LOG, ShardId::new(shard), Slot::new(slot))
    }

    /// Everything of a log with two shards of two replicas.
    fn places() -> Vec<Place> {
        vec![
            Place::Directory,
            Place::Root(LOG, Slot::ZERO),
            Place::Leaf(LOG, VertexId::ZERO),
            replica(0, 0),
            replica(0, 1),
            replica(1, 0),
            replica(1, 1),
        ]
    }

    fn options(plan: CorePlan, cores: &[usize]) -> ServerOptions {
        let mut options = ServerOptions::in_memory(ionian_control_core::ClusterSpec::default());
        options.plan = plan;
        options.cores = cores.to_vec();
        options
    }

    const ORDER: [Place; 3] = [
        Place::Root(LOG, Slot::ZERO),
        Place::Leaf(LOG, VertexId::ZERO),
        Place::Directory,
    ];

    #[test]
    fn dedicated_gives_each_replica_a_core_and_the_order_one() {
        // A quota of the machine that runs the test may be smaller than the cores given.
        let mut options = options(CorePlan::Dedicated, &[7, 5, 9, 3, 1]);
        options.oversubscribe = true;
        let cores = CoreUse::new(&options, &places());
        assert_eq!(cores.plan, CorePlan::Dedicated);
        assert_eq!(cores.reactors.len(), 5);
        assert_eq!(cores.reactors[0].places, ORDER);
        for (at, place) in places()[3..].iter().enumerate() {
            assert_eq!(cores.reactors[at + 1].places, [*place]);
            assert_eq!(cores.reactor_of(*place), Some(at + 1));
        }
        if !cores.oversubscribed {
            assert_eq!(cores.cores().collect::<Vec<_>>(), [7, 5, 9, 3, 1]);
        }
    }

    #[test]
    fn more_roles_than_cores_are_packed_and_shards_stay_whole() {
        let cores = CoreUse::new(&options(CorePlan::Dedicated, &[1, 0]), &places());
        assert_eq!(
            (cores.asked, cores.plan),
            (CorePlan::Dedicated, CorePlan::Packed)
        );
        let text = cores.to_string();
        assert!(
            text.starts_with("packed (dedicated needs more cores than there are): "),
            "{text}"
        );
        let mut options = options(CorePlan::Packed, &[1, 0]);
        options.reactors = Some(2);
        let cores = CoreUse::new(&options, &places());
        let mut first = ORDER.to_vec();
        first.extend([replica(1, 0), replica(1, 1)]);
        assert_eq!(cores.reactors[0].places, first);
        assert_eq!(cores.reactors[1].places, [replica(0, 0), replica(0, 1)]);
        assert_eq!(cores.asked, cores.plan);
        options.reactors = Some(4);
        let cores = CoreUse::new(&options, &places());
        let text = cores.to_string();
        assert!(
            text.starts_with("packed: 4 reactors on any core, OVERSUBSCRIBED"),
            "{text}"
        );
        assert_eq!(cores.reactors.len(), 4, "whole shards would fill three");
        assert!(
            cores
                .reactors
                .iter()
                .all(|reactor| !reactor.places.is_empty())
        );
    }

    #[test]
    fn every_place_has_one_reactor_whatever_the_plan() {
        for plan in [CorePlan::Dedicated, CorePlan::Packed, CorePlan::Cooperative] {
            for count in 1..=places().len() {
                for reactors in [None, Some(1), Some(3), Some(64)] {
                    let mut options = options(plan, &[]);
                    options.oversubscribe = count % 2 == 0;
                    options.reactors = reactors;
                    let here = &places()[..count];
                    let cores = CoreUse::new(&options, here);
                    let mut all: Vec<Place> = cores
                        .reactors
                        .iter()
                        .flat_map(|reactor| reactor.places.clone())
                        .collect();
                    all.sort_unstable();
                    let mut expected = here.to_vec();
                    expected.sort_unstable();
                    assert_eq!(all, expected, "{plan} {reactors:?}");
                }
            }
        }
    }

    #[test]
    fn a_place_that_comes_later_joins_its_own_or_the_least_busy() {
        let reactor = |places: &[Place]| ReactorUse {
            places: places.to_vec(),
            core: None,
            shared: false,
        };
        let mut cores = CoreUse {
            plan: CorePlan::Packed,
            reactors: vec![reactor(&[]), reactor(&[]), reactor(&[])],
            ..CoreUse::default()
        };
        let home = |(number, (place, host)): (usize, &(Place, usize))| {
            let number = number as u64;
            (
                *place,
                Home {
                    host: *host,
                    number,
                },
            )
        };
        let here = [
            (Place::Root(LOG, Slot::ZERO), 0),
            (Place::Leaf(LOG, VertexId::ZERO), 0),
            (replica(0, 0), 1),
            (replica(1, 0), 2),
            (replica(1, 1), 2),
        ];
        let homes = here.iter().enumerate().map(home).collect();
        assert_eq!(cores.reactor_for(replica(0, 1), &homes), 1, "its shard");
        assert_eq!(cores.reactor_for(replica(2, 0), &homes), 1, "the fewest");
        assert_eq!(
            cores.reactor_for(Place::Root(LOG, Slot::ZERO), &homes),
            0,
            "its leaf"
        );
        cores.plan = CorePlan::Dedicated;
        assert_eq!(cores.reactor_for(replica(1, 2), &homes), 1, "the fewest");
    }

    #[test]
    fn cooperative_takes_the_first_core_and_nothing_else() {
        let mut options = options(CorePlan::Cooperative, &[3, 4]);
        options.shared_core = true;
        let cores = CoreUse::new(&options, &places());
        let [reactor] = &cores.reactors[..] else {
            panic!("one reactor");
        };
        assert_eq!((reactor.core, reactor.shared), (Some(3), true));
        let nothing = CoreUse::new(&options, &[]);
        assert_eq!(nothing.reactors.len(), 1, "a socket needs a reactor");
    }
}
