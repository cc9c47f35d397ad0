//! What the threads of a run know of each other: how the servers' lengths grow, when each report was written, when each cut was
//! committed. Ages follow from it without a word in the frames.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hdrhistogram::Histogram;
use ionian_types::Time;

/// Rounds of reports whose times are remembered.
const ROUNDS: u64 = 128;
/// Entries whose commit times are remembered.
const ENTRIES: u64 = 8_192;
/// A growth of one record per round.
const ONE: u64 = 1 << 10;

/// How much the segments of a shard have grown by each round of reports: a line with a slope in records per round, shifted a little
/// from shard to shard. All segments of a shard are equally long: what its replicas hold is copied long before it is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Growth {
    per_round: u64,
}

impl Growth {
    /// So many records per round and segment; at least a thousandth.
    pub(crate) fn new(records: f64) -> Self {
        Self {
            per_round: ((records * ONE as f64).round() as u64).max(1),
        }
    }

    /// The length of the segments of a shard as of a round, from 1. Before the first round, which is round 0, it is 0.
    #[inline]
    pub(crate) fn len(self, round: u64, shard: usize) -> u64 {
        (round * self.per_round + (shard as u64 * 617) % ONE) / ONE
    }

    /// Records per round and segment.
    pub(crate) fn records(self) -> f64 {
        self.per_round as f64 / ONE as f64
    }
}

/// A histogram of ages in nanoseconds, up to ten seconds.
pub(crate) fn ages() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("constant bounds that are in order")
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) growth: Growth,
    /// Servers whose reports of a round are written under one time.
    pub(crate) block: usize,
    blocks: usize,
    /// The last committed entry, and the end of the order then.
    committed: AtomicU64,
    end_gsn: AtomicU64,
    commits: Box<[AtomicU64]>,
    /// By round and block: when its reports were written.
    stamps: Box<[AtomicU64]>,
    /// The newest round of which a report was written.
    round: AtomicU64,
    /// The servers have written the last report that is to be ordered, when the records of all of them are known.
    expected: AtomicU64,
    ended: AtomicBool,
    /// The cuts have caught up with that.
    pub(crate) settled: AtomicBool,
    /// Halls whose leaves have read all of it.
    pub(crate) halls_done: AtomicUsize,
    /// The servers write as fast as they can, for a bare scan of their slots.
    pub(crate) bare: AtomicBool,
    /// Everybody goes home.
    pub(crate) over: AtomicBool,
}

impl Board {
    pub(crate) fn new(servers: usize, growth: Growth) -> Self {
        let block = (servers / 64).clamp(1, 32);
        let blocks = servers.div_ceil(block);
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            growth,
            block,
            blocks,
            committed: AtomicU64::new(0),
            end_gsn: AtomicU64::new(0),
            commits: zeros(ENTRIES as usize),
            stamps: zeros(ROUNDS as usize * blocks),
            round: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            halls_done: AtomicUsize::new(0),
            bare: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Blocks of servers.
    pub(crate) const fn blocks(&self) -> usize {
        self.blocks
    }

    /// An entry was committed.
    #[inline]
    pub(crate) fn commit(&self, entry: u64, end_gsn: u64, at: Time) {
        self.commits[(entry % ENTRIES) as usize].store(at.as_ns(), Ordering::Relaxed);
        self.end_gsn.store(end_gsn, Ordering::Relaxed);
        self.committed.store(entry, Ordering::Release);
    }

    /// The last committed entry.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The end of the order, as of the last committed cut or a later one.
    pub(crate) fn end_gsn(&self) -> u64 {
        self.end_gsn.load(Ordering::Relaxed)
    }

    /// When an entry was committed that is not long ago.
    #[inline]
    pub(crate) fn committed_at(&self, entry: u64) -> Option<Time> {
        let last = self.committed();
        (entry <= last && last - entry < ENTRIES / 2).then(|| {
            Time::from_ns(self.commits[(entry % ENTRIES) as usize].load(Ordering::Relaxed))
        })
    }

    /// The reports of a block for a round are about to be written.
    #[inline]
    pub(crate) fn stamp(&self, round: u64, block: usize, at: Time) {
        let slot = (round % ROUNDS) as usize * self.blocks + block;
        self.stamps[slot].store(at.as_ns(), Ordering::Relaxed);
        if block == 0 {
            self.round.store(round, Ordering::Release);
        }
    }

    /// When a server's report of a round was written that is not long ago.
    #[inline]
    fn stamped_at(&self, round: u64, server: usize) -> Time {
        let slot = (round % ROUNDS) as usize * self.blocks + server / self.block;
        Time::from_ns(self.stamps[slot].load(Ordering::Relaxed))
    }

    /// The servers have written their last report.
    pub(crate) fn end(&self, records: u64) {
        self.expected.store(records, Ordering::Relaxed);
        self.ended.store(true, Ordering::Release);
    }

    /// The records of all reports, once the last one was written.
    pub(crate) fn expected(&self) -> Option<u64> {
        self.ended
            .load(Ordering::Acquire)
            .then(|| self.expected.load(Ordering::Relaxed))
    }
}

/// Follows which reports of one server cuts have covered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follower {
    server: u32,
    shard: u32,
    /// The first round that no cut has covered.
    next: u64,
}

impl Follower {
    pub(crate) const fn new(server: usize, replicas: usize) -> Self {
        Self {
            server: server as u32,
            shard: (server / replicas) as u32,
            next: 1,
        }
    }

    /// A cut gave the server's segment this length: notes the age at `at` of every report that it covers and none before did. Reports
    /// that say nothing new have none. The number of reports whose time is not known any more.
    #[inline]
    pub(crate) fn covered(
        &mut self,
        len: u64,
        at: Time,
        board: &Board,
        ages: &mut Histogram<u64>,
    ) -> u64 {
        let shard = self.shard as usize;
        let mut before = board.growth.len(self.next - 1, shard);
        if before >= len {
            return 0;
        }
        let mut forgotten = 0;
        let written = board.round.load(Ordering::Acquire);
        let oldest = (written + 2).saturating_sub(ROUNDS);
        while self.next <= written {
            let after = board.growth.len(self.next, shard);
            if after > len {
                break;
            }
            if after > before {
                if self.next > oldest {
                    let written_at = board.stamped_at(self.next, self.server as usize);
                    ages.saturating_record(at.since(written_at).0.max(1));
                } else {
                    forgotten += 1;
                }
            }
            before = after;
            self.next += 1;
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_grow_at_the_rate_asked_for() {
        let growth = Growth::new(7.5);
        assert_eq!(growth.len(0, 3), 0);
        for shard in [0, 1, 999] {
            let grown = growth.len(1_000, shard) - growth.len(0, shard);
            assert_eq!(grown, 7_500);
        }
        assert!((growth.records() - 7.5).abs() < 1e-9);
        assert_eq!(Growth::new(0.0).len(1_024, 0), 1);
    }

    #[test]
    fn a_report_has_an_age_once_and_only_if_it_says_something() {
        let board = Board::new(4, Growth::new(0.5));
        let mut follower = Follower::new(2, 2);
        let shard = 1;
        for round in 1..=8 {
            for block in 0..board.blocks() {
                board.stamp(round, block, Time::from_ns(round * 100));
            }
        }
        let mut found = ages();
        let to = |round| board.growth.len(round, shard);
        let at = Time::from_ns(1_000);
        assert_eq!(follower.covered(to(4), at, &board, &mut found), 0);
        let grown = to(4) - to(0);
        assert_eq!(found.len(), grown);
        assert_eq!(follower.covered(to(4), at, &board, &mut found), 0);
        assert_eq!(found.len(), grown, "nothing new");
        assert_eq!(follower.covered(to(8), at, &board, &mut found), 0);
        assert_eq!(found.len(), to(8) - to(0));
        assert!(found.min() >= 200 && found.max() <= 1_000);
        for round in 9..=400 {
            for block in 0..board.blocks() {
                board.stamp(round, block, Time::from_ns(round * 100));
            }
        }
        let forgotten = follower.covered(to(400), Time::from_ns(50_000), &board, &mut found);
        assert_eq!(found.len() + forgotten, to(400) - to(0));
        assert!(forgotten > 100);
    }

    #[test]
    fn commits_are_found_by_entry() {
        let board = Board::new(1, Growth::new(1.0));
        assert_eq!(board.committed_at(1), None);
        board.commit(7, 70, Time::from_ns(700));
        assert_eq!(board.committed_at(7), Some(Time::from_ns(700)));
        assert_eq!(board.committed_at(8), None);
        board.commit(7 + ENTRIES, 90, Time::from_ns(900));
        assert_eq!(board.committed_at(7), None);
        assert_eq!((board.committed(), board.end_gsn()), (7 + ENTRIES, 90));
    }
}
