//! What the operator is told of who is refused: who, from where as far as that is known, why, and what to do.
//!
//! Never a line per call: whoever can reach the port could fill a log otherwise. One line is not said again within [`AGAIN`]; of
//! different ones [`BURST`] come at once, and one per [`EVERY`] after that. How many were not said stands in the next one. What
//! callers have a part in is cut to [`LINE_BYTES_MAX`], and has no control characters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::machine::Report;
use crate::store::lock;

/// Before a line is said again.
const AGAIN: Duration = Duration::from_secs(60);
/// Lines in a row.
const BURST: u32 = 16;
/// Between two lines after those.
const EVERY: Duration = Duration::from_secs(1);
/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// Tells the operator.
pub(crate) struct Refusals {
    report: Report,
    said: Mutex<Said>,
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

impl Refusals {
    pub(crate) fn new(report: Report) -> Arc<Self> {
        let said = Mutex::default();
        Arc::new(Self { report, said })
    }

    /// Somebody was refused. The name is empty as long as nobody has shown a certificate; the port does not make a line
    /// another one.
    pub(crate) fn note(&self, who: &str, at: Option<SocketAddr>, why: &str) {
        let named = |at: &dyn std::fmt::Display| match who {
            "" => format!("refused {at}: {why}"),
            who => format!("refused {who} at {at}: {why}"),
        };
        match at {
            Some(at) => self.line(&named(&at.ip()), &named(&at)),
            None if who.is_empty() => self.say(&format!("refused a caller: {why}")),
            None => self.say(&format!("refused {who}: {why}")),
        }
    }

    /// A line of other words.
    pub(crate) fn say(&self, line: &str) {
        self.line(line, line);
    }

    fn line(&self, key: &str, line: &str) {
        let unsaid = lock(&self.said).due(Instant::now(), &clean(key));
        let Some(unsaid) = unsaid else { return };
        let more = match unsaid {
            0 => String::new(),
            n => format!(" ({n} more refusals since the last line)"),
        };
        (self.report)(&(clean(line) + &more));
    }
}

/// What was said.
#[derive(Debug)]
struct Said {
    /// Lines, and when.
    lines: BTreeMap<String, Instant>,
    /// So many more may be said now.
    left: u32,
    /// When that was last made more.
    since: Option<Instant>,
    /// Not said since the last line.
    unsaid: u64,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            left: BURST,
            since: None,
            unsaid: 0,
        }
    }
}

impl Said {
    /// Whether a line may be said now; with it, how many were not since the last one.
    fn due(&mut self, now: Instant, key: &str) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let more = now.duration_since(since).as_secs() / EVERY.as_secs();
        if more > 0 {
            self.left = u32::try_from(more).map_or(BURST, |more| self.left.saturating_add(more));
            self.left = self.left.min(BURST);
            self.since = Some(now);
        }
        self.lines.retain(|_, at| now.duration_since(*at) < AGAIN);
        if self.left == 0 || self.lines.contains_key(key) {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        self.lines.insert(key.to_owned(), now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Text that does nothing to a terminal or a log, of a bounded length.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for c in text.chars() {
        if out.len() + c.len_utf8() > LINE_BYTES_MAX {
            break;
        }
        let harmless = c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
        out.push(if harmless { c } else { '?' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_a_minute_and_many_are_counted() {
        let mut said = Said::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(said.due(at(0), "a"), Some(0));
        for ms in 1..100 {
            assert_eq!(said.due(at(ms), "a"), None);
        }
        assert_eq!(said.due(at(100), "b"), Some(99), "another one is heard");
        let flood = (0..1000).filter(|n| said.due(at(200), &n.to_string()).is_some());
        assert_eq!(flood.count(), BURST as usize - 2);
        assert!(said.lines.len() <= BURST as usize);
        // One per second from there on, whatever comes.
        for second in 1..=300 {
            let keys = (0..50).map(|n| format!("{second}.{n}"));
            let told = keys.filter(|key| said.due(at(second * 1000), key).is_some());
            assert_eq!(told.count(), 1, "{second}");
        }
        assert!(said.lines.len() <= (BURST as u64 + AGAIN.as_secs()) as usize);
        assert!(said.due(at(400_000), "a").is_some(), "again after a while");
    }

    #[test]
    fn a_line_says_who_and_where_and_carries_nothing_strange() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let own = lines.clone();
        let report: Report = Arc::new(move |line| lock(&own).push(line.to_owned()));
        let refusals = Refusals::new(report);
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        refusals.note("node 3", at(1), "because");
        refusals.note("node 3", at(2), "because");
        refusals.note("", at(3), "no certificate");
        refusals.note("", None, "no socket");
        let long = "x".repeat(5000);
        refusals.note("node 4", None, &format!("\u{1b}[2Jbad\nline {long}"));
        let lines = lock(&lines);
        assert_eq!(
            lines[..3],
            [
                "refused node 3 at 127.0.0.1:1: because",
                "refused 127.0.0.1:3: no certificate (1 more refusals since the last line)",
                "refused a caller: no socket"
            ]
        );
        assert!(lines[3].starts_with("refused node 4: ?[2Jbad?line xxx"));
        assert_eq!(lines[3].len(), LINE_BYTES_MAX);
    }
}
