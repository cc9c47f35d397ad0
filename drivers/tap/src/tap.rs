//! A TAP device: frames go through a descriptor of /dev/net/tun, one per system call.
//!
//! The process is the host at the end of the cable whose other end is the kernel's interface. It has a hardware address of its
//! own; the interface's belongs to the kernel. *Source*: Documentation/networking/tuntap.rst of Linux.

use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ionian_driver_api::BufPool;
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, LinkCaps, LinkStats, MacAddr};

use crate::error::LinkOpenError;
use crate::interface::{Interface, request};
use crate::system::{check, errno, open};

/// How to open a TAP device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapOptions {
    /// Name of the interface, 1 to 15 bytes. It is made if it is not there, and goes with the link then.
    pub name: String,
    /// Largest IP packet in bytes. The interface's is raised to it where it is smaller.
    pub mtu_bytes: u32,
    /// Own hardware address; without one it is the interface's with its last bit turned, so that the host behind the interface
    /// is not the kernel.
    pub mac: Option<MacAddr>,
    /// Each opening of the name is one more queue of the interface, up to 256, and the kernel spreads flows over them.
    pub multi_queue: bool,
    /// Bridge of the kernel's that the interface becomes a port of.
    pub bridge: Option<String>,
    /// Frames of one burst, 1 to 1024.
    pub batch: usize,
}

impl TapOptions {
    /// Those of an interface of this name, with everything else as is usual.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mtu_bytes: 1500,
            mac: None,
            multi_queue: false,
            bridge: None,
            batch: 64,
        }
    }
}

/// A TAP device as a frame link.
#[derive(Debug)]
pub struct TapLink {
    file: OwnedFd,
    interface: Interface,
    caps: LinkCaps,
    stats: LinkStats,
    up: bool,
}

impl TapLink {
    /// Opens the interface, or makes it, brings it up and joins it to its bridge.
    ///
    /// # Errors
    ///
    /// [`LinkOpenError`]: no /dev/net/tun, no permission, another process has it, another kind of interface, no such
    /// bridge. Effect: none; an interface that was made is gone again.
    pub fn open(options: &TapOptions) -> Result<Self, LinkOpenError> {
        let name = &options.name;
        if !(1..=1024).contains(&options.batch) {
            return Err(LinkOpenError::Batch {
                batch: options.batch,
            });
        }
        let interface = Interface::new(name)?;
        let file = open(c"/dev/net/tun").map_err(|source| open_error(name, source))?;
        attach(&file, options)?;
        let kernel_mac = interface.mac()?;
        let mac = options.mac.unwrap_or_else(|| neighbour_of(kernel_mac));
        if !mac.is_unicast() {
            return Err(LinkOpenError::Mac { mac });
        }
        set_mtu(&interface, options.mtu_bytes)?;
        if let Some(bridge) = &options.bridge {
            Interface::new(bridge)?.add_port(interface.index()?)?;
        }
        interface.bring_up()?;
        Ok(Self {
            file,
            interface,
            caps: LinkCaps {
                backend: "tap",
                mac,
                mtu_bytes: options.mtu_bytes,
                headroom_bytes: 0,
                batch_max: options.batch,
                tx_checksum: false,
            },
            stats: LinkStats::default(),
            up: true,
        })
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        self.interface.name()
    }

    fn down(&mut self) {
        self.stats.downs += u64::from(self.up);
        self.up = false;
    }
}

impl FrameLink for TapLink {
    fn caps(&self) -> LinkCaps {
        self.caps
    }

    fn stats(&mut self) -> LinkStats {
        self.stats
    }

    /// Where a frame is larger than the slot, the kernel cuts it and does not say so: its IP header does, to the layer above.
    fn rx_burst(&mut self, pool: &mut BufPool, headers: Headers, out: &mut FrameBatch) -> usize {
        let (before, head) = (out.len(), headers.bytes());
        let room = head + pool.slot_bytes();
        for _ in 0..self.caps.batch_max {
            if out.is_full() {
                break;
            }
            let Some(mut buf) = pool.alloc() else { break };
            let at = pool.dma_address_front(&buf, head);
            self.stats.rx_calls += 1;
            // SAFETY: the slot has `room` bytes from this address on, its only handle is held here, no slice of it exists,
            // and the kernel is done with it when the call returns.
            let received = unsafe { libc::read(self.file.as_raw_fd(), at.cast(), room) };
            let Ok(bytes) = usize::try_from(received) else {
                pool.free(buf);
                match errno() {
                    libc::EAGAIN => {}
                    libc::EINTR => continue,
                    // The interface was removed from under the process.
                    _ => {
                        self.stats.rx_errors += 1;
                        self.down();
                    }
                }
                break;
            };
            if bytes < head {
                self.stats.rx_short += 1;
                pool.free(buf);
                continue;
            }
            pool.set_front(&mut buf, head, bytes);
            self.stats.rx_frames += 1;
            // The kernel completes the checksums of what it sends into the interface, which has no offload.
            let frame = Frame {
                buf,
                checksum: Checksum::InFrame,
            };
            if let Err(frame) = out.push(frame) {
                pool.free(frame.buf);
            }
        }
        out.len() - before
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut FrameBatch) -> usize {
        let before = burst.len();
        while let Some(frame) = burst.get(0) {
            let at = pool.dma_address_front(&frame.buf, frame.buf.head_len());
            let bytes = frame.buf.front_len();
            self.stats.tx_calls += 1;
            // SAFETY: the frame's bytes are valid from this address on, its handle lies in `burst`, and the kernel has
            // copied them when the call returns.
            let sent = unsafe { libc::write(self.file.as_raw_fd(), at.cast_const().cast(), bytes) };
            if sent < 0 {
                match errno() {
                    libc::EINTR => continue,
                    libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => {
                        self.stats.tx_full += 1;
                        break;
                    }
                    errno => {
                        if matches!(errno, libc::EIO | libc::EBADFD) {
                            self.down();
                        }
                        self.stats.tx_refused += 1;
                        self.stats.tx_last_errno = errno;
                    }
                }
            } else {
                self.up = true;
                self.stats.tx_frames += 1;
            }
            if let Some(frame) = burst.pop() {
                pool.free(frame.buf);
            }
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

/// Attaches the descriptor to the interface, which is made if it is not there.
fn attach(file: &OwnedFd, options: &TapOptions) -> Result<(), LinkOpenError> {
    let mut request = request(&options.name)?;
    let queues = if options.multi_queue {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | queues) as libc::c_short;
    let at = &raw mut request;
    // SAFETY: TUNSETIFF reads and fills in a request that names an interface, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, at) };
    let name = || options.name.clone();
    check(result).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => LinkOpenError::Busy { name: name() },
        Some(libc::EINVAL) => LinkOpenError::OtherKind {
            name: name(),
            multi_queue: options.multi_queue,
        },
        _ => open_error(&options.name, source),
    })?;
    // An interface that outlived another process may remember that one's offloads, and would hand over what is not finished.
    // SAFETY: TUNSETOFFLOAD takes an integer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    check(result).map_err(|source| LinkOpenError::System {
        call: "TUNSETOFFLOAD",
        name: name(),
        source,
    })
}

/// Raises the interface's MTU, where it is smaller and the process may.
fn set_mtu(interface: &Interface, mtu_bytes: u32) -> Result<(), LinkOpenError> {
    let interface_mtu_bytes = interface.mtu_bytes()?;
    if mtu_bytes <= interface_mtu_bytes {
        return Ok(());
    }
    interface
        .set_mtu(mtu_bytes)
        .map_err(|_| LinkOpenError::Mtu {
            name: interface.name().to_owned(),
            mtu_bytes,
            interface_mtu_bytes,
        })
}

fn open_error(name: &str, source: Error) -> LinkOpenError {
    match source.raw_os_error() {
        Some(libc::ENOENT) => LinkOpenError::NoTun,
        Some(libc::ENODEV | libc::ENXIO) => LinkOpenError::NoTunModule,
        Some(libc::EPERM | libc::EACCES) => LinkOpenError::NotPermitted {
            what: format!("open the TAP device `{name}`"),
            capability: "cap_net_admin",
        },
        _ => LinkOpenError::System {
            call: "open",
            name: name.to_owned(),
            source,
        },
    }
}

/// An address beside the kernel's, which is a random one of local meaning.
const fn neighbour_of(kernel: MacAddr) -> MacAddr {
    let [a, b, c, d, e, f] = kernel.0;
    MacAddr([a | 2, b, c, d, e, f ^ 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_a_sentence_with_its_remedy() {
        for (errno, words) in [
            (libc::ENOENT, "mknod /dev/net/tun c 10 200"),
            (libc::ENODEV, "modprobe tun"),
            (libc::EPERM, "setcap cap_net_admin+ep"),
            (libc::EACCES, "open the TAP device `t0`"),
            (libc::EMFILE, "open for the interface `t0`"),
        ] {
            let sentence = open_error("t0", Error::from_raw_os_error(errno)).to_string();
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn options_out_of_range_are_refused_before_anything_is_opened() {
        let with = |change: fn(&mut TapOptions)| {
            let mut options = TapOptions::new("tap0");
            change(&mut options);
            TapLink::open(&options).expect_err("out of range")
        };
        assert!(matches!(
            with(|o| o.batch = 0),
            LinkOpenError::Batch { batch: 0 }
        ));
        assert!(matches!(
            with(|o| o.name.clear()),
            LinkOpenError::Name { .. }
        ));
    }
}
