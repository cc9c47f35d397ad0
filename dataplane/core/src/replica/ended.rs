//! After the end of a shard: its leaf does not speak of it any more, so each replica says to the controllers itself that it holds
//! every record. One that has lost its records, or is to take the place of another one, counts from that word on.

use ionian_types::{ConnId, Knobs, Slot, Time};
use ionian_wire::frame::{Hello, ShardStatus};

use super::{Kind, Replica};
use crate::outbox::Outbox;

/// The way to the controllers.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Desk {
    conn: Option<ConnId>,
    /// When they were told last on this connection.
    told_at: Option<Time>,
}

impl<K: Knobs> Replica<K> {
    /// The controllers have said hello on the connection that the edge has opened to them. Who else says to be one is not
    /// believed.
    pub fn governed(&mut self, conn: ConnId) {
        self.set_kind(conn, Kind::Controller);
        self.desk = Desk {
            conn: Some(conn),
            told_at: None,
        };
    }

    /// A connection to the controllers is gone.
    pub(super) fn not_governed(&mut self, conn: ConnId) {
        if self.desk.conn == Some(conn) {
            self.desk = Desk::default();
        }
    }

    /// Whether the shard has ended, as far as is known: by what was applied, or by what the cut log says to one that must first
    /// take over the state of a peer.
    pub(super) fn has_ended(&self) -> bool {
        let applied = || self.state.as_ref().is_some_and(|state| !state.open);
        self.adopts_an_end().unwrap_or_else(applied)
    }

    /// Where another replica belongs among the peers; `None` if it is none of them.
    ///
    /// Of a shard that has ended, two lives of one replica may be there: the one that serves, and one that copies to take over
    /// from it. Nothing that either holds is void, and each may have what others miss. So the second one has the seat that the
    /// own slot leaves free, and so have the two of one slot at each other's.
    pub(super) fn seat_of(&self, hello: &Hello) -> Option<Slot> {
        let (slot, own) = (hello.slot, self.config.slot);
        if hello.shard != self.config.shard || slot.index() >= usize::from(self.config.replicas) {
            return None;
        }
        let ended = self.has_ended();
        if slot == own {
            let earlier = self.state.is_none() && hello.inc < self.config.inc;
            return (ended && hello.inc != self.config.inc || earlier).then_some(own);
        }
        let peer = &self.peers[slot.index()];
        let taken = peer.conn.is_some() && peer.inc != hello.inc;
        Some(if ended && taken { own } else { slot })
    }

    /// Whether every record of the shard, which has ended, is held here at the class of the log, with all that was applied: a
    /// restart would find it.
    fn keeps_everything(&self) -> bool {
        let mut slots = (0..self.config.replicas).map(Slot::new);
        self.has_ended()
            && self.adoption.is_none()
            && self.applied_durable >= self.applied
            && slots.all(|slot| self.store.durable_len(slot) >= self.committed(slot))
            && !self.is_damaged()
    }

    /// Tells the controllers that everything is held; again now and then, since they may not have known yet that the shard has
    /// ended.
    pub(super) fn flush_desk(&mut self, now: Time, out: &mut Outbox) {
        let Some(conn) = self.desk.conn.filter(|_| self.has_ended()) else {
            return;
        };
        let again = |at: Time| now >= at.after(self.config.timing.quiet);
        let Some(state) = self.state.as_ref() else {
            return;
        };
        if !self.desk.told_at.is_none_or(again) || out.room(conn) == 0 || !self.keeps_everything() {
            return;
        }
        let status = ShardStatus {
            log: self.config.log,
            shard: self.config.shard,
            epoch: state.epoch,
            whole: true,
            ready: false,
            regressed: 0,
            held: 1u8
                .checked_shl(u32::from(self.config.slot.get()))
                .unwrap_or(0),
            slowest: self.config.slot.get(),
            members: state.segments.len() as u8,
        };
        if out.send(conn, &status, &[]).is_ok() {
            self.desk.told_at = Some(now);
        }
    }

    /// When [`Self::flush_desk`] is to be looked at again.
    pub(super) fn desk_deadline(&self) -> Time {
        match (self.desk.conn, self.desk.told_at) {
            (Some(_), Some(at)) if self.has_ended() => at.after(self.config.timing.quiet),
            // What is missing comes, and becomes durable.
            (Some(_), None) if self.has_ended() => self.flushed_at.after(self.config.timing.retry),
            _ => Time::FAR,
        }
    }
}
