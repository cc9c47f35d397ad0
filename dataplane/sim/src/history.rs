//! What clients did and saw, judged as it happens against the reference order and against what was promised.

use std::collections::{BTreeMap, BTreeSet};

use ionian_types::{GapKind, Time};

use crate::invariant::{Invariant, Violation};
use crate::plan::Plan;
use crate::recorder::{self, Recorder};
use crate::reference::{Content, Fresh, Reference};

/// How an append ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Not yet.
    Open,
    /// Acknowledged at a position.
    Ordered(u64),
    /// Failed, with no effect.
    NoEffect,
    /// Failed, effect unknown.
    Unknown,
}

/// An append.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The client's number.
    pub client: u32,
    /// When it was taken.
    pub invoked: Time,
    /// Positions below existed before it was taken: it must come after them.
    pub floor: u64,
    /// Where the cut log put it.
    pub gsn: Option<u64>,
    /// How it ended.
    pub ended: Ended,
}

/// Counts of what was seen, so that a run that saw nothing does not pass.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Appends acknowledged.
    pub acks: u64,
    /// Appends acknowledged while the controllers had no majority.
    pub acks_in_minority: u64,
    /// Appends that failed without effect, and with an unknown one.
    pub failed: [u64; 2],
    /// Records delivered.
    pub delivered: u64,
    /// Records read.
    pub reads: u64,
    /// Tail answers.
    pub tails: u64,
    /// Trims done.
    pub trims: u64,
    /// Gaps: trim, loss.
    pub gaps: [u64; 2],
    /// Promises of `never`.
    pub nevers: u64,
    /// Virtual nanoseconds in which a legal core made the progress that it had to; 0 if there was none.
    pub core_ns: u64,
    /// Whether that core was without the controller.
    pub core_alone: bool,
    /// Positions declared lost that had been acknowledged.
    pub lost: u64,
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    /// The order.
    pub reference: Reference,
    /// The same for the judge that shares no code with the machines.
    pub recorder: Recorder,
    /// Every append by the number in its payload.
    pub ops: Vec<Op>,
    /// Positions below were seen to exist by someone.
    pub evidence: u64,
    /// The controllers have no majority.
    pub minority: bool,
    /// The greatest trim asked for.
    pub trim_asked: u64,
    /// Losses may be declared in this run.
    pub may_lose: bool,
    /// Counts.
    pub seen: Seen,
    /// The first violation.
    pub failure: Option<Violation>,
    /// Some record could not be looked at when it was ordered: nobody was there, or it was damaged or not in memory.
    pub unseen: bool,
    /// The clients that keep to one server.
    pub sticky: BTreeSet<u32>,
    last_seq: BTreeMap<(u128, u32), (u64, u64)>,
    last_sticky: BTreeMap<u32, u64>,
    never: BTreeSet<(u128, u32, u64)>,
    never_from: BTreeMap<(u128, u32), u64>,
    by_identity: BTreeMap<(u128, u32, u64), u64>,
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new(seed: u64, plan: &Plan) -> Self {
        Self {
            reference: Reference::default(),
            recorder: Recorder::new(seed, plan),
            ops: Vec::new(),
            evidence: 0,
            minority: false,
            trim_asked: 0,
            may_lose: plan.may_lose(),
            seen: Seen::default(),
            failure: None,
            unseen: false,
            sticky: BTreeSet::new(),
            last_seq: BTreeMap::new(),
            last_sticky: BTreeMap::new(),
            never: BTreeSet::new(),
            never_from: BTreeMap::new(),
            by_identity: BTreeMap::new(),
        }
    }

    /// Records a violation; the first one counts.
    pub fn fail(&mut self, invariant: Invariant, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(Violation::new(invariant, what()));
        }
    }

    /// Records a violation; the first one counts.
    pub fn violated(&mut self, violation: Violation) {
        self.failure.get_or_insert(violation);
    }

    /// Fails unless `holds`.
    pub fn check(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, what);
        }
    }

    /// Takes in a committed entry; the runs that it orders are added to `fresh`.
    pub fn take(&mut self, number: u64, bytes: &[u8], fresh: &mut Vec<Fresh>) {
        let (known, view) = (fresh.len(), self.reference.view);
        if let Err(violation) = self.reference.take(number, bytes, fresh) {
            return self.violated(violation);
        }
        let runs = &fresh[known..];
        if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
            let deltas: Vec<_> = runs
                .iter()
                .map(|run| {
                    let segment = recorder::segment(run.life, run.slot.get());
                    [u64::from(run.shard.get()), segment, run.from, run.to]
                })
                .collect();
            let end = last.gsn + (last.to - last.from);
            self.recorder.cut(number, first.gsn, end, deltas);
        }
        if self.reference.view != view {
            self.recorder.view(self.reference.view, self.reference.end);
        }
    }

    /// An append is taken; returns the number for its payload.
    pub fn invoke(&mut self, client: u32, now: Time) -> u64 {
        let op = Op {
            client,
            invoked: now,
            floor: self.evidence,
            gsn: None,
            ended: Ended::Open,
        };
        self.ops.push(op);
        self.ops.len() as u64 - 1
    }

    /// O7, O8, FIFO: the content of a position that a committed cut has just ordered, or that was found out since.
    pub fn ordered(&mut self, gsn: u64, content: Content, sticky: bool) {
        let Some(rec) = self.reference.recs.get_mut(&gsn) else {
            return self.fail(Invariant::O10, || {
                format!("position {gsn} is not ordered, and was seen")
            });
        };
        if let Some(known) = rec.content {
            return self.check(Invariant::O2, known == content, || {
                format!("position {gsn} holds {known:?} and {content:?}")
            });
        }
        rec.content = Some(content);
        let Some(op) = self.ops.get_mut(content.id as usize) else {
            return self.fail(Invariant::S2, || {
                format!("position {gsn} holds {content:?}, which nobody appended")
            });
        };
        let (client, floor, ended, before) = (op.client, op.floor, op.ended, op.gsn);
        op.gsn = Some(gsn);
        self.check(Invariant::O8, before.is_none(), || {
            format!("append {} stands at {before:?} and at {gsn}", content.id)
        });
        self.check(Invariant::O7, gsn >= floor, || {
            format!(
                "append {} got {gsn}, but positions below {floor} existed before it was made",
                content.id
            )
        });
        self.check(Invariant::S2, ended != Ended::NoEffect, || {
            format!(
                "append {} failed with no effect and stands at {gsn}",
                content.id
            )
        });
        let identity = (content.client, content.session, content.seq);
        let twice = self.by_identity.insert(identity, gsn);
        self.check(Invariant::O8, twice.is_none(), || {
            format!("{identity:?} stands at {twice:?} and at {gsn}")
        });
        let promised = self.never.contains(&identity)
            || self
                .never_from
                .get(&(identity.0, identity.1))
                .is_some_and(|from| content.seq >= *from);
        self.check(Invariant::O8, !promised, || {
            format!("{identity:?} was promised never to be ordered, and stands at {gsn}")
        });
        let key = (content.client, content.session);
        let unseen = self.unseen;
        if let Some((seq, at)) = self.last_seq.insert(key, (content.seq, gsn)) {
            let follows = seq + 1 == content.seq || unseen && seq < content.seq;
            self.check(Invariant::S11, follows && at < gsn, || {
                format!(
                    "session {key:?} has seq {seq} at {at}, then {} at {gsn}",
                    content.seq
                )
            });
        } else {
            self.check(Invariant::S11, content.seq == 0 || unseen, || {
                format!("session {key:?} begins with seq {} at {gsn}", content.seq)
            });
        }
        if sticky {
            let last = self.last_sticky.insert(client, content.id);
            let kept = last.is_none_or(|last| {
                last < content.id
                    || self.ops[last as usize].ended == Ended::Unknown
                    || ended == Ended::Unknown
            });
            self.check(Invariant::S11, kept, || {
                format!(
                    "sticky client {client} has append {} at {gsn}, after append {last:?}",
                    content.id
                )
            });
        }
    }

    /// O8: a server promised that a record will never be ordered.
    pub fn promised_never(&mut self, client: u128, session: u32, seq: u64) {
        self.seen.nevers += 1;
        let at = self.by_identity.get(&(client, session, seq)).copied();
        self.check(Invariant::O8, at.is_none(), || {
            format!(
                "never was promised for {:?}, which stands at {at:?}",
                (client, session, seq)
            )
        });
        self.never.insert((client, session, seq));
    }

    /// O8: a server closed a session: nothing from `next` on was or will be taken.
    pub fn closed_from(&mut self, client: u128, session: u32, next: u64) {
        let from = self.never_from.entry((client, session)).or_insert(next);
        *from = (*from).min(next);
        let beyond = self
            .by_identity
            .range((client, session, next)..=(client, session, u64::MAX))
            .next()
            .map(|(identity, at)| (*identity, *at));
        self.check(Invariant::O8, beyond.is_none(), || {
            format!("a session was closed at seq {next}, and {beyond:?} is ordered")
        });
    }

    /// Agreement: somebody saw the record of an append at a position.
    pub fn saw(&mut self, gsn: u64, id: u64, how: &str) {
        let known = self.reference.recs.get(&gsn).map(|rec| rec.content);
        match known {
            None => self.fail(Invariant::O10, || {
                format!("{how} saw append {id} at {gsn}, which is not ordered")
            }),
            Some(Some(content)) => self.check(Invariant::S1, content.id == id, || {
                format!("{how} saw append {id} at {gsn}, which holds {content:?}")
            }),
            Some(None) => {
                // No member that held it was alive when it was committed; what is seen first is what it is.
                let before = self.ops.get(id as usize).map(|op| op.gsn);
                self.check(
                    Invariant::O8,
                    matches!(before, Some(at) if at.is_none_or(|at| at == gsn)),
                    || format!("{how} saw append {id} at {gsn}, it stands at {before:?}"),
                );
                if let Some(op) = self.ops.get_mut(id as usize) {
                    op.gsn = Some(gsn);
                }
            }
        }
        self.evidence = self.evidence.max(gsn + 1);
    }

    /// An append ended.
    pub fn ended(&mut self, id: u64, ended: Ended) {
        let op = self.ops[id as usize];
        self.check(Invariant::S0, op.ended == Ended::Open, || {
            format!("append {id} ended twice: {:?}, {ended:?}", op.ended)
        });
        self.ops[id as usize].ended = ended;
        match ended {
            Ended::Ordered(gsn) => {
                self.seen.acks += 1;
                self.seen.acks_in_minority += u64::from(self.minority);
                self.saw(gsn, id, "an ack");
                self.check(Invariant::O7, gsn >= op.floor, || {
                    format!("append {id} was acked at {gsn}, below {}", op.floor)
                });
            }
            Ended::NoEffect => {
                self.seen.failed[0] += 1;
                self.check(Invariant::S2, op.gsn.is_none(), || {
                    format!(
                        "append {id} failed with no effect and stands at {:?}",
                        op.gsn
                    )
                });
            }
            Ended::Unknown => self.seen.failed[1] += 1,
            Ended::Open => {}
        }
    }

    /// A reader was told that positions hold nothing.
    pub fn gap(&mut self, from: u64, to: u64, kind: GapKind) {
        match kind {
            GapKind::Trim => {
                self.seen.gaps[0] += 1;
                let asked = self.trim_asked;
                self.check(Invariant::S14, to <= asked, || {
                    format!("a trim gap {from}..{to}, trims were asked for up to {asked}")
                });
            }
            GapKind::Loss => {
                self.seen.gaps[1] += 1;
                let may_lose = self.may_lose;
                self.check(Invariant::O5, may_lose, || {
                    format!("{from}..{to} is declared lost, within what the class survives")
                });
                let mut gsn = from;
                while gsn < to {
                    let whole = self
                        .reference
                        .losses
                        .iter()
                        .find(|loss| (loss.0..loss.1).contains(&gsn))
                        .copied();
                    match whole {
                        Some(loss) => gsn = loss.1,
                        None if self.reference.is_lost(gsn) => gsn += 1,
                        None => {
                            return self.fail(Invariant::S9, || {
                                format!("a loss gap {from}..{to}, but {gsn} was not declared lost")
                            });
                        }
                    }
                }
            }
            kind => self.fail(Invariant::S9, || {
                format!("a gap of kind {kind} at {from}..{to}")
            }),
        }
    }

    /// The tail as the root answered a question asked when positions below `floor` were known.
    pub fn tail(&mut self, floor: u64, tail: u64, head: u64) {
        self.seen.tails += 1;
        let end = self.reference.end;
        self.check(Invariant::S8, tail >= floor, || {
            format!("tail {tail}, but positions below {floor} were known before it was asked for")
        });
        self.check(Invariant::O10, tail <= end, || {
            format!("tail {tail}, the order ends at {end}")
        });
        let asked = self.trim_asked;
        self.check(Invariant::S14, head <= asked, || {
            format!("head {head}, trims were asked for up to {asked}")
        });
        self.evidence = self.evidence.max(tail);
    }

    /// After everything: every acknowledged position is in the order with its record, or was declared lost.
    pub fn finish(&mut self, halted: bool) {
        for id in 0..self.ops.len() {
            let op = self.ops[id];
            match op.ended {
                Ended::Open if halted => {}
                Ended::Open => self.fail(Invariant::L1, || {
                    format!("append {id} of client {} never ended: {op:?}", op.client)
                }),
                Ended::Ordered(gsn) => {
                    let lost = self.reference.is_lost(gsn);
                    self.seen.lost += u64::from(lost);
                    let (may_lose, there) = (self.may_lose, self.reference.recs.contains_key(&gsn));
                    self.check(Invariant::O5, there && (may_lose || !lost), || {
                        format!("append {id}, acked at {gsn}, is lost")
                    });
                }
                Ended::NoEffect | Ended::Unknown => {}
            }
        }
    }
}
