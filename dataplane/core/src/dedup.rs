//! Which (client, session, sequence) stands where in one segment: the set behind exactly-once appends and fate answers.
//!
//! Sequence numbers of a session are dense from 0, and a session is appended in order to one generation of one segment
//! (ORDERING.md 3.1). So what a segment took of a session is a prefix, kept as runs of consecutive sequence numbers at
//! consecutive positions. Runs below the client's floor (the primary knows it) or below the window are dropped: a question
//! about them is answered "unknown", never "never".
//!
//! The primary fills it as it appends; a peer fills it from the records it receives; recovery fills it from the checkpoint
//! and the records after it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use ionian_types::{ClientId, ClientSeq, ConnId, Lsn, SessionNo, ViewId};

/// How many sequence numbers above its floor a session may have unresolved.
pub const WINDOW: u64 = 1 << 16;
/// The most sessions remembered per segment; beyond, the longest idle one without a connection is forgotten.
pub const SESSIONS_MAX: usize = 1 << 14;

/// Consecutive sequence numbers at consecutive positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeqRun {
    /// The first sequence number.
    pub seq: u64,
    /// The first position.
    pub position: u64,
    /// The number of records.
    pub count: u64,
}

/// What is known of one session in one segment.
#[derive(Debug)]
pub struct Session {
    /// The client life.
    pub client: ClientId,
    /// The session.
    pub session: SessionNo,
    /// The generation that took it.
    pub generation: ViewId,
    /// The sequence number after the last one taken.
    pub next_seq: u64,
    /// Sequence numbers below are not remembered.
    pub floor: u64,
    /// Refuse everything further (`CloseSession`).
    pub tombstone: bool,
    /// Where answers go, at the primary.
    pub conn: Option<ConnId>,
    /// The next sequence number to acknowledge, at the primary.
    pub acked: u64,
    /// Whether acknowledgements wait for room on the connection.
    pub blocked: bool,
    /// Rises with each use, to find the longest idle session.
    used: u64,
    runs: VecDeque<SeqRun>,
}

impl Session {
    /// The position of a sequence number, while remembered.
    #[must_use]
    pub fn position(&self, seq: u64) -> Option<Lsn> {
        let run = self.run_at(seq)?;
        Some(Lsn::new(run.position + (seq - run.seq)))
    }

    /// The run that holds a sequence number.
    #[must_use]
    pub fn run_at(&self, seq: u64) -> Option<SeqRun> {
        // The newest run is asked for most.
        if let Some(last) = self.runs.back().filter(|run| run.seq <= seq) {
            return (seq - last.seq < last.count).then_some(*last);
        }
        let at = self
            .runs
            .partition_point(|run| run.seq <= seq)
            .checked_sub(1)?;
        let run = self.runs[at];
        (seq - run.seq < run.count).then_some(run)
    }

    fn push(&mut self, seq: u64, position: u64, count: u64) {
        self.next_seq = seq + count;
        match self.runs.back_mut() {
            Some(last)
                if last.seq + last.count == seq && last.position + last.count == position =>
            {
                last.count += count
            }
            _ => self.runs.push_back(SeqRun {
                seq,
                position,
                count,
            }),
        }
    }

    /// Adds a run that was read: it must lie after those before it.
    fn read_run(&mut self, run: SeqRun) -> Result<(), ionian_wire::WireError> {
        let (seq, position) = match self.runs.back() {
            Some(last) => (last.seq + last.count, last.position + last.count),
            None => (0, 0),
        };
        let end = run
            .seq
            .checked_add(run.count)
            .filter(|_| run.position.checked_add(run.count).is_some());
        match end {
            Some(end) if run.count > 0 && run.seq >= seq && run.position >= position => {
                self.next_seq = end;
                self.runs.push_back(run);
                Ok(())
            }
            _ => Err(out_of_order(run.seq)),
        }
    }

    fn raise_floor(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        while self
            .runs
            .front()
            .is_some_and(|run| run.seq + run.count <= floor)
        {
            self.runs.pop_front();
        }
    }

    fn truncate(&mut self, len: u64) {
        while let Some(last) = self.runs.back_mut() {
            if last.position + last.count <= len {
                break;
            }
            if last.position >= len {
                self.next_seq = last.seq;
                self.runs.pop_back();
            } else {
                last.count = len - last.position;
                self.next_seq = last.seq + last.count;
            }
        }
    }
}

const fn out_of_order(seq: u64) -> ionian_wire::WireError {
    ionian_wire::WireError::Range {
        field: "dedup runs",
        value: seq,
    }
}

/// The sessions of one segment.
#[derive(Debug, Default)]
pub struct Dedup {
    by_key: BTreeMap<(ClientId, SessionNo), u32>,
    sessions: Vec<Session>,
    free: Vec<u32>,
    clock: u64,
    /// The position after the last record of any session that was forgotten for want of room.
    forgotten: u64,
}

impl Dedup {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            sessions: Vec::with_capacity(64),
            free: Vec::new(),
            clock: 0,
            forgotten: 0,
        }
    }

    /// The session's index, if it is known.
    #[must_use]
    pub fn find(&self, client: ClientId, session: SessionNo) -> Option<u32> {
        self.by_key.get(&(client, session)).copied()
    }

    /// The session's index; it is made known if it was not. `None` when no room can be made: every session has a
    /// connection, or was closed and must be remembered as such.
    pub fn open(
        &mut self,
        client: ClientId,
        session: SessionNo,
        generation: ViewId,
    ) -> Option<u32> {
        if let Some(index) = self.find(client, session) {
            return Some(index);
        }
        self.clock += 1;
        let fresh = Session {
            client,
            session,
            generation,
            next_seq: 0,
            floor: 0,
            tombstone: false,
            conn: None,
            acked: 0,
            blocked: false,
            used: self.clock,
            runs: VecDeque::with_capacity(64),
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.sessions.len() < SESSIONS_MAX => self.sessions.len() as u32,
            None => self.evict()?,
        };
        match self.sessions.get_mut(index as usize) {
            Some(slot) => *slot = fresh,
            None => self.sessions.push(fresh),
        }
        self.by_key.insert((client, session), index);
        Some(index)
    }

    fn evict(&mut self) -> Option<u32> {
        let (index, session) = self
            .sessions
            .iter()
            .enumerate()
            .filter(|(_, session)| session.conn.is_none() && !session.tombstone)
            .min_by_key(|(_, session)| session.used)?;
        let last = session
            .runs
            .back()
            .map_or(0, |run| run.position + run.count);
        self.forgotten = self.forgotten.max(last);
        self.by_key.remove(&(session.client, session.session));
        Some(index as u32)
    }

    /// Whether records at `from` or beyond may be of a session that was forgotten: then a session that is not known may
    /// have been, and nothing may be promised about it.
    #[must_use]
    pub fn may_have_forgotten(&self, from: Lsn) -> bool {
        self.forgotten > from.get()
    }

    /// A session by index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Session> {
        self.sessions.get(index as usize)
    }

    /// A session by index.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions.get_mut(index as usize)
    }

    /// The number of sessions remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Records that a run of a session stands at these positions. `floor` is the client's, or 0 where it is not known.
    pub fn took(
        &mut self,
        index: u32,
        seq: ClientSeq,
        position: Lsn,
        count: u64,
        floor: ClientSeq,
    ) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.used = clock;
            // What is known already is not entered twice.
            let known = session.next_seq.saturating_sub(seq.get());
            if known >= count {
                return;
            }
            if session.next_seq == 0 && session.runs.is_empty() && seq.get() > 0 {
                // The session's beginning was not seen here: nothing can be said about it.
                session.floor = seq.get();
            }
            session.push(seq.get() + known, position.get() + known, count - known);
            let window = session.next_seq.saturating_sub(WINDOW);
            session.raise_floor(floor.get().max(window));
        }
    }

    /// Records one stored record, as a peer or recovery sees it.
    pub fn saw(
        &mut self,
        client: ClientId,
        session: SessionNo,
        generation: ViewId,
        seq: ClientSeq,
        position: Lsn,
    ) {
        if let Some(index) = self.open(client, session, generation) {
            self.took(index, seq, position, 1, ClientSeq::ZERO);
        }
    }

    /// Forgets what stood at `len` and beyond: a view made it void.
    pub fn truncate(&mut self, len: Lsn) {
        for index in self.by_key.values() {
            self.sessions[*index as usize].truncate(len.get());
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_key.clear();
        self.sessions.clear();
        self.free.clear();
        self.forgotten = 0;
    }

    /// Every session, for checkpoints and for walking connections.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_key
            .values()
            .map(|index| &self.sessions[*index as usize])
    }

    /// Every session, for walking connections.
    pub fn for_each_mut(&mut self, mut visit: impl FnMut(u32, &mut Session)) {
        for index in self.by_key.values() {
            visit(*index, &mut self.sessions[*index as usize]);
        }
    }

    /// Writes what a restart needs: identities, floors and runs.
    ///
    /// # Errors
    /// [`ionian_wire::WireError::Full`].
    pub fn write(
        &self,
        writer: &mut ionian_wire::Writer<'_>,
    ) -> Result<(), ionian_wire::WireError> {
        writer.field(self.forgotten)?;
        writer.field(self.by_key.len() as u32)?;
        for session in self.iter() {
            writer.field(session.client)?;
            writer.field(session.session)?;
            writer.field(session.generation)?;
            writer.field(session.next_seq)?;
            writer.field(session.floor)?;
            writer.field(session.runs.len() as u32)?;
            for run in &session.runs {
                writer.field(run.seq)?;
                writer.field(run.position)?;
                writer.field(run.count)?;
            }
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Any [`ionian_wire::WireError`]; the set is then to be discarded.
    pub fn read(reader: &mut ionian_wire::Reader<'_>) -> Result<Self, ionian_wire::WireError> {
        let mut dedup = Self::new();
        dedup.forgotten = reader.field()?;
        for _ in 0..reader.field::<u32>()? {
            let (client, session) = (reader.field()?, reader.field()?);
            let generation = reader.field()?;
            let next_seq = reader.field()?;
            let floor = reader.field()?;
            let index = dedup.open(client, session, generation);
            for _ in 0..reader.field::<u32>()? {
                let run = SeqRun {
                    seq: reader.field()?,
                    position: reader.field()?,
                    count: reader.field()?,
                };
                let session = index.and_then(|index| dedup.get_mut(index));
                if let Some(session) = session {
                    session.read_run(run)?;
                }
            }
            if let Some(session) = index.and_then(|index| dedup.get_mut(index)) {
                if next_seq < session.next_seq {
                    return Err(out_of_order(next_seq));
                }
                session.next_seq = next_seq;
                session.floor = floor;
            }
        }
        Ok(dedup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId::new(7);
    const SESSION: SessionNo = SessionNo::new(1);
    const GENERATION: ViewId = ViewId::new(1);

    fn filled() -> (Dedup, u32) {
        let mut dedup = Dedup::new();
        let index = dedup.open(CLIENT, SESSION, GENERATION).unwrap();
        dedup.took(index, ClientSeq::new(0), Lsn::new(100), 10, ClientSeq::ZERO);
        dedup.took(index, ClientSeq::new(10), Lsn::new(110), 5, ClientSeq::ZERO);
        dedup.took(index, ClientSeq::new(15), Lsn::new(200), 5, ClientSeq::ZERO);
        (dedup, index)
    }

    #[test]
    fn positions_follow_runs() {
        let (dedup, index) = filled();
        let session = dedup.get(index).unwrap();
        assert_eq!(session.position(0), Some(Lsn::new(100)));
        assert_eq!(session.position(14), Some(Lsn::new(114)));
        assert_eq!(session.position(15), Some(Lsn::new(200)));
        assert_eq!(session.position(20), None);
        assert_eq!(session.next_seq, 20);
        assert_eq!(session.runs.len(), 2, "adjacent runs merge");
    }

    #[test]
    fn a_view_voids_the_tail_and_the_next_sequence_falls_back() {
        let (mut dedup, index) = filled();
        dedup.truncate(Lsn::new(112));
        let session = dedup.get(index).unwrap();
        assert_eq!(session.next_seq, 12);
        assert_eq!(session.position(11), Some(Lsn::new(111)));
        assert_eq!(session.position(12), None);
    }

    #[test]
    fn below_the_floor_nothing_is_remembered() {
        let (mut dedup, index) = filled();
        dedup.took(
            index,
            ClientSeq::new(20),
            Lsn::new(205),
            1,
            ClientSeq::new(15),
        );
        let session = dedup.get(index).unwrap();
        assert_eq!((session.floor, session.position(14)), (15, None));
        assert_eq!(session.position(15), Some(Lsn::new(200)));
    }

    #[test]
    fn what_is_known_is_not_entered_twice() {
        let (mut dedup, index) = filled();
        dedup.took(index, ClientSeq::new(12), Lsn::new(112), 3, ClientSeq::ZERO);
        dedup.took(index, ClientSeq::new(18), Lsn::new(203), 4, ClientSeq::ZERO);
        let session = dedup.get(index).unwrap();
        assert_eq!((session.next_seq, session.runs.len()), (22, 2));
        assert_eq!(session.position(21), Some(Lsn::new(206)));
    }

    #[test]
    fn a_session_seen_from_the_middle_knows_nothing_of_its_beginning() {
        let mut dedup = Dedup::new();
        dedup.saw(CLIENT, SESSION, GENERATION, ClientSeq::new(40), Lsn::new(7));
        let session = dedup.get(dedup.find(CLIENT, SESSION).unwrap()).unwrap();
        assert_eq!((session.floor, session.position(39)), (40, None));
        assert_eq!(session.position(40), Some(Lsn::new(7)));
    }

    #[test]
    fn a_checkpoint_comes_back() {
        let (dedup, _) = filled();
        let mut bytes = [0; 512];
        let mut writer = ionian_wire::Writer::new(&mut bytes);
        dedup.write(&mut writer).unwrap();
        let len = writer.len();
        let back = Dedup::read(&mut ionian_wire::Reader::new(&bytes[..len])).unwrap();
        let index = back.find(CLIENT, SESSION).unwrap();
        assert_eq!(back.get(index).unwrap().position(15), Some(Lsn::new(200)));
        assert_eq!(back.get(index).unwrap().next_seq, 20);
    }

    #[test]
    fn what_was_forgotten_is_known_to_be_so_and_a_closed_session_never_is() {
        let mut dedup = Dedup::new();
        for n in 0..SESSIONS_MAX as u32 {
            let index = dedup.open(CLIENT, SessionNo::new(n), GENERATION).unwrap();
            let at = Lsn::new(u64::from(n));
            dedup.took(index, ClientSeq::ZERO, at, 1, ClientSeq::ZERO);
        }
        let closed = dedup.find(CLIENT, SessionNo::ZERO).unwrap();
        dedup.get_mut(closed).unwrap().tombstone = true;
        dedup.open(CLIENT, SessionNo::MAX, GENERATION).unwrap();
        assert!(dedup.find(CLIENT, SessionNo::ZERO).is_some());
        assert_eq!(dedup.find(CLIENT, SessionNo::new(1)), None);
        assert!(dedup.may_have_forgotten(Lsn::new(1)));
        assert!(!dedup.may_have_forgotten(Lsn::new(2)));
    }

    #[test]
    fn the_longest_idle_session_makes_room_but_a_connected_one_never_does() {
        let mut dedup = Dedup::new();
        for n in 0..SESSIONS_MAX as u32 {
            let index = dedup.open(CLIENT, SessionNo::new(n), GENERATION).unwrap();
            dedup.get_mut(index).unwrap().conn = (n != 5).then_some(ConnId::new(n));
        }
        assert!(
            dedup
                .open(CLIENT, SessionNo::new(1 << 20), GENERATION)
                .is_some()
        );
        assert_eq!(dedup.find(CLIENT, SessionNo::new(5)), None);
        assert!(!dedup.may_have_forgotten(Lsn::ZERO), "it had no records");
        let index = dedup.find(CLIENT, SessionNo::new(1 << 20)).unwrap();
        dedup.get_mut(index).unwrap().conn = Some(ConnId::new(1));
        assert!(
            dedup
                .open(CLIENT, SessionNo::new(2 << 20), GENERATION)
                .is_none()
        );
    }
}
