//! What the machines of all lives counted, and what is kept of those that have died: their stores and buffers, and the
//! sessions of connections that both ends have given up, are by far the most of what a world holds in memory.

use ionian_core::outbox::{Outbox, OutboxLimits};
use ionian_types::{Knobs, Time};

use crate::process::{Machine, Process};
use crate::world::World;

/// Events that machines of all lives counted.
#[derive(Clone, Copy, Default, Debug)]
pub struct Machines {
    /// Backfills asked for.
    pub backfills: u64,
    /// Copies asked for.
    pub copies: u64,
    /// Repeated appends.
    pub repeats: u64,
    /// Starts of edges below the root.
    pub edge_starts: u64,
    /// Starts of edges of aggregators to those above them.
    pub inner_starts: u64,
    /// Edges to children of aggregators that went on over such a start.
    pub resumed: u64,
    /// Lanes that moved.
    pub rebinds: u64,
    /// States taken over from a peer.
    pub adoptions: u64,
    /// Records that a device damaged, found.
    pub damaged: u64,
    /// Those of them that went away without a repair.
    pub damaged_gone: u64,
    /// Records repaired from a peer.
    pub repaired: u64,
    /// Stores that said at a start that what they held is damaged beyond repair.
    pub halts: u64,
    /// The cluster stood still at the end, as it may beyond f: 1 or 0.
    pub stands_still: u64,
}

impl Machines {
    fn add<K: Knobs>(&mut self, process: &Process<K>, now: Time) {
        match &process.machine {
            Machine::Replica(replica) => {
                let counters = replica.status(process.clock.read(now)).counters;
                self.backfills += counters.backfills;
                self.copies += counters.copies;
                self.repeats += counters.repeats;
                self.adoptions += counters.adoptions;
                let store = replica.store().stats();
                self.damaged += store.damaged;
                self.damaged_gone += store.damaged_gone;
                self.repaired += store.repaired;
            }
            Machine::Root(root) => self.edge_starts += root.status().counters.edge_starts,
            Machine::Aggregator(aggregator) => {
                let counters = aggregator.counters();
                self.inner_starts += counters.edge_starts;
                self.resumed += counters.resumed;
            }
            Machine::Client(client, _) => self.rebinds += client.stats().rebinds,
            _ => {}
        }
    }
}

impl<K: Knobs> World<K> {
    /// Forgets what processes held that have died: nothing asks them any more.
    pub(crate) fn bury_dead(&mut self) {
        for proc in core::mem::take(&mut self.dying) {
            self.damage_of_life_adds_up(proc);
            let process = &mut self.procs[proc];
            self.past.add(process, self.now);
            process.machine = Machine::None;
            process.store = None;
            process.out = Outbox::new(OutboxLimits {
                arena_bytes: 0,
                messages: 0,
                connections: 0,
            });
        }
    }

    /// Forgets the sessions of links whose ends will neither hear nor say anything any more.
    pub(crate) fn drop_sessions(&mut self) {
        let (procs, links) = (&self.procs, &mut self.links);
        self.given_up.retain(|link| {
            let link = &mut links[*link];
            let Some(sessions) = &link.sessions else {
                return false;
            };
            // An end that has closed may still have to say so.
            let silent = link.ends.iter().zip(sessions.iter()).all(|(end, session)| {
                let done = session.next_deadline() == Time::FAR;
                !end.open && (done || !procs[end.proc].alive)
            });
            if silent {
                link.sessions = None;
                link.works = false;
            }
            !silent
        });
    }

    /// What the machines of all lives have counted.
    pub(crate) fn machines(&self) -> Machines {
        let mut machines = Machines {
            halts: self.halts,
            stands_still: u64::from(self.stands_still),
            ..self.past
        };
        for process in &self.procs {
            machines.add(process, self.now);
        }
        machines
    }
}
