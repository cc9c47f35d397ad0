//! The socket: binding, buffer sizes, and the probes for GSO and GRO.

use std::io::{Error, ErrorKind};
use std::mem::size_of;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use crate::options::{UdpBuffers, UdpOpenError, UdpOptions};

#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    pub(crate) local: SocketAddr,
    pub(crate) buffers: UdpBuffers,
    pub(crate) gso: bool,
    pub(crate) gro: bool,
}

impl Socket {
    pub(crate) fn bind(options: &UdpOptions) -> Result<Self, UdpOpenError> {
        let bind = options.bind;
        let system = |call| move |source| UdpOpenError::System { call, bind, source };
        let socket = UdpSocket::bind(bind).map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => UdpOpenError::InUse { bind },
            ErrorKind::PermissionDenied => UdpOpenError::NotPermitted { bind },
            ErrorKind::AddrNotAvailable => UdpOpenError::NotAvailable { bind },
            _ => system("bind")(source),
        })?;
        socket
            .set_nonblocking(true)
            .map_err(system("set_nonblocking"))?;
        let local = socket.local_addr().map_err(system("local_addr"))?;
        let fd = socket.as_raw_fd();
        let buffers = UdpBuffers {
            rcvbuf_bytes: set_buffer(
                fd,
                libc::SO_RCVBUF,
                libc::SO_RCVBUFFORCE,
                options.rcvbuf_bytes,
            )
            .map_err(system("SO_RCVBUF"))?,
            sndbuf_bytes: set_buffer(
                fd,
                libc::SO_SNDBUF,
                libc::SO_SNDBUFFORCE,
                options.sndbuf_bytes,
            )
            .map_err(system("SO_SNDBUF"))?,
        };
        // A segment size of 0 changes nothing, and is refused by a kernel that does not know the option.
        let gso = options.gso && set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let gro = options.gro && set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        Ok(Self {
            socket,
            local,
            buffers,
            gso,
            gro,
        })
    }

    pub(crate) const fn is_ipv6(&self) -> bool {
        self.local.is_ipv6()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Asks for a buffer size, past the system's limit where the process may, and reads back what it became.
fn set_buffer(fd: RawFd, name: i32, forced: i32, bytes: u32) -> Result<u32, Error> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_option(fd, libc::SOL_SOCKET, name, bytes)?;
    // The kernel doubles what it grants; less than asked for means that a limit cut it.
    if get_option(fd, libc::SOL_SOCKET, name)? / 2 < bytes {
        // Refused without the right to pass the limit; then the limit stands, and is reported.
        let _ = set_option(fd, libc::SOL_SOCKET, forced, bytes);
    }
    Ok(get_option(fd, libc::SOL_SOCKET, name)?.unsigned_abs())
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> Result<(), Error> {
    let value_at = (&raw const value).cast();
    // SAFETY: the kernel reads an int from a local variable that outlives the call; any descriptor is a valid argument.
    let result = unsafe { libc::setsockopt(fd, level, name, value_at, size_of::<i32>() as u32) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

fn get_option(fd: RawFd, level: i32, name: i32) -> Result<i32, Error> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as u32);
    let (value_at, len_at) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: the kernel writes at most `len` bytes, the size of the local variable, and the length; both outlive the call.
    let result = unsafe { libc::getsockopt(fd, level, name, value_at, len_at) };
    if result == 0 {
        Ok(value)
    } else {
        Err(Error::last_os_error())
    }
}
