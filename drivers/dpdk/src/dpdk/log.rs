//! What DPDK writes to its log, kept while it starts and while a port is opened: the only place where it says why something failed.
//!
//! At other times its errors go where DPDK sends them by itself: standard error and the system's log.

use std::sync::Mutex;

use ionian_dpdk_sys as sys;

/// Levels of DPDK's log: errors only, and everything.
const LEVEL_ERRORS: u32 = 4;
const LEVEL_ALL: u32 = 8;
/// The most that is read back, in bytes.
const READ_BYTES_MAX: usize = 16 << 10;

/// A stream over memory, made at the first use. It is never closed: a thread of DPDK's may still be writing to it when it is no longer
/// the log's.
struct Stream {
    file: *mut libc::FILE,
    fd: libc::c_int,
}

// SAFETY: the stream is one of the C library, which may be used from any thread.
unsafe impl Send for Stream {}

static STREAM: Mutex<Option<Stream>> = Mutex::new(None);

/// While it lives, what DPDK writes is kept. One at a time: its users hold the control lock.
#[derive(Debug)]
pub(super) struct Capture {
    _private: (),
}

impl Capture {
    pub(super) fn begin() -> Self {
        let mut stream = STREAM
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream.is_none() {
            *stream = make();
        }
        if let Some(stream) = &*stream {
            // SAFETY: a stream that is never closed.
            unsafe { libc::rewind(stream.file) };
            // SAFETY: the descriptor is that of the stream. If it fails, old text is read again: no harm.
            let _ = unsafe { libc::ftruncate(stream.fd, 0) };
            // SAFETY: the stream outlives DPDK, and the two types are one of the C library's.
            unsafe { sys::rte_openlog_stream(stream.file.cast()) };
        }
        // SAFETY: the call sets a number.
        unsafe { sys::rte_log_set_global_level(LEVEL_ALL) };
        Self { _private: () }
    }

    /// What was written since the beginning, its end if it is long.
    pub(super) fn text(&self) -> String {
        let stream = STREAM
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(stream) = &*stream else {
            return String::new();
        };
        // SAFETY: a stream that is never closed.
        unsafe { libc::fflush(stream.file) };
        // SAFETY: the descriptor is that of the stream.
        let end = unsafe { libc::lseek(stream.fd, 0, libc::SEEK_END) };
        let from = usize::try_from(end)
            .unwrap_or(0)
            .saturating_sub(READ_BYTES_MAX);
        let mut bytes = vec![0_u8; READ_BYTES_MAX];
        // SAFETY: the buffer is as long as the call is told.
        let read = unsafe {
            libc::pread(
                stream.fd,
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                libc::off_t::try_from(from).unwrap_or(0),
            )
        };
        bytes.truncate(usize::try_from(read).unwrap_or(0));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of it.
    pub(super) fn last_words(&self) -> String {
        crate::error::last_words(&self.text())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // SAFETY: no stream means that of DPDK itself.
        unsafe { sys::rte_openlog_stream(std::ptr::null_mut()) };
        // SAFETY: the call sets a number.
        unsafe { sys::rte_log_set_global_level(LEVEL_ERRORS) };
    }
}

fn make() -> Option<Stream> {
    // SAFETY: the name is a text that ends in a zero.
    let fd = unsafe { libc::memfd_create(c"dpdk-log".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor was just made, and the mode is a text that ends in a zero.
    let file = unsafe { libc::fdopen(fd, c"w+".as_ptr()) };
    (!file.is_null()).then_some(Stream { file, fd })
}
