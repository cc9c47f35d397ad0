//! Making the ring, and finding out whether io_uring with O_DIRECT works in a directory.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use io_uring::{IoUring, opcode, squeue, types};
use ionian_driver_api::dma::RawBytes;

use crate::dir::DataDir;
use crate::options::BLOCK_BYTES;

/// Makes the ring with the best set-up this kernel takes. The flag says whether it is enabled already: a ring of a single
/// issuer is enabled by, and bound to, the thread that first uses it.
pub(crate) fn build_ring(queue_depth: u32) -> io::Result<(IoUring, bool)> {
    // Room for every operation and a few dozen syncs.
    let entries = (queue_depth + 64).next_power_of_two();
    let mut builder = IoUring::builder();
    let single = builder
        .setup_cqsize(entries * 2)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_r_disabled()
        .build(entries);
    if let Ok(ring) = single {
        return Ok((ring, false));
    }
    let mut builder = IoUring::builder();
    let cooperative = builder
        .setup_cqsize(entries * 2)
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(entries);
    match cooperative {
        Ok(ring) => Ok((ring, true)),
        Err(_) => IoUring::builder()
            .setup_cqsize(entries * 2)
            .build(entries)
            .map(|ring| (ring, true)),
    }
}

/// Writes, syncs and reads one block through a ring in the directory.
///
/// # Errors
///
/// What did not work: io_uring refused (by the kernel, a sandbox or a limit), or O_DIRECT refused by the filesystem.
pub(crate) fn probe(dir: &DataDir) -> io::Result<()> {
    let path = dir.path().join("probe.tmp");
    let result = write_and_read(&path);
    // Only a leftover if it fails, with an ending that readers skip.
    let _ = fs::remove_file(&path);
    result
}

fn write_and_read(path: &std::path::Path) -> io::Result<()> {
    let mut ring = IoUring::new(4)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let (out, back) = (
        RawBytes::new(BLOCK_BYTES as usize),
        RawBytes::new(BLOCK_BYTES as usize),
    );
    // SAFETY: the allocation is one block long and nobody else knows it.
    unsafe { out.base().write_bytes(0xa5, BLOCK_BYTES as usize) };
    let fd = types::Fd(file.as_raw_fd());
    run(
        &mut ring,
        &opcode::Write::new(fd, out.base(), BLOCK_BYTES).build(),
        BLOCK_BYTES,
    )?;
    run(
        &mut ring,
        &opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        0,
    )?;
    run(
        &mut ring,
        &opcode::Read::new(fd, back.base(), BLOCK_BYTES).build(),
        BLOCK_BYTES,
    )?;
    // SAFETY: the operation has ended, and nobody writes the memory any more.
    let bytes = unsafe { back.slice(0, BLOCK_BYTES as usize) };
    if bytes.iter().all(|byte| *byte == 0xa5) {
        Ok(())
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidData,
            "a block did not come back as written",
        ))
    }
}

/// Runs one operation to its end.
fn run(ring: &mut IoUring, entry: &squeue::Entry, expected: u32) -> io::Result<()> {
    // SAFETY: the entry's file and memory belong to the caller, who waits for the end of the operation here.
    unsafe { ring.submission().push(entry) }
        .map_err(|_| io::Error::from(ErrorKind::QuotaExceeded))?;
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let result = ring
        .completion()
        .next()
        .map_or(-libc::EIO, |entry| entry.result());
    match u32::try_from(result) {
        Ok(done) if done == expected => Ok(()),
        Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}
