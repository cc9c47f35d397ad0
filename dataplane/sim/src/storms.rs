//! Faults of the network: which spell of bad weather each kind is, connections that end late for one side, and datagrams
//! of ended sessions that come again.

use std::collections::BTreeMap;

use ionian_types::{Knobs, Time};

use crate::plan::{Fault, Network};
use crate::process::Place;
use crate::trees::is_vertex;
use crate::weather::{Cover, Effect, Way, swizzle};
use crate::world::{Event, Phase, World};

/// Datagrams that are kept for each way, for a replay.
const KEPT_MAX: usize = 48;
/// One datagram in so many is kept, and the first ones of each session.
const KEPT_EVERY: u64 = 8;
/// Datagrams of a replay.
const REPLAYED_MAX: usize = 24;

/// Datagrams of before by the way that they went, with the link whose session made them.
#[derive(Default, Debug)]
pub struct Old {
    kept: BTreeMap<Way, Vec<(usize, Vec<u8>)>>,
    seen: u64,
}

impl<K: Knobs> World<K> {
    /// A fault of the network begins.
    pub(crate) fn storm(&mut self, fault: Fault) {
        if !fault.fits(self.plan.network, self.plan.class) {
            return;
        }
        let begun = match fault {
            Fault::Strand if self.rng_fault.permille(400) => {
                self.strands.push(self.instance);
                true
            }
            Fault::Late => self.late(),
            Fault::Replay => self.replay(),
            _ => self.spell(fault),
        };
        if !begun {
            self.again(fault);
        }
    }

    /// A spell begins that counts when it first hits something. Whether there is anything to cover.
    fn spell(&mut self, fault: Fault) -> bool {
        let from = self.now;
        let spans = match fault {
            // Long enough for another leader.
            Fault::Strand => [50_000_000, 300_000_000, 1_000_000_000],
            _ => [5_000_000, 50_000_000, 300_000_000],
        };
        let span = self.rng_fault.pick(&spans);
        let until = Time::from_ns(from.as_ns() + span);
        let some = match fault {
            Fault::PartitionFull => self.split(),
            Fault::PartitionPair => self.pair().map(|way| both(way).to_vec()),
            Fault::PartitionOneWay => self.one_way(),
            Fault::CutOff => Some(self.off_the_tree()),
            Fault::Strand => Some(self.stranded()),
            _ if self.rng_fault.permille(500) => self.pair().map(|way| both(way).to_vec()),
            _ => self.around().map(|ways| ways.concat()),
        };
        let Some(ways) = some else { return false };
        let effect = match fault {
            Fault::Delay => Effect::Slow(self.rng_fault.pick(&[2_000_000, 20_000_000, 80_000_000])),
            Fault::Clog | Fault::Swizzle => Effect::Hold,
            Fault::Loss => Effect::Lose(self.rng_fault.pick(&[20, 100, 300])),
            Fault::Duplicate => Effect::Repeat(self.rng_fault.pick(&[50, 200, 500])),
            Fault::Reorder => {
                let late_ns = self.rng_fault.pick(&[300_000, 3_000_000, 20_000_000]);
                Effect::Disorder(self.rng_fault.pick(&[50, 300]), late_ns)
            }
            Fault::Garble => Effect::Damage(self.rng_fault.pick(&[10, 50, 200])),
            _ => Effect::Cut,
        };
        let cover = match fault {
            Fault::Swizzle => {
                let Some(pairs) = self.around().filter(|pairs| pairs.len() > 1) else {
                    return false;
                };
                let step_ns = span / (2 * pairs.len() as u64);
                swizzle(&pairs, from, step_ns, &mut self.rng_fault)
            }
            // Datagrams suffer everywhere as often as somewhere.
            Fault::Loss | Fault::Duplicate | Fault::Reorder | Fault::Garble
                if self.rng_fault.permille(500) =>
            {
                Cover::Everywhere(from, until)
            }
            Fault::Strand => {
                self.break_across(&ways);
                Cover::ways(ways, from, until)
            }
            _ => Cover::ways(ways, from, until),
        };
        self.weather.begin(self.now, fault, effect, cover);
        true
    }

    /// Two places that have something to say to each other.
    fn pair(&mut self) -> Option<Way> {
        let open = self.open_links();
        (!open.is_empty()).then(|| {
            let link = self.rng_fault.pick(&open);
            self.way(link, 0)
        })
    }

    pub(crate) fn open_links(&self) -> Vec<usize> {
        (0..self.links.len())
            .filter(|link| {
                self.links[*link].works && self.links[*link].ends.iter().all(|end| end.open)
            })
            .collect()
    }

    /// Every pair of ways between one place and those that it talks to.
    fn around(&mut self) -> Option<Vec<[Way; 2]>> {
        let (place, _) = self.pair()?;
        let mut ways: Vec<[Way; 2]> = Vec::new();
        for link in self.open_links() {
            let (from, to) = self.way(link, 0);
            let way = if from == place {
                (from, to)
            } else {
                (to, from)
            };
            if way.0 == place && !ways.contains(&both(way)) {
                ways.push(both(way));
            }
        }
        for at in (1..ways.len()).rev() {
            ways.swap(at, self.rng_fault.below(at as u64 + 1) as usize);
        }
        Some(ways)
    }

    /// Two groups, and every way between them.
    fn split(&mut self) -> Option<Vec<Way>> {
        let places = self.everyone();
        let side: Vec<bool> = places
            .iter()
            .map(|_| self.rng_fault.permille(400))
            .collect();
        let ways: Vec<Way> = places
            .iter()
            .zip(&side)
            .filter(|(_, side)| **side)
            .flat_map(|(a, _)| {
                let others = places.iter().zip(&side).filter(|(_, side)| !**side);
                others.flat_map(|(b, _)| both((*a, *b)))
            })
            .collect();
        (!ways.is_empty()).then_some(ways)
    }

    /// Everything between a replica and what tells it of the order.
    fn off_the_tree(&mut self) -> Vec<Way> {
        let shard = self.any_shard();
        let slot = self.rng_fault.below(u64::from(self.plan.replicas)) as u8;
        let replica = Place::Replica(shard, slot);
        let mut above = vec![Place::Root(self.leader)];
        above.extend(self.trees.above(replica));
        above
            .into_iter()
            .flat_map(|place| both((replica, place)))
            .collect()
    }

    /// Connections end that go any of these ways: also those on which nothing is said.
    fn break_across(&mut self, ways: &[Way]) {
        for link in self.open_links() {
            if ways.contains(&self.way(link, 0)) {
                self.break_link(link);
            }
        }
    }

    /// A leader that was named a short while ago loses its group, and nobody else: it makes entries that no other member has.
    pub(crate) fn strand_from_group(&mut self, instance: u32) {
        if self.phase != Phase::Storm {
            return;
        }
        self.instance = instance;
        let leader = Place::Root(self.leader);
        let others = (0..self.plan.roots).map(Place::Root);
        let others = others.filter(|place| *place != leader);
        let ways: Vec<Way> = others.flat_map(|other| both((leader, other))).collect();
        self.break_across(&ways);
        let spans = [50_000_000, 300_000_000, 1_000_000_000];
        let until = Time::from_ns(self.now.as_ns() + self.rng_fault.pick(&spans));
        let cover = Cover::ways(ways, self.now, until);
        self.weather
            .begin(self.now, Fault::Strand, Effect::Cut, cover);
    }

    /// Everything between the root group's leader with half of the clients, and all others.
    fn stranded(&mut self) -> Vec<Way> {
        let leader = Place::Root(self.leader);
        let (mut with, mut others) = (vec![leader], Vec::new());
        for place in self.everyone() {
            let is_client = matches!(place, Place::Client(..));
            if is_client && self.rng_fault.permille(500) {
                with.push(place);
            } else if place != leader {
                others.push(place);
            }
        }
        let ways = with
            .iter()
            .flat_map(|a| others.iter().flat_map(|b| both((*a, *b))));
        ways.collect()
    }

    /// One direction between two places, or all that a place says, or hears.
    fn one_way(&mut self) -> Option<Vec<Way>> {
        if self.rng_fault.permille(400) {
            let (a, b) = self.pair()?;
            let way = self.rng_fault.pick(&both((a, b)));
            return Some(vec![way]);
        }
        let side = self.rng_fault.below(2) as usize;
        let pairs = self.around()?;
        Some(pairs.into_iter().map(|pair| pair[side]).collect())
    }

    /// A connection ends for one side, which makes another one; the other side learns of it long after, and gets what was
    /// under way until then. What was under way is held first, so that there is something.
    fn late(&mut self) -> bool {
        let open = self.open_links();
        if open.is_empty() || self.plan.network != Network::Fabric {
            return false;
        }
        // The end that opened the connection: it is the one that opens another.
        let (mut link, side) = (self.rng_fault.pick(&open), 0);
        // There are few vertices among many links, and everything is ordered by what they say to the root.
        let leader = Place::Root(self.leader);
        let orders = |link: &&usize| {
            let (from, to) = self.way(**link, 0);
            is_vertex(from) && to == leader
        };
        if let (Some(order), true) = (open.iter().find(orders), self.rng_fault.permille(200)) {
            link = *order;
        }
        let held = self.rng_fault.range(20_000_000, 200_000_000);
        self.links[link].dirs[side].held_until = Time::from_ns(self.now.as_ns() + held);
        let after = self.rng_fault.range(500_000, 10_000_000);
        self.after(after, Event::Sever(link, side));
        true
    }

    /// The end `side` gives its connection up; what it had sent arrives later than it opens another one.
    pub(crate) fn sever(&mut self, link: usize, side: usize) {
        let held_until = self.links[link].dirs[side].held_until;
        let open = self.links[link].ends.iter().all(|end| end.open);
        if !open
            || held_until <= self.now
            || !core::mem::replace(&mut self.links[link].works, false)
        {
            return;
        }
        self.links[link].dirs[1 - side].queue.clear();
        self.links[link].dirs[side].late = true;
        self.after(0, Event::Closed(link, side));
        let after = self.rng_net.below(1_000_000);
        let at = Time::from_ns(held_until.as_ns() + after);
        self.at(at, Event::Closed(link, 1 - side));
    }

    /// Counts a message that arrives after its sender has opened another connection to the same process.
    pub(crate) fn note_late(&mut self, link: usize, side: usize) {
        if !self.links[link].dirs[side].late {
            return;
        }
        let procs = |link: usize| {
            let [a, b] = self.links[link].ends.map(|end| end.proc);
            (a.min(b), a.max(b))
        };
        let another = (link + 1..self.links.len()).any(|later| procs(later) == procs(link));
        if another {
            self.links[link].dirs[side].late = false;
            self.faults[Fault::Late] += 1;
        }
    }

    /// Keeps some datagrams for a replay.
    pub(crate) fn keep_old(&mut self, link: usize, side: usize, bytes: &[u8]) {
        let wanted = self
            .plan
            .faults
            .iter()
            .any(|(fault, _)| *fault == Fault::Replay);
        self.old.seen += 1;
        if !wanted || !self.old.seen.is_multiple_of(KEPT_EVERY) {
            return;
        }
        let way = self.way(link, side);
        let at = (self.old.seen / KEPT_EVERY) as usize % KEPT_MAX;
        let kept = self.old.kept.entry(way).or_default();
        let entry = (link, bytes.to_vec());
        if kept.len() < KEPT_MAX {
            kept.push(entry);
        } else {
            kept[at] = entry;
        }
    }

    /// Datagrams of a session that has ended arrive in another one between the same places.
    fn replay(&mut self) -> bool {
        let mut found: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        for link in self.open_links() {
            for side in 0..2 {
                let kept = self.old.kept.get(&self.way(link, side));
                let ended = kept.into_iter().flatten().filter(|(old, _)| *old != link);
                found.extend(ended.map(|(_, bytes)| (link, side, bytes.clone())));
            }
        }
        if found.is_empty() {
            // None has ended yet: one that ends now is replayed later.
            if let Some(link) = self.open_links().first().copied() {
                self.break_link(link);
            }
            return false;
        }
        for _ in 0..found.len().min(REPLAYED_MAX) {
            let at = self.rng_fault.below(found.len() as u64) as usize;
            let (link, side, bytes) = found.swap_remove(at);
            let after = self.rng_fault.below(3_000_000);
            self.after(after, Event::Replay(link, side, bytes));
        }
        true
    }

    /// A datagram of an ended session arrives in a later one.
    pub(crate) fn replayed(&mut self, link: usize, side: usize, bytes: &[u8]) {
        let receiver = self.links[link].ends[1 - side];
        if receiver.open && self.procs[receiver.proc].alive {
            self.faults[Fault::Replay] += 1;
            self.datagram(link, side, bytes);
        }
    }
}

/// A way and its reverse.
const fn both(way: Way) -> [Way; 2] {
    [way, (way.1, way.0)]
}
