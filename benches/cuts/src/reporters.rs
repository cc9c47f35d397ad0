//! The synthetic servers: each writes its report at a fixed rate by the clock, whatever becomes of the reports before (an open
//! loop), or as fast as the core can; and those that read follow what they are told. Nobody else is synthetic.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use ionian_driver_api::Clock;
use ionian_runtime::MonotonicClock;
use ionian_slots::{DownReader, SlotReport, SlotWriter};
use ionian_types::{EntryNo, Inc, SEGMENTS_PER_SHARD_MAX, ShardId, Time, ViewId};
use ionian_wire::frame::{Body, DownShard, MESSAGE_HEADER_BYTES, Report, encode};

use crate::board::{Board, Follower, ages};
use crate::leaf::{DATAGRAM_BYTES, SEAT_BYTES, own_length, send};
use crate::line::is_nothing;

/// Rings looked at between two blocks of reports.
const LOOKS: usize = 32;

/// Who a server is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerOf {
    /// Its number among all.
    pub(crate) number: usize,
    /// The shard epoch that it has entered.
    pub(crate) epoch: ViewId,
    /// Its life.
    pub(crate) inc: Inc,
}

/// What the servers have done so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ReporterCounts {
    /// Reports written.
    pub(crate) written: u64,
    /// Reports left out because the core was a whole period late.
    pub(crate) late: u64,
    /// Frames of cuts that were read, and those that others took the place of unread.
    pub(crate) read: u64,
    pub(crate) lost: u64,
    /// Reports whose age is not known.
    pub(crate) forgotten: u64,
    /// Datagrams that the system did not take.
    pub(crate) refused: u64,
}

/// A server that reads.
#[derive(Debug)]
struct Listener {
    /// Its ring; one that shares a socket has none.
    ring: Option<DownReader>,
    server: usize,
    member: usize,
    follower: Follower,
    /// The last cut that it knows.
    applied: u64,
}

/// How a server's report leaves.
#[derive(Debug)]
enum Way {
    Slot(SlotWriter),
    /// The group with its socket, and the server's number in it.
    Datagram {
        group: u32,
        seat: u32,
    },
}

#[derive(Debug)]
struct Server {
    way: Way,
    epoch: ViewId,
}

/// The servers of one leaf behind one socket.
#[derive(Debug)]
struct Group {
    socket: UdpSocket,
    bytes: Vec<u8>,
    /// The first of its servers, and by server its place among those that read.
    first: usize,
    listeners: Vec<Option<u32>>,
}

/// All servers.
#[derive(Debug)]
pub(crate) struct Reporters {
    board: Arc<Board>,
    clock: MonotonicClock,
    replicas: usize,
    servers: Vec<Server>,
    listeners: Vec<Listener>,
    /// By block of servers: the first listener of it.
    first_listeners: Vec<u32>,
    groups: Vec<Group>,
    buffer: Box<[u8]>,
    /// The round that is being written, from 1, and the next block of it.
    round: u64,
    next: usize,
    looked: usize,
    counts: ReporterCounts,
    pub(crate) ages: Histogram<u64>,
}

impl Reporters {
    pub(crate) fn new(board: Arc<Board>, clock: MonotonicClock, replicas: usize) -> Self {
        Self {
            board,
            clock,
            replicas,
            servers: Vec::new(),
            listeners: Vec::new(),
            first_listeners: Vec::new(),
            groups: Vec::new(),
            buffer: vec![0; DATAGRAM_BYTES * 2].into_boxed_slice(),
            round: 1,
            next: 0,
            looked: 0,
            counts: ReporterCounts::default(),
            ages: ages(),
        }
    }

    /// Servers of a leaf that write to slots and read rings.
    pub(crate) fn add_slots(
        &mut self,
        writers: Vec<SlotWriter>,
        servers: impl Iterator<Item = ServerOf>,
        readers: impl Iterator<Item = Option<DownReader>>,
    ) {
        for ((writer, server), ring) in writers.into_iter().zip(servers).zip(readers) {
            self.add(Way::Slot(writer), server, ring.is_some(), ring);
        }
    }

    /// Servers of a leaf behind a socket.
    pub(crate) fn add_datagrams(
        &mut self,
        socket: UdpSocket,
        servers: Vec<ServerOf>,
        readers: &[bool],
    ) {
        let group = self.groups.len() as u32;
        let mut listeners = Vec::new();
        let first = self.servers.len();
        for (seat, server) in servers.into_iter().enumerate() {
            let reads = readers.get(seat) == Some(&true);
            listeners.push(reads.then_some(self.listeners.len() as u32));
            let seat = seat as u32;
            self.add(Way::Datagram { group, seat }, server, reads, None);
        }
        self.groups.push(Group {
            socket,
            bytes: Vec::with_capacity(2 * DATAGRAM_BYTES),
            first,
            listeners,
        });
    }

    fn add(&mut self, way: Way, server: ServerOf, reads: bool, ring: Option<DownReader>) {
        if server.number.is_multiple_of(self.board.block) {
            self.first_listeners.push(self.listeners.len() as u32);
        }
        if reads {
            self.listeners.push(Listener {
                ring,
                server: server.number,
                member: server.number % self.replicas,
                follower: Follower::new(server.number, self.replicas),
                applied: 0,
            });
        }
        debug_assert_eq!(server.inc, crate::world::server_inc(server.number));
        let epoch = server.epoch;
        self.servers.push(Server { way, epoch });
    }

    pub(crate) const fn counts(&self) -> ReporterCounts {
        self.counts
    }

    pub(crate) const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) const fn clock(&self) -> MonotonicClock {
        self.clock
    }

    /// The number of servers.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The number of them that read.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Rounds of reports that are written whole.
    pub(crate) const fn rounds(&self) -> u64 {
        self.round - 1
    }

    /// The next block of servers writes its reports. Whether a round is whole with it.
    #[inline]
    pub(crate) fn write_block(&mut self, now: Time) -> io::Result<bool> {
        let (board, round, block) = (&*self.board, self.round, self.next);
        board.stamp(round, block, now);
        let committed = board.committed();
        let first = block * board.block;
        let end = (first + board.block).min(self.servers.len());
        let mut listener = self.first_listeners[block] as usize;
        for (number, server) in self.servers[first..end].iter_mut().enumerate() {
            let number = first + number;
            let mut applied = committed;
            if let Some(it) = self.listeners.get(listener)
                && it.server == number
            {
                applied = it.applied;
                listener += 1;
            }
            let len = board.growth.len(round, number / self.replicas);
            let lens = [len; SEGMENTS_PER_SHARD_MAX];
            let report = SlotReport {
                epoch: server.epoch,
                inc: crate::world::server_inc(number),
                seq: round,
                applied: EntryNo::new(applied),
                lens: &lens[..self.replicas],
            };
            match &mut server.way {
                Way::Slot(writer) => {
                    // As many lengths as there are replicas.
                    let _ = writer.write(&report);
                }
                Way::Datagram { group, seat } => {
                    let shard = ShardId::new((number / self.replicas) as u32);
                    let group = &mut self.groups[*group as usize];
                    self.counts.refused += group.write(*seat, shard, &report)?;
                }
            }
        }
        self.counts.written += (end - first) as u64;
        self.next += 1;
        if self.next < board.blocks() {
            // What waits in a buffer would be older than it says.
            if !self.groups.is_empty() {
                self.send_groups()?;
            }
            return Ok(false);
        }
        self.send_groups()?;
        self.next = 0;
        self.round += 1;
        Ok(true)
    }

    fn send_groups(&mut self) -> io::Result<()> {
        for group in &mut self.groups {
            self.counts.refused += group.send()?;
        }
        Ok(())
    }

    /// Reports in datagrams may be lost, and the next ones heal that: after the last round, it is said again.
    pub(crate) fn say_again(&mut self) -> io::Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let (round, committed) = (self.rounds(), self.board.committed());
        for (number, server) in self.servers.iter().enumerate() {
            let Way::Datagram { group, seat } = server.way else {
                continue;
            };
            let len = self.board.growth.len(round, number / self.replicas);
            let report = SlotReport {
                epoch: server.epoch,
                inc: crate::world::server_inc(number),
                seq: round,
                applied: EntryNo::new(committed),
                lens: &[len; SEGMENTS_PER_SHARD_MAX][..self.replicas],
            };
            let shard = ShardId::new((number / self.replicas) as u32);
            self.counts.refused += self.groups[group as usize].write(seat, shard, &report)?;
        }
        self.send_groups()
    }

    /// The schedule leaves out so many blocks.
    pub(crate) fn leave_out(&mut self, blocks: u64) {
        self.counts.late += blocks * self.board.block as u64;
    }

    /// Some of those that read look at what they are told. Frames that they found.
    #[inline]
    pub(crate) fn look(&mut self) -> io::Result<u64> {
        if self.listeners.is_empty() {
            return Ok(0);
        }
        let before = self.counts.read;
        if self.groups.is_empty() {
            self.look_at_rings();
        } else {
            self.look_at_sockets()?;
        }
        Ok(self.counts.read - before)
    }

    fn look_at_rings(&mut self) {
        let Self {
            board,
            clock,
            listeners,
            counts,
            ages,
            ..
        } = self;
        // Whether there is something new comes first: then nobody waits for the line of one before looking for that of the next.
        let looks = LOOKS.min(listeners.len());
        let mut news = 0u32;
        let first = self.looked;
        for look in 0..looks {
            let ring = &listeners[(first + look) % listeners.len()].ring;
            let has_news = ring.as_ref().is_some_and(DownReader::has_news);
            news |= u32::from(has_news) << look;
        }
        self.looked = (first + looks) % listeners.len();
        let (mut covered, mut count) = ([(0, 0); LOOKS], 0);
        while news != 0 {
            let at = (first + news.trailing_zeros() as usize) % listeners.len();
            news &= news - 1;
            let listener = &mut listeners[at];
            let Some(ring) = &mut listener.ring else {
                continue;
            };
            let (member, mut last) = (listener.member, None);
            let mut read = 0;
            let found = ring.receive(|frame| {
                if frame.first() == Some(&DownShard::KIND) {
                    read += 1;
                    last = own_length(frame, member).or(last);
                }
            });
            counts.read += read;
            counts.lost += found.lost;
            if let Some((entry, len)) = last {
                listener.applied = entry;
                covered[count] = (at, len);
                count += 1;
            }
        }
        if count > 0 {
            // Now all of them are read.
            let now = clock.now();
            for (at, len) in &covered[..count] {
                counts.forgotten += listeners[*at].follower.covered(*len, now, board, ages);
            }
        }
    }

    fn look_at_sockets(&mut self) -> io::Result<()> {
        for at in 0..self.groups.len() {
            // A few at a time: reports are to be written, too.
            for _ in 0..4 {
                let group = &mut self.groups[at];
                let len = match group.socket.recv(&mut self.buffer) {
                    Ok(len) => len,
                    Err(error) if is_nothing(&error) => break,
                    Err(error) => return Err(error),
                };
                let now = self.clock.now();
                let mut rest = &self.buffer[..len];
                while let Some((seat, bytes)) = rest.split_first_chunk::<SEAT_BYTES>() {
                    let seat = u32::from_le_bytes(*seat) as usize;
                    let Some(len) = bytes.get(4..8).and_then(|it| it.first_chunk()) else {
                        break;
                    };
                    let len = MESSAGE_HEADER_BYTES + u32::from_le_bytes(*len) as usize;
                    let Some((frame, after)) = bytes.split_at_checked(len) else {
                        break;
                    };
                    rest = after;
                    let listener = group.listeners.get(seat).copied().flatten();
                    let Some(listener) = listener else { continue };
                    let listener = &mut self.listeners[listener as usize];
                    debug_assert_eq!(listener.server, group.first + seat);
                    if frame.first() != Some(&DownShard::KIND) {
                        continue;
                    }
                    self.counts.read += 1;
                    if let Some((entry, len)) = own_length(frame, listener.member) {
                        listener.applied = entry;
                        let (board, ages) = (&self.board, &mut self.ages);
                        self.counts.forgotten += listener.follower.covered(len, now, board, ages);
                    }
                }
            }
        }
        Ok(())
    }

    /// The records of all reports of the rounds that are whole.
    pub(crate) fn records(&self) -> u64 {
        let shards = self.servers.len() / self.replicas;
        let len = |shard| self.board.growth.len(self.rounds(), shard);
        (0..shards).map(len).sum::<u64>() * self.replicas as u64
    }

    /// The reports of a shard's servers as frames, for a trace.
    pub(crate) fn frames(&self, shard: usize) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        (0..self.replicas).map(move |member| {
            let number = shard * self.replicas + member;
            let body = Report {
                shard: ShardId::new(shard as u32),
                epoch: self.servers[number].epoch,
                inc: crate::world::server_inc(number),
                seq: self.rounds(),
                applied: EntryNo::new(self.board.committed()),
                segments: self.replicas as u8,
            };
            let len = self.board.growth.len(self.rounds(), shard).to_le_bytes();
            (
                number,
                crate::trace::encoded(&body, &len.repeat(self.replicas)),
            )
        })
    }

    /// As fast as the core can, nobody reading: for a bare scan.
    pub(crate) fn write_bare(&mut self) -> io::Result<()> {
        while !self.board.over.load(Ordering::Acquire) {
            if !self.groups.is_empty() {
                std::thread::yield_now();
                continue;
            }
            let now = self.clock.now();
            self.write_block(now)?;
        }
        Ok(())
    }
}

impl Group {
    /// Puts a report into the next datagram. Datagrams that the system did not take.
    fn write(&mut self, seat: u32, shard: ShardId, report: &SlotReport<'_>) -> io::Result<u64> {
        let body = Report {
            shard,
            epoch: report.epoch,
            inc: report.inc,
            seq: report.seq,
            applied: report.applied,
            segments: report.lens.len() as u8,
        };
        let mut lens = [0; 8 * SEGMENTS_PER_SHARD_MAX];
        for (bytes, len) in lens.chunks_exact_mut(8).zip(report.lens) {
            bytes.copy_from_slice(&len.to_le_bytes());
        }
        let mut frame = [0; 256];
        let lens = &lens[..8 * report.lens.len()];
        let len = encode(&mut frame, &body, &[lens]).map_err(io::Error::other)?;
        let mut refused = 0;
        if self.bytes.len() + SEAT_BYTES + len > DATAGRAM_BYTES {
            refused = self.send()?;
        }
        self.bytes.extend_from_slice(&seat.to_le_bytes());
        self.bytes.extend_from_slice(&frame[..len]);
        Ok(refused)
    }

    fn send(&mut self) -> io::Result<u64> {
        if self.bytes.is_empty() {
            return Ok(0);
        }
        let taken = send(&self.socket, &self.bytes)?;
        self.bytes.clear();
        Ok(u64::from(!taken))
    }
}
