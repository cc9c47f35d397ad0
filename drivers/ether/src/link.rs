//! The seam to devices that carry Ethernet frames: TAP, AF_PACKET, AF_XDP and DPDK each are one [`FrameLink`].
//!
//! A frame is the headers and the payload of one pool slot ([`BufPool::front`]). The payload begins where every payload of
//! the pool begins and the headers stand in its headroom, so that nothing is moved between a link and the session layer.

use std::os::fd::RawFd;

use ionian_driver_api::{Bounded, Buf, BufPool};

use crate::headers::Headers;
use crate::mac::MacAddr;

/// Who has to do with the checksums of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// They are in the frame: complete in one to be sent, to be verified in one received.
    #[default]
    InFrame,
    /// The link's. In a received frame it vouches for the checksums of IP and UDP. In one to be sent, which it gets only
    /// where [`LinkCaps::tx_checksum`] says so, it fills them in: the field of UDP holds the sum of the pseudo-header, not
    /// complemented, the field of IPv4 is zero, and the headers have the sizes of [`Headers`] for the frame's EtherType.
    Link,
}

/// One Ethernet frame, without its frame check sequence.
#[derive(Debug)]
#[must_use = "a dropped frame loses its buffer"]
pub struct Frame {
    /// Headers and payload.
    pub buf: Buf,
    /// Who has to do with the checksums.
    pub checksum: Checksum,
}

/// A bounded queue of frames.
pub type FrameBatch = Bounded<Frame>;

/// What a link is and can do. Constant after it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkCaps {
    /// Name of the effective backend, e.g. `tap`.
    pub backend: &'static str,
    /// Hardware address that frames are sent from and received for.
    pub mac: MacAddr,
    /// Largest IP packet that a frame carries, in bytes: the frame less its Ethernet header and tag.
    pub mtu_bytes: u32,
    /// Room that the link itself needs in front of a frame, in bytes, besides the frame's own headers.
    pub headroom_bytes: usize,
    /// Frames that one call handles at most.
    pub batch_max: usize,
    /// The link fills in the checksums of frames that ask for it ([`Checksum::Link`]).
    pub tx_checksum: bool,
}

/// Counters of a link since it was opened. A kind of event that a link cannot tell stays 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// Frames given to the device.
    pub tx_frames: u64,
    /// Calls to the device for sending that did something: system calls, doorbells.
    pub tx_calls: u64,
    /// Calls that found the device full.
    pub tx_full: u64,
    /// Frames lost because the device refused them for good: a link that is down, a size beyond its MTU.
    pub tx_refused: u64,
    /// Error number of the last such refusal.
    pub tx_last_errno: i32,
    /// Frames received and handed on.
    pub rx_frames: u64,
    /// Calls to the device for receiving.
    pub rx_calls: u64,
    /// Frames dropped because they are shorter than the headers of a packet: they cannot be for this device.
    pub rx_short: u64,
    /// Frames dropped because they are larger than a slot.
    pub rx_oversize: u64,
    /// Frames dropped because they are tagged for another VLAN, or not tagged where this device is on one.
    pub rx_vlan: u64,
    /// Frames lost before this process could take them, where the device counts them: its ring or buffer was full.
    pub rx_missed: u64,
    /// Errors that the device reported while receiving.
    pub rx_errors: u64,
    /// Times that the link was seen to go down.
    pub downs: u64,
}

/// A device that sends and receives Ethernet frames. Driven by one thread; no call blocks.
///
/// It delivers at least what is addressed to its own hardware address, to all stations and to any group of stations: the
/// layer above drops what it does not want. It never delivers what it has sent itself.
pub trait FrameLink {
    /// What the link is and can do.
    fn caps(&self) -> LinkCaps;

    /// Counters so far. May ask the system: not for the path of a packet.
    fn stats(&mut self) -> LinkStats;

    /// Receives into slots of `pool` and appends to `out`, until nothing is waiting, `out` is full, the pool is empty or a
    /// batch is done. Returns the number of frames appended.
    ///
    /// Each frame begins `headers.bytes()` in front of its slot's payload ([`BufPool::dma_address_front`]) and ends within
    /// the slot, with its tag in its place where `headers` has one. Frames shorter than that and frames that do not fit
    /// are dropped and counted.
    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize;

    /// Sends from the front of `burst` and frees what was sent to `pool`, at once or when the device is done with it.
    /// Returns the number of frames taken; the rest stays in `burst`, unchanged, because the device is full.
    ///
    /// A frame that cannot be sent at all (oversize, a link that is down) is taken, freed and counted.
    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) -> usize;

    /// Asked before a sleep: `false` if a frame waits that the descriptor does not show, and the caller must not sleep.
    fn arm(&mut self) -> bool;

    /// A descriptor that polls readable while a frame waits. The same for the link's life; `None` if the link can only be
    /// polled.
    fn wake_fd(&self) -> Option<RawFd>;

    /// Frees to `pool` every slot of it that the link still holds, when it is about to be dropped. Frames that were not
    /// sent yet are lost.
    fn drain(&mut self, pool: &mut BufPool) {
        // A link that holds no slot between calls has nothing to give back.
        let _ = pool;
    }
}
