//! Truncation: the entries from a position on become void for ever.

use super::Stream;
use crate::chunk::Pool;

impl Stream {
    /// Drops the entries at `len..`. For a stream on a device, what was not handed to it yet is simply forgotten; what
    /// was stays there, void, and the stream goes on in a new chunk whose header says so. Returns whether that header
    /// has to be written: [`Stream::must_open`] is set then.
    pub(crate) fn cut(&mut self, len: u64, on_device: bool, pool: &mut Pool) -> bool {
        let len = len.max(self.first);
        if len >= self.len {
            return false;
        }
        let mut must_open = self.must_open;
        while let Some(chunk) = self.chunks.back_mut() {
            let untouched = chunk.written == 0 && chunk.batches == 0;
            // One that starts just there stays: its header, not written yet, may be the record of an earlier truncation.
            if chunk.first <= len || !untouched {
                break;
            }
            if let Some(buf) = self.chunks.pop_back().and_then(|chunk| chunk.buf) {
                pool.put(buf);
            }
        }
        for chunk in self.chunks.iter_mut().rev() {
            if chunk.end <= len {
                if chunk.first < len {
                    break;
                }
                continue;
            }
            let header_holds = chunk.first <= len;
            let kept = len.saturating_sub(chunk.first) as usize;
            chunk.first = chunk.first.min(len);
            chunk.end = len;
            let place = chunk.buf.as_mut().and_then(|buf| {
                let place = buf.places.get(kept).copied();
                buf.places.truncate(kept);
                place
            });
            // Entries that were not handed out are forgotten; a closed chunk then hands out less.
            match place {
                Some(place)
                    if header_holds
                        && !place.is_damaged()
                        && (!on_device || place.offset() >= chunk.written.max(self.room.from)) =>
                {
                    chunk.used = place.offset();
                    chunk.follows = place.follows();
                }
                _ => {
                    must_open |= on_device;
                    chunk.closed |= on_device;
                }
            }
        }
        if !on_device && let Some(last) = self.chunks.back_mut() {
            last.closed = false;
        }
        self.len = len;
        self.emitted = self.emitted.min(len);
        self.flushed = self.flushed.min(len);
        self.durable = self.durable.min(len);
        self.damage.cut(len);
        self.cap = self.damage.cap();
        self.dirty = self.dirty.min(self.next_number().saturating_sub(1));
        self.must_open = must_open;
        must_open
    }
}
