//! Records and sessions: who appended what, and where it was seen. Integrity (S2), no duplicate (S3), session order (S11).
//!
//! A record is named by log, client, session and number. A sighting may come before its call is read (another file holds
//! it), so that what joins the two is judged at the end.

use super::{Context, NEVER, NONE};
use crate::event::Sight;
use crate::table::{Dense, FastMap};
use crate::witness::{Findings, Id, Pos};

/// What is known of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rec {
    pub(super) session: u32,
    /// Position; [`NEVER`] while it has none.
    pub(super) gsn: u64,
    /// The earliest call among the tries that did not end in `fail`.
    pub(super) inv: u64,
    pub(super) inv_line: Pos,
    /// The earliest call of all: what a hint may show.
    first_call: u64,
    hash: u64,
    seen_hash: u64,
    first_seen: u64,
    seen_line: Pos,
    place_line: Pos,
    last_try: u32,
    /// Tries that did not end in `fail`.
    live: u32,
    pub(super) shard: u32,
    pub(super) colour: u32,
    invoked: bool,
    seen: bool,
    /// Its place was taken over by a record of another name.
    moved: bool,
    acked: bool,
}

impl Rec {
    const fn new(session: u32) -> Self {
        Self {
            session,
            gsn: NEVER,
            inv: NEVER,
            inv_line: 0,
            first_call: NEVER,
            hash: 0,
            seen_hash: 0,
            first_seen: NEVER,
            seen_line: 0,
            place_line: 0,
            last_try: 0,
            live: 0,
            shard: NONE,
            colour: NONE,
            invoked: false,
            seen: false,
            moved: false,
            acked: false,
        }
    }
}

/// A session of a client on a log.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) log: u32,
    pub(super) cid: u64,
    pub(super) ses: u64,
    /// The client's entry in the table of liveness.
    pub(super) client: u32,
    by_number: Dense<u32>,
}

/// All records of a history.
#[derive(Default, Debug)]
pub(super) struct Records {
    pub(super) all: Vec<Rec>,
    pub(super) sessions: Vec<Session>,
    names: FastMap<(u32, u64, u64), u32>,
    clients: FastMap<(u32, u64), u32>,
    /// Client of each record that was called without a name.
    nameless: FastMap<u32, (u32, u64)>,
}

impl Records {
    /// The number of a client of a log, in the order of appearance.
    pub(super) fn client(&mut self, log: u32, cid: u64) -> u32 {
        let next = self.clients.len() as u32;
        *self.clients.entry((log, cid)).or_insert(next)
    }

    pub(super) fn session(&mut self, log: u32, cid: u64, ses: u64) -> u32 {
        if let Some(at) = self.names.get(&(log, cid, ses)) {
            return *at;
        }
        let (at, client) = (self.sessions.len() as u32, self.client(log, cid));
        self.sessions.push(Session {
            log,
            cid,
            ses,
            client,
            by_number: Dense::default(),
        });
        self.names.insert((log, cid, ses), at);
        at
    }

    /// The record of a name.
    #[inline]
    pub(super) fn named(&mut self, session: u32, csn: u64) -> u32 {
        let all = &mut self.all;
        let by_number = &mut self.sessions[session as usize].by_number;
        *by_number
            .entry(csn, || {
                all.push(Rec::new(session));
                all.len() as u32 - 1
            })
            .0
    }

    pub(super) fn nameless(&mut self, log: u32, cid: u64) -> u32 {
        let at = self.all.len() as u32;
        self.all.push(Rec::new(NONE));
        self.nameless.insert(at, (log, cid));
        at
    }

    /// A call of it. `attempt` counts from 1.
    pub(super) fn called(&mut self, rec: u32, call: &Called, findings: &mut Findings) {
        let known = &mut self.all[rec as usize];
        let attempt = u32::try_from(call.attempt).unwrap_or(u32::MAX);
        if known.invoked {
            if known.hash != call.h {
                findings.fail(Id::S0, &[known.inv_line, call.line], || {
                    "one name for two payloads".to_owned()
                });
            }
            if attempt <= known.last_try {
                findings.fail(Id::S0, &[known.inv_line, call.line], || {
                    format!(
                        "try {attempt} of a record comes after its try {}",
                        known.last_try
                    )
                });
            }
        }
        (known.invoked, known.hash, known.last_try) = (true, call.h, attempt);
        known.live += 1;
        known.first_call = known.first_call.min(call.t);
        if call.t < known.inv || known.live == 1 {
            (known.inv, known.inv_line) = (call.t, call.line);
        }
        if let Some(colour) = call.colour {
            known.colour = u32::try_from(colour).unwrap_or(NONE - 1);
        }
    }

    /// A try of it ended without effect.
    pub(super) fn had_no_effect(&mut self, rec: u32) {
        let known = &mut self.all[rec as usize];
        known.live = known.live.saturating_sub(1);
    }

    /// An ack names it otherwise than its call did: from here on it has the other name.
    pub(super) fn renamed(&mut self, from: u32, to: u32, line: Pos, findings: &mut Findings) {
        if from == to {
            return;
        }
        let old = self.all[from as usize];
        self.all[from as usize].moved = true;
        let new = &mut self.all[to as usize];
        if new.invoked && new.hash != old.hash {
            findings.fail(Id::S2, &[old.inv_line, new.inv_line, line], || {
                "an ack gives a record the name of another one".to_owned()
            });
        }
        (new.invoked, new.hash, new.live) = (true, old.hash, new.live + 1);
        if old.inv < new.inv {
            (new.inv, new.inv_line) = (old.inv, old.inv_line);
        }
        new.first_call = new.first_call.min(old.first_call);
        new.colour = old.colour;
    }

    /// It was seen, perhaps only as a hint, with this payload.
    pub(super) fn sighted(&mut self, rec: u32, h: u64, t: u64, line: Pos, findings: &mut Findings) {
        let known = &mut self.all[rec as usize];
        if known.seen && known.seen_hash != h {
            let (lines, seen) = ([known.seen_line, line], known.seen_hash);
            for id in [Id::S1, Id::S2] {
                findings.fail(id, &lines, || {
                    format!("a record was seen with two payloads: {seen:016x} and {h:016x}")
                });
            }
        }
        if !known.seen || t < known.first_seen {
            (known.first_seen, known.seen_line) = (t, line);
        }
        (known.seen, known.seen_hash) = (true, h);
    }

    /// It stands at a position, by an ack or by being seen there. Says whether it stood elsewhere before.
    #[inline]
    pub(super) fn placed(&mut self, rec: u32, gsn: u64, line: Pos) -> Option<(u64, Pos)> {
        let known = &mut self.all[rec as usize];
        if known.gsn == NEVER {
            (known.gsn, known.place_line) = (gsn, line);
            return None;
        }
        if known.gsn == gsn {
            return None;
        }
        let before = (known.gsn, known.place_line);
        if gsn < known.gsn {
            (known.gsn, known.place_line) = (gsn, line);
        }
        Some(before)
    }

    pub(super) fn acked(&mut self, rec: u32, shard: Option<u64>) {
        let known = &mut self.all[rec as usize];
        known.acked = true;
        if let Some(shard) = shard {
            known.shard = u32::try_from(shard).unwrap_or(NONE - 1);
        }
    }

    /// The record that a sighting without a session means: the only one of that client and number.
    ///
    /// # Errors
    /// How many there are, when it is not one.
    pub(super) fn without_session(
        &mut self,
        candidates: &FastMap<(u32, u64, u64), Vec<u32>>,
        log: u32,
        sight: &Sight,
    ) -> Result<u32, usize> {
        let of = candidates.get(&(log, sight.cid, sight.csn));
        let mut found = of.cloned().unwrap_or_default();
        if found.len() > 1 {
            found.retain(|rec| self.all[*rec as usize].hash == sight.h);
        }
        match found[..] {
            [rec] => Ok(rec),
            [] => {
                // Nobody appended it; the judgement of integrity says so.
                let session = self.session(log, sight.cid, u64::MAX);
                Ok(self.named(session, sight.csn))
            }
            _ => Err(found.len()),
        }
    }

    /// Records by log, client and number.
    pub(super) fn by_number(&self) -> FastMap<(u32, u64, u64), Vec<u32>> {
        let mut table: FastMap<(u32, u64, u64), Vec<u32>> = FastMap::default();
        for session in &self.sessions {
            session.by_number.for_each(|csn, rec| {
                let of = table.entry((session.log, session.cid, csn)).or_default();
                of.push(*rec);
            });
        }
        table
    }

    /// A record may get another name after its last line: an append without an answer is looked for by client and payload.
    fn adopt(&mut self) {
        let strange = |rec: &Rec| rec.seen && !rec.invoked && rec.session != NONE;
        if !self.all.iter().any(strange) {
            return;
        }
        let mut open: FastMap<(u32, u64, u64), Vec<u32>> = FastMap::default();
        for (at, rec) in self.all.iter().enumerate() {
            if rec.invoked && !rec.acked && !rec.seen && !rec.moved && rec.live > 0 {
                let owner = match self.sessions.get(rec.session as usize) {
                    Some(session) => (session.log, session.cid),
                    None => self.nameless[&(at as u32)],
                };
                let of = open.entry((owner.0, owner.1, rec.hash)).or_default();
                of.push(at as u32);
            }
        }
        for at in 0..self.all.len() {
            let rec = self.all[at];
            if !strange(&rec) {
                continue;
            }
            let session = &self.sessions[rec.session as usize];
            let key = (session.log, session.cid, rec.seen_hash);
            if let Some(called) = open.get_mut(&key).and_then(Vec::pop) {
                let call = self.all[called as usize];
                self.all[called as usize].moved = true;
                let known = &mut self.all[at];
                (known.invoked, known.hash, known.live) = (true, call.hash, call.live);
                (known.inv, known.inv_line) = (call.inv, call.inv_line);
                known.first_call = call.first_call;
                known.colour = call.colour;
            }
        }
    }

    /// S2, S3 and S11, once everything was read.
    pub(super) fn judge(&mut self, context: &Context, findings: &mut Findings) {
        self.adopt();
        let mut seen = 0;
        for rec in &self.all {
            seen += u64::from(rec.seen);
            if rec.moved && rec.gsn != NEVER {
                findings.fail(Id::S3, &[rec.inv_line, rec.place_line], || {
                    format!(
                        "a record stands at {} under the name that it gave up",
                        rec.gsn
                    )
                });
            }
            if !rec.seen && rec.gsn == NEVER {
                continue;
            }
            let lines = [
                rec.inv_line,
                if rec.seen {
                    rec.seen_line
                } else {
                    rec.place_line
                },
            ];
            if !rec.invoked {
                findings.fail(Id::S2, &lines, || {
                    format!("a record that nobody appended, {}", self.name(rec))
                });
            } else if rec.live == 0 && rec.gsn != NEVER {
                // A hint may show a record that is refused later, as long as it is taken back.
                findings.fail(Id::S2, &lines, || {
                    format!(
                        "{} stands there, though its append had no effect",
                        self.name(rec)
                    )
                });
            } else if rec.seen && rec.seen_hash != rec.hash {
                findings.fail(Id::S2, &lines, || {
                    format!(
                        "{} was appended as {:016x} and seen as {:016x}",
                        self.name(rec),
                        rec.hash,
                        rec.seen_hash
                    )
                });
            } else if rec.seen && context.after(rec.first_call, rec.first_seen) {
                findings.fail(Id::S2, &lines, || {
                    format!("{} was seen before it was appended", self.name(rec))
                });
            }
        }
        findings.checked(Id::S2, seen);
        findings.checked(Id::S3, self.all.len() as u64);
        if context.fifo() {
            self.session_order(findings);
        }
    }

    fn session_order(&mut self, findings: &mut Findings) {
        for session in &mut self.sessions {
            let mut last: Option<(u64, u32)> = None;
            for (csn, at) in std::mem::take(&mut session.by_number).sorted() {
                let rec = &self.all[at as usize];
                if rec.gsn == NEVER {
                    continue;
                }
                findings.checked(Id::S11, 1);
                if let Some((before, earlier)) = last
                    && self.all[earlier as usize].gsn >= rec.gsn
                {
                    let earlier = &self.all[earlier as usize];
                    findings.fail(Id::S11, &[earlier.place_line, rec.place_line], || {
                        format!(
                            "client {} session {}: number {before} stands at {}, number {csn} at {}",
                            session.cid, session.ses, earlier.gsn, rec.gsn
                        )
                    });
                }
                last = Some((csn, at));
            }
        }
    }

    fn name(&self, rec: &Rec) -> String {
        match self.sessions.get(rec.session as usize) {
            Some(session) => format!("a record of client {} session {}", session.cid, session.ses),
            None => "a record".to_owned(),
        }
    }
}

/// A call of an append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) t: u64,
    pub(super) line: Pos,
    pub(super) attempt: u64,
    pub(super) h: u64,
    pub(super) colour: Option<u64>,
}
