//! What arrives: messages, writes, and what the peer's fabric says.

use ionian_driver_api::{
    Buf, BufPool, CloseReason, FabricEvent, FabricEvents, RegionKey, RegionRange,
};

use super::VerbsFabric;
use super::conn::{PeerRegion, State};
use crate::api::{Completion, Done, DoneKind, Status, VerbsApi};
use crate::control::{CONTROL_BYTES_MAX, Control, Immediate};

/// What becomes of a received slot.
enum Use {
    /// It is posted again; perhaps there is an event.
    Again(Buf, Option<FabricEvent>),
    /// It is a message.
    Message(FabricEvent),
    /// No correct peer sends this.
    Wrong(Buf),
}

impl<V: VerbsApi> VerbsFabric<V> {
    /// Handles receive completions until there is none or `events` is full: each makes one event at most.
    pub(super) fn poll_receives(&mut self, pool: &mut BufPool, events: &mut FabricEvents) {
        while !events.is_full() {
            if self.recv_at == self.recv_len && !self.fetch_receives() {
                return;
            }
            let completion = self.recv_completions[self.recv_at];
            self.recv_at += 1;
            if let Some(event) = self.received(pool, completion)
                && events.push(event).is_err()
            {
                unreachable!("room was checked");
            }
        }
    }

    /// Takes more receive completions; `false` if there is none.
    pub(super) fn fetch_receives(&mut self) -> bool {
        let Some(queues) = self.queues else {
            return false;
        };
        match self.api.poll_cq(queues.recv_cq, &mut self.recv_completions) {
            Ok(count) => {
                (self.recv_at, self.recv_len) = (0, count);
                self.recv_empties += u64::from(count == 0);
                count > 0
            }
            Err(_) => {
                self.remake();
                false
            }
        }
    }

    fn received(&mut self, pool: &mut BufPool, completion: Completion) -> Option<FabricEvent> {
        let buf = self.recvs.take(completion.wr_id)?;
        let Some(place) = self.place_of_qp(completion.qp_num) else {
            self.recvs.spare += 1;
            self.recvs.again.push(buf);
            return None;
        };
        let done = match completion.result {
            Ok(done) => done,
            Err(status) => {
                self.counts.flushed += u64::from(status == Status::Flushed);
                self.recvs.spare += 1;
                self.recvs.again.push(buf);
                self.fault(
                    place,
                    match status {
                        Status::RemoteAccess => CloseReason::Protocol,
                        _ => CloseReason::Broken,
                    },
                );
                return None;
            }
        };
        if self.conns[place].state != State::Live {
            self.counts.late += 1;
            self.recvs.spare += 1;
            self.recvs.again.push(buf);
            return None;
        }
        match self.understand(pool, place, buf, done) {
            Use::Message(event) => {
                self.counts.messages_received += 1;
                Some(event)
            }
            Use::Again(buf, event) => {
                self.recvs.again.push(buf);
                event
            }
            Use::Wrong(buf) => {
                self.recvs.spare += 1;
                self.recvs.again.push(buf);
                self.fault(place, CloseReason::Protocol);
                None
            }
        }
    }

    fn understand(&mut self, pool: &mut BufPool, place: usize, mut buf: Buf, done: Done) -> Use {
        let Some(immediate) = done.immediate.and_then(Immediate::decode) else {
            return Use::Wrong(buf);
        };
        let bytes = done.bytes as usize;
        match (done.kind, immediate) {
            (DoneKind::Received, Immediate::Message { credits }) => {
                if bytes > self.options.message_bytes_max as usize
                    || !self.credit(place, credits)
                    || !self.debit(place)
                {
                    return Use::Wrong(buf);
                }
                pool.set_len(&mut buf, bytes);
                let conn = self.conns[place].id(place, self.conns.len());
                Use::Message(FabricEvent::Received { conn, buf })
            }
            (DoneKind::Received, Immediate::Credits { credits }) => {
                if credits == 0 || bytes != 0 || !self.credit(place, credits) {
                    return Use::Wrong(buf);
                }
                self.recvs.spare += 1;
                Use::Again(buf, None)
            }
            (DoneKind::Received, Immediate::Control { credits }) => {
                if bytes > CONTROL_BYTES_MAX || !self.credit(place, credits) {
                    return Use::Wrong(buf);
                }
                // Copied out once and looked at afterwards. The device is done with the slot: its completion was polled.
                pool.set_len(&mut buf, bytes);
                let mut frame = [0; CONTROL_BYTES_MAX];
                frame[..bytes].copy_from_slice(pool.bytes(&buf));
                self.counts.headers_copied += 1;
                match Control::decode(&frame[..bytes]) {
                    Some(Control::Bye) => {
                        self.recvs.spare += 1;
                        self.end(place, CloseReason::PeerGone);
                        Use::Again(buf, None)
                    }
                    Some(control) if self.debit(place) => match self.obey(place, control) {
                        Ok(event) => Use::Again(buf, event),
                        Err(()) => {
                            self.conns[place].debt -= 1;
                            Use::Wrong(buf)
                        }
                    },
                    _ => Use::Wrong(buf),
                }
            }
            (DoneKind::Written, Immediate::Written { region, number }) => {
                if !self.debit(place) {
                    return Use::Wrong(buf);
                }
                match self.regions.landed(self.conn_id(place), region, done.bytes) {
                    Some((key, range)) => {
                        let event = self.delivered(place, key, range, u32::from(number));
                        Use::Again(buf, Some(event))
                    }
                    None => {
                        self.conns[place].debt -= 1;
                        Use::Wrong(buf)
                    }
                }
            }
            _ => Use::Wrong(buf),
        }
    }

    /// What the peer's fabric says.
    fn obey(&mut self, place: usize, control: Control) -> Result<Option<FabricEvent>, ()> {
        match control {
            Control::Region {
                key,
                range,
                address,
                rkey,
            } => {
                let regions = &mut self.conns[place].peer_regions;
                *regions.get_mut(key.region as usize).ok_or(())? = Some(PeerRegion {
                    key,
                    range,
                    address,
                    rkey,
                });
                Ok(None)
            }
            Control::Written {
                key,
                range,
                immediate,
            } => {
                if !self.regions.permits(self.conn_id(place), key, range) {
                    return Err(());
                }
                Ok(Some(self.delivered(place, key, range, immediate)))
            }
            Control::Refused { .. } | Control::Bye => Err(()),
        }
    }

    fn delivered(
        &mut self,
        place: usize,
        key: RegionKey,
        range: RegionRange,
        immediate: u32,
    ) -> FabricEvent {
        self.counts.writes_delivered += 1;
        FabricEvent::Delivered {
            conn: self.conn_id(place),
            key,
            range,
            immediate,
        }
    }

    /// The peer gives credits back. `false` if it gives more than it had.
    fn credit(&mut self, place: usize, credits: u32) -> bool {
        let conn = &mut self.conns[place];
        conn.credits += credits;
        conn.credits <= conn.credits_max
    }

    /// The peer has used one receive. `false` if it has no credit for it.
    fn debit(&mut self, place: usize) -> bool {
        let conn = &mut self.conns[place];
        if conn.debt + conn.owed >= self.options.credits {
            return false;
        }
        conn.debt += 1;
        true
    }
}
