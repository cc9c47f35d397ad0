//! The merge of a subscription's streams into the total order.
//!
//! Positions are dense and each belongs to one shard or to a gap, so the next one comes from exactly one stream. A run that
//! begins there goes to the application straight from the message; what comes early waits in its stream, within the
//! stream's credit. A trim seen by any server moves the whole merge (ORDERING.md, CLIENT).

use core::cmp::Reverse;

use ionian_types::{GapKind, Gsn, Knobs, Mutant, Time};
use ionian_wire::frame::{Deliver, DeliverGap};
use ionian_wire::record::{RecordKind, Records, parse_header};

use super::Client;
use super::api::{RecordRun, Sink};
use super::peers::PeerIx;
use super::stream::Item;
use super::subscribe::Subscription;

impl<K: Knobs> Client<K> {
    pub(super) fn on_deliver<S: Sink>(
        &mut self,
        now: Time,
        peer: PeerIx,
        deliver: &Deliver,
        records: &[u8],
        sink: &mut S,
    ) {
        let Some((slot, at)) = self.stream_of(peer, deliver.subscription) else {
            // A stream left behind, whose server has not heard of it yet.
            return;
        };
        let shard = self.peers.segment(peer).shard;
        let end = deliver.first_gsn.checked_add(u64::from(deliver.count));
        let good = self.check_run(shard, deliver.count, records);
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        let stream = &mut sub.streams[at];
        let bytes = records.len() as u64;
        let (Some(end), true, true) = (end, good, stream.admits(bytes)) else {
            if good {
                self.stats.bad_messages += 1;
            } else {
                self.stats.bad_records += 1;
            }
            self.restart_stream(now, slot, at, true);
            return;
        };
        stream.taken_in += bytes;
        stream.entry = stream.entry.max(deliver.entry);
        stream.backoff = self.config.backoff_min;
        let item = Item {
            first: deliver.first_gsn,
            end,
            bytes,
            entry: deliver.entry,
            gap: None,
        };
        self.accept(now, slot, at, item, records, sink);
    }

    /// Checks every record of a run: both checksums, the log, the shard, and that it is data.
    fn check_run(&self, shard: ionian_types::ShardId, count: u32, records: &[u8]) -> bool {
        let mut found = 0u32;
        for record in Records::sealed(records) {
            let Ok(view) = record else {
                return false;
            };
            let header = view.header();
            if header.log != self.config.log
                || header.segment.shard != shard
                || header.kind != RecordKind::Data
            {
                return false;
            }
            found += 1;
        }
        found == count && count > 0
    }

    pub(super) fn on_deliver_gap<S: Sink>(
        &mut self,
        now: Time,
        peer: PeerIx,
        gap: &DeliverGap,
        sink: &mut S,
    ) {
        let Some((slot, at)) = self.stream_of(peer, gap.subscription) else {
            return;
        };
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        if gap.from >= gap.to {
            self.stats.bad_messages += 1;
            return;
        }
        if gap.kind == GapKind::Trim {
            if gap.to > sub.next && !K::mutant(Mutant::TrimOfOneShard) {
                sub.trimmed = sub.trimmed.max(Some(gap.to));
            }
            let stream = &mut sub.streams[at];
            stream.received = stream.received.max(gap.to);
            self.merge(now, slot, sink);
            return;
        }
        let entry = sub.streams[at].entry;
        let item = Item {
            first: gap.from,
            end: gap.to,
            bytes: 0,
            entry,
            gap: Some(gap.kind),
        };
        self.accept(now, slot, at, item, &[], sink);
    }

    /// Delivers an item at once if it is next, else keeps it.
    fn accept<S: Sink>(
        &mut self,
        now: Time,
        slot: usize,
        at: usize,
        mut item: Item,
        mut records: &[u8],
        sink: &mut S,
    ) {
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        let stream = &mut sub.streams[at];
        // What this stream gave before is not wanted again, and neither is what lies behind the merge.
        let wanted = stream.received.max(sub.next);
        if item.end <= wanted {
            self.subscriptions.dirty |= stream.credit_due();
            return;
        }
        if item.first < wanted {
            records = skip(records, wanted.saturating_since(item.first));
            item.first = wanted;
            item.bytes = records.len() as u64;
        }
        stream.received = item.end;
        let direct = !sub.blocked
            && sub.trimmed.is_none()
            && (item.first == sub.next || K::mutant(Mutant::MergeByArrival))
            && stream.front().is_none();
        if direct {
            let taken = offer(sub, at, &item, records, sink);
            self.stats.delivered += if item.gap.is_none() { taken } else { 0 };
            if taken == item.end.saturating_since(item.first) {
                self.after_delivery(now, slot, at, sink);
                return;
            }
            records = skip(records, taken);
            item.first = sub.next;
            item.bytes = records.len() as u64;
        }
        self.stats.buffered += 1;
        let stream = &mut sub.streams[at];
        if stream.push(&item, records) {
            if !stream.in_heap {
                stream.in_heap = true;
                sub.heap.push(Reverse((item.first, at as u32)));
            }
            if !sub.blocked && sub.stalled_since == Time::FAR {
                sub.stalled_since = now;
                self.wake(now.after(self.config.rebind_after));
            }
        } else {
            // More than was granted, or gaps without end: it comes again.
            stream.received = item.first;
            self.restart_stream(now, slot, at, true);
        }
    }

    fn after_delivery<S: Sink>(&mut self, now: Time, slot: usize, at: usize, sink: &mut S) {
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        self.subscriptions.dirty |= sub.streams[at].credit_due();
        if sub.heap.is_empty() {
            sub.stalled_since = Time::FAR;
        } else {
            self.merge(now, slot, sink);
        }
    }

    /// Delivers what waits and is next, in order, until something is missing or the application says "not now".
    pub(super) fn merge<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        while !sub.blocked {
            if let Some(to) = sub.trimmed.filter(|to| *to > sub.next) {
                if !sink.gap(sub.id, sub.next, to, GapKind::Trim) {
                    sub.blocked = true;
                    break;
                }
                sub.next = to;
                sub.stalled_since = now;
            }
            sub.trimmed = None;
            let Some(Reverse((first, at))) = sub.heap.peek().copied() else {
                sub.stalled_since = Time::FAR;
                break;
            };
            let at = at as usize;
            if first > sub.next {
                if sub.stalled_since == Time::FAR {
                    sub.stalled_since = now;
                }
                break;
            }
            sub.heap.pop();
            sub.streams[at].in_heap = false;
            self.stats.delivered += advance_front(sub, at, sink);
            let stream = &mut sub.streams[at];
            if let Some((item, _)) = stream.front() {
                stream.in_heap = true;
                sub.heap.push(Reverse((item.first, at as u32)));
            }
            self.subscriptions.dirty |= stream.credit_due();
            sub.stalled_since = now;
        }
        if sub.stalled_since != Time::FAR {
            let due = sub.stalled_since.after(self.config.rebind_after);
            self.wake(due);
        }
    }
}

/// Offers the front of a stream, which begins at or before the next position. Returns the records delivered.
fn advance_front<S: Sink>(sub: &mut Subscription, at: usize, sink: &mut S) -> u64 {
    let Some((item, records)) = sub.streams[at].front() else {
        return 0;
    };
    if item.end <= sub.next {
        sub.streams[at].pop();
        return 0;
    }
    let behind = sub.next.saturating_since(item.first);
    let rest = skip(records, behind);
    let fresh = Item {
        first: item.first.max(sub.next),
        bytes: rest.len() as u64,
        ..item
    };
    let id = sub.id;
    let shard = sub.streams[at].shard;
    let taken = give(id, shard, &fresh, rest, sink);
    let left = skip(rest, taken).len() as u64;
    let count = fresh.end.saturating_since(fresh.first);
    if taken >= count {
        sub.streams[at].pop();
    } else {
        sub.blocked = true;
        let to = Gsn::new(fresh.first.get() + taken);
        if to > item.first {
            sub.streams[at].shorten(to, item.bytes - left);
        }
    }
    sub.next = Gsn::new(fresh.first.get() + taken);
    if item.gap.is_none() { taken } else { 0 }
}

/// Offers an item that begins at the next position; returns how many positions of it were taken.
fn offer<S: Sink>(
    sub: &mut Subscription,
    at: usize,
    item: &Item,
    records: &[u8],
    sink: &mut S,
) -> u64 {
    let taken = give(sub.id, sub.streams[at].shard, item, records, sink);
    if taken < item.end.saturating_since(item.first) {
        sub.blocked = true;
    }
    sub.next = Gsn::new(item.first.get() + taken);
    taken
}

fn give<S: Sink>(
    id: super::api::SubscriptionId,
    shard: ionian_types::ShardId,
    item: &Item,
    records: &[u8],
    sink: &mut S,
) -> u64 {
    let count = item.end.saturating_since(item.first);
    match item.gap {
        Some(kind) if sink.gap(id, item.first, item.end, kind) => count,
        Some(_) => 0,
        None => {
            let run = RecordRun {
                first_gsn: item.first,
                count: count as u32,
                shard,
                entry: item.entry,
                bytes: records,
            };
            u64::from(sink.records(id, &run)).min(count)
        }
    }
}

/// The records after the first `count`. They were checked when they came.
fn skip(mut records: &[u8], count: u64) -> &[u8] {
    for _ in 0..count {
        let Ok(header) = parse_header(records) else {
            break;
        };
        records = records.get(header.encoded_bytes()..).unwrap_or(&[]);
    }
    records
}
