//! Subscriptions of a generated history: plain, speculative and selective ones, and the final readers.

use super::world::{Value, World};
use crate::event::{Event, Kind, Only};

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    log: u64,
    sub: u64,
    next: u64,
    only: Option<Only>,
    spec: bool,
    /// Hints that are not settled: position, and what was said to stand there.
    hints: Vec<(u64, Value)>,
    ended: bool,
}

impl World<'_> {
    /// Subscriptions begin, advance and end.
    pub(super) fn follow(&mut self, healed: bool) {
        if !healed && self.followers.len() < 4 && self.draw.chance(15) {
            let log = self.draw.below(self.plan.logs);
            let start = self.draw.below(self.logs[log as usize].tail() + 1);
            let spec = self.plan.header.spec && self.draw.chance(60);
            let only = (self.plan.selective && !spec).then(|| self.selection());
            self.subscribe(log, start, false, only, spec);
        }
        for at in 0..self.followers.len() {
            if self.followers[at].ended {
                continue;
            }
            if !healed && self.draw.chance(2) {
                let (t, sub) = (self.now, self.followers[at].sub);
                self.followers[at].ended = true;
                self.emit(Event::End { t, sub });
                continue;
            }
            for _ in 0..self.draw.below(5) {
                self.advance(at, true);
            }
            if self.draw.chance(40) {
                self.settle_hints(at, false);
            }
        }
    }

    /// Every subscription goes to the tail, and every hint is settled.
    pub(super) fn catch_up(&mut self) {
        for at in 0..self.followers.len() {
            while !self.followers[at].ended {
                self.settle_hints(at, true);
                let tail = self.logs[self.followers[at].log as usize].tail();
                if self.followers[at].next >= tail {
                    break;
                }
                self.advance(at, false);
            }
        }
    }

    /// One reader or two read all that is left.
    pub(super) fn final_read(&mut self) {
        for log in 0..self.plan.logs {
            let head = self.logs[log as usize].head;
            for _ in 0..=self.draw.below(2) {
                let spec = self.plan.header.spec && self.draw.chance(30);
                self.subscribe(log, head, true, None, spec);
            }
            if self.draw.chance(30) {
                self.digests(log);
            }
        }
        self.catch_up();
    }

    fn subscribe(&mut self, log: u64, start: u64, last: bool, only: Option<Only>, spec: bool) {
        let (t, sub) = (self.now, self.next_sub);
        self.next_sub += 1;
        self.emit(Event::Sub {
            t,
            sub,
            log,
            start,
            last,
            only,
        });
        self.followers.push(Follower {
            log,
            sub,
            next: start,
            only,
            spec,
            hints: Vec::new(),
            ended: false,
        });
    }

    fn selection(&mut self) -> Only {
        match self.draw.below(3) {
            0 => Only::Client(100 + self.draw.below(self.plan.clients)),
            1 => Only::Shard(self.draw.below(2)),
            _ => Only::Colour(self.draw.below(3)),
        }
    }

    /// Delivers what comes next, if there is something; a speculative one may run ahead of the log, and be wrong.
    fn advance(&mut self, at: usize, may_guess: bool) {
        let follower = self.followers[at].clone();
        let (gsn, log) = (follower.next, &self.logs[follower.log as usize]);
        if gsn < log.head {
            if follower.hints.is_empty() {
                self.gap(at, log.head, Kind::Trim, false);
            }
            return;
        }
        let guess = follower.spec && may_guess && (gsn >= log.tail() || self.draw.chance(10));
        if guess {
            if follower.hints.len() < 6 {
                self.guess(at);
            }
            return;
        }
        if gsn >= log.tail() {
            return;
        }
        if let Some((lo, hi)) = log.lost
            && lo <= gsn
            && gsn < hi
        {
            self.gap(at, hi, Kind::Loss, false);
            return;
        }
        match log.values[gsn as usize] {
            Value::Record(record) => {
                let wanted = follower.only.is_none_or(|only| self.wants(only, record));
                if wanted {
                    self.deliver(at, record);
                } else {
                    self.followers[at].next += 1;
                }
            }
            Value::Hole(kind) => {
                let same = |value: &&Value| **value == Value::Hole(kind);
                let run = log.values[gsn as usize..].iter().take_while(same).count() as u64;
                let told = 1 + self.draw.below(run);
                self.gap(at, gsn + told, kind, follower.spec);
            }
        }
    }

    fn guess(&mut self, at: usize) {
        let log = self.followers[at].log;
        let candidates: Vec<usize> = (0..self.records.len())
            .filter(|record| self.records[*record].log == log)
            .filter(|record| !self.plan.renames || self.records[*record].place.is_some())
            .collect();
        if candidates.is_empty() || self.draw.chance(20) {
            let upto = self.followers[at].next + 1;
            self.gap(at, upto, Kind::Noop, true);
            return;
        }
        let record = *self.draw.pick(&candidates);
        self.deliver(at, record);
    }

    fn deliver(&mut self, at: usize, record: usize) {
        let Follower {
            sub, next, spec, ..
        } = self.followers[at];
        let (t, rec) = (self.now, self.sight(record));
        let epoch = self.epoch_of(record).filter(|_| !spec);
        self.emit(Event::Dlv {
            t,
            sub,
            gsn: next,
            rec,
            spec,
            epoch,
        });
        if spec {
            self.followers[at].hints.push((next, Value::Record(record)));
        }
        self.followers[at].next += 1;
    }

    fn gap(&mut self, at: usize, hi: u64, kind: Kind, spec: bool) {
        let (t, sub, lo) = (self.now, self.followers[at].sub, self.followers[at].next);
        self.emit(Event::Gap {
            t,
            sub,
            lo,
            hi,
            kind,
            spec,
        });
        if spec {
            let hints = (lo..hi).map(|gsn| (gsn, Value::Hole(kind)));
            self.followers[at].hints.extend(hints);
        }
        self.followers[at].next = hi;
    }

    /// Confirms the hints that were right, takes back the first wrong one and all after it; with `all`, also
    /// what is ahead of the log.
    fn settle_hints(&mut self, at: usize, all: bool) {
        let Follower { log, sub, .. } = self.followers[at];
        let values = &self.logs[log as usize].values;
        let hints = std::mem::take(&mut self.followers[at].hints);
        let right = hints
            .iter()
            .take_while(|(gsn, value)| values.get(*gsn as usize) == Some(value))
            .count();
        let (t, known) = (self.now, values.len() as u64);
        if right > 0 {
            let upto = hints[right - 1].0;
            self.emit(Event::Conf { t, sub, upto });
        }
        let rest = &hints[right..];
        match rest.first() {
            Some((gsn, _)) if *gsn < known || all => {
                let start = *gsn;
                self.emit(Event::Void { t, sub, start });
                self.followers[at].next = start;
            }
            _ => self.followers[at].hints = rest.to_vec(),
        }
    }

    fn wants(&self, only: Only, record: usize) -> bool {
        match only {
            Only::Client(cid) => self.client_of(record) == cid,
            Only::Shard(shard) => self.records[record].segment as u64 / 2 == shard,
            Only::Colour(colour) => self.records[record].colour == Some(colour),
        }
    }
}
