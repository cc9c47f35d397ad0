//! What connections do: open, carry, break.

use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_core::session::{SessionState, Take};
use ionian_types::{ConnId, Knobs, Time};

use crate::invariant::Invariant;
use crate::net::{Link, LinkEnd};
use crate::plan::Network;
use crate::process::{End, Peer, ProcId, place_of};
use crate::tree_faults::Fate;
use crate::weather::{Passage, Way};
use crate::world::{Event, World};

/// Messages that a receiver of the datagram network keeps before it tells the session to wait.
const INBOX_MAX: usize = 8;

impl<K: Knobs> World<K> {
    /// Opens a connection, if the other side is there.
    pub(crate) fn dial(&mut self, proc: ProcId, peer: Peer) {
        let process = &self.procs[proc];
        if !process.alive || !matches!(process.dials.get(&peer), Some(None)) {
            return;
        }
        let from = process.place;
        let to = place_of(from, peer, self.leader);
        let connects = self
            .weather
            .connects(self.now, (from, to), &mut self.faults);
        let found = self.live(to).filter(|other| {
            connects && *other != proc && self.procs[*other].paused_until <= self.now
        });
        let Some(other) = found else {
            let pause = self.rng_net.range(2_000_000, 15_000_000);
            return self.after(pause, Event::Dial(proc, peer));
        };
        let link = self.links.len();
        let ends = [proc, other].map(|proc| LinkEnd {
            proc,
            conn: ConnId::ZERO,
            open: true,
        });
        self.links.push(Link::new(ends, self.plan.buffer_bytes));
        if self.plan.network == Network::Datagram {
            let now = ends.map(|end| self.local(end.proc));
            self.links[link].with_sessions(link as u64 + 1, now);
        }
        for side in [1, 0] {
            let owner = self.links[link].ends[side].proc;
            let conn = self.procs[owner].open_conn(End { link, side });
            self.links[link].ends[side].conn = conn;
        }
        let conn = self.links[link].ends[0].conn;
        self.procs[proc].dials.insert(peer, Some(conn));
        self.procs[proc].peer_of.insert(conn, peer);
        self.opened(other, self.links[link].ends[1].conn, None);
        self.opened(proc, conn, Some(peer));
    }

    /// From where to where a direction of a link leads.
    pub(crate) fn way(&self, link: usize, side: usize) -> Way {
        let [from, to] = [side, 1 - side].map(|side| self.links[link].ends[side].proc);
        (self.procs[from].place, self.procs[to].place)
    }

    /// What happens to a message that the end `side` sends now.
    fn passage(&mut self, link: usize, side: usize) -> Passage {
        let way = self.way(link, side);
        self.weather
            .pass(self.now, way, &mut self.rng_net, &mut self.faults)
    }

    /// A process sends a message on a connection.
    pub(crate) fn send(&mut self, proc: ProcId, conn: ConnId, bytes: Vec<u8>) {
        let Some(End { link, side }) = self.procs[proc].end(conn) else {
            return;
        };
        self.note_speech(proc);
        let mut hash = bytes.len() as u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash.rotate_left(7) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self.mix(hash);
        if self.trace {
            self.print_message(link, side, &bytes);
        }
        match self.tree_fate(link, side, &bytes) {
            Fate::Goes => {}
            Fate::Breaks => return self.break_link(link),
            Fate::Overwritten => return,
            Fate::Twice => self.carry(link, side, bytes.clone()),
            Fate::Then(before) => {
                self.carry(link, side, bytes);
                return self.carry(link, side, before);
            }
        }
        self.carry(link, side, bytes);
    }

    /// A message is on its way.
    fn carry(&mut self, link: usize, side: usize, bytes: Vec<u8>) {
        if let Some(sessions) = &mut self.links[link].sessions {
            if sessions[side].push(&[&bytes]).is_ok() {
                self.transmit(link, side);
            } else if sessions[side].state() == SessionState::Open {
                self.history.fail(Invariant::M1, || {
                    "a message was sent beyond the room of its session".into()
                });
            }
            return;
        }
        if !self.links[link].works {
            return;
        }
        let passage = self.passage(link, side);
        let delay = passage.delay_ns + self.rng_net.range(5_000, 40_000);
        let direction = &mut self.links[link].dirs[side];
        if passage.lost || direction.dead {
            if !core::mem::replace(&mut direction.dead, true) {
                let after = self.rng_net.pick(&[100_000, 5_000_000, 60_000_000]);
                let after = self.rng_net.below(after);
                self.after(after, Event::Break(link));
            }
            return;
        }
        let at = direction
            .last_at
            .max(direction.held_until)
            .max(passage.not_before)
            .max(Time::from_ns(self.now.as_ns() + delay));
        direction.last_at = at;
        direction.bytes += bytes.len();
        direction.queue.push_back((at, bytes));
        self.at(at, Event::Arrive(link, side));
    }

    /// Hands over what has arrived in one direction, as long as the receiver has room for an answer.
    pub(crate) fn pump(&mut self, link: usize, side: usize) {
        loop {
            let receiver = self.links[link].ends[1 - side];
            let process = &self.procs[receiver.proc];
            if !receiver.open || !process.alive || process.paused_until > self.now {
                return;
            }
            let gate = self.links[link].takes_answer(1 - side);
            let now = self.now;
            let direction = &mut self.links[link].dirs[side];
            if direction.queue.front().is_none_or(|(at, _)| *at > now) {
                break;
            }
            direction.stalled = !gate;
            if !gate {
                return;
            }
            let Some((_, bytes)) = direction.queue.pop_front() else {
                break;
            };
            direction.bytes -= bytes.len().min(direction.bytes);
            // Machines send what is cumulative only while there is some room: they run again when it comes.
            let low = REPLY_BYTES_MAX + (self.links[link].buffer_bytes / 2).max(16 << 10);
            let tight = self.links[link].room(side) < low;
            self.note_late(link, side);
            self.deliver(receiver.proc, receiver.conn, &bytes);
            self.room_came(link, side, tight);
            if self.history.failure.is_some() {
                return;
            }
        }
        if let Some(sessions) = &self.links[link].sessions
            && sessions[1 - side].has_held()
        {
            self.resume_session(link, 1 - side);
        }
    }

    /// The end `side` may send again: what it left unsent, and answers to what waits for it.
    fn room_came(&mut self, link: usize, side: usize, tight: bool) {
        let sender = self.links[link].ends[side];
        if tight && sender.open {
            self.flush_soon(sender.proc);
        }
        if self.links[link].dirs[1 - side].stalled && self.links[link].takes_answer(side) {
            self.links[link].dirs[1 - side].stalled = false;
            self.after(0, Event::Arrive(link, 1 - side));
        }
    }

    /// A link breaks: each end learns of it in its own time.
    pub(crate) fn break_link(&mut self, link: usize) {
        if !core::mem::replace(&mut self.links[link].works, false) {
            return;
        }
        for side in 0..2 {
            // Nothing more goes in. What is in flight is lost from some point on; the rest may still arrive, even after its
            // sender has opened another connection, until the receiver learns of the end.
            let flying = self.links[link].dirs[side].queue.len() as u64;
            let kept = self.rng_net.below(2 * flying + 1).min(flying);
            self.links[link].dirs[side].queue.truncate(kept as usize);
            let after = self.rng_net.pick(&[100_000, 1_000_000, 20_000_000]);
            let after = self.rng_net.below(after);
            if self.links[link].sessions.is_none() {
                self.after(after, Event::Closed(link, side));
            }
        }
        let side = self.rng_net.below(2) as usize;
        let now = self.local(self.links[link].ends[side].proc);
        if let Some(sessions) = &mut self.links[link].sessions {
            // One end closes its session; the other hears of it, or finds out by silence.
            sessions[side].close(now);
            self.transmit(link, side);
            self.after(0, Event::Closed(link, side));
        }
    }

    /// A process learns that its end of a link is gone.
    pub(crate) fn closed(&mut self, link: usize, side: usize) {
        let end = self.links[link].ends[side];
        if !core::mem::replace(&mut self.links[link].ends[side].open, false)
            || !self.procs[end.proc].alive
        {
            return;
        }
        self.given_up.push(link);
        let process = &mut self.procs[end.proc];
        process.conns[end.conn.index()] = None;
        let peer = process.peer_of.remove(&end.conn);
        self.lost(end.proc, end.conn, peer);
        if let Some(peer) = peer
            && let Some(dialled) = self.procs[end.proc].dials.get_mut(&peer)
        {
            *dialled = None;
            let pause = self.rng_net.range(100_000, 10_000_000);
            self.after(pause, Event::Dial(end.proc, peer));
        }
    }

    /// A process closes a connection itself.
    pub(crate) fn hang_up(&mut self, proc: ProcId, conn: ConnId) {
        if let Some(End { link, side }) = self.procs[proc].end(conn) {
            self.break_link(link);
            self.after(0, Event::Closed(link, side));
        }
    }

    /// Sends what the session of an end has to send, with whatever the network does to it.
    pub(crate) fn transmit(&mut self, link: usize, side: usize) {
        let mut buffer = [0u8; 2048];
        loop {
            let now = self.local(self.links[link].ends[side].proc);
            let Some(sessions) = &mut self.links[link].sessions else {
                return;
            };
            let Some(len) = sessions[side].poll_transmit(now, &mut buffer) else {
                break;
            };
            let mut bytes = buffer[..len].to_vec();
            self.keep_old(link, side, &bytes);
            let passage = self.passage(link, side);
            if passage.lost {
                continue;
            }
            if passage.damaged {
                let at = self.rng_net.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.rng_net.below(8);
            }
            for _ in 0..passage.copies {
                let late = self.rng_net.below(passage.late_ns + 1);
                let delay = late + passage.delay_ns + self.rng_net.range(5_000, 40_000);
                let at = Time::from_ns(self.now.as_ns().max(passage.not_before.as_ns()) + delay);
                self.at(at, Event::Datagram(link, side, bytes.clone()));
            }
        }
        let Some(sessions) = &self.links[link].sessions else {
            return;
        };
        let at = sessions[side].next_deadline();
        if at != Time::FAR && at != self.links[link].timers[side] {
            self.links[link].timers[side] = at;
            let proc = self.links[link].ends[side].proc;
            let at = self.procs[proc].clock.when(at);
            self.at(at, Event::Session(link, side));
        }
    }

    /// A datagram of the end `side` reaches the other.
    pub(crate) fn datagram(&mut self, link: usize, side: usize, bytes: &[u8]) {
        let receiver = self.links[link].ends[1 - side];
        if !receiver.open || !self.procs[receiver.proc].alive {
            return;
        }
        let (arrived, now) = (self.now, self.local(receiver.proc));
        let Link { sessions, dirs, .. } = &mut self.links[link];
        let Some(sessions) = sessions else { return };
        let inbox = &mut dirs[side].queue;
        let received =
            sessions[1 - side].receive(now, bytes, &mut |message| take(arrived, inbox, message));
        let freed = received.is_ok_and(|received| received.freed);
        self.after_session(link, 1 - side, freed);
    }

    fn resume_session(&mut self, link: usize, side: usize) {
        let (arrived, now) = (self.now, self.local(self.links[link].ends[side].proc));
        let Link { sessions, dirs, .. } = &mut self.links[link];
        let Some(sessions) = sessions else { return };
        let inbox = &mut dirs[1 - side].queue;
        let received = sessions[side].resume(now, &mut |message| take(arrived, inbox, message));
        if received.messages > 0 {
            self.after(0, Event::Arrive(link, 1 - side));
        }
        self.transmit(link, side);
    }

    pub(crate) fn session_timer(&mut self, link: usize, side: usize) {
        let end = self.links[link].ends[side];
        let now = self.local(end.proc);
        if self.links[link].timers[side] > now || !self.procs[end.proc].alive {
            return;
        }
        self.links[link].timers[side] = Time::FAR;
        if let Some(sessions) = &mut self.links[link].sessions {
            sessions[side].on_deadline(now);
        }
        self.after_session(link, side, false);
    }

    /// After anything happened to the session of an end.
    fn after_session(&mut self, link: usize, side: usize, freed: bool) {
        self.transmit(link, side);
        let ended = self.links[link]
            .sessions
            .as_ref()
            .is_some_and(|sessions| sessions[side].state() != SessionState::Open);
        if ended && self.links[link].ends[side].open {
            self.after(0, Event::Closed(link, side));
            return;
        }
        if freed {
            self.room_came(link, side, true);
        }
        self.pump(link, 1 - side);
    }
}

fn take(
    now: Time,
    inbox: &mut std::collections::VecDeque<(Time, Vec<u8>)>,
    message: &[u8],
) -> Take {
    if inbox.len() >= INBOX_MAX {
        return Take::Later;
    }
    inbox.push_back((now, message.to_vec()));
    Take::Taken
}
