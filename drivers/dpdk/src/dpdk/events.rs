//! What a device reports from DPDK's own thread: that its link changed, and that it wants to be reset.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use ionian_dpdk_sys as sys;

use super::gate::Gate;

/// Where the callbacks of one port leave their word. Its address is given to DPDK, so it stands in a box of its own.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The link changed since this was last cleared.
    pub(super) link: AtomicBool,
    /// Stops the links of the port for a reset.
    pub(super) gate: Gate,
}

/// The events that are listened to.
const KINDS: [sys::rte_eth_event_type; 2] =
    [sys::RTE_ETH_EVENT_INTR_LSC, sys::RTE_ETH_EVENT_INTR_RESET];

impl Events {
    /// Listens to a port. Returns the first error number that is not 0.
    ///
    /// # Safety
    ///
    /// `self` stays where it is until [`Events::unregister`] returned.
    pub(super) unsafe fn register(&self, port: u16) -> i32 {
        for kind in KINDS {
            let argument = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
            // SAFETY: the function has the type that DPDK calls, and its argument stays, by the caller's promise.
            let result =
                unsafe { sys::rte_eth_dev_callback_register(port, kind, Some(on_event), argument) };
            if result != 0 {
                return result;
            }
        }
        0
    }

    /// Listens no more. When it returns no callback runs or will run.
    pub(super) fn unregister(&self, port: u16) {
        for kind in KINDS {
            let argument = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
            // SAFETY: the same function and argument as when it was registered.
            while unsafe {
                sys::rte_eth_dev_callback_unregister(port, kind, Some(on_event), argument)
            } == -libc::EAGAIN
            {
                // It runs right now.
                std::thread::yield_now();
            }
        }
    }
}

/// Called by DPDK's interrupt thread, and by whoever injects an event.
unsafe extern "C" fn on_event(
    _port: u16,
    kind: sys::rte_eth_event_type,
    argument: *mut c_void,
    _result: *mut c_void,
) -> i32 {
    // SAFETY: the argument is that of `register`: an `Events` that stays where it is while it is registered. It is shared and holds
    // atomics only.
    let events = unsafe { &*argument.cast::<Events>() };
    match kind {
        sys::RTE_ETH_EVENT_INTR_LSC => events.link.store(true, Ordering::Release),
        sys::RTE_ETH_EVENT_INTR_RESET => events.gate.ask(),
        _ => {}
    }
    0
}
