//! Lies of a device: writes that it acknowledged and flushed and that are not there or somewhere else, reads from another
//! place, bits that rot, and operations that it reports as failed.

use ionian_store::{BlockError, FileKind, FileNo};

use super::Disk;
use crate::plan::Fault;
use crate::rng::Rng;

/// Places looked at for one that was written.
const TRIES: u32 = 64;
/// Places are addressed in these units, bytes.
const BLOCK: usize = 512;
/// Bytes of a record that a device keeps in a form of its own.
const MARK: usize = 8;
/// Bytes of a record after those one of which rots.
const HIT: usize = 48;

/// What happens at the next operation that it fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// A write is acknowledged, and not there.
    LostWrite,
    /// A write is acknowledged, and somewhere else.
    MisdirectedWrite,
    /// A read answers what stands somewhere else.
    MisdirectedRead,
    /// A flush fails; what was not flushed is there or not.
    FlushFails,
    /// A read fails.
    ReadFails,
}

impl Disk {
    /// A lie is told at the next occasion.
    pub fn arm(&mut self, lie: Lie) {
        self.armed.push(lie);
    }

    /// Nothing bad happens from now on.
    pub fn disarm(&mut self) {
        self.armed.clear();
        self.failing = 0;
        self.full = false;
    }

    /// Whether this lie is due; it is told once.
    pub(super) fn tells(&mut self, lie: Lie) -> bool {
        let at = self.armed.iter().position(|armed| *armed == lie);
        at.map(|at| self.armed.remove(at)).is_some()
    }

    /// Where a write goes; nowhere if it is lost.
    pub(super) fn divert(
        &mut self,
        file: FileNo,
        offset: usize,
        bytes: &[u8],
        rng: &mut Rng,
    ) -> Option<(FileNo, usize)> {
        if self.armed.is_empty() {
            return Some((file, offset));
        }
        let differs = self
            .files
            .get(&file)
            .is_some_and(|found| found.current[offset..offset + bytes.len()] != *bytes);
        if !differs {
            return Some((file, offset));
        }
        if self.tells(Lie::LostWrite) {
            // A cache may show what never reaches the medium.
            if let Some(found) = self.files.get_mut(&file).filter(|_| rng.permille(500)) {
                found.current[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            self.astray.push((self.order, Fault::LostWrite));
            self.lied = true;
            return None;
        }
        if let Some(elsewhere) = self
            .elsewhere(file, offset, bytes.len(), rng)
            .filter(|_| self.tells(Lie::MisdirectedWrite))
        {
            self.astray.push((self.order, Fault::MisdirectedWrite));
            self.lied = true;
            return Some(elsewhere);
        }
        Some((file, offset))
    }

    /// Another aligned place of that length, in the same file or another one of its kind.
    fn elsewhere(
        &self,
        file: FileNo,
        offset: usize,
        len: usize,
        rng: &mut Rng,
    ) -> Option<(FileNo, usize)> {
        let files = match file.kind()? {
            FileKind::RecordExtent(_) => self.files_of(false),
            FileKind::JournalExtent(_) => self.files_of(true),
            _ => return None,
        };
        let target = if files.is_empty() || rng.permille(500) {
            file
        } else {
            rng.pick(&files)
        };
        let room = self.files.get(&target)?.current.len().checked_sub(len)?;
        let to = rng.below((room / BLOCK) as u64 + 1) as usize * BLOCK;
        ((target, to) != (file, offset)).then_some((target, to))
    }

    pub(super) fn read(
        &mut self,
        file: FileNo,
        offset: usize,
        len: usize,
        rng: &mut Rng,
    ) -> Result<Vec<u8>, BlockError> {
        if self.tells(Lie::ReadFails) {
            self.took.push(Fault::ReadFails);
            self.failed = true;
            self.failing = self.unread;
            return Err(BlockError::Io);
        }
        if self.failing > 0 {
            self.failing -= 1;
            return Err(BlockError::Io);
        }
        let bytes_at = |file: FileNo, offset: usize| {
            let found = self.files.get(&file).ok_or(BlockError::NotFound)?;
            Ok(found.current[offset..offset + len].to_vec())
        };
        let right = bytes_at(file, offset)?;
        if self.armed.contains(&Lie::MisdirectedRead)
            && let Some((other, at)) = self.elsewhere(file, offset, len, rng)
        {
            let wrong = bytes_at(other, at)?;
            if wrong != right && self.tells(Lie::MisdirectedRead) {
                self.took.push(Fault::MisdirectedRead);
                self.lied = true;
                return Ok(wrong);
            }
        }
        Ok(right)
    }

    /// Flips a bit of what was flushed to a file of records, or of the journal. Whether there was anything.
    pub fn rot(&mut self, journal: bool, rng: &mut Rng) -> bool {
        let files = self.files_of(journal);
        !files.is_empty()
            && (0..TRIES).any(|_| {
                let file = rng.pick(&files);
                self.flip(file, 0, usize::MAX, rng)
            })
    }

    /// Flips a bit of each durable copy of a record; the first eight bytes differ from device to device. Whether there was one.
    pub fn rot_record(&mut self, record: &[u8], rng: &mut Rng) -> bool {
        let Some(known) = record.get(MARK..).filter(|known| !known.is_empty()) else {
            return false;
        };
        let mut done = false;
        for file in self.files_of(false) {
            let Some(found) = self.files.get_mut(&file) else {
                continue;
            };
            let last = found.durable.len().saturating_sub(known.len());
            for at in (MARK..=last).step_by(8) {
                if found.durable[at..at + known.len()] == *known {
                    // The header stands at the front: no checksum covers what fills up the end.
                    let byte = at + rng.below(HIT.min(known.len()) as u64) as usize;
                    let bit = 1 << rng.below(8);
                    found.durable[byte] ^= bit;
                    found.current[byte] ^= bit;
                    done = true;
                }
            }
        }
        done
    }

    /// Flips a bit of a copy of the superblock in each pair at most, as the layout bears beside a torn write of one pair.
    /// Whether there was anything.
    pub fn rot_superblock(&mut self, rng: &mut Rng) -> bool {
        let mut done = false;
        for pair in [0, 2] {
            let copy = pair + rng.below(2) as u8;
            let name = |copy| FileNo::of(FileKind::Superblock(copy));
            let bears = !(pair..pair + 2).any(|copy| self.rotten.contains(&name(copy)));
            if bears && rng.permille(700) && self.flip_written(name(copy), rng) {
                self.rotten.insert(name(copy));
                done = true;
            }
        }
        done
    }

    /// Flips a bit of one copy of one checkpoint: of one half of its file. Whether there was anything.
    pub fn rot_checkpoint(&mut self, block_bytes: usize, rng: &mut Rng) -> bool {
        let checkpoints: Vec<FileNo> = self
            .files
            .keys()
            .copied()
            .filter(|file| matches!(file.kind(), Some(FileKind::Checkpoint(_))))
            .filter(|file| !self.rotten.contains(file))
            .collect();
        if checkpoints.is_empty() {
            return false;
        }
        let file = rng.pick(&checkpoints);
        let len = self.files[&file].durable.len();
        // Two headers of a block each, then two copies of the snapshot.
        let copies = (len - 2 * block_bytes) / 2;
        let (from, to) = rng.pick(&[
            (0, block_bytes),
            (block_bytes, 2 * block_bytes),
            (2 * block_bytes, 2 * block_bytes + copies),
            (2 * block_bytes + copies, len),
        ]);
        let done = (0..TRIES).any(|_| self.flip(file, from, to, rng));
        if done {
            self.rotten.insert(file);
        }
        done
    }

    fn flip_written(&mut self, file: FileNo, rng: &mut Rng) -> bool {
        (0..TRIES).any(|_| self.flip(file, 0, usize::MAX, rng))
    }

    /// Flips a bit of a byte of the file in that range, unless it is zero: that is most likely room never written.
    fn flip(&mut self, file: FileNo, from: usize, to: usize, rng: &mut Rng) -> bool {
        let Some(found) = self.files.get_mut(&file) else {
            return false;
        };
        let to = to.min(found.durable.len());
        let at = from + rng.below(to.saturating_sub(from) as u64) as usize;
        if at >= to || found.durable[at] == 0 {
            return false;
        }
        let bit = 1 << rng.below(8);
        found.durable[at] ^= bit;
        found.current[at] ^= bit;
        true
    }
}
