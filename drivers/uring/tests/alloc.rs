//! Nothing is allocated by reads, writes and flushes once a queue is warm.

use ionian_driver_api::{
    BlockOp, BlockQueue, BlockRequest, Bounded, BufPool, Completions, CountingAllocator, FileId,
    PoolLayout, PoolOptions,
};
use ionian_uring::{BackendChoice, FileOptions, FileQueue, MemoryQueue};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const FILE: FileId = FileId(1);

#[test]
fn reads_writes_and_flushes_allocate_nothing() {
    steady(MemoryQueue::new(1 << 20, 64));
    for backend in [BackendChoice::Threaded, BackendChoice::Uring] {
        let temp = tempfile::tempdir().expect("a temporary directory");
        match FileQueue::open(
            temp.path(),
            FileOptions {
                backend,
                ..Default::default()
            },
        ) {
            Ok(queue) => steady(queue),
            Err(error) => eprintln!("SKIP {backend:?}: {error}"),
        }
    }
}

fn steady<Q: BlockQueue>(mut queue: Q) {
    let options = PoolOptions {
        slots: 64,
        slot_bytes: 4096,
        layout: PoolLayout::BlockAligned,
    };
    let mut pool = BufPool::new(options).expect("valid size");
    queue.register(&pool);
    let mut out = Bounded::with_capacity(8);
    run(&mut queue, &mut pool, &mut out, 1, |_, _| BlockOp::Create {
        file: FILE,
        bytes: 64 * 4096,
        zero_ahead: false,
    });
    let mut before = 0;
    for round in 0..40 {
        // The first rounds warm up: the queue meets the pool, and threads that help it start.
        if round == 4 {
            before = CountingAllocator::count();
        }
        run(&mut queue, &mut pool, &mut out, 32, |pool, at| {
            let mut buf = pool.alloc().expect("free");
            pool.set_len(&mut buf, 4096);
            BlockOp::Write {
                file: FILE,
                offset: at * 4096,
                buf,
                durable: at == 7,
            }
        });
        run(&mut queue, &mut pool, &mut out, 1, |_, _| BlockOp::Flush);
        run(&mut queue, &mut pool, &mut out, 32, |pool, at| {
            let buf = pool.alloc().expect("free");
            BlockOp::Read {
                file: FILE,
                offset: at * 4096,
                len: 4096,
                buf,
            }
        });
    }
    // Of all threads: the helper's work counts too.
    assert_eq!(
        CountingAllocator::count() - before,
        0,
        "{}",
        queue.limits().backend
    );
}

/// Submits `count` operations and waits for all of them.
fn run<Q: BlockQueue>(
    queue: &mut Q,
    pool: &mut BufPool,
    out: &mut Completions,
    count: u64,
    op: impl Fn(&mut BufPool, u64) -> BlockOp,
) {
    for token in 0..count {
        let op = op(pool, token);
        assert!(
            queue.submit(pool, BlockRequest { token, op }).is_ok(),
            "deep enough"
        );
    }
    let mut done = 0;
    while done < count {
        queue.poll(pool, out);
        while let Some(completion) = out.pop() {
            completion.result.expect("the device works");
            if let Some(buf) = completion.buf {
                pool.free(buf);
            }
            done += 1;
        }
        std::thread::yield_now();
    }
}
