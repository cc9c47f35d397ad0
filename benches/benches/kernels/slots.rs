//! What a scan of the slots costs per report, where the writer is on the same core and where it is on another.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use ionian_slots::{SlotReader, SlotReport, SlotTable, SlotWriter};
use ionian_types::{EntryNo, Inc, ViewId};

use crate::report::{Median, ROUNDS, median, millis, pin, verdict};

/// A changed slot in the caches of the leaf's core costs at most so many nanoseconds.
const GOAL: f64 = 5.0;

pub(crate) fn tables() {
    println!(
        "\nslots, ns per slot; the middle half of {ROUNDS} rounds in brackets. Other core: the writer's, by turns with the scanner, \
         so that each finds the lines in the other one's caches"
    );
    let heads = [
        "scan, all changed",
        "scan, none changed",
        "write",
        "other core: scan",
        "other core: write",
    ];
    let [all, none, write, scan, far] = heads.map(|head| format!("{head:>20}"));
    println!(
        "{:>3} {:>6} {all} {none} {write} {scan} {far}",
        "R", "slots"
    );
    for (replicas, slots) in [(2, 200), (2, 7_000), (3, 200), (5, 200), (5, 7_000)] {
        let (all, none, write) = own_core(slots, replicas);
        let (scan, far) = other_core(slots, replicas);
        let show = |m: Median| {
            format!(
                "{:>20}",
                format!("{:.2} ({:.2}..{:.2})", m.value, m.low, m.high)
            )
        };
        let [a, b, c, d, e] = [all, none, write, scan, far].map(show);
        // The goal is for slots that are in the caches.
        let goal = if slots <= 200 {
            format!(
                "scan, all changed <= {GOAL}: {}",
                verdict(all.value <= GOAL)
            )
        } else {
            String::new()
        };
        println!("{replicas:>3} {slots:>6} {a} {b} {c} {d} {e}  {goal}");
    }
    for pause in [0, 50] {
        free_running(7_000, 2, pause);
    }
}

fn table(slots: usize, replicas: usize) -> (Vec<SlotWriter>, SlotReader) {
    let table = SlotTable::new(slots, replicas).expect("a table");
    let writers = (0..slots).map(|slot| table.writer(slot).expect("free"));
    (writers.collect(), table.reader())
}

fn write_all(writers: &mut [SlotWriter], replicas: usize, seq: u64) {
    let lens = [seq; 7];
    let report = SlotReport {
        epoch: ViewId::new(1),
        inc: Inc::new(1),
        seq,
        applied: EntryNo::new(seq),
        lens: &lens[..replicas],
    };
    for writer in writers {
        writer.write(&report).expect("as many lengths as segments");
    }
}

/// Reads what changed as a leaf would, all words of it; gives the number of reports.
fn scan(reader: &mut SlotReader, slots: usize) -> u64 {
    let mut sum = 0u64;
    let found = reader.collect(0..slots, |slot, report| {
        let lens: u64 = report.lens.iter().sum();
        sum = sum
            .wrapping_add(slot as u64)
            .wrapping_add(report.epoch.get() ^ report.inc.get())
            .wrapping_add(report.seq ^ report.applied.get())
            .wrapping_add(lens);
    });
    black_box(sum);
    found.read
}

/// Scans with all slots changed and with none, and writes, all on one core.
fn own_core(slots: usize, replicas: usize) -> (Median, Median, Median) {
    let (mut writers, mut reader) = table(slots, replicas);
    let per_slot =
        |start: Instant, times: usize| start.elapsed().as_nanos() as f64 / (slots * times) as f64;
    // A clock read costs about as much as a few slots: enough of them together.
    let times = (7_000 / slots).max(1);
    let mut seq = 0;
    let (mut all, mut none, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut scanned, mut written) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..times {
            seq += 1;
            let start = Instant::now();
            write_all(&mut writers, replicas, seq);
            let between = Instant::now();
            let read = scan(&mut reader, slots);
            scanned += between.elapsed();
            written += between - start;
            assert_eq!(read, slots as u64);
        }
        let each = (slots * times) as f64;
        all.push(scanned.as_nanos() as f64 / each);
        writes.push(written.as_nanos() as f64 / each);
        let start = Instant::now();
        for _ in 0..times {
            black_box(scan(&mut reader, slots));
        }
        none.push(per_slot(start, times));
    }
    (median(all), median(none), median(writes))
}

/// Scans of slots that another core has just written, and writes of slots that another core has just scanned: by turns.
fn other_core(slots: usize, replicas: usize) -> (Median, Median) {
    let (mut writers, mut reader) = table(slots, replicas);
    let (asked, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let times = (7_000 / slots).max(1);
    let last = (ROUNDS * times) as u64;
    let (mut scans, mut writes) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pin(1);
            let mut written = Vec::new();
            for seq in 1..=last {
                while asked.load(Ordering::Acquire) < seq {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                write_all(&mut writers, replicas, seq);
                written.push(start.elapsed().as_nanos() as f64 / slots as f64);
                done.store(seq, Ordering::Release);
            }
            written
        });
        for round in 0..ROUNDS as u64 {
            let mut scanned = Duration::ZERO;
            for turn in 1..=times as u64 {
                let seq = round * times as u64 + turn;
                asked.store(seq, Ordering::Release);
                while done.load(Ordering::Acquire) < seq {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                let read = scan(&mut reader, slots);
                scanned += start.elapsed();
                assert_eq!(read, slots as u64);
            }
            scans.push(scanned.as_nanos() as f64 / (slots * times) as f64);
        }
        writes = writer.join().expect("the writer ends");
    });
    (median(scans), median(writes))
}

/// A writer that writes all slots over and over, and a leaf that scans them all, then waits for `pause` microseconds.
fn free_running(slots: usize, replicas: usize, pause: u64) {
    let (mut writers, mut reader) = table(slots, replicas);
    let stop = AtomicBool::new(false);
    let (mut read, mut overwritten, mut busy, mut scans) = (0u64, 0u64, 0u64, 0u64);
    let mut seconds = 0.0;
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut seq = 0;
            while !stop.load(Ordering::Relaxed) {
                seq += 1;
                write_all(&mut writers, replicas, seq);
            }
        });
        let start = Instant::now();
        while start.elapsed() < millis(500) {
            let found = reader.collect(0..slots, |_, report| {
                black_box(report.lens[0]);
            });
            read += found.read;
            overwritten += found.overwritten;
            busy += found.busy;
            scans += 1;
            let ended = Instant::now();
            while ended.elapsed() < Duration::from_micros(pause) {
                std::hint::spin_loop();
            }
        }
        seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{slots} slots of {replicas} lengths, written without pause by another core, {pause} us between scans: {:.1} M reports/s read, \
         {:.1} M/s written over unread, {:.0} scans/s, {busy} slots found being written",
        read as f64 / seconds / 1e6,
        overwritten as f64 / seconds / 1e6,
        scans as f64 / seconds
    );
}

pub(crate) fn criterion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernels/slots");
    for (slots, replicas) in [(200, 2), (200, 5)] {
        let (mut writers, mut reader) = table(slots, replicas);
        let mut seq = 0;
        let id = BenchmarkId::new(format!("scan, {replicas} lengths"), slots);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|times| {
                let mut scanned = Duration::ZERO;
                for _ in 0..times {
                    seq += 1;
                    write_all(&mut writers, replicas, seq);
                    let start = Instant::now();
                    black_box(scan(&mut reader, slots));
                    scanned += start.elapsed();
                }
                scanned
            });
        });
    }
    group.finish();
}
