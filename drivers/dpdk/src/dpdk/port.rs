//! A port: what its links share, how it is configured, reset and closed.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ionian_dpdk_sys as sys;

use super::eal::{self, Inner};
use super::events::Events;
use super::log::Capture;
use super::mbufs::Mbufs;
use super::rings::Rings;
use crate::options::PortOptions;

/// What a port has seen and has. Counters are since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Buffers of the port in all. Both ports of a pair share theirs.
    pub mbufs: u32,
    /// Buffers that nobody holds now: neither a queue, nor a driver, nor a ring.
    pub mbufs_available: u32,
    /// Whether the link was up when it was last looked at.
    pub link_up: bool,
    /// Speed of the link in Mbit/s; 0 if it is down, 4,294,967,295 if the device does not know.
    pub link_mbps: u32,
    /// Times that the link was seen to go up.
    pub ups: u64,
    /// Times that the link was seen to go down.
    pub downs: u64,
    /// Resets that the device asked for and that brought it back.
    pub resets: u64,
    /// Resets after which the device did not start again: its links lose everything from then on.
    pub resets_failed: u64,
    /// Frames that waited for the device when it was reset, and were lost.
    pub reset_lost: u64,
    /// Flow rules that steer UDP ports to queues.
    pub flows: u64,
    /// Flow rules that the device has no means for.
    pub flows_unsupported: u64,
    /// Flow rules that the device refused for another reason.
    pub flows_refused: u64,
    /// Frames that the device lost because nobody took them in time or no buffer was free, by its own count.
    pub device_missed: u64,
    /// Frames that the device could not send or receive, by its own count.
    pub device_errors: u64,
}

/// How a port was made, to configure it again after a reset and to remove its device.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) options: PortOptions,
    /// Sizes of the queues, as the device rounded them.
    pub(super) rx_frames: u16,
    pub(super) tx_frames: u16,
    /// Checksums that the device computes and checks.
    pub(super) offloads: u32,
    /// The device reports changes of its link.
    pub(super) link_events: bool,
    /// Name of the virtual device, to be removed with the port.
    pub(super) vdev: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    link_up: AtomicBool,
    link_mbps: AtomicU32,
    ups: AtomicU64,
    downs: AtomicU64,
    resets: AtomicU64,
    resets_failed: AtomicU64,
    reset_lost: AtomicU64,
    flows_unsupported: AtomicU64,
    flows_refused: AtomicU64,
}

/// Flow rules of a port.
#[derive(Debug, Default)]
struct Flows(Vec<*mut sys::rte_flow>);

// SAFETY: handles that DPDK takes from any thread that has the control lock.
unsafe impl Send for Flows {}

/// What the links of a port share. Fields are dropped in the order in which they stand: rings before the buffers in them.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: u16,
    pub(super) setup: Setup,
    pub(super) events: Box<Events>,
    counters: Counters,
    flows: Mutex<Flows>,
    /// The device is closed.
    shut: bool,
    _rings: Option<Arc<Rings>>,
    pub(super) mbufs: Arc<Mbufs>,
    _eal: Arc<Inner>,
}

impl Port {
    /// Takes over a device, which is closed and removed when this is dropped, whatever else fails.
    pub(super) fn new(
        id: u16,
        setup: Setup,
        mbufs: Arc<Mbufs>,
        rings: Option<Arc<Rings>>,
        eal: Arc<Inner>,
    ) -> Self {
        Self {
            id,
            setup,
            events: Box::default(),
            counters: Counters::default(),
            flows: Mutex::default(),
            shut: false,
            _rings: rings,
            mbufs,
            _eal: eal,
        }
    }

    /// Configures queues, listens to events and starts. Returns what failed with its error number. The control lock is held.
    pub(super) fn bring_up(&self) -> Result<(), (&'static str, i32)> {
        self.configure()?;
        // SAFETY: the events stand in a box that lives as long as `self`, whose drop unregisters.
        let result = unsafe { self.events.register(self.id) };
        if result != 0 {
            return Err(("listening to events", result));
        }
        self.start()?;
        self.counters
            .link_up
            .store(self.look_at_link().0, Ordering::Relaxed);
        Ok(())
    }

    /// Queues, MTU and offloads of a stopped device.
    fn configure(&self) -> Result<(), (&'static str, i32)> {
        let Setup {
            options,
            rx_frames,
            tx_frames,
            offloads,
            link_events,
            ..
        } = &self.setup;
        // SAFETY: the port exists while `self` does; numbers only.
        let result = unsafe {
            sys::ionian_port_configure(
                self.id,
                options.queues,
                options.queues,
                options.mtu_bytes,
                *offloads,
                u32::from(*link_events),
            )
        };
        if result != 0 {
            return Err(("configuring", result));
        }
        for queue in 0..options.queues {
            // SAFETY: the queue is one of those configured; no options mean the device's own; the pool outlives the port.
            let result = unsafe {
                sys::rte_eth_rx_queue_setup(
                    self.id,
                    queue,
                    *rx_frames,
                    0,
                    std::ptr::null(),
                    self.mbufs.as_ptr(),
                )
            };
            if result != 0 {
                return Err(("setting up a receive queue", result));
            }
            // SAFETY: as above.
            let result = unsafe {
                sys::rte_eth_tx_queue_setup(self.id, queue, *tx_frames, 0, std::ptr::null())
            };
            if result != 0 {
                return Err(("setting up a transmit queue", result));
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<(), (&'static str, i32)> {
        // SAFETY: the port is configured.
        let result = unsafe { sys::rte_eth_dev_start(self.id) };
        if result != 0 {
            return Err(("starting", result));
        }
        if self.setup.options.promiscuous {
            // SAFETY: the port is started. A device that hears everybody in any case refuses it: no harm.
            unsafe { sys::rte_eth_promiscuous_enable(self.id) };
        }
        self.steer();
        Ok(())
    }

    /// Asks the device to send UDP ports to their queues. What it does not do is counted.
    fn steer(&self) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        for (queue, udp_port) in (0_u16..).zip(&self.setup.options.steer_udp) {
            for ipv6 in [0, 1] {
                let mut errno = 0;
                // SAFETY: the port is started, the queue is one of its queues, and the error has a place.
                let flow = unsafe {
                    sys::ionian_flow_udp(self.id, queue, *udp_port, ipv6, &raw mut errno)
                };
                if !flow.is_null() {
                    flows.0.push(flow);
                } else if errno == libc::ENOTSUP || errno == libc::ENOSYS {
                    self.counters
                        .flows_unsupported
                        .fetch_add(1, Ordering::Relaxed);
                } else {
                    self.counters.flows_refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The link as the device says: up or not, and Mbit/s. A device that cannot tell is up.
    fn look_at_link(&self) -> (bool, u32) {
        let mut mbps = u32::MAX;
        // SAFETY: the port exists while `self` does, and the speed has a place.
        let result = unsafe { sys::ionian_link(self.id, &raw mut mbps) };
        (result != 0, if result == 0 { 0 } else { mbps })
    }

    /// Looks at the link and counts a change. Says whether it is up. May ask the system.
    #[cold]
    pub(super) fn refresh_link(&self) -> bool {
        self.events.link.store(false, Ordering::Release);
        let (up, mbps) = self.look_at_link();
        self.counters.link_mbps.store(mbps, Ordering::Relaxed);
        let was = self.counters.link_up.swap(up, Ordering::AcqRel);
        if was && !up {
            self.counters.downs.fetch_add(1, Ordering::Relaxed);
        } else if !was && up {
            self.counters.ups.fetch_add(1, Ordering::Relaxed);
        }
        up
    }

    pub(super) fn link_up(&self) -> bool {
        self.counters.link_up.load(Ordering::Relaxed)
    }

    pub(super) fn add_reset_lost(&self, frames: u64) {
        self.counters
            .reset_lost
            .fetch_add(frames, Ordering::Relaxed);
    }

    /// Stops the device, resets it where it knows how, and starts it again. All links have parked. Takes as long as the device takes.
    #[cold]
    pub(super) fn reset(&self) {
        let _control = eal::control();
        // SAFETY: no link uses the device, by the gate.
        unsafe { sys::rte_eth_dev_stop(self.id) };
        // SAFETY: as above.
        let result = unsafe { sys::rte_eth_dev_reset(self.id) };
        let again = if result == 0 {
            // The device has forgotten its queues and rules.
            self.flows
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .clear();
            self.configure()
        } else {
            // Most virtual devices have no reset of their own; they keep what was configured.
            Ok(())
        };
        let ok = again.and_then(|()| self.start()).is_ok();
        let counter = if ok {
            &self.counters.resets
        } else {
            &self.counters.resets_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.events.gate.done(ok);
    }

    /// Frames that the device missed and failed on, by its own count.
    pub(super) fn device_counts(&self) -> (u64, u64) {
        let (mut missed, mut errors) = (0, 0);
        // SAFETY: the port exists while `self` does, and both have places, which are left alone at an error.
        unsafe { sys::ionian_counts(self.id, &raw mut missed, &raw mut errors) };
        (missed, errors)
    }

    pub(super) fn stats(&self) -> PortStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (device_missed, device_errors) = self.device_counts();
        let link_up = self.refresh_link();
        PortStats {
            mbufs: self.mbufs.count(),
            mbufs_available: self.mbufs.available(),
            link_up,
            link_mbps: counters.link_mbps.load(Ordering::Relaxed),
            ups: read(&counters.ups),
            downs: read(&counters.downs),
            resets: read(&counters.resets),
            resets_failed: read(&counters.resets_failed),
            reset_lost: read(&counters.reset_lost),
            flows: self
                .flows
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .len() as u64,
            flows_unsupported: read(&counters.flows_unsupported),
            flows_refused: read(&counters.flows_refused),
            device_missed,
            device_errors,
        }
    }
}

impl Port {
    /// Stops, closes and removes the device. The control lock is held.
    fn shut(&mut self) {
        self.events.unregister(self.id);
        let flows = self.flows.get_mut().unwrap_or_else(PoisonError::into_inner);
        for flow in flows.0.drain(..) {
            // SAFETY: a rule of this port that was not destroyed yet.
            unsafe { sys::ionian_flow_destroy(self.id, flow) };
        }
        // SAFETY: every link of the port is gone: they hold `self` by a counted reference.
        unsafe { sys::rte_eth_dev_stop(self.id) };
        // SAFETY: as above. The number may be another device's afterwards, and is not used again.
        unsafe { sys::rte_eth_dev_close(self.id) };
        let name = self.setup.vdev.as_deref().map(CString::new);
        if let Some(Ok(name)) = name {
            // SAFETY: both texts end in a zero; the device's port is closed.
            unsafe { sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), name.as_ptr()) };
        }
        self.shut = true;
    }

    /// Closes the port where the control lock is held already.
    pub(super) fn close_locked(mut self) {
        self.shut();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.shut {
            return;
        }
        let _control = eal::control();
        let _capture = Capture::begin();
        self.shut();
    }
}
