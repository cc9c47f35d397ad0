//! The legal core: after the faults, the places among which progress must be possible are healed, and the others are not.
//!
//! A shard takes appends while as many of its replicas as must hold a record, the vertices of the tree above it and the root are
//! there, so that the core is these, some shards and at least one client. The controller is in it unless nothing in it needs another view. Everybody
//! else stays dead, cut off, slow or still until every client of the core has had appends acknowledged and has seen the tail
//! pass.

use std::collections::BTreeSet;

use ionian_types::{Durability, Knobs, Time};

use crate::atlas::Harm;
use crate::history::Ended;
use crate::invariant::{Invariant, Violation};
use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::rng::Rng;
use crate::tree_faults::TreeFaults;
use crate::trees::is_vertex;
use crate::weather::{Cover, Effect, Way};
use crate::world::{Event, Phase, World};

/// Virtual time within which the core must have made progress, for two shards. A client that spreads its appends, one at a time,
/// comes to each server that does not answer too, and gives up there after seconds: with more shards it takes longer.
pub const CORE_NS: u64 = 40_000_000_000;
/// Appends that each client of the core must see acknowledged.
const ACKS: u64 = 4;
/// The most appends that a client begins for it at a time.
const PENDING_MAX: u64 = 8;

/// What is healed while the rest is not.
#[derive(Debug)]
pub(crate) struct Core {
    /// The places of it.
    places: BTreeSet<Place>,
    /// Places that stay without a process.
    dead: BTreeSet<Place>,
    /// Those of them that somebody wanted to start a process at.
    wanted: Vec<Place>,
    /// The first append that counts.
    first: usize,
    /// Where the order ended.
    tail: u64,
    since: Time,
}

/// What is wrong with a place that is not of the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ill {
    Dead,
    Still,
    Cut,
    /// It hears and is not heard, or the other way round.
    Half,
    Slow,
    Well,
}

const ILLS: [Ill; 6] = [
    Ill::Dead,
    Ill::Still,
    Ill::Cut,
    Ill::Half,
    Ill::Slow,
    Ill::Well,
];

impl<K: Knobs> World<K> {
    /// A core is drawn and healed. False when there is none yet: nobody is there who could append.
    pub(crate) fn begin_core(&mut self) -> bool {
        let mut rng = Rng::stream(self.seed, "core");
        let mut shards: Vec<u32> = (0..self.plan.shards).collect();
        shards.retain(|_| rng.permille(400));
        if shards.is_empty() {
            shards.push(rng.below(u64::from(self.plan.shards)) as u32);
        }
        let everyone = self.everyone();
        let mut clients = everyone.clone();
        clients.retain(|place| matches!(place, Place::Client(_)));
        if clients.is_empty() {
            return false;
        }
        let one = rng.pick(&clients);
        clients.retain(|place| *place == one || rng.permille(500));
        let mut places: BTreeSet<Place> = (0..self.plan.roots).map(Place::Root).collect();
        for shard in &shards {
            // Those of the tree that are above the shard. A root that does not lead is of the core, too.
            let above = self.trees.path(Place::Replica(*shard, 0)).into_iter();
            places.extend(above.filter(|place| is_vertex(*place)));
            let left_out = self.spared(*shard, &mut rng);
            let slots = (0..self.plan.replicas).filter(|slot| Some(*slot) != left_out);
            places.extend(slots.map(|slot| Place::Replica(*shard, slot)));
        }
        places.extend(&clients);
        if !(rng.permille(600) && self.needs_no_view(&shards, &clients)) {
            places.insert(Place::Controller);
        }
        let mut outside = self.places();
        outside.extend(everyone.iter().filter(|at| matches!(at, Place::Client(_))));
        outside.retain(|place| !places.contains(place));
        self.phase = Phase::Core;
        self.weather.clear();
        self.end_silence();
        self.tree_faults = TreeFaults::default();
        self.armed.clear();
        for disk in self.disks.values_mut() {
            disk.disarm();
        }
        self.slow_disks.retain(|place, _| !places.contains(place));
        self.say(|| format!("the core is {places:?}"));
        let mut core = Core {
            places,
            dead: BTreeSet::new(),
            wanted: Vec::new(),
            first: self.history.ops.len(),
            tail: self.history.reference.end,
            since: self.now,
        };
        for place in outside {
            let ill = rng.pick(&ILLS);
            self.fall_ill(place, ill, &mut core, &mut rng);
        }
        self.wake_all(|place| core.places.contains(&place));
        self.core = Some(core);
        true
    }

    /// A replica that a shard of the core can do without, if one is drawn: what is committed is all held by another one that
    /// has applied all of it, and whose device is a good one.
    fn spared(&self, shard: u32, rng: &mut Rng) -> Option<u8> {
        if self.plan.spare() == 0 || !rng.permille(700) {
            return None;
        }
        let slot = rng.below(u64::from(self.plan.replicas)) as u8;
        let others = (0..self.plan.replicas).filter(|other| *other != slot);
        let domains: BTreeSet<u32> = others
            .clone()
            .map(|other| self.plan.domain(shard, other))
            .collect();
        let enough = self.plan.class != Durability::D2 || domains.len() > 1;
        let flushed = self.plan.class.is_flushed();
        let mut places = others.map(|other| Place::Replica(shard, other));
        let state = self.history.reference.shards.get(&shard);
        // A life that the view does not list yet may come without its records: another fault.
        let all_listed = state.is_some_and(|state| {
            state.members[1].is_empty()
                && (0..self.plan.replicas).all(|slot| {
                    let live = self.live(Place::Replica(shard, slot));
                    live.is_some_and(|proc| match &self.procs[proc].machine {
                        Machine::Replica(replica) => {
                            let listed = state.members[0].get(usize::from(slot));
                            listed == Some(&replica.config().inc.get())
                        }
                        _ => false,
                    })
                })
        });
        let sound = enough
            && all_listed
            && (flushed || self.is_whole(shard))
            && places
                .any(|place| !(flushed && self.victim(shard) == place) && self.holds_all(place));
        sound.then_some(slot)
    }

    /// Whether a replica has applied and holds everything that its shard has committed.
    fn holds_all(&self, place: Place) -> bool {
        let (Some(proc), Place::Replica(shard, _)) = (self.live(place), place) else {
            return false;
        };
        let (Machine::Replica(replica), Some(state)) = (
            &self.procs[proc].machine,
            self.history.reference.shards.get(&shard),
        ) else {
            return false;
        };
        let status = replica.status(self.local(proc));
        let lens = status.lens.iter().zip(&state.segments);
        let (epoch, applied) = (status.epoch.get(), status.applied.get());
        (epoch, applied) == (state.epoch, state.last)
            && lens
                .clone()
                .all(|(lens, segment)| lens.1.get() >= segment.len)
    }

    /// Whether shards and clients go on by themselves: everybody is where the controller thinks, and rounds go up.
    fn needs_no_view(&self, shards: &[u32], clients: &[Place]) -> bool {
        let machine = |place: Place| {
            self.live(place)
                .map(|proc| (proc, &self.procs[proc].machine))
        };
        let Some((_, Machine::Root(root))) = machine(Place::Root(self.leader)) else {
            return false;
        };
        // A leaf has no shards before its edge has begun, and that needs a view for each of its lives.
        let ordered = |shard: &u32| {
            let state = self.history.reference.shards.get(shard);
            let leaf = self.trees.above(Place::Replica(*shard, 0)).first();
            let Some((proc, Machine::Leaf(leaf))) = leaf.and_then(|leaf| machine(*leaf)) else {
                return false;
            };
            let rows = leaf.status(self.local(proc));
            rows.iter().any(|row| {
                row.shard.get() == *shard
                    && row.whole
                    && state.is_some_and(|state| state.epoch == row.epoch.get())
            })
        };
        let knows = |place: &Place| match machine(*place) {
            Some((_, Machine::Client(client, _))) => {
                client.map_version().is_some() && !client.wants_map()
            }
            _ => false,
        };
        let paths = shards
            .iter()
            .map(|shard| self.trees.path(Place::Replica(*shard, 0)));
        let mut above = paths.flatten().filter(|place| is_vertex(*place));
        let status = root.status();
        // The leader may not have heard yet that a member is gone, or that another life has taken its place.
        let there = |slot: u8| match machine(Place::Root(slot)) {
            Some((_, Machine::Root(member))) => {
                let listed = status.group.iter().take(status.members);
                let mut listed = listed.filter(|it| it.connected);
                listed.any(|it| it.inc == member.status().inc)
            }
            _ => false,
        };
        status.edges > 0
            && above.all(|place| self.runs(place))
            && status.recorded
            && (0..self.plan.roots).all(there)
            && shards
                .iter()
                .all(|shard| ordered(shard) && self.is_whole(*shard))
            && clients.iter().all(knows)
    }

    fn core_ns(&self) -> u64 {
        CORE_NS / 2 * u64::from(self.plan.shards.max(2))
    }

    fn fall_ill(&mut self, place: Place, ill: Ill, core: &mut Core, rng: &mut Rng) {
        let ill = match (ill, self.live(place)) {
            // What is dead already stays so.
            (_, None) => Ill::Dead,
            (Ill::Dead, Some(_)) if !self.allows(place, Harm::Stop) => Ill::Cut,
            (ill, _) => ill,
        };
        self.say(|| format!("{place} is not of the core: {ill:?}"));
        let until = Time::from_ns(self.now.as_ns() + 2 * self.core_ns());
        let mut others = self.places();
        others.extend(
            self.everyone()
                .iter()
                .filter(|at| matches!(at, Place::Client(_))),
        );
        let others = others.into_iter().filter(|other| *other != place);
        let [to, from]: [Vec<Way>; 2] = [
            others.clone().map(|other| (place, other)).collect(),
            others.map(|other| (other, place)).collect(),
        ];
        let now = self.now;
        let both = || Cover::ways(to.iter().chain(&from).copied(), now, until);
        match ill {
            Ill::Well => {}
            Ill::Dead => {
                core.dead.insert(place);
                if let Some(proc) = self.live(place) {
                    self.kill(proc);
                    if let Machine::Client(_, app) = &mut self.procs[proc].machine {
                        app.abandon(&mut self.history);
                    } else {
                        core.wanted.push(place);
                    }
                }
            }
            Ill::Still => {
                if let Some(proc) = self.live(place) {
                    self.hold(proc, 2 * self.core_ns());
                }
            }
            Ill::Cut => self
                .weather
                .begin(now, Fault::PartitionFull, Effect::Cut, both()),
            Ill::Half => {
                let ways = if rng.permille(500) { &to } else { &from };
                let cover = Cover::ways(ways.iter().copied(), now, until);
                self.weather
                    .begin(now, Fault::PartitionOneWay, Effect::Cut, cover);
            }
            Ill::Slow => {
                let slow = Effect::Slow(rng.pick(&[5_000_000, 80_000_000]));
                self.weather.begin(now, Fault::Delay, slow, both());
            }
        }
    }

    /// Whether a process may not start at a place: it stays dead for now.
    pub(crate) fn stays_dead(&mut self, place: Place) -> bool {
        let Some(core) = &mut self.core else {
            return false;
        };
        let dead = core.dead.contains(&place);
        if dead && !core.wanted.contains(&place) {
            core.wanted.push(place);
        }
        dead
    }

    /// Whether a place is of the core.
    pub(crate) fn of_core(&self, place: Place) -> bool {
        self.core
            .as_ref()
            .is_some_and(|core| core.places.contains(&place))
    }

    /// How many appends of a client count: those acknowledged, and those that have not ended.
    fn core_appends(&self, number: u32) -> (u64, u64) {
        let first = self.core.as_ref().map_or(0, |core| core.first);
        let ops = self.history.ops.iter().skip(first);
        ops.filter(|op| op.client == number)
            .fold((0, 0), |(acks, open), op| match op.ended {
                Ended::Ordered(_) => (acks + 1, open),
                Ended::Open => (acks, open + 1),
                _ => (acks, open),
            })
    }

    /// What the core has not done yet, if anything.
    fn core_lacks(&self) -> Option<String> {
        let core = self.core.as_ref()?;
        let mut clients = core.places.iter().filter_map(|place| match place {
            Place::Client(number) => Some(*number),
            _ => None,
        });
        clients.find_map(|number| {
            let (acks, open) = self.core_appends(number);
            let tail = match self
                .live(Place::Client(number))
                .map(|proc| &self.procs[proc].machine)
            {
                Some(Machine::Client(_, app)) => app.tail,
                _ => 0,
            };
            (acks < ACKS || tail <= core.tail).then(|| {
                format!(
                    "client {number} has {acks} acks and {open} appends that wait, saw the tail at {tail}, it was at {}; of the core are {:?}, dead are {:?}",
                    core.tail, core.places, core.dead
                )
            })
        })
    }

    /// A client of the core acts: it appends until enough is acknowledged, and asks for the tail.
    pub(crate) fn core_act(&mut self, proc: ProcId) {
        let Place::Client(number) = self.procs[proc].place else {
            return;
        };
        let (acks, open) = self.core_appends(number);
        let (from, now) = (
            self.core.as_ref().map_or(0, |core| core.tail),
            self.local(proc),
        );
        let Machine::Client(client, app) = &mut self.procs[proc].machine else {
            return;
        };
        app.resume_all(now, client, &mut self.history);
        if client.map_version().is_none() {
            return;
        }
        if acks < ACKS && open < PENDING_MAX {
            app.append(now, client, &self.plan, &mut self.history);
        }
        if self.plan.is_small() {
            // What is full waits for a trim.
            app.ask_trim(now, client, &mut self.history);
        }
        if app.tail <= from && acks > 0 {
            app.ask_tail(now, client, &mut self.history);
        }
    }

    /// Looks whether the core has done what it must.
    pub(crate) fn look_at_core(&mut self) {
        let Some(since) = self.core.as_ref().map(|core| core.since) else {
            return;
        };
        let waited = self.now.as_ns() - since.as_ns();
        match self.core_lacks() {
            None => {
                self.history.seen.core_ns = waited;
                self.history.seen.core_alone = !self.of_core(Place::Controller);
                self.end_core();
                self.heal_all();
            }
            Some(what) if waited >= self.core_ns() => self.history.violated(Violation::new(
                Invariant::L1,
                format!("a legal core makes no progress: {what}"),
            )),
            Some(_) => {}
        }
    }

    fn end_core(&mut self) {
        let Some(core) = self.core.take() else { return };
        for place in core.wanted {
            let after = self.rng_proc.range(200_000, 20_000_000);
            self.after(after, Event::Start(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn until_core(seed: u64) -> World {
        let plan = Plan {
            legal_core: true,
            ..Plan::calm()
        };
        let mut world = World::new(seed, plan);
        while world.phase < Phase::Core && world.step_on() {}
        assert!(world.core.is_some());
        world
    }

    #[test]
    fn the_rest_stays_as_it_is_until_the_core_has_made_progress() {
        for seed in 1..=20 {
            let mut world = until_core(seed);
            let dead = world.core.as_ref().map(|core| core.dead.clone()).unwrap();
            while world.phase == Phase::Core && world.step_on() {
                assert!(dead.iter().all(|place| world.live(*place).is_none()));
            }
            assert!(
                world.history.failure.is_none(),
                "{:?}",
                world.history.failure
            );
            let seen = world.history.seen;
            assert!(seen.core_ns > 0 && seen.core_ns < CORE_NS);
            world.run().unwrap_or_else(|failure| panic!("{failure}"));
        }
    }

    /// What is found when it fails: one place of the core is not there after all.
    #[test]
    fn a_core_that_lacks_what_it_needs_makes_no_progress() {
        for lacks in [Place::Root(0), Place::Leaf(0)] {
            let mut world = until_core(3);
            if let Some(core) = &mut world.core {
                core.dead.insert(lacks);
            }
            let proc = world.live(lacks).unwrap();
            world.kill(proc);
            let failure = world.run().unwrap_err();
            assert_eq!(failure.violation.invariant, Invariant::L1);
            assert!(failure.violation.what.contains("a legal core"), "{failure}");
        }
    }
}
