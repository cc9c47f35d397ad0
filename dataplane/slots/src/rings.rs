//! What a leaf tells the servers whose slots it scans: a ring of frames per server, in which the oldest gives way to the newest.
//!
//! The leaf never waits for a server, and a server that is slow, paused or gone costs the others nothing: it sees that it missed
//! frames, and asks the cut log for what they said (ORDERING.md, backfill). A frame is copied once, into cache lines that no
//! other server reads.
//!
//! Fault model: readers may stop at any instruction. What is in a ring is the leaf's word, whole or not at all.

use crate::SlotsError;
use crate::seqlock::SeqLock;
use crate::sync::{Arc, AtomicBool, Ordering};

/// The largest number of frames in a ring.
pub const DEPTH_MAX: usize = 1 << 10;
/// The largest number of cells of all rings together; 128 or 192 MiB.
pub const CELLS_MAX: usize = 1 << 20;

/// Bytes of the largest frame to servers of shards with up to three replicas, and with up to seven: one cell of two or three cache
/// lines, less the version and the length.
const SHORT_BYTES: usize = 8 * (SHORT - 1);
const LONG_BYTES: usize = 8 * (LONG - 1);
const SHORT: usize = 15;
const LONG: usize = 23;

/// Rings of frames, one per server. Clones share them.
#[derive(Clone, Debug)]
pub struct DownRings {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: usize,
    depth: usize,
    cells: Cells,
    taken: AtomicBool,
}

#[derive(Debug)]
enum Cells {
    Short(Box<[SeqLock<SHORT>]>),
    Long(Box<[SeqLock<LONG>]>),
}

/// What a server found in its ring.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Received {
    /// Frames handed over.
    pub frames: u64,
    /// Frames that others took the place of before.
    pub lost: u64,
}

impl DownRings {
    /// Empty rings of `depth` frames for so many servers. A frame has 112 bytes at most, or 176 where a shard has more than three
    /// replicas.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Rings`] when they are more than [`CELLS_MAX`] cells, or `depth` is not 1 to [`DEPTH_MAX`].
    pub fn new(servers: usize, replicas: usize, depth: usize) -> Result<Self, SlotsError> {
        let cells = servers.checked_mul(depth);
        let cells = cells.filter(|cells| *cells <= CELLS_MAX && (1..=DEPTH_MAX).contains(&depth));
        let Some(cells) = cells else {
            return Err(SlotsError::Rings { servers, depth });
        };
        let cells = if replicas <= 3 {
            Cells::Short((0..cells).map(|_| SeqLock::default()).collect())
        } else {
            Cells::Long((0..cells).map(|_| SeqLock::default()).collect())
        };
        let taken = AtomicBool::new(false);
        Ok(Self {
            shared: Arc::new(Shared {
                servers,
                depth,
                cells,
                taken,
            }),
        })
    }

    /// The one who writes to all of them; `None` when somebody has been given it. There is never another one: its place in each
    /// ring is its own knowledge.
    #[must_use]
    pub fn writer(&self) -> Option<DownWriter> {
        if self.shared.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(DownWriter {
            next: vec![0; self.shared.servers].into_boxed_slice(),
            shared: self.shared.clone(),
        })
    }

    /// A reader of one server's ring, from its beginning on; `None` when there is no such server.
    #[must_use]
    pub fn reader(&self, server: usize) -> Option<DownReader> {
        (server < self.shared.servers).then(|| DownReader {
            shared: self.shared.clone(),
            server,
            next: 0,
        })
    }
}

impl Shared {
    /// The cell of a server's frame of this number, and its version before that frame was written.
    #[inline]
    fn cell(&self, server: usize, number: u64) -> (usize, u64) {
        let depth = self.depth as u64;
        // A division takes longer than the rest of a write.
        let (turn, place) = if self.depth.is_power_of_two() {
            (number >> self.depth.trailing_zeros(), number & (depth - 1))
        } else {
            (number / depth, number % depth)
        };
        (server * self.depth + place as usize, 2 * turn)
    }
}

/// The leaf's end of all rings.
#[derive(Debug)]
pub struct DownWriter {
    shared: Arc<Shared>,
    next: Box<[u64]>,
}

impl DownWriter {
    /// Writes a frame to a server's ring, in the place of the oldest. Never waits. `false`, and nothing is written, when there is no
    /// such server or the frame is too long.
    #[inline]
    pub fn put(&mut self, server: usize, frame: &[u8]) -> bool {
        if frame.len() > LONG_BYTES {
            return false;
        }
        self.put_run(server, 1, frame.len(), &words(frame)) == 0
    }

    /// Writes the same frame to the rings of some servers in a row, as [`Self::put`] does; the number of those to whom it was not
    /// written. The frame is given as the words that its bytes are, the first one the least of each; what the last has beyond
    /// `len_bytes` does not count.
    #[inline]
    pub fn put_run(&mut self, first: usize, count: usize, len_bytes: usize, words: &[u64]) -> u64 {
        if len_bytes > words.len() * 8 {
            return count as u64;
        }
        let own = len_bytes.div_ceil(8);
        let Self { shared, next } = self;
        let mut written = 0;
        let servers = next.iter_mut().enumerate().skip(first).take(count);
        match &shared.cells {
            Cells::Short(cells) if len_bytes <= SHORT_BYTES => {
                // As many as a cell has, where they are there: a loop that ends where the frame does takes longer.
                let whole = words.first_chunk::<{ SHORT - 1 }>();
                for (server, next) in servers {
                    let (at, version) = shared.cell(server, *next);
                    match whole {
                        Some(words) => cells[at].write(version, [len_bytes as u64], words),
                        None => cells[at].write(version, [len_bytes as u64], &words[..own]),
                    };
                    *next += 1;
                    written += 1;
                }
            }
            Cells::Long(cells) if len_bytes <= LONG_BYTES => {
                for (server, next) in servers {
                    let (at, version) = shared.cell(server, *next);
                    cells[at].write(version, [len_bytes as u64], &words[..own]);
                    *next += 1;
                    written += 1;
                }
            }
            _ => {}
        }
        count as u64 - written
    }
}

/// A server's end of its ring.
#[derive(Debug)]
pub struct DownReader {
    shared: Arc<Shared>,
    server: usize,
    next: u64,
}

impl DownReader {
    /// Whether a frame has come. Costs a look at one line; the others of the frame are asked for, so that those who look at many rings
    /// before they read do not wait for each.
    #[must_use]
    #[inline]
    pub fn has_news(&self) -> bool {
        match &self.shared.cells {
            Cells::Short(cells) => has_news(&self.shared, cells, self.server, self.next),
            Cells::Long(cells) => has_news(&self.shared, cells, self.server, self.next),
        }
    }

    /// Hands over every frame that has come, in order, and says how many were missed. Never waits.
    #[inline]
    pub fn receive(&mut self, each: impl FnMut(&[u8])) -> Received {
        match &self.shared.cells {
            Cells::Short(cells) => receive(&self.shared, cells, self.server, &mut self.next, each),
            Cells::Long(cells) => receive(&self.shared, cells, self.server, &mut self.next, each),
        }
    }
}

#[inline]
fn has_news<const WORDS: usize>(
    shared: &Shared,
    cells: &[SeqLock<WORDS>],
    server: usize,
    next: u64,
) -> bool {
    let (at, before) = shared.cell(server, next);
    let news = cells[at].version() > before;
    if news {
        cells[at].ask();
    }
    news
}

#[inline]
fn receive<const WORDS: usize>(
    shared: &Shared,
    cells: &[SeqLock<WORDS>],
    server: usize,
    next: &mut u64,
    mut each: impl FnMut(&[u8]),
) -> Received {
    let mut received = Received::default();
    let depth = shared.depth as u64;
    // A ring holds no more at once, and one turn finds out what is missing; what comes meanwhile is for the next call.
    for _ in 0..=depth {
        let (at, before) = shared.cell(server, *next);
        let cell = &cells[at];
        if cell.version() <= before + 1 {
            break;
        }
        let Some((version, words)) = cell.read() else {
            // It is being written over: what it held is found to be missing once that is done.
            break;
        };
        let turns = (version - before) / 2 - 1;
        if turns > 0 {
            // The cell has a later frame, and the one after the frame before that is the oldest there is.
            let missing = turns * depth - (depth - 1);
            received.lost += missing;
            *next += missing;
            continue;
        }
        *next += 1;
        received.frames += 1;
        let mut bytes = [[0; 8]; LONG - 1];
        let (len, rest) = words.split_first().expect("a cell has words");
        for (bytes, word) in bytes.iter_mut().zip(rest) {
            *bytes = word.to_le_bytes();
        }
        let bytes = bytes.as_flattened();
        each(&bytes[..(*len as usize).min(bytes.len())]);
    }
    received
}

/// The words that a frame's bytes are.
#[inline]
fn words(frame: &[u8]) -> [u64; LONG - 1] {
    let mut words = [0; LONG - 1];
    for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
        let bytes = bytes.iter().rev();
        *word = bytes.fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}
