//! The store: what the machines above call.

use ionian_types::{Inc, Lsn, SEGMENTS_PER_SHARD_MAX, Slot};
use ionian_wire::record::{RecordHeader, parse_header};

use crate::chunk::Pool;
use crate::config::StoreConfig;
use crate::error::{DamagedRange, StoreError, StoreFailure, StoreState};
use crate::extents::NoExtent;
use crate::format::{Framing, journal_body, journal_emit, journal_encoded_bytes};
use crate::stream::{Found, Room, Run, Stream};

mod batch;
mod checkpoint;
mod device;
mod fetch;
mod open;
mod owners;
mod promise;
mod repair;
mod start;
mod superblock;

pub use promise::Charge;

use checkpoint::CheckpointTask;
use device::Device;
use start::Start;
use superblock::SuperTask;

/// The records of one replica, or the journal of one root member. See the crate's documentation.
///
/// Class D0: [`Store::new`], and that is all. Flushed classes: [`Store::format`] once, [`Store::recover`] at every later
/// start; then, until [`Store::state`] is ready and for ever after, execute what [`Store::next_op`] hands out.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    state: StoreState,
    /// The segments by slot, then the journal.
    streams: Vec<Stream>,
    pool: Pool,
    journal_pool: Pool,
    device: Device,
    superblock: SuperTask,
    checkpoint: CheckpointTask,
    start: Option<Box<Start>>,
    journal_torn: Option<u64>,
    /// Somebody waits for what is in the journal and not handed out.
    journal_due: bool,
    stats: StoreStats,
}

/// A run of whole records that lie back to back in memory. Good until the next call of [`Store::next_op`],
/// [`Store::complete`], [`Store::truncate`], [`Store::trim`] or [`Store::repair`].
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

/// Counters since the start, and sizes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct StoreStats {
    /// Records accepted.
    pub records: u64,
    /// Batches flushed.
    pub batches: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes completed, those of superblocks and checkpoints included.
    pub flushes: u64,
    /// Chunks read back.
    pub fetches: u64,
    /// Chunks whose memory was taken for others.
    pub evictions: u64,
    /// Entries found damaged, each once while it is: those that are repaired, that are gone, and that are still damaged.
    pub damaged: u64,
    /// Damaged entries that were trimmed, or void, before they were repaired.
    pub damaged_gone: u64,
    /// Records repaired.
    pub repaired: u64,
    /// Checkpoints given up for want of space.
    pub checkpoints_refused: u64,
    /// Memory in chunks, bytes.
    pub memory_bytes: u64,
    /// Files of records and of the journal, bytes.
    pub disk_bytes: u64,
    /// Records kept, headers included, bytes; chunks before the last one of a segment count as full.
    pub record_bytes: u64,
    /// Spare files at hand.
    pub spares: u64,
}

/// What recovery found, beside the segments and the journal themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered<'a> {
    /// The newest checkpoint: the last journal entry it covers, and the snapshot.
    pub checkpoint: Option<(u64, &'a [u8])>,
    /// Journal entries from this number on had reached the device in part when the process ended, and are void. They
    /// were never reported durable, unless the device damaged the very last batch.
    pub journal_torn: Option<u64>,
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
        if let Err(error) = config.check() {
            panic!("StoreConfig::check comes first: {error}");
        }
        let mut store = Self::build(config);
        store.state = StoreState::Ready;
        store
    }

    /// An empty store in state starting; the configuration passes its check.
    fn build(config: StoreConfig) -> Self {
        let flushed = config.class.is_flushed();
        let room = |chunk_bytes: u32| {
            let frame = if flushed { config.block_bytes } else { 0 };
            Room {
                from: frame,
                to: chunk_bytes - frame,
            }
        };
        let segment = |_| Stream::new(Framing::Records, room(config.chunk_bytes), 0);
        let journal = Stream::new(Framing::Journal, room(config.journal_chunk_bytes), 1);
        let pool_max = (config.memory_bytes_max / u64::from(config.chunk_bytes)) as usize;
        let journal_max =
            (config.journal_bytes_max / u64::from(config.journal_chunk_bytes)) as usize;
        Self {
            state: StoreState::Starting,
            streams: (0..config.segments).map(segment).chain([journal]).collect(),
            pool: Pool::new(Framing::Records, config.chunk_bytes, pool_max),
            journal_pool: Pool::new(Framing::Journal, config.journal_chunk_bytes, journal_max)
                .filled(),
            device: Device::new(&config, pool_max),
            superblock: SuperTask::new(&config),
            checkpoint: CheckpointTask::default(),
            start: None,
            journal_torn: None,
            journal_due: false,
            stats: StoreStats::default(),
            config,
        }
    }

    /// Where the store is in its life.
    #[must_use]
    pub const fn state(&self) -> StoreState {
        self.state
    }

    /// Whether some segment gets no more files, or no more memory in a store without a device, until something is trimmed.
    #[must_use]
    pub fn has_no_room(&self) -> bool {
        if self.on_device() {
            (0..self.journal_index()).any(|segment| {
                let reserved = self.reserved_for_others(segment);
                self.device.extents[0].check(reserved) == Err(NoExtent::DiskFull)
            })
        } else {
            self.pool.available() == 0
        }
    }

    /// What the store was made with.
    #[must_use]
    pub const fn config(&self) -> &StoreConfig {
        &self.config
    }

    const fn on_device(&self) -> bool {
        self.config.class.is_flushed()
    }

    fn fail(&mut self, failure: StoreFailure) {
        if !matches!(self.state, StoreState::Failed(_)) {
            self.state = StoreState::Failed(failure);
            self.device.ops.drop_queued();
        }
    }

    /// The index of the journal among the streams.
    const fn journal_index(&self) -> usize {
        self.config.segments as usize
    }

    fn journal(&self) -> &Stream {
        &self.streams[self.journal_index()]
    }

    fn pool_of(&mut self, stream: usize) -> &mut Pool {
        if stream == self.journal_index() {
            &mut self.journal_pool
        } else {
            &mut self.pool
        }
    }

    #[inline]
    fn segment(&self, slot: Slot) -> &Stream {
        assert!(
            slot.get() < self.config.segments,
            "slots are below the number of segments"
        );
        &self.streams[slot.index()]
    }

    #[inline]
    fn segment_mut(&mut self, slot: Slot) -> &mut Stream {
        assert!(
            slot.get() < self.config.segments,
            "slots are below the number of segments"
        );
        &mut self.streams[slot.index()]
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

    /// The length of the contiguous prefix held at the class; at D0 the same as [`Self::len`]. It falls by a truncation
    /// only: damage found after the start is listed and repaired, and does not take back what was reported.
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
        if !self.segment(slot).fits(bytes) {
            self.open_chunk(slot.index(), bytes)?;
        }
        Ok(self.segment_mut(slot).reserved(bytes))
    }

    /// Accepts the sealed records now in the first `bytes` of the reserved room, at consecutive positions from `first`.
    ///
    /// # Panics
    /// If `first` is not the segment's length, or the bytes are not whole records within the reserved room.
    #[inline]
    pub fn commit(&mut self, slot: Slot, first: Lsn, bytes: usize) {
        let on_device = self.on_device();
        let segment = self.segment_mut(slot);
        assert!(
            segment.len == first.get(),
            "records are committed at the end of their segment"
        );
        let count = segment.commit(bytes);
        if !on_device {
            segment.durable = segment.len;
        }
        self.stats.records += count;
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
            Found::Away(chunk) => {
                self.want_chunk(slot.index(), chunk);
                Fetch::Wait
            }
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

    /// Makes the records at `len..` void for ever. No effect if there are none. At flushed classes the truncation is
    /// durable before any journal entry appended after it.
    pub fn truncate(&mut self, slot: Slot, len: Lsn) {
        let on_device = self.on_device();
        let index = slot.index();
        let must_open = self.segment(slot).must_open;
        let opens = self.streams[index].cut(len.get(), on_device, &mut self.pool);
        if on_device {
            self.device.clip_batches(index, self.streams[index].len);
        }
        if opens && !must_open {
            self.device.barrier = true;
        }
        if opens {
            self.open_if_cut(index);
            self.give_up_dead(index);
        }
    }

    /// The records at `len..` are not committed: if one of them is damaged, it and all after it are void. To be called
    /// after recovery, once the machine above knows how much was committed; damage below is to be repaired.
    pub fn committed_hint(&mut self, slot: Slot, len: Lsn) {
        let void = self
            .segment(slot)
            .damaged()
            .iter()
            .find(|range| range.to > len)
            .map(|range| range.from.max(len));
        if let Some(from) = void {
            self.truncate(slot, from);
        }
    }

    /// Damaged records that are kept, ascending: to be repaired by [`Self::repair`].
    #[must_use]
    pub fn damaged(&self, slot: Slot) -> &[DamagedRange] {
        self.segment(slot).damaged()
    }

    /// Raises the first position kept to `upto` and frees whole chunks below it. A mark beyond the length moves the
    /// length there: a replica that joins a trimmed segment starts at its mark. At flushed classes the mark becomes
    /// durable, and then the space on the device is freed.
    pub fn trim(&mut self, slot: Slot, upto: Lsn) {
        let on_device = self.on_device();
        let index = slot.index();
        if upto <= self.first(slot) {
            return;
        }
        self.streams[index].trim(upto.get());
        self.streams[index].drop_trimmed_memory(&mut self.pool);
        if on_device {
            self.superblock.wanted.trim[index] = upto.get();
            self.give_up_dead(index);
        } else {
            let needed = self.streams[index].first_needed();
            while self.streams[index].pop_below(needed).is_some() {}
        }
    }

    /// The chunks in front that hold nothing kept are freed with the next superblock. Not after a trim only: a truncation
    /// to the trim mark makes chunks void that no later trim passes before there are records again, for which there may
    /// be no room until those chunks are freed.
    fn give_up_dead(&mut self, index: usize) {
        self.superblock.wanted.base[index] = self.streams[index].first_needed();
    }

    /// Appends an entry to the journal. Returns its number: from 1, dense.
    ///
    /// # Errors
    /// [`StoreError`]; effect none. [`StoreError::Full`] ends with a checkpoint.
    pub fn journal_append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        let number = self.journal_append_lazily(bytes)?;
        self.journal_due = true;
        Ok(number)
    }

    /// As [`Self::journal_append`], but nobody waits for the entry: it goes out when [`Self::journal_urge`] says so, or with
    /// an entry that somebody waits for, and costs no write and no flush until then.
    ///
    /// # Errors
    /// As [`Self::journal_append`].
    pub fn journal_append_lazily(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        self.check_ready()?;
        let index = self.journal_index();
        let total = journal_encoded_bytes(bytes.len());
        if !self.streams[index].fits(total) {
            self.open_chunk(index, total)?;
        }
        let on_device = self.on_device();
        let journal = &mut self.streams[index];
        let number = journal.len;
        journal_emit(journal.reserved(total), number, bytes);
        journal.commit(total);
        if !on_device {
            journal.durable = journal.len;
        }
        Ok(number)
    }

    /// Whether the journal has used half of what it may take: it is time for a checkpoint. Every batch with an entry takes a
    /// block at least, so the number of entries does not tell.
    #[must_use]
    pub fn journal_is_long(&self) -> bool {
        self.on_device() && self.journal_pool.available() < self.journal_pool.made_max() / 2
    }

    /// Entries appended lazily go out now.
    pub const fn journal_urge(&mut self) {
        self.journal_due = true;
    }

    /// The number of the last entry that is held at the class; 0 if none was ever written.
    #[must_use]
    pub fn journal_durable(&self) -> u64 {
        self.journal().durable - 1
    }

    /// The number of the last entry appended; 0 if none was.
    #[must_use]
    pub fn journal_last(&self) -> u64 {
        self.journal().len - 1
    }

    /// The number of the first entry kept; [`Self::journal_last`] + 1 if there is none.
    #[must_use]
    pub fn journal_first(&self) -> u64 {
        self.journal().first
    }

    /// The entry of a number. Every entry kept is in memory.
    #[must_use]
    pub fn journal_read(&self, number: u64) -> Option<&[u8]> {
        journal_body(self.journal().entry(number)?)
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
            upto <= self.journal_last() && upto >= self.checkpoint.durable,
            "a checkpoint covers entries that exist and are not covered"
        );
        if snapshot.len() as u64 > self.config.checkpoint_bytes_max {
            return Err(StoreError::TooLarge);
        }
        if self.on_device() {
            self.checkpoint.begin(&self.config, upto, snapshot)?;
            // It begins when all that it covers is durable.
            self.journal_due = true;
            return Ok(());
        }
        self.checkpoint.durable = upto;
        self.free_journal();
        Ok(())
    }

    /// Drops the entries that the last checkpoint covers.
    fn free_journal(&mut self) {
        let index = self.journal_index();
        self.streams[index].trim(self.checkpoint.durable + 1);
        self.streams[index].drop_trimmed_memory(&mut self.journal_pool);
        let needed = self.streams[index].first_needed();
        if !self.on_device() {
            while self.streams[index].pop_below(needed).is_some() {}
        } else {
            self.superblock.wanted.base[SEGMENTS_PER_SHARD_MAX] = needed;
        }
    }

    /// The last entry that a durable checkpoint covers; 0 if there is none.
    #[must_use]
    pub const fn checkpoint_durable(&self) -> u64 {
        self.checkpoint.durable
    }

    /// Whether a checkpoint is being written.
    #[must_use]
    pub const fn checkpoint_pending(&self) -> bool {
        self.checkpoint.is_pending()
    }

    /// What recovery found. The snapshot is kept until the next checkpoint.
    #[must_use]
    pub fn recovered(&self) -> Recovered<'_> {
        Recovered {
            checkpoint: self.checkpoint.found(),
            journal_torn: self.journal_torn,
        }
    }

    /// Sets the incarnation of the process that uses the store.
    pub fn set_inc(&mut self, inc: Inc) {
        let on_device = self.on_device();
        self.superblock.wanted.inc = inc;
        if !on_device {
            self.superblock.durable.inc = inc;
        }
    }

    /// The incarnation last set; after recovery the one found; [`Inc::ZERO`] if none was.
    #[must_use]
    pub const fn inc(&self) -> Inc {
        self.superblock.wanted.inc
    }

    /// The incarnation that a restart would find; at D0 the one last set.
    #[must_use]
    pub const fn inc_durable(&self) -> Inc {
        self.superblock.durable.inc
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let damage = self.streams.iter().map(|stream| stream.damage.counts());
        let (damaged, damaged_gone) =
            damage.fold((0, 0), |sum, (found, gone)| (sum.0 + found, sum.1 + gone));
        StoreStats {
            damaged,
            damaged_gone,
            record_bytes: (0..usize::from(self.config.segments))
                .map(|segment| self.streams[segment].kept_bytes())
                .sum(),
            memory_bytes: self.pool.resident_bytes() + self.journal_pool.resident_bytes(),
            disk_bytes: self.device.disk_bytes(),
            spares: self.device.spares(),
            ..self.stats
        }
    }
}
