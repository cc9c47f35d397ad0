//! Coverage (V1): what the history holds, and the least that it must hold before a pass means anything.

use super::LogEnd;
use crate::witness::{Findings, Id};

macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What a history holds.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counts {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Every count with its name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Adds another history's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Lines.
    events,
    /// Logs.
    logs,
    /// Clients.
    clients,
    /// Sessions.
    sessions,
    /// Appends called.
    appends,
    /// Appends acknowledged.
    acks,
    /// Calls that were not the first try.
    retries,
    /// Operations without effect.
    failed,
    /// Operations of unknown effect.
    unknown,
    /// Records that an ack named otherwise than the call.
    renamed,
    /// Reads that gave a record.
    reads,
    /// Reads that gave a hole.
    holes,
    /// Reads of what was not written.
    unwritten,
    /// Reads of what was trimmed.
    trimmed,
    /// Questions for the tail.
    tails,
    /// Trims done.
    trims,
    /// Fills done.
    fills,
    /// Subscriptions.
    streams,
    /// Of them, selective ones.
    selective,
    /// Records delivered.
    delivered,
    /// Of them, hints.
    hints,
    /// Confirmations.
    confirms,
    /// Hints taken back.
    voids,
    /// Voids while no fault was installed: an expectation, not a promise, says that there are none.
    voids_without_fault,
    /// Gaps: filled by a client.
    gaps_junk,
    /// Gaps: filled by recovery.
    gaps_plug,
    /// Gaps: unused quota.
    gaps_noop,
    /// Gaps: the end of an epoch.
    gaps_bridge,
    /// Gaps: trimmed.
    gaps_trim,
    /// Gaps: lost.
    gaps_loss,
    /// Epochs begun.
    epochs,
    /// Faults that took hold.
    faults,
    /// Faults that were skipped, or of which nobody knows.
    faults_skipped,
    /// Heals.
    heals,
    /// Final phases.
    finals,
    /// Records seen by final readers.
    final_records,
    /// Records that stand more than once, where that is permitted.
    duplicates,
    /// Committed cuts recorded inside.
    cuts,
    /// Lengths flushed, as recorded inside.
    persists,
    /// Records mended from good copies, as recorded inside.
    repairs,
    /// Events recorded inside.
    white,
}

/// A floor: a count that must be reached for a pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floor {
    /// The count's name.
    pub name: String,
    /// The least.
    pub least: u64,
}

/// V1. Every shortfall is a violation of V1; it makes a pass unknown, never a fail.
pub(super) fn judge(
    counts: &Counts,
    announced: u64,
    floors: &[Floor],
    ends: &[LogEnd],
    findings: &mut Findings,
) {
    let mut need = |holds: bool, lines: &[u32], what: &dyn Fn() -> String| {
        findings.checked(Id::V1, 1);
        if !holds {
            findings.fail(Id::V1, lines, what);
        }
    };
    need(counts.acks > 0, &[], &|| {
        "no append was acknowledged".to_owned()
    });
    need(counts.reads + counts.delivered > 0, &[], &|| {
        "no record was seen".to_owned()
    });
    for end in ends.iter().filter(|end| end.acks > 0) {
        let finished = end.last.is_some() && !end.final_runs.is_empty();
        need(finished, &[], &|| {
            format!("log {} has no final phase with a final reader", end.log)
        });
    }
    need(counts.faults >= announced, &[], &|| {
        format!(
            "{announced} faults were announced, {} took hold",
            counts.faults
        )
    });
    let tried = counts.faults_skipped > 0;
    need(counts.faults > 0 || !tried, &[], &|| {
        "no fault of those tried took hold".to_owned()
    });
    for end in ends.iter().filter(|end| end.acks > 0) {
        let healed = end.heal.is_some() || counts.faults == 0;
        need(healed, &[], &|| {
            format!(
                "log {} has no heal: nothing is known of its liveness",
                end.log
            )
        });
    }
    for floor in floors {
        let found = counts
            .all()
            .iter()
            .find(|(name, _)| *name == floor.name)
            .map(|(_, count)| *count);
        need(
            found.is_some_and(|count| count >= floor.least),
            &[],
            &|| match found {
                Some(count) => format!(
                    "{} {}, at least {} were asked for",
                    count, floor.name, floor.least
                ),
                None => format!("there is no count called {}", floor.name),
            },
        );
    }
}
