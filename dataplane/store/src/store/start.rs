//! Starting: making a new store, or recovering one.
//!
//! In order: superblocks, the newest good checkpoint, the headers of all chunks, the entries of the journal and of every
//! chunk that may not have been durable, a flush, and the superblock again if copies of it were bad. Nothing is written
//! before whose files these are is known.

use ionian_types::Inc;

use super::Store;
use crate::config::StoreConfig;
use crate::error::{StoreFailure, StoreState};
use crate::format::{
    CheckpointHeader, ChunkHeader, SUPERBLOCK_COPIES, ScanEnd, Superblock, SuperblockError,
};
use crate::op::{BlockOpKind, BlockResult, FileKind, FileNo};
use crate::ops::Job;

mod directory;
mod settle;
mod snapshot;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Making superblock files of a new store.
    Making,
    /// Writing the first superblock.
    FirstSuperblock,
    Superblocks,
    CheckpointHeaders,
    CheckpointBody,
    Headers,
    Scans,
    /// Making superblock files that are missing, and writing copies of chunk headers that are bad.
    Mending,
    Flushing,
}

/// A start under way.
#[derive(Debug)]
pub(super) struct Start {
    phase: Phase,
    /// Operations of this phase in flight.
    left: u32,
    /// The next thing of this phase to ask for.
    next: usize,
    copies: [bool; SUPERBLOCK_COPIES],
    copies_bad: u8,
    /// Those of them that the device refused to read.
    copies_unread: u8,
    best: Option<Superblock>,
    newer: Option<u16>,
    /// Numbers of checkpoint files, ascending.
    checkpoints: Vec<u64>,
    /// Checkpoints to delete once the start has come to a good end.
    doomed: Vec<u64>,
    checkpoint_headers: [Option<CheckpointHeader>; 2],
    checkpoint: Option<CheckpointHeader>,
    checkpoint_copy: u64,
    checkpoint_body: Vec<u8>,
    /// The device refused to read some part of a checkpoint.
    checkpoint_unread: bool,
    files: Vec<FoundFile>,
    /// Chunks whose headers are to be read: file, chunk within it, copy.
    headers: Vec<(u32, u32, bool)>,
    /// Chunks of the journal one of whose headers could not be read: file, chunk within it.
    headers_unread: Vec<(usize, usize)>,
    mends: Vec<Mend>,
    /// How many of them were asked for.
    mended: usize,
    /// Chunks whose entries are to be read.
    scans: Vec<(u8, u64)>,
    /// The greatest first-of-batch that a journal entry or header names.
    journal_floor: u64,
}

/// An extent file and the headers found in it.
#[derive(Debug)]
struct FoundFile {
    file: FileNo,
    number: u64,
    journal: bool,
    /// Both copies for each chunk.
    headers: Vec<[Option<ChunkHeader>; 2]>,
}

impl FoundFile {
    /// The header of each chunk that has one: of two copies the later.
    fn newest(&self) -> impl Iterator<Item = &ChunkHeader> {
        self.headers
            .iter()
            .filter_map(|copies| copies.iter().flatten().max_by_key(|header| header.life))
    }
}

/// A copy of a chunk's header that has to be written again.
#[derive(Debug)]
struct Mend {
    file: FileNo,
    offset: u64,
    header: ChunkHeader,
}

impl Start {
    fn new(phase: Phase, existing: &[FileNo]) -> Self {
        let mut start = Self {
            phase,
            left: 0,
            next: 0,
            copies: [false; SUPERBLOCK_COPIES],
            copies_bad: 0,
            copies_unread: 0,
            best: None,
            newer: None,
            checkpoints: Vec::new(),
            doomed: Vec::new(),
            checkpoint_headers: [None; 2],
            checkpoint: None,
            checkpoint_copy: 0,
            checkpoint_body: Vec::new(),
            checkpoint_unread: false,
            files: Vec::new(),
            headers: Vec::new(),
            headers_unread: Vec::new(),
            mends: Vec::new(),
            mended: 0,
            scans: Vec::new(),
            journal_floor: 0,
        };
        for file in existing {
            match file.kind() {
                Some(FileKind::Superblock(copy)) => start.copies[usize::from(copy)] = true,
                Some(FileKind::Checkpoint(number)) => start.checkpoints.push(number),
                Some(FileKind::JournalExtent(number)) => start.files.push(FoundFile {
                    file: *file,
                    number,
                    journal: true,
                    headers: Vec::new(),
                }),
                Some(FileKind::RecordExtent(number)) => start.files.push(FoundFile {
                    file: *file,
                    number,
                    journal: false,
                    headers: Vec::new(),
                }),
                None => {}
            }
        }
        start.checkpoints.sort_unstable();
        start.files.sort_unstable_by_key(|found| found.file);
        start
    }

    pub(super) fn fill_header(&self, mend: usize, out: &mut [u8]) {
        out.fill(0);
        self.mends[mend].header.emit(out);
    }

    fn go(&mut self, phase: Phase) {
        self.phase = phase;
        self.next = 0;
        self.left = 0;
    }

    /// What a scan at start found.
    pub(super) fn scanned(&mut self, found: ScanEnd) {
        self.journal_floor = self.journal_floor.max(found.floor);
        self.left -= 1;
    }
}

impl Store {
    /// Makes a new store of a flushed class. `existing` are the files that are there already: none, or superblocks that
    /// an earlier attempt left behind ([`StoreFailure::NotFormatted`]).
    ///
    /// The store is ready when the first superblock is durable, with `inc` in it.
    #[must_use]
    pub fn format(config: StoreConfig, inc: Inc, existing: &[FileNo]) -> Self {
        let mut store = Self::begin(config, Phase::Making, existing);
        store.superblock.wanted.inc = inc;
        let data = existing
            .iter()
            .any(|file| !matches!(file.kind(), Some(FileKind::Superblock(_))));
        if data {
            store.fail(StoreFailure::Exists);
        }
        store
    }

    /// Starts from what is on the device. `existing` are all files of this store that are there.
    #[must_use]
    pub fn recover(config: StoreConfig, existing: &[FileNo]) -> Self {
        Self::begin(config, Phase::Superblocks, existing)
    }

    fn begin(config: StoreConfig, phase: Phase, existing: &[FileNo]) -> Self {
        assert!(
            config.class.is_flushed(),
            "class D0 is in memory: Store::new"
        );
        if let Err(error) = config.check() {
            let mut store = Self::build(StoreConfig::new(
                config.cluster,
                config.node,
                config.log,
                config.shard,
                0,
                config.class,
            ));
            store.state = StoreState::Failed(StoreFailure::Config(error));
            return store;
        }
        let mut store = Self::build(config);
        store.start = Some(Box::new(Start::new(phase, existing)));
        store
    }

    /// Asks for what the phase of the start needs next.
    pub(super) fn pump_start(&mut self) {
        // Taken out for the duration: the start and the rest of the store need each other.
        let Some(mut start) = self.start.take() else {
            return;
        };
        match start.phase {
            Phase::Making | Phase::Mending => self.make_superblocks(&mut start),
            Phase::FirstSuperblock => {}
            Phase::Superblocks => self.read_superblocks(&mut start),
            Phase::CheckpointHeaders => self.read_checkpoint_headers(&mut start),
            Phase::CheckpointBody => self.read_checkpoint_body(&mut start),
            Phase::Headers => self.read_headers(&mut start),
            Phase::Scans => self.read_chunks(&mut start),
            Phase::Flushing => {}
        }
        self.start = Some(start);
        match self.start.as_ref().map(|start| start.phase) {
            Some(Phase::FirstSuperblock) => self.pump_superblock(),
            Some(Phase::Scans) => self.pump_fetch(),
            _ => {}
        }
    }

    fn make_superblocks(&mut self, start: &mut Start) {
        while start.next < SUPERBLOCK_COPIES && self.device.has_room(1) {
            let copy = start.next;
            start.next += 1;
            if start.copies[copy] {
                continue;
            }
            start.left += 1;
            self.device.ops.push(
                FileNo::of(FileKind::Superblock(copy as u8)),
                BlockOpKind::Create {
                    bytes: u64::from(self.config.block_bytes),
                },
                Job::SuperCreate,
            );
        }
        if start.next == SUPERBLOCK_COPIES && start.left == 0 {
            while start.mended < start.mends.len() && self.device.has_room(1) {
                let mend = &start.mends[start.mended];
                self.device.ops.push(
                    mend.file,
                    BlockOpKind::Write {
                        offset: mend.offset,
                        len: self.config.block_bytes,
                    },
                    Job::HeaderWrite {
                        mend: start.mended as u32,
                    },
                );
                start.mended += 1;
                start.left += 1;
            }
            if start.left > 0 {
                return;
            }
            if start.phase == Phase::Making {
                self.superblock.forced = true;
                start.go(Phase::FirstSuperblock);
            } else {
                start.go(Phase::Flushing);
                self.device
                    .ops
                    .push(FileNo::NONE, BlockOpKind::Flush, Job::StartFlush);
            }
        }
    }

    pub(super) fn superblock_created(&mut self) {
        if let Some(start) = self.start.as_mut() {
            start.left -= 1;
        }
    }

    pub(super) fn header_mended(&mut self) {
        if let Some(start) = self.start.as_mut() {
            start.left -= 1;
        }
    }

    /// The superblock is durable: a new store is ready.
    pub(super) fn superblock_ready(&mut self) {
        if self
            .start
            .as_ref()
            .is_some_and(|start| start.phase == Phase::FirstSuperblock)
        {
            self.start = None;
            self.state = StoreState::Ready;
        }
    }

    fn read_superblocks(&mut self, start: &mut Start) {
        while start.next < SUPERBLOCK_COPIES && self.device.has_room(1) {
            let copy = start.next as u8;
            start.next += 1;
            if !start.copies[usize::from(copy)] {
                continue;
            }
            start.left += 1;
            self.device.ops.push(
                FileNo::of(FileKind::Superblock(copy)),
                BlockOpKind::Read {
                    offset: 0,
                    len: self.config.block_bytes,
                },
                Job::SuperRead { copy },
            );
        }
        if start.next < SUPERBLOCK_COPIES || start.left > 0 {
            return;
        }
        if let Some(found) = start.newer {
            self.fail(StoreFailure::NewerVersion {
                found,
                known: ionian_wire::DISK_VERSION,
            });
            return;
        }
        let Some(best) = start.best else {
            let present = start.copies.iter().filter(|copy| **copy).count() as u8;
            let empty = start.files.is_empty() && start.checkpoints.is_empty();
            let unread = start.copies_unread;
            self.fail(if unread > 0 {
                StoreFailure::SuperblockUnread { unread, present }
            } else if empty {
                StoreFailure::NotFormatted
            } else {
                StoreFailure::NoValidSuperblock { present }
            });
            return;
        };
        if let Err(failure) = best.check(&self.config) {
            self.fail(failure);
            return;
        }
        self.superblock.found(best);
        start.go(Phase::CheckpointHeaders);
        self.read_checkpoint_headers(start);
    }

    pub(super) fn superblock_read(&mut self, copy: u8, result: BlockResult<'_>) {
        let Some(start) = self.start.as_mut() else {
            return;
        };
        start.left -= 1;
        match result.map(|bytes| Superblock::parse(copy, bytes)) {
            Ok(Ok(superblock)) => {
                let newest = start
                    .best
                    .is_none_or(|best| best.sequence < superblock.sequence);
                if start
                    .best
                    .is_some_and(|best| best.sequence != superblock.sequence)
                {
                    start.copies_bad += 1;
                }
                if newest {
                    start.best = Some(superblock);
                }
            }
            Ok(Err(SuperblockError::Newer { found, .. })) => start.newer = Some(found),
            Ok(Err(SuperblockError::Bad(_))) => start.copies_bad += 1,
            Err(_) => {
                start.copies_bad += 1;
                start.copies_unread += 1;
            }
        }
    }

    pub(super) fn begin_headers(&mut self, start: &mut Start) {
        for number in std::mem::take(&mut start.checkpoints) {
            self.checkpoint.next_number = self.checkpoint.next_number.max(number + 1);
            if self.checkpoint.number != Some(number) {
                start.doomed.push(number);
            }
        }
        for (index, found) in start.files.iter_mut().enumerate() {
            let extents = &mut self.device.extents[usize::from(found.journal)];
            extents.found(found.number);
            found.headers = vec![[None; 2]; extents.chunks() as usize];
            for chunk in 0..extents.chunks() as u32 {
                start.headers.push((index as u32, chunk, false));
                start.headers.push((index as u32, chunk, true));
            }
        }
        start.go(Phase::Headers);
        self.read_headers(start);
    }

    fn read_headers(&mut self, start: &mut Start) {
        while start.next < start.headers.len() && self.device.has_room(1) {
            let (file, chunk, tail) = start.headers[start.next];
            start.next += 1;
            start.left += 1;
            let found = &start.files[file as usize];
            let stream = if found.journal {
                self.journal_index()
            } else {
                0
            };
            let extents = &self.device.extents[usize::from(found.journal)];
            let at = extents.offset_of(u64::from(chunk));
            let to = self.streams[stream].room.to;
            self.device.ops.push(
                found.file,
                BlockOpKind::Read {
                    offset: if tail { at + u64::from(to) } else { at },
                    len: self.config.block_bytes,
                },
                Job::HeaderRead { file, chunk, tail },
            );
        }
        if start.next == start.headers.len() && start.left == 0 {
            self.build_directory(start);
            if self.state == StoreState::Starting {
                start.go(Phase::Scans);
                self.read_chunks(start);
            }
        }
    }

    pub(super) fn header_read(
        &mut self,
        file: usize,
        chunk: usize,
        copy: usize,
        result: BlockResult<'_>,
    ) {
        let Some(mut start) = self.start.take() else {
            return;
        };
        start.left -= 1;
        if result.is_err() && start.files[file].journal {
            if start.headers_unread.contains(&(file, chunk)) {
                // Without the chunk the journal would seem to end before it.
                self.fail(StoreFailure::Device { op: "read" });
            }
            start.headers_unread.push((file, chunk));
        }
        let header = result
            .ok()
            .and_then(|bytes| ChunkHeader::parse(bytes).ok())
            .filter(|header| self.header_belongs(header, &start.files[file], chunk as u64));
        if let Some(header) = header {
            start.files[file].headers[chunk][copy] = Some(header);
            self.device.life = self.device.life.max(header.life);
        }
        self.start = Some(start);
    }

    /// Whether a header is of this store and was meant for the place where it was found.
    fn header_belongs(&self, header: &ChunkHeader, found: &FoundFile, chunk: u64) -> bool {
        let config = &self.config;
        let extents = &self.device.extents[usize::from(found.journal)];
        let stream = if found.journal {
            self.journal_index()
        } else {
            usize::from(header.stream)
        };
        let chunk_bytes = if found.journal {
            config.journal_chunk_bytes
        } else {
            config.chunk_bytes
        };
        header.cluster == config.cluster
            && header.node == config.node
            && header.log == config.log
            && header.shard == config.shard
            && header.file == found.file
            && header.chunk_bytes == chunk_bytes
            && stream < self.streams.len()
            && header.stream == self.stream_code(stream)
            && header.number % extents.chunks() == chunk
    }

    fn read_chunks(&mut self, start: &mut Start) {
        while start.next < start.scans.len() {
            let (stream, number) = start.scans[start.next];
            self.want_chunk(usize::from(stream), number);
            let taken = self.streams[usize::from(stream)]
                .chunk(number)
                .is_some_and(|chunk| chunk.fetching);
            if !taken {
                break;
            }
            start.next += 1;
            start.left += 1;
        }
        if start.next == start.scans.len() && start.left == 0 {
            self.settle(start);
            if self.state == StoreState::Starting {
                start.go(Phase::Mending);
                self.make_superblocks(start);
            }
        }
    }

    /// What was found is durable now, even if the process before had not flushed it.
    pub(super) fn start_flushed(&mut self) {
        if let Some(start) = self.start.take() {
            self.superblock.forced |= start.copies_bad > 0 || start.copies.contains(&false);
            self.state = StoreState::Ready;
            for stream in 0..self.streams.len() {
                self.release(stream);
            }
            // What the process before had no time to give up.
            for segment in 0..self.journal_index() {
                self.give_up_dead(segment);
            }
            for number in start.doomed {
                // What does not fit is deleted after the next start.
                if self.device.has_room(1) {
                    self.delete_checkpoint(number);
                }
            }
        }
    }
}
