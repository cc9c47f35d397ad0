//! What happens when: windows with no fault, one, a pair, or one of every kind, drawn from a seed.

use anyhow::{Result, bail};

use crate::cluster::Durability;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// `kill -9` of one process, or of all of them, and a restart.
    Kill9,
    /// SIGSTOP, for less or for more than the time after which peers give it up, then SIGCONT.
    Pause,
    /// A link down, or datagrams dropped: from and to a node, between two, or in one direction.
    Partition,
    /// Random loss on every path.
    Loss,
    /// A node's file system is full, until something is removed.
    DiskFull,
    /// Bits flip in the records of a node that is stopped.
    BitFlip,
    /// An orderly end and a restart.
    Restart,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Kill9,
        Self::Pause,
        Self::Partition,
        Self::Loss,
        Self::DiskFull,
        Self::BitFlip,
        Self::Restart,
    ];

    /// Its name, on the command line and in histories.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "kill9",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Loss => "loss",
            Self::DiskFull => "disk-full",
            Self::BitFlip => "bit-flip",
            Self::Restart => "restart",
        }
    }

    /// It is done to the network: without namespaces it cannot be.
    #[must_use]
    pub const fn needs_network(self) -> bool {
        matches!(self, Self::Partition | Self::Loss)
    }
}

/// Which faults a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// One kind, again and again.
    One(Kind),
    /// All of them: one at a time, then pairs, then all at once.
    All,
}

impl Scenario {
    /// The names of all scenarios.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Kind::ALL
            .map(Kind::name)
            .into_iter()
            .chain(["all"])
            .collect()
    }

    /// The scenario of a name.
    ///
    /// # Errors
    /// When there is none, with the names that there are.
    pub fn named(name: &str) -> Result<Self> {
        if name == "all" {
            return Ok(Self::All);
        }
        match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(Self::One(kind)),
            None => bail!(
                "there is no scenario {name:?}; there are {}",
                Self::names().join(", ")
            ),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One(kind) => kind.name(),
            Self::All => "all",
        }
    }

    /// The kinds of faults that it tries.
    #[must_use]
    pub fn kinds(self) -> Vec<Kind> {
        match self {
            Self::One(kind) => vec![kind],
            Self::All => Kind::ALL.to_vec(),
        }
    }

    /// The faults of the windows of one round. Of [`Self::All`] a quarter of the windows has none.
    pub(super) fn round(self, random: &mut Random) -> Vec<Vec<Kind>> {
        let Self::All = self else {
            return vec![self.kinds()];
        };
        let mut singles = Kind::ALL;
        random.shuffle(&mut singles);
        let mut windows: Vec<Vec<Kind>> = singles.iter().map(|kind| vec![*kind]).collect();
        for _ in 0..4 {
            let mut pair = Kind::ALL;
            random.shuffle(&mut pair);
            windows.push(pair[..2].to_vec());
        }
        let mut all = Kind::ALL;
        random.shuffle(&mut all);
        windows.push(all.to_vec());
        // After every third window a quiet one.
        for at in (1..=windows.len() / 3).rev() {
            windows.insert(3 * at, Vec::new());
        }
        windows
    }
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Which faults.
    pub scenario: Scenario,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// For how long there are faults. At least one window is done.
    pub duration: std::time::Duration,
    /// Writers at a time.
    pub writers: u32,
    /// Chooses everything: the same seed plans the same windows.
    pub seed: u64,
}

/// splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..below`; `below` is not 0.
    pub(super) const fn below(&mut self, below: u64) -> u64 {
        self.draw() % below
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_all_has_singles_then_pairs_then_all_and_a_quarter_without_faults() {
        let windows = Scenario::All.round(&mut Random::new(7));
        assert_eq!(windows, Scenario::All.round(&mut Random::new(7)));
        assert_ne!(windows, Scenario::All.round(&mut Random::new(8)));
        let quiet = windows.iter().filter(|window| window.is_empty()).count();
        assert_eq!((windows.len(), quiet), (16, 4));
        let sizes: Vec<usize> = windows
            .iter()
            .map(Vec::len)
            .filter(|size| *size > 0)
            .collect();
        assert_eq!(sizes, [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 7]);
        let mut singles: Vec<Kind> = windows
            .iter()
            .filter(|window| window.len() == 1)
            .map(|window| window[0])
            .collect();
        singles.sort_unstable();
        assert_eq!(singles, Kind::ALL);
    }

    #[test]
    fn scenarios_have_names() {
        for name in Scenario::names() {
            assert_eq!(Scenario::named(name).unwrap().name(), name);
        }
        let error = Scenario::named("flood").unwrap_err().to_string();
        assert!(error.contains("kill9") && error.contains("all"), "{error}");
    }
}
