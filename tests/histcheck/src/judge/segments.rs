//! Segments and cuts (S16): positions rise within a segment, cuts never shrink, and give the positions that the acks name.
//! At flushed classes an ack comes after the flushes. Digests of replicas (part of L1) are equal.

use std::collections::BTreeMap;

use super::{Context, Gaps};
use crate::frontier::Frontier;
use crate::table::FastMap;
use crate::witness::{Findings, Id, Pos};

/// A record in its segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot {
    pub(super) shard: u64,
    pub(super) rep: u64,
    pub(super) generation: u64,
    pub(super) lsn: u64,
    pub(super) gsn: u64,
    pub(super) line: Pos,
    /// When it was acknowledged.
    pub(super) t: u64,
}

/// A committed cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) gsn: u64,
    pub(super) end: u64,
    pub(super) deltas: Vec<[u64; 4]>,
    pub(super) line: Pos,
}

/// Segments of one log.
#[derive(Default, Debug)]
pub(super) struct Segments {
    pub(super) slots: Vec<Slot>,
    pub(super) cuts: BTreeMap<u64, Cut>,
    /// Digests by shard and replica: length, digest, line.
    sums: BTreeMap<(u64, u64), (u64, u64, Pos)>,
    /// By segment, and by the replica that holds the copy, how far that was flushed, and when.
    pub(super) flushed: BTreeMap<(u64, u64), BTreeMap<u64, Frontier>>,
}

/// A share of a cut: the positions of one segment from `prev` on stand from `gsn` on.
type Share = (u64, u64, u64, Pos);

impl Segments {
    /// A node learned of a cut.
    pub(super) fn cut(&mut self, n: u64, cut: Cut, findings: &mut Findings) {
        if let Some(known) = self.cuts.get(&n) {
            if (known.gsn, known.end, &known.deltas) != (cut.gsn, cut.end, &cut.deltas) {
                findings.fail(Id::S16, &[known.line, cut.line], || {
                    format!("two cuts are number {n}")
                });
            }
            return;
        }
        self.cuts.insert(n, cut);
    }

    /// A replica told the digest of its copy.
    pub(super) fn sum(
        &mut self,
        segment: (u64, u64),
        (len, h, line): (u64, u64, Pos),
        findings: &mut Findings,
    ) {
        findings.checked(Id::L1, 1);
        let known = *self.sums.entry(segment).or_insert((len, h, line));
        if (known.0, known.1) != (len, h) {
            findings.fail(Id::L1, &[known.2, line], || {
                format!(
                    "copies of segment {} of shard {} differ: {} long, {:016x}; {len} long, {h:016x}",
                    segment.1, segment.0, known.0, known.1
                )
            });
        }
    }

    /// S16, once everything was read.
    pub(super) fn judge(&mut self, declared: &Gaps, context: &Context, findings: &mut Findings) {
        self.persisted(context, findings);
        findings.checked(Id::S16, (self.slots.len() + self.cuts.len()) as u64);
        self.slots.sort_unstable();
        for pair in self.slots.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            let segment = (a.shard, a.rep) == (b.shard, b.rep);
            let same = (a.generation, a.lsn) == (b.generation, b.lsn);
            let rises = same == (a.gsn == b.gsn) && a.gsn <= b.gsn;
            if segment && !rises {
                findings.fail(Id::S16, &[a.line, b.line], || {
                    format!(
                        "segment {} of shard {}: {} stands at {}, {} at {}",
                        a.rep, a.shard, a.lsn, a.gsn, b.lsn, b.gsn
                    )
                });
            }
        }
        let shares = self.shares(declared, findings);
        for slot in &self.slots {
            let Some(shares) = shares.get(&(slot.shard, slot.rep)) else {
                continue;
            };
            let at = shares.partition_point(|share| share.0 <= slot.lsn);
            if let Some((prev, new, gsn, line)) = at.checked_sub(1).map(|at| shares[at])
                && slot.lsn < new
                && slot.gsn != gsn + (slot.lsn - prev)
            {
                findings.fail(Id::S16, &[line, slot.line], || {
                    format!(
                        "{} of segment {} of shard {} stands at {}, the cut gives it {}",
                        slot.lsn,
                        slot.rep,
                        slot.shard,
                        slot.gsn,
                        gsn + (slot.lsn - prev)
                    )
                });
            }
        }
    }

    /// At a flushed class, what is acknowledged was flushed by as many as the class says; where flushes are recorded.
    fn persisted(&mut self, context: &Context, findings: &mut Findings) {
        for copy in self.flushed.values_mut().flat_map(BTreeMap::values_mut) {
            copy.seal();
        }
        if self.flushed.is_empty() || context.flushed == 0 {
            return;
        }
        for slot in &self.slots {
            findings.checked(Id::S16, 1);
            let by = slot.t.saturating_add(context.clock_err).saturating_add(1);
            let copies = self.flushed.get(&(slot.shard, slot.rep));
            let copies = copies.into_iter().flat_map(BTreeMap::values);
            let held = copies.filter_map(|copy| copy.before(by));
            let held = held.filter(|(len, _)| *len > slot.lsn).count() as u64;
            if held < context.flushed {
                findings.fail(Id::S16, &[slot.line], || {
                    format!(
                        "{} of segment {} of shard {} is acknowledged, and flushed by {held} of {} replicas",
                        slot.lsn, slot.rep, slot.shard, context.flushed
                    )
                });
            }
        }
    }

    /// Cuts in order: each begins where the one before ended, and adds up. The shares of each segment, in order.
    fn shares(&self, declared: &Gaps, findings: &mut Findings) -> FastMap<(u64, u64), Vec<Share>> {
        let mut shares: FastMap<(u64, u64), Vec<Share>> = FastMap::default();
        let mut before: Option<&Cut> = None;
        for (n, cut) in &self.cuts {
            let begins = before.is_none_or(|before| {
                before.end == cut.gsn
                    || before.end < cut.gsn && declared.cover_all(before.end, cut.gsn)
            });
            if !begins {
                findings.fail(
                    Id::S16,
                    &[before.map_or(0, |before| before.line), cut.line],
                    || {
                        format!(
                            "cut {n} begins at {}, the one before ended at {}",
                            cut.gsn,
                            before.map_or(0, |before| before.end)
                        )
                    },
                );
            }
            let mut gsn = cut.gsn;
            for [shard, rep, prev, new] in &cut.deltas {
                let of = shares.entry((*shard, *rep)).or_default();
                let (held, line) = of.last().map_or((*prev, 0), |share| (share.1, share.3));
                if new < prev || *prev != held {
                    findings.fail(Id::S16, &[line, cut.line], || {
                        format!("cut {n}: segment {rep} of shard {shard} goes from {prev} to {new}, it was {held} long")
                    });
                }
                of.push((*prev, *new, gsn, cut.line));
                gsn = gsn.saturating_add(new.saturating_sub(*prev));
            }
            if gsn != cut.end {
                findings.fail(Id::S16, &[cut.line], || {
                    format!("cut {n} ends at {}, its lengths add up to {gsn}", cut.end)
                });
            }
            before = Some(cut);
        }
        shares
    }
}
