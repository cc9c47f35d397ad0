//! The reference log, and the operations around it.

use super::streams::Follower;
use super::{Draw, Plan};
use crate::event::{Answer, Call, Event, Kind, Sight, White};

/// What stands at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Record(usize),
    Hole(Kind),
}

/// One log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) values: Vec<Value>,
    pub(super) head: u64,
    pub(super) lost: Option<(u64, u64)>,
    epoch: u64,
    /// Lengths of the segments: shard 0 replicas 0 and 1, shard 1 replicas 0 and 1.
    lengths: [u64; 4],
    cuts: u64,
}

impl Log {
    pub(super) fn tail(&self) -> u64 {
        self.values.len() as u64
    }

    pub(super) fn is_lost(&self, gsn: u64) -> bool {
        self.lost.is_some_and(|(lo, hi)| lo <= gsn && gsn < hi)
    }
}

#[derive(Clone, Debug)]
struct Session {
    log: u64,
    cid: u64,
    ses: u64,
    next: u64,
    segment: usize,
    /// Nothing of it takes effect before this.
    not_before: u64,
    /// A retry comes first.
    blocked: bool,
    /// Made for records that moved.
    side: bool,
}

/// A record that was appended, or is being.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) log: u64,
    pub(super) session: usize,
    pub(super) csn: u64,
    pub(super) h: u64,
    pub(super) colour: Option<u64>,
    pub(super) segment: usize,
    /// Where it stands, in which segment position, by which epoch.
    pub(super) place: Option<(u64, u64, u64)>,
    renamed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Answer,
    Unknown,
    NoEffect,
}

#[derive(Clone, Debug)]
struct Op {
    op: u64,
    log: u64,
    call: Call,
    record: Option<usize>,
    /// When it takes effect; never, if it has none.
    effect: Option<u64>,
    done: bool,
    ends: u64,
    end: End,
    ended: bool,
    answer: Answer,
    /// It will be tried again; the effect of this try, if any, is the one.
    retry: bool,
}

/// Everything of one history.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) draw: Draw,
    pub(super) now: u64,
    pub(super) logs: Vec<Log>,
    pub(super) records: Vec<Record>,
    pub(super) followers: Vec<Follower>,
    pub(super) installed: u64,
    pub(super) tried: u64,
    pub(super) next_sub: u64,
    sessions: Vec<Session>,
    ops: Vec<Op>,
    next_op: u64,
    next_session: u64,
    events: Vec<Event>,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let mut sessions = Vec::new();
        let mut next_session = 1;
        for log in 0..plan.logs {
            for client in 0..plan.clients {
                for _ in 0..plan.sessions {
                    sessions.push(Session {
                        log,
                        cid: 100 + client,
                        ses: next_session,
                        next: 0,
                        segment: next_session as usize % 4,
                        not_before: 0,
                        blocked: false,
                        side: false,
                    });
                    next_session += 1;
                }
            }
        }
        Self {
            plan,
            draw: Draw::new(plan.header.seed ^ 0x5eed),
            now: 1,
            logs: (0..plan.logs).map(|_| Log::default()).collect(),
            records: Vec::new(),
            followers: Vec::new(),
            installed: 0,
            tried: 0,
            next_sub: 0,
            sessions,
            ops: Vec::new(),
            next_op: 0,
            next_session,
            events: vec![Event::Header(Box::new(plan.header.clone()))],
        }
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn bounds(&self, log: u64) -> (u64, u64, u64) {
        let of = &self.logs[log as usize];
        (self.now, of.head, of.tail())
    }

    pub(super) fn lengths(&self, log: u64) -> [u64; 4] {
        self.logs[log as usize].lengths
    }

    /// Everything that was recorded, in the order of time, the readers by their own clock.
    pub(super) fn finish(self) -> Vec<Event> {
        let mut events = self.events;
        if self.plan.skew > 0 {
            for event in &mut events {
                if let Event::Sub { t, .. }
                | Event::Dlv { t, .. }
                | Event::Gap { t, .. }
                | Event::Conf { t, .. }
                | Event::Void { t, .. }
                | Event::End { t, .. } = event
                {
                    *t += self.plan.skew;
                }
            }
        }
        if self.plan.header.done {
            let t = self.now + self.plan.skew;
            events.push(Event::Done { t });
        }
        events
    }

    /// Time passes, and something happens.
    pub(super) fn step(&mut self, healed: bool) {
        self.now += self.draw.below(12);
        if !healed {
            self.faults();
            self.losses();
        }
        for log in 0..self.plan.logs {
            if self.draw.below(1000) < self.plan.epochs {
                self.next_epoch(log);
            }
        }
        for session in 0..self.sessions.len() {
            if self.draw.chance(self.plan.busy) {
                self.append(session, healed);
            }
        }
        for log in 0..self.plan.logs {
            if self.draw.chance(self.plan.busy) {
                self.question(log, healed);
            }
        }
        self.effects();
        self.follow(healed);
        self.answers();
    }

    /// Until nothing is open and every follower is at the tail.
    pub(super) fn settle(&mut self) {
        while self
            .ops
            .iter()
            .any(|op| !op.ended || !op.done && op.effect.is_some())
        {
            self.now += 1 + self.draw.below(5);
            self.effects();
            self.answers();
        }
        self.catch_up();
        self.now += 1;
    }

    fn next_epoch(&mut self, log: u64) {
        let of = &mut self.logs[log as usize];
        of.epoch += 1;
        if self.plan.holes > 0 && self.draw.chance(50) {
            of.values.push(Value::Hole(Kind::Bridge));
        }
        let (t, epoch, start) = (self.now, of.epoch, of.tail());
        self.emit(Event::Epoch {
            t,
            log,
            epoch,
            start,
        });
    }

    fn losses(&mut self) {
        if !self.plan.loss || !self.draw.chance(5) {
            return;
        }
        let of = &mut self.logs[0];
        if of.lost.is_none() && of.tail() > of.head + 3 {
            let lo = of.head + self.draw.below(of.tail() - of.head - 2);
            of.lost = Some((lo, lo + 1 + self.draw.below(of.tail() - lo - 1)));
        }
    }

    fn call(&mut self, log: u64, call: Call, record: Option<usize>, effect: Option<u64>) -> usize {
        let (t, op) = (self.now, self.next_op);
        self.next_op += 1;
        // Processes are named anew each time, or kept: an operation's number is free once it has ended.
        let free = (0..).find(|p| !self.ops.iter().any(|op| !op.ended && op.op % 1000 == *p));
        let p = free.unwrap_or(op);
        let op = op * 1000 + p;
        self.emit(Event::Inv {
            t,
            p,
            op,
            log,
            call,
        });
        let later = self.draw.below(30);
        self.ops.push(Op {
            op,
            log,
            call,
            record,
            effect,
            done: false,
            ends: effect.unwrap_or(t) + later,
            end: End::Answer,
            ended: false,
            answer: Answer::Done,
            retry: false,
        });
        self.ops.len() - 1
    }

    fn append(&mut self, at: usize, healed: bool) {
        let session = self.sessions[at].clone();
        if session.blocked || session.side {
            return;
        }
        let csn = session.next;
        self.sessions[at].next += 1;
        let record = self.records.len();
        let h = self.draw.number();
        let colour = self.plan.selective.then(|| self.draw.below(3));
        let renamed = self.plan.renames && self.draw.chance(20);
        self.records.push(Record {
            log: session.log,
            session: at,
            csn,
            h,
            colour,
            segment: session.segment,
            place: None,
            renamed,
        });
        let nameless = renamed && self.draw.chance(50);
        let call = Call::Append {
            cid: session.cid,
            name: (!nameless).then_some((session.ses, csn)),
            attempt: 1,
            h,
            col: colour,
        };
        let effect = self.now.max(session.not_before) + self.draw.below(20);
        let fate = if healed { 100 } else { self.draw.below(100) };
        let (effect, end, retry) = match fate {
            0..10 => (Some(effect), End::Unknown, false),
            10..16 => (None, End::Unknown, false),
            16..22 => (None, End::NoEffect, false),
            22..28 if !renamed => (Some(effect), End::Unknown, true),
            28..32 if !renamed => (None, End::Unknown, true),
            32..36 if !renamed => (None, End::NoEffect, true),
            _ => (Some(effect), End::Answer, false),
        };
        if let Some(effect) = effect {
            self.sessions[at].not_before = effect;
        }
        self.sessions[at].blocked = retry;
        let (now, ends) = (self.now, self.now + self.draw.below(30));
        let op = self.call(session.log, call, Some(record), effect);
        let op = &mut self.ops[op];
        (op.end, op.retry) = (end, retry);
        if end == End::Unknown {
            // The answer may be given up before the effect comes.
            op.ends = ends.max(now);
        }
    }

    /// The second try of a record whose first one ended.
    fn again(&mut self, record: usize, before: Call) {
        let Call::Append {
            cid, name, h, col, ..
        } = before
        else {
            return;
        };
        let call = Call::Append {
            cid,
            name,
            attempt: 2,
            h,
            col,
        };
        let (log, session) = (self.records[record].log, self.records[record].session);
        let effect = self.now.max(self.sessions[session].not_before) + self.draw.below(20);
        self.sessions[session].not_before = effect;
        self.sessions[session].blocked = false;
        self.call(log, call, Some(record), Some(effect));
    }

    fn question(&mut self, log: u64, healed: bool) {
        let of = &self.logs[log as usize];
        let (head, tail) = (of.head, of.tail());
        let call = match self.draw.below(10) {
            0..3 => Call::Tail,
            3 if self.plan.trims => Call::Trim(head + self.draw.below((tail - head) / 3 + 1)),
            4..6 if self.plan.fills => Call::Fill(tail - self.draw.below(tail.min(2) + 1)),
            _ => Call::Read(self.draw.below(tail + 3)),
        };
        let effect = self.now + self.draw.below(15);
        let op = self.call(log, call, None, Some(effect));
        if !healed {
            let end = match self.draw.below(20) {
                0 => End::Unknown,
                1 => End::NoEffect,
                _ => End::Answer,
            };
            self.ops[op].end = end;
            if end == End::NoEffect {
                self.ops[op].effect = None;
            }
        }
    }

    /// What is due takes effect: the appends in a cut, segment by segment, each session in its order.
    fn effects(&mut self) {
        for log in 0..self.plan.logs {
            let mut due = Vec::new();
            for (at, op) in self.ops.iter().enumerate() {
                let is_due = !op.done && op.effect.is_some_and(|effect| effect <= self.now);
                if op.log == log && is_due {
                    due.push(at);
                }
            }
            let mut cut: Vec<usize> = Vec::new();
            for at in due {
                self.ops[at].done = true;
                match self.ops[at].record {
                    Some(_) => cut.push(at),
                    None => self.ops[at].answer = self.ask(log, self.ops[at].call),
                }
            }
            if self.draw.chance(self.plan.holes) {
                let kind = *self.draw.pick(&[Kind::Plug, Kind::Noop]);
                for _ in 0..=self.draw.below(4) {
                    self.logs[log as usize].values.push(Value::Hole(kind));
                }
            }
            cut.sort_by_key(|op| {
                let record = &self.records[self.ops[*op].record.unwrap_or(0)];
                (record.segment, record.session, record.csn, *op)
            });
            self.cut(log, &cut);
        }
    }

    fn cut(&mut self, log: u64, ops: &[usize]) {
        let of = &self.logs[log as usize];
        let (gsn, before, epoch) = (of.tail(), of.lengths, of.epoch);
        for op in ops {
            let Some(record) = self.ops[*op].record else {
                continue;
            };
            let known = self.records[record].place;
            let place = match known {
                Some(place) if self.plan.header.dedupe => place,
                _ => {
                    let of = &mut self.logs[log as usize];
                    let segment = self.records[record].segment;
                    let place = (of.tail(), of.lengths[segment], epoch);
                    of.values.push(Value::Record(record));
                    of.lengths[segment] += 1;
                    if self.records[record].renamed {
                        self.rename(record);
                    }
                    if known.is_none() {
                        self.records[record].place = Some(place);
                    }
                    place
                }
            };
            self.ops[*op].answer = self.ack(record, place, &self.ops[*op].call);
        }
        let of = &mut self.logs[log as usize];
        let (end, after) = (of.tail(), of.lengths);
        if self.plan.cuts && end > gsn {
            self.persist(log, &before, &after);
            let of = &mut self.logs[log as usize];
            of.cuts += 1;
            let n = of.cuts;
            let deltas = (0..4).filter(|at| after[*at] > before[*at]).map(|at| {
                let (shard, rep) = (at as u64 / 2, at as u64 % 2);
                [shard, rep, before[at], after[at]]
            });
            let deltas = deltas.collect();
            for _ in 0..=self.draw.below(2) {
                let deltas = Vec::clone(&deltas);
                self.emit(Event::White(Box::new(White::Cut {
                    log,
                    n,
                    gsn,
                    end,
                    deltas,
                })));
            }
        }
    }

    /// Both replicas flush what a cut is about to order.
    fn persist(&mut self, log: u64, before: &[u64; 4], after: &[u64; 4]) {
        let t = self.now;
        for at in (0..4).filter(|at| after[*at] > before[*at]) {
            for by in 0..2 {
                self.emit(Event::White(Box::new(White::Persist {
                    t,
                    log,
                    shard: at as u64 / 2,
                    rep: at as u64 % 2,
                    by,
                    len: after[at],
                })));
            }
        }
        if self.draw.chance(5) {
            let n = 1 + self.draw.below(3);
            self.emit(Event::White(Box::new(White::Repair { n })));
        }
    }

    /// A record gets the next number of a session that its client keeps for such records.
    fn rename(&mut self, record: usize) {
        let (log, cid) = {
            let session = &self.sessions[self.records[record].session];
            (session.log, session.cid)
        };
        let side = self
            .sessions
            .iter()
            .position(|session| session.side && (session.log, session.cid) == (log, cid));
        let side = side.unwrap_or_else(|| {
            let mut session = self.sessions[self.records[record].session].clone();
            (session.ses, session.next, session.side) = (self.next_session, 0, true);
            self.next_session += 1;
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        let record = &mut self.records[record];
        (record.session, record.csn) = (side, self.sessions[side].next);
        self.sessions[side].next += 1;
    }

    fn ack(&self, record: usize, (gsn, lsn, epoch): (u64, u64, u64), call: &Call) -> Answer {
        let known = &self.records[record];
        let own = (self.sessions[known.session].ses, known.csn);
        let called = match call {
            Call::Append { name, .. } => *name,
            _ => None,
        };
        let segment = known.segment as u64;
        Answer::Appended {
            gsn,
            epoch: (self.plan.epochs > 0).then_some(epoch),
            shard: Some(segment / 2),
            rep: self.plan.cuts.then_some(segment % 2),
            lsn: Some(lsn),
            generation: self.plan.generations.then_some(epoch),
            name: (called != Some(own)).then_some(own),
        }
    }

    /// The answer to anything but an append, as things stand now.
    fn ask(&mut self, log: u64, call: Call) -> Answer {
        let of = &mut self.logs[log as usize];
        match call {
            Call::Tail => Answer::Tail {
                tail: of.tail(),
                head: self.draw.chance(50).then_some(of.head),
            },
            Call::Trim(upto) => {
                of.head = of.head.max(upto);
                Answer::Head(of.head)
            }
            Call::Fill(gsn) | Call::Read(gsn) => {
                let fill = matches!(call, Call::Fill(_));
                if fill && gsn >= of.tail() {
                    of.values.push(Value::Hole(Kind::Junk));
                }
                if gsn >= of.tail() {
                    return Answer::Unwritten;
                }
                if gsn < of.head && (fill || self.draw.chance(70)) {
                    return Answer::Trimmed;
                }
                if of.is_lost(gsn) {
                    return Answer::Hole(Kind::Loss);
                }
                match of.values[gsn as usize] {
                    Value::Record(record) => Answer::Record(self.sight(record)),
                    Value::Hole(kind) => Answer::Hole(kind),
                }
            }
            Call::Append { .. } => Answer::Done,
        }
    }

    pub(super) fn sight(&self, record: usize) -> Sight {
        let known = &self.records[record];
        let session = &self.sessions[known.session];
        Sight {
            cid: session.cid,
            ses: (!self.plan.omit_sessions).then_some(session.ses),
            csn: known.csn,
            h: known.h,
        }
    }

    pub(super) fn client_of(&self, record: usize) -> u64 {
        self.sessions[self.records[record].session].cid
    }

    pub(super) fn epoch_of(&self, record: usize) -> Option<u64> {
        let (_, _, epoch) = self.records[record].place?;
        let stated = self.plan.epochs > 0 && self.plan.header.dedupe;
        stated.then_some(epoch)
    }

    /// What is due is answered, given up or refused.
    fn answers(&mut self) {
        for at in 0..self.ops.len() {
            let op = &self.ops[at];
            let waits = op.end == End::Answer && !op.done;
            if op.ended || op.ends > self.now || waits {
                continue;
            }
            let (t, number, answer, end) = (self.now, op.op, op.answer, op.end);
            let (retry, record, call) = (op.retry, op.record, op.call);
            self.ops[at].ended = true;
            self.emit(match end {
                End::Answer => Event::Ok {
                    t,
                    op: number,
                    answer,
                },
                End::Unknown | End::NoEffect => Event::Failed {
                    t,
                    op: number,
                    no_effect: end == End::NoEffect,
                },
            });
            if let Some(record) = record.filter(|_| retry) {
                self.again(record, call);
            }
        }
    }
}
