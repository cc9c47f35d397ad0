//! Options and counters of a link.

use std::net::SocketAddr;

use ionian_ether::MacAddr;

use crate::error::XdpOpenError;

/// Who moves the bytes between the device and the frames shared with the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// The kernel copies, and a send is one system call per burst. Works on every interface.
    #[default]
    Copy,
    /// The device reads and writes the frames itself. Only where its driver can; never silently replaced by copying.
    ZeroCopy,
}

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpAttach {
    /// In the kernel's stack, after it has made its own buffer of the frame ("generic", "skb"). Works on every interface.
    #[default]
    Skb,
    /// In the device's driver, before ("native", "drv"). Only where the driver can.
    Native,
}

/// How to open a link on one receive queue of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpOptions {
    /// The interface, by name, in the network namespace of the thread that opens.
    pub interface: String,
    /// The receive queue, from 0. Frames for us that the device puts into other queues go to the kernel: a device of
    /// several queues is told to use this one (`ethtool -L INTERFACE combined 1`, or a rule of `ethtool -N`).
    pub queue: u32,
    /// Who copies.
    pub mode: XdpMode,
    /// Where the program runs; zero-copy needs [`XdpAttach::Native`].
    pub attach: XdpAttach,
    /// Our address and UDP port: frames for them, and questions for the address, come to the link; everything else goes
    /// to the kernel. The kernel must not have the address itself, or both would answer for it.
    pub local: SocketAddr,
    /// Our address on the Ethernet; `None` takes the interface's. With another one a device that filters by address is told
    /// to take all frames (`ip link set dev INTERFACE promisc on`).
    pub mac: Option<MacAddr>,
    /// Frames carry the tag of this VLAN, 1 to 4094; without it they carry none.
    pub vlan: Option<u16>,
    /// Frames that wait for the reactor at most, a power of two, 64 to 65,536. More ride out longer pauses of the reactor.
    pub rx_frames: u32,
    /// Frames on their way out at most, a power of two, 64 to 65,536.
    pub tx_frames: u32,
    /// Frames of one call, 1 to 1024.
    pub batch: usize,
    /// Let the kernel say when it must be woken by a call. Without it, a device in zero-copy mode polls on its own.
    pub need_wakeup: bool,
}

impl XdpOptions {
    /// A link on queue 0 that works on every interface: copy mode, program in the stack, 1,024 frames each way.
    #[must_use]
    pub fn new(interface: &str, local: SocketAddr) -> Self {
        Self {
            interface: interface.to_owned(),
            queue: 0,
            mode: XdpMode::Copy,
            attach: XdpAttach::Skb,
            local,
            mac: None,
            vlan: None,
            rx_frames: 1024,
            tx_frames: 1024,
            batch: 64,
            need_wakeup: true,
        }
    }

    /// Checks what can be checked without asking the system.
    pub(crate) fn check(&self) -> Result<(), XdpOpenError> {
        let fail = |key, value: u64, permitted| {
            Err(XdpOpenError::Option {
                key,
                value,
                permitted,
            })
        };
        let frames = |count: u32| count.is_power_of_two() && (64..=65_536).contains(&count);
        if !frames(self.rx_frames) {
            let permitted = "a power of two from 64 to 65536";
            return fail("rx_frames", self.rx_frames.into(), permitted);
        }
        if !frames(self.tx_frames) {
            let permitted = "a power of two from 64 to 65536";
            return fail("tx_frames", self.tx_frames.into(), permitted);
        }
        if !(1..=1024).contains(&self.batch) {
            return fail("batch", self.batch as u64, "1 to 1024");
        }
        if let Some(vlan) = self.vlan.filter(|id| !(1..=4094).contains(id)) {
            return fail("vlan", vlan.into(), "1 to 4094");
        }
        if self.local.port() == 0 {
            return fail("port", 0, "1 to 65535");
        }
        if self.mode == XdpMode::ZeroCopy && self.attach == XdpAttach::Skb {
            return Err(XdpOpenError::ZeroCopyInStack {
                interface: self.interface.clone(),
            });
        }
        Ok(())
    }
}

/// What a link counts besides [`LinkStats`](ionian_ether::LinkStats), and how it is now. Frames, unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpStats {
    /// Packets whose memory came back after sending: sent by the device, or dropped by it.
    pub tx_completed: u64,
    /// Packets whose memory the kernel has still to give back.
    pub tx_in_flight: u64,
    /// Calls that the device answered with "busy": it has dropped a packet, as one without a carrier does.
    pub tx_busy: u64,
    /// Packets lost because the interface was switched off or gone.
    pub tx_link_down: u64,
    /// Descriptors of the kernel, of received and of sent packets, that name no frame that it had: 0 on a correct kernel.
    pub invalid_descs: u64,
    /// The interface is switched off or has no carrier; what is sent is lost until that ends.
    pub link_down: bool,
    /// The interface is gone for good, or belongs to another namespace: the link must be opened anew.
    pub link_gone: bool,
    /// What the kernel counts.
    pub kernel: XdpKernelStats,
}

/// What the kernel counts for the socket (`struct xdp_statistics`), in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpKernelStats {
    /// Lost on receive because they were larger than a frame, or for want of memory.
    pub rx_dropped: u64,
    /// Lost because the receive ring was full.
    pub rx_ring_full: u64,
    /// Lost because no free frame waited in the fill ring: the reactor was away for too long.
    pub rx_fill_ring_empty: u64,
    /// Descriptors of ours that the kernel refused on receive: our own bug.
    pub rx_invalid_descs: u64,
    /// Descriptors of ours that the kernel refused on sending: our own bug.
    pub tx_invalid_descs: u64,
}
