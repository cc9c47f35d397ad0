//! Repair: a good copy of a damaged record, from a peer, takes the place of the bad one.
//!
//! The same record has the same length, so the missing records of a hole fit where they were, put back to back from the
//! hole's start. The blocks around are written again in place, which is safe: their other bytes do not change, so a torn
//! write leaves either the old or the new of each, and the damaged record was lost anyway. A chunk that lost both copies
//! of its header is begun anew, empty, and filled in the same way.

use ionian_types::Slot;
use ionian_wire::record::RecordView;

use super::Store;
use crate::error::StoreError;
use crate::format::Place;

impl Store {
    /// Replaces a damaged record by a good copy. Of each run of damaged records the first is to be repaired first. The
    /// record can be read at once; it counts as durable when it is flushed.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while the chunk is read back; [`StoreError::NotARepair`] if the record is not good, not of
    /// this segment, not the first of a damaged run, or does not fit. It always fits if it was durable here; it may not
    /// if what is missing is another record, from before a truncation that a crash undid: truncate there then, and copy
    /// what follows as new records. Others as for [`Store::reserve`]. Effect none.
    pub fn repair(&mut self, slot: Slot, record: &[u8]) -> Result<(), StoreError> {
        self.check_ready()?;
        let view = RecordView::new_checked(record).map_err(|_| StoreError::NotARepair)?;
        let header = view.header();
        if header.log != self.config.log
            || header.segment.shard != self.config.shard
            || header.segment.slot != slot
            || view.encoded().len() != record.len()
        {
            return Err(StoreError::NotARepair);
        }
        let pos = header.position.get();
        let listed = self
            .damaged(slot)
            .iter()
            .any(|range| range.from <= header.position && header.position < range.to);
        if !listed {
            return Err(StoreError::NotARepair);
        }
        let stream = slot.index();
        let mut index = self.streams[stream]
            .find(pos)
            .ok_or(StoreError::NotARepair)?;
        self.bring_in(stream, index)?;
        if !self.put_back(stream, index, pos, record)? {
            // The chunk is full: what is missing from here on was in the next one, whose headers are lost.
            if !self.streams[stream].shift_hole(index, pos) {
                return Err(StoreError::NotARepair);
            }
            index += 1;
            self.bring_in(stream, index)?;
            if !self.put_back(stream, index, pos, record)? {
                return Err(StoreError::NotARepair);
            }
        }
        let number = self.streams[stream].base + index as u64;
        let segment = &mut self.streams[stream];
        if !segment.repairs.contains(&number) {
            segment.repairs.push(number);
        }
        segment.damage.remove(pos);
        self.stats.repaired += 1;
        Ok(())
    }

    /// Sees to it that a chunk has a place on the device and is in memory.
    fn bring_in(&mut self, stream: usize, index: usize) -> Result<(), StoreError> {
        let number = self.streams[stream].base + index as u64;
        if self.streams[stream].chunks[index].home.is_none() {
            self.begin_anew(stream, number)?;
        }
        if self.streams[stream].chunks[index].buf.is_none() {
            self.want_chunk(stream, number);
            return Err(StoreError::Busy);
        }
        Ok(())
    }

    /// Gives a chunk whose headers are lost a place, memory and a header, with every entry missing.
    fn begin_anew(&mut self, stream: usize, number: u64) -> Result<(), StoreError> {
        if self.pool.available() == 0 {
            return Err(StoreError::Full);
        }
        let home = self.place_chunk(stream, number)?;
        let mut buf = self.pool.take().expect("the pool was asked before");
        let chunk = self.streams[stream]
            .chunk(number)
            .expect("a chunk that holds a damaged position is kept");
        let header = self.chunk_header(stream, number, chunk.first, home);
        let block = self.config.block_bytes;
        buf.bytes[..block as usize].fill(0);
        header.emit(&mut buf.bytes);
        let room = self.streams[stream].room;
        let chunk = self.streams[stream].chunk_mut(number).expect("found above");
        let places = buf.places.capacity() as u64;
        let missing = (chunk.end - chunk.first).min(places);
        buf.places
            .resize(missing as usize, Place::damaged(room.from));
        chunk.home = Some(home);
        chunk.used = room.to;
        chunk.written = room.to;
        chunk.repaired = Some((0, block));
        chunk.buf = Some(buf);
        self.device.note_resident(stream, number);
        Ok(())
    }

    /// Puts a record where it is missing; false if there is no room for it.
    fn put_back(
        &mut self,
        stream: usize,
        index: usize,
        pos: u64,
        record: &[u8],
    ) -> Result<bool, StoreError> {
        let segment = &mut self.streams[stream];
        let room = segment.room;
        let first_kept = segment.first;
        let chunk = &mut segment.chunks[index];
        let buf = chunk.buf.as_mut().ok_or(StoreError::Busy)?;
        let at = (pos - chunk.first) as usize;
        let Some(&place) = buf.places.get(at) else {
            return Ok(false);
        };
        let heads_run = at == 0 || pos == first_kept || !buf.places[at - 1].is_damaged();
        if !place.is_damaged() || !heads_run {
            return Err(StoreError::NotARepair);
        }
        // Records of the hole that are trimmed stay missing; a scan takes the next one only behind room for them.
        let trimmed = buf.places[..at]
            .iter()
            .rev()
            .take_while(|place| place.is_damaged())
            .count();
        let from = place.offset() + (trimmed * segment.framing.entry_bytes_min()) as u32;
        let to = from + record.len() as u32;
        let run = buf.places[at..]
            .iter()
            .take_while(|place| place.is_damaged())
            .count();
        let next = buf.places.get(at + run).copied();
        let limit = next.map_or(room.to, Place::offset);
        if to > limit {
            return Ok(false);
        }
        buf.bytes[from as usize..to as usize].copy_from_slice(record);
        // Apart from its predecessor: the place may follow padding that the hole swallowed.
        buf.places[at] = Place::new(from, false);
        for place in &mut buf.places[at + 1..at + run] {
            *place = Place::damaged(to);
        }
        // What is left of the hole holds whatever was damaged: nothing that a mark fits.
        if let Some(next) = next {
            buf.places[at + run] = Place::new(next.offset(), false);
        }
        chunk.repaired = Some(match chunk.repaired {
            Some((low, high)) => (low.min(from), high.max(to)),
            None => (from, to),
        });
        Ok(true)
    }
}
