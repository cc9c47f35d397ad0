//! What the network does to messages while it is bad: spells of loss, repetition, disorder, damage, delay, clogs and cuts.
//!
//! A spell covers ways (from one place to another, one direction at a time) for a while each. It counts as installed from
//! the first message that it really hit: one that covers what nobody says is no fault.

use std::collections::BTreeMap;

use ionian_types::Time;

use crate::plan::{Fault, FaultCounts};
use crate::process::Place;
use crate::rng::Rng;

/// A direction between two places: from, to.
pub type Way = (Place, Place);

/// What a spell does to what it covers. Odds are per thousand messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Datagrams vanish.
    Lose(u64),
    /// Datagrams arrive twice.
    Repeat(u64),
    /// Datagrams are up to so many nanoseconds late, and others overtake them.
    Disorder(u64, u64),
    /// A bit of a datagram flips.
    Damage(u64),
    /// Everything takes up to so many nanoseconds longer.
    Slow(u64),
    /// Everything is held until the spell is over.
    Hold,
    /// Nothing passes.
    Cut,
}

/// What a spell covers, and from when until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cover {
    /// Every way.
    Everywhere(Time, Time),
    /// These.
    Ways(BTreeMap<Way, (Time, Time)>),
}

impl Cover {
    /// The ways, all for the same time.
    pub fn ways(ways: impl IntoIterator<Item = Way>, from: Time, until: Time) -> Self {
        Self::Ways(ways.into_iter().map(|way| (way, (from, until))).collect())
    }

    /// When it ends for a way that it covers now.
    fn until(&self, now: Time, way: Way) -> Option<Time> {
        let (from, until) = match self {
            Self::Everywhere(from, until) => (*from, *until),
            Self::Ways(ways) => *ways.get(&way)?,
        };
        (from <= now && now < until).then_some(until)
    }

    fn is_over(&self, now: Time) -> bool {
        match self {
            Self::Everywhere(_, until) => *until <= now,
            Self::Ways(ways) => ways.values().all(|(_, until)| *until <= now),
        }
    }
}

/// Bad weather of one kind.
#[derive(Clone, Debug)]
pub struct Spell {
    /// The fault that it is.
    pub fault: Fault,
    /// What it does.
    pub effect: Effect,
    /// Where and when.
    pub cover: Cover,
    /// It hit something.
    pub hit: bool,
}

/// What happens to one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// It does not arrive.
    pub lost: bool,
    /// It arrives so many times.
    pub copies: u32,
    /// A bit of it flips.
    pub damaged: bool,
    /// Each copy is late by up to so many nanoseconds.
    pub late_ns: u64,
    /// It takes so many nanoseconds longer.
    pub delay_ns: u64,
    /// It does not arrive before.
    pub not_before: Time,
}

impl Passage {
    const CLEAR: Self = Self {
        lost: false,
        copies: 1,
        damaged: false,
        late_ns: 0,
        delay_ns: 0,
        not_before: Time::ZERO,
    };
}

/// All the spells.
#[derive(Default, Debug)]
pub struct Weather {
    spells: Vec<Spell>,
}

impl Weather {
    /// A spell begins.
    pub fn begin(&mut self, now: Time, fault: Fault, effect: Effect, cover: Cover) {
        self.spells.retain(|spell| !spell.cover.is_over(now));
        self.spells.push(Spell {
            fault,
            effect,
            cover,
            hit: false,
        });
    }

    /// Everything is fine again.
    pub fn clear(&mut self) {
        self.spells.clear();
    }

    /// What happens to a message that is sent now. Spells that it is the first to be hit by are added to `installed`.
    pub fn pass(
        &mut self,
        now: Time,
        way: Way,
        rng: &mut Rng,
        installed: &mut FaultCounts,
    ) -> Passage {
        let mut passage = Passage::CLEAR;
        for spell in &mut self.spells {
            let Some(until) = spell.cover.until(now, way) else {
                continue;
            };
            let hit = match spell.effect {
                Effect::Lose(odds) => {
                    let hit = rng.permille(odds);
                    passage.lost |= hit;
                    hit
                }
                Effect::Repeat(odds) => {
                    let hit = rng.permille(odds);
                    passage.copies += u32::from(hit);
                    hit
                }
                Effect::Disorder(odds, ns) => {
                    let hit = rng.permille(odds);
                    passage.late_ns = passage.late_ns.max(if hit { ns } else { 0 });
                    hit
                }
                Effect::Damage(odds) => {
                    let hit = rng.permille(odds);
                    passage.damaged |= hit;
                    hit
                }
                Effect::Slow(ns) => {
                    passage.delay_ns += rng.range(ns / 20, ns);
                    true
                }
                Effect::Hold => {
                    passage.not_before = passage.not_before.max(until);
                    true
                }
                Effect::Cut => {
                    passage.lost = true;
                    true
                }
            };
            if hit && !core::mem::replace(&mut spell.hit, true) {
                installed[spell.fault] += 1;
            }
        }
        passage
    }

    /// Whether two places can open a connection: nothing is cut or held between them, either way.
    pub fn connects(&mut self, now: Time, way: Way, installed: &mut FaultCounts) -> bool {
        let mut connects = true;
        for spell in &mut self.spells {
            let stops = matches!(spell.effect, Effect::Hold | Effect::Cut)
                && [way, (way.1, way.0)]
                    .iter()
                    .any(|way| spell.cover.until(now, *way).is_some());
            if stops {
                connects = false;
                if !core::mem::replace(&mut spell.hit, true) {
                    installed[spell.fault] += 1;
                }
            }
        }
        connects
    }
}

/// The windows of a swizzle: the ways stop one by one in the order given, and go on in another order.
#[must_use]
pub fn swizzle(ways: &[[Way; 2]], now: Time, step_ns: u64, rng: &mut Rng) -> Cover {
    let after = |ns: u64| Time::from_ns(now.as_ns() + ns);
    let count = ways.len() as u64;
    let mut ends: Vec<u64> = (0..count).collect();
    for at in (1..ends.len()).rev() {
        ends.swap(at, rng.below(at as u64 + 1) as usize);
    }
    if ends.is_sorted() {
        ends.reverse();
    }
    let windows = ways
        .iter()
        .zip(0..)
        .zip(ends)
        .flat_map(|((pair, at), end)| {
            let window = (after(at * step_ns), after((count + end) * step_ns));
            pair.iter().map(move |way| (*way, window))
        });
    Cover::Ways(windows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place::Root(0);
    const B: Place = Place::Leaf(0);
    const C: Place = Place::Controller;

    fn at(us: u64) -> Time {
        Time::from_ns(us * 1000)
    }

    struct Sky {
        weather: Weather,
        rng: Rng,
        installed: FaultCounts,
    }

    impl Sky {
        fn new(fault: Fault, effect: Effect, cover: Cover) -> Self {
            let mut weather = Weather::default();
            weather.begin(at(0), fault, effect, cover);
            Self {
                weather,
                rng: Rng::stream(1, "weather"),
                installed: FaultCounts::default(),
            }
        }

        fn pass(&mut self, us: u64, way: Way) -> Passage {
            self.weather
                .pass(at(us), way, &mut self.rng, &mut self.installed)
        }
    }

    #[test]
    fn each_effect_hits_about_as_often_as_its_odds_say_and_is_counted_once() {
        type Of = fn(&Passage) -> bool;
        let cases: [(Fault, Effect, Of); 4] = [
            (Fault::Loss, Effect::Lose(200), |p| p.lost),
            (Fault::Duplicate, Effect::Repeat(200), |p| p.copies == 2),
            (Fault::Reorder, Effect::Disorder(200, 7), |p| p.late_ns == 7),
            (Fault::Garble, Effect::Damage(200), |p| p.damaged),
        ];
        for (fault, effect, of) in cases {
            let mut sky = Sky::new(fault, effect, Cover::Everywhere(at(0), at(10)));
            let hits = (0..10_000).filter(|_| of(&sky.pass(1, (A, B)))).count();
            assert!((1_800..2_200).contains(&hits), "{fault:?}: {hits}");
            assert_eq!(sky.installed[fault], 1);
            assert_eq!(sky.pass(10, (A, B)), Passage::CLEAR, "it is over");
        }
    }

    #[test]
    fn a_spell_that_covers_what_nobody_says_is_not_installed() {
        let cover = Cover::ways([(A, B)], at(5), at(10));
        let mut sky = Sky::new(Fault::PartitionOneWay, Effect::Cut, cover);
        assert_eq!(sky.pass(4, (A, B)), Passage::CLEAR);
        assert_eq!(sky.pass(7, (B, A)), Passage::CLEAR, "the other direction");
        assert_eq!(sky.pass(7, (A, C)), Passage::CLEAR);
        assert_eq!(sky.installed[Fault::PartitionOneWay], 0);
        assert!(sky.pass(7, (A, B)).lost);
        assert_eq!(sky.installed[Fault::PartitionOneWay], 1);
        let Sky {
            weather, installed, ..
        } = &mut sky;
        // A connection needs both directions.
        assert!(!weather.connects(at(7), (B, A), installed));
        assert!(weather.connects(at(7), (B, C), installed));
        assert!(weather.connects(at(10), (B, A), installed));
    }

    #[test]
    fn a_clog_holds_until_it_ends_and_slowness_delays() {
        let clog = Cover::ways([(A, B)], at(0), at(30));
        let mut sky = Sky::new(Fault::Clog, Effect::Hold, clog);
        assert_eq!(sky.pass(3, (A, B)).not_before, at(30));
        let slow = Cover::ways([(A, B)], at(0), at(30));
        let mut sky = Sky::new(Fault::Delay, Effect::Slow(1000), slow);
        let delay = sky.pass(3, (A, B)).delay_ns;
        assert!((50..1000).contains(&delay), "{delay}");
    }

    #[test]
    fn a_swizzle_stops_one_by_one_and_goes_on_in_another_order() {
        for seed in 0..50 {
            let mut rng = Rng::stream(seed, "swizzle");
            let pairs = [[(A, B), (B, A)], [(A, C), (C, A)], [(B, C), (C, B)]];
            let Cover::Ways(windows) = swizzle(&pairs, at(0), 1000, &mut rng) else {
                unreachable!("a swizzle names its ways")
            };
            let mut spans: Vec<_> = pairs.iter().map(|pair| windows[&pair[0]]).collect();
            assert!(spans.is_sorted_by_key(|(from, _)| *from));
            let last_stop = spans[2].0;
            assert!(spans.iter().all(|(_, until)| *until > last_stop));
            let before = spans.clone();
            spans.sort_by_key(|(_, until)| *until);
            assert_ne!(before, spans, "seed {seed}: the order is the same");
        }
    }
}
