//! The slow checks: what every member holds, and whether a cluster that has healed has settled.

use std::collections::BTreeMap;

use ionian_types::{Knobs, Lsn, Slot};

use super::{Away, is_away, record_at};
use crate::invariant::{Invariant, Violation};
use crate::process::{Machine, Place};
use crate::world::{Event, LIVENESS_NS, Phase, World};

/// Virtual time after the faults are over after which a cluster that may stand still for good counts as standing still.
pub(crate) const HALT_NS: u64 = LIVENESS_NS / 3;

/// Virtual time after the faults are over from which on replicas with little room count as full.
const FULL_NS: u64 = 5_000_000_000;

impl<K: Knobs> World<K> {
    /// O4: a member that holds a committed position holds the owning value; `all` looks at every position. Where something
    /// was still to be read back or repaired, if anywhere.
    fn o4_scrub(&mut self, all: bool) -> Option<Place> {
        let mut away = None;
        for process in self.procs.iter_mut().filter(|process| process.alive) {
            let Machine::Replica(replica) = &mut process.machine else {
                continue;
            };
            let Some(state) = replica.shard_state().cloned() else {
                continue;
            };
            let shard = state.shard.get();
            for (slot, segment) in state.segments.iter().enumerate() {
                let index = Slot::new(slot as u8);
                let first = replica.store().first(index).get();
                let end = segment.len.min(replica.store().len(index)).get();
                let from = if all {
                    first
                } else {
                    first.max(end.saturating_sub(16))
                };
                for position in from..end {
                    match is_away(replica.store_mut(), index, position) {
                        Some(Away::Soon) => {
                            away = Some(process.place);
                            continue;
                        }
                        Some(Away::Never) => continue,
                        None => {}
                    }
                    let key = (
                        shard,
                        slot as u8,
                        segment.owner(Lsn::new(position)).get(),
                        position,
                    );
                    let gsn = self.history.reference.by_place.get(&key).copied();
                    let rec = gsn
                        .and_then(|gsn| self.history.reference.recs.get(&gsn))
                        .copied();
                    let held = record_at(replica.store_mut(), index, position);
                    let fits = rec.zip(held).is_some_and(|(rec, (generation, content))| {
                        generation == rec.generation
                            && rec.content.is_none_or(|known| known == content)
                    });
                    self.history.check(Invariant::O4, fits, || {
                        format!(
                            "{:?} holds {held:?} at {key:?}, committed is {rec:?} at {gsn:?}",
                            process.place
                        )
                    });
                    if !fits {
                        return away;
                    }
                }
            }
        }
        away
    }

    /// O5: within what the class survives, somebody who lives holds each committed record. On devices it may return.
    fn o5_held(&mut self) {
        if self.plan.class.is_flushed() || self.plan.beyond_f {
            return;
        }
        let mut lens: BTreeMap<(u32, u8), u64> = BTreeMap::new();
        for process in self.procs.iter().filter(|process| process.alive) {
            let (Machine::Replica(replica), Place::Replica(shard, _)) =
                (&process.machine, process.place)
            else {
                continue;
            };
            for slot in 0..self.plan.replicas {
                let held = replica.store().len(Slot::new(slot)).get();
                let most = lens.entry((shard, slot)).or_default();
                *most = held.max(*most);
            }
        }
        for (shard, state) in &self.history.reference.shards {
            for (slot, segment) in (0..).zip(&state.segments) {
                let most = lens.get(&(*shard, slot)).copied().unwrap_or(0);
                if most < segment.len {
                    let what = format!(
                        "of s{shard}r{slot} {} records are committed, the most that a replica holds is {most}",
                        segment.len
                    );
                    return self.history.violated(Violation::new(Invariant::O5, what));
                }
            }
        }
    }

    /// Looks at every record everywhere. What is still to be read back or repaired, if anything: it is on its way then.
    fn scrubbed(&mut self) -> Option<Violation> {
        let away = self.o4_scrub(true)?;
        for proc in 0..self.procs.len() {
            if self.procs[proc].alive && matches!(self.procs[proc].machine, Machine::Replica(_)) {
                self.run_disk(proc);
                self.flush_soon(proc);
            }
        }
        let damaged = self
            .live(away)
            .and_then(|proc| match &self.procs[proc].machine {
                Machine::Replica(replica) => {
                    let slots = (0..self.plan.replicas).map(Slot::new);
                    let ranges = slots.map(|slot| replica.store().damaged(slot).to_vec());
                    Some(ranges.collect::<Vec<_>>())
                }
                _ => None,
            });
        Some(Violation::new(
            Invariant::O4,
            format!("after heal: {away:?} does not hold every record: damaged are {damaged:?}"),
        ))
    }

    /// Looks at the slow checks, and whether the phase is over.
    pub(crate) fn look(&mut self) {
        self.after(5_000_000, Event::Look);
        self.look_at_space();
        self.look_at_trees();
        self.deploy();
        self.o4_scrub(false);
        self.o5_held();
        if self.phase == Phase::Core {
            return self.look_at_core();
        }
        if self.phase < Phase::Resting {
            return;
        }
        let waited = self.now.as_ns() - self.healed_at.as_ns();
        let mut unsettled = self.unsettled();
        if unsettled.is_none() && self.phase == Phase::Reading {
            unsettled = self.scrubbed();
        }
        if self.plan.is_small() && !self.made_room && self.phase == Phase::Resting {
            // A promise of room ends with the life of the replica that made it, and the next life may give the room to
            // another segment: what the peer has taken for it waits for a trim.
            if unsettled.is_none() || waited >= FULL_NS {
                self.make_room();
            }
            return;
        }
        match (self.phase, unsettled) {
            (Phase::Resting, None) => self.last_reader(),
            (Phase::Reading, None) => {
                self.o9_drained();
                self.history.finish(false);
                let (head, tail) = (self.history.reference.trim, self.history.reference.end);
                self.history.recorder.finished(head, tail);
                self.phase = Phase::Done;
            }
            // Nothing was wrong so far, and nothing is given out for what is not to be had.
            (_, Some(_)) if self.plan.may_halt() && waited >= HALT_NS => {
                self.history.finish(true);
                self.stands_still = true;
                self.phase = Phase::Done;
            }
            (_, Some(violation)) if waited >= LIVENESS_NS => self.history.violated(violation),
            _ => {}
        }
    }

    /// What has not settled yet.
    fn unsettled(&self) -> Option<Violation> {
        let end = self.history.reference.end;
        for number in 0..self.clients {
            let Some(proc) = self.live(Place::Client(number)) else {
                continue;
            };
            let Machine::Client(client, app) = &self.procs[proc].machine else {
                continue;
            };
            if client.map_version().is_none() {
                return Some(Violation::new(
                    Invariant::L1,
                    format!("after heal: client {number} waits for the map"),
                ));
            }
            if !app.is_idle() {
                return Some(Violation::new(
                    Invariant::L1,
                    format!("after heal: client {number} waits: {}", app.waits()),
                ));
            }
            if let Some(sub) = app.subs.iter().find(|sub| sub.next < end) {
                return Some(Violation::new(
                    Invariant::L1,
                    format!("after heal: client {number} has {sub:?}, the order ends at {end}"),
                ));
            }
        }
        let ended = self.ended_unlogged();
        for place in self.places() {
            let Some(proc) = self.live(place) else {
                return Some(Violation::new(
                    Invariant::L1,
                    format!("after heal: {place:?} is not there"),
                ));
            };
            let Machine::Replica(replica) = &self.procs[proc].machine else {
                continue;
            };
            let status = replica.status(self.local(proc));
            let Place::Replica(shard, _) = place else {
                continue;
            };
            if ended.contains(&shard) {
                continue;
            }
            let Some(state) = self.history.reference.shards.get(&shard) else {
                return Some(Violation::new(
                    Invariant::L1,
                    format!("after heal: shard {shard} was never opened"),
                ));
            };
            let whole = state
                .segments
                .iter()
                .zip(&status.lens)
                .all(|(segment, lens)| lens.0.get() == segment.len && lens.2.get() == segment.len);
            // What is full waits for a trim; what has ended takes no more.
            let takes = status.appendable || status.full || state.finalized;
            if !(takes && status.applied.get() == state.last && whole) {
                return Some(Violation::new(
                    Invariant::O9,
                    format!(
                        "after heal: {place:?} is not up to date: {status:?}, the cut log says {state:?}"
                    ),
                ));
            }
        }
        if let Some(still) = self.tree_unsettled() {
            return Some(still);
        }
        if let Some(running) = self.running_change() {
            return Some(Violation::new(
                Invariant::L1,
                format!("after heal: a change of an operator goes on: {running}"),
            ));
        }
        self.shards()
            .into_iter()
            .find(|shard| {
                !self.is_finalized(*shard) && !ended.contains(shard) && !self.is_whole(*shard)
            })
            .map(|shard| {
                Violation::new(
                    Invariant::O9,
                    format!("after heal: shard {shard} is not known to be whole"),
                )
            })
    }

    /// A log that has filled its replicas takes appends again after a trim: everything that stands there, so that no
    /// file is kept for the sake of one record.
    fn make_room(&mut self) {
        self.made_room = true;
        let end = self.history.reference.end;
        let Some(proc) = (0..self.clients).find_map(|number| self.live(Place::Client(number)))
        else {
            return;
        };
        let now = self.local(proc);
        if let Machine::Client(client, app) = &mut self.procs[proc].machine {
            app.trim(now, client, end, &mut self.history);
        }
        self.flush_soon(proc);
    }

    /// Every client appends once more, and a new subscription walks everything from the start.
    fn last_reader(&mut self) {
        self.phase = Phase::Reading;
        for number in 0..self.clients {
            let Some(proc) = self.live(Place::Client(number)) else {
                continue;
            };
            let now = self.local(proc);
            let Machine::Client(client, app) = &mut self.procs[proc].machine else {
                continue;
            };
            while !app.subs.is_empty() {
                app.unsubscribe(client, 0, &mut self.history);
            }
            app.subscribe(now, client, 0, true, &mut self.history);
            let before = self.history.ops.len();
            app.append(now, client, &self.plan, &mut self.history);
            let taken = self.history.ops.len() > before;
            self.history.check(Invariant::L1, taken, || {
                format!("client {number} cannot append after heal")
            });
            let (trim, end) = (self.history.reference.trim, self.history.reference.end);
            for step in 0..16 {
                let gsn = trim + (end - trim) * step / 16;
                if gsn < end {
                    app.read(now, client, gsn, end, &mut self.history);
                }
            }
            self.flush_soon(proc);
        }
    }

    /// O9: nothing waits anywhere, but where a shard has ended with a cut log that was lost.
    fn o9_drained(&mut self) {
        let ended = self.ended_unlogged();
        for proc in 0..self.procs.len() {
            let of_ended = matches!(self.procs[proc].place, Place::Replica(shard, _) if ended.contains(&shard));
            if !self.procs[proc].alive || of_ended {
                continue;
            }
            if let Machine::Replica(replica) = &self.procs[proc].machine {
                let waiting = replica.status(self.local(proc)).waiting;
                let place = self.procs[proc].place;
                self.history.check(Invariant::O9, waiting == 0, || {
                    format!("{waiting} records of {place:?} wait to be ordered")
                });
            }
        }
    }
}
