//! The device: what it is, and its chores beside packets.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ionian_driver_api::{
    Bounded, BufPool, Clock, Packet, PacketBatch, PacketCaps, PacketDevice, PeerAddr, Time,
};
use ionian_types::Nanos;

use crate::emit;
use crate::link::{Checksum, Frame, FrameBatch, FrameLink, LinkStats};
use crate::mac::MacAddr;
use crate::neighbours::{Ask, Asks, Neighbours};
use crate::options::{EtherOpenError, EtherOptions, EtherStats};
use crate::parse::Own;

/// Announcements of the own address after the device was opened. *Source*: ANNOUNCE_NUM of RFC 5227, section 1.1.
const ANNOUNCEMENTS: u8 = 2;
/// From one to the next. *Source*: ANNOUNCE_INTERVAL, there.
const ANNOUNCE_EVERY: Nanos = Nanos::from_ms(2_000);
/// Questions and answers of one call; what is more is dropped, and asked again.
const WORDS: usize = 64;

/// A packet that waits for its neighbour's hardware address.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) next_hop: IpAddr,
    pub(crate) packet: Packet,
}

/// UDP packets over a link that carries Ethernet frames.
///
/// Pools given to it have the headroom that its capabilities ask for, and slots of at least its largest payload. It has
/// deadlines, for questions to neighbours that go unanswered, and keeps them whenever it is called; what polls it, or sends
/// again what was lost, calls it often enough. [`EtherDevice::next_deadline`] is for who does neither.
#[derive(Debug)]
pub struct EtherDevice<L, C> {
    pub(crate) link: L,
    pub(crate) clock: C,
    pub(crate) own: Own,
    pub(crate) options: EtherOptions,
    caps: PacketCaps,
    /// Whether the link fills in checksums.
    pub(crate) checksum: Checksum,
    pub(crate) stats: EtherStats,
    pub(crate) neighbours: Neighbours,
    pub(crate) asks: Asks,
    /// Received and not looked at yet.
    pub(crate) received: FrameBatch,
    /// On their way into the link, and where they go; both empty between calls.
    pub(crate) staged: FrameBatch,
    pub(crate) peers: Bounded<PeerAddr>,
    /// Questions and answers on their way into the link; empty between calls.
    pub(crate) words: FrameBatch,
    pub(crate) waiting: Bounded<Waiting>,
    /// Some packets that waited can leave.
    pub(crate) resolved: bool,
    announcements: u8,
    announce_at: Time,
}

impl<L: FrameLink, C: Clock> EtherDevice<L, C> {
    /// Makes the host that the options describe, on this link. It announces itself at the first call of a burst.
    ///
    /// # Errors
    ///
    /// [`EtherOpenError`], which names the option and what is permitted. Effect: none; the link is dropped.
    pub fn open(link: L, clock: C, options: &EtherOptions) -> Result<Self, EtherOpenError> {
        let link_caps = link.caps();
        options.check(&link_caps)?;
        let headers = options.headers();
        let batch = options.batch;
        let own = Own {
            mac: link_caps.mac,
            local: options.local,
            headers,
            payload_bytes_max: options.payload_bytes_max(),
        };
        Ok(Self {
            own,
            caps: PacketCaps {
                backend: link_caps.backend,
                payload_bytes_max: own.payload_bytes_max,
                headroom_bytes: headers.bytes() + link_caps.headroom_bytes,
                batch_max: batch,
                gso: false,
                gro: false,
            },
            checksum: if link_caps.tx_checksum {
                Checksum::Link
            } else {
                Checksum::InFrame
            },
            options: *options,
            stats: EtherStats::default(),
            neighbours: Neighbours::new(options),
            asks: Bounded::with_capacity(WORDS),
            received: Bounded::with_capacity(batch),
            staged: Bounded::with_capacity(batch),
            peers: Bounded::with_capacity(batch),
            words: Bounded::with_capacity(WORDS),
            waiting: Bounded::with_capacity(options.waiting_all_max),
            resolved: false,
            announcements: ANNOUNCEMENTS,
            announce_at: clock.now(),
            link,
            clock,
        })
    }

    /// Counters since the device was opened.
    #[must_use]
    pub fn stats(&self) -> EtherStats {
        self.stats
    }

    /// The link's counters. May ask the system: not for the path of a packet.
    pub fn link_stats(&mut self) -> LinkStats {
        self.link.stats()
    }

    /// The link.
    pub fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// Own hardware address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.own.mac
    }

    /// Neighbours remembered now.
    #[must_use]
    pub fn neighbours(&self) -> usize {
        self.neighbours.len()
    }

    /// Packets that wait for a neighbour's hardware address now, each with its slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The hardware address of a neighbour, if it is known.
    #[must_use]
    pub fn neighbour(&self, ip: IpAddr) -> Option<MacAddr> {
        self.neighbours.known(ip)
    }

    /// Fixes the hardware address of a neighbour: it is not asked for, does not age, and nobody can claim it.
    ///
    /// Returns `false`, without effect, if the address is not of this device's family or the table is full.
    pub fn fix_neighbour(&mut self, ip: IpAddr, mac: MacAddr) -> bool {
        let fixed = ip.is_ipv6() == self.own.headers.is_ipv6()
            && mac.is_unicast()
            && self.neighbours.fix(ip, mac);
        self.resolved |= fixed;
        fixed
    }

    /// When the device wants to be called even if there is nothing to send or receive; `None` if it does not.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let at = self.neighbours.next_at().min(self.announce_at);
        (at != Time::FAR).then_some(at)
    }

    /// Ends the device: gives every slot that it and its link hold back to `pool`, and hands out the link. Packets that
    /// waited are lost.
    pub fn close(mut self, pool: &mut BufPool) -> L {
        while let Some(waiting) = self.waiting.pop() {
            pool.free(waiting.packet.buf);
        }
        while let Some(frame) = self.received.pop() {
            pool.free(frame.buf);
        }
        self.link.drain(pool);
        self.link
    }

    /// Whether there may be something to do besides packets.
    pub(crate) fn has_chores(&self) -> bool {
        self.resolved
            || !self.asks.is_empty()
            || !self.words.is_empty()
            || self.neighbours.next_at() != Time::FAR
            || self.announce_at != Time::FAR
    }

    /// Announces the own address, asks again for neighbours, gives up those that do not answer, and sends what is to be said.
    pub(crate) fn chores(&mut self, pool: &mut BufPool, now: Time) {
        if self.announce_at <= now {
            let ip = self.own.local.ip();
            // Lost with a full queue: the next one comes in two seconds, and neighbours ask.
            let _ = self.asks.push(Ask { ip, known: None });
            self.announcements -= 1;
            self.announce_at = if self.announcements == 0 {
                Time::FAR
            } else {
                now.after(ANNOUNCE_EVERY)
            };
        }
        let (waiting, stats) = (&mut self.waiting, &mut self.stats);
        let mut lost = 0;
        self.neighbours.tick(now, &mut self.asks, stats, |ip| {
            let mut index = 0;
            while let Some(entry) = waiting.get(index) {
                if entry.next_hop != ip {
                    index += 1;
                } else if let Some(entry) = waiting.remove(index) {
                    pool.free(entry.packet.buf);
                    lost += 1;
                }
            }
        });
        self.stats.tx_unresolved += lost;
        self.say(pool);
    }

    /// Sends questions and answers. What finds no slot or no room is dropped: neighbours ask again, and so does this device.
    pub(crate) fn say(&mut self, pool: &mut BufPool) {
        while let Some(ask) = self.asks.pop() {
            let own = (self.own.local.ip(), self.own.mac);
            self.word(pool, |frame, headers| {
                if ask.ip == own.0 && headers.is_ipv6() {
                    // An announcement: over IPv6 it is an answer that nobody asked for. *Source*: RFC 4861, section 7.2.6.
                    emit::answer(
                        frame,
                        headers,
                        own,
                        (std::net::Ipv6Addr::UNSPECIFIED.into(), own.1),
                    );
                } else {
                    emit::question(frame, headers, own, ask.ip, ask.known);
                }
            });
            self.stats.asked += 1;
        }
        if self.words.is_empty() {
            return;
        }
        self.link.tx_burst(pool, &mut self.words);
        while let Some(frame) = self.words.pop() {
            pool.free(frame.buf);
            self.stats.words_dropped += 1;
        }
    }

    /// Makes a frame for a word between neighbours, to be sent by [`EtherDevice::say`].
    pub(crate) fn word(
        &mut self,
        pool: &mut BufPool,
        write: impl FnOnce(&mut [u8], crate::headers::Headers),
    ) {
        let headers = self.own.headers;
        let bytes = emit::word_bytes(headers);
        if self.words.is_full() {
            self.stats.words_dropped += 1;
            return;
        }
        let Some(mut buf) = pool.alloc() else {
            self.stats.words_dropped += 1;
            return;
        };
        // The smallest device's slot holds the 24 bytes by which a word is longer than the headers of a packet.
        pool.set_front(&mut buf, headers.bytes(), bytes.max(headers.bytes()));
        write(pool.front_mut(&mut buf), headers);
        let frame = Frame {
            buf,
            checksum: Checksum::InFrame,
        };
        if let Err(frame) = self.words.push(frame) {
            pool.free(frame.buf);
        }
    }

    /// # Panics
    ///
    /// If the pool was not made for this device: our own bug.
    pub(crate) fn check_pool(&self, pool: &BufPool) {
        assert!(
            pool.headroom_bytes() >= self.caps.headroom_bytes,
            "a pool with headroom of {} bytes for a device that needs {}",
            pool.headroom_bytes(),
            self.caps.headroom_bytes
        );
    }
}

impl<L: FrameLink, C: Clock> PacketDevice for EtherDevice<L, C> {
    fn caps(&self) -> PacketCaps {
        self.caps
    }

    fn local_addr(&self) -> PeerAddr {
        self.own.local
    }

    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        self.receive(pool, out)
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        self.send(pool, burst)
    }

    fn arm(&mut self) -> bool {
        // Frames that were received and not yet handed out do not show on the descriptor.
        self.received.is_empty() && self.link.arm()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.link.wake_fd()
    }
}
