//! Every interleaving of small runs of the ring, by loom's model checker.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p ionian-shm --test loom --release`.
#![cfg(loom)]

use ionian_shm::ring;
use loom::sync::{Arc, Notify};
use loom::thread;

/// Bytes are written before they are seen and read before they are overwritten, around the end of the ring too.
#[test]
fn messages_pass_whole_and_in_order() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(64);
        let sender = thread::spawn(move || {
            for number in 0..4u8 {
                // 24 bytes each with the header: the third needs room back, or a filler frame.
                while !tx.push(&[number; 16]) {
                    let _ = tx.publish();
                    thread::yield_now();
                }
                if number % 2 == 1 {
                    let _ = tx.publish();
                }
            }
        });
        for number in 0..4u8 {
            loop {
                if let Some(message) = rx.peek() {
                    assert_eq!(message, [number; 16]);
                    rx.release();
                    break;
                }
                thread::yield_now();
            }
        }
        sender.join().unwrap();
    });
}

/// A consumer that arms, looks again and then sleeps is woken. A lost wake-up is a deadlock, which loom reports.
#[test]
fn a_sleeping_consumer_is_woken() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(64);
        let bell = Arc::new(Notify::new());
        let far = bell.clone();
        let sender = thread::spawn(move || {
            for number in 0..2u8 {
                assert!(tx.push(&[number]));
                if tx.publish() {
                    far.notify();
                }
            }
            // Kept until the consumer is done, so that it is the handshake that wakes it.
            tx
        });
        for number in 0..2u8 {
            while rx.peek().is_none() {
                if rx.arm() {
                    bell.wait();
                    rx.disarm();
                }
            }
            assert_eq!(rx.peek(), Some(&[number][..]));
            rx.release();
        }
        drop(sender.join().unwrap());
    });
}

/// The same for a producer that waits for room.
#[test]
fn a_sleeping_producer_is_woken() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(64);
        let bell = Arc::new(Notify::new());
        for _ in 0..2 {
            assert!(tx.push(&[1; 24]));
        }
        let _ = tx.publish();
        let far = bell.clone();
        let receiver = thread::spawn(move || {
            for _ in 0..2 {
                assert_eq!(rx.peek(), Some(&[1; 24][..]));
                rx.release();
                if rx.publish() {
                    far.notify();
                }
            }
            rx
        });
        while !tx.push(&[2; 24]) {
            if tx.arm(24) {
                bell.wait();
                tx.disarm();
            }
        }
        drop(receiver.join().unwrap());
    });
}
