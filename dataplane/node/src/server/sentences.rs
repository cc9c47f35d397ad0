//! What a process has to say to its operator: what its places were refused, and what its built-in controller has refused. Each
//! thing once in a while, so that who asks again and again fills no log.

use std::collections::{BTreeMap, VecDeque};

use ionian_types::{Nanos, Time};

/// Before the same is said again.
const AGAIN: Nanos = Nanos::from_ms(60_000);
/// Different things that are said in that time.
const REASONS_MAX: usize = 64;
/// The longest sentence, in bytes.
const SENTENCE_BYTES_MAX: usize = 1024;

/// What was said, and what is to be said.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    /// Reasons, and when.
    said: BTreeMap<String, Time>,
    waiting: VecDeque<String>,
}

impl Sentences {
    /// Something for a reason. What others have a part in is cut, and has no control characters.
    pub(super) fn note(&mut self, now: Time, about: &str, reason: &str) {
        self.said.retain(|_, at| at.after(AGAIN) > now);
        let reason = clean(reason);
        if self.said.len() < REASONS_MAX && !self.said.contains_key(&reason) {
            self.waiting.push_back(clean(&format!("{about}: {reason}")));
            self.said.insert(reason, now);
        }
    }

    /// All that is to be said.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.waiting.drain(..).collect()
    }
}

fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > SENTENCE_BYTES_MAX {
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
    fn a_reason_is_said_once_in_a_while() {
        let at = |ms: u64| Time::ZERO.after(Nanos::from_ms(ms));
        let mut sentences = Sentences::default();
        sentences.note(at(0), "replica 0.1", "an old\nimage");
        sentences.note(at(1), "replica 1.1", "an old\nimage");
        assert_eq!(sentences.take(), ["replica 0.1: an old?image"]);
        assert!(sentences.take().is_empty());
        for number in 0..1000 {
            sentences.note(at(2), "replica", &number.to_string());
        }
        assert_eq!(sentences.take().len(), REASONS_MAX - 1);
        sentences.note(at(60_001), "replica", &"x".repeat(5000));
        assert_eq!(sentences.take()[0].len(), SENTENCE_BYTES_MAX);
        sentences.note(at(60_002), "replica", "an old\nimage");
        assert_eq!(sentences.take().len(), 1, "again");
    }
}
