//! Valid histories from a seed: a small reference log with clients, readers and subscriptions around it.
//!
//! Each seed first draws what its history is made of, so that every feature meets every other one. What is written is what
//! somebody could have seen of a log that keeps every promise: an operation takes effect at one moment between its call and
//! its answer, appends at the moments of cuts.

mod draw;
mod streams;
mod world;

use crate::event::{Event, FaultState, Header, Order, Phase, White};

pub use draw::Draw;
use world::World;

/// What the history of a seed is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The header.
    pub header: Header,
    /// Logs.
    pub logs: u64,
    /// Clients of each.
    pub clients: u64,
    /// Sessions of a client.
    pub sessions: u64,
    /// Steps before the heal.
    pub steps: u64,
    /// An operation is called in so many of 100 steps, per client.
    pub busy: u64,
    /// Holes come in so many of 100 cuts.
    pub holes: u64,
    /// An epoch begins in so many of 1000 steps.
    pub epochs: u64,
    /// Trims are called.
    pub trims: bool,
    /// Positions are filled.
    pub fills: bool,
    /// Records move to other sessions, or get their first name late.
    pub renames: bool,
    /// Sightings leave out the session.
    pub omit_sessions: bool,
    /// Acks state the segment, and cuts are recorded.
    pub cuts: bool,
    /// Acks state the generation of the segment.
    pub generations: bool,
    /// Selective subscriptions.
    pub selective: bool,
    /// Faults, in so many of 1000 steps.
    pub faults: u64,
    /// A loss is declared.
    pub loss: bool,
    /// The readers' clock runs ahead by this, within the clock error.
    pub skew: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let spec = draw.chance(40);
        let beyond_f = !spec && draw.chance(15);
        let cuts = draw.chance(30);
        let renames = draw.chance(30);
        let fills = !cuts && draw.chance(50);
        let sessions = 1 + draw.below(2);
        let order = match draw.below(8) {
            0 => Order::Fifo,
            1 => Order::Total,
            _ => Order::Linearizable,
        };
        let clock_err_ns = if draw.chance(20) {
            1 + draw.below(50)
        } else {
            0
        };
        let faults = if draw.chance(60) {
            1 + draw.below(40)
        } else {
            0
        };
        let mut plan = Self {
            header: Header {
                run: format!("generated-{seed}"),
                seed,
                order,
                clock_err_ns,
                dedupe: draw.chance(90),
                spec,
                dense: draw.chance(50),
                beyond_f,
                faults: u64::from(faults > 0),
                shards: 2,
                replicas: 2,
                f: 1,
                ..Header::default()
            },
            logs: 1 + u64::from(draw.chance(30)),
            clients: 1 + draw.below(3),
            sessions,
            steps: 20 + draw.below(80),
            busy: 15 + draw.below(60),
            holes: if cuts { 0 } else { draw.below(30) },
            epochs: draw.below(40),
            trims: draw.chance(50),
            fills,
            renames,
            omit_sessions: sessions == 1 && !renames && draw.chance(40),
            cuts,
            generations: false,
            selective: !beyond_f && draw.chance(30),
            faults,
            loss: beyond_f,
            skew: draw.below(clock_err_ns + 1),
        };
        plan.header.done = draw.chance(50);
        plan.generations = draw.chance(50);
        if draw.chance(50) {
            plan.header.durability = "D1".to_owned();
        }
        plan
    }
}

/// The valid history of a plan.
#[must_use]
pub fn generate(plan: &Plan) -> Vec<Event> {
    let mut world = World::new(plan);
    for _ in 0..plan.steps {
        world.step(false);
    }
    world.announced_faults();
    for log in 0..plan.logs {
        let (t, head, tail) = (world.now, 0, 0);
        for phase in [Phase::Load, Phase::Heal] {
            world.emit(Event::Phase {
                t,
                log,
                phase,
                head,
                tail,
            });
        }
    }
    for _ in 0..10 {
        world.step(true);
    }
    world.settle();
    for log in 0..plan.logs {
        let (t, head, tail) = world.bounds(log);
        world.emit(Event::Phase {
            t,
            log,
            phase: Phase::Final,
            head,
            tail,
        });
    }
    world.final_read();
    world.finish()
}

impl World<'_> {
    /// Faults come and go; at least those that were announced.
    fn faults(&mut self) {
        if self.draw.below(1000) < self.plan.faults {
            let state = match self.draw.below(6) {
                0 => FaultState::Skipped,
                1 => FaultState::Unknown,
                2 => FaultState::Healed,
                _ => FaultState::Installed,
            };
            self.fault(state);
        }
    }

    fn announced_faults(&mut self) {
        while self.installed < self.plan.header.faults || self.tried > 0 && self.installed == 0 {
            self.fault(FaultState::Installed);
        }
    }

    fn fault(&mut self, state: FaultState) {
        self.tried += 1;
        self.installed += u64::from(state == FaultState::Installed);
        let t = self.now;
        self.emit(Event::Nem {
            t,
            fault: "crash".to_owned(),
            state,
            beyond_f: false,
        });
    }

    /// Digests of equal replicas.
    fn digests(&mut self, log: u64) {
        for (segment, len) in self.lengths(log).into_iter().enumerate() {
            let segment = segment as u64;
            for _ in 0..2 {
                self.emit(Event::White(Box::new(White::Sum {
                    log,
                    shard: segment / 2,
                    rep: segment % 2,
                    len,
                    h: log * 100 + segment,
                })));
            }
        }
    }
}
