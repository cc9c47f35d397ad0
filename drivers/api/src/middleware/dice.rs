//! Seeded chance: the same seed and the same calls give the same faults.

/// A small pseudo-random generator (SplitMix64) for injected faults. Not for secrets.
///
/// *Source*: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, over the whole range.
    pub const fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }

    /// True with a chance of `ppm` in a million. Always false for 0, always true from 1,000,000.
    pub const fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < ppm as u64
    }
}

/// Faults injected since the wrapper was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// Packets lost, flushes not passed on.
    pub dropped: u64,
    /// Packets sent twice.
    pub duplicated: u64,
    /// Packets sent before an earlier one.
    pub reordered: u64,
    /// Packets, messages or completions held for some polls.
    pub delayed: u64,
    /// Packets or messages with a bit flipped; writes done in part.
    pub corrupted: u64,
    /// Sends or operations refused or failed; connections closed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_chances_are_kept() {
        let rolls = |seed| {
            (0..8)
                .scan(Dice::new(seed), |dice, _| Some(dice.roll()))
                .collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let mut dice = Dice::new(1);
        let hits = (0..100_000).filter(|_| dice.chance(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| dice.chance(1_000_000)));
        assert!(!(0..1_000).any(|_| dice.chance(0)));
    }
}
