//! Opening ports: what is checked, in which order, and what each refusal means.

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use ionian_dpdk_sys as sys;
use ionian_ether::MacAddr;

use super::eal::{self, Eal};
use super::link::DpdkLink;
use super::log::Capture;
use super::mbufs::Mbufs;
use super::port::{Port, Setup};
use super::rings::{self, Rings};
use super::words;
use crate::error::OpenError;
use crate::options::{Device, PortOptions};
use crate::preflight;
use crate::vdev::{MemifRole, Vdev};

/// Numbers virtual devices, whose names must differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Both checksums that the layer above asks for together.
const TX_OFFLOADS: u32 = sys::IONIAN_OFFLOAD_TX_IPV4 | sys::IONIAN_OFFLOAD_TX_UDP;

/// Attempts at a queue that another AF_XDP socket has or a socket on which nobody listens, and the time between two of them.
const TRIES: u32 = 10;
const PAUSE_MS: i32 = 100;

impl Eal {
    /// Opens a port of a device and gives a link for each pair of its queues. The port is closed, and a virtual device removed, when
    /// the last of them is dropped. Takes tenths of a second; a second where another AF_XDP socket has the
    /// queue, or nobody listens on a memif client's socket.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with what to do. Effect: none.
    pub fn open(&self, device: &Device, options: &PortOptions) -> Result<Vec<DpdkLink>, OpenError> {
        // The kernel takes its time to let go of the queues of a process that ended, and a server to begin to listen.
        for _ in 1..TRIES {
            match self.try_open(device, options) {
                Err(OpenError::XdpBusy { .. } | OpenError::NoServer { .. }) => pause_ms(PAUSE_MS),
                other => return other,
            }
        }
        self.try_open(device, options)
    }

    fn try_open(&self, device: &Device, options: &PortOptions) -> Result<Vec<DpdkLink>, OpenError> {
        preflight::check(device, options, &self.inner.drivers)?;
        let _control = eal::control();
        let capture = Capture::begin();
        self.check_room(1)?;
        let room = match device {
            Device::Virtual(vdev) => vdev.room_bytes(options.mtu_bytes),
            // Ethernet header, two tags and a check sequence; the least is what most drivers want.
            Device::Pci(_) => (options.mtu_bytes + 14 + 8 + 4)
                .next_multiple_of(64)
                .max(2048),
        };
        let mbufs = Arc::new(Mbufs::new(&self.inner, options.mbufs, room)?);
        let (id, vdev) = match device {
            Device::Virtual(vdev) => {
                let (id, name) = self.plug(vdev, options, &capture)?;
                (id, Some(name))
            }
            Device::Pci(address) => (self.take_pci(address)?, None),
        };
        let opened = Opened {
            id,
            vdev,
            device: device.to_string(),
            // The kernel's side of a TAP interface has the address that the driver knows, so this side needs another one.
            own_mac: matches!(device, Device::Virtual(Vdev::Tap { .. })),
        };
        let result = self.links(opened, options, Arc::clone(&mbufs), None, &capture);
        match (device, result) {
            (
                Device::Virtual(Vdev::AfXdp {
                    interface,
                    start_queue,
                    ..
                }),
                Err(OpenError::Refused { said, .. }),
            ) if said.contains("Failed to create xsk socket") => {
                // The driver took buffers for a socket that never came to be, and forgot them.
                mbufs.give_up_missing();
                Err(OpenError::XdpBusy {
                    interface: interface.clone(),
                    queue: *start_queue,
                })
            }
            (
                Device::Virtual(Vdev::Memif {
                    role: MemifRole::Client,
                    socket,
                    ..
                }),
                Err(OpenError::Refused { said, .. }),
            ) if said.contains("Failed to connect socket") => Err(OpenError::NoServer {
                socket: socket.clone(),
            }),
            (_, result) => result,
        }
    }

    /// Opens two ports, each of which receives what the other sends, in this process. Their buffers are one pool.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with what to do. Effect: none.
    pub fn ring_pair(&self, options: &PortOptions) -> Result<[Vec<DpdkLink>; 2], OpenError> {
        options.check()?;
        preflight::check_driver(&self.inner.drivers, rings::DRIVER)?;
        let control = eal::control();
        let capture = Capture::begin();
        self.check_room(2)?;
        let room = (options.mtu_bytes + 14 + 4).next_multiple_of(64).max(2048);
        let mbufs = Arc::new(Mbufs::new(&self.inner, options.mbufs, room)?);
        let rings = Rings::new(&self.inner, &mbufs, options.queues, options.rx_frames)?;
        let rings = Arc::new(rings);
        let end = |index: usize| {
            let (id, name) = rings.port(&self.inner, index, &capture)?;
            let opened = Opened {
                id,
                vdev: Some(name),
                device: rings::DRIVER.to_owned(),
                own_mac: true,
            };
            self.links(
                opened,
                options,
                Arc::clone(&mbufs),
                Some(Arc::clone(&rings)),
                &capture,
            )
        };
        let near = end(0)?;
        match end(1) {
            Ok(far) => Ok([near, far]),
            Err(error) => {
                // Closing a port takes the lock.
                drop(capture);
                drop(control);
                drop(near);
                Err(error)
            }
        }
    }

    fn check_room(&self, ports: u16) -> Result<(), OpenError> {
        // SAFETY: DPDK runs while `self` lives.
        let open = unsafe { sys::rte_eth_dev_count_avail() };
        if u32::from(open) + u32::from(ports) > sys::RTE_MAX_ETHPORTS {
            return Err(OpenError::TooMany {
                most: sys::RTE_MAX_ETHPORTS,
            });
        }
        Ok(())
    }

    /// Finds the port of a PCI device that was not opened before.
    fn take_pci(&self, address: &str) -> Result<u16, OpenError> {
        let mut opened = self
            .inner
            .pci_opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let address = address.to_owned();
        if opened.contains(&address) {
            return Err(OpenError::PciAgain { address });
        }
        match find_port(&address) {
            Some(port) => {
                opened.push(address);
                Ok(port)
            }
            None => Err(OpenError::NoPci { address }),
        }
    }

    /// Makes a virtual device and finds its port.
    fn plug(
        &self,
        vdev: &Vdev,
        options: &PortOptions,
        capture: &Capture,
    ) -> Result<(u16, String), OpenError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number}", vdev.driver());
        let text = CString::new(name.as_str()).unwrap_or_default();
        let arguments = vdev.arguments(options.queues, options.mtu_bytes);
        let arguments = CString::new(arguments).unwrap_or_default();
        // SAFETY: DPDK runs; the texts end in a zero and are copied.
        let result = unsafe {
            sys::rte_eal_hotplug_add(c"vdev".as_ptr(), text.as_ptr(), arguments.as_ptr())
        };
        let port = if result == 0 { find_port(&name) } else { None };
        port.map(|port| (port, name)).ok_or_else(|| {
            let why = match result {
                0 => "it has no port".to_owned(),
                // Most drivers return this whatever is wrong; it is no error number.
                -1 => "no reason was given".to_owned(),
                _ => words(result),
            };
            OpenError::Refused {
                call: "making",
                device: vdev.to_string(),
                why,
                said: capture.last_words(),
            }
        })
    }

    /// Configures and starts a device and makes its links.
    fn links(
        &self,
        opened: Opened,
        options: &PortOptions,
        mbufs: Arc<Mbufs>,
        rings: Option<Arc<Rings>>,
        capture: &Capture,
    ) -> Result<Vec<DpdkLink>, OpenError> {
        let Opened {
            id,
            vdev,
            device,
            own_mac,
        } = opened;
        let setup = Setup {
            options: options.clone(),
            rx_frames: options.rx_frames,
            tx_frames: options.tx_frames,
            offloads: 0,
            link_events: false,
            vdev,
        };
        // From here on a failure closes the port.
        let mut port = Closing(Some(Port::new(
            id,
            setup,
            mbufs,
            rings,
            Arc::clone(&self.inner),
        )));
        let port = port.prepare(&device, capture)?;
        let mac = hardware_address(id)
            .filter(|mac| mac.is_unicast() && !own_mac)
            .unwrap_or_else(|| made_up_address(id));
        let port = Arc::new(port);
        port.events.gate.add_links(options.queues.into());
        Ok((0..options.queues)
            .map(|queue| DpdkLink::new(Arc::clone(&port), queue, mac))
            .collect())
    }
}

/// A device that was made and is not configured yet.
struct Opened {
    id: u16,
    vdev: Option<String>,
    device: String,
    own_mac: bool,
}

/// A port that is closed unless it is taken out, by who holds the control lock.
struct Closing(Option<Port>);

impl Closing {
    fn prepare(&mut self, device: &str, capture: &Capture) -> Result<Port, OpenError> {
        let refused = |call, result| OpenError::Refused {
            call,
            device: device.to_owned(),
            why: words(result),
            said: capture.last_words(),
        };
        let Some(port) = self.0.as_mut() else {
            return Err(refused("opening", 0));
        };
        let options = port.setup.options.clone();
        // SAFETY: integers and characters, for which zero bits are a value.
        let mut info: sys::ionian_port_info = unsafe { std::mem::zeroed() };
        // SAFETY: the port exists, and the description has a place.
        let result = unsafe { sys::ionian_port_info(port.id, &raw mut info) };
        if result != 0 {
            return Err(refused("describing", result));
        }
        let most = info.max_rx_queues.min(info.max_tx_queues);
        if u32::from(options.queues) > most {
            return Err(OpenError::Queues {
                device: device.to_owned(),
                asked: options.queues,
                most,
            });
        }
        if options.mtu_bytes < info.min_mtu || options.mtu_bytes > info.max_mtu {
            return Err(OpenError::Mtu {
                device: device.to_owned(),
                asked: options.mtu_bytes,
                least: info.min_mtu,
                most: info.max_mtu,
            });
        }
        if options.offload {
            port.setup.offloads = info.offloads;
            if info.offloads & TX_OFFLOADS != TX_OFFLOADS {
                // Half of it is of no use to the layer above.
                port.setup.offloads &= !TX_OFFLOADS;
            }
        }
        port.setup.link_events = info.link_events != 0;
        let Setup {
            rx_frames,
            tx_frames,
            ..
        } = &mut port.setup;
        // SAFETY: the port exists, and both numbers have places.
        let result = unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(
                port.id,
                std::ptr::from_mut(rx_frames),
                std::ptr::from_mut(tx_frames),
            )
        };
        if result != 0 {
            return Err(refused("sizing the queues", result));
        }
        port.bring_up()
            .map_err(|(call, result)| refused(call, result))?;
        self.0.take().ok_or_else(|| refused("opening", 0))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(port) = self.0.take() {
            port.close_locked();
        }
    }
}

/// Waits: there is no event for a queue of the kernel's that becomes free, nor for a socket that comes to be.
fn pause_ms(ms: i32) {
    // SAFETY: no descriptors are given, so that the call only waits.
    unsafe { libc::poll(std::ptr::null_mut(), 0, ms) };
}

/// The port of a device, by the device's name.
fn find_port(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut port = 0;
    // SAFETY: DPDK runs; the name ends in a zero, and the number has a place.
    let result = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) };
    (result == 0).then_some(port)
}

fn hardware_address(port: u16) -> Option<MacAddr> {
    let mut address = sys::rte_ether_addr { addr_bytes: [0; 6] };
    // SAFETY: the port exists, and the address has a place.
    let result = unsafe { sys::rte_eth_macaddr_get(port, &raw mut address) };
    (result == 0).then_some(MacAddr(address.addr_bytes))
}

/// An address of our own: random, and of the range that no manufacturer has. *Source*: IEEE 802, section 8.4.
fn made_up_address(port: u16) -> MacAddr {
    let mut bytes = [0_u8; 6];
    // SAFETY: the buffer is as long as the call is told. A call for so few bytes is not cut short; if it fails, process and port make
    // the difference.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read != 6 {
        let [a, b, _, _] = std::process::id().to_le_bytes();
        let [c, d] = port.to_le_bytes();
        bytes = [0, 0, a, b, c, d];
    }
    bytes[0] = (bytes[0] & !1) | 2;
    MacAddr(bytes)
}
