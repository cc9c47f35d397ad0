//! Where things are in a valid history: what mutators choose from.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Answer, Call, Event, Header, Only, Sight};

/// An append that was acknowledged on its only try, under the name that it was called with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    pub(super) inv: usize,
    pub(super) ok: usize,
    pub(super) called: u64,
    pub(super) acked: u64,
    pub(super) log: u64,
    pub(super) gsn: u64,
    pub(super) cid: u64,
    pub(super) ses: u64,
    pub(super) csn: u64,
    pub(super) h: u64,
}

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) ok: usize,
    pub(super) called: u64,
    pub(super) log: u64,
    pub(super) gsn: u64,
}

/// A delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dlv {
    pub(super) at: usize,
    pub(super) sub: u64,
    pub(super) gsn: u64,
    pub(super) spec: bool,
}

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Sub {
    pub(super) at: usize,
    pub(super) sub: u64,
    pub(super) log: u64,
    pub(super) last: bool,
    pub(super) only: Option<Only>,
    pub(super) ended: bool,
    /// It was given a hint, or took one back.
    pub(super) spec: bool,
    /// Its events, in order.
    pub(super) events: Vec<usize>,
}

/// Places of events by what they are.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) header: Header,
    pub(super) acked: Vec<Acked>,
    pub(super) reads: Vec<Read>,
    pub(super) tails: Vec<Read>,
    pub(super) delivered: Vec<Dlv>,
    pub(super) subs: BTreeMap<u64, Sub>,
    /// Head and tail of each log, and where its final phase is.
    pub(super) finals: BTreeMap<u64, (usize, u64, u64)>,
    /// Positions that every final reader of a log has, with who stands there.
    pub(super) final_records: BTreeMap<(u64, u64), Sight>,
    /// The most that anybody asked to trim, by log.
    pub(super) trim_asked: BTreeMap<u64, u64>,
    /// The highest head that a trim was answered with, by log.
    pub(super) trimmed: BTreeMap<u64, u64>,
    /// The last moment, and a number that no operation, process or subscription has.
    pub(super) end: u64,
    pub(super) free: u64,
}

impl View {
    pub(super) fn of(events: &[Event]) -> Self {
        let mut view = Self {
            header: Header::default(),
            acked: Vec::new(),
            reads: Vec::new(),
            tails: Vec::new(),
            delivered: Vec::new(),
            subs: BTreeMap::new(),
            finals: BTreeMap::new(),
            final_records: BTreeMap::new(),
            trim_asked: BTreeMap::new(),
            trimmed: BTreeMap::new(),
            end: 0,
            free: 1 << 40,
        };
        let mut calls = BTreeMap::new();
        let mut tries: BTreeMap<u64, u32> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            view.end = view.end.max(time(event));
            match event {
                Event::Header(header) => view.header = Header::clone(header),
                Event::Inv {
                    t, op, log, call, ..
                } => {
                    calls.insert(*op, (at, *t, *log, *call));
                    if let Call::Append { h, .. } = call {
                        *tries.entry(*h).or_default() += 1;
                    }
                    if let Call::Trim(upto) = call {
                        let asked = view.trim_asked.entry(*log).or_default();
                        *asked = (*asked).max(*upto);
                    }
                }
                Event::Ok { t, op, answer } => {
                    if let Some((inv, called, log, call)) = calls.get(op) {
                        view.answered((*inv, at), (*called, *t), *log, call, answer);
                    }
                }
                Event::Phase {
                    log,
                    phase: crate::event::Phase::Final,
                    head,
                    tail,
                    ..
                } => {
                    view.finals.insert(*log, (at, *head, *tail));
                }
                _ => view.stream(at, event),
            }
        }
        view.acked.retain(|acked| tries[&acked.h] == 1);
        view
    }

    fn answered(
        &mut self,
        (inv, ok): (usize, usize),
        (called, acked): (u64, u64),
        log: u64,
        call: &Call,
        answer: &Answer,
    ) {
        match (call, answer) {
            (
                Call::Append {
                    cid,
                    name: Some((ses, csn)),
                    h,
                    ..
                },
                Answer::Appended {
                    gsn, name: None, ..
                },
            ) => self.acked.push(Acked {
                inv,
                ok,
                called,
                acked,
                log,
                gsn: *gsn,
                cid: *cid,
                ses: *ses,
                csn: *csn,
                h: *h,
            }),
            (Call::Read(gsn), Answer::Record(_)) => self.reads.push(Read {
                ok,
                called,
                log,
                gsn: *gsn,
            }),
            (Call::Trim(_), Answer::Head(head)) => {
                let known = self.trimmed.entry(log).or_default();
                *known = (*known).max(*head);
            }
            (Call::Tail, Answer::Tail { .. }) => self.tails.push(Read {
                ok,
                called,
                log,
                gsn: 0,
            }),
            _ => {}
        }
    }

    fn stream(&mut self, at: usize, event: &Event) {
        let number = match event {
            Event::Sub {
                sub,
                log,
                last,
                only,
                ..
            } => {
                let stream = Sub {
                    at,
                    sub: *sub,
                    log: *log,
                    last: *last,
                    only: *only,
                    ended: false,
                    spec: false,
                    events: Vec::new(),
                };
                self.subs.insert(*sub, stream);
                return;
            }
            Event::Dlv { sub, .. }
            | Event::Gap { sub, .. }
            | Event::Conf { sub, .. }
            | Event::Void { sub, .. }
            | Event::End { sub, .. } => *sub,
            _ => return,
        };
        let Some(stream) = self.subs.get_mut(&number) else {
            return;
        };
        stream.events.push(at);
        stream.ended |= matches!(event, Event::End { .. });
        stream.spec |= matches!(
            event,
            Event::Dlv { spec: true, .. }
                | Event::Gap { spec: true, .. }
                | Event::Conf { .. }
                | Event::Void { .. }
        );
        if let Event::Dlv {
            sub,
            gsn,
            rec,
            spec,
            ..
        } = event
        {
            self.delivered.push(Dlv {
                at,
                sub: *sub,
                gsn: *gsn,
                spec: *spec,
            });
            if stream.last && !spec {
                self.final_records.insert((stream.log, *gsn), *rec);
            }
        }
    }

    /// Acked, and seen at the end by a final reader without hints.
    pub(super) fn acked_to_the_end(&self) -> Vec<Acked> {
        let there = |acked: &&Acked| self.final_records.contains_key(&(acked.log, acked.gsn));
        self.acked.iter().filter(there).copied().collect()
    }

    /// Plain subscriptions: without hints and without selection.
    pub(super) fn plain(&self) -> Vec<Sub> {
        let plain = |sub: &&Sub| !sub.spec && sub.only.is_none();
        self.subs.values().filter(plain).cloned().collect()
    }

    /// Deliveries of plain subscriptions.
    pub(super) fn plain_deliveries(&self) -> Vec<Dlv> {
        let plain: BTreeSet<u64> = self.plain().iter().map(|sub| sub.sub).collect();
        let of = |dlv: &&Dlv| plain.contains(&dlv.sub);
        self.delivered.iter().filter(of).copied().collect()
    }

    pub(super) fn log_of(&self, sub: u64) -> u64 {
        self.subs[&sub].log
    }

    pub(super) fn tail(&self, log: u64) -> u64 {
        self.finals.get(&log).map_or(0, |(_, _, tail)| *tail)
    }
}

/// When an event took place; 0 where it does not say.
pub(super) fn time(event: &Event) -> u64 {
    match event {
        Event::Inv { t, .. }
        | Event::Ok { t, .. }
        | Event::Failed { t, .. }
        | Event::Sub { t, .. }
        | Event::Dlv { t, .. }
        | Event::Gap { t, .. }
        | Event::Conf { t, .. }
        | Event::Void { t, .. }
        | Event::End { t, .. }
        | Event::Epoch { t, .. }
        | Event::Nem { t, .. }
        | Event::Phase { t, .. }
        | Event::Done { t } => *t,
        Event::Header(_) | Event::White(_) | Event::WhiteOther => 0,
    }
}
