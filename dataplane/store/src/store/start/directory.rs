//! From the headers of all chunks to the sequence of chunks of each stream.

use super::{Mend, Start};
use crate::chunk::{Chunk, Home};
use crate::error::StoreFailure;
use crate::format::ChunkHeader;
use crate::op::FileNo;
use crate::store::Store;

/// A chunk whose header was found, and where.
struct Known {
    header: ChunkHeader,
    file: FileNo,
    at: u64,
}

impl Store {
    /// Decides which stream each file serves, and lines up the chunks.
    pub(super) fn build_directory(&mut self, start: &mut Start) {
        // (stream, extent number, newest life in it, file): of two files for one extent the newer life is right.
        let mut owners: Vec<(usize, u64, u64, usize)> = Vec::new();
        for (index, found) in start.files.iter().enumerate() {
            let extents = &self.device.extents[usize::from(found.journal)];
            let newest = found
                .newest()
                .filter(|header| self.is_kept(header, found.journal))
                .max_by_key(|header| header.life);
            match newest {
                Some(header) => owners.push((
                    self.stream_of(header, found.journal),
                    extents.extent_of(header.number),
                    header.life,
                    index,
                )),
                None => {
                    self.device.extents[usize::from(found.journal)].free(found.file, usize::MAX)
                }
            }
        }
        owners
            .sort_unstable_by_key(|(stream, extent, life, _)| (*stream, *extent, u64::MAX - *life));
        let mut chunks: Vec<Vec<Known>> = self.streams.iter().map(|_| Vec::new()).collect();
        let mut last = None;
        for (stream, extent, _, index) in owners {
            let found = &start.files[index];
            let extents = &mut self.device.extents[usize::from(found.journal)];
            if last == Some((stream, extent)) {
                extents.free(found.file, usize::MAX);
                continue;
            }
            last = Some((stream, extent));
            self.streams[stream].extents.push_back((extent, found.file));
            for header in found.newest() {
                let extents = &self.device.extents[usize::from(found.journal)];
                let same = self.stream_of(header, found.journal) == stream
                    && extents.extent_of(header.number) == extent;
                if same && self.is_kept(header, found.journal) {
                    let copies = &found.headers[(header.number % extents.chunks()) as usize];
                    let to = u64::from(self.streams[stream].room.to);
                    for (copy, tail) in copies.iter().zip([0, to]) {
                        if *copy != Some(*header) {
                            start.mends.push(Mend {
                                file: found.file,
                                offset: extents.offset_of(header.number) + tail,
                                header: *header,
                            });
                        }
                    }
                    chunks[stream].push(Known {
                        header: *header,
                        file: found.file,
                        at: extents.offset_of(header.number),
                    });
                }
            }
        }
        for (stream, known) in chunks.into_iter().enumerate() {
            self.line_up(start, stream, known);
        }
    }

    const fn stream_of(&self, header: &ChunkHeader, journal: bool) -> usize {
        if journal {
            self.journal_index()
        } else {
            header.stream as usize
        }
    }

    /// Whether a chunk is not left over from before a trim, and its number is one that can be.
    fn is_kept(&self, header: &ChunkHeader, journal: bool) -> bool {
        let stream = self.stream_of(header, journal);
        let base = self.superblock.durable.base[self.base_index(stream)];
        let extents = &self.device.extents[usize::from(journal)];
        // Numbers are given out one after the other, so lost chunks are few beside those found.
        let most = (extents.count + 64).saturating_mul(extents.chunks());
        header.number >= base && header.number - base <= most
    }

    fn line_up(&mut self, start: &mut Start, stream: usize, mut known: Vec<Known>) {
        let is_journal = stream == self.journal_index();
        let trim = if is_journal {
            self.checkpoint.durable + 1
        } else {
            self.superblock.durable.trim[stream]
        };
        known.sort_unstable_by_key(|known| known.header.number);
        let room = self.streams[stream].room;
        let mut base = self.superblock.durable.base[self.base_index(stream)];
        if let Some(first) = known.first()
            && first.header.first <= trim
        {
            base = first.header.number;
        }
        let floor = known.last().map_or(0, |known| known.header.durable);
        if is_journal {
            start.journal_floor = floor;
        }
        let mut next = base;
        let mut chunks = std::mem::take(&mut self.streams[stream].chunks);
        let blank = |first: u64, home: Option<Home>| Chunk {
            first,
            end: u64::MAX,
            used: room.to,
            written: room.to,
            follows: false,
            closed: true,
            cuts: false,
            scanned: false,
            fetching: false,
            batches: 0,
            repaired: None,
            home,
            buf: None,
        };
        for known in known {
            while next < known.header.number {
                chunks.push_back(blank(u64::MAX, None));
                next += 1;
            }
            chunks.push_back(blank(
                known.header.first,
                Some(Home {
                    file: known.file,
                    at: known.at,
                    stamp: known.header.stamp,
                }),
            ));
            next += 1;
        }
        // From the back: a later chunk that starts at or below an earlier position makes what lies above it void.
        let mut bound = u64::MAX;
        let mut successor = false;
        for chunk in chunks.iter_mut().rev() {
            chunk.end = bound;
            chunk.first = chunk.first.min(bound);
            chunk.scanned = successor;
            successor = chunk.home.is_some();
            bound = chunk.first;
        }
        let mut scans = 0;
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let known_durable = chunk.scanned && chunk.end <= floor && !is_journal;
            let void = chunk.first == chunk.end && chunk.end != u64::MAX;
            if chunk.home.is_none() || known_durable || void || chunk.end <= trim {
                chunk.scanned |= void;
                continue;
            }
            scans += 1;
            start.scans.push((stream as u8, base + index as u64));
        }
        let segment = &mut self.streams[stream];
        segment.chunks = chunks;
        segment.base = base;
        segment.first = trim;
        if is_journal && scans > self.journal_pool.made_max() {
            self.fail(StoreFailure::JournalTooLarge {
                bytes_max: self.config.journal_bytes_max,
            });
        }
    }
}
