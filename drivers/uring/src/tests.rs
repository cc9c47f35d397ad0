//! One set of tests over every backend: memory, the helper thread, and io_uring where the machine has it.

mod durability;
mod limits;

use std::path::Path;

use ionian_driver_api::{
    BlockError, BlockOp, BlockQueue, BlockRequest, Bounded, Buf, BufPool, Completion, FileId,
    OpKind, PoolLayout, PoolOptions,
};

use crate::{BackendChoice, FileOptions, FileQueue, MemoryQueue};

const BLOCK: usize = 4096;
const FILE: FileId = FileId(7);

fn pool() -> BufPool {
    BufPool::new(PoolOptions {
        slots: 64,
        slot_bytes: 16 * 4096,
        layout: PoolLayout::BlockAligned,
    })
    .expect("valid size")
}

fn options(backend: BackendChoice) -> FileOptions {
    FileOptions {
        backend,
        queue_depth: 32,
        transfer_bytes_max: 16 * 4096,
    }
}

/// Runs a test over a new directory with each file backend that works here.
fn for_each_file_backend(test: impl Fn(BackendChoice, &Path)) {
    for backend in [BackendChoice::Threaded, BackendChoice::Uring] {
        let temp = tempfile::tempdir().expect("a temporary directory");
        match FileQueue::open(temp.path(), options(backend)) {
            Ok(queue) => drop(queue),
            Err(error) => {
                eprintln!("SKIP {backend:?}: {error}");
                continue;
            }
        }
        test(backend, temp.path());
    }
}

/// A queue with a pool, driven one operation at a time or in batches.
struct Bench<Q> {
    queue: Q,
    pool: BufPool,
    next_token: u64,
}

impl<Q: BlockQueue> Bench<Q> {
    fn new(queue: Q) -> Self {
        Self {
            queue,
            pool: pool(),
            next_token: 0,
        }
    }

    /// A buffer of `blocks` blocks filled with `byte`.
    fn filled(&mut self, blocks: usize, byte: u8) -> Buf {
        let mut buf = self.pool.alloc().expect("free");
        self.pool.set_len(&mut buf, blocks * BLOCK);
        self.pool.bytes_mut(&mut buf).fill(byte);
        buf
    }

    fn submit(&mut self, op: BlockOp) -> u64 {
        self.next_token += 1;
        let request = BlockRequest {
            token: self.next_token,
            op,
        };
        assert!(
            self.queue.submit(&mut self.pool, request).is_ok(),
            "the queue is deep enough"
        );
        self.next_token
    }

    /// Waits for one completion, by the queue's own descriptor where it has one.
    fn wait(&mut self) -> Completion {
        let mut out = Bounded::with_capacity(1);
        while self.queue.poll(&mut self.pool, &mut out) == 0 {
            assert!(self.queue.in_flight() > 0, "nothing to wait for");
            if self.queue.arm()
                && let Some(fd) = self.queue.wake_fd()
            {
                assert!(
                    readable(fd),
                    "no completion within ten seconds: {:?}",
                    self.queue.limits()
                );
            }
        }
        out.pop().expect("polled")
    }

    fn run(&mut self, op: BlockOp) -> Result<(), BlockError> {
        let token = self.submit(op);
        let completion = self.wait();
        assert_eq!(completion.token, token);
        if let Some(buf) = completion.buf {
            self.pool.free(buf);
        }
        completion.result
    }

    fn create(&mut self, file: FileId, blocks: usize) -> Result<(), BlockError> {
        self.run(BlockOp::Create {
            file,
            bytes: (blocks * BLOCK) as u64,
            zero_ahead: false,
        })
    }

    fn write(
        &mut self,
        file: FileId,
        block: usize,
        blocks: usize,
        byte: u8,
    ) -> Result<(), BlockError> {
        let buf = self.filled(blocks, byte);
        self.run(BlockOp::Write {
            file,
            offset: (block * BLOCK) as u64,
            buf,
            durable: false,
        })
    }

    fn read(&mut self, file: FileId, block: usize, blocks: usize) -> Result<Vec<u8>, BlockError> {
        let buf = self.pool.alloc().expect("free");
        let op = BlockOp::Read {
            file,
            offset: (block * BLOCK) as u64,
            len: (blocks * BLOCK) as u32,
            buf,
        };
        self.submit(op);
        let completion = self.wait();
        let buf = completion.buf.expect("a read returns its buffer");
        let bytes = self.pool.bytes(&buf).to_vec();
        self.pool.free(buf);
        completion.result.map(|()| bytes)
    }

    /// Asserts that `blocks` blocks from `block` on hold `byte`.
    fn expect(&mut self, file: FileId, block: usize, blocks: usize, byte: u8) {
        let bytes = self.read(file, block, blocks).expect("readable");
        assert_eq!(bytes.len(), blocks * BLOCK);
        assert!(
            bytes.iter().all(|got| *got == byte),
            "block {block}: {} instead of {byte}",
            bytes[0]
        );
    }
}

fn readable(fd: std::os::fd::RawFd) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one descriptor, in a local variable that outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, 10_000) == 1 }
}

#[test]
fn a_queue_that_has_given_everything_back_can_sleep() {
    for_each_file_backend(|backend, dir| {
        let mut bench = Bench::new(FileQueue::open(dir, options(backend)).expect("it opens"));
        assert_eq!(bench.create(FILE, 64), Ok(()));
        let mut out = Bounded::with_capacity(8);
        for round in 0..1_000 {
            let under_way = 1 + round % 3;
            for block in 0..under_way {
                let buf = bench.filled(1, 1);
                bench.submit(BlockOp::Write {
                    file: FILE,
                    offset: (block * BLOCK) as u64,
                    buf,
                    durable: false,
                });
            }
            bench.submit(BlockOp::Flush);
            bench.queue.kick();
            // As a polled core does it: the last completion may be seen before the kernel is done with having told of it.
            while bench.queue.in_flight() > 0 {
                bench.queue.poll(&mut bench.pool, &mut out);
                while let Some(completion) = out.pop() {
                    assert_eq!(completion.result, Ok(()));
                    if let Some(buf) = completion.buf {
                        bench.pool.free(buf);
                    }
                }
            }
            assert!(
                bench.queue.arm(),
                "round {round}: {:?}",
                bench.queue.limits()
            );
        }
    });
}

/// What every backend does.
fn conformance<Q: BlockQueue>(queue: Q) {
    let mut bench = Bench::new(queue);
    bench.queue.register(&bench.pool);
    assert_eq!(bench.create(FILE, 64), Ok(()));
    bench.expect(FILE, 0, 16, 0);
    assert_eq!(bench.write(FILE, 3, 2, 5), Ok(()));
    assert_eq!(bench.run(BlockOp::Flush), Ok(()));
    let buf = bench.filled(1, 6);
    assert_eq!(
        bench.run(BlockOp::Write {
            file: FILE,
            offset: 5 * BLOCK as u64,
            buf,
            durable: true
        }),
        Ok(())
    );
    bench.expect(FILE, 2, 1, 0);
    bench.expect(FILE, 3, 2, 5);
    bench.expect(FILE, 5, 1, 6);

    // A full queue hands back; every operation completes once, with its own result.
    let depth = bench.queue.limits().queue_depth as usize;
    let mut tokens: Vec<u64> = (0..depth)
        .map(|at| {
            let buf = bench.filled(1, at as u8);
            bench.submit(BlockOp::Write {
                file: FILE,
                offset: (at * BLOCK) as u64,
                buf,
                durable: false,
            })
        })
        .collect();
    assert_eq!(bench.queue.in_flight(), depth);
    let refused = bench.queue.submit(
        &mut bench.pool,
        BlockRequest {
            token: 0,
            op: BlockOp::Flush,
        },
    );
    assert!(refused.is_err(), "the queue is full");
    for _ in 0..depth {
        let completion = bench.wait();
        assert_eq!(
            (completion.kind, completion.result),
            (OpKind::Write, Ok(()))
        );
        bench
            .pool
            .free(completion.buf.expect("a write returns its buffer"));
        tokens.retain(|token| *token != completion.token);
    }
    assert!(tokens.is_empty());
    for at in 0..depth {
        bench.expect(FILE, at, 1, at as u8);
    }

    // Several flushes at once, some with nothing to do.
    assert_eq!(bench.write(FILE, 0, 1, 9), Ok(()));
    let flushes: Vec<u64> = (0..4).map(|_| bench.submit(BlockOp::Flush)).collect();
    let done: Vec<u64> = flushes
        .iter()
        .map(|_| bench.wait())
        .map(|done| done.result.map(|()| done.token))
        .collect::<Result<_, _>>()
        .expect("flushed");
    assert_eq!(done, flushes);

    assert_eq!(bench.queue.files(), [(FILE, 64 * BLOCK as u64)]);
    assert_eq!(bench.run(BlockOp::Delete { file: FILE }), Ok(()));
    assert_eq!(bench.queue.files(), []);
    assert_eq!(bench.read(FILE, 0, 1), Err(BlockError::NoFile(FILE)));
    assert_eq!(bench.create(FILE, 1), Ok(()), "a number may be used again");
    bench.expect(FILE, 0, 1, 0);
    assert_eq!((bench.pool.in_use(), bench.queue.in_flight()), (0, 0));
}

#[test]
fn memory_conforms() {
    conformance(MemoryQueue::new(1 << 20, 32));
}

#[test]
fn file_backends_conform() {
    for_each_file_backend(|backend, path| {
        conformance(FileQueue::open(path, options(backend)).expect("opened before"));
    });
}

#[test]
fn auto_takes_what_works_and_says_why_not() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let queue = FileQueue::open(temp.path(), FileOptions::default()).expect("some backend works");
    let backend = queue.limits().backend;
    assert_eq!(
        queue.fallback_reason().is_some(),
        backend == "pwrite+fdatasync",
        "{backend}"
    );
    assert!(queue.limits().persistent);
}
