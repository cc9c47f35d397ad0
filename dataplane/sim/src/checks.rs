//! The invariants O1 to O10 of the ordering protocol, checked on the machines themselves and on everything they say.

mod settled;

pub(crate) use settled::HALT_NS;

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
use crate::invariant::Invariant;
use crate::process::{Machine, Place, ProcId, Process};
use crate::reference::{Content, Fresh, Reference};
use crate::world::World;

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
}

/// The content of an ordered position becomes known.
fn note(history: &mut History, gsn: u64, content: Content) {
    let sticky = history
        .ops
        .get(content.id as usize)
        .is_some_and(|op| history.sticky.contains(&op.client));
    history.ordered(gsn, content, sticky);
}
