//! Opening a chunk: memory, a place on the device, a header.

use ionian_types::SEGMENTS_PER_SHARD_MAX;

use super::Store;
use crate::chunk::Home;
use crate::error::StoreError;
use crate::extents::NoExtent;
use crate::format::{ChunkHeader, JOURNAL_STREAM, mix};

impl Store {
    /// Opens a chunk at the end of a stream for an entry of `bytes`.
    #[cold]
    pub(super) fn open_chunk(&mut self, stream: usize, bytes: usize) -> Result<(), StoreError> {
        let room = self.streams[stream].room;
        if bytes > (room.to - room.from) as usize {
            return Err(StoreError::TooLarge);
        }
        if self.pool_of(stream).available() == 0 {
            return Err(StoreError::Full);
        }
        if bytes > 0 && !self.may_take_records(stream) {
            return Err(StoreError::DiskFull);
        }
        let home = if self.on_device() {
            let number = self.streams[stream].next_number();
            Some(self.place_chunk(stream, number)?)
        } else if stream == self.journal_index()
            || self.is_promised(stream)
            || self.space_left() > self.set_aside_for_others(stream)
        {
            None
        } else {
            return Err(StoreError::Full);
        };
        let mut buf = self
            .pool_of(stream)
            .take()
            .expect("the pool was asked before");
        if let Some(home) = home {
            let number = self.streams[stream].next_number();
            let first = self.streams[stream].len;
            let header = self.chunk_header(stream, number, first, home);
            let block = self.config.block_bytes as usize;
            buf.bytes[..block].fill(0);
            header.emit(&mut buf.bytes);
            if stream != self.journal_index() {
                self.device.note_resident(stream, number);
            }
        }
        self.streams[stream].push(home, buf);
        Ok(())
    }

    /// Opens the chunk whose header records a truncation, if one is due and can be had now.
    pub(super) fn open_if_cut(&mut self, stream: usize) {
        if self.streams[stream].must_open && self.check_ready().is_ok() {
            // Refused for want of memory or space: the next pass tries again, and the journal waits for it.
            let _refused = self.open_chunk(stream, 0);
        }
    }

    /// Where a chunk lies: in the extent of its predecessor, or in a fresh one.
    pub(super) fn place_chunk(&mut self, stream: usize, number: u64) -> Result<Home, StoreError> {
        let journal = stream == self.journal_index();
        let promised = journal || self.is_promised(stream);
        let set_aside = !promised && self.space_left() <= self.set_aside_for_others(stream);
        let reserved = if promised {
            0
        } else {
            self.reserved_for_others(stream)
        };
        let extents = &mut self.device.extents[usize::from(journal)];
        let extent = extents.extent_of(number);
        let at = extents.offset_of(number);
        let used = &mut self.streams[stream].extents;
        let index = used.partition_point(|(known, _)| *known < extent);
        let file = match used.get(index) {
            Some((known, file)) if *known == extent => *file,
            _ => {
                if set_aside {
                    return Err(StoreError::DiskFull);
                }
                extents.check(reserved).map_err(|none| match none {
                    NoExtent::Soon => StoreError::Full,
                    NoExtent::DiskFull => StoreError::DiskFull,
                })?;
                let file = extents.take().expect("the extents were asked before");
                used.insert(index, (extent, file));
                file
            }
        };
        self.device.life += 1;
        let life = self.device.life;
        let stamp =
            mix(self.config.entropy ^ mix(life.wrapping_mul(2).wrapping_add(1)) ^ self.inc().get());
        Ok(Home { file, at, stamp })
    }

    /// Extents that a stream must leave to other segments: one for each that has none, once it has one itself.
    pub(super) fn reserved_for_others(&self, stream: usize) -> usize {
        if stream == self.journal_index() || self.streams[stream].extents.is_empty() {
            return 0;
        }
        self.streams[..self.journal_index()]
            .iter()
            .filter(|other| other.extents.is_empty())
            .count()
    }

    pub(super) fn chunk_header(
        &self,
        stream: usize,
        number: u64,
        first: u64,
        home: Home,
    ) -> ChunkHeader {
        ChunkHeader {
            stream: self.stream_code(stream),
            chunk_bytes: if stream == self.journal_index() {
                self.config.journal_chunk_bytes
            } else {
                self.config.chunk_bytes
            },
            cluster: self.config.cluster,
            node: self.config.node,
            log: self.config.log,
            shard: self.config.shard,
            number,
            first,
            durable: self.streams[stream].durable.min(first),
            life: self.device.life,
            stamp: home.stamp,
            inc: self.inc(),
            file: home.file,
        }
    }

    /// How a stream is named in chunk headers.
    pub(super) const fn stream_code(&self, stream: usize) -> u8 {
        if stream == self.journal_index() {
            JOURNAL_STREAM
        } else {
            stream as u8
        }
    }

    /// The index of a stream's base in the superblock.
    pub(super) const fn base_index(&self, stream: usize) -> usize {
        if stream == self.journal_index() {
            SEGMENTS_PER_SHARD_MAX
        } else {
            stream
        }
    }

    /// Frees the chunks and extents that the durable superblock says are not needed.
    pub(super) fn release(&mut self, stream: usize) {
        let journal = stream == self.journal_index();
        let base = self.superblock.durable.base[self.base_index(stream)];
        while let Some(chunk) = self.streams[stream].pop_below(base) {
            if let Some(buf) = chunk.buf {
                self.pool_of(stream).put(buf);
            }
        }
        let kept_max = if journal {
            2
        } else {
            usize::from(self.config.segments) + 1
        };
        let first = self.device.extents[usize::from(journal)].extent_of(self.streams[stream].base);
        while let Some((extent, file)) = self.streams[stream].extents.front().copied() {
            if extent >= first {
                break;
            }
            self.streams[stream].extents.pop_front();
            self.device.extents[usize::from(journal)].free(file, kept_max);
        }
    }

    /// Spare extents to keep ready: one for each stream whose current extent is more than half used.
    pub(super) fn spares_wanted(&self, journal: bool) -> usize {
        let extents = &self.device.extents[usize::from(journal)];
        let streams = if journal {
            &self.streams[self.journal_index()..]
        } else {
            &self.streams[..self.journal_index()]
        };
        streams
            .iter()
            .filter(|stream| {
                let next = stream.next_number();
                let left = match stream.extents.back() {
                    Some((extent, _)) => ((extent + 1) * extents.chunks()).saturating_sub(next),
                    None => 0,
                };
                left * 2 <= extents.chunks()
            })
            .count()
    }

    /// Says how many bytes the device has left for this store's files, beside those that exist. Promises go no further; space
    /// for the journal and a checkpoint is kept back. No limit until it is said.
    pub fn set_space(&mut self, bytes: u64) {
        let [records, journal] = &mut self.device.extents;
        let kept = records.extent_bytes + 2 * journal.extent_bytes;
        records.set_space(bytes.saturating_sub(kept));
    }

    /// Space may have come free on the device by other hands: if it had none, it is asked for one file. To be called now
    /// and then; until that file is there, the answers stay what they were.
    pub fn retry_space(&mut self) {
        for extents in &mut self.device.extents {
            extents.retry();
        }
    }
}
