//! The store: what the machines above call.

use ionian_types::{ClusterId, Inc, Lsn, Slot};
use ionian_wire::record::{RecordHeader, parse_header};

use crate::chunk::{Framing, Pool};
use crate::config::StoreConfig;
use crate::error::{StoreError, StoreState};
use crate::journal::{JOURNAL_HEADER_BYTES, journal_body, journal_emit, journal_encoded_bytes};
use crate::op::BlockOp;
use crate::stream::{Found, Room, Run, Stream};

/// The records of one replica, or the journal of one root member. See the crate's documentation.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    state: StoreState,
    inc: Inc,
    segments: Vec<Stream>,
    pool: Pool,
    journal: Stream,
    journal_pool: Pool,
    checkpoint: u64,
    records: u64,
}

/// A run of whole records that lie back to back in memory. Good until the next call of [`Store::next_op`],
/// [`Store::truncate`] or [`Store::trim`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunRef {
    /// The segment.
    pub slot: Slot,
    /// The number of the chunk in the segment.
    pub chunk: u64,
    /// First byte within the chunk.
    pub offset: u32,
    /// Length in bytes.
    pub bytes: u32,
    /// Position of the first record.
    pub first: Lsn,
    /// Number of records, at least 1.
    pub count: u32,
}

/// The answer to [`Store::run`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// Here they are.
    Ready(RunRef),
    /// They are being read from the device. Ask again after a completion.
    Wait,
    /// The first position lies below the first one kept.
    Trimmed,
    /// The first position is not held, or the range is empty.
    Beyond,
    /// The record at this position, the first one asked for, is damaged; a peer has a good copy.
    Damaged(Lsn),
}

/// Counters and sizes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreStats {
    /// Records accepted since the start.
    pub records: u64,
    /// Memory in chunks, bytes.
    pub memory_bytes: u64,
}

impl Store {
    /// A store of class D0: in memory, ready at once.
    ///
    /// # Panics
    /// If the configuration does not pass [`StoreConfig::check`] or its class is a flushed one.
    #[must_use]
    pub fn new(config: StoreConfig) -> Self {
        assert!(
            !config.class.is_flushed(),
            "flushed classes start with format or recover"
        );
        let mut store = Self::build(config);
        store.state = StoreState::Ready;
        store
    }

    fn build(config: StoreConfig) -> Self {
        if let Err(error) = config.check() {
            panic!("StoreConfig::check comes first: {error}");
        }
        let room = |chunk_bytes: u32| Room {
            from: 0,
            to: chunk_bytes,
        };
        let pool_max = (config.memory_bytes_max / u64::from(config.chunk_bytes)) as usize;
        let journal_max =
            (config.journal_bytes_max / u64::from(config.journal_chunk_bytes)) as usize;
        Self {
            state: StoreState::Starting,
            inc: Inc::ZERO,
            segments: (0..config.segments)
                .map(|_| Stream::new(Framing::Records, room(config.chunk_bytes), 0))
                .collect(),
            pool: Pool::new(Framing::Records, config.chunk_bytes, pool_max),
            journal: Stream::new(Framing::Journal, room(config.journal_chunk_bytes), 1),
            journal_pool: Pool::new(Framing::Journal, config.journal_chunk_bytes, journal_max),
            checkpoint: 0,
            records: 0,
            config,
        }
    }

    /// Where the store is in its life.
    #[must_use]
    pub const fn state(&self) -> StoreState {
        self.state
    }

    /// What the store was made with.
    #[must_use]
    pub const fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The cluster it belongs to.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.config.cluster
    }

    #[inline]
    fn segment(&self, slot: Slot) -> &Stream {
        &self.segments[slot.index()]
    }

    /// The position after the last record accepted.
    ///
    /// # Panics
    /// Here and in every call with a slot: if the slot is not below the configured number of segments.
    #[must_use]
    #[inline]
    pub fn len(&self, slot: Slot) -> Lsn {
        Lsn::new(self.segment(slot).len)
    }

    /// Whether the segment keeps no record.
    #[must_use]
    #[inline]
    pub fn is_empty(&self, slot: Slot) -> bool {
        let segment = self.segment(slot);
        segment.first == segment.len
    }

    /// The length of the contiguous prefix held at the class; at D0 the same as [`Self::len`].
    #[must_use]
    #[inline]
    pub fn durable_len(&self, slot: Slot) -> Lsn {
        Lsn::new(self.segment(slot).durable)
    }

    /// The first position kept: the trim mark.
    #[must_use]
    #[inline]
    pub fn first(&self, slot: Slot) -> Lsn {
        Lsn::new(self.segment(slot).first)
    }

    const fn check_ready(&self) -> Result<(), StoreError> {
        match self.state {
            StoreState::Ready => Ok(()),
            StoreState::Starting => Err(StoreError::NotReady),
            StoreState::Failed(_) => Err(StoreError::Failed),
        }
    }

    /// Room for exactly `bytes` bytes of encoded records at the end of the segment. Write sealed records into it, then
    /// [`Self::commit`] what was written. Reserving again gives the same room.
    ///
    /// # Errors
    /// [`StoreError`]; effect none.
    #[inline]
    pub fn reserve(&mut self, slot: Slot, bytes: usize) -> Result<&mut [u8], StoreError> {
        self.check_ready()?;
        self.segments[slot.index()].reserve(bytes, &mut self.pool)
    }

    /// Accepts the sealed records now in the first `bytes` of the reserved room, at consecutive positions from `first`.
    ///
    /// # Panics
    /// If `first` is not the segment's length, or the bytes are not whole records within the reserved room.
    #[inline]
    pub fn commit(&mut self, slot: Slot, first: Lsn, bytes: usize) {
        let flushed = self.config.class.is_flushed();
        let segment = &mut self.segments[slot.index()];
        assert!(
            segment.len == first.get(),
            "records are committed at the end of their segment"
        );
        self.records += segment.commit(bytes);
        if !flushed {
            segment.durable = segment.len;
        }
    }

    /// The longest run of whole records at positions from `from` on, below `to`, contiguous in one chunk and of at most
    /// `bytes_max` bytes, but at least one record even if it is larger.
    #[inline]
    pub fn run(&mut self, slot: Slot, from: Lsn, to: Lsn, bytes_max: usize) -> Fetch {
        match self.segment(slot).run(from.get(), to.get(), bytes_max) {
            Found::Run(Run {
                chunk,
                offset,
                bytes,
                count,
            }) => Fetch::Ready(RunRef {
                slot,
                chunk,
                offset,
                bytes,
                first: from,
                count,
            }),
            Found::Away(_) => Fetch::Wait,
            Found::Trimmed => Fetch::Trimmed,
            Found::Beyond => Fetch::Beyond,
            Found::Damaged => Fetch::Damaged(from),
        }
    }

    /// The bytes of a run.
    ///
    /// # Panics
    /// If the run is stale: see [`RunRef`].
    #[must_use]
    #[inline]
    pub fn bytes(&self, run: &RunRef) -> &[u8] {
        let from = run.offset as usize;
        let chunk = self
            .segment(run.slot)
            .chunk_bytes(run.chunk)
            .expect("a run is used before the next call that may move its chunk");
        &chunk[from..from + run.bytes as usize]
    }

    /// The header of the record at `pos`, if the record is kept and in memory.
    #[inline]
    pub fn header(&mut self, slot: Slot, pos: Lsn) -> Option<RecordHeader> {
        parse_header(self.segment(slot).entry(pos.get())?).ok()
    }

    /// Makes the records at `len..` void for ever. No effect if there are none.
    pub fn truncate(&mut self, slot: Slot, len: Lsn) {
        self.segments[slot.index()].truncate_memory(len.get(), &mut self.pool);
    }

    /// Raises the first position kept to `upto` and frees whole chunks below it. A mark beyond the length moves the
    /// length there: a replica that joins a trimmed segment starts at its mark.
    pub fn trim(&mut self, slot: Slot, upto: Lsn) {
        let segment = &mut self.segments[slot.index()];
        segment.trim(upto.get());
        while let Some(chunk) = segment.pop_trimmed() {
            if let Some(buf) = chunk.buf {
                self.pool.put(buf);
            }
        }
    }

    /// Appends an entry to the journal. Returns its number: from 1, dense.
    ///
    /// # Errors
    /// [`StoreError`]; effect none. [`StoreError::Full`] ends with a checkpoint.
    pub fn journal_append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        self.check_ready()?;
        if bytes.len() > self.config.journal_chunk_bytes as usize - JOURNAL_HEADER_BYTES {
            return Err(StoreError::TooLarge);
        }
        let total = journal_encoded_bytes(bytes.len());
        let number = self.journal.len;
        let room = self.journal.reserve(total, &mut self.journal_pool)?;
        journal_emit(room, number, bytes);
        self.journal.commit(total);
        if !self.config.class.is_flushed() {
            self.journal.durable = self.journal.len;
        }
        Ok(number)
    }

    /// The number of the last entry that is held at the class; 0 if none was ever written.
    #[must_use]
    pub const fn journal_durable(&self) -> u64 {
        self.journal.durable - 1
    }

    /// The number of the last entry appended; 0 if none was.
    #[must_use]
    pub const fn journal_last(&self) -> u64 {
        self.journal.len - 1
    }

    /// The number of the first entry kept; [`Self::journal_last`] + 1 if there is none.
    #[must_use]
    pub const fn journal_first(&self) -> u64 {
        self.journal.first
    }

    /// The entry of a number. Every entry kept is in memory.
    #[must_use]
    pub fn journal_read(&self, number: u64) -> Option<&[u8]> {
        journal_body(self.journal.entry(number)?)
    }

    /// Replaces the entries up to and including `upto` by a snapshot. They are kept until the snapshot is durable.
    ///
    /// # Errors
    /// [`StoreError`]; effect none. [`StoreError::Busy`] while an earlier checkpoint is being written.
    ///
    /// # Panics
    /// If `upto` lies beyond the last entry, or below the last checkpoint.
    pub fn journal_checkpoint(&mut self, upto: u64, snapshot: &[u8]) -> Result<(), StoreError> {
        self.check_ready()?;
        assert!(
            upto <= self.journal_last() && upto >= self.checkpoint,
            "a checkpoint covers entries that exist and are not covered"
        );
        if snapshot.len() as u64 > self.config.checkpoint_bytes_max {
            return Err(StoreError::TooLarge);
        }
        self.checkpoint = upto;
        self.free_journal();
        Ok(())
    }

    fn free_journal(&mut self) {
        self.journal.trim(self.checkpoint + 1);
        while let Some(chunk) = self.journal.pop_trimmed() {
            if let Some(buf) = chunk.buf {
                self.journal_pool.put(buf);
            }
        }
    }

    /// The last entry that a durable checkpoint covers; 0 if there is none.
    #[must_use]
    pub const fn checkpoint_durable(&self) -> u64 {
        self.checkpoint
    }

    /// Sets the incarnation of the process that uses the store.
    pub fn set_inc(&mut self, inc: Inc) {
        self.inc = inc;
    }

    /// The incarnation last set; [`Inc::ZERO`] if none was.
    #[must_use]
    pub const fn inc(&self) -> Inc {
        self.inc
    }

    /// The incarnation that a restart would find; at D0 the one last set.
    #[must_use]
    pub const fn inc_durable(&self) -> Inc {
        self.inc
    }

    /// The next operation for the edge, if there is one now. At D0 there never is.
    pub fn next_op(&mut self) -> Option<BlockOp> {
        None
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            records: self.records,
            memory_bytes: self.pool.resident_bytes() + self.journal_pool.resident_bytes(),
        }
    }
}
