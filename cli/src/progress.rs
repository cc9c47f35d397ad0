//! Live progress on standard error, only when that is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::table::{number, per_second};

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(100);

/// A line of progress that redraws itself; nothing when nobody looks.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    drawn: Instant,
}

impl Progress {
    /// Begins a line, unless `quiet` or standard error is not a terminal.
    pub(crate) fn begin(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid"),
            );
            bar
        });
        let now = Instant::now();
        Self {
            bar,
            began: now,
            drawn: now,
        }
    }

    /// Shows how many records there are now, with their rate, and what `more` adds. Cheap when it is not yet time.
    pub(crate) fn records(&mut self, records: u64, more: impl FnOnce() -> String) {
        let Some(bar) = &self.bar else { return };
        if self.drawn.elapsed() < EVERY {
            return;
        }
        self.drawn = Instant::now();
        let rate = per_second(records, self.began.elapsed());
        bar.set_message(format!(
            "{} records  {} records/s{}",
            number(records),
            number(rate),
            more()
        ));
        bar.tick();
    }

    /// Takes the line away and, where it was shown, leaves a sentence in its place.
    pub(crate) fn end(&self, sentence: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            eprintln!("{}", sentence());
        }
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
