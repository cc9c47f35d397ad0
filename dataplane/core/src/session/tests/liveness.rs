//! How sessions end, and that they end for no other reason.

use ionian_types::{Nanos, Time};
use ionian_wire::packet::PacketKind;

use super::pair::{Pair, message, shape};
use crate::session::{PushError, Rejected, Session, SessionState, Take};

/// A pair with a peer that counts as dead after 30 ms.
fn mortal(ping_interval: Nanos) -> Pair {
    Pair::fresh(|config| {
        config.dead_after = Nanos::from_ms(30);
        config.ping_interval = ping_interval;
        config.rto_max = Nanos::from_ms(5);
    })
}

/// Runs end 0 alone until it gives up; returns how long that took and how many datagrams it sent.
fn run_alone(pair: &mut Pair) -> (Nanos, usize) {
    let start = pair.now;
    let mut sent = 0;
    while pair.ends[0].state() == SessionState::Open {
        sent += pair.transmit(0).len();
        pair.expire(0);
        assert!(pair.now < start.after(Nanos::from_ms(1_000)));
    }
    (pair.now.since(start), sent)
}

#[test]
fn a_peer_that_answers_nothing_counts_as_dead_in_time() {
    let mut pair = mortal(Nanos(0));
    pair.push(0, 1, 10);
    let (after, sent) = run_alone(&mut pair);
    assert_eq!(pair.ends[0].state(), SessionState::Dead);
    assert!(
        after >= Nanos::from_ms(30) && after <= Nanos::from_ms(36),
        "{after:?}"
    );
    assert!(sent >= 3);
    assert_eq!(pair.ends[0].push(&[&message(1, 1)]), Err(PushError::Ended));
    assert_eq!(pair.ends[0].next_deadline(), Time::FAR);
    assert!(pair.transmit(0).is_empty());
}

#[test]
fn an_end_that_was_stopped_for_long_does_not_bury_its_peer() {
    let mut pair = mortal(Nanos(0));
    pair.push(0, 1, 10);
    let sent = pair.transmit(0);
    pair.pass(Nanos::from_ms(10_000));
    pair.expire(0);
    assert_eq!(pair.ends[0].state(), SessionState::Open);
    pair.give(1, &sent[0]);
    pair.settle(Nanos::from_us(10));
    assert_eq!(pair.got[1].len(), 1);
}

/// Runs 100 ms in which end 1 gives signs of life but acks nothing; the last one was just now.
fn speaking() -> Pair {
    let mut pair = mortal(Nanos(0));
    pair.push(0, 1, 10);
    pair.push(1, 2, 10);
    let sign_of_life = pair.transmit(1);
    let start = pair.now;
    while pair.now.since(start) < Nanos::from_ms(100) {
        pair.transmit(0);
        pair.expire(0);
        pair.give(0, &sign_of_life[0]);
        assert_eq!(pair.ends[0].state(), SessionState::Open);
    }
    pair
}

#[test]
fn a_peer_that_speaks_is_alive_and_its_time_runs_from_its_last_word() {
    let (after, _) = run_alone(&mut speaking());
    assert!(after >= Nanos::from_ms(30), "{after:?}");
}

/// A late copy of a session's first packet made a new session at a peer that had ended the old one: the two can never
/// agree, and each hears the other speak.
#[test]
fn a_peer_that_forgot_what_it_acked_counts_as_dead_in_the_end() {
    let mut pair = mortal(Nanos::from_ms(10));
    pair.push(0, 1, 10);
    let first = pair.transmit(0);
    pair.give(1, &first[0]);
    pair.settle(Nanos::from_us(10));
    pair.push(0, 2, 10);
    pair.settle(Nanos::from_us(10));
    assert_eq!(pair.got[1].len(), 2);
    pair.ends[1] = mortal(Nanos::from_ms(10)).ends[1].clone();
    pair.give(1, &first[0]);
    pair.push(0, 3, 10);
    let start = pair.now;
    while pair.ends[0].state() == SessionState::Open {
        for side in 0..2 {
            for datagram in pair.transmit(side) {
                pair.pass(Nanos::from_us(10));
                pair.give(1 - side, &datagram);
            }
        }
        let next = pair.ends.iter().map(Session::next_deadline).min();
        pair.now = pair.now.max(next.expect("two ends"));
        pair.ends
            .iter_mut()
            .for_each(|end| end.on_deadline(pair.now));
        assert!(pair.now.since(start) < Nanos::from_ms(1_000));
    }
    assert_eq!(pair.ends[0].state(), SessionState::Dead);
    assert!(pair.now.since(start) >= Nanos::from_ms(8 * 30));
}

#[test]
fn attempts_before_the_last_word_of_a_peer_do_not_count_against_it() {
    let mut pair = speaking();
    pair.pass(Nanos::from_ms(1_000));
    pair.expire(0);
    assert_eq!(pair.ends[0].state(), SessionState::Open);
}

#[test]
fn an_idle_session_sleeps() {
    let mut pair = Pair::new();
    for side in 0..2 {
        assert_eq!(pair.ends[side].next_deadline(), Time::FAR);
        assert!(pair.transmit(side).is_empty());
    }
    pair.pass(Nanos::from_ms(1_000_000));
    for side in 0..2 {
        pair.ends[side].on_deadline(pair.now);
        assert!(pair.transmit(side).is_empty());
        assert_eq!(pair.ends[side].state(), SessionState::Open);
    }
}

#[test]
fn pings_keep_an_idle_session_alive_and_find_a_dead_peer() {
    let mut pair = mortal(Nanos::from_ms(10));
    let mut pings = 0;
    while pair.now < Time::from_ns(1_000_000_000) {
        for side in 0..2 {
            for datagram in pair.transmit(side) {
                assert_eq!(shape(&datagram).0, PacketKind::Ack);
                pings += usize::from(shape(&datagram).2);
                pair.pass(Nanos::from_us(20));
                pair.give(1 - side, &datagram);
            }
        }
        let next = pair.ends[0]
            .next_deadline()
            .min(pair.ends[1].next_deadline());
        pair.now = pair.now.max(next);
        for side in 0..2 {
            pair.ends[side].on_deadline(pair.now);
            assert_eq!(pair.ends[side].state(), SessionState::Open);
        }
    }
    assert!((90..=210).contains(&pings), "{pings}");
    let (after, _) = run_alone(&mut pair);
    assert_eq!(pair.ends[0].state(), SessionState::Dead);
    assert!(after <= Nanos::from_ms(50), "{after:?}");
}

#[test]
fn closing_tells_the_peer_and_ends_both() {
    let mut pair = Pair::new();
    pair.push(1, 1, 10);
    let late = pair.transmit(1);
    pair.ends[0].close(pair.now);
    assert_eq!(pair.ends[0].state(), SessionState::Closed);
    let mut copies = 0;
    while pair.ends[0].next_deadline() != Time::FAR {
        pair.expire(0);
        for datagram in pair.transmit(0) {
            assert_eq!(shape(&datagram).0, PacketKind::Close);
            copies += 1;
            if copies == 2 {
                pair.give(1, &datagram);
            }
        }
    }
    assert_eq!(copies, 3);
    assert_eq!(pair.ends[1].state(), SessionState::Closed);
    assert_eq!(pair.ends[1].next_deadline(), Time::FAR);
    assert!(pair.transmit(1).is_empty());
    let result = pair.ends[0].receive(pair.now, &late[0], &mut |_: &[u8]| Take::Taken);
    assert_eq!(result, Err(Rejected::Ended));
}

#[test]
fn a_stream_that_is_none_of_messages_breaks_the_session() {
    // The ends disagree on the largest message: what is sound here is not there.
    let mut pair = Pair::fresh(|_| ());
    let mut small = super::world::config(1, 5);
    small.message_bytes_max = 100;
    pair.ends[1] = Session::new(small, Time::ZERO).expect("a sound configuration");
    pair.push(0, 1, 80);
    pair.push(0, 2, 200);
    let sent = pair.transmit(0);
    pair.give(1, &sent[0]);
    assert_eq!(pair.got[1], [message(1, 80)]);
    assert_eq!(pair.ends[1].state(), SessionState::Broken);
    let close = pair.transmit(1);
    assert_eq!(shape(&close[0]).0, PacketKind::Close);
    pair.give(0, &close[0]);
    assert_eq!(pair.ends[0].state(), SessionState::Closed);
}
