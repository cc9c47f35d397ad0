//! A round: what has grown since the last one, sent to the parent.

use ionian_slots::Table;
use ionian_types::{Knobs, Lsn, Mutant};
use ionian_wire::codec::Field;
use ionian_wire::frame::{Up, UpKeep};
use ionian_wire::growth::GrowthWriter;

use super::Leaf;
use crate::outbox::Outbox;
use crate::tree::marks::Marks;
use crate::tree::rounds::Rounds;

impl<K: Knobs> Leaf<K> {
    pub(super) fn flush_round(&mut self, out: &mut Outbox) {
        let Some((parent, edge)) = self.uplink.running() else {
            return;
        };
        let idle = self.table.as_ref().is_none_or(Table::is_idle);
        if (idle && self.dirty.is_empty() && !self.uplink.full_due)
            || self.rounds.outstanding() >= self.config.rounds_max
        {
            return;
        }
        // The list at its longest, and what members have not applied.
        if out.room(parent) < 128 + self.lens.len() * 11 + self.shards.len() * UpKeep::LEN {
            return;
        }
        self.grow();
        if self.grown.is_empty() && !self.uplink.full_due {
            return;
        }
        let round = self.rounds.close_round();
        let full = self.uplink.full_due || K::mutant(Mutant::RootOnlyClamp);
        let applied = self.applied;
        let up = Up {
            log: self.config.log,
            edge,
            inc: self.config.inc,
            round,
            total: self.total,
            applied,
            full,
            keeps: self.keeps.len() as u32,
        };
        let span = self.grown.span();
        let (growth, keeps) = (&self.growth[span.clone()], &self.keeps);
        let (lens, start) = (&self.lens, &self.start);
        let sent = out.send_with(parent, &up, |writer| {
            keeps.iter().try_for_each(|keep| writer.field(*keep))?;
            if full {
                let since_start = |at: usize| lens[at].get() - start[at].get();
                GrowthWriter::write(writer, 0..lens.len(), since_start)
            } else {
                GrowthWriter::write_all(writer, span.start, growth)
            }
        });
        self.growth[span].fill(0);
        self.grown.clear();
        if sent.is_ok() {
            self.applied_told();
        }
        // A round that did not leave is a gap; the next one must be full.
        self.uplink.full_due = sent.is_err();
        self.counters.rounds += 1;
    }

    /// Brings the lengths up to what enough members hold, for the round that is being made.
    fn grow(&mut self) {
        let mut news = News {
            lens: &mut self.lens,
            total: &mut self.total,
            growth: &mut self.growth,
            grown: &mut self.grown,
            rounds: &mut self.rounds,
        };
        if let Some(table) = self.table.as_mut().filter(|table| !table.is_idle()) {
            table.merge();
            let shards = &self.shards;
            table.for_each_changed(|at, segment, _, len| {
                news.raise(shards[at].first_segment + segment, Lsn::new(len));
            });
        }
        for at in self.dirty.drain(..) {
            let shard = &mut self.shards[at];
            shard.dirty = false;
            for slot in 0..shard.members.len() {
                let index = shard.first_segment + slot;
                let before = news.lens[index];
                let len = shard.length(slot, before);
                if len > before {
                    news.raise(index, len);
                }
            }
        }
    }
}

/// What a round that is being made adds.
struct News<'a> {
    lens: &'a mut [Lsn],
    total: &'a mut u64,
    growth: &'a mut [u64],
    grown: &'a mut Marks,
    rounds: &'a mut Rounds<Lsn>,
}

impl News<'_> {
    #[inline]
    fn raise(&mut self, index: usize, len: Lsn) {
        let before = core::mem::replace(&mut self.lens[index], len);
        let growth = len.get() - before.get();
        *self.total = self.total.wrapping_add(growth);
        self.growth[index] = growth;
        self.grown.set(index);
        self.rounds.change(index, len);
    }
}
