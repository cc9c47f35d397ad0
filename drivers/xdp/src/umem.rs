//! The frames shared with the kernel: who has each, and the copies in and out.
//!
//! The first frames receive, the others send. Each is the kernel's or ours:
//!
//! ```text
//! receive:  ours --fill ring-->        kernel's --receive ring-->    ours, copied out, ours again
//! send:     ours, copied in --send ring--> kernel's --completion ring--> ours
//! ```
//!
//! The memory is the driver's own, and not the arena of a pool. So a slot of a pool is never the kernel's: what the
//! device holds, loses or keeps when its interface disappears are frames of this file, which go with the link, and the
//! accounts of pools are right at any moment. The price is one copy each way, from and to memory that has just been or will
//! soon be in the cache; in copy mode the kernel copies once more each way, in zero-copy mode the device reads and writes
//! the frames themselves.
//!
//! # Safety model
//!
//! A frame that is the kernel's is not touched. What a descriptor says is checked before it is believed: it must name a
//! frame that the kernel has, and bytes inside it. Bytes are copied by raw pointers, never borrowed, so that even a kernel
//! or device that writes a frame which it has given back does no more than change what is copied.

use std::io;
use std::ptr;

use crate::mapping::Mapping;

/// Frames are as long as this, or as [`FRAME_BYTES_MAX`] where packets need it: smaller ones share the cache better.
const FRAME_BYTES_MIN: u32 = 2048;
/// Largest frame: a page, by the rule of the kernel for frames that it may copy into.
const FRAME_BYTES_MAX: u32 = 4096;
/// What the kernel keeps free in front of a received packet, `XDP_PACKET_HEADROOM` of linux/bpf.h.
const HEADROOM_BYTES: u32 = 256;
/// Ethernet header and VLAN tag.
pub(crate) const LINK_HEADER_BYTES: u32 = 18;
/// Largest MTU whose packets fit a frame.
pub(crate) const MTU_BYTES_MAX: u32 = FRAME_BYTES_MAX - HEADROOM_BYTES - LINK_HEADER_BYTES;

/// Size of the frames for an MTU; `None` if there is none so large.
pub(crate) fn frame_bytes(mtu_bytes: u32) -> Option<u32> {
    [FRAME_BYTES_MIN, FRAME_BYTES_MAX]
        .into_iter()
        .find(|bytes| bytes - HEADROOM_BYTES - LINK_HEADER_BYTES >= mtu_bytes)
}

/// Bytes of a received packet, inside a frame that is ours again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    offset: usize,
    pub(crate) len: usize,
}

/// The frames.
#[derive(Debug)]
pub(crate) struct Umem {
    memory: Mapping,
    frame_bytes: u32,
    rx_frames: u32,
    /// By number: whether the kernel has the frame.
    lent: Box<[bool]>,
    /// Frames to receive into that are ours and wait for the fill ring.
    rx_free: Vec<u32>,
    /// Frames to send from that are ours; the last one back is the first one out, since its lines are the warmest.
    tx_free: Vec<u32>,
}

impl Umem {
    /// Maps the memory of all frames. The numbers of frames have been checked by the options.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOMEM`. Effect: none.
    pub(crate) fn new(frame_bytes: u32, rx_frames: u32, tx_frames: u32) -> io::Result<Self> {
        let frames = rx_frames + tx_frames;
        Ok(Self {
            memory: Mapping::anonymous(frames as usize * frame_bytes as usize)?,
            frame_bytes,
            rx_frames,
            lent: vec![false; frames as usize].into_boxed_slice(),
            rx_free: (0..rx_frames).rev().collect(),
            tx_free: (rx_frames..frames).rev().collect(),
        })
    }

    /// What the kernel is told of the memory.
    pub(crate) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.memory.at(0, 0).as_ptr().expose_provenance() as u64,
            len: self.memory.bytes() as u64,
            chunk_size: self.frame_bytes,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// Lends a frame to receive into; its address is for the fill ring. `None` when the kernel has them all.
    pub(crate) fn lend_rx(&mut self) -> Option<u64> {
        let frame = self.rx_free.pop()?;
        self.lent[frame as usize] = true;
        Some(self.address(frame))
    }

    /// Takes a lend back that the fill ring had no room for.
    pub(crate) fn unlend_rx(&mut self, address: u64) {
        let back = self.take_back(address, false);
        debug_assert!(back.is_some(), "it was lent just now");
    }

    /// Takes a frame back that came by the receive ring. `None` if the kernel did not have such a frame. The answer is
    /// good until the frame is lent again. A packet that is said to reach beyond its frame has no bytes.
    pub(crate) fn receive(&mut self, address: u64, len: u32) -> Option<Received> {
        let within = self.take_back(address, false)?;
        let inside = within
            .checked_add(len)
            .is_some_and(|end| end <= self.frame_bytes);
        Some(Received {
            offset: address as usize,
            len: if inside { len as usize } else { 0 },
        })
    }

    /// Takes a frame back that came by the completion ring. `false` if the kernel did not have such a frame.
    pub(crate) fn complete(&mut self, address: u64) -> bool {
        self.take_back(address, true).is_some()
    }

    /// Copies a received packet to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of the packet's length and nobody else uses those bytes meanwhile.
    pub(crate) unsafe fn copy_out(&self, packet: Received, to: *mut u8) {
        let from = self.memory.at(packet.offset, packet.len).as_ptr();
        // SAFETY: the source lies inside the mapping (checked by `at`), in a frame that is ours; the destination is the
        // caller's, who says that nobody else uses it, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(from, to, packet.len) };
    }

    /// Copies a packet into a frame and lends it; its address is for the send ring. `None` when the kernel has all frames.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `len` bytes and nobody writes them meanwhile.
    ///
    /// # Panics
    ///
    /// If the packet is larger than a frame: the link checks that.
    pub(crate) unsafe fn copy_in(&mut self, from: *const u8, len: usize) -> Option<u64> {
        assert!(len <= self.frame_bytes as usize, "{len} bytes in a frame");
        let frame = self.tx_free.pop()?;
        let address = self.address(frame);
        let to = self.memory.at(address as usize, len).as_ptr();
        // SAFETY: the destination lies inside the mapping (checked by `at`), in a frame that is ours; the source is the
        // caller's, who says that it is valid, and pools and this mapping do not overlap.
        unsafe { ptr::copy_nonoverlapping(from, to, len) };
        self.lent[frame as usize] = true;
        Some(address)
    }

    fn address(&self, frame: u32) -> u64 {
        u64::from(frame) * u64::from(self.frame_bytes)
    }

    /// Makes a lent frame ours. Returns how far into it the address points.
    fn take_back(&mut self, address: u64, sent: bool) -> Option<u32> {
        let frame = u32::try_from(address / u64::from(self.frame_bytes)).ok()?;
        let lent = self.lent.get_mut(frame as usize)?;
        if !*lent || sent != (frame >= self.rx_frames) {
            return None;
        }
        *lent = false;
        // Neither list grows: a frame that was lent is in none.
        if sent {
            self.tx_free.push(frame);
        } else {
            self.rx_free.push(frame);
        }
        Some((address % u64::from(self.frame_bytes)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_large_as_the_packets_need() {
        assert_eq!(frame_bytes(1500), Some(2048));
        assert_eq!(frame_bytes(1774), Some(2048));
        assert_eq!(frame_bytes(1775), Some(4096));
        assert_eq!(frame_bytes(MTU_BYTES_MAX), Some(4096));
        assert_eq!(frame_bytes(MTU_BYTES_MAX + 1), None);
        assert_eq!(frame_bytes(u32::MAX), None);
    }

    #[test]
    fn a_frame_has_one_owner_and_the_kernel_gives_back_only_what_it_has() {
        let mut umem = Umem::new(2048, 4, 2).expect("memory");
        let lent: Vec<u64> = std::iter::from_fn(|| umem.lend_rx()).collect();
        assert_eq!(lent, [0, 2048, 4096, 6144]);
        // A packet behind the kernel's headroom, once.
        let packet = umem.receive(2048 + 256, 100).expect("it was lent");
        assert_eq!((packet.offset, packet.len), (2304, 100));
        assert_eq!(umem.receive(2048 + 256, 100), None, "given back twice");
        // One that reaches beyond its frame comes back without bytes.
        let packet = umem.receive(4096 + 256, 1793).expect("it was lent");
        assert_eq!(packet.len, 0);
        let packet = umem.receive(6144 + 256, u32::MAX).expect("it was lent");
        assert_eq!(packet.len, 0);
        // Addresses of frames that send, or of no frame.
        for address in [8192, 4 * 2048 + 256, 6 * 2048, u64::MAX, 1 << 40] {
            assert_eq!(umem.receive(address, 1), None, "{address}");
        }
        assert!(!umem.complete(0), "a frame that receives");
        assert!(!umem.complete(8192), "not lent");
        assert_eq!(umem.rx_free.len(), 3);
    }

    #[test]
    fn bytes_go_in_and_out_by_copy() {
        let mut umem = Umem::new(2048, 1, 2).expect("memory");
        let message = *b"through the kernel and back";
        // SAFETY: both point to local arrays of that length.
        let sent = unsafe { umem.copy_in(message.as_ptr(), message.len()) };
        assert_eq!(sent, Some(2048));
        let mut back = [0u8; 27];
        let packet = Received {
            offset: 2048,
            len: message.len(),
        };
        // SAFETY: points to a local array of that length.
        unsafe { umem.copy_out(packet, back.as_mut_ptr()) };
        assert_eq!(back, message);
        assert_eq!(umem.tx_free.len(), 1);
        // SAFETY: as above.
        assert_eq!(unsafe { umem.copy_in(back.as_ptr(), 1) }, Some(4096));
        // SAFETY: as above.
        assert_eq!(unsafe { umem.copy_in(back.as_ptr(), 1) }, None);
        assert!(umem.complete(2048) && !umem.complete(2048));
        assert_eq!(umem.tx_free.len(), 1);
    }
}
