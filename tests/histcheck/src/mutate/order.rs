//! Breaks what comes when: S6, S7, S8, S11, S13.

use super::Broken;
use super::view::Acked;
use crate::event::{Answer, Call, Event, Order, Sight};

impl Broken<'_> {
    /// Everybody sees each of two records in the other's place.
    fn swap(&mut self, [first, second]: [Acked; 2]) {
        let of = |sight: &Sight, acked: &Acked| sight.h == acked.h;
        let named = |sight: &mut Sight, acked: &Acked| {
            let ses = sight.ses.map(|_| acked.ses);
            (sight.cid, sight.ses, sight.csn, sight.h) = (acked.cid, ses, acked.csn, acked.h);
        };
        for event in &mut self.events {
            let (Event::Dlv { rec: sight, .. }
            | Event::Ok {
                answer: Answer::Record(sight),
                ..
            }) = event
            else {
                continue;
            };
            if of(sight, &first) {
                named(sight, &second);
            } else if of(sight, &second) {
                named(sight, &first);
            }
        }
        for (acked, place) in [(first, second.gsn), (second, first.gsn)] {
            if let Event::Ok {
                answer: Answer::Appended { gsn, .. },
                ..
            } = &mut self.events[acked.ok]
            {
                *gsn = place;
            }
        }
    }
}

pub(super) fn later_append_stands_lower(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.order != Order::Linearizable {
        return None;
    }
    let err = broken.view.header.clock_err_ns;
    let pair = broken.two(|a, b| a.acked + err < b.called && a.gsn < b.gsn)?;
    broken.swap(pair);
    Some(())
}

pub(super) fn call_comes_after_a_later_ack(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.order != Order::Linearizable {
        return None;
    }
    let [low, _] = broken.two(|a, b| a.gsn < b.gsn)?;
    let late = broken.view.end + 2 * broken.view.header.clock_err_ns + 1;
    let mut ack = broken.events.remove(low.ok);
    let mut call = broken.events.remove(low.inv);
    for event in [&mut call, &mut ack] {
        if let Event::Inv { t, .. } | Event::Ok { t, .. } = event {
            *t = late;
        }
    }
    broken.events.extend([call, ack]);
    Some(())
}

pub(super) fn acked_is_unwritten(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    broken.ask_at_the_end(acked.log, Call::Read(acked.gsn), Answer::Unwritten);
    Some(())
}

pub(super) fn read_again_is_unwritten(broken: &mut Broken<'_>) -> Option<()> {
    let (acked, reads) = (broken.view.acked.clone(), broken.view.reads.clone());
    let err = broken.view.header.clock_err_ns;
    let read = broken.find(&reads, |read| {
        acked.iter().any(|acked| {
            (acked.log, acked.gsn) == (read.log, read.gsn) && acked.acked + err < read.called
        })
    })?;
    if let Event::Ok { answer, .. } = &mut broken.events[read.ok] {
        *answer = Answer::Unwritten;
    }
    Some(())
}

pub(super) fn tail_falls(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    let answer = Answer::Tail {
        tail: acked.gsn,
        head: None,
    };
    broken.ask_at_the_end(acked.log, Call::Tail, answer);
    Some(())
}

pub(super) fn tail_is_below_an_ack(broken: &mut Broken<'_>) -> Option<()> {
    let (acked, tails) = (broken.view.acked.clone(), broken.view.tails.clone());
    let err = broken.view.header.clock_err_ns;
    let before = |acked: &Acked, log, called| acked.log == log && acked.acked + err < called;
    let asked = broken.find(&tails, |asked| {
        acked
            .iter()
            .any(|acked| before(acked, asked.log, asked.called))
    })?;
    let known: Vec<Acked> = acked
        .into_iter()
        .filter(|acked| before(acked, asked.log, asked.called))
        .collect();
    let low = broken.pick(&known)?.gsn;
    if let Event::Ok {
        answer: Answer::Tail { tail, .. },
        ..
    } = &mut broken.events[asked.ok]
    {
        *tail = low;
    }
    Some(())
}

pub(super) fn final_tail_is_low(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    let (at, head, _) = broken.view.finals[&acked.log];
    if let Event::Phase { tail, .. } = &mut broken.events[at] {
        *tail = acked.gsn.max(head);
    }
    Some(())
}

pub(super) fn session_is_swapped(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.order == Order::Total {
        return None;
    }
    let pair = broken.two(|a, b| (a.cid, a.ses) == (b.cid, b.ses) && a.csn < b.csn)?;
    broken.swap(pair);
    Some(())
}

/// The number of a record becomes higher than all others of its session, everywhere.
pub(super) fn number_is_too_high(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.order == Order::Total {
        return None;
    }
    let [low, _] = broken.two(|a, b| (a.cid, a.ses) == (b.cid, b.ses) && a.csn < b.csn)?;
    for event in &mut broken.events {
        match event {
            Event::Inv {
                call:
                    Call::Append {
                        name: Some((_, csn)),
                        h,
                        ..
                    },
                ..
            } if *h == low.h => *csn += 1_000,
            Event::Dlv { rec, .. }
            | Event::Ok {
                answer: Answer::Record(rec),
                ..
            } if rec.h == low.h => rec.csn += 1_000,
            _ => {}
        }
    }
    Some(())
}

/// Acks that state an epoch, by position: log, position, place, epoch, call.
fn fenced(broken: &Broken<'_>) -> Vec<(u64, u64, usize, u64, u64)> {
    let mut all = Vec::new();
    for acked in &broken.view.acked {
        if let Event::Ok {
            answer: Answer::Appended {
                epoch: Some(epoch), ..
            },
            ..
        } = &broken.valid[acked.ok]
        {
            all.push((acked.log, acked.gsn, acked.ok, *epoch, acked.called));
        }
    }
    all.sort_unstable();
    all
}

pub(super) fn epoch_falls(broken: &mut Broken<'_>) -> Option<()> {
    let all = fenced(broken);
    let lower = broken.find(&all, |a| all.iter().any(|b| a.0 == b.0 && a.1 < b.1))?;
    if let Event::Ok {
        answer: Answer::Appended { epoch, .. },
        ..
    } = &mut broken.events[lower.2]
    {
        *epoch = Some(1_000);
    }
    Some(())
}

pub(super) fn epoch_outlives_the_next(broken: &mut Broken<'_>) -> Option<()> {
    let all = fenced(broken);
    let one = broken.pick(&all)?;
    broken.events.push(Event::Epoch {
        t: broken.view.end,
        log: one.0,
        epoch: 1_000,
        start: one.1,
    });
    Some(())
}

pub(super) fn epoch_was_over_before_the_call(broken: &mut Broken<'_>) -> Option<()> {
    let (all, err) = (fenced(broken), broken.view.header.clock_err_ns);
    let one = broken.find(&all, |one| one.4 > err + 1)?;
    broken.events.push(Event::Epoch {
        t: one.4 - err - 1,
        log: one.0,
        epoch: 1_000,
        start: broken.view.tail(one.0),
    });
    Some(())
}
