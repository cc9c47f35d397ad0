//! Datagrams that are not sound packets of the session change nothing and are not answered; sound ones with arbitrary
//! content, from a peer that has gone bad, never make it panic or grow.

use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{GuardEpoch, SessionId, Time, Token};
use ionian_wire::packet::{PREFIX_BYTES, PacketHeader, PacketKind, PacketPrefix, Sack};
use proptest::prelude::*;

use super::pair::{Pair, message};
use crate::session::{Rejected, SessionState, Take, tokens};

fn prefix(session: u64, epoch: u64, token: u64) -> [u8; PREFIX_BYTES] {
    let prefix = PacketPrefix {
        session: SessionId::new(session),
        epoch: GuardEpoch::new(epoch),
        token: Token::new(token),
    };
    prefix.to_bytes()
}

/// What end 1 accepts: session 7, epoch 5, the token of end 0.
fn good() -> [u8; PREFIX_BYTES] {
    prefix(7, 5, 0xaaaa + 5)
}

fn packet(prefix: &[u8; PREFIX_BYTES], header: PacketHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4_096];
    let len = header.emit(prefix, [payload, &[]], &mut out).expect("room");
    out.truncate(len);
    out
}

fn data(seq: u64) -> PacketHeader {
    PacketHeader {
        kind: PacketKind::Data,
        ask: false,
        seq,
        ack: 0,
        credit: 8,
        sack: None,
    }
}

#[test]
fn what_is_turned_away_changes_nothing() {
    let mut pair = Pair::new();
    // Something lies ahead of a gap, and something is under way back.
    pair.push(0, 1, 1_000);
    let sent = pair.transmit(0);
    pair.give(1, &sent[1]);
    pair.push(1, 2, 100);
    pair.transmit(1);

    let payload = message(3, 30);
    let next = pair.ends[1].receiver.arrived() + 1;
    let limit = pair.ends[1].receiver.credit_limit();
    let sent_there = pair.ends[1].sender.next - 1;
    let mut damaged = packet(&good(), data(next), &payload);
    damaged[40] ^= 1;
    let mut version = packet(&good(), data(next), &payload);
    version[24] ^= 0x80;
    let covered = version.len() - 4;
    let crc = ionian_wire::crc::crc32c(&version[..covered]);
    version[covered..].copy_from_slice(&crc.to_le_bytes());
    let ack_ahead = PacketHeader {
        ack: sent_there + 1,
        ..data(next)
    };
    let mut bits = Sack::default();
    bits.set(1);
    let sack_ahead = PacketHeader {
        ack: sent_there - 1,
        sack: Some(bits),
        ..data(next)
    };
    let cases = [
        (vec![], Rejected::Short),
        (good().to_vec(), Rejected::Short),
        (good()[..23].to_vec(), Rejected::Short),
        (
            packet(&prefix(8, 5, 0xaaaf), data(next), &payload),
            Rejected::Session,
        ),
        (
            packet(&prefix(7, 4, 0xaaaf), data(next), &payload),
            Rejected::Epoch,
        ),
        (
            packet(&prefix(7, 6, 0xaaaf), data(next), &payload),
            Rejected::Epoch,
        ),
        (
            packet(&prefix(7, 5, 0xbbbb + 5), data(next), &payload),
            Rejected::Token,
        ),
        (damaged, Rejected::Checksum),
        (version, Rejected::Version),
        (packet(&good(), data(0), &payload), Rejected::Malformed),
        (packet(&good(), data(next), &[]), Rejected::Malformed),
        (packet(&good(), ack_ahead, &payload), Rejected::AckAhead),
        (packet(&good(), sack_ahead, &payload), Rejected::AckAhead),
        (
            packet(&good(), data(limit + 1), &payload),
            Rejected::BeyondCredit,
        ),
        (packet(&good(), data(next), &[0; 453]), Rejected::TooLong),
    ];
    for (datagram, reason) in cases {
        let before = pair.ends[1].clone();
        let result = pair.ends[1].receive(pair.now, &datagram, &mut |_: &[u8]| {
            unreachable!("nothing is delivered")
        });
        assert_eq!(result, Err(reason));
        assert_eq!(
            pair.ends[1].stats().rejected(reason),
            before.stats().rejected(reason) + 1
        );
        pair.ends[1].stats.rejected = before.stats.rejected;
        assert!(pair.ends[1] == before, "{reason:?} changed something");
        assert!(pair.transmit(1).is_empty());
    }
    // What is sound still works.
    for datagram in &sent {
        pair.give(1, datagram);
    }
    assert_eq!(pair.got[1], [message(1, 1_000)]);
}

#[test]
fn sessions_are_told_apart_by_what_a_datagram_claims() {
    let datagram = packet(&good(), data(1), &message(1, 1));
    let claim = tokens::peek(&datagram).expect("long enough");
    assert_eq!(
        (claim.session, claim.epoch),
        (SessionId::new(7), GuardEpoch::new(5))
    );
    assert_eq!(tokens::peek(&datagram[..10]), None);
}

#[test]
fn no_token_is_shown() {
    let pair = Pair::new();
    let config = super::world::config(0, 5);
    for shown in [
        alloc::format!("{:?}", pair.ends[0]),
        alloc::format!("{config:?}"),
    ] {
        for token in [config.token_send, config.token_receive] {
            assert!(!shown.contains(&alloc::format!("{token}")), "{shown}");
        }
    }
}

#[test]
fn a_peer_that_grants_everything_and_acks_around_a_gap_does_not_overrun_the_window() {
    let mut pair = Pair::fresh(|_| ());
    let window = pair.ends[1].sender.slots.len() as u64;
    for round in 0..200 {
        // A packet each: the ring would hold many times the window of them.
        pair.push(1, round, 10);
        pair.transmit(1);
        let sent = pair.ends[1].sender.next - 1;
        assert_eq!(sent, window.min(u64::from(round) + 1));
        let mut sack = Sack::default();
        for bit in 1..sent {
            sack.set(bit);
        }
        let header = PacketHeader {
            kind: PacketKind::Ack,
            credit: 1 << 40,
            sack: Some(sack),
            ..data(0)
        };
        pair.give(1, &packet(&good(), header, &[]));
    }
    assert_eq!(pair.ends[1].state(), SessionState::Open);
}

fn headers() -> impl Strategy<Value = (PacketHeader, Vec<u8>)> {
    let credit = prop_oneof![0u64..60, 0u64..1 << 62];
    let numbers = (0u64..60, 0u64..60, credit);
    let sack = proptest::option::of(any::<[u64; 4]>().prop_map(Sack));
    let payload = proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300);
    (0..8, any::<bool>(), numbers, sack, payload).prop_map(
        |(kind, ask, (seq, ack, credit), sack, payload)| {
            let kind = match kind {
                0 => PacketKind::Ack,
                _ => PacketKind::Data,
            };
            let header = PacketHeader {
                kind,
                ask,
                seq,
                ack,
                credit,
                sack,
            };
            (header, payload)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn a_peer_gone_bad_breaks_nothing_but_the_session(
        steps in proptest::collection::vec((headers(), 0u64..400_000, any::<bool>()), 1..60),
    ) {
        let mut pair = Pair::fresh(|_| ());
        let memory_bytes = pair.ends[1].memory_bytes();
        for ((mut header, payload), pass, refuse) in steps {
            pair.now = Time::from_ns(pair.now.as_ns() + pass);
            if pair.ends[1].room_bytes() > 1_000 && pair.ends[1].state() == SessionState::Open {
                pair.push(1, 1, 600);
            }
            let _ = pair.transmit(1);
            if header.kind == PacketKind::Ack {
                header.seq = 0;
            }
            // Acks of what was really sent get further than those of anything.
            header.ack = header.ack.min(pair.ends[1].sender.next - 1);
            let payload = if header.kind == PacketKind::Data { &payload[..] } else { &[] };
            let datagram = packet(&good(), header, payload);
            let mut delivered = 0;
            let _ = pair.ends[1].receive(pair.now, &datagram, &mut |message: &[u8]| {
                delivered += message.len();
                if refuse { Take::Later } else { Take::Taken }
            });
            pair.ends[1].on_deadline(pair.now);
            prop_assert_eq!(pair.ends[1].memory_bytes(), memory_bytes);
        }
    }
}
