//! Room ahead: no record is accepted that a peer has no room for.
//!
//! A record that its primary took and a peer cannot take would be neither: it is never ordered while the peer is full, and
//! not refused either. So each replica tells the writer of each peer's segment how much it takes of it for certain
//! (`Grant`), and the writer refuses, before any effect, what lies beyond the least of these grants or beyond its own room.
//! Where fewer replicas than all must hold a record, the least of the best grants of as many peers as that takes counts, and
//! of peers that are there before others: one that is full, slow or dead holds nobody up, and copies what it missed later. At D2
//! one of these peers is of another failure domain, without which nothing is ordered.
//! A grant never falls within a generation; it rises as records show what they really take, and as trims free space.
//!
//! Both sides count in the store's charge. A grant says what fits beyond a length; the writer keeps marks of what it had
//! charged at which length, coarse ones, so that a grant may count for a little less than it says.

use alloc::collections::VecDeque;

use ionian_store::Charge;
use ionian_types::{ConnId, Durability, Knobs, Lsn, SEGMENTS_PER_SHARD_MAX, Slot, ViewId};
use ionian_wire::frame::{Grant, RefusalReason};

use super::Replica;
use crate::outbox::Outbox;

/// Marks kept; when there are more, every other one goes.
const MARKS_MAX: usize = 1024;
/// Charge between two marks at least, in bytes.
const MARK_EVERY: u64 = 16 << 10;
/// A grant of less is renewed with every record, so that the last bytes are used too.
const SCARCE_BYTES: u64 = 128 << 10;

/// What was told to the writer of a peer's segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    generation: ViewId,
    len: Lsn,
    credit: u64,
    /// What the segment had used, and what nobody had, when it was told.
    taken: u64,
    left: u64,
}

/// How far the own segment may go in its present generation.
#[derive(Debug)]
pub(super) struct Room {
    generation: ViewId,
    charge: Charge,
    /// Charge of what was accepted in this generation, in bytes, and the most that it may come to.
    charged: u64,
    limit: u64,
    /// The own store's part of the limit.
    own: u64,
    /// Lengths with what was charged there, ascending.
    marks: VecDeque<(Lsn, u64)>,
    /// The charge of the run refused last; 0 since one was taken.
    wanted: u64,
}

impl Room {
    pub(super) fn new(charge: Charge) -> Self {
        Self {
            generation: ViewId::ZERO,
            charge,
            charged: 0,
            limit: 0,
            own: 0,
            marks: VecDeque::with_capacity(MARKS_MAX),
            wanted: 0,
        }
    }

    /// Notes that a run of `charge` was accepted, up to `end`.
    #[inline]
    pub(super) fn took(&mut self, charge: u64, end: Lsn) {
        self.charged += charge;
        self.wanted = 0;
        let due = self
            .marks
            .back()
            .is_none_or(|(_, charged)| self.charged - charged >= MARK_EVERY);
        if due {
            self.mark(end);
        }
    }

    #[cold]
    fn mark(&mut self, end: Lsn) {
        if self.marks.len() == MARKS_MAX {
            // Every grant still finds the mark of the generation's start, or one not too far below.
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((end, self.charged));
    }

    /// What was charged, at least, when the segment had the length `len`.
    fn charged_at(&self, len: Lsn) -> Option<u64> {
        let after = self.marks.partition_point(|(end, _)| *end <= len);
        Some(self.marks.get(after.checked_sub(1)?)?.1)
    }

    /// Whether the run refused last would still be.
    pub(super) const fn is_short(&self) -> bool {
        self.wanted > self.limit.saturating_sub(self.charged)
    }
}

impl<K: Knobs> Replica<K> {
    /// A peer says how much it takes of the own segment.
    pub(super) fn on_grant(&mut self, slot: Slot, grant: &Grant) {
        if grant.segment != self.own_segment() {
            self.counters.unexpected += 1;
            return;
        }
        self.peers[slot.index()].grant = Some((grant.generation, grant.len, grant.credit));
        self.settle_room();
    }

    /// The charge of a run for the own segment, if there is room for it everywhere. Effect of a refusal: none.
    #[inline]
    pub(super) fn admit(
        &mut self,
        bytes: usize,
        count: u64,
        generation: ViewId,
    ) -> Result<u64, RefusalReason> {
        let charge = self.room.charge.of(bytes as u64, count);
        let fits = self.room.generation == generation
            && charge <= self.room.limit.saturating_sub(self.room.charged);
        if fits {
            return Ok(charge);
        }
        self.find_room(charge)
    }

    #[cold]
    fn find_room(&mut self, charge: u64) -> Result<u64, RefusalReason> {
        if self.is_refilling() {
            return Err(RefusalReason::NotReady);
        }
        self.settle_room();
        self.extend_own();
        if charge <= self.room.limit.saturating_sub(self.room.charged) {
            return Ok(charge);
        }
        let said = (0..usize::from(self.config.replicas))
            .filter(|slot| *slot != self.config.slot.index())
            .filter(|slot| self.peers[*slot].ceiling.is_some());
        if said.count() < self.peers_needed() {
            return Err(RefusalReason::NotReady);
        }
        self.room.wanted = charge;
        Err(RefusalReason::StoreFull)
    }

    /// Looks again after a refusal: a trim may have made room. For whoever asks whether appends are taken.
    pub(super) fn look_for_room(&mut self) {
        if self.room.wanted > 0 && !self.is_refilling() {
            self.extend_own();
        }
    }

    /// Sets own space aside for what is beyond the present length. Peers' segments come first: what their writers have
    /// accepted on the word of an earlier life has to fit.
    fn extend_own(&mut self) {
        let own = self.config.slot;
        for slot in 0..usize::from(self.config.replicas) {
            if slot != own.index() && self.peers[slot].told.is_none() {
                let _ = self
                    .store
                    .promise(Slot::new(slot as u8), self.config.run_bytes_max);
            }
        }
        let credit = self.store.promise(own, self.config.run_bytes_max);
        self.room.own = self.room.own.max(self.room.charged.saturating_add(credit));
        self.settle_limit();
    }

    /// Takes in what peers have granted in the generation that is open here.
    fn settle_room(&mut self) {
        let own = self.config.slot;
        let Some(segment) = self.segment(own) else {
            return;
        };
        let held = self.store.len(own);
        if segment.writer != self.config.inc || held < segment.opened_at {
            return;
        }
        if self.room.generation != segment.generation {
            self.room.generation = segment.generation;
            self.room.charged = 0;
            self.room.own = 0;
            self.room.marks.clear();
            self.room.marks.push_back((held, 0));
            for peer in &mut self.peers {
                peer.ceiling = None;
            }
        }
        for peer in &mut self.peers[..usize::from(self.config.replicas)] {
            let Some((generation, len, credit)) = peer.grant else {
                continue;
            };
            if generation != self.room.generation {
                continue;
            }
            peer.grant = None;
            // What a peer says to hold beyond the end is not to be believed.
            let charged = if len == held {
                Some(self.room.charged)
            } else {
                self.room.charged_at(len).filter(|_| len < held)
            };
            if let Some(charged) = charged {
                let ceiling = charged.saturating_add(credit);
                peer.ceiling = Some(peer.ceiling.map_or(ceiling, |known| known.max(ceiling)));
            }
        }
        self.settle_limit();
    }

    pub(super) fn settle_limit(&mut self) {
        let own = self.config.slot.index();
        let mut ceilings = [(false, 0); SEGMENTS_PER_SHARD_MAX];
        let replicas = usize::from(self.config.replicas);
        let mut count = 0;
        for slot in (0..replicas).filter(|slot| *slot != own) {
            let peer = &self.peers[slot];
            ceilings[count] = (peer.conn.is_some(), peer.ceiling.unwrap_or(0));
            count += 1;
        }
        ceilings[..count].sort_unstable_by(|a, b| b.cmp(a));
        let elsewhere = self
            .best_elsewhere()
            .map_or(u64::MAX, |(_, ceiling)| ceiling);
        self.room.limit = ceilings[..self.peers_needed().min(count)]
            .iter()
            .fold(self.room.own.min(elsewhere), |limit, (_, ceiling)| {
                limit.min(*ceiling)
            });
    }

    /// At D2: the best grant of a peer in another failure domain, of those that are there before others; whether that one is
    /// there, and its ceiling.
    fn best_elsewhere(&self) -> Option<(bool, u64)> {
        let state = self.state.as_ref();
        let state = state.filter(|state| state.class == Durability::D2)?;
        let own = state.members.get(self.config.slot.index())?.domain;
        let peers = state.members.iter().zip(&self.peers);
        let elsewhere = peers.filter(|(member, _)| member.domain != own);
        elsewhere
            .map(|(_, peer)| (peer.conn.is_some(), peer.ceiling.unwrap_or(0)))
            .max()
    }

    /// Of how many peers the promise is needed: with this replica they are as many as must hold a record.
    fn peers_needed(&self) -> usize {
        let quorum = self.state.as_ref().map(|state| state.quorum);
        usize::from(quorum.unwrap_or(self.config.replicas)).saturating_sub(1)
    }

    /// Whether every record known to be committed is held, or comes from its writer. Until then all space is for these.
    fn is_whole(&self) -> bool {
        !self.is_adopting()
            && self.state.as_ref().is_some_and(|state| {
                state.segments.iter().enumerate().all(|(slot, segment)| {
                    let slot = Slot::new(slot as u8);
                    self.store.len(slot) >= segment.len || !self.must_copy(slot)
                })
            })
    }

    /// Whether a peer is giving back what is missing here.
    fn is_refilling(&self) -> bool {
        self.peers.iter().any(|peer| peer.conn.is_some()) && !self.is_whole()
    }

    /// Tells a writer how much of its segment is taken, if that is news.
    pub(super) fn flush_grant(&mut self, slot: usize, conn: ConnId, out: &mut Outbox) {
        let index = Slot::new(slot as u8);
        let Some(segment) = self.segment(index) else {
            return;
        };
        let (generation, opened_at) = (segment.generation, segment.opened_at);
        let len = self.store.len(index);
        let taken = self.store.taken(index);
        let left = self.store.space_left();
        let told = self.peers[slot]
            .told
            .filter(|told| told.generation == generation);
        if let Some(told) = told {
            // A run is charged at most 44 times what it takes, on a device; elsewhere at most twice.
            let step = if self.store.config().class.is_flushed() {
                told.credit >> 6
            } else {
                told.credit >> 3
            };
            let used = taken.saturating_sub(told.taken);
            let news =
                used > step || told.left != left || told.credit < SCARCE_BYTES && told.len != len;
            if !news {
                return;
            }
        }
        let ready = generation != ViewId::ZERO
            && len >= opened_at
            && segment.writer == self.peers[slot].inc
            && self.is_member()
            && out.room(conn) > 0
            && self.is_whole();
        if !ready {
            return;
        }
        let credit = self.store.promise(index, self.config.run_bytes_max);
        if let Some(told) = &mut self.peers[slot].told
            && told.generation == generation
        {
            let used = taken.saturating_sub(told.taken);
            let raised = credit.saturating_add(used).saturating_sub(told.credit);
            if used <= told.credit >> 6 && raised <= told.credit >> 3 && told.credit >= SCARCE_BYTES
            {
                told.left = left;
                return;
            }
        }
        let grant = Grant {
            segment: ionian_types::SegmentId {
                shard: self.config.shard,
                slot: index,
            },
            generation,
            len,
            credit,
        };
        if out.send(conn, &grant, &[]).is_ok() {
            self.peers[slot].told = Some(Told {
                generation,
                len,
                credit,
                taken,
                left: self.store.space_left(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ionian_store::{Store, StoreConfig};
    use ionian_types::{ClusterId, Durability, EntryNo, Inc, LogId, Nanos, NodeId, ShardId, Time};
    use ionian_wire::frame::Member;

    use super::*;
    use crate::cutlog::{SegmentState, ShardState};
    use crate::replica::ReplicaConfig;

    const LOG: LogId = LogId::new(1);
    const SHARD: ShardId = ShardId::new(0);

    /// The replica in slot 0 of a shard of three, of which `quorum` must hold a record. Each segment has 10 committed.
    fn of_three(quorum: u8) -> Replica {
        let (cluster, node) = (ClusterId::new(7), NodeId::new(1));
        let store = StoreConfig::new(cluster, node, LOG, SHARD, 3, Durability::D0);
        let config = ReplicaConfig::new(cluster, node, Inc::new(5), LOG, SHARD, Slot::ZERO, 3);
        let mut replica = Replica::new(config, Store::new(store), Time::ZERO);
        let inc = |slot: u8| Inc::new(5 + u64::from(slot));
        let members = [0, 1, 2].map(|slot| Member {
            node: NodeId::new(1 + u32::from(slot)),
            inc: inc(slot),
            domain: 0,
        });
        let segments = [0, 1, 2].map(|slot| SegmentState {
            generation: ViewId::new(1),
            opened_at: Lsn::ZERO,
            writer: inc(slot),
            len: Lsn::new(10),
            closed: vec![],
        });
        replica.state = Some(ShardState {
            shard: SHARD,
            log: LOG,
            rank: 0,
            epoch: ViewId::new(1),
            last: EntryNo::new(2),
            class: Durability::D0,
            quorum,
            open: true,
            members: members.to_vec(),
            joint: vec![],
            segments: segments.to_vec(),
        });
        for slot in 1..3u8 {
            replica.peers[usize::from(slot)].inc = inc(slot);
        }
        replica.room.own = 1000;
        replica
    }

    #[test]
    fn a_peer_that_is_full_or_gone_holds_nobody_up_where_others_are_enough() {
        for (quorum, limit) in [(3, 300), (2, 700)] {
            let mut replica = of_three(quorum);
            for (slot, ceiling) in [(1, 300), (2, 700)] {
                replica.peers[slot].conn = Some(ConnId::new(slot as u32));
                replica.peers[slot].ceiling = Some(ceiling);
            }
            replica.settle_limit();
            assert_eq!(replica.room.limit, limit, "of {quorum}");
            // What the one that is there takes counts, not what the other one took before it went.
            replica.peers[2].conn = None;
            replica.settle_limit();
            assert_eq!(replica.room.limit, 300, "of {quorum}");
        }
        let mut replica = of_three(2);
        replica.peers[1].ceiling = Some(2000);
        replica.settle_limit();
        assert_eq!(replica.room.limit, 1000, "the own room");
    }

    /// Two of the same failure domain took what the third one had no room for: at D2 it was never ordered, and not refused.
    #[test]
    fn at_d2_room_in_another_domain_counts() {
        let mut replica = of_three(2);
        for (slot, ceiling) in [(1, 700), (2, 300)] {
            replica.peers[slot].conn = Some(ConnId::new(slot as u32));
            replica.peers[slot].ceiling = Some(ceiling);
        }
        let domains = |replica: &mut Replica, class, of: [u32; 3]| {
            let state = replica.state.as_mut().expect("a state");
            state.class = class;
            for (member, domain) in state.members.iter_mut().zip(of) {
                member.domain = domain;
            }
            replica.settle_limit();
            replica.room.limit
        };
        assert_eq!(domains(&mut replica, Durability::D1, [0, 0, 1]), 700);
        assert_eq!(domains(&mut replica, Durability::D2, [0, 0, 1]), 300);
        assert_eq!(domains(&mut replica, Durability::D2, [0, 1, 2]), 700);
        replica.peers[1].conn = None;
        assert_eq!(domains(&mut replica, Durability::D2, [0, 1, 2]), 300);
    }

    /// What a peer said long ago to hold came late, and what follows that is trimmed by now: it has more since, or steps over it.
    #[test]
    fn a_stream_begins_where_records_are_left() {
        let mut replica = of_three(2);
        for slot in [0, 1] {
            // Records of before, as a restart finds them.
            replica.store.trim(Slot::new(slot), Lsn::new(10));
        }
        let have = ionian_wire::frame::Have {
            segment: replica.own_segment(),
            generation: ViewId::new(1),
            len: Lsn::new(4),
        };
        replica.peers[1].conn = Some(ConnId::new(1));
        replica.on_have(Slot::new(1), &have);
        let mut out = Outbox::new(crate::outbox::OutboxLimits::default());
        out.set_room(ConnId::new(1), 1 << 20);
        replica.flush_replication(&mut out);
        assert_eq!(replica.peers[1].sent, Lsn::new(10));
    }

    /// Where all must hold a record, what is missing was lost and is copied. Where two of three are enough, others are ahead at
    /// any time; what the writer is sending need not be copied, unless it does not come.
    #[test]
    fn what_the_writer_sends_is_not_copied_while_it_comes() {
        assert!(of_three(3).must_copy(Slot::new(1)));
        let mut replica = of_three(2);
        assert!(replica.must_copy(Slot::new(1)), "its writer is not there");
        replica.peers[1].conn = Some(ConnId::new(1));
        assert!(!replica.must_copy(Slot::new(1)));
        assert!(replica.must_copy(Slot::ZERO), "the own segment");
        let (now, gap) = (Time::from_ns(1_000), replica.config.timing.gap);
        let mut out = Outbox::new(crate::outbox::OutboxLimits::default());
        replica.flush_catchup(now, &mut out);
        replica.flush_catchup(now.after(Nanos(gap.0 - 1)), &mut out);
        assert!(!replica.must_copy(Slot::new(1)), "not for long enough");
        replica.flush_catchup(now.after(gap), &mut out);
        assert!(replica.must_copy(Slot::new(1)), "nothing has come");
        // A generation that begins beyond what is held: the stream begins there.
        let mut replica = of_three(2);
        replica.peers[1].conn = Some(ConnId::new(1));
        if let Some(state) = &mut replica.state {
            state.segments[1].opened_at = Lsn::new(4);
        }
        assert!(replica.must_copy(Slot::new(1)));
    }
}
