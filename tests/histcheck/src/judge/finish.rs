//! The end of a history: what could not be judged line by line is judged, log by log.

use super::places::Place;
use super::streams::{Stream, select};
use super::{Context, Deferred, Gaps, Judge, Log, floors, live};
use crate::report::Report;
use crate::witness::Id;

impl Judge {
    /// Judges what can only be judged at the end.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if self.line == 0 {
            self.findings
                .fail(Id::S0, &[], || "the history is empty".to_owned());
        }
        self.end_file();
        self.resolve_deferred();
        let header = self.header.clone().unwrap_or_default();
        let context = Context {
            clock_err: header.clock_err_ns,
            order: header.order,
            dense: header.dense,
            beyond_f: header.beyond_f,
            live_ns: self.live_bound(),
            flushed: match &*header.durability {
                "D1" | "D2" => header.f.saturating_add(1),
                _ => 0,
            },
        };
        self.findings.checked(Id::S0, self.counts.events);
        self.counts.logs = self.logs.len() as u64;
        self.counts.clients = self.clients.len() as u64;
        self.counts.sessions = self.records.sessions.len() as u64;
        self.records.judge(&context, &mut self.findings);
        self.streams.sort_by_key(|stream| stream.log);
        self.slow.sort_by_key(|op| op.log);
        self.clients.sort_by_key(|client| client.log);
        let mut ends = Vec::new();
        for (at, mut log) in std::mem::take(&mut self.logs).into_iter().enumerate() {
            self.counts.duplicates += log.places.duplicates();
            self.judge_log(at as u32, &mut log, &context);
            ends.push(log.end);
        }
        floors::judge(
            &self.counts,
            header.faults,
            &self.floors,
            &ends,
            &mut self.findings,
        );
        Report::new(header, self.findings, self.counts, self.file_starts)
    }

    fn judge_log(&mut self, at: u32, log: &mut Log, context: &Context) {
        let findings = &mut self.findings;
        if let Some(last) = log.end.last.filter(|_| log.end.repeated) {
            let of_log = |stream: &&mut Stream| stream.log == at;
            for stream in self.streams.iter_mut().filter(of_log) {
                stream.last &= stream.begun >= last.t;
            }
        }
        let streams = part(&self.streams, at, |stream| stream.log);
        for stream in streams {
            if stream.last && stream.only.is_none() {
                log.end.final_runs.push(stream.final_runs());
            }
        }
        log.trims.head_known.seal();
        let trimmed = &log.trims.head_known;
        let places: Vec<(u64, Place)> =
            log.places
                .judge(&self.records, &log.end, trimmed, context, findings);
        let holes = &log.places.holes;
        log.bounds
            .judge(&places, holes, &self.records, &log.end, context, findings);
        log.trims.judge(holes, &log.end, context, findings);
        log.epochs.judge(context, findings);
        log.segments
            .judge(&Gaps::of(holes.iter()), context, findings);
        if let Some(last) = &log.end.last {
            for stream in streams {
                stream.judge_end(last, context, findings);
            }
        }
        let selections = select(at, streams, &places, &self.records);
        for stream in streams {
            if let Some(only) = stream.only {
                stream.judge_selection(only, &selections, &places, &self.records, findings);
            }
        }
        live::judge(
            part(&self.slow, at, |op| op.log),
            part(&self.clients, at, |client| client.log),
            streams,
            &log.end,
            (context, self.now),
            findings,
        );
    }

    /// Sightings without a session, now that every session is known.
    fn resolve_deferred(&mut self) {
        if self.deferred.is_empty() {
            return;
        }
        let candidates = self.records.by_number();
        for deferred in std::mem::take(&mut self.deferred) {
            let Deferred {
                log,
                sight,
                place,
                t,
                line,
            } = deferred;
            match self.records.without_session(&candidates, log, &sight) {
                Ok(rec) => self.sighted_record(log, rec, sight.h, place, t, line),
                Err(count) => self.findings.fail(Id::S0, &[line], || {
                    format!(
                        "client {} has number {} in {count} sessions: the sighting needs `ses`",
                        sight.cid, sight.csn
                    )
                }),
            }
        }
    }
}

/// What is of one log, of a list that is sorted by log.
fn part<T>(all: &[T], log: u32, of: impl Fn(&T) -> u32) -> &[T] {
    let from = all.partition_point(|item| of(item) < log);
    let to = all.partition_point(|item| of(item) <= log);
    &all[from..to]
}
