//! The invariants O1 to O10 of the ordering protocol, checked on the machines themselves and on everything they say.

use std::collections::{BTreeMap, BTreeSet};

use ionian_store::{Fetch, Store};
use ionian_types::{ConnId, Durability, EntryNo, Knobs, Lsn, Slot};
use ionian_wire::Reader;
use ionian_wire::entry::{RowItem, ShardEntry};
use ionian_wire::frame::{
    AppendAck, DownShard, Entries, FateOutcome, LocateAnswer, LocateStatus, Message,
};
use ionian_wire::record::RecordView;

use crate::app::id_of;
use crate::edges::client_id;
use crate::history::History;
use crate::invariant::{Invariant, Violation};
use crate::process::{Machine, Place, ProcId, Process};
use crate::reference::{Content, Fresh, Reference};
use crate::world::{Event, LIVENESS_NS, Phase, World};

/// Virtual time after the faults are over after which a cluster that may stand still for good counts as standing still.
pub(crate) const HALT_NS: u64 = LIVENESS_NS / 3;

/// Whether the record at a position is on its way from the device, known to be damaged, or trimmed by now: nothing to look
/// at yet, or ever.
fn is_away(store: &mut Store, slot: Slot, position: u64) -> Option<Away> {
    let from = Lsn::new(position);
    match store.run(slot, from, Lsn::new(position + 1), usize::MAX) {
        Fetch::Wait | Fetch::Damaged(_) => Some(Away::Soon),
        Fetch::Trimmed => Some(Away::Never),
        Fetch::Ready(_) | Fetch::Beyond => None,
    }
}

/// Why there is nothing to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It is read back, or repaired.
    Soon,
    /// It is trimmed.
    Never,
}

/// The record at a position of a store: its generation and content.
fn record_at(store: &mut Store, slot: Slot, position: u64) -> Option<(u64, Content)> {
    let from = Lsn::new(position);
    let Fetch::Ready(run) = store.run(slot, from, Lsn::new(position + 1), usize::MAX) else {
        return None;
    };
    let view = RecordView::new_checked(store.bytes(&run)).ok()?;
    let header = view.header();
    if header.position != from || header.segment.slot != slot {
        return None;
    }
    let content = Content {
        client: header.client.get(),
        session: header.session.get(),
        seq: header.seq.get(),
        id: id_of(view.payload())?,
    };
    Some((header.generation.get(), content))
}

/// Virtual time after the faults are over from which on replicas with little room count as full.
const FULL_NS: u64 = 5_000_000_000;

impl<K: Knobs> World<K> {
    /// Takes over what the root counts as committed since it was last looked at.
    pub(crate) fn ingest(&mut self, proc: ProcId) {
        let mut fresh = Vec::new();
        let Machine::Root(root) = &self.procs[proc].machine else {
            return;
        };
        let status = root.status();
        // Whatever a member counts as committed is what the others do.
        let forgotten = self.plan.beyond_f && !self.plan.class.is_flushed();
        if forgotten && status.commit.get() > 0 && self.history.reference.end == 0 {
            let first = self.history.reference.entries.get(&1);
            let mine = root.committed_entry(EntryNo::new(1));
            if mine.is_some() && first.is_some_and(|first| Some(&first[..]) != mine) {
                // Nothing was ordered yet: a group that lost all begins again.
                self.history.reference = Reference::default();
                self.checked_roots.clear();
                self.compared.clear();
            }
        }
        let compared = self.compared.entry(proc).or_default();
        let from = (*compared + 1).max(status.cut_log_first.get());
        for number in from..=status.commit.get() {
            let known = self.history.reference.entries.get(&number);
            let mine = root.committed_entry(EntryNo::new(number));
            if known.is_some_and(|known| Some(&known[..]) != mine) {
                return self.history.fail(Invariant::O1, || {
                    format!(
                        "entry {number} is another one at {}",
                        self.procs[proc].place
                    )
                });
            }
        }
        *compared = status.commit.get().max(*compared);
        let last = self.history.reference.last;
        let first = status.cut_log_first.get();
        let commit = status.commit.get();
        if commit > 0 && commit >= last && self.checked_roots.insert(proc) {
            // Another life of the root: what was committed before stands, unless the class lost it.
            if self.plan.class.is_flushed() && last > 0 && first > last + 1 {
                return self.history.fail(Invariant::O1, || {
                    format!("the cut log begins at {first}, {last} was committed")
                });
            }
            for number in first..=last {
                let known = self.history.reference.entries.get(&number);
                let same = root.committed_entry(EntryNo::new(number)) == known.map(Vec::as_slice);
                if !same {
                    return self.history.fail(Invariant::O1, || {
                        format!("entry {number} changed with the root's life")
                    });
                }
            }
        } else if self.checked_roots.contains(&proc) && first > last + 1 && commit >= first {
            return self.history.fail(Invariant::O1, || {
                format!(
                    "entries {}..{first} were dropped before they were seen",
                    last + 1
                )
            });
        }
        let mut next = (last + 1).max(first);
        while next <= commit {
            let Some(bytes) = root.committed_entry(EntryNo::new(next)) else {
                return self.history.fail(Invariant::O1, || {
                    format!("entry {next} is committed and not there")
                });
            };
            self.history.take(next, bytes, &mut fresh);
            if self.history.failure.is_some() {
                return;
            }
            next += 1;
        }
        for shard in core::mem::take(&mut self.history.reference.activated) {
            self.look_at_new_set(shard);
        }
        for (shard, slot, inc) in core::mem::take(&mut self.history.reference.entered) {
            self.look_at_member(shard, slot, inc);
        }
        for run in fresh {
            self.look_up(&run);
        }
    }

    /// O3: a life that has lost its records, where a part of the members is enough, becomes one by way of a joint epoch: with
    /// the others alone as many as must hold a record may not hold all of them. Only the second one that needs it at a time is
    /// taken in at once: the joint epoch of the first might end only with it.
    fn look_at_member(&mut self, shard: u32, slot: u8, inc: u64) {
        let Some(state) = self.history.reference.shards.get(&shard) else {
            return;
        };
        if !state.members[1].is_empty() {
            return;
        }
        let lacks = |process: &Process<K>| match &process.machine {
            Machine::Replica(replica) => {
                let segments = state.segments.iter().enumerate();
                let mut lens = segments.map(|(slot, segment)| {
                    (replica.store().durable_len(Slot::new(slot as u8)), segment)
                });
                replica.config().shard.get() == shard
                    && replica.config().inc.get() == inc
                    && !process.has_data
                    && lens.any(|(len, segment)| len.get() < segment.len)
            }
            _ => false,
        };
        let came_without = self.procs.iter().any(|it| it.alive && lacks(it));
        self.history
            .check(Invariant::O3, !came_without || self.plan.beyond_f, || {
                format!("s{shard}r{slot} came without its records, and is a member at once")
            });
    }

    /// O3: a joint epoch ends when as many of the new set as must hold everything that was committed.
    fn look_at_new_set(&mut self, shard: u32) {
        let Some(state) = self.history.reference.shards.get(&shard).cloned() else {
            return;
        };
        for (slot, segment) in state.segments.iter().enumerate() {
            let index = Slot::new(slot as u8);
            let lacks = |inc: &&u64| {
                let mut alive = self.procs.iter().filter(|process| process.alive);
                alive.any(|process| match &process.machine {
                    Machine::Replica(replica) => {
                        replica.config().shard.get() == shard
                            && replica.config().inc.get() == **inc
                            && replica.store().durable_len(index).get() < segment.len
                    }
                    _ => false,
                })
            };
            let lack = state.members[0].iter().filter(lacks).count();
            let holders = state.members[0].len() - lack;
            self.history.check(Invariant::O3, holders >= state.quorum, || {
                format!("the new members of s{shard} took over while {holders} at most hold all of segment {slot}: {state:?}")
            });
        }
    }

    /// O2, O3: what was just ordered is held by as many of the members that the shard lists as must hold it, with one
    /// content; at D2 in two failure domains. What those held that are dead by now, nobody can say.
    fn look_up(&mut self, run: &Fresh) {
        // In the order of positions, whichever member says what stands there.
        let mut found: BTreeMap<u64, Vec<Content>> = (run.from..run.to)
            .map(|position| (run.gsn + (position - run.from), Vec::new()))
            .collect();
        // Per set: how many of it may hold the run, and in which domains.
        let mut sets = [0, 1].map(|_| (0, BTreeSet::new()));
        let mut lives = BTreeSet::new();
        for list in &run.members {
            lives.extend(
                list.iter()
                    .copied()
                    .enumerate()
                    .filter(|(_, inc)| *inc != 0),
            );
        }
        for (slot, writer) in lives {
            let domain = self.domain_of(run.shard.get(), slot as u8, writer);
            let mut holds = || {
                for (set, (holders, domains)) in run.members.iter().zip(&mut sets) {
                    if set[slot] == writer {
                        *holders += 1;
                        domains.insert(domain);
                    }
                }
            };
            let member = self
                .procs
                .iter_mut()
                .filter(|process| process.alive)
                .find_map(|process| match &mut process.machine {
                    Machine::Replica(replica)
                        if replica.config().shard == run.shard
                            && replica.config().slot.index() == slot
                            && replica.config().inc.get() == writer =>
                    {
                        Some(replica)
                    }
                    _ => None,
                });
            let Some(replica) = member else {
                holds();
                continue;
            };
            // Before it has entered the epoch it may hold what is void.
            let entered = replica.shard_state().map(|state| state.epoch.get()) == Some(run.epoch);
            if !entered || replica.store().durable_len(run.slot).get() < run.to {
                continue;
            }
            holds();
            for position in run.from..run.to {
                if is_away(replica.store_mut(), run.slot, position).is_some() {
                    continue;
                }
                let gsn = run.gsn + (position - run.from);
                match record_at(replica.store_mut(), run.slot, position) {
                    Some((generation, content)) => {
                        self.history.check(Invariant::O2, generation == run.generation, || {
                            format!("position {position} of {run:?} is of generation {generation} in slot {slot}")
                        });
                        found.entry(gsn).or_default().push(content);
                    }
                    None => self.history.fail(Invariant::O3, || {
                        format!("{run:?}: the member in slot {slot} has no record at {position}")
                    }),
                }
            }
        }
        for (set, (holders, domains)) in run.members.iter().zip(&sets) {
            // There is a second set in joint epochs only.
            let joint = set.iter().any(|inc| *inc != 0);
            let enough =
                *holders >= run.quorum && (self.plan.class != Durability::D2 || domains.len() > 1);
            self.history.check(Invariant::O3, enough || !joint, || {
                format!(
                    "{run:?} was committed while {holders} of {set:?} hold it at most, in {} domains",
                    domains.len()
                )
            });
        }
        for (gsn, contents) in found {
            self.history.unseen |= contents.is_empty();
            for content in contents {
                note(&mut self.history, gsn, content);
            }
        }
    }

    /// Checks a message as it leaves.
    pub(crate) fn inspect(&mut self, proc: ProcId, conn: ConnId, bytes: &[u8]) {
        let Ok((message, _)) = Message::new_checked(bytes) else {
            return self.history.fail(Invariant::M1, || {
                "a machine sent what does not parse".into()
            });
        };
        match message {
            Message::Down(down, _) => {
                let span = self
                    .history
                    .reference
                    .span_below(down.entry.get(), down.inc);
                let fits = span == Some((down.base.get(), down.total));
                self.history.check(Invariant::O6, fits, || {
                    format!("{down:?}, the entry spans {span:?} below it")
                });
            }
            Message::DownShard(down, tail) => self.o6_split(&down, tail),
            Message::Hello(hello, _) => {
                let flushed = self.plan.class.is_flushed();
                let store = self.procs[proc].store_mut().filter(|_| flushed);
                let durable = store.is_none_or(|store| store.inc_durable() == hello.inc);
                self.history.check(Invariant::M1, durable, || {
                    format!("{hello:?}, which a restart would not find")
                });
            }
            Message::AppendAck(ack, _) => self.o7_ack(proc, conn, &ack),
            Message::LocateAnswer(answer, _) => self.located(&answer),
            Message::EdgeStart(start, _) => self.o10_committed("an edge start", start.entry),
            Message::Sync(sync, _) => self.o10_committed("a sync", sync.complete),
            Message::SyncShard(sync, _) => self.o10_committed("a sync", sync.complete),
            Message::Entries(entries, tail) => {
                self.o10_committed("entries", entries.through);
                self.o6_rows(&entries, tail);
            }
            Message::TailAnswer(answer, _) => {
                let end = self.history.reference.end;
                self.history
                    .check(Invariant::O10, answer.tail.get() <= end, || {
                        format!("{answer:?}, the order ends at {end}")
                    });
            }
            Message::FateAnswer(answer, _) if answer.outcome == FateOutcome::Never => {
                if let Some(client) = self.client_of(proc, conn) {
                    self.history
                        .promised_never(client, answer.session.get(), answer.seq.get());
                }
            }
            Message::SessionClosed(answer, _) if answer.known => {
                if let Some(client) = self.client_of(proc, conn) {
                    self.history
                        .closed_from(client, answer.session.get(), answer.next_seq.get());
                }
            }
            _ => {}
        }
    }

    /// O10: no entry above the commit index is told of.
    fn o10_committed(&mut self, what: &str, entry: EntryNo) {
        let last = self.history.reference.last;
        self.history.check(Invariant::O10, entry.get() <= last, || {
            format!("{what} names entry {entry}, committed is {last}")
        });
    }

    fn client_of(&self, proc: ProcId, conn: ConnId) -> Option<u128> {
        let end = self.procs[proc].end(conn)?;
        let other = self.links[end.link].ends[1 - end.side].proc;
        match self.procs[other].place {
            Place::Client(number) => Some(client_id(number).get()),
            _ => None,
        }
    }

    fn o6_split(&mut self, down: &DownShard, tail: &[u8]) {
        let cut = self
            .history
            .reference
            .cuts
            .get(&(down.shard.get(), down.entry.get()))
            .cloned();
        let mut reader = Reader::new(tail);
        let lens: Vec<(u64, u64)> = (0..down.segments)
            .filter_map(|_| Some((reader.field().ok()?, reader.field().ok()?)))
            .collect();
        let fits = cut.as_ref().is_some_and(|cut| {
            cut.base == down.base.get() && cut.lens == lens && cut.prev == down.prev_entry.get()
        });
        self.history.check(Invariant::O6, fits, || {
            format!("{down:?} with {lens:?}, the entry says {cut:?}")
        });
    }

    /// O6 of what the cut log says instead of whole cuts.
    fn o6_rows(&mut self, entries: &Entries, tail: &[u8]) {
        let mut reader = Reader::new(tail);
        for _ in 0..entries.count {
            let told = ShardEntry::read(&mut reader);
            self.history.check(Invariant::M1, told.is_ok(), || {
                format!("{entries:?} whose tail does not parse: {told:?}")
            });
            let Ok(ShardEntry::Cut(row)) = told else {
                continue;
            };
            let place = (entries.shard.get(), row.entry.get());
            let cut = self.history.reference.cuts.get(&place).cloned();
            let fits = cut.as_ref().is_some_and(|cut| {
                let grown = |item: RowItem| {
                    let after = (item.generation.get(), item.new_len.get());
                    cut.lens.get(item.slot.index()) == Some(&after)
                };
                cut.base == row.base.get() && row.items().all(grown)
            });
            self.history.check(Invariant::O6, fits, || {
                format!("{row:?} of {entries:?}, the entry says {cut:?}")
            });
        }
    }

    /// O7: an ack names a committed entry, and goes to the client whose records it is about.
    fn o7_ack(&mut self, proc: ProcId, conn: ConnId, ack: &AppendAck) {
        let client = self.client_of(proc, conn);
        for offset in 0..u64::from(ack.count) {
            let rec = self
                .history
                .reference
                .recs
                .get(&(ack.first_gsn.get() + offset))
                .copied();
            let fits = rec.is_some_and(|rec| {
                rec.shard == ack.segment.shard.get()
                    && rec.slot == ack.segment.slot.get()
                    && rec.generation == ack.generation.get()
                    && rec.position == ack.first_position.get() + offset
                    && rec.entry == ack.entry.get()
                    && rec.content.is_none_or(|content| {
                        Some(content.client) == client
                            && content.session == ack.session.get()
                            && content.seq == ack.first_seq.get() + offset
                    })
            });
            self.history.check(Invariant::O7, fits, || {
                format!("{ack:?}, record {offset} of it: the cut log says {rec:?}")
            });
        }
    }

    fn located(&mut self, answer: &LocateAnswer) {
        let (from, to) = (answer.from.get(), answer.to.get());
        match answer.status {
            LocateStatus::Found => {
                for gsn in [from, to - 1] {
                    let rec = self.history.reference.recs.get(&gsn).copied();
                    let fits = rec.is_some_and(|rec| {
                        rec.shard == answer.segment.shard.get()
                            && rec.slot == answer.segment.slot.get()
                            && rec.generation == answer.generation.get()
                            && rec.position == answer.position.get() + (gsn - from)
                            && rec.entry == answer.entry.get()
                    });
                    self.history.check(Invariant::S1, fits, || {
                        format!("{answer:?}, the cut log says {rec:?} of {gsn}")
                    });
                }
            }
            LocateStatus::Lost => {
                let lost = self.history.reference.is_lost(from);
                self.history.check(Invariant::S9, lost, || {
                    format!("{answer:?}, which was not declared lost")
                });
            }
            LocateStatus::Trimmed
            | LocateStatus::Unwritten
            | LocateStatus::Forgotten
            | LocateStatus::NotLeader => {}
        }
    }

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

/// The content of an ordered position becomes known.
fn note(history: &mut History, gsn: u64, content: Content) {
    let sticky = history
        .ops
        .get(content.id as usize)
        .is_some_and(|op| history.sticky.contains(&op.client));
    history.ordered(gsn, content, sticky);
}
