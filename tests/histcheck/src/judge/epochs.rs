//! Epoch fencing (S13): what an epoch orders stands below where the next one begins, and is not called after it was seen.

use super::Context;
use crate::frontier::Frontier;
use crate::witness::{Findings, Id, Pos};

/// A record that is known to have been ordered by an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordered {
    pub(super) gsn: u64,
    pub(super) epoch: u64,
    /// The first call of its append, if this is an ack.
    pub(super) inv: Option<(u64, Pos)>,
    pub(super) line: Pos,
}

/// The epochs of one log.
#[derive(Default, Debug)]
pub(super) struct Epochs {
    pub(super) ordered: Vec<Ordered>,
    /// Epoch, first position, line.
    pub(super) begun: Vec<(u64, u64, Pos)>,
    /// Epochs seen, by time.
    pub(super) seen: Frontier,
}

impl Epochs {
    /// S13, once everything was read.
    pub(super) fn judge(&mut self, context: &Context, findings: &mut Findings) {
        self.seen.seal();
        self.ordered.sort_by_key(|ordered| ordered.gsn);
        self.begun.sort_unstable();
        findings.checked(Id::S13, (self.ordered.len() + self.begun.len()) as u64);
        for pair in self.begun.windows(2) {
            let ([earlier, later], same) = ([pair[0], pair[1]], pair[0].0 == pair[1].0);
            if same && earlier.1 != later.1 || later.1 < earlier.1 {
                findings.fail(Id::S13, &[earlier.2, later.2], || {
                    format!(
                        "epoch {} begins at {}, epoch {} at {}",
                        earlier.0, earlier.1, later.0, later.1
                    )
                });
            }
        }
        // From the back: the lowest position at which a later epoch begins.
        let mut lowest = Vec::with_capacity(self.begun.len());
        for begun in self.begun.iter().rev() {
            let best = lowest.last().copied().unwrap_or(*begun);
            lowest.push(if begun.1 <= best.1 { *begun } else { best });
        }
        lowest.reverse();
        let mut highest: Option<Ordered> = None;
        for ordered in &self.ordered {
            if let Some(before) = highest.filter(|before| before.epoch > ordered.epoch) {
                findings.fail(Id::S13, &[before.line, ordered.line], || {
                    format!(
                        "epoch {} at {}, epoch {} at {}",
                        before.epoch, before.gsn, ordered.epoch, ordered.gsn
                    )
                });
            } else {
                highest = Some(*ordered);
            }
            let next = self.begun.partition_point(|begun| begun.0 <= ordered.epoch);
            if let Some((epoch, start, line)) = lowest.get(next)
                && ordered.gsn >= *start
            {
                findings.fail(Id::S13, &[*line, ordered.line], || {
                    format!(
                        "epoch {} has {}, though epoch {epoch} begins at {start}",
                        ordered.epoch, ordered.gsn
                    )
                });
            }
            if let Some((inv, inv_line)) = ordered.inv {
                let known = self.seen.before(context.certainly_before(inv));
                if let Some((epoch, line)) = known.filter(|(epoch, _)| *epoch > ordered.epoch) {
                    findings.fail(Id::S13, &[line, inv_line, ordered.line], || {
                        format!(
                            "an append called after epoch {epoch} was seen succeeds in epoch {}",
                            ordered.epoch
                        )
                    });
                }
            }
        }
    }
}
