//! What clients called and saw, as `hist/1`, for the judge that shares no code with the machines: kept in memory, judged at
//! the end of a run, written out as text when somebody asks for it.
//!
//! Times are those of the world's one clock. Operations and subscriptions are numbered over all clients, and every call is a
//! process of its own: the world knows nothing of threads.

use ionian_histcheck::event::{
    Answer, Call, Event, FaultState, Header, Kind, Order, Phase, Sight, White,
};
use ionian_histcheck::{Judge, Report, write_line};
use ionian_types::{GapKind, Time};
use ionian_wire::record::RecordHeader;

use crate::plan::Plan;
use crate::world::{LIVENESS_NS, LOG};

/// Room between the numbers of the segments of one life of a shard and those of the next: a shard that was opened anew
/// counts positions from 0 again, in segments that are others to the judge.
const LIFE: u64 = 100;

/// The history of a run.
#[derive(Clone, Debug)]
pub struct Recorder {
    now: u64,
    events: Vec<Event>,
    calls: u64,
    subs: u64,
    kinds: Vec<String>,
}

impl Recorder {
    /// The history of a run of `plan`, as yet without events.
    #[must_use]
    pub fn new(seed: u64, plan: &Plan) -> Self {
        let header = Header {
            run: format!("sim-{seed}"),
            seed,
            sut: "ionian".to_owned(),
            world: "sim".to_owned(),
            order: Order::Linearizable,
            dedupe: true,
            durability: plan.class.to_string(),
            shards: u64::from(plan.shards),
            replicas: u64::from(plan.replicas),
            f: u64::from(plan.replicas.saturating_sub(1)),
            dense: true,
            beyond_f: plan.may_lose(),
            live_ns: LIVENESS_NS,
            ..Header::default()
        };
        Self {
            now: 0,
            events: vec![Event::Header(Box::new(header))],
            calls: 0,
            subs: 0,
            kinds: Vec::new(),
        }
    }

    /// The world's time goes on.
    pub fn at(&mut self, now: Time) {
        self.now = now.as_ns();
    }

    /// Operations and subscriptions so far.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.calls + self.subs
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none, not even the header: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The lines from the event `from` on.
    pub fn lines(&self, from: usize) -> impl Iterator<Item = String> + '_ {
        self.events[from..].iter().map(|event| {
            let mut line = String::new();
            write_line(&mut line, event);
            line.truncate(line.trim_end().len());
            line
        })
    }

    fn call(&mut self, call: Call) -> u64 {
        let op = self.calls;
        self.calls += 1;
        let (t, log) = (self.now, u64::from(LOG.get()));
        self.events.push(Event::Inv {
            t,
            p: op,
            op,
            log,
            call,
        });
        op
    }

    /// An append is called. Its name is known when its session is: at its end.
    pub fn append(&mut self, client: u128, payload: &[u8]) -> u64 {
        self.call(Call::Append {
            cid: client as u64,
            name: None,
            attempt: 1,
            h: hash(payload),
            col: None,
        })
    }

    /// A position is read.
    pub fn read(&mut self, gsn: u64) -> u64 {
        self.call(Call::Read(gsn))
    }

    /// The tail is asked for.
    pub fn tail(&mut self) -> u64 {
        self.call(Call::Tail)
    }

    /// A trim is asked for.
    pub fn trim(&mut self, upto: u64) -> u64 {
        self.call(Call::Trim(upto))
    }

    /// A call is answered.
    pub fn ok(&mut self, op: u64, answer: Answer) {
        let t = self.now;
        self.events.push(Event::Ok { t, op, answer });
    }

    /// A call fails; `no_effect` says that it has none and never will.
    pub fn failed(&mut self, op: u64, no_effect: bool) {
        let t = self.now;
        self.events.push(Event::Failed { t, op, no_effect });
    }

    /// A subscription begins; `last` says that it belongs to the final read.
    pub fn sub(&mut self, start: u64, last: bool) -> u64 {
        let sub = self.subs;
        self.subs += 1;
        self.events.push(Event::Sub {
            t: self.now,
            sub,
            log: u64::from(LOG.get()),
            start,
            last,
            only: None,
        });
        sub
    }

    /// Its client closes it.
    pub fn end(&mut self, sub: u64) {
        self.events.push(Event::End { t: self.now, sub });
    }

    /// A record is delivered.
    pub fn delivered(&mut self, sub: u64, gsn: u64, rec: Sight) {
        self.events.push(Event::Dlv {
            t: self.now,
            sub,
            gsn,
            rec,
            spec: false,
            epoch: None,
        });
    }

    /// A gap is delivered.
    pub fn gap(&mut self, sub: u64, lo: u64, hi: u64, kind: GapKind) {
        self.events.push(Event::Gap {
            t: self.now,
            sub,
            lo,
            hi,
            kind: kind_of(kind),
            spec: false,
        });
    }

    /// A view is committed, and the next position is `start`.
    pub fn view(&mut self, view: u64, start: u64) {
        self.events.push(Event::Epoch {
            t: self.now,
            log: u64::from(LOG.get()),
            epoch: view,
            start,
        });
    }

    /// A cut is committed: per segment the shard, the [`segment`], the length before and after.
    pub fn cut(&mut self, number: u64, gsn: u64, end: u64, deltas: Vec<[u64; 4]>) {
        self.events.push(Event::White(Box::new(White::Cut {
            log: u64::from(LOG.get()),
            n: number,
            gsn,
            end,
            deltas,
        })));
    }

    /// A fault took hold.
    pub fn fault(&mut self, name: &str, beyond_f: bool) {
        self.nemesis(name.to_owned(), FaultState::Installed, beyond_f);
        self.kinds.push(name.to_owned());
    }

    fn nemesis(&mut self, fault: String, state: FaultState, beyond_f: bool) {
        self.events.push(Event::Nem {
            t: self.now,
            fault,
            state,
            beyond_f,
        });
    }

    /// All faults are over.
    pub fn healed(&mut self, head: u64, tail: u64) {
        for kind in core::mem::take(&mut self.kinds) {
            self.nemesis(kind, FaultState::Healed, false);
        }
        self.phase(Phase::Heal, head, tail);
    }

    /// Nothing is open, and nothing more happens.
    pub fn finished(&mut self, head: u64, tail: u64) {
        self.phase(Phase::Final, head, tail);
        self.events.push(Event::Done { t: self.now });
    }

    fn phase(&mut self, phase: Phase, head: u64, tail: u64) {
        self.events.push(Event::Phase {
            t: self.now,
            log: u64::from(LOG.get()),
            phase,
            head,
            tail,
        });
    }

    /// The judge's report.
    #[must_use]
    pub fn judge(&self) -> Report {
        let mut judge = Judge::new();
        judge.begin_file();
        for event in &self.events {
            judge.event(event);
        }
        let mut report = judge.finish();
        for number in report.wanted(0) {
            if let Some(line) = self.lines(number as usize - 1).next() {
                report.attach(0, number, &line);
            }
        }
        report
    }

    /// The history as JSON lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(self.events.len() * 100);
        for event in &self.events {
            write_line(&mut out, event);
        }
        out
    }
}

/// The number of a segment: slots of a later life of their shard are other segments.
#[must_use]
pub fn segment(life: u32, slot: u8) -> u64 {
    LIFE * u64::from(life.saturating_sub(1)) + u64::from(slot)
}

/// A record as its reader sees it.
#[must_use]
pub fn sight(header: &RecordHeader, payload: &[u8]) -> Sight {
    Sight {
        cid: header.client.get() as u64,
        ses: Some(u64::from(header.session.get())),
        csn: header.seq.get(),
        h: hash(payload),
    }
}

/// The judge's word for a kind of gap.
#[must_use]
pub const fn kind_of(kind: GapKind) -> Kind {
    match kind {
        GapKind::Junk => Kind::Junk,
        GapKind::Plug => Kind::Plug,
        GapKind::NoOp => Kind::Noop,
        GapKind::Bridge => Kind::Bridge,
        GapKind::Trim => Kind::Trim,
        GapKind::Loss => Kind::Loss,
    }
}

/// A hash of a payload, its length included.
#[must_use]
pub fn hash(payload: &[u8]) -> u64 {
    let mut hash = payload.len() as u64 ^ 0xcbf2_9ce4_8422_2325;
    for chunk in payload.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}

#[cfg(test)]
mod tests {
    use ionian_histcheck::{Id, Verdict};

    use super::*;

    fn history() -> Recorder {
        let mut recorder = Recorder::new(7, &Plan::calm());
        let payload = b"a record";
        let op = recorder.append(3, payload);
        recorder.at(Time::from_ns(10));
        let answer = Answer::Appended {
            gsn: 0,
            epoch: None,
            shard: Some(0),
            rep: Some(segment(1, 0)),
            lsn: Some(0),
            generation: None,
            name: Some((1, 0)),
        };
        recorder.ok(op, answer);
        let sub = recorder.sub(0, true);
        let rec = Sight {
            cid: 3,
            ses: Some(1),
            csn: 0,
            h: hash(payload),
        };
        recorder.delivered(sub, 0, rec);
        recorder
    }

    #[test]
    fn what_was_seen_is_judged_and_its_text_says_the_same() {
        let mut recorder = history();
        recorder.finished(0, 1);
        assert_eq!(recorder.judge().verdict(), Verdict::Pass);
        let text = recorder.text();
        assert_eq!(
            ionian_histcheck::judge(&text).verdict(),
            Verdict::Pass,
            "{text}"
        );
        assert_eq!(recorder.operations(), 2);
    }

    #[test]
    fn a_witness_shows_its_lines() {
        let mut recorder = history();
        recorder.finished(0, 2);
        let report = recorder.judge();
        assert_eq!(report.verdict(), Verdict::Fail);
        let witness = &report.of(Id::S9).witnesses[0];
        assert!(
            witness.lines.iter().any(|line| line.text.contains("final")),
            "{witness:?}"
        );
    }

    #[test]
    fn payloads_that_differ_in_length_only_differ() {
        assert_ne!(hash(&[0; 8]), hash(&[0; 9]));
    }
}
