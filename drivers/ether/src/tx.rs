//! Sending: headers go in front of payloads, and what has no hardware address to go to waits for it.

use std::net::IpAddr;

use ionian_driver_api::{BufPool, Clock, Packet, PacketBatch, PeerAddr, Time};

use crate::emit::{self, Ends};
use crate::ether::{EtherDevice, Waiting};
use crate::link::{Frame, FrameLink};
use crate::mac::MacAddr;
use crate::neighbours::Route;
use crate::options::{is_station, same_network};

impl<L: FrameLink, C: Clock> EtherDevice<L, C> {
    pub(crate) fn send(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        if burst.is_empty() && !self.has_chores() {
            return 0;
        }
        self.check_pool(pool);
        let now = self.clock.now();
        let before = burst.len();
        self.chores(pool, now);
        // What waited goes first, or packets to one peer would overtake each other.
        let mut full = !self.send_waiting(pool);
        while !full && !burst.is_empty() {
            self.stage_burst(pool, burst, now);
            if !self.send_staged(pool) {
                while let Some(packet) = self.unstage(pool) {
                    if let Err(packet) = burst.push_front(packet) {
                        // It came from there, so there is room.
                        pool.free(packet.buf);
                    }
                }
                full = true;
            }
        }
        if !self.asks.is_empty() {
            self.say(pool);
        }
        before - burst.len()
    }

    /// Sends packets whose neighbours have answered. Returns whether the link took all of them.
    pub(crate) fn send_waiting(&mut self, pool: &mut BufPool) -> bool {
        while self.resolved {
            let mut index = 0;
            while !self.staged.is_full()
                && let Some(waiting) = self.waiting.get(index)
            {
                match self.neighbours.known(waiting.next_hop) {
                    None => index += 1,
                    Some(mac) => {
                        if let Some(waiting) = self.waiting.remove(index) {
                            self.stage(pool, waiting.packet, mac);
                        }
                    }
                }
            }
            self.resolved = !self.staged.is_empty();
            if !self.send_staged(pool) {
                while let Some(packet) = self.unstage(pool) {
                    self.wait_again(pool, packet);
                }
                return false;
            }
        }
        true
    }

    /// Takes packets from the burst and makes frames of them, until the link's batch is full or the burst is empty.
    fn stage_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch, now: Time) {
        while !self.staged.is_full()
            && let Some(packet) = burst.pop()
        {
            if packet.buf.len() > self.own.payload_bytes_max {
                self.stats.tx_oversize += 1;
                pool.free(packet.buf);
                continue;
            }
            let Some(next_hop) = self.next_hop(packet.peer) else {
                self.stats.tx_unreachable += 1;
                pool.free(packet.buf);
                continue;
            };
            match self
                .neighbours
                .resolve(next_hop, now, &mut self.asks, &mut self.stats)
            {
                Route::Known(mac) => self.stage(pool, packet, mac),
                Route::Wait => self.wait(pool, packet, next_hop),
                Route::Full => {
                    self.stats.tx_unresolved += 1;
                    pool.free(packet.buf);
                }
            }
        }
    }

    /// The neighbour that a packet goes to first.
    fn next_hop(&self, peer: PeerAddr) -> Option<IpAddr> {
        let (ip, own) = (peer.ip(), self.own.local.ip());
        if ip.is_ipv6() != own.is_ipv6() || !is_station(ip) || ip == own || peer.port() == 0 {
            return None;
        }
        if same_network(ip, own, self.options.prefix_len) {
            Some(ip)
        } else {
            self.options.gateway
        }
    }

    /// Puts headers in front of a packet, for a batch that has room.
    fn stage(&mut self, pool: &mut BufPool, packet: Packet, mac: MacAddr) {
        let Packet { mut buf, peer } = packet;
        let ends = Ends {
            src_mac: self.own.mac,
            dst_mac: mac,
            src: self.own.local.ip(),
            dst: peer.ip(),
            src_port: self.own.local.port(),
            dst_port: peer.port(),
        };
        let frame = pool.prepend(&mut buf, self.own.headers.bytes());
        emit::packet(frame, self.own.headers, &ends, self.checksum);
        let frame = Frame {
            buf,
            checksum: self.checksum,
        };
        if let Err(frame) = self.staged.push(frame) {
            pool.free(frame.buf);
            return;
        }
        // As long as the batch of frames.
        let _ = self.peers.push(peer);
    }

    /// Gives the batch to the link. Returns whether it took all of it; the rest is to be unstaged.
    fn send_staged(&mut self, pool: &mut BufPool) -> bool {
        if self.staged.is_empty() {
            return true;
        }
        let sent = self.link.tx_burst(pool, &mut self.staged);
        self.stats.tx_packets += sent as u64;
        for _ in 0..sent {
            self.peers.pop();
        }
        self.staged.is_empty()
    }

    /// Makes a packet again of the last frame of the batch.
    fn unstage(&mut self, pool: &mut BufPool) -> Option<Packet> {
        let frame = self.staged.remove(self.staged.len().checked_sub(1)?)?;
        let peer = self.peers.remove(self.peers.len().checked_sub(1)?)?;
        let mut buf = frame.buf;
        pool.strip(&mut buf);
        Some(Packet { buf, peer })
    }

    fn wait(&mut self, pool: &mut BufPool, packet: Packet, next_hop: IpAddr) {
        let others = self
            .waiting
            .iter()
            .filter(|waiting| waiting.next_hop == next_hop)
            .count();
        if others >= self.options.waiting_max || self.waiting.is_full() {
            self.stats.tx_unresolved += 1;
            pool.free(packet.buf);
            return;
        }
        self.stats.tx_waited += 1;
        if let Err(waiting) = self.waiting.push(Waiting { next_hop, packet }) {
            pool.free(waiting.packet.buf);
        }
    }

    /// Puts a packet that the link had no room for back to where it waited.
    fn wait_again(&mut self, pool: &mut BufPool, packet: Packet) {
        let back = match self.next_hop(packet.peer) {
            Some(next_hop) => self.waiting.push_front(Waiting { next_hop, packet }),
            None => Err(Waiting {
                next_hop: packet.peer.ip(),
                packet,
            }),
        };
        if let Err(waiting) = back {
            // It came from there, so there is room and a way.
            self.stats.tx_unresolved += 1;
            pool.free(waiting.packet.buf);
        }
    }
}
