//! The leader of the group and its members: what each holds, what each is sent next, what is committed (ORDERING.md, NEW
//! LEADER, ROOT LEADER).
//!
//! An entry is committed once `write_quorum` members hold it at the class, the leader among them when its own journal has it.
//! Only entries of the leader's own epoch are counted; the first of them commits all that came before. Writes to a member
//! are pipelined behind a cursor, and each member has its own: one that is slow or gone holds up nobody else.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{ConnId, EntryNo, Inc, Knobs, NodeId, ROOT_MEMBERS_MAX, Slot, Time};
use ionian_wire::codec::Field;
use ionian_wire::frame::{RootAlone, RootGrant, RootLed, RootWrite, RootWritten, WriteOutcome};

use super::transfer::{Cursor, Snapshot};
use super::{Kind, MemberStatus, Root};
use crate::outbox::Outbox;

/// Messages with entries that a member has not answered as held, at most.
const WINDOW: usize = 64;
/// Bytes of them, at most.
const WINDOW_BYTES: u64 = 4 << 20;
/// Bytes of entries in one message, at most, unless one entry alone has more.
const WRITE_BYTES: usize = 64 * 1024;
/// Messages to one member in one flush, at most.
const WRITES_PER_FLUSH: usize = 4;

/// Another member of the configuration that this one leads.
#[derive(Debug)]
pub(super) struct Member {
    slot: Slot,
    pub(super) node: NodeId,
    pub(super) inc: Inc,
    conn: Option<ConnId>,
    /// The next entry to send, and the last one known to be held.
    next: EntryNo,
    held: EntryNo,
    /// Messages with entries that are under way: the last entry, bytes.
    window: VecDeque<(EntryNo, u32)>,
    window_bytes: u64,
    /// The latest message sent, and the latest answered.
    sent_round: u64,
    answered: u64,
    sent_at: Time,
    /// When it last answered in this epoch.
    heard_at: Option<Time>,
    /// Answers to messages up to here say nothing of where to go on from.
    reset_round: u64,
    reset_at: EntryNo,
    /// Nothing but questions before then: what was sent last was of no use.
    pub(super) wait_until: Time,
    /// It takes the state, in the place of entries that were dropped, or because its log is long.
    pub(super) state: Option<Cursor>,
    pub(super) wants_state: bool,
}

impl Member {
    fn new(slot: usize, node: NodeId, inc: Inc, next: EntryNo) -> Self {
        Self {
            slot: Slot::new(slot as u8),
            node,
            inc,
            conn: None,
            next,
            held: EntryNo::ZERO,
            window: VecDeque::with_capacity(WINDOW),
            window_bytes: 0,
            sent_round: 0,
            answered: 0,
            sent_at: Time::ZERO,
            heard_at: None,
            reset_round: 0,
            reset_at: EntryNo::MAX,
            wait_until: Time::ZERO,
            state: None,
            wants_state: false,
        }
    }

    /// Uses a connection from now on; what was under way on another one may be lost.
    fn connect(&mut self, conn: Option<ConnId>, round: u64) {
        self.conn = conn;
        self.next = if self.held > EntryNo::ZERO {
            after(self.held)
        } else {
            self.next
        };
        self.window.clear();
        self.window_bytes = 0;
        self.reset_round = round;
        self.reset_at = EntryNo::MAX;
        self.state = None;
        self.sent_at = Time::ZERO;
        self.wait_until = Time::ZERO;
    }

    pub(super) const fn sent(&mut self, now: Time, round: u64) {
        self.sent_round = round;
        self.sent_at = now;
    }

    fn hold(&mut self, last: EntryNo) {
        self.held = self.held.max(last);
        while let Some((end, bytes)) = self.window.front().copied() {
            if end > self.held {
                break;
            }
            self.window.pop_front();
            self.window_bytes -= u64::from(bytes);
        }
        self.next = self.next.max(after(self.held));
    }
}

/// The group as its leader sees it.
#[derive(Default, Debug)]
pub(super) struct Group {
    /// The other members.
    members: Vec<Member>,
    write_quorum: usize,
    /// How many members must say that the epoch stands, so that every later epoch's seal would have met one of them.
    confirm_quorum: usize,
    /// The last message sent to anybody.
    round: u64,
    /// Members are to answer a message at least this late.
    asked: u64,
    /// This epoch's entry, and whether its commit is recorded.
    entry: EntryNo,
    recorded: bool,
    led_at: Option<Time>,
    /// Since when this one leads them, and when the controller was last told that too few of them answer.
    began_at: Option<Time>,
    alone_at: Option<Time>,
    pub(super) snapshot: Option<Snapshot>,
    /// Entries up to here are needed by nobody.
    pub(super) drop: EntryNo,
}

impl Group {
    pub(super) const fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// A question is put to every member from now on: the round to be answered.
    pub(super) const fn ask(&mut self) -> u64 {
        self.asked = self.round + 1;
        self.asked
    }

    pub(super) const fn is_alone(&self) -> bool {
        self.members.is_empty()
    }

    /// The entry whose commit begins this epoch is another one.
    pub(super) const fn begin_at(&mut self, entry: EntryNo) {
        self.entry = entry;
    }

    /// Whether the members that have answered a message of this round or a later one meet every seal.
    pub(super) fn confirmed(&self, round: u64) -> bool {
        let answered = self.members.iter().filter(|it| it.answered >= round);
        1 + answered.count() >= self.confirm_quorum
    }

    /// Since when too few members have answered for anything to be committed; `None` when that takes nobody else.
    fn alone_since(&self) -> Option<Time> {
        let began_at = self.began_at?;
        let mut heard = [Time::ZERO; ROOT_MEMBERS_MAX];
        for (heard, member) in heard.iter_mut().zip(&self.members) {
            *heard = member.heard_at.unwrap_or(began_at);
        }
        let heard = &mut heard[..self.members.len()];
        heard.sort_unstable_by(|a, b| b.cmp(a));
        heard.get(self.write_quorum.checked_sub(2)?).copied()
    }

    pub(super) fn sends_state(&self) -> bool {
        self.members.iter().any(|member| member.state.is_some())
    }
}

fn after(entry: EntryNo) -> EntryNo {
    entry.next().unwrap_or(EntryNo::MAX)
}

/// A configuration that a grant names, checked.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) members: Vec<(NodeId, Inc)>,
    write_quorum: u8,
    seal_quorum: u8,
}

impl Named {
    /// Reads the configuration of a grant for a member; `None` unless it is sound and lists the member once.
    fn read(grant: &RootGrant, tail: &[u8], me: (NodeId, Inc)) -> Option<Self> {
        let count = usize::from(grant.members);
        let (write, seal) = (
            usize::from(grant.write_quorum),
            usize::from(grant.seal_quorum),
        );
        let sound = (1..=ROOT_MEMBERS_MAX).contains(&count)
            && (1..=count).contains(&write)
            && (1..=count).contains(&seal)
            && write + seal > count
            && tail.len() == count * 12;
        if !sound {
            return None;
        }
        let members: Vec<(NodeId, Inc)> = tail
            .chunks_exact(12)
            .filter_map(|bytes| {
                Some((
                    NodeId::take(&bytes[..4]).ok()?,
                    Inc::take(&bytes[4..]).ok()?,
                ))
            })
            .collect();
        let lives = members.iter().map(|(_, inc)| *inc);
        let mut lives: Vec<Inc> = lives.filter(|inc| *inc != Inc::ZERO).collect();
        let count = lives.len();
        lives.sort_unstable();
        lives.dedup();
        (lives.len() == count && members.contains(&me)).then_some(Self {
            members,
            write_quorum: grant.write_quorum,
            seal_quorum: grant.seal_quorum,
        })
    }

    pub(super) const fn quorums(&self) -> (u8, u8) {
        (self.write_quorum, self.seal_quorum)
    }
}

impl<K: Knobs> Root<K> {
    /// Checks the configuration of a grant.
    pub(super) fn named(&mut self, grant: &RootGrant, tail: &[u8]) -> Option<Named> {
        let named = Named::read(grant, tail, (self.config.node, self.config.inc));
        if named.is_none() {
            self.counters.bad_grants += 1;
        }
        named
    }

    /// Takes the members of a configuration; the next entry is the first of this epoch.
    pub(super) fn lead(&mut self, named: &Named) {
        let me = (self.config.node, self.config.inc);
        let next = after(self.state.entry);
        let round = self.group.round;
        // A slot without a life takes no part.
        let others = named.members.iter().enumerate();
        let others = others.filter(|(_, member)| **member != me && member.1 != Inc::ZERO);
        let mut members: Vec<Member> = others
            .map(|(slot, (node, inc))| Member::new(slot, *node, *inc, next))
            .collect();
        for member in &mut members {
            let conn = self.conn_of(member.node, member.inc, None);
            member.connect(conn, round);
        }
        self.group = Group {
            write_quorum: usize::from(named.write_quorum),
            confirm_quorum: named.members.len() + 1 - usize::from(named.seal_quorum),
            members,
            round,
            entry: next,
            ..Group::default()
        };
    }

    /// Another member has promised a later epoch: nothing more is cut, told or answered in this one.
    pub(super) fn step_down(&mut self) {
        self.counters.stepped_down += 1;
        self.stop_leading();
        // Leaves and clients look for the leader again.
        for (at, kind) in self.conns.iter_mut().enumerate() {
            if matches!(kind, Kind::Child(..) | Kind::Client) {
                *kind = Kind::Unknown;
                self.close.push(ConnId::new(at as u32));
            }
        }
    }

    /// Forgets everything that only a leader has.
    pub(super) fn stop_leading(&mut self) {
        self.granted = None;
        self.pending.clear();
        self.children.clear();
        self.trims.clear();
        self.asks.clear();
        self.intents_done = false;
        self.ceiling_asked_at = None;
        self.group = Group {
            round: self.group.round,
            ..Group::default()
        };
    }

    /// The nodes of the other members that this one leads: the edge keeps a connection open to each, to the member of this
    /// log's root group there.
    pub fn wanted_members(&self) -> impl Iterator<Item = NodeId> {
        self.group.members.iter().map(|member| member.node)
    }

    fn conn_of(&self, node: NodeId, inc: Inc, but: Option<ConnId>) -> Option<ConnId> {
        let at = self.conns.iter().enumerate().position(|(at, kind)| {
            let conn = ConnId::new(at as u32);
            *kind == Kind::Root(node, inc) && Some(conn) != but && !self.close.contains(&conn)
        });
        at.map(|at| ConnId::new(at as u32))
    }

    /// Another member has said hello.
    pub(super) fn member_here(&mut self, node: NodeId, inc: Inc, conn: ConnId) {
        let round = self.group.round;
        let mut members = self.group.members.iter_mut();
        if let Some(member) = members.find(|member| (member.node, member.inc) == (node, inc)) {
            member.connect(Some(conn), round);
        }
    }

    /// The connection of another member is gone.
    pub(super) fn member_lost(&mut self, conn: ConnId) {
        let round = self.group.round;
        for at in 0..self.group.members.len() {
            let member = &self.group.members[at];
            if member.conn == Some(conn) {
                let other = self.conn_of(member.node, member.inc, Some(conn));
                self.group.members[at].connect(other, round);
            }
        }
    }

    /// The last entry that may be committed by counting.
    pub(super) fn commit_bound(&self, own: EntryNo) -> EntryNo {
        if self.group.members.is_empty() {
            return own;
        }
        let mut held = [EntryNo::ZERO; ROOT_MEMBERS_MAX];
        held[0] = own;
        for (slot, member) in held[1..].iter_mut().zip(&self.group.members) {
            *slot = member.held;
        }
        held.sort_unstable_by(|a, b| b.cmp(a));
        held[self.group.write_quorum - 1]
    }

    /// A member answers.
    pub(super) fn on_written(&mut self, now: Time, conn: ConnId, answer: &RootWritten) {
        let Some((node, inc)) = self.member_at(conn) else {
            return;
        };
        let mine = self.granted;
        if answer.log != self.config.log || answer.inc != inc || Some(answer.epoch) != mine {
            return;
        }
        if answer.outcome == WriteOutcome::Superseded {
            if mine.is_some_and(|mine| answer.promised > mine) {
                self.step_down();
            }
            return;
        }
        let mut members = core::mem::take(&mut self.group.members);
        let found = members
            .iter_mut()
            .find(|member| (member.node, member.inc) == (node, inc));
        if let Some(member) = found {
            self.note_answer(now, member, answer);
        }
        self.group.members = members;
    }

    fn note_answer(&mut self, now: Time, member: &mut Member, answer: &RootWritten) {
        if answer.round > self.group.round {
            self.counters.strangers += 1;
            return;
        }
        member.answered = member.answered.max(answer.round);
        member.heard_at = Some(now);
        match answer.outcome {
            WriteOutcome::Held => member.hold(answer.last.min(self.state.entry)),
            WriteOutcome::Behind if answer.round > member.reset_round => {
                let last = answer.last.min(self.state.entry);
                if member.reset_at == last {
                    // It was sent what follows, and did not take it.
                    member.wait_until = now.after(self.config.retry);
                }
                member.reset_at = last;
                member.next = after(last);
                member.reset_round = self.group.round;
                member.window.clear();
                member.window_bytes = 0;
            }
            WriteOutcome::Part => self.on_part(now, member, answer),
            WriteOutcome::Long => member.wants_state = self.base.entry > answer.last,
            WriteOutcome::Behind | WriteOutcome::Superseded => {}
        }
        let misses = member.next <= self.base.entry;
        let stale = member
            .state
            .is_some_and(|cursor| cursor.is_sent_before(answer.round));
        if misses && stale && answer.outcome != WriteOutcome::Part {
            // It has all of the state, and did not use it.
            member.state = None;
            member.wait_until = now.after(self.config.retry);
        } else if !misses && !member.wants_state {
            member.state = None;
        }
    }

    /// Sends every member what it misses, and asks those that are to be asked.
    pub(super) fn flush_members(&mut self, now: Time, out: &mut Outbox) {
        if self.group.members.is_empty() {
            return;
        }
        self.group.began_at.get_or_insert(now);
        let mut members = core::mem::take(&mut self.group.members);
        for member in &mut members {
            let Some(conn) = member.conn else { continue };
            let mut any = false;
            if now >= member.wait_until {
                any = if member.next <= self.base.entry || member.wants_state {
                    self.send_state(now, member, conn, out)
                } else {
                    false
                };
                if member.next > self.base.entry {
                    any |= self.send_entries(now, member, conn, out);
                }
            }
            let due = member.sent_round < self.group.asked
                || now >= member.sent_at.after(self.config.retry);
            if !any && due {
                self.send_write(now, member, conn, 0, 0, out);
            }
        }
        self.group.members = members;
        if !self.group.sends_state() {
            self.group.snapshot = None;
        }
    }

    fn send_entries(
        &mut self,
        now: Time,
        member: &mut Member,
        conn: ConnId,
        out: &mut Outbox,
    ) -> bool {
        let mut any = false;
        for _ in 0..WRITES_PER_FLUSH {
            if member.window.len() >= WINDOW || member.window_bytes >= WINDOW_BYTES {
                break;
            }
            // What one message takes: an entry that is larger goes alone, into the room kept for answers.
            let bytes_max = WRITE_BYTES.min(out.room(conn).saturating_sub(256));
            let mut count = 0;
            let mut bytes = 0;
            let mut next = member.next;
            while next <= self.state.entry {
                let Some(entry) = self.log.get(next) else {
                    break;
                };
                if count > 0 && bytes + entry.len() + 4 > bytes_max {
                    break;
                }
                bytes += entry.len() + 4;
                count += 1;
                next = after(next);
            }
            if count == 0 || !self.send_write(now, member, conn, count, bytes, out) {
                break;
            }
            any = true;
        }
        any
    }

    /// Sends the next `count` entries, of `bytes` bytes with their lengths, or a question. Whether it left.
    fn send_write(
        &mut self,
        now: Time,
        member: &mut Member,
        conn: ConnId,
        count: u32,
        bytes: usize,
        out: &mut Outbox,
    ) -> bool {
        if out.room(conn) == 0 || out.arena_room() < bytes + 256 {
            return false;
        }
        // A member that takes the state is asked about nothing.
        let prev = EntryNo::new(member.next.get().saturating_sub(1));
        let (prev, prev_crc) = match self.crc_of(prev) {
            Some(crc) if prev >= self.base.entry => (prev, crc),
            _ => (EntryNo::ZERO, 0),
        };
        let round = self.group.next_round();
        let body = RootWrite {
            log: self.config.log,
            epoch: self.granted.unwrap_or_default(),
            inc: member.inc,
            round,
            prev,
            prev_crc,
            commit: self.committed,
            drop: self.group.drop,
            count,
        };
        let log = &self.log;
        let mut last = prev;
        let sent = out.send_with(conn, &body, |writer| {
            for _ in 0..count {
                last = after(last);
                let entry = log.get(last).unwrap_or_default();
                writer.field(entry.len() as u32)?;
                writer.bytes(entry)?;
            }
            Ok(())
        });
        if sent.is_err() {
            return false;
        }
        member.sent(now, round);
        if count > 0 {
            member.next = after(last);
            member.window.push_back((last, bytes as u32));
            member.window_bytes += bytes as u64;
        }
        true
    }

    /// Tells the controller that this epoch has begun, until it says that it has taken note.
    pub(super) fn flush_led(&mut self, now: Time, conn: ConnId, out: &mut Outbox) {
        let due = |at: Time| now >= at.after(self.config.retry);
        let Some(epoch) = self.granted.filter(|_| {
            !self.group.recorded
                && self.committed >= self.group.entry
                && self.group.led_at.is_none_or(due)
        }) else {
            return;
        };
        let led = RootLed {
            log: self.config.log,
            inc: self.config.inc,
            epoch,
            entry: self.group.entry,
        };
        if out.send(conn, &led, &[]).is_ok() {
            self.group.led_at = Some(now);
        }
    }

    /// When the controller is to be told (again) that too few members answer.
    fn alone_due(&self) -> Option<Time> {
        let since = self.group.alone_since()?;
        let again = self.group.alone_at.map(|at| at.after(self.config.retry));
        Some(
            since
                .after(self.config.alone)
                .max(again.unwrap_or(Time::ZERO)),
        )
    }

    /// Tells the controller when too few members answer for anything to be committed.
    pub(super) fn flush_alone(&mut self, now: Time, conn: ConnId, out: &mut Outbox) {
        let due = self.alone_due().is_some_and(|due| due <= now);
        let (Some(epoch), Some(since)) = (self.granted, self.group.alone_since()) else {
            return;
        };
        if !due || out.room(conn) < 256 {
            return;
        }
        let alone = RootAlone {
            log: self.config.log,
            inc: self.config.inc,
            epoch,
            silent: now.since(since).0,
        };
        if out.send(conn, &alone, &[]).is_ok() {
            self.group.alone_at = Some(now);
        }
    }

    /// The controller has taken note that this epoch has begun.
    pub(super) const fn recorded(&mut self) {
        self.group.recorded = true;
    }

    pub(super) const fn is_recorded(&self) -> bool {
        self.group.recorded
    }

    /// When members and the controller are to be sent something even if nothing happens.
    pub(super) fn group_deadline(&self) -> Time {
        let mut deadline = Time::FAR;
        for member in self.group.members.iter().filter(|it| it.conn.is_some()) {
            deadline = deadline.min(member.sent_at.after(self.config.retry));
        }
        let led = self.granted.is_some()
            && !self.group.recorded
            && self.controller.is_some()
            && self.committed >= self.group.entry;
        if let Some(at) = self.group.led_at.filter(|_| led) {
            deadline = deadline.min(at.after(self.config.retry));
        }
        if self.granted.is_some()
            && self.controller.is_some()
            && let Some(due) = self.alone_due()
        {
            deadline = deadline.min(due);
        }
        deadline
    }

    /// The members at a glance: how many there are, how many are connected, and how far the last of them is.
    pub(super) fn group_status(&self) -> (usize, usize, EntryNo) {
        let connected = self.group.members.iter().filter(|it| it.conn.is_some());
        let slowest = self.group.members.iter().map(|member| member.held).min();
        let me = usize::from(self.granted.is_some());
        (
            me + self.group.members.len(),
            me + connected.count(),
            slowest.unwrap_or(self.state.entry).min(self.state.entry),
        )
    }

    /// Each member of the group that this one leads, by slot.
    pub(super) fn member_statuses(&self) -> [MemberStatus; ROOT_MEMBERS_MAX] {
        let me = MemberStatus {
            slot: self.config.slot,
            node: self.config.node,
            inc: self.config.inc,
            connected: true,
            held: self.durable_entry(),
        };
        let others = self.group.members.iter().map(|member| MemberStatus {
            slot: member.slot,
            node: member.node,
            inc: member.inc,
            connected: member.conn.is_some(),
            held: member.held,
        });
        let leads = self.granted.map(|_| me);
        let mut all = [MemberStatus::default(); ROOT_MEMBERS_MAX];
        let mut count = 0;
        for (to, member) in all.iter_mut().zip(leads.into_iter().chain(others)) {
            *to = member;
            count += 1;
        }
        all[..count].sort_unstable_by_key(|member| member.slot);
        all
    }

    /// Whether this epoch may be confirmed without asking anybody.
    pub(super) fn leads_alone(&self) -> bool {
        self.group.is_alone()
    }
}
