//! Receiving: packets go up without their headers, words of neighbours are taken in and answered.

use ionian_driver_api::{BufPool, Clock, Packet, PacketBatch, Time};

use crate::emit;
use crate::ether::EtherDevice;
use crate::link::FrameLink;
use crate::neighbours::Heard;
use crate::options::same_network;
use crate::parse::{self, Seen, Word};

impl<L: FrameLink, C: Clock> EtherDevice<L, C> {
    pub(crate) fn receive(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        self.check_pool(pool);
        let before = out.len();
        if self.received.is_empty() {
            self.link
                .rx_burst(pool, self.own.headers, &mut self.received);
        }
        // The clock is read for words only, and only once.
        let mut now = None;
        while !out.is_full() {
            let Some(mut frame) = self.received.pop() else {
                break;
            };
            match parse::frame(pool.front(&frame.buf), &self.own, frame.checksum) {
                Ok(Seen::Packet {
                    peer,
                    payload_bytes,
                }) => {
                    pool.strip(&mut frame.buf);
                    // Behind the payload there may be padding, up to Ethernet's smallest frame.
                    pool.set_len(&mut frame.buf, payload_bytes);
                    self.stats.rx_packets += 1;
                    let packet = Packet {
                        buf: frame.buf,
                        peer,
                    };
                    if let Err(packet) = out.push(packet) {
                        pool.free(packet.buf);
                    }
                }
                Ok(Seen::Word(word)) => {
                    // First, so that there is a slot for the answer.
                    pool.free(frame.buf);
                    let now = *now.get_or_insert_with(|| self.clock.now());
                    self.take_in(pool, word, now);
                }
                Err(drop) => {
                    self.stats.count(drop);
                    pool.free(frame.buf);
                }
            }
        }
        if self.has_chores() {
            let now = now.unwrap_or_else(|| self.clock.now());
            self.chores(pool, now);
            self.send_waiting(pool);
        }
        out.len() - before
    }

    fn take_in(&mut self, pool: &mut BufPool, word: Word, now: Time) {
        let own = (self.own.local.ip(), self.own.mac);
        let (ip, mac) = match word {
            Word::Question { ip, mac, .. } | Word::Answer { ip, mac, .. } => (ip, mac),
        };
        if ip == own.0 {
            // Somebody else says that he is this device. Its own words do not come back.
            if mac != own.1 {
                self.stats.conflicts += 1;
            }
            return;
        }
        let (overrides, adds) = match word {
            // Who asks for this device is about to send to it, and will get an answer.
            Word::Question { target, .. } => (
                true,
                target == own.0 && same_network(ip, own.0, self.options.prefix_len),
            ),
            Word::Answer { overrides, .. } => (overrides, false),
        };
        if !ip.is_unspecified() {
            let heard = Heard {
                ip,
                mac,
                overrides,
                adds,
            };
            self.resolved |= self.neighbours.hear(heard, now, &mut self.stats);
        }
        if let Word::Question { target, .. } = word
            && target == own.0
        {
            self.stats.answered += 1;
            self.word(pool, |frame, headers| {
                emit::answer(frame, headers, own, (ip, mac));
            });
        }
    }
}
