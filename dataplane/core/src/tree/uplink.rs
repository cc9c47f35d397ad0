//! The child's side of an edge: how it starts, which of the parent's messages belong to it, and asking for another start.

use alloc::vec::Vec;

use ionian_types::{
    ConnId, EdgeEpoch, EntryNo, Gsn, Inc, Knobs, LogId, Mutant, Nanos, RoundNo, Time,
};
use ionian_wire::codec::Field;
use ionian_wire::frame::{Down, EdgeShards, EdgeStart, EdgeVertex, NeedEdge, ShardStart, Sync};
use ionian_wire::{Reader, WireError};

use crate::outbox::Outbox;

/// Shards below one edge, at most.
const SHARDS_MAX: u32 = 1 << 20;

/// An edge's start, as far as it has come.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) head: EdgeStart,
    /// The vertices, then the shards, as encoded.
    bytes: Vec<u8>,
    shards: u32,
}

impl Start {
    /// The vertices below.
    pub(crate) fn vertices(&self) -> impl ExactSizeIterator<Item = EdgeVertex> + '_ {
        let bytes = &self.bytes[..usize::from(self.head.vertices) * EdgeVertex::LEN];
        let chunks = bytes.chunks_exact(EdgeVertex::LEN);
        chunks.map(|bytes| EdgeVertex::take(bytes).expect("it was read before"))
    }

    /// The shards below, as encoded.
    pub(crate) fn shards(&self) -> &[u8] {
        &self.bytes[usize::from(self.head.vertices) * EdgeVertex::LEN..]
    }

    /// Takes more of the tail. Every part is read once, so that reading it again cannot fail.
    fn extend(&mut self, tail: &[u8], vertices: u16) -> Result<(), WireError> {
        let mut reader = Reader::new(tail);
        for _ in 0..vertices {
            reader.field::<EdgeVertex>()?;
        }
        while !reader.is_empty() {
            ShardStart::read(&mut reader)?;
            self.shards += 1;
        }
        self.bytes.extend_from_slice(tail);
        Ok(())
    }
}

/// What a child does with a Down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// It is of another edge, or old.
    No,
    /// It follows the last one.
    Follows,
    /// One before it is missing.
    Gap,
}

/// The parent as its child knows it.
#[derive(Debug)]
pub(crate) struct Uplink {
    log: LogId,
    inc: Inc,
    /// The connection by which the edge came, or the last one to a parent if there is no edge.
    pub(crate) parent: Option<ConnId>,
    edge: Option<EdgeEpoch>,
    /// The newest edge that began.
    newest: EdgeEpoch,
    starting: Option<Start>,
    /// The last Down, and how far silence is complete.
    pub(crate) down_entry: EntryNo,
    pub(crate) complete: EntryNo,
    pub(crate) end_gsn: Gsn,
    pub(crate) trim: Gsn,
    /// Another start is asked for, and from when on.
    wanted_at: Option<Time>,
    lost: bool,
    pub(crate) full_due: bool,
}

impl Uplink {
    pub(crate) fn new(log: LogId, inc: Inc) -> Self {
        Self {
            log,
            inc,
            parent: None,
            edge: None,
            newest: EdgeEpoch::default(),
            starting: None,
            down_entry: EntryNo::ZERO,
            complete: EntryNo::ZERO,
            end_gsn: Gsn::ZERO,
            trim: Gsn::ZERO,
            wanted_at: None,
            lost: false,
            full_due: false,
        }
    }

    pub(crate) const fn edge(&self) -> Option<EdgeEpoch> {
        self.edge
    }

    /// The parent to tell something on the running edge.
    pub(crate) fn running(&self) -> Option<(ConnId, EdgeEpoch)> {
        Some((self.parent?, self.edge?))
    }

    pub(crate) fn disconnected(&mut self, conn: ConnId) {
        if self.parent == Some(conn) {
            self.parent = None;
            self.starting = None;
        }
    }

    /// An edge begins to start. Once it is whole, [`Self::started`] has it.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub(crate) fn begin(
        &mut self,
        conn: ConnId,
        head: &EdgeStart,
        tail: &[u8],
    ) -> Result<(), WireError> {
        if head.log != self.log || head.edge <= self.newest {
            return Ok(());
        }
        if head.shards > SHARDS_MAX {
            let (field, value) = ("edge shards", u64::from(head.shards));
            return Err(WireError::Range { field, value });
        }
        let mut start = Start {
            head: *head,
            bytes: Vec::new(),
            shards: 0,
        };
        start.extend(tail, head.vertices)?;
        self.parent = Some(conn);
        self.newest = head.edge;
        self.starting = Some(start);
        Ok(())
    }

    /// More of the edge that is starting.
    ///
    /// # Errors
    /// Any [`WireError`]; then the start is given up, and another one asked for.
    pub(crate) fn extend(
        &mut self,
        now: Time,
        conn: ConnId,
        body: &EdgeShards,
        tail: &[u8],
    ) -> Result<(), WireError> {
        let Some(start) = self.starting.as_mut() else {
            return Ok(());
        };
        if self.parent != Some(conn) || body.edge != start.head.edge || body.first != start.shards {
            return Ok(());
        }
        let taken = start.extend(tail, 0);
        if taken.is_err() {
            self.lose(now);
        }
        taken
    }

    /// The edge whose start has come whole: it is the running one from now on.
    pub(crate) fn started(&mut self) -> Option<Start> {
        let whole = self
            .starting
            .take_if(|start| start.shards >= start.head.shards)?;
        let head = &whole.head;
        self.edge = Some(head.edge);
        self.down_entry = head.entry;
        self.complete = head.entry;
        self.end_gsn = head.end_gsn;
        self.trim = head.trim;
        self.wanted_at = None;
        self.lost = false;
        self.full_due = false;
        Some(whole)
    }

    /// Where a Down belongs.
    pub(crate) fn fit<K: Knobs>(&self, conn: ConnId, down: &Down) -> Fit {
        let mine = down.log == self.log && Some(down.edge) == self.edge && down.inc == self.inc;
        if !mine || self.parent != Some(conn) || down.entry <= self.down_entry {
            return Fit::No;
        }
        if down.prev_entry == self.down_entry || K::mutant(Mutant::IgnorePreviousRound) {
            Fit::Follows
        } else {
            Fit::Gap
        }
    }

    /// A Down was applied.
    pub(crate) fn applied(&mut self, down: &Down) {
        self.down_entry = down.entry;
        self.complete = down.entry;
        self.end_gsn = down.end_gsn;
    }

    /// What the parent says of silence: whether that is news. `chosen` is the last round that a Down chose here.
    pub(crate) fn on_sync<K: Knobs>(&mut self, now: Time, sync: &Sync, chosen: RoundNo) -> bool {
        if sync.log != self.log || Some(sync.edge) != self.edge {
            return false;
        }
        if sync.chosen != chosen {
            // A Down was lost: its split can only come from the cut log.
            if sync.chosen > chosen && !K::mutant(Mutant::IgnorePreviousRound) {
                self.lose(now);
            }
            return false;
        }
        let news = sync.complete > self.complete || sync.trim > self.trim;
        if news {
            self.complete = self.complete.max(sync.complete);
            self.end_gsn = self.end_gsn.max(sync.end_gsn);
            self.trim = self.trim.max(sync.trim);
        }
        news
    }

    /// The edge is of no use any more: nothing is derived from a round that is not known here.
    pub(crate) fn lose(&mut self, now: Time) {
        self.edge = None;
        self.starting = None;
        self.lost = true;
        self.wanted_at = Some(now);
    }

    /// An edge below is to be started, for which the parent must say where its shards stand. This edge goes on until then.
    pub(crate) fn want(&mut self, now: Time) {
        self.wanted_at.get_or_insert(now);
    }

    /// Asks for another start, and again every `retry`.
    pub(crate) fn flush(&mut self, now: Time, retry: Nanos, out: &mut Outbox) {
        if let Some(at) = self.wanted_at.filter(|at| now >= *at)
            && let Some(parent) = self.parent.filter(|parent| out.room(*parent) > 0)
        {
            let need = NeedEdge {
                log: self.log,
                edge: self.newest,
                lost: self.lost,
            };
            if out.send(parent, &need, &[]).is_ok() {
                self.wanted_at = Some(at.max(now).after(retry));
            }
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        self.wanted_at.unwrap_or(Time::FAR)
    }
}
