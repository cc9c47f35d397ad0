//! The link: bursts of frames between the slots of a pool and the rings shared with the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ionian_driver_api::BufPool;
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, LinkCaps, LinkStats};

use crate::bpf;
use crate::error::{Step, XdpOpenError};
use crate::interface::{Interface, LinkState};
use crate::options::{XdpAttach, XdpMode, XdpOptions, XdpStats};
use crate::program::{Action, Filter, assemble};
use crate::socket::{Rings, XdpSocket};
use crate::umem::{LINK_HEADER_BYTES, MTU_BYTES_MAX, Umem, frame_bytes};

/// Bursts that found nothing before the interface is looked at again: once in some milliseconds of a reactor that spins.
const EMPTY_BURSTS_MAX: u32 = 1 << 16;
/// Shortest frame: the header of Ethernet.
const FRAME_BYTES_MIN: usize = 14;

/// One receive queue of an interface, as a link for Ethernet frames.
///
/// Fields are dropped in this order: first no frame comes any more, then the socket is closed, then the memory goes.
#[derive(Debug)]
pub struct XdpLink {
    /// Keeps the program on the interface.
    _attached: OwnedFd,
    rings: Rings,
    socket: XdpSocket,
    umem: Umem,
    interface: Interface,
    caps: LinkCaps,
    stats: LinkStats,
    more: XdpStats,
    /// How the interface was when last looked at.
    state: LinkState,
    /// Largest frame to send, in bytes.
    tx_bytes_max: usize,
    need_wakeup: bool,
    /// The send ring has packets that the kernel was not asked to send, or did not take when it was.
    tx_waits: bool,
    empty_bursts: u32,
}

impl XdpLink {
    /// Opens a link: registers frames, puts a socket on the queue, and attaches the program that redirects to it.
    ///
    /// # Errors
    ///
    /// [`XdpOpenError`], a sentence that says what to do. Effect: none; nothing stays on the interface.
    pub fn open(options: &XdpOptions) -> Result<Self, XdpOpenError> {
        options.check()?;
        let name = &options.interface;
        let interface = Interface::open(name)?;
        let frame_bytes = frame_bytes(interface.mtu_bytes).ok_or_else(|| XdpOpenError::Mtu {
            interface: name.clone(),
            mtu_bytes: interface.mtu_bytes,
            mtu_bytes_max: MTU_BYTES_MAX,
        })?;
        let umem = Umem::new(frame_bytes, options.rx_frames, options.tx_frames)
            .map_err(|source| Step::Rings.error(name, source))?;
        let (socket, rings) = XdpSocket::open(options, &umem)?;
        socket.bind(options, &interface)?;
        let mac = options.mac.unwrap_or(interface.mac);
        let filter = Filter {
            mac,
            local: options.local,
            vlan: options.vlan,
        };
        let mut link = Self {
            _attached: attach(options, &filter, &socket, &interface)?,
            rings,
            socket,
            umem,
            caps: LinkCaps {
                backend: backend(options),
                mac,
                mtu_bytes: interface.mtu_bytes,
                headroom_bytes: 0,
                batch_max: options.batch,
                tx_checksum: false,
            },
            stats: LinkStats::default(),
            more: XdpStats::default(),
            state: interface.state(),
            tx_bytes_max: (interface.mtu_bytes + LINK_HEADER_BYTES) as usize,
            need_wakeup: options.need_wakeup,
            tx_waits: false,
            empty_bursts: 0,
            interface,
        };
        link.fill();
        Ok(link)
    }

    /// What this link counts besides what every link does, and how it is now. Asks the system: not for the path of a
    /// packet.
    pub fn xdp_stats(&mut self) -> XdpStats {
        self.look();
        self.reclaim();
        XdpStats {
            tx_in_flight: self.stats.tx_frames - self.more.tx_completed,
            link_down: self.state != LinkState::Up,
            link_gone: self.state == LinkState::Gone,
            kernel: self.socket.kernel_stats(),
            ..self.more
        }
    }

    /// Lends all frames that are ours to the kernel, to receive into.
    fn fill(&mut self) {
        while let Some(address) = self.umem.lend_rx() {
            if !self.rings.fill.push(address) {
                // The ring has room for all frames: only a kernel that miscounts gets here.
                self.umem.unlend_rx(address);
                break;
            }
        }
        if self.rings.fill.publish() && self.need_wakeup && self.rings.fill.must_wake() {
            self.stats.rx_calls += 1;
            if let Err(error) = self.socket.wake_rx() {
                self.note(&error);
            }
        }
    }

    /// Takes one received packet, if one waits, and hands it out or drops it. `false` if none does.
    fn take(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> bool {
        if !self.rings.rx.has_entry() {
            return false;
        }
        let Some(mut buf) = pool.alloc() else {
            return false;
        };
        let Some(descriptor) = self.rings.rx.pop() else {
            pool.free(buf);
            return false;
        };
        let head = headers.bytes();
        let refused = match self.umem.receive(descriptor.addr, descriptor.len) {
            None => &mut self.more.invalid_descs,
            Some(packet) if packet.len < head => &mut self.stats.rx_short,
            Some(packet) if packet.len > head + pool.slot_bytes() => &mut self.stats.rx_oversize,
            Some(packet) => {
                let to = pool.dma_address_front(&buf, head);
                // SAFETY: from `to` on the slot has `head` bytes and its own size (checked above), and this function holds
                // its only handle; no slice of it exists.
                unsafe { self.umem.copy_out(packet, to) };
                pool.set_front(&mut buf, head, packet.len);
                let checksum = Checksum::InFrame;
                match out.push(Frame { buf, checksum }) {
                    Ok(()) => self.stats.rx_frames += 1,
                    Err(frame) => pool.free(frame.buf),
                }
                return true;
            }
        };
        *refused += 1;
        pool.free(buf);
        true
    }

    /// Takes back the frames of packets that were sent.
    fn reclaim(&mut self) {
        while let Some(address) = self.rings.completion.pop() {
            if self.umem.complete(address) {
                self.more.tx_completed += 1;
            } else {
                self.more.invalid_descs += 1;
            }
        }
        self.rings.completion.release();
    }

    /// Makes the kernel send what waits in the send ring, in as many calls as it takes while it makes progress: in copy
    /// mode it takes some dozens of packets in one, and one where the device drops it.
    fn kick(&mut self) {
        loop {
            let waiting = self.rings.tx.pending();
            self.tx_waits = waiting > 0;
            if !self.tx_waits {
                return;
            }
            // The device takes it without being asked.
            if self.need_wakeup && !self.rings.tx.must_wake() {
                self.tx_waits = false;
                return;
            }
            self.stats.tx_calls += 1;
            let answer = self.socket.wake_tx();
            let left = self.rings.tx.pending();
            match answer {
                // In copy mode all is sent; in zero-copy mode the driver is awake now, and sends.
                Ok(()) => {
                    self.tx_waits = false;
                    return;
                }
                Err(error) => self.note(&error),
            }
            if left >= waiting {
                return;
            }
        }
    }

    /// What a refused call means.
    fn note(&mut self, error: &io::Error) {
        match error.raw_os_error().unwrap_or(0) {
            // A part is done, or there is no room yet.
            libc::EAGAIN | libc::EINTR | libc::ENOBUFS => {}
            libc::EBUSY => {
                self.more.tx_busy += 1;
                if self.state == LinkState::Up {
                    self.look();
                }
            }
            // The socket is on no interface any more. Kept, even where another interface has got the name meanwhile.
            libc::ENXIO => self.set_state(LinkState::Gone),
            errno => {
                self.stats.tx_last_errno = errno;
                self.look();
            }
        }
    }

    /// Looks how the interface is.
    fn look(&mut self) {
        self.empty_bursts = 0;
        if self.state != LinkState::Gone {
            let state = self.interface.state();
            self.set_state(state);
        }
    }

    fn set_state(&mut self, state: LinkState) {
        let fell = state != LinkState::Up && self.state == LinkState::Up;
        if fell || (state == LinkState::Gone && self.state != LinkState::Gone) {
            self.stats.downs += 1;
        }
        self.state = state;
    }

    /// Whether the kernel takes packets for the interface. One without a carrier drops them itself, and knows sooner when
    /// it has one again.
    fn takes(&self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::NoCarrier)
    }

    /// Drops a burst that cannot be sent.
    fn lose(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) {
        let errno = if self.state == LinkState::Gone {
            libc::ENODEV
        } else {
            libc::ENETDOWN
        };
        while let Some(frame) = burst.pop() {
            self.more.tx_link_down += 1;
            self.refuse(pool, frame, errno);
        }
    }

    fn refuse(&mut self, pool: &mut BufPool, frame: Frame, errno: i32) {
        self.stats.tx_refused += 1;
        self.stats.tx_last_errno = errno;
        pool.free(frame.buf);
    }

    /// Copies one packet into a frame and queues it. `false` when all frames are on their way.
    fn queue(&mut self, pool: &BufPool, frame: &Frame) -> bool {
        let len = frame.buf.front_len();
        let from = pool.dma_address_front(&frame.buf, frame.buf.head_len());
        // SAFETY: headers and payload of a slot whose only handle is borrowed here, so nobody writes them; the length is
        // that of what is valid.
        let Some(address) = (unsafe { self.umem.copy_in(from, len) }) else {
            return false;
        };
        let descriptor = libc::xdp_desc {
            addr: address,
            len: len as u32,
            options: 0,
        };
        if !self.rings.tx.push(descriptor) {
            // The ring has room for all frames: only a kernel that miscounts gets here.
            let _ = self.umem.complete(address);
            return false;
        }
        self.stats.tx_frames += 1;
        true
    }
}

/// Loads the program and puts it on the interface, with the socket in its map.
fn attach(
    options: &XdpOptions,
    filter: &Filter,
    socket: &XdpSocket,
    interface: &Interface,
) -> Result<OwnedFd, XdpOpenError> {
    let load = |source| Step::Load.error(&options.interface, source);
    let map = bpf::create_xskmap(options.queue + 1).map_err(load)?;
    bpf::set_socket(&map, options.queue, socket.fd()).map_err(load)?;
    let insns = assemble(filter, map.as_raw_fd(), Action::Pass);
    let program = bpf::load_program(&insns).map_err(load)?;
    let native = options.attach == XdpAttach::Native;
    bpf::attach(&program, interface.index, native)
        .map_err(|source| Step::Attach { native }.error(&options.interface, source))
}

/// What is in effect, for the start's output and beside every figure.
const fn backend(options: &XdpOptions) -> &'static str {
    match (options.mode, options.attach) {
        (XdpMode::Copy, XdpAttach::Skb) => "af_xdp+copy+skb",
        (XdpMode::Copy, XdpAttach::Native) => "af_xdp+copy+native",
        (XdpMode::ZeroCopy, _) => "af_xdp+zero-copy+native",
    }
}

impl FrameLink for XdpLink {
    fn caps(&self) -> LinkCaps {
        self.caps
    }

    fn stats(&mut self) -> LinkStats {
        self.look();
        let kernel = self.socket.kernel_stats();
        LinkStats {
            rx_missed: kernel.rx_dropped + kernel.rx_ring_full + kernel.rx_fill_ring_empty,
            rx_errors: self.more.invalid_descs,
            ..self.stats
        }
    }

    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize {
        if self.tx_waits && self.takes() {
            self.kick();
        }
        let before = out.len();
        let mut taken = 0;
        while taken < self.caps.batch_max && !out.is_full() && self.take(pool, headers, out) {
            taken += 1;
        }
        if taken > 0 {
            self.empty_bursts = 0;
            self.rings.rx.release();
            self.fill();
        } else {
            self.empty_bursts += 1;
            if self.empty_bursts >= EMPTY_BURSTS_MAX {
                self.look();
            }
        }
        out.len() - before
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) -> usize {
        let before = burst.len();
        self.reclaim();
        if self.state != LinkState::Up {
            self.look();
        }
        if !self.takes() {
            self.lose(pool, burst);
            return before;
        }
        let mut queued = 0;
        while queued < self.caps.batch_max
            && let Some(frame) = burst.get(0)
        {
            let len = frame.buf.front_len();
            if !(FRAME_BYTES_MIN..=self.tx_bytes_max).contains(&len) {
                if let Some(frame) = burst.pop() {
                    self.refuse(pool, frame, libc::EMSGSIZE);
                }
                continue;
            }
            if !self.queue(pool, frame) {
                self.stats.tx_full += 1;
                break;
            }
            if let Some(frame) = burst.pop() {
                pool.free(frame.buf);
            }
            queued += 1;
        }
        self.tx_waits |= self.rings.tx.publish();
        if self.tx_waits {
            self.kick();
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        self.look();
        if self.tx_waits && self.takes() {
            self.kick();
        }
        let sends = self.tx_waits && self.takes();
        !sends && !self.rings.rx.has_entry()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.socket.as_fd().as_raw_fd())
    }
}
