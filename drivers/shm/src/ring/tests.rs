//! The ring on one thread and on two.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::thread;

use ionian_driver_api::Dice;

use super::*;

/// Bytes of message number `number`: its length and content follow from the number.
fn message(number: u64, into: &mut [u8; 96]) -> &[u8] {
    let len = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize;
    into[..8].copy_from_slice(&number.to_le_bytes());
    into[8..8 + len].fill(number as u8);
    &into[..8 + len]
}

#[test]
fn messages_of_every_length_pass_at_every_position() {
    let (mut tx, mut rx) = ring(256);
    let mut filled = [0; 256];
    for (at, byte) in filled.iter_mut().enumerate() {
        *byte = at as u8;
    }
    for round in 0..2000usize {
        let message = &filled[..round % (tx.message_bytes_max() + 1)];
        assert!(
            tx.push(message),
            "an empty ring takes {} bytes",
            message.len()
        );
        let _ = tx.publish();
        assert_eq!(rx.peek(), Some(message));
        rx.release();
        assert_eq!(rx.peek(), None);
    }
}

#[test]
fn nothing_is_seen_before_publish() {
    let (mut tx, mut rx) = ring(64);
    assert!(tx.push(b"a"));
    assert_eq!(rx.peek(), None);
    assert!(!tx.publish(), "the consumer is awake");
    assert_eq!(rx.peek(), Some(&b"a"[..]));
}

#[test]
fn a_reservation_may_shrink_or_be_dropped() {
    let (mut tx, mut rx) = ring(64);
    tx.reserve(24).expect("empty").fill(1);
    tx.reserve(24).expect("the first reservation is void")[..3].copy_from_slice(b"abc");
    tx.commit(3);
    let _ = tx.publish();
    assert_eq!(rx.peek(), Some(&b"abc"[..]));
}

#[test]
#[should_panic(expected = "commit of 9 bytes")]
fn a_commit_beyond_the_reservation_is_caught() {
    let (mut tx, _rx) = ring(64);
    tx.reserve(8).expect("empty").fill(0);
    tx.commit(9);
}

/// Random pushes and pops against a queue of vectors; `room` is exact at each step.
#[test]
fn behaves_as_a_bounded_queue() {
    for seed in 0..50 {
        let mut dice = Dice::new(seed);
        let capacity = 64 << dice.below(4);
        let (mut tx, mut rx) = ring(capacity);
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for step in 0..4000u64 {
            if dice.chance(500_000) {
                let len = dice.below(tx.message_bytes_max() as u64 + 1) as usize;
                let fits = len <= tx.room();
                let room = tx.reserve(len);
                // `room` is 0 also when not even an empty message fits.
                assert!(
                    room.is_some() == fits || len == 0,
                    "seed {seed} step {step}"
                );
                if let Some(room) = room {
                    room.fill(step as u8);
                    model.push_back(room.to_vec());
                    tx.commit(len);
                    let _ = tx.publish();
                }
            } else {
                assert_eq!(
                    rx.peek(),
                    model.front().map(Vec::as_slice),
                    "seed {seed} step {step}"
                );
                if model.pop_front().is_some() {
                    rx.release();
                    let _ = rx.publish();
                }
            }
        }
    }
}

#[test]
fn millions_of_messages_cross_two_threads() {
    const COUNT: u64 = 2_000_000;
    let (mut tx, mut rx) = ring(4096);
    let sender = thread::spawn(move || {
        let mut bytes = [0; 96];
        for number in 0..COUNT {
            let message = message(number, &mut bytes);
            while !tx.push(message) {
                let _ = tx.publish();
                thread::yield_now();
            }
            if number % 7 == 0 {
                let _ = tx.publish();
            }
        }
        let _ = tx.publish();
    });
    let mut bytes = [0; 96];
    for number in 0..COUNT {
        loop {
            if let Some(got) = rx.peek() {
                assert_eq!(got, message(number, &mut bytes));
                rx.release();
                break;
            }
            thread::yield_now();
        }
    }
    sender.join().expect("the sender ends");
    assert!(rx.is_finished());
}

/// Stands in for the eventfd of a reactor.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rung.lock().expect("no panics") = true;
        self.bell.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().expect("no panics");
        while !*rung {
            rung = self.bell.wait(rung).expect("no panics");
        }
        *rung = false;
    }
}

/// Both sides sleep whenever they can, over a ring of a few messages: a lost wake-up would hang the test.
#[test]
fn sleepers_are_always_woken() {
    const COUNT: u64 = 100_000;
    let (mut tx, mut rx) = ring(128);
    let (data, room) = (Arc::new(Doorbell::default()), Arc::new(Doorbell::default()));
    let (data_far, room_far) = (data.clone(), room.clone());
    let sender = thread::spawn(move || {
        for number in 0..COUNT {
            let bytes = number.to_le_bytes();
            while !tx.push(&bytes) {
                if tx.publish() {
                    data_far.ring();
                }
                if tx.arm(bytes.len()) {
                    room_far.wait();
                    tx.disarm();
                }
            }
            if tx.publish() {
                data_far.ring();
            }
        }
    });
    for number in 0..COUNT {
        while rx.peek().is_none() {
            if rx.publish() {
                room.ring();
            }
            if rx.arm() {
                data.wait();
                rx.disarm();
            }
        }
        assert_eq!(rx.peek(), Some(&number.to_le_bytes()[..]));
        rx.release();
        if rx.publish() {
            room.ring();
        }
    }
    sender.join().expect("the sender ends");
}

#[test]
fn a_peer_that_goes_is_noticed_after_its_last_message() {
    let (mut tx, mut rx) = ring(64);
    assert!(tx.push(b"last"));
    let _ = tx.publish();
    drop(tx);
    assert!(!rx.is_finished() && !rx.arm(), "a message is there");
    rx.release();
    assert!(rx.is_finished() && !rx.arm(), "nobody would wake us");
    let (tx, rx) = ring(64);
    drop(rx);
    assert!(tx.is_closed());
}
