//! The wake-up descriptor of a queue. A helper thread rings it only while somebody says he sleeps; the kernel rings it for
//! every completion, which costs it next to nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// An eventfd and the flag that says whether to ring it. The handshake is that of the shared-memory ring: the sleeper
/// sets the flag, fences, looks again; the waker publishes, fences, looks at the flag.
#[derive(Debug)]
pub(crate) struct Event {
    file: File,
    armed: AtomicBool,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes two integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            file: File::from(owned),
            armed: AtomicBool::new(false),
        })
    }

    /// Sleeper: announces the sleep and takes old rings back. The caller must look for work again afterwards: what an
    /// old ring announced is there.
    pub(crate) fn arm(&self) {
        self.armed.swap(true, Ordering::AcqRel);
        // Nothing to read is no error.
        let _ = (&self.file).read(&mut [0; 8]);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: is up.
    pub(crate) fn disarm(&self) {
        self.armed.swap(false, Ordering::AcqRel);
    }

    /// Waker, after publishing its work.
    pub(crate) fn ring_if_armed(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel) {
            // Fails only when the counter is full, and then the descriptor is readable.
            let _ = (&self.file).write(&1u64.to_le_bytes());
        }
    }
}

impl AsRawFd for Event {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
