//! Breaks the recording and the run: S0, S14, S16, L1, V1.

use super::Broken;
use crate::event::{Answer, Call, Event, FaultState, Phase, White};

/// Places of the events that will do.
fn places(broken: &Broken<'_>, will_do: impl Fn(&Event) -> bool) -> Vec<usize> {
    let events = broken.valid.iter().enumerate();
    let wanted = events.filter(|(_, event)| will_do(event));
    wanted.map(|(at, _)| at).collect()
}

pub(super) fn call_is_missing(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    broken.events.remove(acked.inv);
    Some(())
}

pub(super) fn answer_comes_twice(broken: &mut Broken<'_>) -> Option<()> {
    let answers = places(broken, |event| matches!(event, Event::Ok { .. }));
    let at = broken.pick(&answers)?;
    let again = broken.valid[at].clone();
    broken.events.push(again);
    Some(())
}

pub(super) fn number_is_used_twice(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    let Event::Inv { op, log, .. } = broken.valid[acked.inv] else {
        return None;
    };
    let (t, p) = (broken.view.end, broken.view.free);
    let tail = broken.view.tail(log);
    broken.events.push(Event::Inv {
        t,
        p,
        op,
        log,
        call: Call::Tail,
    });
    let answer = Answer::Tail { tail, head: None };
    broken.events.push(Event::Ok { t, op, answer });
    Some(())
}

pub(super) fn file_is_cut_short(broken: &mut Broken<'_>) -> Option<()> {
    broken.end.take()?;
    let lost = broken.draw.below(20) as usize;
    let kept = broken.events.len().saturating_sub(lost).max(1);
    broken.events.truncate(kept);
    Some(())
}

pub(super) fn file_goes_on_after_its_end(broken: &mut Broken<'_>) -> Option<()> {
    let end = broken.end.clone()?;
    let at = 1 + broken.draw.below(broken.events.len() as u64) as usize;
    broken.events.insert(at, end);
    Some(())
}

pub(super) fn trimmed_that_nobody_asked_for(broken: &mut Broken<'_>) -> Option<()> {
    let (reads, asked) = (broken.view.reads.clone(), broken.view.trim_asked.clone());
    let read = broken.find(&reads, |read| {
        asked.get(&read.log).is_none_or(|asked| *asked <= read.gsn)
    })?;
    if let Event::Ok { answer, .. } = &mut broken.events[read.ok] {
        *answer = Answer::Trimmed;
    }
    Some(())
}

pub(super) fn head_is_too_high(broken: &mut Broken<'_>) -> Option<()> {
    let tails = broken.view.tails.clone();
    let asked = broken.pick(&tails)?;
    let beyond = broken.view.trim_asked.get(&asked.log).copied().unwrap_or(0) + 1;
    if let Event::Ok {
        answer: Answer::Tail { head, .. },
        ..
    } = &mut broken.events[asked.ok]
    {
        *head = Some(beyond);
    }
    Some(())
}

pub(super) fn head_falls(broken: &mut Broken<'_>) -> Option<()> {
    let known = places(
        broken,
        |event| matches!(event, Event::Ok { answer: Answer::Head(head), .. } if *head > 0),
    );
    let at = broken.pick(&known)?;
    let Event::Ok { op, .. } = broken.valid[at] else {
        return None;
    };
    let log = broken.valid.iter().find_map(|event| match event {
        Event::Inv { op: of, log, .. } if *of == op => Some(*log),
        _ => None,
    })?;
    let answer = Answer::Tail {
        tail: broken.view.tail(log),
        head: Some(0),
    };
    broken.ask_at_the_end(log, Call::Tail, answer);
    Some(())
}

pub(super) fn segment_is_out_of_order(broken: &mut Broken<'_>) -> Option<()> {
    let slot = |at: usize| match broken.valid[at] {
        Event::Ok {
            answer:
                Answer::Appended {
                    shard,
                    rep: Some(rep),
                    lsn: Some(lsn),
                    ..
                },
            ..
        } => Some((shard, rep, lsn)),
        _ => None,
    };
    let mut pairs = Vec::new();
    for a in &broken.view.acked {
        for b in &broken.view.acked {
            if let (Some(one), Some(two)) = (slot(a.ok), slot(b.ok))
                && (a.log, one.0, one.1) == (b.log, two.0, two.1)
                && one.2 < two.2
            {
                pairs.push([(a.ok, two.2), (b.ok, one.2)]);
            }
        }
    }
    for (at, other) in broken.pick(&pairs)? {
        if let Event::Ok {
            answer: Answer::Appended { lsn, .. },
            ..
        } = &mut broken.events[at]
        {
            *lsn = Some(other);
        }
    }
    Some(())
}

pub(super) fn earlier_generation_stands_higher(broken: &mut Broken<'_>) -> Option<()> {
    let segment = |at: usize| match broken.valid[at] {
        Event::Ok {
            answer:
                Answer::Appended {
                    shard,
                    rep: Some(rep),
                    lsn: Some(_),
                    ..
                },
            ..
        } => Some((shard, rep)),
        _ => None,
    };
    let mut pairs = Vec::new();
    for low in &broken.view.acked {
        for high in &broken.view.acked {
            let of = segment(low.ok);
            if low.log == high.log && low.gsn < high.gsn && of.is_some() && of == segment(high.ok) {
                pairs.push([(low.ok, u64::MAX), (high.ok, 0)]);
            }
        }
    }
    for (at, other) in broken.pick(&pairs)? {
        if let Event::Ok {
            answer: Answer::Appended { generation, .. },
            ..
        } = &mut broken.events[at]
        {
            *generation = Some(other);
        }
    }
    Some(())
}

/// One of the two replicas flushes nothing.
pub(super) fn ack_comes_before_the_flush(broken: &mut Broken<'_>) -> Option<()> {
    let places = broken.view.acked.clone();
    let acked = broken.find(&places, |_| true)?;
    let Event::Ok {
        answer:
            Answer::Appended {
                shard: Some(of),
                rep: Some(whose),
                ..
            },
        ..
    } = broken.valid[acked.ok]
    else {
        return None;
    };
    if broken.view.header.durability != "D1" {
        return None;
    }
    let silent = broken.draw.below(2);
    remove(broken, |event| {
        matches!(event, Event::White(white)
            if matches!(**white, White::Persist { log, shard, rep, by, .. }
                if (log, shard, rep, by) == (acked.log, of, whose, silent)))
    });
    Some(())
}

fn cut(broken: &mut Broken<'_>) -> Option<usize> {
    let is_cut = |event: &Event| matches!(event, Event::White(white) if matches!(**white, White::Cut { .. }));
    let cuts = places(broken, is_cut);
    broken.pick(&cuts)
}

pub(super) fn cut_does_not_add_up(broken: &mut Broken<'_>) -> Option<()> {
    let at = cut(broken)?;
    if let Event::White(white) = &mut broken.events[at]
        && let White::Cut { end, .. } = &mut **white
    {
        *end += 1;
    }
    Some(())
}

pub(super) fn cut_shrinks(broken: &mut Broken<'_>) -> Option<()> {
    let at = cut(broken)?;
    if let Event::White(white) = &mut broken.events[at]
        && let White::Cut { deltas, .. } = &mut **white
    {
        let [_, _, prev, new] = deltas.first_mut()?;
        std::mem::swap(prev, new);
    }
    Some(())
}

pub(super) fn call_never_ends(broken: &mut Broken<'_>) -> Option<()> {
    let ends = places(broken, |event| {
        matches!(event, Event::Ok { .. } | Event::Failed { .. })
    });
    let at = broken.pick(&ends)?;
    if broken.view.header.beyond_f {
        return None;
    }
    broken.events.remove(at);
    Some(())
}

pub(super) fn stream_is_stuck(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.beyond_f {
        return None;
    }
    let streams = broken.view.plain();
    let stream = broken.find(&streams, |sub| {
        !sub.last && !sub.ended && !sub.events.is_empty()
    })?;
    broken.events.remove(*stream.events.last()?);
    Some(())
}

pub(super) fn copies_differ(broken: &mut Broken<'_>) -> Option<()> {
    let sums = places(
        broken,
        |event| matches!(event, Event::White(white) if matches!(**white, White::Sum { .. })),
    );
    let at = broken.pick(&sums)?;
    if let Event::White(white) = &mut broken.events[at]
        && let White::Sum { h, .. } = &mut **white
    {
        *h ^= 1;
    }
    Some(())
}

fn remove(broken: &mut Broken<'_>, what: impl Fn(&Event) -> bool) {
    broken.events.retain(|event| !what(event));
}

/// Runs that show something otherwise.
fn acks(broken: &Broken<'_>) -> Option<()> {
    (!broken.view.acked.is_empty()).then_some(())
}

pub(super) fn no_final_phase(broken: &mut Broken<'_>) -> Option<()> {
    acks(broken)?;
    let last = |event: &Event| {
        matches!(
            event,
            Event::Phase {
                phase: Phase::Final,
                ..
            }
        )
    };
    remove(broken, last);
    Some(())
}

pub(super) fn no_final_reader(broken: &mut Broken<'_>) -> Option<()> {
    acks(broken)?;
    let subs = broken.view.subs.clone();
    remove(broken, |event| match event {
        Event::Sub { last, .. } => *last,
        Event::Dlv { sub, .. }
        | Event::Gap { sub, .. }
        | Event::Conf { sub, .. }
        | Event::Void { sub, .. }
        | Event::End { sub, .. } => subs[sub].last,
        _ => false,
    });
    Some(())
}

pub(super) fn faults_never_took_hold(broken: &mut Broken<'_>) -> Option<()> {
    if broken.view.header.faults == 0 {
        return None;
    }
    for event in &mut broken.events {
        if let Event::Nem { state, .. } = event {
            *state = FaultState::Skipped;
        }
    }
    Some(())
}

pub(super) fn nobody_healed(broken: &mut Broken<'_>) -> Option<()> {
    acks(broken)?;
    let installed = |event: &Event| {
        matches!(
            event,
            Event::Nem {
                state: FaultState::Installed,
                ..
            }
        )
    };
    if !broken.valid.iter().any(installed) {
        return None;
    }
    let heal = |event: &Event| {
        matches!(
            event,
            Event::Phase {
                phase: Phase::Heal,
                ..
            }
        )
    };
    remove(broken, heal);
    Some(())
}
