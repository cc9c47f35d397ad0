//! A replica without its index, after the cut log dropped the entries that made it: it takes over a peer's applied state.
//!
//! Only a replica that lost its disk, or has an old image of it, needs this: entries are dropped once they are trimmed, or
//! durably applied by every member that is there and by enough; what members that are away miss is kept. Until it has the
//! state it serves nothing: it must not call a record absent that it does not know of. A peer sends its state in parts,
//! taken at one entry; it is checked against the cut log's own snapshot, kept durably as a checkpoint, and only then
//! believed. The entries after it come from the cut log, the records from peers, as ever.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ionian_types::{
    ConnId, EntryNo, Gsn, Knobs, Lsn, Nanos, SEGMENTS_PER_SHARD_MAX, Slot, Time, ViewId,
};
use ionian_wire::crc::crc32c;
use ionian_wire::frame::{ShardSnapshot, StateData, StateRequest};

use super::Replica;
use super::apply::JOURNAL_ADOPTION;
use super::image::Image;
use crate::cutlog::ShardState;
use crate::outbox::Outbox;

#[cfg(test)]
mod tests;

/// Below this much room a part is not worth sending.
const PART_ROOM_MIN: usize = 4096;
/// The pause after a peer's state was too large: only a trim makes it smaller, and to be told costs the peer a whole
/// encoding.
const TOO_LARGE_PAUSE: Nanos = Nanos::from_ms(5_000);

/// What is missing of a stranded replica: the entries up to one that the cut log has dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stranded {
    /// The last of the dropped entries that touched the shard.
    pub entry: EntryNo,
    /// Bytes of a peer's state received so far.
    pub received_bytes: u64,
    /// Bytes of it in all; 0 while no peer has begun to send.
    pub total_bytes: u64,
    /// Bytes of the largest state that is taken over. A peer does not send a larger one; a trim makes it smaller.
    pub bytes_max: u64,
}

/// The way to a peer's state.
#[derive(Debug)]
pub(super) struct Adoption {
    /// What the cut log says of the shard after the dropped entries.
    then: ShardState,
    end_gsn: Gsn,
    stage: Stage,
    peer: Option<Slot>,
    /// The state under way, as its first part described it.
    under_way: Option<StateData>,
    bytes: Vec<u8>,
    /// Bytes of the last state offered, if it was too large.
    too_large: Option<u64>,
    asked_at: Option<Time>,
}

#[derive(Debug)]
enum Stage {
    /// Parts are asked for, one at a time.
    Asking,
    /// All is here and sound, and becomes durable under this number of the journal.
    Keeping(Box<Image>, Option<u64>),
}

/// The state that is being sent to a peer.
#[derive(Debug)]
pub(super) struct Handover {
    applied: EntryNo,
    crc: u32,
    bytes: Vec<u8>,
}

impl<K: Knobs> Replica<K> {
    /// The cut log dropped entries that are needed here, and not everything that they ordered is trimmed.
    pub(super) fn strand(&mut self, now: Time, snapshot: &ShardSnapshot, then: ShardState) {
        // The answer will be the same for a while, unless a trim comes.
        self.catchup.entries_later(now);
        if let Some(adoption) = &mut self.adoption {
            if matches!(adoption.stage, Stage::Asking) {
                (adoption.then, adoption.end_gsn) = (then, snapshot.end_gsn);
            }
            return;
        }
        self.counters.stranded += 1;
        self.adoption = Some(Box::new(Adoption {
            then,
            end_gsn: snapshot.end_gsn,
            stage: Stage::Asking,
            peer: None,
            under_way: None,
            bytes: Vec::new(),
            too_large: None,
            asked_at: None,
        }));
    }

    /// Whether the shard has ended by the state that is to be taken over, if one is.
    pub(super) fn adopts_an_end(&self) -> Option<bool> {
        self.adoption.as_ref().map(|adoption| !adoption.then.open)
    }

    /// Whether the applied state is about to be replaced: nothing else may change it then.
    pub(super) fn is_adopting(&self) -> bool {
        let stage = self.adoption.as_ref().map(|adoption| &adoption.stage);
        matches!(stage, Some(Stage::Keeping(..)))
    }

    /// What is missing, if entries are that the cut log no longer has.
    pub(super) fn stranded(&self) -> Option<Stranded> {
        let adoption = self.adoption.as_ref()?;
        Some(Stranded {
            entry: adoption.then.last,
            received_bytes: adoption.bytes.len() as u64,
            total_bytes: match (adoption.under_way, adoption.too_large) {
                (Some(body), _) => body.total,
                (None, offered) => offered.unwrap_or(0),
            },
            bytes_max: self.store.config().checkpoint_bytes_max,
        })
    }

    pub(super) fn flush_adoption(&mut self, now: Time, out: &mut Outbox) {
        match self.adoption.as_ref().map(|adoption| &adoption.stage) {
            Some(Stage::Asking) => self.ask_for_state(now, out),
            Some(Stage::Keeping(..)) => self.keep_state(now),
            None => {}
        }
    }

    fn ask_for_state(&mut self, now: Time, out: &mut Outbox) {
        let Some(adoption) = &mut self.adoption else {
            return;
        };
        if adoption
            .asked_at
            .is_some_and(|at| now < at.after(self.config.timing.retry))
        {
            return;
        }
        // Another peer when this one does not answer, or is gone.
        let silent = adoption.asked_at.is_some();
        let slots = self.config.replicas;
        let first = adoption
            .peer
            .map_or(0, |slot| slot.get() + u8::from(silent));
        let found = (0..slots)
            .map(|step| Slot::new((first + step) % slots))
            .find_map(|slot| Some((slot, self.peers[slot.index()].conn?)));
        let Some((slot, conn)) = found.filter(|(_, conn)| out.room(*conn) > 0) else {
            return;
        };
        if adoption.peer != Some(slot) {
            adoption.peer = Some(slot);
            adoption.under_way = None;
            adoption.bytes.clear();
        }
        let request = StateRequest {
            shard: self.config.shard,
            need: adoption.then.last,
            applied: adoption
                .under_way
                .map_or(EntryNo::ZERO, |body| body.applied),
            from: adoption.bytes.len() as u64,
        };
        if out.send(conn, &request, &[]).is_ok() {
            adoption.asked_at = Some(now);
        }
    }

    /// A peer needs the state. The newest request counts; `flush` answers it.
    pub(super) fn on_state_request(&mut self, peer: Slot, request: &StateRequest) {
        if request.shard == self.config.shard {
            self.peers[peer.index()].state_request = Some(*request);
        } else {
            self.counters.unexpected += 1;
        }
    }

    pub(super) fn flush_state_answers(&mut self, out: &mut Outbox) {
        for slot in 0..usize::from(self.config.replicas) {
            let Some(request) = self.peers[slot].state_request else {
                continue;
            };
            let Some(conn) = self.peers[slot].conn else {
                continue;
            };
            if out.room(conn) < PART_ROOM_MIN {
                continue;
            }
            self.peers[slot].state_request = None;
            // One that does not know those entries either says nothing; the peer asks again, perhaps another.
            if self.state.is_some() && self.applied >= request.need && self.adoption.is_none() {
                self.answer_state(slot, conn, &request, out);
            }
        }
    }

    #[cold]
    fn answer_state(
        &mut self,
        slot: usize,
        conn: ConnId,
        request: &StateRequest,
        out: &mut Outbox,
    ) {
        let goes_on = self.handovers[slot]
            .as_ref()
            .is_some_and(|handover| request.from > 0 && handover.applied == request.applied);
        if !goes_on {
            let mut bytes = Vec::new();
            self.encode_checkpoint(&mut bytes);
            if bytes.len() as u64 > self.store.config().checkpoint_bytes_max {
                // Its length says why there is nothing else.
                let answer = StateData {
                    shard: self.config.shard,
                    applied: self.applied,
                    crc: 0,
                    total: bytes.len() as u64,
                    from: 0,
                };
                self.counters.states_too_large += 1;
                let _ = out.send(conn, &answer, &[]);
                return;
            }
            self.handovers[slot] = Some(Handover {
                applied: self.applied,
                crc: crc32c(&bytes),
                bytes,
            });
        }
        let Some(handover) = &self.handovers[slot] else {
            return;
        };
        let total = handover.bytes.len();
        let from = if goes_on {
            usize::try_from(request.from).map_or(total, |from| from.min(total))
        } else {
            0
        };
        let part = self
            .config
            .run_bytes_max
            .min(out.room(conn) - PART_ROOM_MIN / 2)
            .min(total - from);
        let answer = StateData {
            shard: self.config.shard,
            applied: handover.applied,
            crc: handover.crc,
            total: total as u64,
            from: from as u64,
        };
        let sent = out.send(conn, &answer, &handover.bytes[from..from + part]);
        if sent.is_ok() && from + part == total {
            self.handovers[slot] = None;
        }
    }

    pub(super) fn on_state_data(&mut self, now: Time, slot: Slot, body: &StateData, part: &[u8]) {
        let bytes_max = self.store.config().checkpoint_bytes_max;
        // Only at D0 is a shard opened anew.
        let flushed = self.store.config().class.is_flushed();
        let opened = self.state.as_ref().map(ShardState::opened_in);
        let Some(adoption) = self.adoption.as_mut().filter(|adoption| {
            matches!(adoption.stage, Stage::Asking)
                && adoption.peer == Some(slot)
                && body.shard == adoption.then.shard
                && body.total > 0
        }) else {
            return;
        };
        if body.total > bytes_max {
            adoption.under_way = None;
            adoption.bytes.clear();
            adoption.too_large = Some(body.total);
            adoption.asked_at = Some(now.after(TOO_LARGE_PAUSE));
            return;
        }
        if body.from == 0 {
            adoption.under_way = Some(*body);
            adoption.too_large = None;
            adoption.bytes.clear();
        }
        let follows = adoption.under_way.is_some_and(|first| {
            (first.applied, first.crc, first.total) == (body.applied, body.crc, body.total)
        }) && body.from == adoption.bytes.len() as u64
            && (part.len() as u64) <= body.total - body.from;
        if !follows || part.is_empty() {
            return;
        }
        adoption.bytes.extend_from_slice(part);
        adoption.asked_at = None;
        if (adoption.bytes.len() as u64) < body.total {
            return;
        }
        let config = &self.config;
        let image = Image::read(&adoption.bytes, config.replicas, config.cuts_ready)
            .ok()
            .filter(|image| {
                crc32c(&adoption.bytes) == body.crc
                    && image.is_sound(config.log, config.shard, config.replicas)
                    && image.agrees(&adoption.then, adoption.end_gsn)
                    && (!flushed || opened.is_none() || image.opened_in() == opened)
            });
        match image {
            Some(image) => adoption.stage = Stage::Keeping(Box::new(image), None),
            None => {
                // Another attempt after a while, perhaps with another peer.
                self.counters.contradictions += 1;
                adoption.under_way = None;
                adoption.bytes.clear();
                adoption.asked_at = Some(now);
            }
        }
    }

    /// The state becomes durable before anything follows from it. What is held here and void in it goes first.
    #[cold]
    fn keep_state(&mut self, now: Time) {
        let Some(mut adoption) = self.adoption.take() else {
            return;
        };
        let Stage::Keeping(image, marker) = adoption.stage else {
            self.adoption = Some(adoption);
            return;
        };
        if marker.is_none() {
            self.drop_void(&image);
        }
        let flushed = self.store.config().class.is_flushed();
        let number = match marker {
            Some(number) => Some(number),
            None if flushed => self.store.journal_append(&[JOURNAL_ADOPTION]).ok(),
            None => None,
        };
        let durable = number.is_some_and(|number| self.store.checkpoint_durable() >= number);
        if !flushed || durable {
            self.adopt_image(*image, now);
            return;
        }
        if let Some(number) = number
            && !self.store.checkpoint_pending()
        {
            // Refused for want of space: asked for again.
            let _refused = self.store.journal_checkpoint(number, &adoption.bytes);
        }
        adoption.stage = Stage::Keeping(image, number);
        self.adoption = Some(adoption);
    }

    /// Whether this life wrote the own segment before the entries that are skipped, and does after them, in one generation.
    fn goes_on_writing(&self, image: &Image) -> bool {
        let own = self.config.slot;
        let then = image
            .state
            .as_ref()
            .and_then(|state| state.segments.get(own.index()));
        self.segment(own).zip(then).is_some_and(|(now, then)| {
            let written_here = now.writer == self.config.inc && then.writer == self.config.inc;
            written_here && now.generation == then.generation
        })
    }

    /// As over a view (ORDERING.md, REPLICA, apply): each segment keeps the longest prefix whose records' generations own
    /// their positions. A generation gives a position one record ever, so what is held beyond the committed length known
    /// so far is what the skipped entries ordered, or may order yet. It was reported: the order counts on it, and no other
    /// good copy need be left.
    ///
    /// The last record held names the generation that was entered last; what lies below was judged then.
    fn drop_void(&mut self, image: &Image) {
        let then = image.state.as_ref();
        if then.is_some_and(|then| self.is_opened_anew(then)) {
            return self.start_anew();
        }
        let then = then.map_or(&[][..], |state| &state.segments);
        for (slot, segment) in then.iter().enumerate() {
            let index = Slot::new(slot as u8);
            let held = self.store.len(index);
            let end = segment.end_of(self.tail_generation[slot]);
            let Some(end) = end.map(|end| end.max(self.store.first(index))) else {
                continue;
            };
            if end >= held {
                continue;
            }
            self.store.truncate(index, end);
            self.unsee(index, end);
            let last = end.get().checked_sub(1).map(Lsn::new);
            self.tail_generation[slot] = last.map_or(ViewId::ZERO, |last| segment.owner(last));
        }
        if !self.goes_on_writing(image) {
            self.waiters.clear();
        }
        self.last_own_run = None;
    }

    fn adopt_image(&mut self, image: Image, now: Time) {
        // The writer knows more of its sessions than a peer does.
        let own = self.config.slot;
        let keeps = self.goes_on_writing(&image).then_some(own);
        self.take_image(image, keeps);
        if keeps.is_some() {
            self.covered(self.committed(own), now);
        }
        self.journaled.clear();
        self.applied_durable = self.applied;
        self.checkpoint_at = self.store.journal_last();
        self.reported = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        self.counters.adoptions += 1;
        self.view_entered(now);
        self.catchup.entries_soon();
    }
}
