//! The verdict over the history of the demonstration: that of the judge, which shares no code with what it judges.

use anyhow::bail;
use ionian_histcheck::{Report, Verdict};
use serde_json::{Value, json};

use crate::history::History;
use crate::table::number;

/// What the judge said.
#[derive(Debug)]
pub(crate) struct Judged {
    verdict: Verdict,
    events: u64,
    place: String,
    /// Why it is not a pass.
    why: Option<String>,
}

impl Judged {
    /// Ends the history and has it judged. Of one that is not whole nothing is known.
    pub(crate) fn of(history: &History) -> Self {
        let place = history.place();
        match history.finish().and_then(|()| history.judge()) {
            Ok(report) => Self {
                verdict: report.verdict(),
                events: report.counts.events,
                place,
                why: first_violation(&report),
            },
            Err(error) => Self {
                verdict: Verdict::Unknown,
                events: 0,
                place,
                why: Some(format!("{error:#}")),
            },
        }
    }

    /// Whether it is a pass.
    pub(crate) fn holds(&self) -> anyhow::Result<()> {
        match &self.why {
            None => Ok(()),
            Some(why) => bail!("the verdict over the history is {}: {why}", self.verdict),
        }
    }

    /// For the summary.
    pub(crate) fn text(&self) -> String {
        let Self {
            verdict,
            events,
            place,
            ..
        } = self;
        format!(
            "{verdict}, by histcheck over {} events, {place}",
            number(*events)
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({"verdict": self.verdict.to_string(), "events": self.events, "history": self.place, "why": self.why})
    }
}

/// The first invariant that is violated, with the smallest witness.
fn first_violation(report: &Report) -> Option<String> {
    let outcome = report
        .outcomes
        .iter()
        .find(|outcome| outcome.violated > 0)?;
    let (id, says) = (outcome.id, outcome.id.says());
    let shown = outcome.witnesses.first().map(|witness| {
        let lines: Vec<String> = witness
            .lines
            .iter()
            .map(|line| {
                let file = report
                    .files
                    .get(line.file)
                    .map_or("history", String::as_str);
                format!("{file}:{}", line.line)
            })
            .collect();
        format!("{} ({})", witness.what, lines.join(", "))
    });
    Some(format!("{id}, {says}: {}", shown.unwrap_or_default()))
}
