//! What became of a record, and closing a session (ORDERING.md 3.2). `never` is a promise about the future: it is given by
//! the live primary of an open generation after the session is closed, or by a replica that has applied the close of the
//! generation and holds or has indexed the whole prefix to the close.

use ionian_types::{ClientSeq, ConnId, EntryNo, Gsn, Knobs, Lsn, Mutant};
use ionian_wire::frame::{CloseSession, Fate, FateAnswer, FateOutcome, SessionClosed};

use super::Replica;
use crate::outbox::Outbox;

impl<K: Knobs> Replica<K> {
    pub(super) fn on_fate(&mut self, conn: ConnId, fate: &Fate, out: &mut Outbox) {
        let mut answer = FateAnswer {
            segment: fate.segment,
            generation: fate.generation,
            session: fate.session,
            seq: fate.seq,
            outcome: FateOutcome::Unknown,
            gsn: Gsn::ZERO,
            entry: EntryNo::ZERO,
            position: Lsn::ZERO,
        };
        self.decide_fate(fate, &mut answer);
        let _ = out.send(conn, &answer, &[]);
    }

    fn decide_fate(&self, fate: &Fate, answer: &mut FateAnswer) {
        let slot = fate.segment.slot;
        let Some(state) = self
            .state
            .as_ref()
            .filter(|_| fate.segment.shard == self.config.shard)
        else {
            return;
        };
        let Some(segment) = state.segments.get(slot.index()) else {
            return;
        };
        let dedup = &self.dedup[slot.index()];
        let session = dedup
            .find(fate.client, fate.session)
            .and_then(|index| dedup.get(index));
        if let Some(position) = session.and_then(|session| session.position(fate.seq.get())) {
            if position < segment.len {
                if let Some(run) = self.index.by_position(slot, position) {
                    answer.outcome = FateOutcome::Ordered;
                    answer.gsn = Gsn::new(run.gsn.get() + (position.get() - run.position.get()));
                    answer.entry = run.entry;
                    answer.position = position;
                }
            } else {
                answer.outcome = FateOutcome::Pending;
            }
            return;
        }
        let forgotten = session.is_some_and(|session| fate.seq.get() < session.floor);
        if forgotten {
            return;
        }
        if segment.is_open_in(fate.generation) {
            let own = slot == self.config.slot && segment.writer == self.config.inc;
            let closed = session
                .is_some_and(|session| session.tombstone && session.generation == fate.generation);
            if own && closed || K::mutant(Mutant::NeverWhileOpen) {
                answer.outcome = FateOutcome::Never;
            }
            return;
        }
        let Some(span) = segment.closed_span(fate.generation) else {
            // Nobody knows any more what an earlier opening of the shard took.
            if fate.generation < state.opened_in() {
                answer.outcome = FateOutcome::Lost;
            }
            return;
        };
        // The set must have seen every record of the generation: those held now, and those trimmed after they were seen.
        let indexed =
            self.store.len(slot) >= span.close && self.dedup_covers(slot, span.open, span.close);
        let whole = indexed || K::mutant(Mutant::NeverFromLaggingCopy);
        if whole && !dedup.may_have_forgotten(span.open) {
            answer.outcome = FateOutcome::Never;
        }
    }

    /// Whether the dedup set of a segment saw every record from `from` to `to`.
    fn dedup_covers(&self, slot: ionian_types::Slot, from: Lsn, to: Lsn) -> bool {
        self.dedup_from[slot.index()] <= from && self.dedup_upto[slot.index()] >= to
    }

    pub(super) fn on_close_session(
        &mut self,
        conn: ConnId,
        close: &CloseSession,
        out: &mut Outbox,
    ) {
        let own = self.config.slot;
        let mut answer = SessionClosed {
            segment: close.segment,
            generation: close.generation,
            session: close.session,
            next_seq: ClientSeq::ZERO,
            known: false,
        };
        let primary = close.segment == self.own_segment()
            && self.is_member()
            && self.state.as_ref().is_some_and(|state| {
                let segment = &state.segments[own.index()];
                let dedup = &self.dedup[own.index()];
                let may_answer = dedup.find(close.client, close.session).is_some()
                    || !dedup.may_have_forgotten(segment.opened_at);
                segment.is_open_in(close.generation)
                    && segment.writer == self.config.inc
                    && may_answer
            });
        if primary
            && let Some(index) =
                self.dedup[own.index()].open(close.client, close.session, close.generation)
            && let Some(session) = self.dedup[own.index()].get_mut(index)
        {
            session.tombstone = !K::mutant(Mutant::NoTombstone);
            answer.next_seq = ClientSeq::new(session.next_seq);
            answer.known = true;
        }
        let _ = out.send(conn, &answer, &[]);
    }
}
