//! The rounds of one edge: what was sent up, and what of it a cut has chosen.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{Knobs, Lsn, Mutant, RoundNo};

/// Segments are numbered in the order of the subtree.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Lengths as of the last round sent, and as of the last round chosen.
    sent: Vec<Lsn>,
    chosen_lens: Vec<Lsn>,
    total: u64,
    last: u64,
    chosen: u64,
    /// Changes of the rounds after `chosen`, in order, and how many each round has.
    changes: VecDeque<(u32, Lsn)>,
    counts: VecDeque<u32>,
    open: u32,
    touched_before: Vec<Option<Lsn>>,
}

impl Rounds {
    /// The edge starts: `lens` is round 0.
    pub(super) fn start(&mut self, lens: &[Lsn]) {
        self.sent.clear();
        self.sent.extend_from_slice(lens);
        self.chosen_lens.clear();
        self.chosen_lens.extend_from_slice(lens);
        self.touched_before.clear();
        self.touched_before.resize(lens.len(), None);
        self.total = lens.iter().map(|len| len.get()).fold(0, u64::wrapping_add);
        self.last = 0;
        self.chosen = 0;
        self.changes.clear();
        self.counts.clear();
        self.open = 0;
    }

    pub(super) fn segments(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn sent_len(&self, index: usize) -> Lsn {
        self.sent[index]
    }

    pub(super) fn chosen_lens(&self) -> &[Lsn] {
        &self.chosen_lens
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn chosen(&self) -> RoundNo {
        RoundNo::new(self.chosen)
    }

    /// Rounds sent and not yet chosen.
    pub(super) fn outstanding(&self) -> u64 {
        self.last - self.chosen
    }

    /// Adds a change to the round that is being made.
    pub(super) fn change(&mut self, index: usize, len: Lsn) {
        self.total = self.total.wrapping_add(len.get() - self.sent[index].get());
        self.sent[index] = len;
        self.changes.push_back((index as u32, len));
        self.open += 1;
    }

    /// Ends the round that is being made and gives its number.
    pub(super) fn close_round(&mut self) -> RoundNo {
        self.counts.push_back(self.open);
        self.open = 0;
        self.last += 1;
        RoundNo::new(self.last)
    }

    /// A cut chose `round` after `prev`: lists (segment, growth) in order, if both are known and the growths sum to `total`.
    /// Otherwise changes nothing but `touched`.
    pub(super) fn choose<K: Knobs>(
        &mut self,
        prev: RoundNo,
        round: RoundNo,
        total: u64,
        touched: &mut Vec<(usize, u64)>,
    ) -> bool {
        let follows = prev.get() == self.chosen || K::mutant(Mutant::IgnorePreviousRound);
        if !follows || round.get() <= self.chosen || round.get() > self.last {
            return false;
        }
        let rounds = (round.get() - self.chosen) as usize;
        let count: usize = self
            .counts
            .iter()
            .take(rounds)
            .map(|count| *count as usize)
            .sum();
        for (index, len) in self.changes.iter().take(count) {
            let index = *index as usize;
            if self.touched_before[index].is_none() {
                self.touched_before[index] = Some(self.chosen_lens[index]);
                touched.push((index, 0));
            }
            self.chosen_lens[index] = *len;
        }
        touched.sort_unstable_by_key(|(index, _)| *index);
        let mut sum = 0u64;
        for (index, growth) in touched.iter_mut() {
            let before = self.touched_before[*index].take().unwrap_or_default();
            *growth = self.chosen_lens[*index].get() - before.get();
            sum = sum.wrapping_add(*growth);
        }
        // What the totals would still find.
        let unchecked = K::mutant(Mutant::IgnorePreviousRound)
            || K::mutant(Mutant::TakeLaterRounds)
            || K::mutant(Mutant::RoundWithoutEdge)
            || K::mutant(Mutant::RootOnlyClamp);
        if sum != total && !unchecked {
            // The caller starts the edge again: nothing of this state is used any more.
            return false;
        }
        self.changes.drain(..count);
        self.counts.drain(..rounds);
        self.chosen = round.get();
        true
    }
}

#[cfg(test)]
mod tests {
    use ionian_types::Shipped;

    use super::*;

    fn three() -> Rounds {
        let mut rounds = Rounds::default();
        rounds.start(&[Lsn::new(10), Lsn::new(20), Lsn::new(30)]);
        rounds.change(2, Lsn::new(31));
        rounds.close_round();
        rounds.change(0, Lsn::new(15));
        rounds.change(2, Lsn::new(33));
        rounds.close_round();
        rounds.change(1, Lsn::new(21));
        rounds.close_round();
        rounds
    }

    #[test]
    fn growths_span_the_rounds_between() {
        let mut rounds = three();
        let mut touched = Vec::new();
        assert!(rounds.choose::<Shipped>(RoundNo::new(0), RoundNo::new(2), 8, &mut touched));
        assert_eq!(touched, [(0, 5), (2, 3)]);
        touched.clear();
        assert!(rounds.choose::<Shipped>(RoundNo::new(2), RoundNo::new(3), 1, &mut touched));
        assert_eq!(touched, [(1, 1)]);
        assert_eq!(rounds.outstanding(), 0);
    }

    #[test]
    fn a_round_that_is_not_known_is_refused() {
        let mut touched = Vec::new();
        assert!(
            !three().choose::<Shipped>(RoundNo::new(1), RoundNo::new(2), 7, &mut touched),
            "previous round not the chosen one"
        );
        assert!(
            !three().choose::<Shipped>(RoundNo::new(0), RoundNo::new(4), 9, &mut touched),
            "never sent"
        );
        assert!(
            !three().choose::<Shipped>(RoundNo::new(0), RoundNo::new(2), 9, &mut touched),
            "another total"
        );
    }
}
