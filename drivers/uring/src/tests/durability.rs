//! What survives closing and opening again, and faults injected by the wrappers of the driver API.

use std::fs;

use ionian_driver_api::{BlockFaults, Effect, FaultyBlocks, Traced};

use super::*;

#[test]
fn files_and_contents_survive_a_restart() {
    for_each_file_backend(|backend, path| {
        let mut bench = Bench::new(FileQueue::open(path, options(backend)).expect("opened before"));
        for file in [3, 1, 2] {
            bench.create(FileId(file), file as usize).expect("space");
            bench
                .write(FileId(file), 0, 1, file as u8)
                .expect("writable");
        }
        bench.run(BlockOp::Flush).expect("flushed");
        bench
            .run(BlockOp::Delete { file: FileId(2) })
            .expect("deleted");
        bench
            .queue
            .dir()
            .write_small("root", b"x")
            .expect("writable");
        drop(bench);
        // As after a crash in the middle of a creation.
        fs::write(path.join("00000000000000ff.new"), b"half").expect("writable");
        // Every backend reads what every other wrote.
        for reader in [BackendChoice::Auto, BackendChoice::Threaded, backend] {
            let mut bench =
                Bench::new(FileQueue::open(path, options(reader)).expect("opened before"));
            assert_eq!(
                bench.queue.files(),
                [(FileId(1), 4096), (FileId(3), 3 * 4096)]
            );
            bench.expect(FileId(1), 0, 1, 1);
            bench.expect(FileId(3), 0, 1, 3);
            bench.expect(FileId(3), 1, 2, 0);
            assert_eq!(
                bench
                    .queue
                    .dir()
                    .read_small("root", 9)
                    .expect("readable")
                    .as_deref(),
                Some(&b"x"[..])
            );
        }
        assert!(!path.join("00000000000000ff.new").exists());
    });
}

#[test]
fn zeros_written_ahead_read_as_zeros() {
    for_each_file_backend(|backend, path| {
        let mut bench = Bench::new(FileQueue::open(path, options(backend)).expect("opened before"));
        let bytes = (2 << 20) + 4096;
        assert_eq!(
            bench.run(BlockOp::Create {
                file: FILE,
                bytes,
                zero_ahead: true
            }),
            Ok(())
        );
        bench.expect(FILE, 512, 1, 0);
        bench.write(FILE, 512, 1, 3).expect("the last block");
        bench.expect(FILE, 512, 1, 3);
    });
}

#[test]
fn a_queue_dropped_with_work_in_flight_finishes_it() {
    for_each_file_backend(|backend, path| {
        let mut bench = Bench::new(FileQueue::open(path, options(backend)).expect("opened before"));
        bench.create(FILE, 32).expect("space");
        for at in 0..16 {
            let buf = bench.filled(1, 8);
            bench.submit(BlockOp::Write {
                file: FILE,
                offset: (at * BLOCK) as u64,
                buf,
                durable: false,
            });
        }
        bench.queue.kick();
        drop(bench);
        let mut bench = Bench::new(FileQueue::open(path, options(backend)).expect("unlocked"));
        bench.expect(FILE, 0, 16, 8);
    });
}

#[test]
fn a_queue_moves_to_its_thread_before_first_use() {
    for_each_file_backend(|backend, path| {
        let queue = FileQueue::open(path, options(backend)).expect("opened before");
        let thread = std::thread::spawn(move || conformance(queue));
        thread
            .join()
            .expect("it works on another thread than it was opened on");
    });
}

#[test]
fn faults_are_what_they_say() {
    let mut bench = Bench::new(FaultyBlocks::new(
        Traced::new(MemoryQueue::new(1 << 20, 32), 16),
        BlockFaults::default(),
        3,
    ));
    bench.create(FILE, 16).expect("space");
    bench.queue.set_faults(BlockFaults {
        error_ppm: 1_000_000,
        ..Default::default()
    });
    let error = bench.write(FILE, 0, 4, 1).expect_err("injected");
    assert_eq!(
        (error, error.effect()),
        (
            BlockError::Io {
                kind: OpKind::Write,
                errno: 5
            },
            Effect::Unknown
        )
    );
    bench.queue.set_faults(BlockFaults::default());
    bench.expect(FILE, 0, 4, 0);

    bench.queue.set_faults(BlockFaults {
        torn_ppm: 1_000_000,
        ..Default::default()
    });
    assert!(bench.write(FILE, 0, 4, 2).is_err());
    bench.queue.set_faults(BlockFaults::default());
    bench.expect(FILE, 0, 1, 2);
    bench.expect(FILE, 3, 1, 0);

    bench.queue.set_faults(BlockFaults {
        lost_flush_ppm: 1_000_000,
        ..Default::default()
    });
    let sent = bench.queue.inner_mut().counts().sent;
    assert_eq!(bench.run(BlockOp::Flush), Ok(()), "the lie");
    assert_eq!(
        bench.queue.inner_mut().counts().sent,
        sent,
        "nothing reached the device"
    );

    bench.queue.set_faults(BlockFaults {
        delay_ppm: 500_000,
        delay_polls_max: 9,
        ..Default::default()
    });
    for at in 0..16 {
        let buf = bench.filled(1, 4);
        bench.submit(BlockOp::Write {
            file: FILE,
            offset: (at * BLOCK) as u64,
            buf,
            durable: false,
        });
    }
    let mut tokens: Vec<u64> = (0..16)
        .map(|_| {
            let done = bench.wait();
            bench
                .pool
                .free(done.buf.expect("a write returns its buffer"));
            done.token
        })
        .collect();
    assert!(!tokens.is_sorted(), "late ones were overtaken");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 16);
    let counts = bench.queue.counts();
    assert_eq!((counts.failed, counts.corrupted, counts.dropped), (1, 1, 1));
}
