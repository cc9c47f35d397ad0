//! The rounds of an edge at its child: what was sent up, and what of it a cut has chosen.
//!
//! A leaf's rounds are of segments and their lengths; an aggregator's are of its own children, the round that each of them had
//! come to and the sum of its lengths then.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{Knobs, Lsn, Mutant, RoundNo};

use super::marks::Marks;

/// What a round holds of one part of the subtree. It grows from round to round.
pub(crate) trait Part: Copy + Default {
    /// The number of records below, modulo 2^64.
    fn records(self) -> u64;
}

impl Part for Lsn {
    fn records(self) -> u64 {
        self.get()
    }
}

/// A child's round as far as an aggregator passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ChildRound {
    pub(crate) round: u64,
    pub(crate) total: u64,
}

impl Part for ChildRound {
    fn records(self) -> u64 {
        self.total
    }
}

/// One part that the rounds of a cut have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chosen<P> {
    pub(crate) part: usize,
    /// As of the rounds chosen.
    pub(crate) now: P,
    /// Records that the cut orders in this part.
    pub(crate) growth: u64,
}

/// Rounds after the last one chosen. Parts are numbered in the order of the tree.
#[derive(Debug)]
pub(crate) struct Rounds<P> {
    chosen_parts: Vec<P>,
    last: u64,
    chosen: u64,
    /// Changes of the rounds after `chosen`, in order, how many each round has, and whether they name each part once, ascending.
    changes: VecDeque<(u32, P)>,
    counts: VecDeque<(u32, bool)>,
    open: u32,
    ascending: bool,
    /// The part after that of the last change.
    next: u32,
    touched: Marks,
    before: Vec<P>,
}

impl<P> Default for Rounds<P> {
    fn default() -> Self {
        Self {
            chosen_parts: Vec::new(),
            last: 0,
            chosen: 0,
            changes: VecDeque::new(),
            counts: VecDeque::new(),
            open: 0,
            ascending: true,
            next: 0,
            touched: Marks::default(),
            before: Vec::new(),
        }
    }
}

impl<P: Part> Rounds<P> {
    /// The edge starts: these are round 0.
    pub(crate) fn start(&mut self, parts: impl Iterator<Item = P>) {
        self.chosen_parts.clear();
        self.chosen_parts.extend(parts);
        self.before.clear();
        self.before.resize(self.chosen_parts.len(), P::default());
        self.touched.reset(self.chosen_parts.len());
        self.last = 0;
        self.chosen = 0;
        self.changes.clear();
        self.counts.clear();
        self.begin();
    }

    fn begin(&mut self) {
        self.open = 0;
        self.ascending = true;
        self.next = 0;
    }

    /// The number of parts.
    pub(crate) fn parts(&self) -> usize {
        self.chosen_parts.len()
    }

    pub(crate) const fn chosen(&self) -> RoundNo {
        RoundNo::new(self.chosen)
    }

    /// Rounds sent and not yet chosen.
    pub(crate) const fn outstanding(&self) -> u64 {
        self.last - self.chosen
    }

    /// Adds a change to the round that is being made.
    #[inline]
    pub(crate) fn change(&mut self, part: usize, now: P) {
        let part = part as u32;
        self.changes.push_back((part, now));
        self.open += 1;
        self.ascending &= part >= self.next;
        self.next = part + 1;
    }

    /// Ends the round that is being made and gives its number.
    pub(crate) fn close_round(&mut self) -> RoundNo {
        self.counts.push_back((self.open, self.ascending));
        self.begin();
        self.last += 1;
        RoundNo::new(self.last)
    }

    /// A cut chose `round` after `prev`: lists what changed, in order, if both are known and the growths sum to `total`.
    /// Otherwise the edge must start again: nothing of this state may be used any more.
    pub(crate) fn choose<K: Knobs>(
        &mut self,
        prev: RoundNo,
        round: RoundNo,
        total: u64,
        chosen: &mut Vec<Chosen<P>>,
    ) -> bool {
        self.choose_each::<K>(prev, round, total, |parts, part, growth| {
            let now = parts[part];
            chosen.push(Chosen { part, now, growth });
        })
    }

    /// The same; hands every part that changed, in order, to `each`, with all parts as of the round chosen and the records that the
    /// cut orders in it. Where `false` comes back after that, it is to be forgotten.
    #[inline]
    pub(crate) fn choose_each<K: Knobs>(
        &mut self,
        prev: RoundNo,
        round: RoundNo,
        total: u64,
        mut each: impl FnMut(&[P], usize, u64),
    ) -> bool {
        let follows = prev.get() == self.chosen || K::mutant(Mutant::IgnorePreviousRound);
        if !follows || round.get() <= self.chosen || round.get() > self.last {
            return false;
        }
        let mut rounds = (round.get() - self.chosen) as usize;
        if K::mutant(Mutant::FreeLaterRounds) {
            rounds = self.counts.len();
        }
        let (mut count, mut ascending) = (0, rounds == 1);
        for (of_round, in_order) in self.counts.drain(..rounds) {
            count += of_round as usize;
            ascending &= in_order;
        }
        let mut sum = 0u64;
        if ascending {
            // The parts have to be as of this round before any of them is handed out.
            for (part, now) in self.changes.range(..count) {
                let part = *part as usize;
                self.before[part] = core::mem::replace(&mut self.chosen_parts[part], *now);
            }
            for (part, now) in self.changes.drain(..count) {
                let part = part as usize;
                let growth = now.records().wrapping_sub(self.before[part].records());
                sum = sum.wrapping_add(growth);
                each(&self.chosen_parts, part, growth);
            }
        } else {
            for (part, now) in self.changes.drain(..count) {
                let part = part as usize;
                if self.touched.set(part) {
                    self.before[part] = self.chosen_parts[part];
                }
                self.chosen_parts[part] = now;
            }
        }
        for part in self.touched.iter() {
            let now = self.chosen_parts[part];
            let growth = now.records().wrapping_sub(self.before[part].records());
            sum = sum.wrapping_add(growth);
            each(&self.chosen_parts, part, growth);
        }
        self.touched.clear();
        // What the totals would still find.
        let unchecked = K::mutant(Mutant::IgnorePreviousRound)
            || K::mutant(Mutant::TakeLaterRounds)
            || K::mutant(Mutant::RoundWithoutEdge)
            || K::mutant(Mutant::RootOnlyClamp)
            || K::mutant(Mutant::FreeLaterRounds);
        if sum != total && !unchecked {
            return false;
        }
        self.chosen = if K::mutant(Mutant::FreeLaterRounds) {
            self.last
        } else {
            round.get()
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use ionian_types::Shipped;

    use super::*;

    fn three() -> Rounds<Lsn> {
        let mut rounds = Rounds::default();
        rounds.start([10, 20, 30].into_iter().map(Lsn::new));
        rounds.change(2, Lsn::new(31));
        rounds.close_round();
        rounds.change(0, Lsn::new(15));
        rounds.change(2, Lsn::new(33));
        rounds.close_round();
        rounds.change(1, Lsn::new(21));
        rounds.close_round();
        rounds
    }

    fn chosen(part: usize, now: u64, growth: u64) -> Chosen<Lsn> {
        let now = Lsn::new(now);
        Chosen { part, now, growth }
    }

    #[test]
    fn growths_span_the_rounds_between() {
        let mut rounds = three();
        let mut found = Vec::new();
        assert!(rounds.choose::<Shipped>(RoundNo::new(0), RoundNo::new(2), 8, &mut found));
        assert_eq!(found, [chosen(0, 15, 5), chosen(2, 33, 3)]);
        found.clear();
        assert!(rounds.choose::<Shipped>(RoundNo::new(2), RoundNo::new(3), 1, &mut found));
        assert_eq!(found, [chosen(1, 21, 1)]);
        assert_eq!(rounds.outstanding(), 0);
    }

    #[test]
    fn a_round_that_is_not_known_is_refused() {
        let mut found = Vec::new();
        let mut refused = |prev, round, total| {
            let (prev, round) = (RoundNo::new(prev), RoundNo::new(round));
            !three().choose::<Shipped>(prev, round, total, &mut found)
        };
        assert!(refused(1, 2, 7), "previous round not the chosen one");
        assert!(refused(0, 4, 9), "never sent");
        assert!(refused(0, 2, 9), "another total");
    }
}
