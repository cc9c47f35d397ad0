//! Receiving: straight into slots, or, where the kernel joins packets (GRO), into a large buffer and from there into slots.
//!
//! Joined packets that find no slot or no room in the caller's queue stay in the large buffer until the next call.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use ionian_driver_api::dma::RawBytes;
use ionian_driver_api::{Buf, BufPool, Packet, PacketBatch};

use crate::addr::RawAddr;
use crate::options::UdpStats;
use crate::socket::Socket;

/// Receives of one call when packets come joined: each may carry 64 packets.
const JOINED_BATCH: usize = 32;
/// Largest joined receive in bytes, by the IP length field.
const JOINED_BYTES_MAX: usize = 1 << 16;
/// From one joined receive to the next in memory: an odd number of cache lines, so that small ones do not share the cache's sets.
const JOINED_STRIDE: usize = JOINED_BYTES_MAX + 64;
/// What is offered to a call that finds nothing is prepared, and slots are taken and given back, in vain: so few at first.
const OFFER_MIN: usize = 4;
/// Errors of the socket that one call skips over before it gives up.
const ERRORS_MAX: usize = 8;

/// Ancillary data of one receive: the segment size of joined packets.
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    bytes: i32,
    padding: i32,
}

/// A received message that still has packets to hand out.
#[derive(Clone, Copy, Debug)]
struct Joined {
    index: usize,
    offset: usize,
}

#[derive(Debug)]
struct JoinedMemory {
    memory: RawBytes,
    /// Messages in the memory, and the first with packets left.
    messages: usize,
    next: Joined,
}

pub(crate) struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addrs: Box<[RawAddr]>,
    segments: Box<[SegmentSize]>,
    /// Slots offered to the call in progress.
    offered: Vec<Buf>,
    offer: usize,
    payload_bytes_max: usize,
    joined: Option<JoinedMemory>,
}

// SAFETY: the raw pointers inside the arrays are written and used within one call of `burst`; between calls they are
// never read.
unsafe impl Send for Receiver {}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("batch", &self.headers.len())
            .finish_non_exhaustive()
    }
}

impl Receiver {
    pub(crate) fn new(batch: usize, payload_bytes_max: usize, gro: bool) -> Self {
        let batch = if gro { JOINED_BATCH } else { batch };
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
            offered: Vec::with_capacity(batch),
            offer: OFFER_MIN.min(batch),
            payload_bytes_max,
            joined: gro.then(|| JoinedMemory {
                memory: RawBytes::new(batch * JOINED_STRIDE),
                messages: 0,
                next: Joined {
                    index: 0,
                    offset: 0,
                },
            }),
        }
    }

    /// Whether packets wait here that the descriptor does not show.
    pub(crate) fn has_pending(&self) -> bool {
        self.joined
            .as_ref()
            .is_some_and(|joined| joined.next.index < joined.messages)
    }

    pub(crate) fn burst(
        &mut self,
        socket: &Socket,
        pool: &mut BufPool,
        out: &mut PacketBatch,
        stats: &mut UdpStats,
    ) -> usize {
        let before = out.len();
        if self.joined.is_some() {
            if !self.has_pending() {
                self.receive_joined(socket, stats);
            }
            self.split(pool, out, stats);
        } else {
            self.receive_into_slots(socket, pool, out, stats);
        }
        out.len() - before
    }

    fn receive_into_slots(
        &mut self,
        socket: &Socket,
        pool: &mut BufPool,
        out: &mut PacketBatch,
        stats: &mut UdpStats,
    ) {
        let wanted = self.offer.min(out.room());
        while self.offered.len() < wanted {
            let Some(buf) = pool.alloc() else { break };
            let at = self.offered.len();
            self.vectors[at] = libc::iovec {
                iov_base: pool.dma_address(&buf).cast(),
                iov_len: pool.slot_bytes(),
            };
            self.offered.push(buf);
        }
        let offered = self.offered.len();
        if offered == 0 {
            return;
        }
        let received = self.receive(socket, offered, stats);
        self.adapt_offer(offered, received);
        for (index, mut buf) in self.offered.drain(..).enumerate() {
            if index >= received {
                pool.free(buf);
                continue;
            }
            let len = self.headers[index].msg_len as usize;
            let whole = self.headers[index].msg_hdr.msg_flags & libc::MSG_TRUNC == 0
                && len <= self.payload_bytes_max;
            match self.addrs[index].decode().filter(|_| whole) {
                Some(peer) => {
                    pool.set_len(&mut buf, len);
                    if let Err(packet) = out.push(Packet { buf, peer }) {
                        pool.free(packet.buf);
                    }
                    stats.rx_packets += 1;
                }
                None => {
                    stats.rx_oversize += 1;
                    pool.free(buf);
                }
            }
        }
        stats.rx_receives += received as u64;
    }

    /// A call that used all that it was offered is followed by one of twice as much.
    fn adapt_offer(&mut self, offered: usize, used: usize) {
        self.offer = if used == offered {
            (self.offer * 2).min(self.headers.len())
        } else {
            OFFER_MIN.max(used).min(self.headers.len())
        };
    }

    fn receive_joined(&mut self, socket: &Socket, stats: &mut UdpStats) {
        let Some(joined) = self.joined.as_mut() else {
            return;
        };
        let offered = self.offer;
        for (index, vector) in self.vectors[..offered].iter_mut().enumerate() {
            let at = joined.memory.at(index * JOINED_STRIDE);
            *vector = libc::iovec {
                iov_base: at.cast(),
                iov_len: JOINED_BYTES_MAX,
            };
        }
        let messages = self.receive(socket, offered, stats);
        self.adapt_offer(offered, messages);
        if let Some(joined) = self.joined.as_mut() {
            joined.messages = messages;
            joined.next = Joined {
                index: 0,
                offset: 0,
            };
        }
        stats.rx_receives += messages as u64;
    }

    /// Cuts joined messages into packets until the slots or the room run out.
    fn split(&mut self, pool: &mut BufPool, out: &mut PacketBatch, stats: &mut UdpStats) {
        let Some(joined) = self.joined.as_mut() else {
            return;
        };
        while joined.next.index < joined.messages && !out.is_full() {
            let Joined { index, offset } = joined.next;
            let len = (self.headers[index].msg_len as usize).min(JOINED_BYTES_MAX);
            let segment_bytes =
                segment_bytes(&self.headers[index].msg_hdr, &self.segments[index]).unwrap_or(len);
            let end = len.min(offset + segment_bytes.max(1));
            let fits = end - offset <= pool.slot_bytes().min(self.payload_bytes_max);
            match self.addrs[index].decode().filter(|_| fits) {
                Some(peer) => {
                    // SAFETY: the kernel has written this message before `recvmmsg` returned and writes no more; no
                    // mutable slice of this memory is ever made, and the shared one ends within this iteration.
                    let bytes = unsafe {
                        joined
                            .memory
                            .slice(index * JOINED_STRIDE + offset, end - offset)
                    };
                    let Some(buf) = pool.alloc_from(bytes) else {
                        break;
                    };
                    if let Err(packet) = out.push(Packet { buf, peer }) {
                        pool.free(packet.buf);
                        break;
                    }
                    stats.rx_packets += 1;
                }
                None => stats.rx_oversize += 1,
            }
            joined.next = if end >= len {
                Joined {
                    index: index + 1,
                    offset: 0,
                }
            } else {
                Joined { index, offset: end }
            };
        }
    }

    /// One `recvmmsg` into the first `count` vectors. Returns the number of messages.
    fn receive(&mut self, socket: &Socket, count: usize, stats: &mut UdpStats) -> usize {
        for index in 0..count {
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.addrs[index]).cast();
            header.msg_namelen = size_of::<RawAddr>() as u32;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.segments[index]).cast();
            header.msg_controllen = size_of::<SegmentSize>() as _;
            header.msg_flags = 0;
        }
        for _ in 0..ERRORS_MAX {
            stats.rx_calls += 1;
            // SAFETY: the first `count` headers point at one vector, one address and ancillary room of this object's
            // arrays each, which do not move during the call; each vector covers a slot whose handle is in `offered`, or
            // a part of the memory for joined packets, and no slice of either exists now.
            let received = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as u32,
                    libc::MSG_DONTWAIT,
                    null_mut(),
                )
            };
            if received >= 0 {
                return received as usize;
            }
            match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                libc::EAGAIN => return 0,
                libc::EINTR => {}
                // What an earlier send met, such as a refusing peer: not our reader's trouble.
                _ => stats.rx_errors += 1,
            }
        }
        0
    }
}

/// The segment size that the kernel attached to a joined message, if it did.
fn segment_bytes(header: &libc::msghdr, segment: &SegmentSize) -> Option<usize> {
    let present = header.msg_controllen >= size_of::<libc::cmsghdr>() + size_of::<i32>()
        && segment.header.cmsg_level == libc::SOL_UDP
        && segment.header.cmsg_type == libc::UDP_GRO;
    present
        .then(|| usize::try_from(segment.bytes).ok())
        .flatten()
        .filter(|bytes| *bytes > 0)
}
