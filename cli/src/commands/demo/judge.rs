//! The check of the demonstration: what the second client received against the input, record by record and as a whole.
//! Between the two, on request, the stream is damaged on purpose, to see that the check notices.

use anyhow::bail;
use ionian_client::history::{HistoryHook, What};
use sha2::{Digest, Sha256};

use super::corpus::Corpus;
use crate::table::number;

/// How the received stream is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Damage {
    /// A record is left out.
    Drop,
    /// A record comes twice.
    Dup,
    /// Two neighbours change places.
    Swap,
}

/// A history whose deliveries are damaged in the same way at position `at`.
pub(crate) fn damaged(mut hook: HistoryHook, damage: Damage, at: u64) -> HistoryHook {
    let mut held = None;
    Box::new(move |event| {
        let broken = matches!(event.what, What::Delivered { gsn, .. } if gsn.get() == at);
        match damage {
            Damage::Drop if broken => {}
            Damage::Dup if broken => {
                hook(event);
                hook(event);
            }
            Damage::Swap if broken => held = Some(event),
            _ => {
                hook(event);
                if let Some(event) = held.take() {
                    hook(event);
                }
            }
        }
    })
}

/// A hash of records and of where each ends.
#[derive(Clone, Default)]
pub(crate) struct StreamHash(Sha256);

impl StreamHash {
    /// The hash of a whole input.
    pub(crate) fn of(corpus: &Corpus) -> String {
        let mut hash = Self::default();
        (0..corpus.len()).for_each(|index| hash.record(corpus.record(index)));
        hash.finish()
    }

    fn record(&mut self, payload: &[u8]) {
        self.0.update((payload.len() as u32).to_le_bytes());
        self.0.update(payload);
    }

    fn finish(self) -> String {
        self.0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// What was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// Records received.
    pub(crate) records: u64,
    /// Their hash.
    pub(crate) hash: String,
    /// The first thing that is wrong, as a sentence.
    pub(crate) fault: Option<String>,
}

impl Verdict {
    /// Whether exactly the input was received.
    pub(crate) fn holds(&self, corpus: &Corpus, hash: &str) -> anyhow::Result<()> {
        if let Some(fault) = &self.fault {
            bail!("the second client did not receive what was appended: {fault}");
        }
        if self.records != corpus.len() || self.hash != hash {
            bail!(
                "the second client did not receive what was appended: {} records of {}, with another hash",
                number(self.records),
                number(corpus.len())
            );
        }
        Ok(())
    }
}

/// Takes the deliveries of a subscription, in order, and compares.
pub(crate) struct Judge<'a> {
    corpus: &'a Corpus,
    hash: StreamHash,
    records: u64,
    fault: Option<String>,
    damage: Option<Damage>,
    held: Option<(u64, Vec<u8>)>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(corpus: &'a Corpus, damage: Option<Damage>) -> Self {
        Self {
            corpus,
            hash: StreamHash::default(),
            records: 0,
            fault: None,
            damage,
            held: None,
        }
    }

    /// A record as the client delivered it, at its position.
    pub(crate) fn record(&mut self, gsn: u64, payload: &[u8]) {
        let broken = gsn == self.corpus.len() / 2;
        match self.damage {
            Some(Damage::Drop) if broken => {}
            Some(Damage::Dup) if broken => {
                self.judge(gsn, payload);
                self.judge(gsn, payload);
            }
            Some(Damage::Swap) if broken => self.held = Some((gsn, payload.to_vec())),
            _ => {
                self.judge(gsn, payload);
                if let Some((gsn, payload)) = self.held.take() {
                    self.judge(gsn, &payload);
                }
            }
        }
    }

    /// Positions without a record: the demonstration makes none.
    pub(crate) fn gap(&mut self, from: u64, to: u64, kind: &str) {
        self.fault.get_or_insert_with(|| {
            format!(
                "positions {} to {} hold no record (gap of kind {kind})",
                number(from),
                number(to)
            )
        });
    }

    fn judge(&mut self, gsn: u64, payload: &[u8]) {
        self.hash.record(payload);
        let expected = self.records;
        self.records += 1;
        if self.fault.is_some() {
            return;
        }
        if gsn != expected {
            let what = if gsn < expected {
                "came again or too late"
            } else {
                "came too early"
            };
            self.fault = Some(format!(
                "position {} was due and position {} {what}",
                number(expected),
                number(gsn)
            ));
        } else if expected >= self.corpus.len() || payload != self.corpus.record(expected) {
            self.fault = Some(format!(
                "position {} holds another record than the input",
                number(gsn)
            ));
        }
    }

    /// Everything was delivered.
    pub(crate) fn finish(self) -> Verdict {
        Verdict {
            records: self.records,
            hash: self.hash.finish(),
            fault: self.fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        damage: Option<Damage>,
        payload: impl Fn(u64, &[u8]) -> Vec<u8>,
    ) -> anyhow::Result<()> {
        let corpus = Corpus::of_text("the same line\n".repeat(10).into_bytes())?;
        let mut judge = Judge::new(&corpus, damage);
        for gsn in 0..corpus.len() {
            judge.record(gsn, &payload(gsn, corpus.record(gsn)));
        }
        judge.finish().holds(&corpus, &StreamHash::of(&corpus))
    }

    #[test]
    fn an_undamaged_stream_passes() {
        judged(None, |_, payload| payload.to_vec()).unwrap();
    }

    #[test]
    fn every_damage_is_named_even_where_all_records_are_equal() {
        let sentence = |damage| {
            judged(Some(damage), |_, payload| payload.to_vec())
                .unwrap_err()
                .to_string()
        };
        let prefix = "the second client did not receive what was appended: ";
        assert_eq!(
            sentence(Damage::Drop),
            format!("{prefix}position 5 was due and position 6 came too early")
        );
        assert_eq!(
            sentence(Damage::Dup),
            format!("{prefix}position 6 was due and position 5 came again or too late")
        );
        assert_eq!(
            sentence(Damage::Swap),
            format!("{prefix}position 5 was due and position 6 came too early")
        );
    }

    #[test]
    fn another_record_a_gap_and_a_missing_end_are_noticed() {
        let other = |gsn: u64, payload: &[u8]| {
            if gsn == 3 {
                b"other".to_vec()
            } else {
                payload.to_vec()
            }
        };
        let error = judged(None, other).unwrap_err().to_string();
        assert!(
            error.ends_with("position 3 holds another record than the input"),
            "{error}"
        );
        let corpus = Corpus::of_text(b"a\nb\n".to_vec()).unwrap();
        let mut judge = Judge::new(&corpus, None);
        judge.record(0, b"a");
        assert!(
            judge
                .finish()
                .holds(&corpus, &StreamHash::of(&corpus))
                .is_err()
        );
        let mut judge = Judge::new(&corpus, None);
        judge.gap(0, 1, "loss");
        assert!(
            judge
                .finish()
                .fault
                .is_some_and(|fault| fault.contains("loss"))
        );
    }
}
