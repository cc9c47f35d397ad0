//! How lost packets are found and made up for.

use alloc::vec::Vec;

use ionian_types::Nanos;

use super::pair::{Pair, message, sequences};

/// Pushes `count` messages that fill a packet each and returns the datagrams; the sequences go on from `first`.
fn flight(pair: &mut Pair, count: u8) -> (u64, Vec<Vec<u8>>) {
    let first = pair.ends[0].sender.next;
    let payload = pair.ends[0].payload_bytes_max;
    for fill in 0..count {
        pair.push(0, fill, payload - 8);
    }
    let sent = pair.transmit(0);
    let expected: Vec<u64> = (first..first + u64::from(count)).collect();
    assert_eq!(sequences(&sent), expected);
    (first, sent)
}

/// Gives the acks of end 1 to end 0 and returns the sequences that it sends then.
fn react(pair: &mut Pair) -> Vec<u64> {
    for ack in pair.transmit(1) {
        pair.give(0, &ack);
    }
    sequences(&pair.transmit(0))
}

#[test]
fn three_later_packets_call_for_the_missing_one_at_once() {
    let mut pair = Pair::new();
    let (first, sent) = flight(&mut pair, 5);
    for datagram in &sent[1..4] {
        pair.give(1, datagram);
    }
    assert_eq!(react(&mut pair), [first]);
    let stats = pair.ends[0].stats();
    assert_eq!(
        (stats.retransmits, stats.retransmits_fast, stats.probes),
        (1, 1, 0)
    );
    assert!(pair.got[1].is_empty());
}

#[test]
fn a_full_window_does_not_hold_back_the_first_retransmission() {
    let mut pair = Pair::new();
    let window = pair.ends[0].stats().window_packets;
    let (first, sent) = flight(&mut pair, 30);
    for number in 0..2 {
        let payload = pair.ends[0].payload_bytes_max;
        pair.push(0, number, payload - 8);
    }
    assert_eq!(pair.transmit(0).len(), 2, "now the window is full");
    assert_eq!(window, 32);
    for datagram in &sent[1..4] {
        pair.give(1, datagram);
    }
    assert_eq!(react(&mut pair), [first]);
    let overfull =
        |pair: &Pair| pair.ends[0].sender.in_flight > pair.ends[0].stats().window_packets;
    assert!(overfull(&pair));
    // Nor does it hold back the probe when that one gets lost, too.
    pair.expire(0);
    assert_eq!(sequences(&pair.transmit(0)), [first]);
    assert!(overfull(&pair));
}

#[test]
fn two_later_packets_are_taken_for_reordering() {
    let mut pair = Pair::new();
    let (_, sent) = flight(&mut pair, 5);
    for datagram in &sent[1..3] {
        pair.give(1, datagram);
    }
    assert!(react(&mut pair).is_empty());
    pair.give(1, &sent[0]);
    assert_eq!(pair.got[1].len(), 3);
    assert_eq!(pair.ends[0].stats().retransmits, 0);
}

#[test]
fn one_later_packet_is_enough_after_more_than_a_round_trip() {
    let mut pair = Pair::new();
    let (first, sent) = flight(&mut pair, 2);
    pair.give(1, &sent[1]);
    let round_trip = pair.ends[0].stats().srtt;
    pair.pass(Nanos(round_trip.0 * 2));
    assert_eq!(react(&mut pair), [first]);
}

#[test]
fn a_lost_tail_is_probed_without_shrinking_the_window() {
    let mut pair = Pair::new();
    let window = pair.ends[0].stats().window_packets;
    let (first, _) = flight(&mut pair, 3);
    pair.expire(0);
    let probe = pair.transmit(0);
    assert_eq!(sequences(&probe), [first]);
    pair.pass(Nanos::from_us(20));
    pair.give(1, &probe[0]);
    // Its ack shows that the two after it are lost as well: they were sent long before it.
    assert_eq!(react(&mut pair), [first + 1, first + 2]);
    let stats = pair.ends[0].stats();
    assert_eq!((stats.probes, stats.timeouts), (1, 0));
    assert!(stats.window_packets >= window * 7 / 10);
}

#[test]
fn further_timeouts_halve_the_window_and_double_the_wait() {
    let mut pair = Pair::new();
    let (_, sent) = flight(&mut pair, 8);
    let window = pair.ends[0].stats().window_packets;
    let start = pair.now;
    let first = pair.expire(0).since(start);
    assert_eq!(pair.transmit(0).len(), 1);
    let second = pair.expire(0).since(start);
    assert_eq!(second.0 - first.0, first.0 * 2);
    // Everything was sent long ago and is sent again, within the smaller window.
    assert_eq!(pair.transmit(0).len(), sent.len());
    assert_eq!(pair.ends[0].stats().window_packets, window / 2);
    let third = pair.expire(0).since(start);
    assert_eq!(third.0 - second.0, first.0 * 4);
    assert_eq!(pair.ends[0].stats().window_packets, window / 4);
}

#[test]
fn a_late_ack_spares_the_retransmission() {
    let mut pair = Pair::new();
    let (_, sent) = flight(&mut pair, 3);
    for datagram in &sent {
        pair.give(1, datagram);
    }
    pair.expire(0);
    assert!(react(&mut pair).is_empty());
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
    assert_eq!(pair.ends[0].stats().retransmits, 0);
}

#[test]
fn a_retransmission_is_never_measured() {
    let mut pair = Pair::new();
    let srtt = pair.ends[0].stats().srtt;
    let (_, sent) = flight(&mut pair, 1);
    pair.expire(0);
    assert_eq!(pair.transmit(0).len(), 1);
    // The ack answers the first copy; taken for the answer to the second it would look far too fast.
    pair.pass(Nanos(1));
    pair.give(1, &sent[0]);
    for ack in pair.transmit(1) {
        pair.give(0, &ack);
    }
    pair.expire(1);
    assert!(react(&mut pair).is_empty());
    assert_eq!(pair.ends[0].unacked_bytes(), 0);
    assert_eq!(pair.ends[0].stats().srtt, srtt);
}

#[test]
fn an_ack_that_comes_too_soon_after_a_retransmission_says_nothing_about_the_rest() {
    let mut pair = Pair::new();
    let (first, sent) = flight(&mut pair, 4);
    pair.give(1, &sent[0]);
    pair.expire(0);
    assert_eq!(sequences(&pair.transmit(0)), [first]);
    // Taken for the answer to the second copy, it would show that the three sent before that one are lost.
    pair.pass(Nanos(1));
    pair.expire(1);
    assert!(react(&mut pair).is_empty());
    assert_eq!(pair.ends[0].sender.una, first + 1);
    assert_eq!(pair.ends[0].sender.lost, 0);
}

#[test]
fn a_retransmission_repeats_the_bytes() {
    let mut pair = Pair::new();
    pair.push(0, 9, 1_000);
    let sent = pair.transmit(0);
    assert_eq!(sent.len(), 3);
    for datagram in &sent[1..] {
        pair.give(1, datagram);
    }
    pair.expire(0);
    for datagram in pair.transmit(0) {
        pair.give(1, &datagram);
    }
    assert_eq!(pair.got[1], [message(9, 1_000)]);
}
