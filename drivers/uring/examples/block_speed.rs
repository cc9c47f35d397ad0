//! Measures the block queues in a directory (first argument, default the current one) against bare system calls: one 4 KiB
//! write and flush at a time, and 32 writes in flight. Medians; on shared cores, upper bounds.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ionian_driver_api::{
    BlockOp, BlockQueue, BlockRequest, Bounded, BufPool, FileId, PoolLayout, PoolOptions,
};
use ionian_uring::{BackendChoice, FileOptions, FileQueue, MemoryQueue};

const FILE: FileId = FileId(1);
const FILE_BLOCKS: u64 = 16_384;
const DURABLE: u64 = 2_000;
const WRITES: u64 = 60_000;

fn main() {
    let base = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = base.join("block-speed.tmp");
    println!("bare pwrite + fdatasync, page cache: {:8.1} us", bare(&dir));
    for backend in [BackendChoice::Threaded, BackendChoice::Uring] {
        let options = FileOptions {
            backend,
            ..FileOptions::default()
        };
        match FileQueue::open(&dir.join(format!("{backend:?}")), options) {
            Ok(queue) => measure(queue),
            Err(error) => println!("SKIP {backend:?}: {error}"),
        }
    }
    measure(MemoryQueue::new(1 << 30, 128));
    std::fs::remove_dir_all(&dir).expect("made by this program");
}

/// Median microseconds of a write and an fdatasync by plain system calls.
fn bare(dir: &Path) -> f64 {
    std::fs::create_dir_all(dir).expect("a writable directory");
    let path = dir.join("bare");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)
        .expect("writable");
    file.write_all_at(&vec![0; 4096 * 4096], 0).expect("space");
    file.sync_all().expect("synced");
    median((0..DURABLE).map(|at| {
        let start = Instant::now();
        file.write_all_at(&[1; 4096], at % 4096 * 4096)
            .expect("written");
        file.sync_data().expect("synced");
        start.elapsed().as_secs_f64() * 1e6
    }))
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn measure<Q: BlockQueue>(mut queue: Q) {
    let options = PoolOptions {
        slots: 64,
        slot_bytes: 4096,
        layout: PoolLayout::BlockAligned,
    };
    let mut pool = BufPool::new(options).expect("valid size");
    let registered = queue.register(&pool);
    run(
        &mut queue,
        &mut pool,
        BlockOp::Create {
            file: FILE,
            bytes: FILE_BLOCKS * 4096,
            zero_ahead: true,
        },
    );
    run(&mut queue, &mut pool, BlockOp::Flush);
    let flushed = median((0..DURABLE).map(|at| {
        let start = Instant::now();
        write(&mut queue, &mut pool, at, false);
        run(&mut queue, &mut pool, BlockOp::Flush);
        start.elapsed().as_secs_f64() * 1e6
    }));
    let durable = median((0..DURABLE).map(|at| {
        let start = Instant::now();
        write(&mut queue, &mut pool, at, true);
        start.elapsed().as_secs_f64() * 1e6
    }));
    let rate = pipelined(&mut queue, &mut pool);
    println!(
        "{:24} write+flush {flushed:8.1} us   durable write {durable:8.1} us   32 in flight {rate:8.0} writes/s   registered {registered}",
        queue.limits().backend
    );
}

fn write<Q: BlockQueue>(queue: &mut Q, pool: &mut BufPool, at: u64, durable: bool) {
    let mut buf = pool.alloc().expect("free");
    pool.set_len(&mut buf, 4096);
    run(
        queue,
        pool,
        BlockOp::Write {
            file: FILE,
            offset: at % FILE_BLOCKS * 4096,
            buf,
            durable,
        },
    );
}

/// Runs one operation to its end, polling.
fn run<Q: BlockQueue>(queue: &mut Q, pool: &mut BufPool, op: BlockOp) {
    let submitted = queue.submit(pool, BlockRequest { token: 0, op });
    assert!(submitted.is_ok(), "the queue is empty");
    let mut out = Bounded::with_capacity(1);
    while queue.poll(pool, &mut out) == 0 {
        std::thread::yield_now();
    }
    let completion = out.pop().expect("polled");
    completion.result.expect("the device works");
    if let Some(buf) = completion.buf {
        pool.free(buf);
    }
}

fn pipelined<Q: BlockQueue>(queue: &mut Q, pool: &mut BufPool) -> f64 {
    let mut out = Bounded::with_capacity(32);
    let (mut sent, mut done) = (0, 0);
    let start = Instant::now();
    while done < WRITES {
        while sent < WRITES && sent - done < 32 {
            let mut buf = pool.alloc().expect("free");
            pool.set_len(&mut buf, 4096);
            let op = BlockOp::Write {
                file: FILE,
                offset: sent % FILE_BLOCKS * 4096,
                buf,
                durable: false,
            };
            assert!(
                queue.submit(pool, BlockRequest { token: sent, op }).is_ok(),
                "deep enough"
            );
            sent += 1;
        }
        if queue.poll(pool, &mut out) == 0 {
            std::thread::yield_now();
        }
        while let Some(completion) = out.pop() {
            completion.result.expect("the device works");
            pool.free(completion.buf.expect("a write returns its buffer"));
            done += 1;
        }
    }
    WRITES as f64 / start.elapsed().as_secs_f64()
}
