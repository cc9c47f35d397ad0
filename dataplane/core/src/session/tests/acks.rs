//! When acks and credit are sent, and what credit holds back.

use alloc::vec::Vec;

use ionian_types::{Nanos, Time};
use ionian_wire::packet::PacketKind;

use super::pair::{Pair, bitmap, message, sequences, shape};
use crate::session::{CREDIT_INITIAL_PACKETS, PushError, Take};

#[test]
fn small_messages_share_a_packet_and_are_delivered_from_within_it() {
    let mut pair = Pair::new();
    for fill in 0..10 {
        pair.push(0, fill, 20);
    }
    let sent = pair.transmit(0);
    assert_eq!(sent.len(), 1);
    let mut places = Vec::new();
    let now = pair.now;
    let result = pair.ends[1].receive(now, &sent[0], &mut |message: &[u8]| {
        places.push(message.as_ptr());
        Take::Taken
    });
    assert_eq!(result.map(|received| received.messages), Ok(10));
    assert!(places.iter().all(|at| sent[0].as_ptr_range().contains(at)));
}

#[test]
fn an_ack_waits_for_company_and_no_longer_than_configured() {
    let mut pair = Pair::new();
    pair.push(0, 1, 10);
    let sent = pair.transmit(0);
    pair.give(1, &sent[0]);
    assert!(pair.transmit(1).is_empty());
    assert_eq!(
        pair.ends[1].next_deadline(),
        pair.now.after(Nanos::from_us(50))
    );
    pair.expire(1);
    let acks = pair.transmit(1);
    assert_eq!(acks.len(), 1);
    assert_eq!(shape(&acks[0]), (PacketKind::Ack, 0, false));
    assert!(pair.give(0, &acks[0]).freed);
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
    assert_eq!(pair.ends[0].next_deadline(), Time::FAR);
}

#[test]
fn data_carries_the_ack() {
    let mut pair = Pair::new();
    pair.push(0, 1, 10);
    let sent = pair.transmit(0);
    pair.give(1, &sent[0]);
    pair.push(1, 2, 10);
    let answer = pair.transmit(1);
    assert_eq!(answer.len(), 1);
    assert!(pair.give(0, &answer[0]).freed);
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
    assert_ne!(
        pair.ends[1].next_deadline(),
        pair.now.after(Nanos::from_us(50))
    );
}

#[test]
fn every_few_packets_are_acked_at_once() {
    let mut pair = Pair::new();
    let every = u64::from(pair.ends[1].receiver.ack_every_packets());
    for number in 1..=every {
        assert!(pair.transmit(1).is_empty());
        pair.push(0, number as u8, 10);
        let sent = pair.transmit(0);
        pair.give(1, &sent[0]);
    }
    assert_eq!(pair.transmit(1).len(), 1);
}

#[test]
fn a_gap_and_a_duplicate_are_answered_at_once() {
    let mut pair = Pair::new();
    pair.push(0, 1, 1_000);
    let sent = pair.transmit(0);
    pair.give(1, &sent[2]);
    assert_eq!(pair.transmit(1).len(), 1);
    pair.give(1, &sent[2]);
    assert_eq!(pair.transmit(1).len(), 1);
    pair.give(1, &sent[0]);
    pair.give(1, &sent[1]);
    assert_eq!(pair.transmit(1).len(), 1, "the gap is closed");
    let stats = pair.ends[1].stats();
    assert_eq!((stats.out_of_order, stats.duplicates), (1, 1));
    assert_eq!(pair.got[1], [message(1, 1_000)]);
}

#[test]
fn a_bitmap_travels_with_data_where_it_fits_and_alone_where_not() {
    let mut pair = Pair::new();
    let payload = pair.ends[1].payload_bytes_max;
    // End 1 has sent a packet that is full to the last byte, and it is lost.
    pair.push(1, 1, payload - 8);
    let lost = pair.transmit(1);
    assert_eq!(lost[0].len(), 512);
    // Then a gap opens at end 1.
    pair.push(0, 2, 1_000);
    let sent = pair.transmit(0);
    pair.give(1, &sent[1]);
    pair.push(1, 3, 10);
    let with_bitmap = pair.transmit(1);
    assert_eq!(with_bitmap.len(), 1);
    assert!(bitmap(&with_bitmap[0]).is_some_and(|sack| sack.get(1)));
    // The full packet goes again unchanged, so that the bitmap needs a packet of its own.
    pair.give(1, &sent[2]);
    pair.ends[1].on_deadline(pair.ends[1].next_deadline());
    let apart = pair.transmit(1);
    assert_eq!(apart.len(), 2);
    assert_eq!((apart[0].len(), bitmap(&apart[0])), (512, None));
    assert_eq!(shape(&apart[1]).0, PacketKind::Ack);
    assert!(bitmap(&apart[1]).is_some_and(|sack| sack.get(1) && sack.get(2)));
}

#[test]
fn a_sender_that_was_told_nothing_sends_little_and_asks() {
    let mut pair = Pair::fresh(|_| ());
    pair.push(0, 1, 4_000);
    let sent = pair.transmit(0);
    assert_eq!(sent.len(), CREDIT_INITIAL_PACKETS as usize);
    let asks: Vec<bool> = sent.iter().map(|datagram| shape(datagram).2).collect();
    assert_eq!(asks, [false, false, false, true]);
    for datagram in &sent {
        pair.give(1, datagram);
    }
    let acks = pair.transmit(1);
    assert_eq!(acks.len(), 1);
    pair.give(0, &acks[0]);
    assert!(pair.transmit(0).len() > 4);
}

#[test]
fn a_receiver_that_takes_nothing_stops_the_sender_and_loses_nothing() {
    let mut pair = Pair::new();
    pair.take[1] = Take::Later;
    let limit_before = pair.ends[1].receiver.credit_limit();
    let mut pushed = 0u8;
    while pair.ends[0].room_bytes() >= 1_008 {
        pair.push(0, pushed, 1_000);
        pushed += 1;
    }
    assert_eq!(
        pair.ends[0].push(&[&message(0, 1_000)]),
        Err(PushError::Full {
            need: 1_008,
            room: pair.ends[0].room_bytes()
        })
    );
    pair.settle(Nanos::from_us(10));
    assert!(pair.got[1].is_empty() && pair.ends[1].has_held());
    // Two packets went into the message that was refused; all others are held, as many as there was credit.
    let limit = pair.ends[1].receiver.credit_limit();
    assert_eq!(pair.ends[0].sender.next - 1, limit);
    assert_eq!(pair.ends[1].receiver.arrived(), limit);
    assert_eq!(limit, limit_before + 2);
    // The application has room again: what was held comes out, and the credit goes to the sender by itself.
    pair.take[1] = Take::Taken;
    pair.resume(1);
    pair.settle(Nanos::from_us(10));
    let fills: Vec<u8> = pair.got[1].iter().map(|message| message[8]).collect();
    assert_eq!(fills, (0..pushed).collect::<Vec<u8>>());
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
}

#[test]
fn a_refused_message_is_offered_once_per_datagram() {
    let mut pair = Pair::new();
    pair.take[1] = Take::Later;
    for offers in 1..=3 {
        pair.push(0, 1, 10);
        let sent = pair.transmit(0);
        assert!(pair.give(1, &sent[0]).held);
        assert_eq!(pair.ends[1].stats().refusals, offers);
    }
    pair.resume(1);
    assert_eq!(pair.got[1].len(), 3);
}

#[test]
fn lost_news_of_credit_is_asked_for() {
    let mut pair = Pair::new();
    pair.take[1] = Take::Later;
    while pair.ends[0].room_bytes() >= 1_008 {
        pair.push(0, 1, 1_000);
    }
    pair.settle(Nanos::from_us(10));
    pair.resume(1);
    let news = pair.transmit(1);
    assert_eq!(news.len(), 1, "and it is lost");
    pair.expire(0);
    let question = pair.transmit(0);
    assert_eq!(question.len(), 1);
    assert_eq!(shape(&question[0]), (PacketKind::Ack, 0, true));
    pair.give(1, &question[0]);
    let answer = pair.transmit(1);
    assert_eq!(answer.len(), 1);
    assert!(!shape(&answer[0]).2, "an answer never asks");
    pair.give(0, &answer[0]);
    assert!(!sequences(&pair.transmit(0)).is_empty());
}

#[test]
fn what_is_not_one_message_is_not_taken_over() {
    let mut pair = Pair::new();
    let good = message(1, 30);
    let long = message(1, 4 << 10);
    let cases: [&[&[u8]]; 6] = [
        &[],
        &[&good[..7], &good[7..]],
        &[&good[..37]],
        &[&good, b"x"],
        &[&good, &good],
        &[&long],
    ];
    for parts in cases {
        assert_eq!(pair.ends[0].push(parts), Err(PushError::NotOneMessage));
    }
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
    assert!(pair.transmit(0).is_empty());
    assert_eq!(
        pair.ends[0].push(&[&good[..8], &good[8..20], &[], &good[20..]]),
        Ok(())
    );
}
