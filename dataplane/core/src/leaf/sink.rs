//! The way to servers that have a seat and no connection.

use ionian_slots::DownWriter;
use ionian_wire::frame::DownShardFrame;

/// Where a leaf writes what is for servers that have a seat ([`Leaf::seat`](super::Leaf::seat)) and no connection.
pub trait DownSink {
    /// Puts a frame where the server of this slot finds it; `false` if it is lost to it. Never waits: a server asks for what it
    /// missed.
    fn put(&mut self, slot: usize, frame: &[u8]) -> bool;

    /// Puts the same cut where the servers of some slots in a row find it; the number of those to whom it is lost.
    #[inline]
    fn put_run(&mut self, first: usize, count: usize, cut: &DownShardFrame) -> u64 {
        let mut bytes = [0; DownShardFrame::BYTES_MAX];
        let frame = cut.bytes(&mut bytes);
        (first..first + count)
            .map(|slot| u64::from(!self.put(slot, frame)))
            .sum()
    }
}

/// Where nobody has a seat.
impl DownSink for () {
    fn put(&mut self, _: usize, _: &[u8]) -> bool {
        false
    }
}

impl DownSink for DownWriter {
    #[inline]
    fn put(&mut self, slot: usize, frame: &[u8]) -> bool {
        Self::put(self, slot, frame)
    }

    #[inline]
    fn put_run(&mut self, first: usize, count: usize, cut: &DownShardFrame) -> u64 {
        Self::put_run(self, first, count, cut.len_bytes(), cut.words())
    }
}
