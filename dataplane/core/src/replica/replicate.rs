//! Replication between the replicas of a shard: each primary streams its own segment to its peers, each peer says once how
//! much it holds and then receives in order.

use ionian_types::{Knobs, Lsn, Mutant, Slot};
use ionian_wire::frame::{Have, Replicate};
use ionian_wire::record::{RecordKind, Records};

use super::Replica;
use crate::outbox::Outbox;

/// Below this much room a run is not worth sending.
const SEND_ROOM_MIN: usize = 4096;

/// A run of one session within received records, to enter into the dedup set at once.
#[derive(Clone, Copy)]
struct Seen {
    client: ionian_types::ClientId,
    session: ionian_types::SessionNo,
    seq: u64,
    position: u64,
    count: u64,
}

impl<K: Knobs> Replica<K> {
    /// A peer says how much of the own segment it holds: stream to it from there.
    pub(super) fn on_have(&mut self, slot: Slot, have: &Have) {
        if have.segment != self.own_segment() {
            self.counters.unexpected += 1;
            return;
        }
        let peer = &mut self.peers[slot.index()];
        peer.have = Some((have.generation, have.len));
        peer.stream = None;
    }

    /// Starts to stream the own segment to a peer, if what the peer last said fits what this replica knows now. A peer that
    /// has not entered this generation says so again once it has; one that misses committed records of older generations
    /// copies these first. One that has entered it earlier has said so already.
    fn start_stream(&mut self, slot: usize) -> bool {
        let own = self.config.slot;
        let Some(segment) = self.segment(own) else {
            return false;
        };
        if segment.writer != self.config.inc || segment.generation == ionian_types::ViewId::ZERO {
            return false;
        }
        if self.peers[slot].stream == Some(segment.generation) {
            return true;
        }
        let held = self.store.len(own);
        let fits = |(generation, len): (ionian_types::ViewId, Lsn)| {
            generation == segment.generation && len >= segment.opened_at && len <= held
        };
        let Some((generation, len)) = self.peers[slot].have.filter(|have| fits(*have)) else {
            return false;
        };
        let peer = &mut self.peers[slot];
        peer.stream = Some(generation);
        peer.sent = len;
        true
    }

    pub(super) fn flush_replication(&mut self, out: &mut Outbox) {
        let own = self.config.slot;
        for slot in 0..usize::from(self.config.replicas) {
            let peer = self.peers[slot];
            let Some(conn) = peer.conn else { continue };
            if peer.have_due {
                self.flush_have(slot, conn, out);
            }
            if slot != own.index() {
                self.flush_grant(slot, conn, out);
            }
            if !self.start_stream(slot) {
                continue;
            }
            let end = self.store.len(own);
            // What a peer asked for may have come late, and be trimmed by now: it steps over that as well, or has more since.
            let mut sent = self.peers[slot].sent.max(self.store.first(own));
            while sent < end {
                let room = out.room(conn);
                if room < SEND_ROOM_MIN {
                    break;
                }
                let bytes_max = self.config.run_bytes_max.min(room - SEND_ROOM_MIN / 2);
                let ionian_store::Fetch::Ready(run) = self.store.run(own, sent, end, bytes_max)
                else {
                    break;
                };
                let Some(segment) = self.segment(own) else {
                    break;
                };
                let body = Replicate {
                    log: self.config.log,
                    segment: self.own_segment(),
                    generation: segment.generation,
                    from: run.first,
                    count: run.count,
                };
                if out.send_run(conn, &body, run).is_err() {
                    break;
                }
                sent = Lsn::new(run.first.get() + u64::from(run.count));
            }
            self.peers[slot].sent = sent;
        }
    }

    fn flush_have(&mut self, slot: usize, conn: ionian_types::ConnId, out: &mut Outbox) {
        if !self.is_member() || out.room(conn) == 0 {
            return;
        }
        let index = Slot::new(slot as u8);
        // Said before there is room it would only bring the same records again.
        let stalled = self.peers[slot].stalled_bytes;
        if stalled > 0 && self.store.reserve(index, stalled).is_err() {
            return;
        }
        self.peers[slot].stalled_bytes = 0;
        let Some(segment) = self.segment(index) else {
            return;
        };
        let have = Have {
            segment: ionian_types::SegmentId {
                shard: self.config.shard,
                slot: index,
            },
            generation: segment.generation,
            len: self.store.len(index),
        };
        if out.send(conn, &have, &[]).is_ok() {
            self.peers[slot].have_due = false;
        }
    }

    /// ORDERING.md, REPLICA, Replicate: from the writer of the current generation, and without a gap.
    pub(super) fn on_replicate(&mut self, slot: Slot, body: &Replicate, records: &[u8]) {
        let peer = self.peers[slot.index()];
        let Some(segment) = self.segment(slot) else {
            return;
        };
        let from_writer = body.segment.slot == slot
            && body.segment.shard == self.config.shard
            && !self.is_adopting()
            && (segment.is_open_in(body.generation) && segment.writer == peer.inc
                || K::mutant(Mutant::AcceptOldWriter));
        if !from_writer {
            self.counters.stale += 1;
            return;
        }
        let held = self.store.len(slot);
        if held < segment.opened_at {
            return;
        }
        if body.from > held {
            self.peers[slot.index()].have_due = true;
            return;
        }
        let skip = held.get() - body.from.get();
        if !self.store_run(slot, body.from, u64::from(body.count), records, skip) {
            self.peers[slot.index()].have_due = true;
        }
    }

    /// Checks a run of sealed records from a peer and stores what lies beyond `skip`. Whether all of it is held now.
    pub(super) fn store_run(
        &mut self,
        slot: Slot,
        from: Lsn,
        count: u64,
        records: &[u8],
        skip: u64,
    ) -> bool {
        if skip >= count {
            return true;
        }
        // By fields: others of them change below while it is looked at.
        let Some(segment) = self
            .state
            .as_ref()
            .and_then(|state| state.segments.get(slot.index()))
        else {
            return false;
        };
        let mut bytes = records;
        let mut walk = Records::sealed(records);
        let mut seen: Option<Seen> = None;
        let first = Lsn::new(from.get() + skip);
        let mut last_generation = segment.generation;
        // Entered as they come, unless earlier ones are still to be read.
        let enters = self.dedup_upto[slot.index()] == first;
        for (position, offset) in (from.get()..).zip(0..count) {
            let Some(Ok(record)) = walk.next() else {
                self.counters.bad_records += 1;
                return false;
            };
            let header = record.header();
            let wanted = header.log == self.config.log
                && header.segment.shard == self.config.shard
                && header.segment.slot == slot
                && header.position.get() == position
                && (header.generation == segment.owner(header.position)
                    || K::mutant(Mutant::AcceptOldWriter)
                    || K::mutant(Mutant::RefillFromOutsider));
            if !wanted {
                self.counters.bad_records += 1;
                return false;
            }
            if offset < skip {
                bytes = walk.rest();
                continue;
            }
            last_generation = header.generation;
            if !enters || header.kind != RecordKind::Data {
                continue;
            }
            let dedup = &mut self.dedup[slot.index()];
            match &mut seen {
                Some(run)
                    if run.client == header.client
                        && run.session == header.session
                        && run.seq + run.count == header.seq.get() =>
                {
                    run.count += 1;
                }
                _ => {
                    if let Some(run) = seen.take() {
                        enter(dedup, &run, header.generation);
                    }
                    seen = Some(Seen {
                        client: header.client,
                        session: header.session,
                        seq: header.seq.get(),
                        position: header.position.get(),
                        count: 1,
                    });
                }
            }
        }
        if !walk.rest().is_empty() {
            self.counters.bad_records += 1;
            return false;
        }
        let Ok(room) = self.store.reserve(slot, bytes.len()) else {
            self.peers[slot.index()].stalled_bytes = bytes.len();
            return false;
        };
        room.copy_from_slice(bytes);
        self.store.commit(slot, first, bytes.len());
        self.tail_generation[slot.index()] = last_generation;
        if let Some(run) = seen {
            let generation = segment.owner(Lsn::new(run.position));
            enter(&mut self.dedup[slot.index()], &run, generation);
        }
        if enters {
            let end = Lsn::new(from.get() + count);
            self.may_enter(slot, first, end);
        }
        self.counters.replicated += count - skip;
        true
    }
}

fn enter(dedup: &mut crate::dedup::Dedup, run: &Seen, generation: ionian_types::ViewId) {
    if let Some(index) = dedup.open(run.client, run.session, generation) {
        dedup.took(
            index,
            ionian_types::ClientSeq::new(run.seq),
            Lsn::new(run.position),
            run.count,
            ionian_types::ClientSeq::ZERO,
        );
    }
}
