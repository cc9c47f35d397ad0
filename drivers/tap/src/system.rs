//! System calls on descriptors, each with its arguments checked by types.

use std::io::{Error, Result};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket of the given kind, not blocking, not inherited.
pub(crate) fn socket(domain: i32, kind: i32) -> Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: integers only; a new descriptor comes back.
    let fd = unsafe { libc::socket(domain, kind | flags, 0) };
    own(fd)
}

/// Opens a file for reading and writing, not blocking, not inherited.
pub(crate) fn open(path: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a string that ends in zero and outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    own(fd)
}

fn own(fd: i32) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the system has just returned this descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of a socket to a plain value without padding or pointers to what does not outlive the call.
pub(crate) fn set_option<T: Copy>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> Result<()> {
    let value_at = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads as many bytes as the value has, from a reference that outlives the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value_at, size_of::<T>() as u32) };
    check(result)
}

/// Reads how many frames the kernel received for a socket and dropped since it was asked last.
pub(crate) fn drops(fd: &OwnedFd) -> u32 {
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut len = size_of::<libc::tpacket_stats>() as u32;
    let (stats_at, len_at) = ((&raw mut stats).cast(), &raw mut len);
    // SAFETY: the kernel writes at most `len` bytes, the size of the local variable, and the length; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            stats_at,
            len_at,
        )
    };
    if result == 0 { stats.tp_drops } else { 0 }
}

/// Makes an error of a negative result.
pub(crate) fn check(result: i32) -> Result<()> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The number of the last error.
pub(crate) fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}
