//! Breaks subscriptions: S9, S10, S12, S17.

use super::Broken;
use super::view::Dlv;
use crate::event::{Event, Kind, Only};

/// A delivery of a plain subscription, with the one that comes next in it.
fn followed(broken: &mut Broken<'_>) -> Option<(Dlv, usize)> {
    let view = broken.view.clone();
    let mut pairs = Vec::new();
    for dlv in view.plain_deliveries() {
        let events = &view.subs[&dlv.sub].events;
        let at = events.iter().position(|at| *at == dlv.at)?;
        let next = events.get(at + 1).copied();
        if let Some(next) = next.filter(|next| matches!(broken.valid[*next], Event::Dlv { .. })) {
            pairs.push((dlv, next));
        }
    }
    broken.pick(&pairs)
}

pub(super) fn delivery_is_missing(broken: &mut Broken<'_>) -> Option<()> {
    let (dlv, _) = followed(broken)?;
    broken.events.remove(dlv.at);
    Some(())
}

fn becomes_gap(broken: &mut Broken<'_>, dlv: &Dlv, kind: Kind) {
    let t = super::view::time(&broken.valid[dlv.at]);
    broken.events[dlv.at] = Event::Gap {
        t,
        sub: dlv.sub,
        lo: dlv.gsn,
        hi: dlv.gsn + 1,
        kind,
        spec: false,
    };
}

pub(super) fn gap_covers_an_acked_record(broken: &mut Broken<'_>) -> Option<()> {
    let view = broken.view.clone();
    let dlv = broken.find(&view.plain_deliveries(), |dlv| {
        let log = view.log_of(dlv.sub);
        let mut acked = view.acked.iter();
        acked.any(|acked| (acked.log, acked.gsn) == (log, dlv.gsn))
    })?;
    let kind = *broken
        .draw
        .pick(&[Kind::Junk, Kind::Plug, Kind::Noop, Kind::Bridge]);
    becomes_gap(broken, &dlv, kind);
    Some(())
}

pub(super) fn trim_gap_that_nobody_asked_for(broken: &mut Broken<'_>) -> Option<()> {
    let view = broken.view.clone();
    let dlv = broken.find(&view.plain_deliveries(), |dlv| {
        let asked = view.trim_asked.get(&view.log_of(dlv.sub));
        asked.is_none_or(|asked| *asked <= dlv.gsn)
    })?;
    becomes_gap(broken, &dlv, Kind::Trim);
    Some(())
}

pub(super) fn final_reader_stops_early(broken: &mut Broken<'_>) -> Option<()> {
    let readers = broken.view.plain();
    let reader = broken.find(&readers, |sub| sub.last && !sub.events.is_empty())?;
    broken.events.remove(*reader.events.last()?);
    Some(())
}

pub(super) fn delivery_comes_twice(broken: &mut Broken<'_>) -> Option<()> {
    let all = broken.view.plain_deliveries();
    let dlv = broken.pick(&all)?;
    let again = broken.valid[dlv.at].clone();
    broken.events.insert(dlv.at + 1, again);
    Some(())
}

pub(super) fn deliveries_are_swapped(broken: &mut Broken<'_>) -> Option<()> {
    let (dlv, next) = followed(broken)?;
    broken.events.swap(dlv.at, next);
    Some(())
}

/// Hints that a `conf` confirms and no `void` takes back before it, with the place of that `conf`.
fn confirmed(broken: &Broken<'_>) -> Vec<(Dlv, usize)> {
    let mut found = Vec::new();
    for dlv in broken.view.delivered.iter().filter(|dlv| dlv.spec) {
        let events = broken.view.subs[&dlv.sub].events.iter();
        for at in events.filter(|at| **at > dlv.at) {
            match broken.valid[*at] {
                Event::Void { start, .. } if start <= dlv.gsn => break,
                Event::Conf { upto, .. } if upto >= dlv.gsn => {
                    found.push((*dlv, *at));
                    break;
                }
                _ => {}
            }
        }
    }
    found
}

pub(super) fn wrong_hint_is_confirmed(broken: &mut Broken<'_>) -> Option<()> {
    let (all, view) = (confirmed(broken), broken.view.clone());
    let known = &view.final_records;
    let (dlv, _) = broken.find(&all, |(dlv, _)| {
        let here = (view.log_of(dlv.sub), dlv.gsn);
        known.contains_key(&here) && !view.subs[&dlv.sub].last
    })?;
    let here = known[&(view.log_of(dlv.sub), dlv.gsn)];
    let others: Vec<_> = known.values().copied().filter(|rec| *rec != here).collect();
    let other = broken.pick(&others)?;
    if let Event::Dlv { rec, .. } = &mut broken.events[dlv.at] {
        *rec = other;
    }
    Some(())
}

pub(super) fn confirm_is_taken_back(broken: &mut Broken<'_>) -> Option<()> {
    let all = confirmed(broken);
    let (dlv, at) = broken.pick(&all)?;
    let (t, sub) = (super::view::time(&broken.valid[at]), dlv.sub);
    let start = dlv.gsn;
    broken.events.insert(at + 1, Event::Void { t, sub, start });
    Some(())
}

pub(super) fn confirm_runs_ahead(broken: &mut Broken<'_>) -> Option<()> {
    let all = confirmed(broken);
    let (_, at) = broken.pick(&all)?;
    if let Event::Conf { upto, .. } = &mut broken.events[at] {
        *upto += 1_000;
    }
    Some(())
}

pub(super) fn hint_is_never_settled(broken: &mut Broken<'_>) -> Option<()> {
    let all = confirmed(broken);
    let subs = broken.view.subs.clone();
    let (dlv, _) = broken.find(&all, |(dlv, _)| !subs[&dlv.sub].ended)?;
    // Without the rest of its stream, the hint stays one.
    let mut rest: Vec<usize> = subs[&dlv.sub].events.clone();
    rest.retain(|at| *at > dlv.at);
    for at in rest.into_iter().rev() {
        broken.events.remove(at);
    }
    Some(())
}

pub(super) fn selected_record_is_missing(broken: &mut Broken<'_>) -> Option<()> {
    let view = broken.view.clone();
    // Of a record whose ack names its shard; another delivery follows, so that it was passed over.
    let dlv = broken.find(&view.delivered, |dlv| {
        let sub = &view.subs[&dlv.sub];
        let mut acked = view.acked.iter();
        let mut later = view.delivered.iter();
        sub.only.is_some()
            && acked.any(|acked| (acked.log, acked.gsn) == (sub.log, dlv.gsn))
            && later.any(|later| later.sub == dlv.sub && later.gsn > dlv.gsn)
    })?;
    broken.events.remove(dlv.at);
    Some(())
}

pub(super) fn selection_is_anothers(broken: &mut Broken<'_>) -> Option<()> {
    let view = broken.view.clone();
    let dlv = broken.find(&view.delivered, |dlv| {
        let sub = &view.subs[&dlv.sub];
        let mut acked = view.acked.iter();
        sub.only.is_some() && acked.any(|acked| (acked.log, acked.gsn) == (sub.log, dlv.gsn))
    })?;
    if let Event::Sub {
        only: Some(only), ..
    } = &mut broken.events[view.subs[&dlv.sub].at]
    {
        let (Only::Client(of) | Only::Shard(of) | Only::Colour(of)) = only;
        *of += 50;
    }
    Some(())
}
