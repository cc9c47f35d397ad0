//! The application above a client machine: appends, reads, asks for the tail, trims, subscribes, and tells the history
//! what it did and saw.

use std::collections::BTreeMap;

use ionian_core::client::{
    Answer, Choice, Client, Completion, Outcome, Policy, RecordRun, RequestId, Sink, SubscriptionId,
};
use ionian_histcheck::event::{Answer as Said, Sight};
use ionian_types::{Effect, GapKind, Gsn, Knobs, Time};

use crate::edges::client_id;
use crate::history::{Ended, History};
use crate::invariant::Invariant;
use crate::plan::Plan;
use crate::recorder::{self, Recorder};
use crate::rng::Rng;

/// What a request asked, and what was known then.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Tail { floor: u64 },
    Trim { upto: u64 },
    Read { gsn: u64, floor: u64 },
}

/// A subscription.
#[derive(Clone, Copy, Debug)]
pub struct Sub {
    /// Its name.
    pub id: SubscriptionId,
    /// The next position expected.
    pub next: u64,
    /// Its number in the history.
    number: u64,
    /// It said "not now".
    blocked: bool,
}

/// The application of one client.
#[derive(Debug)]
pub struct App {
    number: u32,
    /// Whether its appends keep the order in which it issues them.
    pub sticky: bool,
    rng: Rng,
    rng_moves: Rng,
    /// Of each append that is open: its number, and that of its call in the history.
    tickets: BTreeMap<(u32, u64), (u64, u64)>,
    /// Of each request that is open: what was asked, and the number of its call.
    requests: BTreeMap<RequestId, (Asked, u64)>,
    /// The farthest tail that it was told.
    pub tail: u64,
    /// Its subscriptions.
    pub subs: Vec<Sub>,
    payload: Vec<u8>,
}

/// The word `at` of the payload of an append.
const fn word(id: u64, at: u64) -> u64 {
    (id ^ (at << 40))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(at as u32 % 64)
}

/// The payload of an append: its number, and words that follow from it.
fn payload_of(id: u64, len: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&id.to_le_bytes());
    let mut at = 0;
    while out.len() < len {
        out.extend_from_slice(&word(id, at).to_le_bytes());
        at += 1;
    }
    out.truncate(len.max(8));
}

/// The number in a payload; `None` when its bytes are not those of that number.
#[must_use]
pub fn id_of(payload: &[u8]) -> Option<u64> {
    let id = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
    let (words, rest) = payload[8..].as_chunks::<8>();
    let whole = words
        .iter()
        .zip(0..)
        .all(|(bytes, at)| u64::from_le_bytes(*bytes) == word(id, at));
    let last = word(id, words.len() as u64).to_le_bytes();
    (whole && rest.iter().eq(&last[..rest.len()])).then_some(id)
}

impl App {
    /// Client `number` of a run.
    #[must_use]
    pub fn new(number: u32, seed: u64, client: &mut Client<impl Knobs>) -> Self {
        let mut rng = Rng::stream(seed, &format!("app {number}"));
        let sticky = number == 0 || rng.permille(500);
        if !sticky {
            client.set_policy(Policy::Spread);
        }
        Self {
            number,
            sticky,
            rng,
            rng_moves: Rng::stream(seed, &format!("moves {number}")),
            tickets: BTreeMap::new(),
            requests: BTreeMap::new(),
            tail: 0,
            subs: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Whether it leaves a server that it lost at once instead of waiting for it to come back.
    pub fn moves_on(&mut self) -> bool {
        self.sticky && self.rng_moves.permille(250)
    }

    /// Nanoseconds until it acts again.
    pub fn pause(&mut self, plan: &Plan) -> u64 {
        self.rng.range(plan.think_ns / 4, plan.think_ns * 2)
    }

    /// Whether everything that it began has ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tickets.is_empty() && self.requests.is_empty()
    }

    /// What it waits for, for people.
    #[must_use]
    pub fn waits(&self) -> String {
        format!("appends {:?}, requests {:?}", self.tickets, self.requests)
    }

    /// Does something.
    pub fn act(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        plan: &Plan,
        history: &mut History,
    ) {
        self.resume_all(now, client, history);
        match self.rng.below(20) {
            0 => {
                let floor = history.evidence;
                self.ask(now, client, Asked::Tail { floor }, history);
            }
            1 | 2 if history.evidence > 0 => {
                let gsn = match self.rng.below(4) {
                    0 => self.rng.below(history.evidence + 20),
                    1 => history.evidence - 1,
                    _ => history.evidence.saturating_sub(self.rng.below(100)),
                };
                let floor = history.evidence;
                self.ask(now, client, Asked::Read { gsn, floor }, history);
            }
            3 if plan.trims && self.rng.permille(150) && history.evidence > 0 => {
                let upto = match self.rng.below(10) {
                    0 => history.evidence + 1000,
                    _ => history
                        .evidence
                        .saturating_sub(self.rng.below(200).min(history.evidence / 2)),
                };
                self.trim(now, client, upto, history);
            }
            4 if self.subs.len() < 2 => {
                let from = if self.rng.permille(500) {
                    0
                } else {
                    self.rng.below(history.evidence + 1)
                };
                self.subscribe(now, client, from, false, history);
            }
            5 if self.subs.len() > 1 && self.rng.permille(200) => {
                let at = self.rng.below(2) as usize;
                self.unsubscribe(client, at, history);
            }
            // The session is closed, and another one opened elsewhere.
            6 if plan.moves && self.sticky && self.rng.permille(100) => {
                client.move_sticky(now);
            }
            _ => {
                for _ in 0..self.rng.range(1, 8) {
                    self.append(now, client, plan, history);
                }
            }
        }
    }

    /// Takes up the subscriptions that it put off.
    pub fn resume_all(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        history: &mut History,
    ) {
        for at in 0..self.subs.len() {
            if self.subs[at].blocked && self.rng.permille(500) {
                self.subs[at].blocked = false;
                let id = self.subs[at].id;
                client.resume(now, id, &mut Tap { app: self, history });
            }
        }
    }

    /// One append.
    pub fn append(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        plan: &Plan,
        history: &mut History,
    ) {
        if client.outstanding() >= plan.outstanding_max {
            return;
        }
        let id = history.ops.len() as u64;
        let len = self.rng.below(plan.payload_bytes_max + 1) as usize;
        payload_of(id, len, &mut self.payload);
        if let Ok(ticket) = client.append(now, &self.payload, Choice::Policy) {
            let taken = history.invoke(self.number, now);
            debug_assert_eq!(taken, id, "numbers are dense");
            let op = history
                .recorder
                .append(client_id(self.number).get(), &self.payload);
            self.tickets.insert((ticket.lane, ticket.number), (id, op));
        }
    }

    /// Trims everything below `upto`.
    pub fn trim(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        upto: u64,
        history: &mut History,
    ) {
        self.ask(now, client, Asked::Trim { upto }, history);
    }

    /// Its process has died: nobody will know how what it began ends.
    pub fn abandon(&mut self, history: &mut History) {
        for (id, op) in core::mem::take(&mut self.tickets).into_values() {
            history.ended(id, Ended::Unknown);
            history.recorder.failed(op, false);
        }
        for (_, op) in core::mem::take(&mut self.requests).into_values() {
            history.recorder.failed(op, false);
        }
        for sub in self.subs.drain(..) {
            history.recorder.end(sub.number);
        }
    }

    /// A new subscription; `last` says that it belongs to the final read.
    pub fn subscribe(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        from: u64,
        last: bool,
        history: &mut History,
    ) {
        if let Ok(id) = client.subscribe(now, Gsn::new(from)) {
            self.subs.push(Sub {
                id,
                next: from,
                number: history.recorder.sub(from, last),
                blocked: false,
            });
        }
    }

    /// Ends the subscription `at`.
    pub fn unsubscribe(
        &mut self,
        client: &mut Client<impl Knobs>,
        at: usize,
        history: &mut History,
    ) {
        let sub = self.subs.swap_remove(at);
        client.unsubscribe(sub.id);
        history.recorder.end(sub.number);
    }

    /// Trims all that is known to exist, unless it waits for an answer to that.
    pub fn ask_trim(&mut self, now: Time, client: &mut Client<impl Knobs>, history: &mut History) {
        let asked = |(asked, _): &(Asked, u64)| matches!(asked, Asked::Trim { .. });
        let upto = history.evidence;
        if upto > 0 && !self.requests.values().any(asked) {
            self.trim(now, client, upto, history);
        }
    }

    /// Asks for the tail, unless it waits for an answer to that.
    pub fn ask_tail(&mut self, now: Time, client: &mut Client<impl Knobs>, history: &mut History) {
        let asked = |(asked, _): &(Asked, u64)| matches!(asked, Asked::Tail { .. });
        if !self.requests.values().any(asked) {
            let floor = history.evidence;
            self.ask(now, client, Asked::Tail { floor }, history);
        }
    }

    /// Asks for the record at a position.
    pub fn read(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        gsn: u64,
        floor: u64,
        history: &mut History,
    ) {
        self.ask(now, client, Asked::Read { gsn, floor }, history);
    }

    fn ask(
        &mut self,
        now: Time,
        client: &mut Client<impl Knobs>,
        asked: Asked,
        history: &mut History,
    ) {
        let request = match asked {
            Asked::Tail { .. } => client.tail(now),
            Asked::Trim { upto } => {
                history.trim_asked = history.trim_asked.max(upto);
                client.trim(now, Gsn::new(upto))
            }
            Asked::Read { gsn, .. } => client.read(now, Gsn::new(gsn)),
        };
        if let Ok(id) = request {
            let op = match asked {
                Asked::Tail { .. } => history.recorder.tail(),
                Asked::Trim { upto } => history.recorder.trim(upto),
                Asked::Read { gsn, .. } => history.recorder.read(gsn),
            };
            self.requests.insert(id, (asked, op));
        }
    }

    /// Takes over what the machine has to say.
    pub fn collect(&mut self, client: &mut Client<impl Knobs>, history: &mut History) {
        while let Some(completion) = client.poll_completion() {
            for offset in 0..u64::from(completion.count) {
                let ticket = (completion.first.lane, completion.first.number + offset);
                let Some((id, op)) = self.tickets.remove(&ticket) else {
                    history.fail(Invariant::S0, || {
                        format!(
                            "ticket {ticket:?} was completed and never given, or completed twice"
                        )
                    });
                    continue;
                };
                let ended = match completion.outcome {
                    Outcome::Ordered { first_gsn, .. } => Ended::Ordered(first_gsn.get() + offset),
                    Outcome::Failed {
                        effect: Effect::None,
                        ..
                    } => Ended::NoEffect,
                    Outcome::Failed { .. } => Ended::Unknown,
                };
                history.ended(id, ended);
                tell(&completion, offset, op, history);
            }
        }
        let mut payload = core::mem::take(&mut self.payload);
        while let Some((request, answer)) = client.poll_answer(&mut payload) {
            let Some((asked, op)) = self.requests.remove(&request) else {
                history.fail(Invariant::S0, || {
                    format!("{request:?} was answered and never made, or answered twice")
                });
                continue;
            };
            if let Answer::Tail { tail, .. } = &answer {
                self.tail = self.tail.max(tail.get());
            }
            judge(asked, &answer, &payload, history);
            tell_answer(op, &answer, &payload, &mut history.recorder);
        }
        self.payload = payload;
    }
}

/// How an append ended, to the recorder.
fn tell(completion: &Completion, offset: u64, op: u64, history: &mut History) {
    let Outcome::Ordered {
        first_gsn,
        segment,
        generation,
        first_position,
        ..
    } = completion.outcome
    else {
        let effect = matches!(
            completion.outcome,
            Outcome::Failed {
                effect: Effect::None,
                ..
            }
        );
        return history.recorder.failed(op, effect);
    };
    let gsn = first_gsn.get() + offset;
    let life = history.reference.recs.get(&gsn).map_or(1, |rec| rec.life);
    let name = (
        u64::from(completion.session.get()),
        completion.first_seq.get() + offset,
    );
    let answer = Said::Appended {
        gsn,
        epoch: None,
        shard: Some(u64::from(segment.shard.get())),
        rep: Some(recorder::segment(life, segment.slot.get())),
        lsn: Some(first_position.get() + offset),
        generation: Some(generation.get()),
        name: Some(name),
    };
    history.recorder.ok(op, answer);
}

/// How a request ended, to the recorder.
fn tell_answer(op: u64, answer: &Answer, payload: &[u8], recorder: &mut Recorder) {
    let said = match answer {
        Answer::Tail { tail, head, .. } => Said::Tail {
            tail: tail.get(),
            head: Some(head.get()),
        },
        Answer::Record {
            client,
            session,
            seq,
            ..
        } => Said::Record(Sight {
            cid: client.get() as u64,
            ses: Some(u64::from(session.get())),
            csn: seq.get(),
            h: recorder::hash(payload),
        }),
        Answer::Gap { kind, .. } => Said::Hole(recorder::kind_of(*kind)),
        Answer::Trimmed { .. } => Said::Trimmed,
        Answer::Unwritten { .. } => Said::Unwritten,
        Answer::TrimDone { head, .. } => Said::Head(head.get()),
        Answer::TrimBeyondTail { effect, .. } | Answer::TimedOut { effect } => {
            return recorder.failed(op, *effect == Effect::None);
        }
    };
    recorder.ok(op, said);
}

fn judge(asked: Asked, answer: &Answer, payload: &[u8], history: &mut History) {
    match (asked, answer) {
        (_, Answer::TimedOut { .. }) => {}
        (Asked::Tail { floor }, Answer::Tail { tail, head, .. }) => {
            history.tail(floor, tail.get(), head.get())
        }
        (Asked::Trim { upto }, Answer::TrimDone { head, .. }) => {
            history.seen.trims += 1;
            let asked = history.trim_asked;
            history.check(
                Invariant::S14,
                head.get() >= upto && head.get() <= asked,
                || format!("a trim to {upto} is done with head {head}, asked for up to {asked}"),
            );
        }
        (Asked::Trim { upto }, Answer::TrimBeyondTail { tail, .. }) => {
            history.check(Invariant::S14, tail.get() < upto, || {
                format!("a trim to {upto} was refused at tail {tail}")
            });
        }
        (Asked::Read { gsn, .. }, Answer::Record { gsn: at, .. }) => {
            history.seen.reads += 1;
            let id = id_of(payload);
            history.check(Invariant::S2, at.get() == gsn && id.is_some(), || {
                format!("a read of {gsn} gave {at} with a damaged payload")
            });
            if let Some(id) = id {
                history.saw(gsn, id, "a read");
            }
        }
        (Asked::Read { gsn, .. }, Answer::Gap { kind, .. }) => history.gap(gsn, gsn + 1, *kind),
        (Asked::Read { gsn, .. }, Answer::Trimmed { .. }) => {
            history.gap(gsn, gsn + 1, GapKind::Trim)
        }
        (Asked::Read { gsn, floor }, Answer::Unwritten { .. }) => {
            history.check(Invariant::S7, gsn >= floor, || format!("position {gsn} is unwritten, positions below {floor} were known before it was asked for"));
        }
        (asked, answer) => history.fail(Invariant::S0, || {
            format!("{asked:?} was answered by {answer:?}")
        }),
    }
}

#[derive(Debug)]
/// Takes deliveries, or not, as the application likes.
pub struct Tap<'a> {
    /// The application.
    pub app: &'a mut App,
    /// The history.
    pub history: &'a mut History,
}

impl Tap<'_> {
    /// The subscription's number in the history.
    fn expect(&mut self, id: SubscriptionId, from: u64, to: u64) -> Option<u64> {
        let Some(sub) = self.app.subs.iter_mut().find(|sub| sub.id == id) else {
            self.history.fail(Invariant::S10, || {
                format!("{id:?} was ended and gets {from}..{to}")
            });
            return None;
        };
        let (next, number) = (core::mem::replace(&mut sub.next, to), sub.number);
        self.history
            .check(Invariant::S10, next == from && from < to, || {
                format!("{id:?} is at {next} and gets {from}..{to}")
            });
        Some(number)
    }

    fn refuses(&mut self, id: SubscriptionId) -> bool {
        let refuses = self.app.rng.permille(20);
        if let Some(sub) = self.app.subs.iter_mut().find(|sub| sub.id == id) {
            sub.blocked |= refuses;
        }
        refuses
    }
}

impl Sink for Tap<'_> {
    fn records(&mut self, id: SubscriptionId, run: &RecordRun<'_>) -> u32 {
        let mut taken = 0;
        for (gsn, header, payload) in run.records() {
            if self.refuses(id) {
                break;
            }
            let gsn = gsn.get();
            if let Some(sub) = self.expect(id, gsn, gsn + 1) {
                let sight = recorder::sight(&header, payload);
                self.history.recorder.delivered(sub, gsn, sight);
            }
            match id_of(payload) {
                Some(number) => self.history.saw(gsn, number, "a subscription"),
                None => self.history.fail(Invariant::S2, || {
                    format!("the record delivered at {gsn} is damaged")
                }),
            }
            self.history.seen.delivered += 1;
            taken += 1;
        }
        taken
    }

    fn gap(&mut self, id: SubscriptionId, from: Gsn, to: Gsn, kind: GapKind) -> bool {
        if self.refuses(id) {
            return false;
        }
        if let Some(sub) = self.expect(id, from.get(), to.get()) {
            self.history.recorder.gap(sub, from.get(), to.get(), kind);
        }
        self.history.gap(from.get(), to.get(), kind);
        true
    }
}
