//! How many events per second the judge takes on one core, parsing included.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::generate::Draw;
use crate::judge::Judge;
use crate::read::read_lines;
use crate::report::Verdict;

/// Events of a run, unless told otherwise.
pub const EVENTS: u64 = 4_000_000;

/// The goal: events per second on one core.
pub const GOAL: u64 = 2_000_000;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Events.
    pub events: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Running time of the best of three runs.
    pub best: Duration,
    /// The verdict, which must be a pass.
    pub verdict: Verdict,
}

/// The time that this thread ran, where the system says so: others on the machine do not count. Otherwise the time that
/// passed.
struct Clock {
    ran: Option<Duration>,
    begun: Instant,
}

impl Clock {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let ran = text.and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            ran: ran.map(Duration::from_nanos),
            begun: Instant::now(),
        }
    }

    fn elapsed(&self) -> Duration {
        match (self.ran, Self::now().ran) {
            (Some(before), Some(now)) if now > before => now - before,
            _ => self.begun.elapsed(),
        }
    }
}

/// Judges a history of about so many events three times, from memory.
#[must_use]
pub fn run(events: u64) -> Measured {
    let text = history(events);
    let (mut best, mut verdict, mut count) = (Duration::MAX, Verdict::Pass, 0);
    for _ in 0..3 {
        let begun = Clock::now();
        let mut judge = Judge::new();
        // Memory can be read.
        let _ = read_lines(&mut judge, text.as_bytes());
        let report = judge.finish();
        best = best.min(begun.elapsed());
        (verdict, count) = (report.verdict(), report.counts.events);
    }
    Measured {
        events: count,
        bytes: text.len() as u64,
        best,
        verdict,
    }
}

impl Measured {
    /// Events per second.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        (self.events as f64 / self.best.as_secs_f64().max(1e-9)) as u64
    }

    /// One line.
    #[must_use]
    pub fn text(&self) -> String {
        let goal = if self.per_second() >= GOAL {
            "goal met"
        } else {
            "goal missed"
        };
        format!(
            "{} events ({} MB) in {:.3} s of one core: {} events/s; goal {GOAL}: {goal}; verdict {}\n",
            self.events,
            self.bytes / 1_000_000,
            self.best.as_secs_f64(),
            self.per_second(),
            self.verdict
        )
    }
}

/// What a benchmark of a cluster records: 64 clients with eight appends in flight each, two readers that follow, some
/// reads and tails, a final read.
#[must_use]
fn history(events: u64) -> String {
    let mut out = String::with_capacity(events as usize * 110);
    let mut draw = Draw::new(1);
    // Two lines per append, two followers, one final reader; one question in 16.
    let records = events * 16 / 82;
    out.push_str(concat!(
        r#"{"v":1,"e":"hdr","run":"bench","seed":1,"sut":"ours","commit":"","world":"proc","clock_err_ns":0,"#,
        r#""order":"linearizable","dedupe":true,"spec":false,"durability":"D1","shards":2,"replicas":2,"f":1}"#,
        "\n"
    ));
    for sub in 0..2 {
        let _ = writeln!(
            out,
            r#"{{"e":"sub","t":1,"sub":{sub},"log":0,"start":0,"final":false}}"#
        );
    }
    let (mut t, mut gsn) = (1_700_000_000_000_000_000_u64, 0);
    let mut numbers = [0_u64; 64];
    let mut batch = Vec::new();
    let mut follow = [Vec::new(), Vec::new()];
    let mut all = Vec::new();
    while gsn < records {
        batch.clear();
        for (client, number) in numbers.iter_mut().enumerate() {
            for lane in 0..8 {
                t += 40;
                let (cid, op, h) = (
                    0x0123_4567_89ab_0000 + client as u64,
                    all.len() + batch.len(),
                    draw.number(),
                );
                let p = client * 8 + lane;
                let _ = writeln!(
                    out,
                    r#"{{"e":"inv","t":{t},"p":{p},"op":{op},"log":0,"f":"append","cid":{cid},"ses":3,"csn":{number},"h":"{h:016x}","try":1,"n":128}}"#
                );
                batch.push((op, cid, *number, h, client % 4));
                *number += 1;
            }
        }
        for (op, cid, csn, h, segment) in batch.drain(..) {
            t += 40;
            let _ = writeln!(
                out,
                r#"{{"e":"ok","t":{t},"op":{op},"gsn":{gsn},"shard":{},"rep":{},"lsn":{gsn},"ses":3,"csn":{csn}}}"#,
                segment / 2,
                segment % 2
            );
            all.push((cid, csn, h));
            for pending in &mut follow {
                pending.push(gsn);
            }
            gsn += 1;
            if gsn % 16 == 0 {
                let op = 1 << 40 | gsn;
                let _ = writeln!(
                    out,
                    r#"{{"e":"inv","t":{t},"p":9999,"op":{op},"log":0,"f":"tail"}}"#
                );
                let _ = writeln!(
                    out,
                    r#"{{"e":"ok","t":{},"op":{op},"tail":{gsn},"head":0}}"#,
                    t + 1
                );
            }
        }
        for (sub, pending) in follow.iter_mut().enumerate() {
            for gsn in pending.drain(..) {
                t += 10;
                deliver(&mut out, t, sub, gsn, all[gsn as usize]);
            }
        }
    }
    let _ = writeln!(
        out,
        r#"{{"e":"phase","t":{t},"log":0,"f":"final","head":0,"tail":{gsn}}}"#
    );
    let _ = writeln!(
        out,
        r#"{{"e":"sub","t":{t},"sub":2,"log":0,"start":0,"final":true}}"#
    );
    for (gsn, record) in all.into_iter().enumerate() {
        t += 10;
        deliver(&mut out, t, 2, gsn as u64, record);
    }
    out
}

fn deliver(out: &mut String, t: u64, sub: usize, gsn: u64, (cid, csn, h): (u64, u64, u64)) {
    let _ = writeln!(
        out,
        r#"{{"e":"dlv","t":{t},"sub":{sub},"gsn":{gsn},"cid":{cid},"ses":3,"csn":{csn},"h":"{h:016x}","spec":false}}"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_that_is_measured_passes() {
        let measured = run(20_000);
        assert_eq!(measured.verdict, Verdict::Pass);
        assert!(measured.events > 10_000 && measured.per_second() > 0);
        assert!(measured.text().contains("goal"));
    }
}
