//! Appending entries and committing them.

use ionian_types::{
    EntryNo, Gsn, Inc, Knobs, Lsn, Mutant, RoundNo, SEGMENTS_PER_SHARD_MAX, Time, ViewId,
};
use ionian_wire::Writer;
use ionian_wire::entry::{
    Change, Changes, CutRound, EntryBody, EntryStart, EntryView, EntryWriter, write_change,
};
use ionian_wire::frame::{Intent, IntentDone};

use super::Root;
use crate::outbox::Outbox;
use crate::tree::link::{Descent, Link, keeps_edges, put_growths};
use ionian_types::ConnId;

/// An entry that is in the log and not yet committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    entry: EntryNo,
    what: What,
}

impl Pending {
    /// An entry that nobody waits for.
    pub(super) const fn plain(entry: EntryNo) -> Self {
        Self {
            entry,
            what: What::Other,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A cut of one child's round, as far as one child goes: trees with several children pend one per child.
    Cut {
        descent: Descent,
        last: bool,
    },
    View,
    Other,
}

impl<K: Knobs> Root<K> {
    /// Whether some child's newest round says more than the log, and a cut may be appended.
    pub(super) fn cut_due(&self) -> bool {
        self.granted.is_some()
            && self.pending.len() < self.config.inflight_max
            && self
                .children
                .iter()
                .any(|child| child.link.fresh && child.link.edge().is_some())
    }

    /// ORDERING.md, ROOT LEADER, tick: one round per child becomes an entry. No empty cuts.
    pub(super) fn cut(&mut self, now: Time) {
        if !self.cut_due() || now < self.cut_at {
            return;
        }
        if self.cut_log_bytes() > self.config.cut_log_bytes_max {
            self.counters.held_back += 1;
            return;
        }
        let total = self.grow();
        let start_gsn = self.state.end_gsn;
        let Some((total, end_gsn)) = total
            .and_then(|total| Some((total, start_gsn.checked_add(total)?)))
            .filter(|(_, end)| *end <= self.state.ceiling)
        else {
            self.counters.held_back += 1;
            return;
        };
        if total == 0 {
            for child in &mut self.children {
                child.link.fresh = false;
            }
            return;
        }
        let Some(len) = self.encode_cut(start_gsn, end_gsn) else {
            self.counters.held_back += 1;
            return;
        };
        if !self.append(len) {
            return;
        }
        self.pend_cut(start_gsn, end_gsn);
        self.cut_at = now.after(self.config.cut_interval);
    }

    /// What the newest rounds add to the lengths of the log's end: the next cut. How many records that are, also by child; `None`
    /// if it cannot be.
    fn grow(&mut self) -> Option<u64> {
        let segments = self.state.written().len();
        if self.growth.len() != segments {
            self.growth.clear();
            self.growth.resize(segments, 0);
            self.grown.reset(segments);
        }
        self.forget_growth();
        let (layout, written) = (self.state.layout(), self.state.written());
        self.totals.clear();
        let mut all = Some(0u64);
        for link in self.children.iter_mut().map(|child| &mut child.link) {
            let mut total = Some(0u64);
            let first = link.first_segment().and_then(|it| layout.index(it));
            if let Some(first) = first.filter(|_| link.fresh && link.edge().is_some()) {
                let (growth, grown) = (&mut self.growth, &mut self.grown);
                let mut sound = true;
                link.each_grown(|at, before, now| {
                    let run = first + at..first + at + now.len();
                    let open = written.get(run.clone());
                    sound &= open.is_some_and(|open| open.iter().fold(true, |all, one| all & one));
                    if sound && let Some(growth) = growth.get_mut(run.clone()) {
                        let more = put_growths(growth, before, now);
                        grown.set_run(run.start, run.len());
                        total = total.and_then(|total| total.checked_add(more?));
                    }
                });
                if !sound {
                    // Lengths are what a child says: nonsense stops its part of the order, not the process.
                    link.stop();
                    total = None;
                }
            }
            all = all.and_then(|all| all.checked_add(total?));
            self.totals.push(total.unwrap_or(0));
        }
        all
    }

    fn forget_growth(&mut self) {
        let span = self.grown.span();
        self.growth[span].fill(0);
        self.grown.clear();
    }

    fn encode_cut(&mut self, start_gsn: Gsn, end_gsn: Gsn) -> Option<usize> {
        let start = self.entry_start();
        let span = self.grown.span();
        let (first, growths) = (span.start, &self.growth[span]);
        let mut writer =
            EntryWriter::cut_all(&mut self.buffer, &start, start_gsn, end_gsn, first, growths)
                .ok()?;
        for (at, child) in self.children.iter().enumerate() {
            let link = &child.link;
            if let Some(edge) = link.edge().filter(|_| link.fresh) {
                let round = CutRound {
                    child: at as u32,
                    edge,
                    inc: link.inc,
                    round: RoundNo::new(link.newest().round),
                };
                writer.round(&round).ok()?;
            }
        }
        Some(writer.finish())
    }

    /// Remembers what each child must be told once the cut just appended is committed.
    fn pend_cut(&mut self, start_gsn: Gsn, end_gsn: Gsn) {
        let entry = self.state.entry;
        let mut base = start_gsn.get();
        let first_new = self.pending.len();
        let links = self.children.iter_mut().map(|child| &mut child.link);
        for (at, link) in links.enumerate() {
            let Some(edge) = link.edge().filter(|_| link.fresh) else {
                continue;
            };
            let growth = self.totals.get(at).copied().unwrap_or(0);
            link.pass();
            let descent = Descent {
                entry,
                edge,
                chosen: link.newest(),
                base: Gsn::new(base + u64::from(K::mutant(Mutant::BaseOffByOne))),
                growth,
                end_gsn,
            };
            base = base.wrapping_add(growth);
            self.pending.push_back(Pending {
                entry,
                what: What::Cut {
                    descent,
                    last: false,
                },
            });
        }
        if self.pending.len() > first_new
            && let Some(Pending {
                what: What::Cut { last, .. },
                ..
            }) = self.pending.back_mut()
        {
            *last = true;
        }
    }

    pub(super) fn entry_start(&self) -> EntryStart {
        let entry = self
            .state
            .entry
            .next()
            .expect("entry numbers do not run out");
        EntryStart {
            entry,
            epoch: self.granted.unwrap_or_default(),
            prev_crc: self.state.crc,
        }
    }

    /// Appends the entry that lies encoded at the front of the buffer. Whether it was taken.
    pub(super) fn append(&mut self, len: usize) -> bool {
        let encoded = &self.buffer[..len];
        let view = EntryView::new_checked(encoded).expect("the root encodes what it can read");
        if self.config.class.is_flushed() {
            let Ok(record) = self.store.journal_append(encoded) else {
                self.counters.held_back += 1;
                return false;
            };
            self.map.push(view.header.entry, record);
        }
        if let EntryBody::Trim { upto } = view.body {
            self.trims_logged.push_back((view.header.entry, upto));
        }
        if let EntryBody::Cut(cut) = view.body {
            self.counters.cut_bytes += encoded.len() as u64;
            self.counters.cut_segments += cut.growths().changed() as u64;
        }
        self.state
            .apply(&view)
            .expect("the root appends what follows from its own state");
        self.log.push(encoded, &self.state);
        true
    }

    /// Appends an entry that nobody waits for.
    pub(super) fn append_plain(&mut self, len: usize) -> bool {
        let taken = self.append(len);
        if taken {
            self.pending.push_back(Pending::plain(self.state.entry));
        }
        taken
    }

    /// Commits what enough members hold, and tells the children.
    pub(super) fn commit(&mut self, now: Time, out: &mut Outbox) {
        let waits = self.config.class.is_flushed() && !K::mutant(Mutant::CutBeforeDurable);
        let held = if waits {
            self.durable_entry()
        } else {
            self.state.entry
        };
        let bound = self.commit_bound(held);
        while let Some(pending) = self
            .pending
            .front()
            .copied()
            .filter(|pending| pending.entry <= bound)
        {
            self.pending.pop_front();
            match pending.what {
                What::Cut { descent, last } => {
                    self.committed = pending.entry;
                    self.committed_end = descent.end_gsn;
                    if last {
                        self.counters.cuts += 1;
                        self.last_cut_at = Some(now);
                    }
                    self.counters.ordered += descent.growth;
                    let log = self.config.log;
                    let of_edge = |link: &&mut Link| link.edge_of_downs() == Some(descent.edge);
                    let mut links = self.children.iter_mut().map(|child| &mut child.link);
                    if let Some(link) = links.find(of_edge)
                        && !link.send_down(log, &descent, out)
                        && !keeps_edges::<K>()
                    {
                        // The child cannot be told: its replicas learn from the cut log, its edge starts again.
                        link.stop();
                    }
                }
                What::View => {
                    self.advance_commit(pending.entry);
                    self.counters.views += 1;
                    self.intents_done = false;
                }
                What::Other => {
                    self.advance_commit(pending.entry);
                    // Replicas learn of a trim by silence made explicit: soon.
                    self.sync_at = now;
                }
            }
        }
    }

    /// Whether the last view in the log is known to be committed.
    pub(super) fn view_committed(&self) -> bool {
        self.serves()
            && !self
                .pending
                .iter()
                .any(|pending| matches!(pending.what, What::View))
    }

    /// ORDERING.md, ROOT LEADER, view intent: only the next one; lengths are those of the log's end.
    pub(super) fn on_intent(
        &mut self,
        conn: ConnId,
        intent: &Intent,
        changes: &[u8],
        out: &mut Outbox,
    ) {
        if intent.log != self.config.log || self.granted.is_none() {
            return;
        }
        if intent.view <= self.state.view {
            if self.view_committed() {
                let done = IntentDone {
                    log: self.config.log,
                    view: self.state.view,
                    entry: self.committed,
                };
                let _ = out.send(conn, &done, &[]);
            }
            return;
        }
        if self.state.view.next() != Some(intent.view) || Changes::check(changes).is_err() {
            self.counters.bad_intents += 1;
            return;
        }
        if !self.log_view(intent.view, changes) {
            self.counters.bad_intents += 1;
        }
    }

    fn log_view(&mut self, view: ViewId, changes: &[u8]) -> bool {
        let mut filled = core::mem::take(&mut self.scratch);
        filled.clear();
        filled.resize(changes.len(), 0);
        let complete = self.fill_lens(changes, &mut filled);
        let start = self.entry_start();
        let gsn = self.state.end_gsn;
        let encoded = if complete {
            EntryWriter::view(&mut self.buffer, &start, view, gsn, &filled).ok()
        } else {
            None
        };
        self.scratch = filled;
        let Some(len) = encoded else { return false };
        // A view that does not follow from the state must not spoil it: try it on a copy.
        let view =
            EntryView::new_checked(&self.buffer[..len]).expect("the root encodes what it can read");
        let mut tried = self.state.clone();
        if tried.apply(&view).is_err() || !self.append(len) {
            return false;
        }
        self.pending.push_back(Pending {
            entry: self.state.entry,
            what: What::View,
        });
        // From here on no cut uses the old edges of what the view touched.
        self.adopt_children();
        true
    }

    /// Copies the changes of an intent with the lengths of the log's end filled in.
    fn fill_lens(&self, changes: &[u8], out: &mut [u8]) -> bool {
        let mut writer = Writer::new(out);
        Changes::new(changes).all(|change| {
            let written = match change {
                Change::Close {
                    segment,
                    generation,
                    writer: next,
                    node,
                    domain,
                    ..
                } => {
                    let shard = self.state.shard(segment.shard);
                    let len = shard.map_or(Lsn::ZERO, |shard| shard.len_of(segment.slot));
                    write_change(
                        &mut writer,
                        &Change::Close {
                            segment,
                            generation,
                            len,
                            writer: next,
                            node,
                            domain,
                        },
                    )
                }
                Change::Finalize {
                    shard, lost_from, ..
                } => {
                    let mut lens = [0u8; SEGMENTS_PER_SHARD_MAX * 8];
                    let mut count = 0;
                    let state = self.state.shard(shard);
                    let now = state.iter().flat_map(|state| state.lens());
                    for (bytes, len) in lens.chunks_exact_mut(8).zip(now) {
                        bytes.copy_from_slice(&len.get().to_le_bytes());
                        count += 1;
                    }
                    let lens = &lens[..count * 8];
                    write_change(
                        &mut writer,
                        &Change::Finalize {
                            shard,
                            lens,
                            lost_from,
                        },
                    )
                }
                other => write_change(&mut writer, &other),
            };
            written.is_ok()
        })
    }

    /// An incarnation of this root that a grant is for.
    pub(super) fn is_me(&self, inc: Inc) -> bool {
        inc == self.config.inc
    }
}
