//! Trims (S14): the head only rises, and nothing is trimmed that nobody asked to trim.

use super::bounds::Asked;
use super::{Context, Gaps, LogEnd};
use crate::event::Kind;
use crate::frontier::Frontier;
use crate::judge::places::Hole;
use crate::witness::{Findings, Id, Pos};

/// What was trimmed of one log, and what was said of it.
#[derive(Default, Debug)]
pub(super) struct Trims {
    /// Calls: when, below what, and whether it certainly had no effect.
    pub(super) asked: Vec<(u64, u64, bool)>,
    /// Heads answered.
    pub(super) heads: Vec<Asked>,
    pub(super) head_known: Frontier,
    /// `trimmed` answers: position, when, lines.
    pub(super) trimmed: Vec<Asked>,
}

impl Trims {
    /// S14, and S9 for gaps of this kind, once everything was read.
    pub(super) fn judge(
        &mut self,
        holes: &[Hole],
        end: &LogEnd,
        context: &Context,
        findings: &mut Findings,
    ) {
        let mut allowed = Frontier::default();
        for (t, upto, no_effect) in &self.asked {
            if !no_effect {
                allowed.learn(*t, *upto, 0);
            }
        }
        allowed.seal();
        // A call at the very time of the answer may come first.
        let limit = |ret: u64| {
            let known = allowed.before(ret.saturating_add(context.clock_err).saturating_add(1));
            known.map_or(0, |(upto, _)| upto)
        };
        self.head_known.seal();
        // A trim may be lost with the nodes that knew of it. What it trimmed stays away even so.
        let away = context.beyond_f.then(|| Gaps::of(holes.iter()));
        let falls = |from: u64, to: u64| away.as_ref().is_some_and(|away| away.cover_all(to, from));
        for head in &self.heads {
            findings.checked(Id::S14, 1);
            if head.value > limit(head.ret) {
                findings.fail(Id::S14, &head.lines, || {
                    format!("head {}, though nobody asked to trim that far", head.value)
                });
            }
            let known = self.head_known.before(context.certainly_before(head.inv));
            if let Some((before, line)) =
                known.filter(|(before, _)| *before > head.value && !falls(*before, head.value))
            {
                findings.fail(Id::S14, &[line, head.lines[0], head.lines[1]], || {
                    format!("head {}, after it was {before}", head.value)
                });
            }
        }
        for answer in &self.trimmed {
            findings.checked(Id::S14, 1);
            if answer.value >= limit(answer.ret) {
                findings.fail(Id::S14, &answer.lines, || {
                    format!("{} is trimmed, though nobody asked for it", answer.value)
                });
            }
        }
        for hole in holes.iter().filter(|hole| hole.kind == Kind::Trim) {
            findings.checked(Id::S14, 1);
            if hole.hi > limit(hole.t) {
                for id in [Id::S9, Id::S14] {
                    findings.fail(id, &[hole.line], || {
                        format!(
                            "{}..{} is trimmed, though nobody asked to trim that far",
                            hole.lo, hole.hi
                        )
                    });
                }
            }
        }
        if let Some(last) = &end.last {
            findings.checked(Id::S14, 1);
            let known = self
                .head_known
                .top()
                .filter(|(head, _)| *head > last.head && !falls(*head, last.head));
            let lines: [Pos; 2] = [last.line, known.map_or(0, |(_, line)| line)];
            if known.is_some() || last.head > limit(last.t) {
                findings.fail(Id::S14, &lines, || {
                    format!("the final head is {}", last.head)
                });
            }
        }
    }
}
