//! Measures the ring: round trip and throughput between two threads, against rings of plain words.
//!
//! Prints the median of several runs. The bare ring is what the hardware allows: one cache line per message, no frames,
//! no lengths, no wake-up flag. On shared cores the medians are upper bounds of the latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ionian_shm::{Consumer, Producer, duplex, ring};

const RUNS: usize = 9;
const ROUND_TRIPS: u64 = 200_000;
const MESSAGES: u64 = 4_000_000;

fn main() {
    println!(
        "median of {RUNS} runs; {} cores",
        thread::available_parallelism().map_or(1, usize::from)
    );
    println!("bare ring    round trip {:7.0} ns", median(bare_round_trip));
    println!(
        "ring 64 B    round trip {:7.0} ns",
        median(|| round_trip(64))
    );
    println!(
        "ring 512 B   round trip {:7.0} ns",
        median(|| round_trip(512))
    );
    println!("bare ring    {:7.2} M messages/s", median(bare_throughput));
    for len in [16, 64, 128, 512, 4096] {
        let rate = median(|| throughput(len));
        println!(
            "ring {len:<6}  {rate:7.2} M messages/s, {:6.2} GB/s",
            rate * len as f64 / 1e3
        );
    }
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[RUNS / 2]
}

/// Nanoseconds of one round trip of a message of `len` bytes.
fn round_trip(len: usize) -> f64 {
    let (mut near, mut far) = duplex(1 << 16);
    let echo = thread::spawn(move || {
        for _ in 0..ROUND_TRIPS {
            pass(&mut far.rx, &mut far.tx);
        }
    });
    let message = vec![1; len];
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        assert!(near.tx.push(&message));
        let _ = near.tx.publish();
        wait(&mut near.rx);
        near.rx.release();
    }
    let nanos = start.elapsed().as_nanos() as f64 / ROUND_TRIPS as f64;
    echo.join().expect("the echo ends");
    nanos
}

/// Waits for a message and sends it back.
fn pass(rx: &mut Consumer, tx: &mut Producer) {
    wait(rx);
    let message = rx.peek().expect("waited for");
    let room = tx.reserve(message.len()).expect("an idle ring has room");
    room.copy_from_slice(message);
    let len = message.len();
    tx.commit(len);
    rx.release();
    let _ = tx.publish();
}

fn wait(rx: &mut Consumer) {
    let mut spins = 0u32;
    while rx.peek().is_none() {
        relax(&mut spins);
    }
}

/// Spins, and gives the core away after a while: the other thread may need it.
fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < 2000 {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

/// Millions of messages of `len` bytes per second, published in batches of 32.
fn throughput(len: usize) -> f64 {
    let count = MESSAGES.min((4 << 30) / len as u64);
    let (mut tx, mut rx) = ring(1 << 18);
    let start = Instant::now();
    let sender = thread::spawn(move || {
        let message = vec![1; len];
        let mut spins = 0;
        for number in 0..count {
            while !tx.push(&message) {
                let _ = tx.publish();
                relax(&mut spins);
            }
            if number % 32 == 31 {
                let _ = tx.publish();
            }
        }
        let _ = tx.publish();
    });
    let (mut got, mut bytes, mut spins) = (0, 0u64, 0);
    while got < count {
        if let Some(message) = rx.peek() {
            bytes += u64::from(message[message.len() - 1]);
            rx.release();
            got += 1;
            spins = 0;
        } else {
            relax(&mut spins);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    sender.join().expect("the sender ends");
    assert_eq!(bytes, count);
    count as f64 / seconds / 1e6
}

#[repr(align(128))]
struct Line(AtomicU64);

/// Two words on two lines: the least a round trip costs.
fn bare_round_trip() -> f64 {
    let words = Arc::new((Line(AtomicU64::new(0)), Line(AtomicU64::new(0))));
    let far = words.clone();
    let echo = thread::spawn(move || {
        for number in 1..=ROUND_TRIPS {
            let mut spins = 0;
            while far.0.0.load(Ordering::Acquire) != number {
                relax(&mut spins);
            }
            far.1.0.store(number, Ordering::Release);
        }
    });
    let start = Instant::now();
    for number in 1..=ROUND_TRIPS {
        words.0.0.store(number, Ordering::Release);
        let mut spins = 0;
        while words.1.0.load(Ordering::Acquire) != number {
            relax(&mut spins);
        }
    }
    let nanos = start.elapsed().as_nanos() as f64 / ROUND_TRIPS as f64;
    echo.join().expect("the echo ends");
    nanos
}

/// One flagged cache line per message, no index shared: the least a stream of messages costs.
fn bare_throughput() -> f64 {
    #[repr(align(64))]
    struct Cell {
        full: AtomicBool,
        word: AtomicU64,
    }
    let cells: Arc<[Cell]> = (0..4096)
        .map(|_| Cell {
            full: AtomicBool::new(false),
            word: AtomicU64::new(0),
        })
        .collect();
    let far = cells.clone();
    let start = Instant::now();
    let sender = thread::spawn(move || {
        for number in 0..MESSAGES {
            let cell = &far[number as usize % 4096];
            let mut spins = 0;
            while cell.full.load(Ordering::Acquire) {
                relax(&mut spins);
            }
            cell.word.store(number, Ordering::Relaxed);
            cell.full.store(true, Ordering::Release);
        }
    });
    for number in 0..MESSAGES {
        let cell = &cells[number as usize % 4096];
        let mut spins = 0;
        while !cell.full.load(Ordering::Acquire) {
            relax(&mut spins);
        }
        assert_eq!(cell.word.load(Ordering::Relaxed), number);
        cell.full.store(false, Ordering::Release);
    }
    let seconds = start.elapsed().as_secs_f64();
    sender.join().expect("the sender ends");
    MESSAGES as f64 / seconds / 1e6
}
