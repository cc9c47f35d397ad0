//! A leaf with what is around it: the slots that servers write to, the way back to each of them, and the account of which reports
//! the rounds hold.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use hdrhistogram::Histogram;
use ionian_core::Outbox;
use ionian_core::leaf::{DownSink, Leaf};
use ionian_slots::{DownWriter, SlotReader, SlotReport, SlotWriter};
use ionian_types::{ConnId, Lsn, SEGMENTS_PER_SHARD_MAX, Time};
use ionian_wire::Reader;
use ionian_wire::frame::{Body, DownShard, DownShardFrame, Message};

use crate::board::{Board, Follower, ages};
use crate::line::is_nothing;

/// Bytes of a datagram with reports, or with what servers are told; one more frame fits above.
pub(crate) const DATAGRAM_BYTES: usize = 32 * 1024;
/// Bytes before each frame of such a datagram: the server's number below its leaf.
pub(crate) const SEAT_BYTES: usize = 4;
/// The largest frame to a server.
const FRAME_BYTES_MAX: usize = 1_024;

/// What a leaf has done so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LeafCounts {
    /// Reports that scans have read, and of these, those that committed cuts reflect.
    pub(crate) read: u64,
    pub(crate) reflected: u64,
    /// Reports that others took the place of unread.
    pub(crate) overwritten: u64,
    /// Slots that were being written when the scan came by.
    pub(crate) busy: u64,
    /// Frames of cuts to servers, and their bytes.
    pub(crate) down_frames: u64,
    pub(crate) down_bytes: u64,
    /// The shortest and the longest of them.
    pub(crate) down_least: u64,
    pub(crate) down_most: u64,
    /// Other frames to servers.
    pub(crate) sync_frames: u64,
    /// Reports whose age is not known.
    pub(crate) forgotten: u64,
    /// Datagrams that the system did not take.
    pub(crate) refused: u64,
}

/// A leaf and its servers' side.
#[derive(Debug)]
pub(crate) struct LeafPost {
    pub(crate) leaf: Leaf,
    reader: SlotReader,
    intake: Option<Intake>,
    pub(crate) sink: Sink,
    read: u64,
    reflected: u64,
    overwritten: u64,
    busy: u64,
    /// Of rounds under way: its number, and the reports read until it was made.
    rounds: VecDeque<(u64, u64)>,
    /// Rounds and edges of the leaf's life when its edge started.
    first_round: u64,
    edges: u64,
}

impl LeafPost {
    pub(crate) fn new(leaf: Leaf, reader: SlotReader, intake: Option<Intake>, sink: Sink) -> Self {
        Self {
            leaf,
            reader,
            intake,
            sink,
            read: 0,
            reflected: 0,
            overwritten: 0,
            busy: 0,
            rounds: VecDeque::with_capacity(128),
            first_round: 0,
            edges: 0,
        }
    }

    /// Takes the reports that have come. Their number.
    #[inline]
    pub(crate) fn scan(&mut self, now: Time) -> io::Result<u64> {
        if let Some(intake) = &mut self.intake {
            intake.receive()?;
        }
        let found = self.leaf.scan(now, &mut self.reader);
        self.read += found.read;
        self.overwritten += found.overwritten;
        self.busy += found.busy;
        Ok(found.read)
    }

    /// A frame from above.
    #[inline]
    pub(crate) fn handle(
        &mut self,
        now: Time,
        conn: ConnId,
        message: &Message<'_>,
        out: &mut Outbox,
    ) {
        let downs = self.leaf.counters().downs;
        self.leaf.handle(now, conn, message, out);
        if let Message::Down(down, _) = message
            && self.leaf.counters().downs > downs
        {
            while let Some((round, read)) = self.rounds.front().copied() {
                if round > down.round.get() {
                    break;
                }
                self.rounds.pop_front();
                self.reflected = read;
            }
        }
        if self.leaf.counters().edge_starts > self.edges {
            self.edges = self.leaf.counters().edge_starts;
            self.first_round = self.leaf.counters().rounds;
            self.rounds.clear();
        }
    }

    #[inline]
    pub(crate) fn flush(&mut self, now: Time, out: &mut Outbox) -> io::Result<()> {
        let before = self.leaf.counters().rounds;
        self.leaf.flush_with(now, out, &mut self.sink);
        let after = self.leaf.counters().rounds;
        if after > before {
            self.rounds.push_back((after - self.first_round, self.read));
        }
        self.sink.publish()
    }

    pub(crate) const fn counts(&self) -> LeafCounts {
        LeafCounts {
            read: self.read,
            reflected: self.reflected,
            overwritten: self.overwritten,
            busy: self.busy,
            ..self.sink.counts
        }
    }
}

/// The receiving end of reports that come in datagrams: writes each to its sender's slot.
#[derive(Debug)]
pub(crate) struct Intake {
    socket: UdpSocket,
    /// With the number of the newest report in the slot: a datagram may come twice, or late.
    writers: Vec<(SlotWriter, u64)>,
    buffer: Box<[u8]>,
}

impl Intake {
    pub(crate) fn new(socket: UdpSocket, writers: Vec<SlotWriter>) -> Self {
        Self {
            socket,
            writers: writers.into_iter().map(|writer| (writer, 0)).collect(),
            buffer: vec![0; DATAGRAM_BYTES + FRAME_BYTES_MAX].into_boxed_slice(),
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        // So many datagrams hold a report of every server; more would keep the leaf from its rounds.
        for _ in 0..=self.writers.len() * 128 / DATAGRAM_BYTES {
            let len = match self.socket.recv(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error),
            };
            let mut rest = &self.buffer[..len];
            while let Some((seat, bytes)) = rest.split_first_chunk::<SEAT_BYTES>() {
                let Ok((Message::Report(report, tail), after)) = Message::new_checked(bytes) else {
                    break;
                };
                rest = after;
                let mut lens = [0; SEGMENTS_PER_SHARD_MAX];
                let mut tail = Reader::new(tail);
                let count = usize::from(report.segments).min(lens.len());
                for len in &mut lens[..count] {
                    *len = tail.field::<Lsn>().map_or(0, Lsn::get);
                }
                let slot = SlotReport {
                    epoch: report.epoch,
                    inc: report.inc,
                    seq: report.seq,
                    applied: report.applied,
                    lens: &lens[..count],
                };
                let seat = u32::from_le_bytes(*seat) as usize;
                if let Some((writer, seq)) = self.writers.get_mut(seat)
                    && report.seq > *seq
                {
                    *seq = report.seq;
                    // Another number of lengths than the shard's: as if it were lost.
                    let _ = writer.write(&slot);
                }
            }
        }
        Ok(())
    }
}

/// How what is for servers leaves.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// A ring of each server.
    Rings(DownWriter),
    /// Datagrams to the socket that they share.
    Datagrams { socket: UdpSocket, bytes: Vec<u8> },
}

/// The way back to servers: counts what passes, and notes the ages of reports as of the commit that covers them.
#[derive(Debug)]
pub(crate) struct Sink {
    outlet: Outlet,
    board: Arc<Board>,
    replicas: usize,
    /// Of one server in `1 << shift` it is followed which reports are covered.
    shift: u32,
    followers: Vec<Follower>,
    pub(crate) ages: Histogram<u64>,
    counts: LeafCounts,
    /// Frames with the number of the server, while somebody watches.
    watched: Option<Vec<(usize, Vec<u8>)>>,
    first: usize,
}

impl Sink {
    /// The way to `servers` servers, the first of which has the number `first` among all.
    pub(crate) fn new(
        outlet: Outlet,
        board: Arc<Board>,
        (first, servers, replicas): (usize, usize, usize),
        shift: u32,
    ) -> Self {
        let followed = (0..servers).step_by(1 << shift);
        Self {
            outlet,
            board,
            replicas,
            shift,
            followers: followed
                .map(|seat| Follower::new(first + seat, replicas))
                .collect(),
            ages: ages(),
            counts: LeafCounts {
                down_least: u64::MAX,
                ..LeafCounts::default()
            },
            watched: None,
            first,
        }
    }

    /// Keeps the frames that pass, or does not any more.
    pub(crate) fn watch(&mut self, on: bool) {
        self.watched = on.then(Vec::new);
    }

    /// The frames that were kept.
    pub(crate) fn watched(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.watched.take().unwrap_or_default()
    }

    /// Begins to count frames of cuts, and their lengths, anew.
    pub(crate) const fn recount(&mut self) {
        self.counts.down_frames = 0;
        self.counts.down_bytes = 0;
        self.counts.down_least = u64::MAX;
        self.counts.down_most = 0;
    }

    /// Counts the frames of a cut.
    #[inline]
    const fn count(&mut self, frames: usize, len_bytes: usize) {
        let (frames, len, counts) = (frames as u64, len_bytes as u64, &mut self.counts);
        counts.down_frames += frames;
        counts.down_bytes += len * frames;
        if len < counts.down_least {
            counts.down_least = len;
        }
        if len > counts.down_most {
            counts.down_most = len;
        }
    }

    /// Keeps a frame, if somebody watches.
    #[inline]
    fn note(&mut self, first: usize, count: usize, frame: &[u8]) {
        if let Some(watched) = &mut self.watched {
            let servers = self.first + first..self.first + first + count;
            watched.extend(servers.map(|server| (server, frame.to_vec())));
        }
    }

    #[inline]
    fn follow(&mut self, seat: usize, frame: &[u8]) {
        let Some((entry, len)) = own_length(frame, seat % self.replicas) else {
            return;
        };
        let follower = self.followers.get_mut(seat >> self.shift);
        let at = self.board.committed_at(entry);
        if let (Some(follower), Some(at)) = (follower, at) {
            self.counts.forgotten += follower.covered(len, at, &self.board, &mut self.ages);
        }
    }

    fn publish(&mut self) -> io::Result<()> {
        if let Outlet::Datagrams { socket, bytes } = &mut self.outlet
            && !bytes.is_empty()
        {
            self.counts.refused += u64::from(!send(socket, bytes)?);
            bytes.clear();
        }
        Ok(())
    }
}

/// Sends a datagram; `false` if the system did not take it.
pub(crate) fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<bool> {
    match socket.send(bytes) {
        Ok(_) => Ok(true),
        Err(error) if is_nothing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a frame for a server into the next datagram. Datagrams that the system did not take.
fn write(socket: &UdpSocket, bytes: &mut Vec<u8>, seat: usize, frame: &[u8]) -> u64 {
    let mut refused = 0;
    if bytes.len() + frame.len() > DATAGRAM_BYTES {
        // An error that is not for want of room shows when the flush ends.
        refused = u64::from(!send(socket, bytes).unwrap_or(false));
        bytes.clear();
    }
    bytes.extend_from_slice(&(seat as u32).to_le_bytes());
    bytes.extend_from_slice(frame);
    refused
}

/// The entry that a frame to a server is about, and the length of this member's segment after it.
#[inline]
pub(crate) fn own_length(frame: &[u8], member: usize) -> Option<(u64, u64)> {
    let Ok((Message::DownShard(down, tail), _)) = Message::new_checked(frame) else {
        return None;
    };
    let len = tail.get(16 * member + 8..)?.first_chunk()?;
    Some((down.entry.get(), u64::from_le_bytes(*len)))
}

impl DownSink for Sink {
    #[inline]
    fn put(&mut self, seat: usize, frame: &[u8]) -> bool {
        // Of cuts there may be some with no seats in a row.
        if frame.first() == Some(&DownShard::KIND) {
            self.count(1, frame.len());
            if seat.is_multiple_of(1 << self.shift) {
                self.follow(seat, frame);
            }
        } else {
            self.counts.sync_frames += 1;
        }
        self.note(seat, 1, frame);
        match &mut self.outlet {
            Outlet::Rings(writer) => writer.put(seat, frame),
            Outlet::Datagrams { socket, bytes } => {
                self.counts.refused += write(socket, bytes, seat, frame);
                true
            }
        }
    }

    #[inline]
    fn put_run(&mut self, first: usize, count: usize, cut: &DownShardFrame) -> u64 {
        self.count(count, cut.len_bytes());
        // The one that is followed, if there is one among them.
        let followed = first.next_multiple_of(1 << self.shift);
        if followed < first + count {
            self.follow(followed, cut.bytes(&mut [0; DownShardFrame::BYTES_MAX]));
        }
        if self.watched.is_some() {
            self.note(first, count, cut.bytes(&mut [0; DownShardFrame::BYTES_MAX]));
        }
        match &mut self.outlet {
            Outlet::Rings(writer) => writer.put_run(first, count, cut.len_bytes(), cut.words()),
            Outlet::Datagrams { socket, bytes } => {
                let mut buffer = [0; DownShardFrame::BYTES_MAX];
                let frame = cut.bytes(&mut buffer);
                for seat in first..first + count {
                    self.counts.refused += write(socket, bytes, seat, frame);
                }
                0
            }
        }
    }
}
