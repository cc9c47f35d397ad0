//! Clients' records: placing them in the own segment, and acknowledging them once a cut that covers them is applied.

use ionian_store::StoreError;
use ionian_types::{
    ClientSeq, ConnId, GuardEpoch, Knobs, Lsn, Mutant, NodeId, NsEpoch, Slot, Time,
};
use ionian_wire::frame::{Append, AppendAck, AppendRefused, RefusalReason};
use ionian_wire::record::{Placement, RECORD_HEADER_BYTES, Records};

use super::{Replica, Waiter};
use crate::dedup::WINDOW;
use crate::index::Run;
use crate::outbox::Outbox;

/// A refusal: which part of the run, why, and the node concerned.
struct Refused {
    from: u64,
    reason: RefusalReason,
    node: NodeId,
}

impl Refused {
    const fn new(from: u64, reason: RefusalReason) -> Self {
        Self {
            from,
            reason,
            node: NodeId::ZERO,
        }
    }
}

impl<K: Knobs> Replica<K> {
    /// ORDERING.md, REPLICA, Append.
    pub(super) fn on_append(
        &mut self,
        now: Time,
        conn: ConnId,
        append: &Append,
        records: &[u8],
        out: &mut Outbox,
    ) {
        self.counters.append_frames += 1;
        let taken = self.take(now, conn, append, records);
        self.full = matches!(&taken, Err(refused) if refused.reason == RefusalReason::StoreFull)
            || self.full && taken.is_err();
        if let Err(refused) = taken {
            self.counters.refused += 1;
            let taken = refused.from - append.first_seq.get();
            let answer = AppendRefused {
                segment: append.segment,
                generation: append.generation,
                session: append.session,
                first_seq: ClientSeq::new(refused.from),
                count: append.count.saturating_sub(taken as u32),
                reason: refused.reason,
                node: refused.node,
            };
            let _ = out.send(conn, &answer, &[]);
        }
    }

    fn take(
        &mut self,
        now: Time,
        conn: ConnId,
        append: &Append,
        records: &[u8],
    ) -> Result<(), Refused> {
        let first = append.first_seq.get();
        let refuse = |reason| Refused::new(first, reason);
        let own = self.config.slot;
        let Some(end) = first.checked_add(u64::from(append.count)) else {
            return Err(refuse(RefusalReason::Malformed));
        };
        if append.log != self.config.log
            || append.segment != self.own_segment()
            || append.count == 0
        {
            return Err(refuse(RefusalReason::Malformed));
        }
        let Some(segment) = self.segment(own) else {
            return Err(refuse(RefusalReason::NotReady));
        };
        let forged;
        let append = if K::mutant(Mutant::AppendWithoutGeneration) {
            forged = Append {
                generation: segment.generation,
                ..*append
            };
            &forged
        } else {
            append
        };
        if segment.generation != append.generation {
            // A generation that is still to come is not closed, only not entered yet.
            let reason = if append.generation > segment.generation {
                RefusalReason::NotReady
            } else {
                RefusalReason::Closed
            };
            return Err(refuse(reason));
        }
        if segment.writer != self.config.inc || !self.is_member() || self.draining {
            return Err(refuse(RefusalReason::NotReady));
        }
        if self.store.len(own) < segment.len {
            return Err(refuse(RefusalReason::NotReady));
        }
        let epoch = self.epoch();
        let Some(index) =
            self.dedup[own.index()].open(append.client, append.session, append.generation)
        else {
            return Err(refuse(RefusalReason::Busy));
        };
        let Some(session) = self.dedup[own.index()].get_mut(index) else {
            return Err(refuse(RefusalReason::Busy));
        };
        let foreign =
            session.generation != append.generation && !K::mutant(Mutant::AppendWithoutGeneration);
        if session.tombstone || foreign {
            return Err(refuse(RefusalReason::SessionClosed));
        }
        if session.conn != Some(conn) {
            // The client came back on another connection: everything above its floor is answered there.
            session.conn = Some(conn);
            session.acked = session.acked.min(append.floor.get().max(session.floor));
        }
        if first < session.floor {
            return Err(refuse(RefusalReason::Stale));
        }
        if first > session.next_seq && !K::mutant(Mutant::HighWaterDedup) {
            // An earlier run was refused; taking this one would break the session's order.
            return Err(refuse(RefusalReason::Busy));
        }
        if end > append.floor.get().saturating_add(WINDOW) {
            return Err(refuse(RefusalReason::Window));
        }
        let mut next_seq = session.next_seq;
        if K::mutant(Mutant::NoDedup) || K::mutant(Mutant::HighWaterDedup) && first > next_seq {
            next_seq = first;
        }
        if first < next_seq {
            self.repeat(index, append, records, next_seq.min(end))?;
            if end <= next_seq {
                return Ok(());
            }
        }
        if let Some(node) = self.missing_peer(now) {
            return Err(Refused {
                from: next_seq,
                reason: RefusalReason::ReplicaMissing,
                node,
            });
        }
        let uncommitted = self.store.len(own).saturating_since(self.committed(own));
        if uncommitted + (end - next_seq) > self.config.uncommitted_records_max {
            return Err(Refused::new(next_seq, RefusalReason::Busy));
        }
        let skip = next_seq - first;
        if self.waiters.is_empty() {
            self.progress_at = now;
        }
        self.place(index, append, records, skip, epoch)
    }

    /// The run was taken before, in part or whole: check that it is the same, and answer again from its start.
    fn repeat(
        &mut self,
        index: u32,
        append: &Append,
        records: &[u8],
        end: u64,
    ) -> Result<(), Refused> {
        let own = self.config.slot;
        let first = append.first_seq.get();
        for (offset, record) in Records::unplaced(records).enumerate() {
            let seq = first + offset as u64;
            if seq >= end {
                break;
            }
            let Ok(record) = record else {
                return Err(Refused::new(first, RefusalReason::Malformed));
            };
            let position = self.dedup[own.index()]
                .get(index)
                .and_then(|session| session.position(seq));
            let stored = position.and_then(|position| self.store.header(own, position));
            if let Some(stored) = stored {
                let same = stored.payload_crc == record.header().payload_crc
                    && stored.payload_bytes == record.header().payload_bytes;
                if !same {
                    return Err(Refused::new(seq, RefusalReason::Mismatch));
                }
            }
        }
        self.counters.repeats += 1;
        if let Some(session) = self.dedup[own.index()].get_mut(index) {
            session.acked = session.acked.min(first.max(session.floor));
        }
        self.ready_to_ack(index);
        Ok(())
    }

    /// Copies the run into the own segment, placed and sealed.
    fn place(
        &mut self,
        index: u32,
        append: &Append,
        records: &[u8],
        skip: u64,
        epoch: ionian_types::ViewId,
    ) -> Result<(), Refused> {
        let own = self.config.slot;
        let first_seq = append.first_seq.get() + skip;
        let refuse = |reason| Refused::new(first_seq, reason);
        let mut bytes = records;
        let mut walk = Records::unplaced(records);
        for offset in 0..u64::from(append.count) {
            let Some(Ok(record)) = walk.next() else {
                return Err(refuse(RefusalReason::Malformed));
            };
            let header = record.header();
            let expected = append.first_seq.get() + offset;
            if header.client != append.client
                || header.session != append.session
                || header.seq.get() != expected
            {
                return Err(refuse(RefusalReason::Malformed));
            }
            if offset < skip {
                bytes = walk.rest();
            }
        }
        if !walk.rest().is_empty() {
            return Err(refuse(RefusalReason::Malformed));
        }
        let count = u64::from(append.count) - skip;
        let charge = self
            .admit(bytes.len(), count, append.generation)
            .map_err(refuse)?;
        let first = self.store.len(own);
        let room = self
            .store
            .reserve(own, bytes.len())
            .map_err(|error| refuse(refusal(error)))?;
        room.copy_from_slice(bytes);
        let mut place = Placement {
            log: self.config.log,
            segment: append.segment,
            ns_epoch: NsEpoch::ZERO,
            generation: append.generation,
            position: first,
            guard: GuardEpoch::new(epoch.get()),
        };
        let mut at = 0;
        while at < room.len() {
            let record = &mut room[at..];
            let payload = ionian_wire::record::payload_bytes(record);
            place.seal(&mut record[..RECORD_HEADER_BYTES]);
            place.position = Lsn::new(place.position.get() + 1);
            at += ionian_wire::record::encoded_bytes(payload);
        }
        self.store.commit(own, first, bytes.len());
        self.room.took(charge, Lsn::new(first.get() + count));
        self.tail_generation[own.index()] = append.generation;
        self.may_enter(own, first, Lsn::new(first.get() + count));
        self.dedup[own.index()].took(index, ClientSeq::new(first_seq), first, count, append.floor);
        self.counters.appended += count;
        match self.waiters.back_mut() {
            Some(last)
                if last.session == index && last.position.get() + last.count == first.get() =>
            {
                last.count += count
            }
            _ => self.waiters.push_back(Waiter {
                session: index,
                position: first,
                count,
            }),
        }
        Ok(())
    }

    /// The node of a peer that has been away too long, if there is one.
    pub(super) fn missing_peer(&self, now: Time) -> Option<NodeId> {
        let state = self.state.as_ref()?;
        let missing = (0..usize::from(self.config.replicas))
            .filter(|slot| *slot != self.config.slot.index())
            .filter(|slot| {
                let peer = &self.peers[*slot];
                peer.conn.is_none() && now.since(peer.seen) >= self.config.timing.missing
            });
        let tolerated = usize::from(self.config.replicas).saturating_sub(usize::from(state.quorum));
        missing
            .skip(tolerated)
            .map(|slot| state.members[slot].node)
            .next()
    }

    /// A cut was applied up to `committed` of the own segment: the sessions it covers may be answered.
    pub(super) fn covered(&mut self, committed: Lsn, now: Time) {
        self.progress_at = now;
        while let Some(waiter) = self.waiters.front_mut() {
            if waiter.position >= committed {
                return;
            }
            let session = waiter.session;
            if waiter.position.get() + waiter.count <= committed.get() {
                self.waiters.pop_front();
            } else {
                waiter.count -= committed.get() - waiter.position.get();
                waiter.position = committed;
            }
            self.ready_to_ack(session);
        }
    }

    fn ready_to_ack(&mut self, index: u32) {
        let own = self.config.slot.index();
        if let Some(session) = self.dedup[own]
            .get_mut(index)
            .filter(|session| !session.blocked)
        {
            session.blocked = true;
            self.ack_ready.push(index);
        }
    }

    pub(super) fn flush_acks(&mut self, out: &mut Outbox) {
        let mut at = 0;
        while at < self.ack_ready.len() {
            let index = self.ack_ready[at];
            if self.ack_session(index, out) {
                self.ack_ready.swap_remove(at);
                if let Some(session) = self.dedup[self.config.slot.index()].get_mut(index) {
                    session.blocked = false;
                }
            } else {
                at += 1;
            }
        }
    }

    /// Answers what is committed of one session. Whether nothing is left to answer now.
    fn ack_session(&mut self, index: u32, out: &mut Outbox) -> bool {
        let own = self.config.slot;
        let waited_for = self.waited_for();
        let committed = self.committed(waited_for);
        let Some(state) = &self.state else {
            return true;
        };
        let class = state.class;
        loop {
            let Some(session) = self.dedup[own.index()].get(index) else {
                return true;
            };
            let Some(conn) = session.conn else {
                return true;
            };
            let seq = session.acked.max(session.floor);
            if seq >= session.next_seq {
                return true;
            }
            let Some(run) = session.run_at(seq) else {
                return true;
            };
            let position = Lsn::new(run.position + (seq - run.seq));
            if position >= committed {
                return true;
            }
            let left = run.seq + run.count - seq;
            let (session_no, generation) = (session.session, session.generation);
            let Some(cut) = self.own_run(waited_for, position) else {
                return true;
            };
            let skip = position.get() - cut.position.get();
            let count = left.min(cut.count - skip).min(u64::from(u32::MAX));
            if out.room(conn) < 256 {
                return false;
            }
            let ack = AppendAck {
                log: self.config.log,
                segment: self.own_segment(),
                generation,
                session: session_no,
                first_seq: ClientSeq::new(seq),
                count: count as u32,
                ns_epoch: NsEpoch::ZERO,
                first_gsn: ionian_types::Gsn::new(cut.gsn.get() + skip),
                entry: cut.entry,
                first_position: position,
                class,
            };
            if out.send(conn, &ack, &[]).is_err() {
                return false;
            }
            self.counters.acked += count;
            if let Some(session) = self.dedup[own.index()].get_mut(index) {
                session.acked = seq + count;
            }
        }
    }

    /// The segment whose committed length own records wait for.
    #[inline]
    fn waited_for(&self) -> Slot {
        let own = self.config.slot;
        if K::mutant(Mutant::WaiterWithoutSegment) {
            let slots = (0..self.config.replicas).map(Slot::new);
            return slots
                .max_by_key(|slot| self.committed(*slot))
                .unwrap_or(own);
        }
        own
    }

    fn own_run(&self, own: Slot, position: Lsn) -> Option<Run> {
        let is_own = |run: &Run| run.slot == own || !K::mutant(Mutant::WaiterWithoutSegment);
        if let Some(run) = self.last_own_run.filter(is_own)
            && run.position <= position
            && position.get() < run.position.get() + run.count
        {
            return Some(run);
        }
        self.index.by_position(own, position)
    }
}

const fn refusal(error: StoreError) -> RefusalReason {
    match error {
        StoreError::Full | StoreError::DiskFull => RefusalReason::StoreFull,
        StoreError::TooLarge => RefusalReason::Malformed,
        StoreError::NotReady => RefusalReason::NotReady,
        _ => RefusalReason::Device,
    }
}
