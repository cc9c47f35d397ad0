//! Sending: a burst becomes as few messages, in as few system calls, as the kernel allows.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use ionian_driver_api::{BufPool, Packet, PacketBatch};

use crate::addr::RawAddr;
use crate::options::UdpStats;
use crate::socket::Socket;

/// Packets that one GSO send joins at most (the kernel's limit before 6.9; later ones allow 128).
const SEGMENTS_MAX: usize = 64;
/// Payload bytes of one GSO send: what an IPv4 packet's length field leaves.
const SEND_BYTES_MAX: usize = 65_507;

/// Ancillary data of one send: the segment size. Aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    bytes: u16,
    padding: [u16; 3],
}

/// One message of a call and the packets it takes from the front of the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    packets: usize,
}

pub(crate) struct Sender {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addrs: Box<[RawAddr]>,
    segments: Box<[SegmentSize]>,
    groups: Box<[Group]>,
    payload_bytes_max: usize,
    gso: bool,
    ipv6_socket: bool,
}

// SAFETY: the raw pointers inside the arrays are written and used within one call of `burst`; between calls they are
// never read.
unsafe impl Send for Sender {}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("batch", &self.headers.len())
            .field("gso", &self.gso)
            .finish_non_exhaustive()
    }
}

impl Sender {
    pub(crate) fn new(
        batch: usize,
        payload_bytes_max: usize,
        gso: bool,
        ipv6_socket: bool,
    ) -> Self {
        // SAFETY: integers and pointers, for which zero bits are a value.
        let header: libc::mmsghdr = unsafe { zeroed() };
        // SAFETY: integers only, for which zero bits are a value.
        let segment: SegmentSize = unsafe { zeroed() };
        Self {
            headers: vec![header; batch].into(),
            vectors: vec![
                libc::iovec {
                    iov_base: null_mut(),
                    iov_len: 0
                };
                batch
            ]
            .into(),
            addrs: vec![RawAddr::empty(); batch].into(),
            segments: vec![segment; batch].into(),
            groups: vec![Group { packets: 0 }; batch].into(),
            payload_bytes_max,
            gso,
            ipv6_socket,
        }
    }

    pub(crate) const fn gso(&self) -> bool {
        self.gso
    }

    /// Sends from the front of `burst` until it is empty or the kernel is full. Returns the packets taken.
    pub(crate) fn burst(
        &mut self,
        socket: &Socket,
        pool: &mut BufPool,
        burst: &mut PacketBatch,
        stats: &mut UdpStats,
    ) -> usize {
        let before = burst.len();
        while let Some(first) = burst.get(0) {
            if first.buf.len() > self.payload_bytes_max
                || RawAddr::encode(&first.peer, self.ipv6_socket).is_none()
            {
                refuse(pool, burst, 1, libc::EMSGSIZE, stats);
                continue;
            }
            let messages = self.assemble(pool, burst);
            stats.tx_calls += 1;
            // SAFETY: each header points at a vector range, an address and ancillary data of this object's arrays, which
            // do not move during the call; each vector covers the valid bytes of a slot whose handle lies in `burst`.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    messages as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            if sent > 0 {
                for group in &self.groups[..sent as usize] {
                    stats.tx_sends += 1;
                    stats.tx_packets += group.packets as u64;
                    take(pool, burst, group.packets);
                }
                continue;
            }
            // Nothing was sent: the error is that of the first message, or an old one of the socket.
            match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                libc::EINTR => {}
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => {
                    stats.tx_full += 1;
                    break;
                }
                libc::EINVAL | libc::EIO | libc::EMSGSIZE if self.groups[0].packets > 1 => {
                    // The path does not take joined packets (a link MTU below ours, no checksum offload): do without.
                    self.gso = false;
                }
                errno => refuse(pool, burst, self.groups[0].packets, errno, stats),
            }
        }
        before - burst.len()
    }

    /// Fills the arrays from the front of the burst and returns the number of messages.
    fn assemble(&mut self, pool: &BufPool, burst: &PacketBatch) -> usize {
        let (mut messages, mut packets) = (0, 0);
        while packets < self.vectors.len()
            && let Some(first) = burst.get(packets)
        {
            if first.buf.len() > self.payload_bytes_max {
                break;
            }
            let Some((addr, addr_len)) = RawAddr::encode(&first.peer, self.ipv6_socket) else {
                break;
            };
            let count = self.group_len(burst, packets, first);
            for (at, vector) in self.vectors[packets..packets + count]
                .iter_mut()
                .enumerate()
            {
                let Some(packet) = burst.get(packets + at) else {
                    break;
                };
                vector.iov_base = pool.dma_address(&packet.buf).cast();
                vector.iov_len = packet.buf.len();
            }
            self.addrs[messages] = addr;
            self.groups[messages] = Group { packets: count };
            let segment = &mut self.segments[messages];
            let header = &mut self.headers[messages].msg_hdr;
            header.msg_name = (&raw mut self.addrs[messages]).cast();
            header.msg_namelen = addr_len;
            header.msg_iov = &raw mut self.vectors[packets];
            header.msg_iovlen = count as _;
            header.msg_control = null_mut();
            header.msg_controllen = 0;
            if count > 1 {
                segment.header.cmsg_level = libc::SOL_UDP;
                segment.header.cmsg_type = libc::UDP_SEGMENT;
                segment.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
                segment.bytes =
                    u16::try_from(first.buf.len()).expect("a payload is at most 65,507 bytes");
                header.msg_control = (&raw mut *segment).cast();
                header.msg_controllen = size_of::<SegmentSize>() as _;
            }
            messages += 1;
            packets += count;
        }
        messages
    }

    /// How many packets from `start` on can leave as one send: the same peer, the same length, the last may be shorter.
    fn group_len(&self, burst: &PacketBatch, start: usize, first: &Packet) -> usize {
        let segment = first.buf.len();
        if !self.gso || segment == 0 {
            return 1;
        }
        let (mut count, mut bytes) = (1, segment);
        let count_max = SEGMENTS_MAX.min(self.vectors.len() - start);
        while count < count_max
            && let Some(next) = burst.get(start + count)
        {
            let len = next.buf.len();
            if next.peer != first.peer || len > segment || len == 0 || bytes + len > SEND_BYTES_MAX
            {
                break;
            }
            count += 1;
            bytes += len;
            if len < segment {
                break;
            }
        }
        count
    }
}

/// Removes sent packets from the burst and frees their slots.
fn take(pool: &mut BufPool, burst: &mut PacketBatch, count: usize) {
    for _ in 0..count {
        if let Some(packet) = burst.pop() {
            pool.free(packet.buf);
        }
    }
}

/// Drops packets that the kernel will never take.
fn refuse(
    pool: &mut BufPool,
    burst: &mut PacketBatch,
    count: usize,
    errno: i32,
    stats: &mut UdpStats,
) {
    stats.tx_refused += count as u64;
    stats.tx_last_errno = errno;
    take(pool, burst, count);
}
