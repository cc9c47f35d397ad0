//! One pair of queues as a link that carries Ethernet frames, driven by one thread.
//!
//! A burst is received into DPDK's buffers and copied into slots, or copied from slots and sent. Frames that the device did not take
//! wait here, already copied, and go first in the next call; their slots are free again.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ionian_dpdk_sys as sys;
use ionian_driver_api::BufPool;
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, LinkCaps, LinkStats, MacAddr};

use super::gate::Pass;
use super::port::{Port, PortStats};

/// Bursts between two looks at a link that is up, a power of two. A look may be a system call; so many bursts take milliseconds at
/// least.
const LOOK_UP_BURSTS: u32 = 1 << 16;
/// The same for a link that is down: coming back is to be seen soon.
const LOOK_DOWN_BURSTS: u32 = 1 << 10;
/// Bursts that found the device full, one after the other, after which the link is looked at: it may be down.
const FULL_BURSTS: u32 = 64;
/// Ethernet header and one tag, in bytes.
const ETHERNET_BYTES: u32 = 14 + 4;

/// What follows an Ethernet header, by IEEE 802: a tag, IPv4, IPv6.
const TAGGED: &[u8] = &[0x81, 0x00];
const IPV4: &[u8] = &[0x08, 0x00];
const IPV6: &[u8] = &[0x86, 0xdd];

/// A pair of queues of a port.
#[derive(Debug)]
pub struct DpdkLink {
    port: Arc<Port>,
    queue: u16,
    mac: MacAddr,
    tx: Frames,
    /// Frames at the front of `tx` that wait for the device.
    waiting: u16,
    rx: Frames,
    batch: u16,
    frame_bytes_max: u32,
    stats: LinkStats,
    bursts: u32,
    full_bursts: u32,
    /// The gate's round in which this link last parked.
    parked_in: Option<u32>,
}

/// Room for one burst. The addresses in it are used while this crate owns the buffers they belong to.
struct Frames(Box<[sys::ionian_frame]>);

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames({})", self.0.len())
    }
}

// SAFETY: addresses of buffers that belong to the link, which goes from thread to thread as a whole; DPDK's buffers and queues may be
// used by any thread, by one at a time.
unsafe impl Send for Frames {}

impl Frames {
    fn new(batch: u16) -> Self {
        // SAFETY: integers and pointers, for which zero bits are a value.
        let empty: sys::ionian_frame = unsafe { std::mem::zeroed() };
        Self(vec![empty; batch.into()].into())
    }

    fn as_mut_ptr(&mut self) -> *mut sys::ionian_frame {
        self.0.as_mut_ptr()
    }

    /// Gives the buffers of `from..to` back to their pool.
    fn give(&self, from: u16, to: u16) {
        let frames = &self.0[usize::from(from)..usize::from(to)];
        // SAFETY: these buffers are ours (the callers' accounting) and are forgotten by the caller; a slice is valid for its length, which
        // is at most a batch.
        unsafe { sys::ionian_give(frames.as_ptr(), to - from) };
    }
}

impl DpdkLink {
    pub(super) fn new(port: Arc<Port>, queue: u16, mac: MacAddr) -> Self {
        let options = &port.setup.options;
        let batch = options.batch;
        Self {
            queue,
            mac,
            tx: Frames::new(batch),
            waiting: 0,
            rx: Frames::new(batch),
            batch,
            frame_bytes_max: options.mtu_bytes + ETHERNET_BYTES,
            stats: LinkStats::default(),
            bursts: 0,
            full_bursts: 0,
            parked_in: None,
            port,
        }
    }

    /// What the port of this link has seen and has. May ask the system and walks through caches: not for the path of a frame.
    #[must_use]
    pub fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    /// DPDK's name of the virtual device; `None` for a PCI device.
    #[must_use]
    pub fn device_name(&self) -> Option<&str> {
        self.port.setup.vdev.as_deref()
    }

    /// Index of the queue pair, from 0.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Says whether the device may be used in this call, and looks at the link now and then.
    #[inline]
    fn ready(&mut self) -> bool {
        if !self.port.events.gate.is_open() {
            return self.park();
        }
        self.bursts = self.bursts.wrapping_add(1);
        let mask = if self.port.link_up() {
            LOOK_UP_BURSTS - 1
        } else {
            LOOK_DOWN_BURSTS - 1
        };
        if self.bursts & mask == 0 || self.port.events.link.load(Ordering::Relaxed) {
            self.port.refresh_link();
        }
        true
    }

    /// The port is about to be reset: gives up what waits, and does the reset if all others have.
    #[cold]
    fn park(&mut self) -> bool {
        let lost = self.give_up();
        self.port.add_reset_lost(lost.into());
        match self.port.events.gate.park(&mut self.parked_in) {
            Pass::Wait | Pass::Failed => false,
            Pass::Reset => {
                self.port.reset();
                self.port.events.gate.is_open()
            }
        }
    }

    /// Gives the buffers of frames that wait back. Returns how many were lost.
    fn give_up(&mut self) -> u16 {
        let lost = std::mem::take(&mut self.waiting);
        self.tx.give(0, lost);
        self.stats.tx_frames -= u64::from(lost);
        self.stats.tx_refused += u64::from(lost);
        lost
    }

    /// Sends the first `count` frames of `tx`. What the device does not take moves to the front and waits.
    fn send(&mut self, count: u16) {
        self.stats.tx_calls += 1;
        // SAFETY: the gate is open and this link alone uses the queue; the first `count` frames, at most a batch, hold buffers of ours whose
        // bytes are written. The device owns those that it takes.
        let sent = unsafe { sys::ionian_tx(self.port.id, self.queue, self.tx.as_mut_ptr(), count) };
        if sent < count {
            self.tx
                .0
                .copy_within(usize::from(sent)..usize::from(count), 0);
            self.stats.tx_full += 1;
            self.full();
        } else {
            self.full_bursts = 0;
        }
        self.waiting = count - sent;
    }

    /// The device is full once more.
    fn full(&mut self) {
        self.full_bursts += 1;
        if self.full_bursts >= FULL_BURSTS {
            self.full_bursts = 0;
            self.port.refresh_link();
        }
    }

    /// Takes and loses everything: there is nobody to send it to.
    #[cold]
    fn lose(&mut self, pool: &mut BufPool, burst: &mut FrameBatch, errno: i32) -> usize {
        let mut lost = 0;
        while let Some(frame) = burst.pop() {
            pool.free(frame.buf);
            lost += 1;
        }
        if lost > 0 {
            self.stats.tx_refused += lost as u64;
            self.stats.tx_last_errno = errno;
        }
        lost
    }

    /// Copies frames from the front of `burst` into `count` buffers at the front of `tx`. Returns how many were copied; the buffers of
    /// the rest are given back.
    fn fill(&mut self, pool: &mut BufPool, burst: &mut FrameBatch, count: u16) -> u16 {
        let mut filled = 0;
        while filled < count
            && let Some(frame) = burst.pop()
        {
            let to = &mut self.tx.0[usize::from(filled)];
            let bytes = pool.front(&frame.buf);
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if len > self.frame_bytes_max || len > to.len {
                self.stats.tx_refused += 1;
                self.stats.tx_last_errno = libc::EMSGSIZE;
            } else {
                // SAFETY: the buffer is ours and has room for `to.len` bytes, which are as many at least; a slot and a buffer of DPDK's
                // do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.data, bytes.len()) };
                to.len = len;
                (to.flags, to.l2_len, to.l3_len) = match frame.checksum {
                    Checksum::InFrame => (0, 0, 0),
                    Checksum::Link => checksums(bytes),
                };
                filled += 1;
            }
            pool.free(frame.buf);
        }
        if filled < count {
            self.tx.give(filled, count);
        }
        filled
    }
}

/// What the device has to do for a frame whose checksums it fills in: flags, and sizes of the Ethernet and the IP header.
fn checksums(frame: &[u8]) -> (u32, u16, u16) {
    let kind = |at: usize| frame.get(at..at + 2).unwrap_or_default();
    let l2 = if kind(12) == TAGGED { 18 } else { 14 };
    if kind(usize::from(l2) - 2) == IPV4 {
        (sys::IONIAN_IP_FILL | sys::IONIAN_UDP_FILL, l2, 20)
    } else if kind(usize::from(l2) - 2) == IPV6 {
        (sys::IONIAN_UDP_FILL | sys::IONIAN_IS_IPV6, l2, 40)
    } else {
        (0, 0, 0)
    }
}

impl FrameLink for DpdkLink {
    fn caps(&self) -> LinkCaps {
        LinkCaps {
            backend: "dpdk",
            mac: self.mac,
            mtu_bytes: self.port.setup.options.mtu_bytes,
            headroom_bytes: 0,
            batch_max: self.batch.into(),
            tx_checksum: self.port.setup.offloads & sys::IONIAN_OFFLOAD_TX_UDP != 0,
        }
    }

    fn stats(&mut self) -> LinkStats {
        let mut stats = self.stats;
        let port = self.port.stats();
        stats.downs = port.downs;
        if self.queue == 0 {
            // The device counts for all of its queues.
            stats.rx_missed = port.device_missed;
            stats.rx_errors = port.device_errors;
        }
        stats
    }

    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize {
        if !self.ready() {
            return 0;
        }
        if self.waiting > 0 {
            self.send(self.waiting);
        }
        let most = out
            .room()
            .min(pool.available())
            .min(usize::from(self.batch));
        if most == 0 {
            return 0;
        }
        self.stats.rx_calls += 1;
        // A batch is at most 256.
        let most = most as u16;
        // SAFETY: the gate is open and this link alone uses the queue; the array has room for a batch. What is received is ours.
        let received =
            unsafe { sys::ionian_rx(self.port.id, self.queue, self.rx.as_mut_ptr(), most) };
        if received == 0 {
            return 0;
        }
        let head = headers.bytes();
        let room = head + pool.slot_bytes();
        let vouched = sys::IONIAN_L4_GOOD
            | if headers.is_ipv6() {
                0
            } else {
                sys::IONIAN_IP_GOOD
            };
        let mut handed = 0;
        for from in &self.rx.0[..usize::from(received)] {
            let len = from.len as usize;
            if from.flags & sys::IONIAN_CHAINED != 0 || len > room {
                self.stats.rx_oversize += 1;
                continue;
            }
            if len < head {
                self.stats.rx_short += 1;
                continue;
            }
            let Some(mut buf) = pool.alloc() else { break };
            let to = pool.dma_address_front(&buf, head);
            // SAFETY: the buffer is ours and holds `len` bytes, which nobody writes any more; the slot is ours by its handle and has room for
            // as many from `head` bytes in front of its payload on; the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(from.data, to, len) };
            pool.set_front(&mut buf, head, len);
            let checksum = if from.flags & vouched == vouched {
                Checksum::Link
            } else {
                Checksum::InFrame
            };
            match out.push(Frame { buf, checksum }) {
                Ok(()) => handed += 1,
                Err(frame) => pool.free(frame.buf),
            }
        }
        self.rx.give(0, received);
        self.stats.rx_frames += handed as u64;
        handed
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) -> usize {
        if burst.is_empty() && self.waiting == 0 {
            return 0;
        }
        if !self.ready() {
            // While it is reset the caller waits; a device that did not come back is a cable without an end.
            return if self.port.events.gate.failed() {
                self.lose(pool, burst, libc::ENODEV)
            } else {
                0
            };
        }
        if !self.port.link_up() {
            self.give_up();
            return self.lose(pool, burst, libc::ENETDOWN);
        }
        if self.waiting > 0 {
            self.send(self.waiting);
        }
        let before = burst.len();
        while self.waiting == 0 && !burst.is_empty() {
            let count = burst.len().min(self.batch.into()) as u16;
            // SAFETY: the pool lives as long as the port, and the array has room for a batch; nothing waits in it.
            let taken =
                unsafe { sys::ionian_take(self.port.mbufs.as_ptr(), self.tx.as_mut_ptr(), count) };
            if taken != 0 {
                // All buffers are under way.
                self.stats.tx_full += 1;
                self.full();
                break;
            }
            let filled = self.fill(pool, burst, count);
            if filled > 0 {
                self.stats.tx_frames += u64::from(filled);
                self.send(filled);
            }
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        // Nothing here wakes a sleeper, so only what waits to be sent matters.
        self.waiting == 0
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Drop for DpdkLink {
    fn drop(&mut self) {
        self.give_up();
        self.port.events.gate.leave(self.parked_in);
    }
}
