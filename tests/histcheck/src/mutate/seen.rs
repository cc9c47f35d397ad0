//! Breaks what is seen: S1 to S5, S15.

use super::Broken;
use super::view::Acked;
use crate::event::{Answer, Call, Event, Kind, Sight};

impl Broken<'_> {
    /// Two records of one log, acked and seen at the end.
    pub(super) fn two(&mut self, will_do: impl Fn(&Acked, &Acked) -> bool) -> Option<[Acked; 2]> {
        let all = self.view.acked_to_the_end();
        let mut pairs = Vec::new();
        for (at, first) in all.iter().enumerate() {
            for second in &all[at + 1..] {
                for [a, b] in [[*first, *second], [*second, *first]] {
                    if a.log == b.log && will_do(&a, &b) {
                        pairs.push([a, b]);
                    }
                }
            }
        }
        self.pick(&pairs)
    }

    fn sight_of(&self, acked: &Acked) -> Option<Sight> {
        let known = self.view.final_records.get(&(acked.log, acked.gsn));
        known.copied()
    }

    /// A question at the very end, after everything was said, with its answer.
    pub(super) fn ask_at_the_end(&mut self, log: u64, call: Call, answer: Answer) {
        let t = self.view.end + 2 * self.view.header.clock_err_ns + 1;
        let (op, p) = (self.view.free, self.view.free);
        self.events.push(Event::Inv {
            t,
            p,
            op,
            log,
            call,
        });
        self.events.push(Event::Ok {
            t: t + 1,
            op,
            answer,
        });
    }
}

pub(super) fn read_shows_another_record(broken: &mut Broken<'_>) -> Option<()> {
    let known = broken.view.final_records.clone();
    let reads = broken.view.reads.clone();
    let read = broken.find(&reads, |read| known.contains_key(&(read.log, read.gsn)))?;
    let here = known[&(read.log, read.gsn)];
    let others: Vec<Sight> = known.values().copied().filter(|rec| *rec != here).collect();
    let other = broken.pick(&others)?;
    if let Event::Ok { answer, .. } = &mut broken.events[read.ok] {
        *answer = Answer::Record(other);
    }
    Some(())
}

pub(super) fn trimmed_position_shows_another_record(broken: &mut Broken<'_>) -> Option<()> {
    let heads = broken.view.trimmed.clone();
    let acked = broken.view.acked.clone();
    let gone = broken.find(&acked, |acked| {
        heads.get(&acked.log).is_some_and(|head| acked.gsn < *head)
    })?;
    let other = broken.find(&acked, |acked| acked.log == gone.log && acked.h != gone.h)?;
    let sight = Sight {
        cid: other.cid,
        ses: Some(other.ses),
        csn: other.csn,
        h: other.h,
    };
    broken.ask_at_the_end(gone.log, Call::Read(gone.gsn), Answer::Record(sight));
    Some(())
}

pub(super) fn delivery_is_corrupted(broken: &mut Broken<'_>) -> Option<()> {
    let (known, view) = (broken.view.final_records.clone(), broken.view.clone());
    let twice = broken.find(&view.plain_deliveries(), |dlv| {
        let log = view.log_of(dlv.sub);
        !view.subs[&dlv.sub].last && known.contains_key(&(log, dlv.gsn))
    })?;
    if let Event::Dlv { rec, .. } = &mut broken.events[twice.at] {
        rec.h ^= 1;
    }
    Some(())
}

pub(super) fn record_is_invented(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    broken.events.remove(acked.ok);
    broken.events.remove(acked.inv);
    Some(())
}

pub(super) fn payload_is_another(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    if let Event::Inv {
        call: Call::Append { h, .. },
        ..
    } = &mut broken.events[acked.inv]
    {
        *h ^= 1;
    }
    Some(())
}

pub(super) fn refused_and_there(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    if let Event::Ok { t, op, .. } = broken.events[acked.ok] {
        broken.events[acked.ok] = Event::Failed {
            t,
            op,
            no_effect: true,
        };
    }
    Some(())
}

pub(super) fn record_comes_again_at_the_tail(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    let rec = broken.sight_of(&acked)?;
    let (at, _, tail) = broken.view.finals[&acked.log];
    if !broken.view.header.dedupe {
        return None;
    }
    if let Event::Phase { tail, .. } = &mut broken.events[at] {
        *tail += 1;
    }
    let readers = broken.view.plain();
    let readers = readers
        .iter()
        .filter(|sub| sub.last && sub.log == acked.log);
    for reader in readers {
        broken.events.push(Event::Dlv {
            t: broken.view.end,
            sub: reader.sub,
            gsn: tail,
            rec,
            spec: false,
            epoch: None,
        });
    }
    Some(())
}

pub(super) fn retry_is_acked_elsewhere(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    if !broken.view.header.dedupe {
        return None;
    }
    let call = Call::Append {
        cid: acked.cid,
        name: Some((acked.ses, acked.csn)),
        attempt: 99,
        h: acked.h,
        col: None,
    };
    let answer = Answer::Appended {
        gsn: broken.view.tail(acked.log) + 3,
        epoch: None,
        shard: None,
        rep: None,
        lsn: None,
        generation: None,
        name: None,
    };
    broken.ask_at_the_end(acked.log, call, answer);
    Some(())
}

pub(super) fn ack_names_anothers_position(broken: &mut Broken<'_>) -> Option<()> {
    let [acked, other] = broken.two(|_, _| true)?;
    if let Event::Ok {
        answer: Answer::Appended { gsn, .. },
        ..
    } = &mut broken.events[acked.ok]
    {
        *gsn = other.gsn;
    }
    Some(())
}

pub(super) fn final_reader_swaps_two(broken: &mut Broken<'_>) -> Option<()> {
    let [first, second] = broken.two(|_, _| true)?;
    let view = broken.view.clone();
    let reader = broken.find(&view.plain(), |sub| sub.last && sub.log == first.log)?;
    let at = |gsn| {
        let mut all = view.delivered.iter();
        let dlv = all.find(|dlv| dlv.sub == reader.sub && dlv.gsn == gsn);
        dlv.map(|dlv| dlv.at)
    };
    let (a, b) = (at(first.gsn)?, at(second.gsn)?);
    let (one, two) = (broken.sight_of(&first)?, broken.sight_of(&second)?);
    for (at, sight) in [(a, two), (b, one)] {
        if let Event::Dlv { rec, .. } = &mut broken.events[at] {
            *rec = sight;
        }
    }
    Some(())
}

pub(super) fn final_read_skips_an_acked_record(broken: &mut Broken<'_>) -> Option<()> {
    let view = broken.view.clone();
    let dlv = broken.find(&view.plain_deliveries(), |dlv| {
        let sub = &view.subs[&dlv.sub];
        let mut acked = view.acked.iter();
        sub.last && acked.any(|acked| (acked.log, acked.gsn) == (sub.log, dlv.gsn))
    })?;
    broken.events.remove(dlv.at);
    Some(())
}

pub(super) fn acked_record_is_a_loss(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked_to_the_end();
    let acked = broken.pick(&acked)?;
    if broken.view.header.beyond_f {
        return None;
    }
    for dlv in &broken.view.plain_deliveries() {
        let sub = &broken.view.subs[&dlv.sub];
        if sub.last && (sub.log, dlv.gsn) == (acked.log, acked.gsn) {
            broken.events[dlv.at] = Event::Gap {
                t: broken.view.end,
                sub: dlv.sub,
                lo: dlv.gsn,
                hi: dlv.gsn + 1,
                kind: Kind::Loss,
                spec: false,
            };
        }
    }
    Some(())
}

pub(super) fn fill_over_a_record(broken: &mut Broken<'_>) -> Option<()> {
    let acked = broken.view.acked.clone();
    let acked = broken.pick(&acked)?;
    let answer = Answer::Hole(Kind::Junk);
    broken.ask_at_the_end(acked.log, Call::Fill(acked.gsn), answer);
    Some(())
}

pub(super) fn record_is_read_as_a_hole(broken: &mut Broken<'_>) -> Option<()> {
    let known = broken.view.final_records.clone();
    let reads = broken.view.reads.clone();
    let read = broken.find(&reads, |read| known.contains_key(&(read.log, read.gsn)))?;
    if let Event::Ok { answer, .. } = &mut broken.events[read.ok] {
        *answer = Answer::Hole(Kind::Plug);
    }
    Some(())
}
