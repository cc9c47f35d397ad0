//! An AF_PACKET socket on an interface that the kernel has: bursts of frames by `recvmmsg` and `sendmmsg`.
//!
//! The process is one more host on that interface. With the interface's own hardware address, the default, the interface
//! should have no IP address of the process's: the kernel would answer for it, too. *Source*: packet(7).
//!
//! A sender on this machine whose kernel cuts UDP packets late (UDP GSO over a veth) is seen before they are cut, and what is
//! larger than a slot is dropped; such a sender goes without that (`gso = false`).

use std::io::Error;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

use ionian_driver_api::{Buf, BufPool};
use ionian_ether::{Frame, FrameBatch, FrameLink, Headers, LinkCaps, LinkStats, MacAddr};

use crate::auxiliary::{self, Auxiliary, Tag};
use crate::error::LinkOpenError;
use crate::filter;
use crate::interface::Interface;
use crate::system::{check, drops, errno, set_option, socket};

/// What is offered to a call that finds nothing is prepared, and slots are taken and given back, in vain: so few at first.
const OFFER_MIN: usize = 4;
/// Errors of the socket that one call skips over before it gives up.
const ERRORS_MAX: usize = 8;
/// Every protocol. *Source*: linux/if_ether.h; as the network has it.
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// How to open an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketLinkOptions {
    /// Name of the interface, 1 to 15 bytes. It must be there, be up, and carry Ethernet frames.
    pub interface: String,
    /// Largest IP packet in bytes, up to the interface's MTU; without one it is the interface's.
    pub mtu_bytes: Option<u32>,
    /// Own hardware address; without one it is the interface's. With another one the interface receives for both.
    pub mac: Option<MacAddr>,
    /// Frames of one burst, 1 to 1024.
    pub batch: usize,
    /// Receive buffer to ask the kernel for, in bytes. Larger ones ride out longer pauses of the reactor.
    pub rcvbuf_bytes: u32,
    /// Send past the interface's queueing discipline: a little quicker, and nothing is shaped, paced or counted there.
    pub qdisc_bypass: bool,
}

impl PacketLinkOptions {
    /// Those for an interface of this name, with everything else as is usual.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            mtu_bytes: None,
            mac: None,
            batch: 64,
            rcvbuf_bytes: 4 << 20,
            qdisc_bypass: false,
        }
    }
}

/// An AF_PACKET socket as a frame link.
pub struct PacketLink {
    socket: OwnedFd,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    auxiliaries: Box<[Auxiliary]>,
    /// Slots offered to the call in progress.
    offered: Vec<Buf>,
    offer: usize,
    caps: LinkCaps,
    stats: LinkStats,
    up: bool,
}

// SAFETY: the raw pointers inside the arrays are written and used within one call of a burst; between calls they are never
// read.
unsafe impl Send for PacketLink {}

impl std::fmt::Debug for PacketLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketLink")
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

impl PacketLink {
    /// Opens the interface.
    ///
    /// # Errors
    ///
    /// [`LinkOpenError`]: no permission, no such interface, one that is down or carries no Ethernet frames, an MTU beyond the
    /// interface's. Effect: none.
    pub fn open(options: &PacketLinkOptions) -> Result<Self, LinkOpenError> {
        let batch = options.batch;
        if !(1..=1024).contains(&batch) {
            return Err(LinkOpenError::Batch { batch });
        }
        let interface = Interface::new(&options.interface)?;
        let name = || interface.name().to_owned();
        let index = interface.index()?;
        let interface_mac = interface.mac()?;
        let mac = options.mac.unwrap_or(interface_mac);
        if !mac.is_unicast() {
            return Err(LinkOpenError::Mac { mac });
        }
        if !interface.is_up()? {
            return Err(LinkOpenError::Down { name: name() });
        }
        let interface_mtu_bytes = interface.mtu_bytes()?;
        let mtu_bytes = options.mtu_bytes.unwrap_or(interface_mtu_bytes);
        if mtu_bytes > interface_mtu_bytes {
            return Err(LinkOpenError::Mtu {
                name: name(),
                mtu_bytes,
                interface_mtu_bytes,
            });
        }
        let socket = open_socket(&interface, index, mac, mac != interface_mac, options)?;
        // SAFETY: integers and pointers, for which zero bits are a value.
        let header: libc::mmsghdr = unsafe { zeroed() };
        let vector = libc::iovec {
            iov_base: null_mut(),
            iov_len: 0,
        };
        Ok(Self {
            socket,
            headers: vec![header; batch].into(),
            vectors: vec![vector; batch].into(),
            auxiliaries: vec![Auxiliary::empty(); batch].into(),
            offered: Vec::with_capacity(batch),
            offer: OFFER_MIN.min(batch),
            caps: LinkCaps {
                backend: "af-packet",
                mac,
                mtu_bytes,
                headroom_bytes: 0,
                batch_max: batch,
                tx_checksum: false,
            },
            stats: LinkStats::default(),
            up: true,
        })
    }

    fn down(&mut self) {
        self.stats.downs += u64::from(self.up);
        self.up = false;
    }

    /// One `recvmmsg` into the first `count` vectors. Returns the number of frames.
    fn receive(&mut self, count: usize) -> usize {
        for index in 0..count {
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = null_mut();
            header.msg_namelen = 0;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.auxiliaries[index]).cast();
            header.msg_controllen = auxiliary::BYTES as _;
            header.msg_flags = 0;
        }
        for _ in 0..ERRORS_MAX {
            self.stats.rx_calls += 1;
            // SAFETY: the first `count` headers point at one vector and the auxiliary room of this object's arrays each, which
            // do not move during the call; each vector covers a slot whose handle is in `offered`, and no slice of it exists
            // now.
            let received = unsafe {
                libc::recvmmsg(
                    self.socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as u32,
                    libc::MSG_DONTWAIT,
                    null_mut(),
                )
            };
            if let Ok(received) = usize::try_from(received) {
                self.up |= received > 0;
                return received;
            }
            match errno() {
                libc::EAGAIN => return 0,
                libc::EINTR => {}
                errno => {
                    self.stats.rx_errors += 1;
                    if is_down(errno) {
                        self.down();
                    }
                }
            }
        }
        0
    }

    /// Makes a frame of what was received into a slot at `land` bytes in front of its payload, or says what is wrong.
    fn frame(
        &mut self,
        pool: &BufPool,
        mut buf: Buf,
        index: usize,
        headers: Headers,
    ) -> Result<Frame, Buf> {
        let land = headers.bytes() - headers.tag_bytes();
        let header = &self.headers[index];
        let bytes = header.msg_len as usize;
        let word_bytes = header.msg_hdr.msg_controllen;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || bytes > land + pool.slot_bytes() {
            self.stats.rx_oversize += 1;
            return Err(buf);
        }
        if bytes < land {
            self.stats.rx_short += 1;
            return Err(buf);
        }
        match self.auxiliaries[index].tag(word_bytes, headers) {
            Tag::Foreign => {
                self.stats.rx_vlan += 1;
                return Err(buf);
            }
            Tag::Whole => pool.set_front(&mut buf, land, bytes),
            Tag::Restore(tag) => {
                let tag_bytes = headers.tag_bytes();
                pool.set_front(&mut buf, land + tag_bytes, bytes + tag_bytes);
                let frame = pool.front_mut(&mut buf);
                // Both hardware addresses move up to make room for it.
                frame.copy_within(4..16, 0);
                frame[12..16].copy_from_slice(&[0x81, 0, (tag >> 8) as u8, (tag & 0xff) as u8]);
            }
        }
        Ok(Frame {
            buf,
            checksum: self.auxiliaries[index].checksum(word_bytes),
        })
    }
}

impl FrameLink for PacketLink {
    fn caps(&self) -> LinkCaps {
        self.caps
    }

    fn stats(&mut self) -> LinkStats {
        self.stats.rx_missed += u64::from(drops(&self.socket));
        self.stats
    }

    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize {
        let before = out.len();
        let land = headers.bytes() - headers.tag_bytes();
        let wanted = self.offer.min(out.room());
        while self.offered.len() < wanted {
            let Some(buf) = pool.alloc() else { break };
            self.vectors[self.offered.len()] = libc::iovec {
                iov_base: pool.dma_address_front(&buf, land).cast(),
                iov_len: land + pool.slot_bytes(),
            };
            self.offered.push(buf);
        }
        let offered = self.offered.len();
        if offered == 0 {
            return 0;
        }
        let received = self.receive(offered);
        // A call that used all that it was offered is followed by one of twice as much.
        self.offer = if received == offered {
            (self.offer * 2).min(self.headers.len())
        } else {
            OFFER_MIN.max(received).min(self.headers.len())
        };
        // The last offered is the last received, so they are taken from the end and put in order by their index.
        while self.offered.len() > received {
            if let Some(buf) = self.offered.pop() {
                pool.free(buf);
            }
        }
        let mut offered = std::mem::take(&mut self.offered);
        for (index, buf) in offered.drain(..).enumerate() {
            match self.frame(pool, buf, index, headers) {
                Ok(frame) => {
                    self.stats.rx_frames += 1;
                    if let Err(frame) = out.push(frame) {
                        pool.free(frame.buf);
                    }
                }
                Err(buf) => pool.free(buf),
            }
        }
        // The room of the list is kept: nothing is allocated in the next call.
        self.offered = offered;
        out.len() - before
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) -> usize {
        let before = burst.len();
        while !burst.is_empty() {
            let count = burst.len().min(self.headers.len());
            for (index, frame) in burst.iter().take(count).enumerate() {
                self.vectors[index] = libc::iovec {
                    iov_base: pool
                        .dma_address_front(&frame.buf, frame.buf.head_len())
                        .cast(),
                    iov_len: frame.buf.front_len(),
                };
                let header = &mut self.headers[index].msg_hdr;
                header.msg_name = null_mut();
                header.msg_namelen = 0;
                header.msg_iov = &raw mut self.vectors[index];
                header.msg_iovlen = 1;
                header.msg_control = null_mut();
                header.msg_controllen = 0;
                header.msg_flags = 0;
            }
            self.stats.tx_calls += 1;
            // SAFETY: each of the first `count` headers points at one vector of this object's array, which does not move
            // during the call; each vector covers the valid bytes of a slot whose handle lies in `burst`.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            let taken = match usize::try_from(sent) {
                Ok(sent) if sent > 0 => {
                    self.up = true;
                    self.stats.tx_frames += sent as u64;
                    sent
                }
                // Nothing was sent: the error is that of the first frame, or an old one of the socket.
                _ => match errno() {
                    libc::EINTR => continue,
                    libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => {
                        self.stats.tx_full += 1;
                        break;
                    }
                    errno => {
                        if is_down(errno) {
                            self.down();
                        }
                        self.stats.tx_refused += 1;
                        self.stats.tx_last_errno = errno;
                        1
                    }
                },
            };
            for _ in 0..taken {
                if let Some(frame) = burst.pop() {
                    pool.free(frame.buf);
                }
            }
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

/// The interface is down, or gone.
const fn is_down(errno: i32) -> bool {
    matches!(errno, libc::ENETDOWN | libc::ENXIO | libc::ENODEV)
}

/// A socket that receives, from the first frame on, only what the filter passes and nothing that it has sent itself.
fn open_socket(
    interface: &Interface,
    index: i32,
    mac: MacAddr,
    second_address: bool,
    options: &PacketLinkOptions,
) -> Result<OwnedFd, LinkOpenError> {
    let system = |call| {
        move |source: Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => LinkOpenError::NotPermitted {
                what: format!(
                    "open a packet socket on the interface `{}`",
                    interface.name()
                ),
                capability: "cap_net_raw",
            },
            _ => interface.error(call, source),
        }
    };
    // Without a protocol it receives nothing before it is bound.
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW).map_err(system("socket"))?;
    let mut program = filter::program(mac);
    let filter = libc::sock_fprog {
        len: filter::LEN as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
        .map_err(system("SO_ATTACH_FILTER"))?;
    for (name, call) in [
        (libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING"),
        (libc::PACKET_AUXDATA, "PACKET_AUXDATA"),
    ] {
        set_option(&socket, libc::SOL_PACKET, name, &1i32).map_err(system(call))?;
    }
    let bypass = i32::from(options.qdisc_bypass);
    set_option(
        &socket,
        libc::SOL_PACKET,
        libc::PACKET_QDISC_BYPASS,
        &bypass,
    )
    .map_err(system("PACKET_QDISC_BYPASS"))?;
    let rcvbuf = i32::try_from(options.rcvbuf_bytes).unwrap_or(i32::MAX);
    // Past the system's limit where the process may; otherwise the limit cuts it.
    if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &rcvbuf).is_err() {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &rcvbuf)
            .map_err(system("SO_RCVBUF"))?;
    }
    let [a, b, c, d, e, f] = mac.0;
    let member = |kind: libc::c_int| libc::packet_mreq {
        mr_ifindex: index,
        mr_type: kind as libc::c_ushort,
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    // Neighbour discovery goes to groups. The memberships end with the socket.
    set_option(
        &socket,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &member(libc::PACKET_MR_ALLMULTI),
    )
    .map_err(system("PACKET_ADD_MEMBERSHIP"))?;
    if second_address {
        set_option(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &member(libc::PACKET_MR_UNICAST),
        )
        .map_err(system("PACKET_ADD_MEMBERSHIP"))?;
    }
    // SAFETY: integers only, for which zero bits are a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = ALL_PROTOCOLS;
    address.sll_ifindex = index;
    let address_at = (&raw const address).cast();
    // SAFETY: the kernel reads an address of this size from a local variable that outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            address_at,
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    check(result).map_err(system("bind"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_a_sentence() {
        let open = |change: fn(&mut PacketLinkOptions)| {
            let mut options = PacketLinkOptions::new("lo");
            change(&mut options);
            PacketLink::open(&options)
                .expect_err("it cannot be opened")
                .to_string()
        };
        let sentence = open(|_| {});
        assert!(
            sentence.contains("`lo` does not carry Ethernet frames"),
            "{sentence}"
        );
        let sentence = open(|o| o.interface = "ionian-no-if".to_owned());
        assert!(
            sentence.contains("there is no interface `ionian-no-if`"),
            "{sentence}"
        );
        let sentence = open(|o| o.batch = 1025);
        assert!(
            sentence.contains("batch = 1025 is not within 1..=1024"),
            "{sentence}"
        );
    }
}
