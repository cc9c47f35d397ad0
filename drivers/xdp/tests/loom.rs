//! Every interleaving of small runs of the rings, by loom's model checker; another thread stands for the kernel.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p ionian-xdp --test loom --release`.
#![cfg(loom)]

use ionian_xdp::ring::{Consumer, Producer, RingWords};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::sync::{Arc, Notify};
use loom::thread;

/// Two entries whose indices are about to wrap. Loom reports two unordered uses of an entry as a race.
struct Words {
    producer: AtomicU32,
    consumer: AtomicU32,
    asleep: AtomicBool,
    entries: [UnsafeCell<u32>; 2],
}

#[derive(Clone)]
struct Model(Arc<Words>);

impl Model {
    fn new() -> Self {
        Self(Arc::new(Words {
            producer: AtomicU32::new(u32::MAX),
            consumer: AtomicU32::new(u32::MAX),
            asleep: AtomicBool::new(false),
            entries: [UnsafeCell::new(0), UnsafeCell::new(0)],
        }))
    }
}

impl RingWords for Model {
    type Entry = u32;

    fn entries(&self) -> u32 {
        2
    }

    fn load_producer(&self, order: Ordering) -> u32 {
        self.0.producer.load(order)
    }

    fn load_consumer(&self, order: Ordering) -> u32 {
        self.0.consumer.load(order)
    }

    fn store_producer(&self, index: u32, order: Ordering) {
        self.0.producer.store(index, order);
    }

    fn store_consumer(&self, index: u32, order: Ordering) {
        self.0.consumer.store(index, order);
    }

    fn load_asleep(&self, order: Ordering) -> bool {
        self.0.asleep.load(order)
    }

    fn read(&self, slot: u32) -> u32 {
        // SAFETY: loom gives a valid pointer for the time of the closure, and ends the run if another thread writes the
        // entry without being ordered against this read.
        self.0.entries[slot as usize].with(|entry| unsafe { *entry })
    }

    fn write(&self, slot: u32, entry: u32) {
        // SAFETY: as in `read`, for any other use of the entry.
        self.0.entries[slot as usize].with_mut(|at| unsafe { *at = entry });
    }
}

/// Entries are written before they are seen and read before they are written again, over the wrap of the indices.
#[test]
fn entries_pass_whole_and_in_order() {
    loom::model(|| {
        let words = Model::new();
        let (mut tx, mut rx) = (Producer::new(words.clone()), Consumer::new(words));
        let producer = thread::spawn(move || {
            for number in 0..3 {
                while !tx.push(number) {
                    let _ = tx.publish();
                    thread::yield_now();
                }
                if number != 0 {
                    let _ = tx.publish();
                }
            }
        });
        for number in 0..3 {
            loop {
                if let Some(entry) = rx.pop() {
                    assert_eq!(entry, number);
                    rx.release();
                    break;
                }
                thread::yield_now();
            }
        }
        producer.join().unwrap();
    });
}

/// A frame goes to the kernel by one ring and comes back by another: its bytes are ordered on the whole round.
#[test]
fn a_frame_is_ours_again_when_it_completes() {
    loom::model(|| {
        let (send, done) = (Model::new(), Model::new());
        let frame = Arc::new(UnsafeCell::new(0u32));
        let (mut tx, mut completed) = (Producer::new(send.clone()), Consumer::new(done.clone()));
        let kernel_frame = frame.clone();
        let kernel = thread::spawn(move || {
            let (mut rx, mut complete) = (Consumer::new(send), Producer::new(done));
            for number in 1..3u32 {
                while rx.pop().is_none() {
                    thread::yield_now();
                }
                // SAFETY: loom ends the run if the owner writes the frame without being ordered against this read.
                kernel_frame.with(|bytes| assert_eq!(unsafe { *bytes }, number));
                rx.release();
                assert!(complete.push(0));
                complete.publish();
            }
        });
        for number in 1..3u32 {
            // SAFETY: loom ends the run if the other thread uses the frame without being ordered against this write.
            frame.with_mut(|bytes| unsafe { *bytes = number });
            assert!(tx.push(0));
            tx.publish();
            while completed.pop().is_none() {
                thread::yield_now();
            }
            completed.release();
        }
        kernel.join().unwrap();
    });
}

/// A consumer that says that it sleeps, looks once more and then sleeps is woken. A lost wake-up is a deadlock, which loom
/// reports.
#[test]
fn a_sleeping_consumer_is_woken() {
    loom::model(|| {
        let words = Model::new();
        let (mut tx, mut rx) = (Producer::new(words.clone()), Consumer::new(words.clone()));
        let bell = Arc::new(Notify::new());
        let far = bell.clone();
        let kernel = thread::spawn(move || {
            while !rx.has_entry() {
                words.0.asleep.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if !rx.has_entry() {
                    far.wait();
                }
            }
            assert_eq!(rx.pop(), Some(7));
        });
        assert!(tx.push(7) && tx.publish());
        if tx.must_wake() {
            bell.notify();
        }
        kernel.join().unwrap();
    });
}
