//! Headers in front of a payload: for drivers that carry packets in frames of a network.
//!
//! The payload of a slot always begins at the same place, and [`BufPool::bytes`] begins there, too. A driver that sends
//! puts headers in front with [`BufPool::prepend`]; one that receives lets the device write headers and payload at
//! [`BufPool::dma_address_front`], says with [`BufPool::set_front`] how much came, and takes the headers off again with
//! [`BufPool::strip`]. Nothing is moved.

use super::{Buf, BufPool};

impl Buf {
    /// Bytes of headers in front of the payload. 0 except between a driver's two sides.
    #[must_use]
    pub const fn head_len(&self) -> usize {
        self.head as usize
    }

    /// Bytes of headers and payload together.
    #[must_use]
    pub const fn front_len(&self) -> usize {
        self.head as usize + self.len as usize
    }
}

impl BufPool {
    /// Room in front of each slot's payload, in bytes: what was asked for, rounded up.
    #[must_use]
    pub fn headroom_bytes(&self) -> usize {
        self.arena.headroom_bytes()
    }

    /// Drivers only: puts `bytes` more bytes of headers in front of what there is and returns headers and payload, for
    /// writing. The new bytes hold whatever the slot held.
    ///
    /// # Panics
    ///
    /// If the headroom is too small, or the handle is not of this pool: our own bug.
    pub fn prepend<'a>(&'a self, buf: &'a mut Buf, bytes: usize) -> &'a mut [u8] {
        self.check(buf);
        let head = buf.head_len() + bytes;
        self.set_head(buf, head);
        self.front_mut(buf)
    }

    /// Drivers only: takes all headers off. The payload stays what and where it is.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    pub fn strip(&self, buf: &mut Buf) {
        self.check(buf);
        buf.head = 0;
    }

    /// Drivers only: says that `bytes` bytes are valid from `head` bytes in front of the payload on, as a device that
    /// received there has written them.
    ///
    /// # Panics
    ///
    /// If `bytes` are fewer than `head` or more than the slot has from there on, if the headroom is too small, or if the
    /// handle is not of this pool: our own bug.
    pub fn set_front(&self, buf: &mut Buf, head: usize, bytes: usize) {
        self.check(buf);
        assert!(head <= bytes, "{bytes} bytes with {head} of headers");
        self.set_head(buf, head);
        self.set_len(buf, bytes - head);
    }

    /// Headers and payload.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn front<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        self.check(buf);
        // SAFETY: as in `bytes`: `buf` is the slot's only handle (checked) and is borrowed for `'a`; a driver with the
        // slot in flight would own it; `self` keeps the arena alive for `'a`.
        unsafe { self.arena.slice(buf.index(), buf.head_len(), buf.len()) }
    }

    /// Headers and payload, for writing.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn front_mut<'a>(&'a self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.check(buf);
        // SAFETY: as in `bytes_mut`: `buf` is the slot's only handle (checked) and is exclusively borrowed for `'a`; a
        // driver with the slot in flight would own it; `self` keeps the arena alive for `'a`.
        unsafe { self.arena.slice_mut(buf.index(), buf.head_len(), buf.len()) }
    }

    /// Drivers only: the address `head` bytes in front of the payload of a slot whose handle the driver owns; from there
    /// on `head` and [`BufPool::slot_bytes`] bytes are the slot's. See [`crate::dma`] for who may use it.
    ///
    /// # Panics
    ///
    /// If the headroom is smaller, or the handle is not of this pool: our own bug.
    #[must_use]
    pub fn dma_address_front(&self, buf: &Buf, head: usize) -> *mut u8 {
        self.check(buf);
        self.arena.slot_front(buf.index(), head)
    }

    fn set_head(&self, buf: &mut Buf, head: usize) {
        assert!(
            head <= self.headroom_bytes(),
            "{head} bytes of headers in a headroom of {}",
            self.headroom_bytes()
        );
        buf.head = u32::try_from(head).expect("headroom is at most 4096 bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PoolError, PoolLayout, PoolOptions};
    use super::*;

    fn pool(slot_bytes: u32, headroom_bytes: u32, layout: PoolLayout) -> BufPool {
        let options = PoolOptions {
            slots: 4,
            slot_bytes,
            layout,
        };
        BufPool::with_headroom(options, headroom_bytes).expect("valid size")
    }

    #[test]
    fn headers_go_in_front_and_the_payload_stays() {
        let mut pool = pool(64, 42, PoolLayout::Coloured);
        assert_eq!(pool.headroom_bytes(), 64);
        let mut buf = pool.alloc_from(b"payload").expect("free");
        let other = pool.alloc_from(&[9; 64]).expect("free");
        let at = pool.bytes(&buf).as_ptr();
        pool.prepend(&mut buf, 8)[..8].copy_from_slice(b"udp-head");
        pool.prepend(&mut buf, 3)[..3].copy_from_slice(b"ip-");
        assert_eq!(pool.front(&buf), b"ip-udp-headpayload");
        assert_eq!((buf.head_len(), buf.len(), buf.front_len()), (11, 7, 18));
        assert_eq!(pool.bytes(&buf), b"payload");
        assert_eq!(pool.bytes(&buf).as_ptr(), at);
        pool.strip(&mut buf);
        assert_eq!(pool.front(&buf), b"payload");
        assert_eq!(pool.bytes(&other), [9; 64]);
        pool.free(buf);
        pool.free(other);
        let again = pool.alloc().expect("freed");
        assert_eq!(again.head_len(), 0, "a new life has no headers");
        pool.free(again);
    }

    #[test]
    fn what_a_device_wrote_in_front_is_headers_and_payload() {
        let mut pool = pool(64, 64, PoolLayout::Coloured);
        let mut buf = pool.alloc().expect("free");
        pool.set_front(&mut buf, 14, 20);
        pool.front_mut(&mut buf)
            .copy_from_slice(b"ethernet-frame: six!");
        assert_eq!(pool.bytes(&buf), b": six!");
        let payload = pool.dma_address(&buf) as usize;
        assert_eq!(pool.dma_address_front(&buf, 14) as usize, payload - 14);
        // The largest frame ends where the slot does.
        pool.set_front(&mut buf, 64, 128);
        assert_eq!(pool.front(&buf).len(), 128);
        pool.free(buf);
    }

    #[test]
    fn payloads_lie_as_the_layout_says() {
        for (layout, unit) in [(PoolLayout::Coloured, 64), (PoolLayout::BlockAligned, 4096)] {
            let mut pool = pool(1500, 66, layout);
            for _ in 0..pool.capacity() {
                let buf = pool.alloc().expect("free");
                assert_eq!(pool.dma_address(&buf) as usize % unit, 0, "{layout:?}");
                // Never given back: the pool goes with the test.
                let _ = buf;
            }
        }
        let plain = pool(64, 0, PoolLayout::Coloured);
        assert_eq!(plain.headroom_bytes(), 0);
        let arena = pool(64, 64, PoolLayout::Coloured);
        assert_eq!(
            arena.arena().slots() * arena.arena().stride_bytes(),
            arena.arena().bytes()
        );
    }

    #[test]
    fn too_much_headroom_is_an_error() {
        let options = PoolOptions {
            slots: 1,
            slot_bytes: 64,
            layout: PoolLayout::Coloured,
        };
        assert_eq!(
            BufPool::with_headroom(options, 4097).err(),
            Some(PoolError::Headroom {
                headroom_bytes: 4097
            })
        );
    }

    #[test]
    #[should_panic(expected = "bytes of headers in a headroom of 0")]
    fn headers_without_headroom_are_our_bug() {
        let mut pool = pool(64, 0, PoolLayout::Coloured);
        let mut buf = pool.alloc().expect("free");
        pool.prepend(&mut buf, 1);
    }
}
