//! What is refused, by which error, and that nothing happened.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use ionian_driver_api::{Effect, OpenError};

use super::*;

/// Refusals that every backend shares.
fn refusals<Q: BlockQueue>(queue: Q, file_bytes_max: u64) {
    let mut bench = Bench::new(queue);
    bench.create(FILE, 4).expect("space");
    bench.write(FILE, 0, 4, 1).expect("writable");
    let none = FileId(99);
    let read = |bench: &mut Bench<Q>, file, offset, len| {
        let buf = bench.pool.alloc().expect("free");
        bench.run(BlockOp::Read {
            file,
            offset,
            len,
            buf,
        })
    };
    let out = |offset, len| BlockError::OutOfRange {
        offset,
        len,
        file_bytes: 4 * 4096,
    };
    assert_eq!(
        read(&mut bench, none, 0, 4096),
        Err(BlockError::NoFile(none))
    );
    assert_eq!(
        read(&mut bench, FILE, 4096, 4 * 4096),
        Err(out(4096, 4 * 4096))
    );
    assert_eq!(
        read(&mut bench, FILE, u64::MAX - 4095, 4096),
        Err(out(u64::MAX - 4095, 4096))
    );
    assert_eq!(
        read(&mut bench, FILE, 1, 4096),
        Err(BlockError::Misaligned {
            offset: 1,
            len: 4096
        })
    );
    assert_eq!(
        read(&mut bench, FILE, 0, 100),
        Err(BlockError::Misaligned {
            offset: 0,
            len: 100
        })
    );
    assert_eq!(
        read(&mut bench, FILE, 0, 0),
        Err(BlockError::Misaligned { offset: 0, len: 0 })
    );
    assert!(matches!(
        read(&mut bench, FILE, 0, 1 << 30),
        Err(BlockError::TooLarge { .. })
    ));
    assert_eq!(bench.write(none, 0, 1, 2), Err(BlockError::NoFile(none)));
    assert_eq!(bench.write(FILE, 3, 2, 2), Err(out(3 * 4096, 2 * 4096)));
    assert_eq!(bench.create(FILE, 1), Err(BlockError::Exists(FILE)));
    let create = |bytes| BlockOp::Create {
        file: none,
        bytes,
        zero_ahead: false,
    };
    for bytes in [0, 100, u64::MAX] {
        assert_eq!(
            bench.run(create(bytes)),
            Err(BlockError::Misaligned {
                offset: 0,
                len: bytes
            })
        );
    }
    let error = bench.run(create(file_bytes_max)).expect_err("too large");
    assert_eq!(error.effect(), Effect::None, "{error}");
    assert_eq!(
        bench.run(BlockOp::Delete { file: none }),
        Err(BlockError::NoFile(none))
    );
    bench.expect(FILE, 0, 4, 1);
    assert_eq!(bench.queue.files().len(), 1);
    assert_eq!((bench.pool.in_use(), bench.queue.in_flight()), (0, 0));
}

#[test]
fn memory_refuses_beyond_its_limit() {
    refusals(MemoryQueue::new(8 * 4096, 32), 5 * 4096);
    let mut bench = Bench::new(MemoryQueue::new(8 * 4096, 32));
    bench.create(FileId(1), 8).expect("space");
    assert_eq!(
        bench.create(FileId(2), 1),
        Err(BlockError::MemoryFull {
            wanted_bytes: 9 * 4096,
            bytes_max: 8 * 4096
        })
    );
    bench
        .run(BlockOp::Delete { file: FileId(1) })
        .expect("there");
    assert_eq!(bench.queue.memory_bytes(), 0);
    bench.create(FileId(2), 8).expect("space again");
}

#[test]
fn file_backends_refuse() {
    for_each_file_backend(|backend, path| {
        // Larger than any file may be.
        refusals(
            FileQueue::open(path, options(backend)).expect("opened before"),
            (i64::MAX as u64 / 4096) * 4096,
        );
    });
}

#[test]
fn a_directory_has_one_user() {
    for_each_file_backend(|backend, path| {
        let _queue = FileQueue::open(path, options(backend)).expect("opened before");
        match FileQueue::open(path, options(BackendChoice::Auto)) {
            Err(OpenError::InUse { holder_pid, .. }) => assert_eq!(holder_pid, std::process::id()),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_file_in_use_is_not_removed_under_the_device() {
    for_each_file_backend(|backend, path| {
        let mut bench = Bench::new(FileQueue::open(path, options(backend)).expect("opened before"));
        bench.create(FILE, 16).expect("space");
        let buf = bench.filled(16, 1);
        let write = bench.submit(BlockOp::Write {
            file: FILE,
            offset: 0,
            buf,
            durable: false,
        });
        bench.submit(BlockOp::Delete { file: FILE });
        let (mut deleted, mut written) = (None, None);
        for _ in 0..2 {
            let done = bench.wait();
            *(if done.token == write {
                &mut written
            } else {
                &mut deleted
            }) = Some(done.result);
        }
        // In order, or refused: never a write to a file that is gone.
        assert_eq!(written, Some(Ok(())));
        assert!(
            matches!(deleted, Some(Ok(()) | Err(BlockError::Busy(FILE)))),
            "{deleted:?}"
        );
    });
}

/// A full filesystem: creation fails with no effect, and everything else goes on.
#[test]
fn a_full_disk_refuses_new_files_only() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mount = temp.path();
    // By system calls and not by commands: a fork would share the locks that other tests hold at that moment.
    let target = CString::new(mount.as_os_str().as_bytes()).expect("a path holds no zero");
    let size = c"size=1m".as_ptr().cast();
    // SAFETY: strings that end in zero and outlive the call.
    if unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            size,
        )
    } != 0
    {
        eprintln!(
            "SKIP: mounting a small filesystem needs root ({})",
            io::Error::last_os_error()
        );
        return;
    }
    let result = std::panic::catch_unwind(|| {
        for backend in [BackendChoice::Threaded, BackendChoice::Uring] {
            let path = mount.join(format!("{backend:?}"));
            let queue = match FileQueue::open(&path, options(backend)) {
                Ok(queue) => queue,
                Err(error) => {
                    eprintln!("SKIP {backend:?}: {error}");
                    continue;
                }
            };
            let mut bench = Bench::new(queue);
            bench.create(FileId(1), 100).expect("space");
            for zero_ahead in [false, true] {
                let bytes = 4 << 20;
                let error = bench
                    .run(BlockOp::Create {
                        file: FileId(2),
                        bytes,
                        zero_ahead,
                    })
                    .expect_err("full");
                assert_eq!(
                    (error, error.effect()),
                    (
                        BlockError::NoSpace {
                            file: FileId(2),
                            bytes
                        },
                        Effect::None
                    )
                );
            }
            assert_eq!(bench.queue.files().len(), 1);
            bench
                .write(FileId(1), 0, 16, 4)
                .expect("its space is reserved");
            bench.run(BlockOp::Flush).expect("flushed");
            bench.expect(FileId(1), 0, 16, 4);
            bench
                .run(BlockOp::Delete { file: FileId(1) })
                .expect("removing needs no space");
            bench
                .create(FileId(2), 100)
                .expect("what failed left nothing behind");
        }
    });
    // SAFETY: a string that ends in zero and outlives the call.
    let unmounted = unsafe { libc::umount(target.as_ptr()) };
    assert_eq!(unmounted, 0, "the test's filesystem stays mounted");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
