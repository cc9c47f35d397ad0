//! Whether the kernel gives this process what drivers need, found by asking for it and giving it back at once.
//!
//! Asked at start and by `ionian doctor` only. A probe leaves nothing behind: the descriptor is closed before it returns.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// What an io_uring of this kernel can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoUring {
    /// The kernel's feature bits, `IORING_FEAT_*` of io_uring_setup(2).
    pub features: u32,
}

/// The words of `struct io_uring_params`, io_uring_setup(2): 40 bytes of fields, and the offsets of two rings of 40 each.
const URING_PARAMS_WORDS: usize = 30;
/// The word of it that the kernel writes its features to.
const URING_FEATURES_WORD: usize = 5;

/// Makes an io_uring of two entries and closes it.
///
/// # Errors
/// That of io_uring_setup(2): EPERM where it is switched off (`kernel.io_uring_disabled`) or filtered, ENOSYS where the
/// kernel has none, ENOMEM where locked memory is limited. Effect: none.
pub fn probe_io_uring() -> io::Result<IoUring> {
    let mut params = [0_u32; URING_PARAMS_WORDS];
    let entries: libc::c_uint = 2;
    // SAFETY: the call reads and writes one `struct io_uring_params`, 120 bytes, which `params` is as long as and as aligned
    // for; nobody else has it, and the kernel keeps no pointer to it after the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params.as_mut_ptr()) };
    owned(fd)?;
    Ok(IoUring {
        features: params[URING_FEATURES_WORD],
    })
}

/// Makes an AF_XDP socket and closes it.
///
/// # Errors
/// That of socket(2): EAFNOSUPPORT where the kernel has no XDP sockets, EPERM without CAP_NET_RAW. Effect: none.
pub fn probe_xdp_socket() -> io::Result<()> {
    // SAFETY: socket(2) takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    owned(libc::c_long::from(fd))
}

/// Makes a packet socket that receives nothing and closes it.
///
/// # Errors
/// That of socket(2): EPERM without CAP_NET_RAW, EAFNOSUPPORT where the kernel has none. Effect: none.
pub fn probe_packet_socket() -> io::Result<()> {
    // SAFETY: socket(2) takes no pointer. Protocol 0 receives no frame, packet(7).
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    owned(libc::c_long::from(fd))
}

/// Closes what a call returned, or says why it returned nothing.
fn owned(fd: libc::c_long) -> io::Result<()> {
    let fd = libc::c_int::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call that returned it made this descriptor for us; nobody else knows it, so dropping it closes it once.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
    }

    /// Whether they succeed is the machine's affair; that they answer and leave no descriptor is ours. Other tests of the
    /// process open files, so that the count is compared over many probes.
    #[test]
    fn probes_answer_and_leave_nothing_open() {
        const TIMES: usize = 300;
        let before = open_descriptors();
        for _ in 0..TIMES {
            for answer in [
                probe_io_uring().map(|_| ()),
                probe_xdp_socket(),
                probe_packet_socket(),
            ] {
                if let Err(error) = answer {
                    assert!(error.raw_os_error().is_some(), "{error}");
                }
            }
        }
        assert!(open_descriptors() < before + TIMES);
    }

    #[test]
    fn a_ring_that_is_made_says_what_it_can() {
        if let Ok(ring) = probe_io_uring() {
            // IORING_FEAT_SINGLE_MMAP, in every kernel from 5.4 on.
            assert!(ring.features & 1 != 0, "{:#x}", ring.features);
        }
    }
}
