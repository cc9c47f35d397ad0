//! Two sessions whose every datagram the test carries, drops or keeps by hand.

use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{Nanos, Time};
use ionian_wire::packet::{PacketKind, PacketView, Sack};

use super::world::config;
use crate::session::{Received, Session, SessionConfig, Take};

pub(super) struct Pair {
    pub(super) now: Time,
    pub(super) ends: [Session; 2],
    /// What each end has delivered.
    pub(super) got: [Vec<Vec<u8>>; 2],
    /// What the application of each end says to a message.
    pub(super) take: [Take; 2],
}

/// A message whose body is `bytes` times the byte `fill`.
pub(super) fn message(fill: u8, bytes: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0];
    message.extend((bytes as u32).to_le_bytes());
    message.resize(8 + bytes, fill);
    message
}

impl Pair {
    /// A pair that has exchanged something already, so that credit and round trip are known.
    pub(super) fn new() -> Self {
        let mut pair = Self::fresh(|_| ());
        for side in 0..2 {
            pair.push(side, 0, 1_000);
        }
        pair.settle(Nanos::from_us(10));
        assert_eq!(pair.got[0].len() + pair.got[1].len(), 2);
        pair.got = [Vec::new(), Vec::new()];
        pair
    }

    pub(super) fn fresh(change: impl Fn(&mut SessionConfig)) -> Self {
        let ends = [0, 1].map(|side| {
            let mut config = config(side, 5);
            change(&mut config);
            Session::new(config, Time::ZERO).expect("a sound configuration")
        });
        Self {
            now: Time::ZERO,
            ends,
            got: [Vec::new(), Vec::new()],
            take: [Take::Taken; 2],
        }
    }

    pub(super) fn push(&mut self, side: usize, fill: u8, bytes: usize) {
        assert_eq!(self.ends[side].push(&[&message(fill, bytes)]), Ok(()));
    }

    /// Everything that an end sends now.
    pub(super) fn transmit(&mut self, side: usize) -> Vec<Vec<u8>> {
        let mut out = vec![0; 512];
        let mut sent = Vec::new();
        while let Some(len) = self.ends[side].poll_transmit(self.now, &mut out) {
            sent.push(out[..len].to_vec());
        }
        sent
    }

    /// Gives a datagram to an end.
    pub(super) fn give(&mut self, side: usize, datagram: &[u8]) -> Received {
        let (got, take) = (&mut self.got[side], self.take[side]);
        let mut deliver = |message: &[u8]| {
            if take == Take::Taken {
                got.push(message.to_vec());
            }
            take
        };
        self.ends[side]
            .receive(self.now, datagram, &mut deliver)
            .expect("a sound datagram")
    }

    pub(super) fn resume(&mut self, side: usize) {
        let got = &mut self.got[side];
        self.ends[side].resume(self.now, &mut |message: &[u8]| {
            got.push(message.to_vec());
            Take::Taken
        });
    }

    pub(super) fn pass(&mut self, span: Nanos) {
        self.now = self.now.after(span);
    }

    /// Goes to the next deadline of an end and has it act.
    pub(super) fn expire(&mut self, side: usize) -> Time {
        self.now = self.now.max(self.ends[side].next_deadline());
        assert_ne!(self.now, Time::FAR, "nothing is awaited");
        self.ends[side].on_deadline(self.now);
        self.now
    }

    /// Carries everything both ways, `delay` each way, until neither end has anything to say.
    pub(super) fn settle(&mut self, delay: Nanos) {
        for _ in 0..1_000 {
            let mut silent = true;
            for side in 0..2 {
                let sent = self.transmit(side);
                silent &= sent.is_empty();
                self.pass(delay);
                for datagram in sent {
                    self.give(1 - side, &datagram);
                }
            }
            let acks = [0, 1].map(|side| self.ends[side].receiver.ack_at());
            if silent && acks == [Time::FAR; 2] {
                return;
            }
            for (side, due) in acks.into_iter().enumerate() {
                if due != Time::FAR && silent {
                    self.now = self.now.max(due);
                    self.ends[side].on_deadline(self.now);
                }
            }
        }
        panic!("the two ends never fall silent");
    }
}

/// The kind, sequence and ask flag of a datagram.
pub(super) fn shape(datagram: &[u8]) -> (PacketKind, u64, bool) {
    let header = *PacketView::new_checked(datagram)
        .expect("a sound packet")
        .header();
    (header.kind, header.seq, header.ask)
}

/// The bitmap of a datagram.
pub(super) fn bitmap(datagram: &[u8]) -> Option<Sack> {
    let view = PacketView::new_checked(datagram).expect("a sound packet");
    view.header().sack
}

/// The sequences of the data packets among datagrams.
pub(super) fn sequences(datagrams: &[Vec<u8>]) -> Vec<u64> {
    let shapes = datagrams.iter().map(|datagram| shape(datagram));
    shapes
        .filter(|shape| shape.0 == PacketKind::Data)
        .map(|shape| shape.1)
        .collect()
}
