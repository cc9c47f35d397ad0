//! The AF_XDP socket: its frames, its four rings, its place on a queue, and the calls that wake the kernel.
//!
//! *Source*: linux/if_xdp.h; Documentation/networking/af_xdp.rst of the Linux kernel.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Step, XdpOpenError};
use crate::interface::Interface;
use crate::mapping::{KernelWords, Mapping};
use crate::options::{XdpKernelStats, XdpMode, XdpOptions};
use crate::ring::{Consumer, Producer};
use crate::umem::Umem;

/// For so long the kernel may still have the queue for a socket that is closed already: it frees one in the background.
const BIND_RETRY: Duration = Duration::from_millis(200);
/// Between two tries. At set-up only.
const BIND_PAUSE: Duration = Duration::from_millis(2);

/// The rings of a socket, each by the end that is ours.
#[derive(Debug)]
pub(crate) struct Rings {
    /// Frames for the kernel to receive into.
    pub(crate) fill: Producer<KernelWords<u64>>,
    /// Received packets.
    pub(crate) rx: Consumer<KernelWords<libc::xdp_desc>>,
    /// Packets to send.
    pub(crate) tx: Producer<KernelWords<libc::xdp_desc>>,
    /// Frames whose packets were sent.
    pub(crate) completion: Consumer<KernelWords<u64>>,
}

/// A socket. Closing it takes it off its queue and out of the map.
#[derive(Debug)]
pub(crate) struct XdpSocket {
    fd: OwnedFd,
}

impl XdpSocket {
    /// Makes a socket over `umem` with its rings; it is on no queue yet. Each ring has room for all frames that can be in
    /// it.
    pub(crate) fn open(options: &XdpOptions, umem: &Umem) -> Result<(Self, Rings), XdpOpenError> {
        let name = &options.interface;
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Step::Socket.error(name, io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd };
        let registration = umem.registration();
        let bytes = registration.len as usize;
        socket
            .set(libc::XDP_UMEM_REG, &registration)
            .map_err(|source| Step::Umem { bytes }.error(name, source))?;
        let rings = socket
            .make_rings(options)
            .map_err(|source| Step::Rings.error(name, source))?;
        Ok((socket, rings))
    }

    fn make_rings(&self, options: &XdpOptions) -> io::Result<Rings> {
        self.set(libc::XDP_UMEM_FILL_RING, &options.rx_frames)?;
        self.set(libc::XDP_UMEM_COMPLETION_RING, &options.tx_frames)?;
        self.set(libc::XDP_RX_RING, &options.rx_frames)?;
        self.set(libc::XDP_TX_RING, &options.tx_frames)?;
        // SAFETY: integers only, for which zero bits are a value.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { zeroed() };
        let len = self.get(libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        if len != size_of::<libc::xdp_mmap_offsets>() {
            // The form of kernels before 5.4, without flags.
            return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
        }
        let fill_at = libc::XDP_UMEM_PGOFF_FILL_RING.cast_signed();
        let completion_at = libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed();
        Ok(Rings {
            fill: Producer::new(self.words(&offsets.fr, fill_at, options.rx_frames)?),
            rx: Consumer::new(self.words(
                &offsets.rx,
                libc::XDP_PGOFF_RX_RING,
                options.rx_frames,
            )?),
            tx: Producer::new(self.words(
                &offsets.tx,
                libc::XDP_PGOFF_TX_RING,
                options.tx_frames,
            )?),
            completion: Consumer::new(self.words(&offsets.cr, completion_at, options.tx_frames)?),
        })
    }

    fn words<T: Copy>(
        &self,
        offsets: &libc::xdp_ring_offset,
        page_offset: libc::off_t,
        count: u32,
    ) -> io::Result<KernelWords<T>> {
        let bytes = KernelWords::<T>::bytes(offsets, count);
        let mapping = Mapping::of_socket(self.fd.as_fd(), page_offset, bytes)?;
        Ok(KernelWords::new(mapping, offsets, count))
    }

    /// Puts the socket on its queue. Tries again for up to 200 ms while the queue is in use: the kernel frees that of a
    /// socket which is closed already in the background.
    pub(crate) fn bind(
        &self,
        options: &XdpOptions,
        interface: &Interface,
    ) -> Result<(), XdpOpenError> {
        let zero_copy = options.mode == XdpMode::ZeroCopy;
        let copy_flag = if zero_copy {
            libc::XDP_ZEROCOPY
        } else {
            libc::XDP_COPY
        };
        let wakeup_flag = if options.need_wakeup {
            libc::XDP_USE_NEED_WAKEUP
        } else {
            0
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: copy_flag | wakeup_flag,
            sxdp_ifindex: interface.index,
            sxdp_queue_id: options.queue,
            sxdp_shared_umem_fd: 0,
        };
        let start = Instant::now();
        loop {
            let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
            // SAFETY: the kernel reads `len` bytes, the size of the local variable, which outlives the call.
            let result =
                unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
            if result == 0 {
                return Ok(());
            }
            let source = io::Error::last_os_error();
            let busy = source.raw_os_error() == Some(libc::EBUSY);
            if !busy || start.elapsed() >= BIND_RETRY {
                let step = Step::Bind {
                    queue: options.queue,
                    zero_copy,
                };
                return Err(step.error(&options.interface, source));
            }
            // Nothing tells when the kernel has freed the queue.
            thread::park_timeout(BIND_PAUSE);
        }
    }

    /// Makes the kernel send what is in the send ring. One system call.
    ///
    /// # Errors
    ///
    /// The kernel's: `EAGAIN` when it has sent a part and wants to be asked again, or has no room; `EBUSY` when the device
    /// has dropped a packet; `ENETDOWN` and `ENXIO` when the interface is down and gone.
    pub(crate) fn wake_tx(&self) -> io::Result<()> {
        // SAFETY: no bytes are passed and no address.
        let result = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                null(),
                0,
                libc::MSG_DONTWAIT,
                null(),
                0,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Makes the kernel look at the fill ring. One system call.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENETDOWN` and `ENXIO` when the interface is down and gone.
    pub(crate) fn wake_rx(&self) -> io::Result<()> {
        // SAFETY: no bytes are asked for and no address.
        let result = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                null_mut(),
                0,
                libc::MSG_DONTWAIT,
                null_mut(),
                null_mut(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// What the kernel has counted; zero where it does not say. One system call.
    pub(crate) fn kernel_stats(&self) -> XdpKernelStats {
        // SAFETY: integers only, for which zero bits are a value.
        let mut counted: libc::xdp_statistics = unsafe { zeroed() };
        if self.get(libc::XDP_STATISTICS, &mut counted).is_err() {
            return XdpKernelStats::default();
        }
        XdpKernelStats {
            rx_dropped: counted.rx_dropped,
            rx_ring_full: counted.rx_ring_full,
            rx_fill_ring_empty: counted.rx_fill_ring_empty_descs,
            rx_invalid_descs: counted.rx_invalid_descs,
            tx_invalid_descs: counted.tx_invalid_descs,
        }
    }

    /// The descriptor, for the map from queues to sockets.
    pub(crate) const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn set<T: Copy>(&self, name: libc::c_int, value: &T) -> io::Result<()> {
        let (value_at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as u32);
        // SAFETY: the kernel reads `len` bytes from a variable of that size, which outlives the call; what it registers by
        // address (`XDP_UMEM_REG`) is a mapping that is unmapped after this socket is closed.
        let result =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, name, value_at, len) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Fills `value`, a structure of integers, and returns the bytes that the kernel has written.
    fn get<T: Copy>(&self, name: libc::c_int, value: &mut T) -> io::Result<usize> {
        let mut len = size_of::<T>() as u32;
        let (value_at, len_at) = (std::ptr::from_mut(value).cast(), &raw mut len);
        // SAFETY: the kernel writes at most `len` bytes, the size of the variable, and the length; both outlive the call,
        // and any bits are a value of the structures that this is used with.
        let result =
            unsafe { libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, name, value_at, len_at) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(len as usize)
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
