//! Two links joined in memory: for tests of what stands above a link, and for examples.
//!
//! Both ends use one pool: a frame that is sent is its slot, given to the other end. A test may look at what is under way,
//! lose it, exchange it, or put frames of its own there.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use ionian_driver_api::BufPool;

use crate::headers::Headers;
use crate::link::{FrameBatch, FrameLink, LinkCaps, LinkStats};
use crate::mac::MacAddr;

/// Frames on their way to one end.
pub type Wire = Rc<RefCell<FrameBatch>>;

/// One end of two links that are joined in memory.
#[derive(Debug)]
pub struct MemoryLink {
    caps: LinkCaps,
    stats: LinkStats,
    /// Frames under way to this end.
    incoming: Wire,
    /// Frames under way to the other end.
    outgoing: Wire,
}

impl MemoryLink {
    /// Two ends with the given addresses that carry IP packets of `mtu_bytes`. Up to `frames_max` frames are under way in
    /// each direction; then the link is full.
    #[must_use]
    pub fn pair(macs: [MacAddr; 2], mtu_bytes: u32, frames_max: usize) -> [Self; 2] {
        let wire = || Rc::new(RefCell::new(FrameBatch::with_capacity(frames_max)));
        let (there, back) = (wire(), wire());
        let end = |mac, incoming: &Wire, outgoing: &Wire| Self {
            caps: LinkCaps {
                backend: "memory",
                mac,
                mtu_bytes,
                headroom_bytes: 0,
                batch_max: frames_max,
                tx_checksum: false,
            },
            stats: LinkStats::default(),
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
        };
        let [near, far] = macs;
        [end(near, &back, &there), end(far, &there, &back)]
    }

    /// From now on frames are sent with checksums left to the link, which has none to fill in, and received frames are
    /// vouched for: a device with offloads and a network that damages nothing.
    pub fn offload_checksums(&mut self) {
        self.caps.tx_checksum = true;
    }

    /// Frames that this end has sent and the other one has not received yet, the oldest first.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.outgoing.clone()
    }
}

impl FrameLink for MemoryLink {
    fn caps(&self) -> LinkCaps {
        self.caps
    }

    fn stats(&mut self) -> LinkStats {
        self.stats
    }

    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize {
        let before = out.len();
        let mut incoming = self.incoming.borrow_mut();
        while !out.is_full() {
            let Some(mut frame) = incoming.pop() else {
                break;
            };
            let bytes = frame.buf.front_len();
            if frame.buf.head_len() != headers.bytes() {
                // Sent by an end with other headers: the frame is moved to where this end wants it.
                if bytes < headers.bytes() {
                    self.stats.rx_short += 1;
                    pool.free(frame.buf);
                    continue;
                }
                let Some(mut moved) = pool.alloc() else {
                    self.stats.rx_missed += 1;
                    pool.free(frame.buf);
                    continue;
                };
                if bytes > headers.bytes() + pool.slot_bytes() {
                    self.stats.rx_oversize += 1;
                    pool.free(moved);
                    pool.free(frame.buf);
                    continue;
                }
                pool.set_front(&mut moved, headers.bytes(), bytes);
                pool.front_mut(&mut moved)
                    .copy_from_slice(pool.front(&frame.buf));
                pool.free(std::mem::replace(&mut frame.buf, moved));
            }
            self.stats.rx_frames += 1;
            if let Err(frame) = out.push(frame) {
                pool.free(frame.buf);
            }
        }
        out.len() - before
    }

    fn tx_burst(&mut self, _pool: &mut BufPool, burst: &mut FrameBatch) -> usize {
        let before = burst.len();
        let mut outgoing = self.outgoing.borrow_mut();
        while !outgoing.is_full() {
            let Some(frame) = burst.pop() else { break };
            self.stats.tx_frames += 1;
            if let Err(frame) = outgoing.push(frame) {
                // There is room, as asked for above.
                let _ = burst.push_front(frame);
                break;
            }
        }
        if !burst.is_empty() {
            self.stats.tx_full += 1;
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        self.incoming.borrow().is_empty()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }

    fn drain(&mut self, pool: &mut BufPool) {
        for wire in [&self.incoming, &self.outgoing] {
            while let Some(frame) = wire.borrow_mut().pop() {
                pool.free(frame.buf);
            }
        }
    }
}
