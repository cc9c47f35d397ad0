//! Two ports joined by rings of this process, for tests and for roles that share a process.
//!
//! The driver's own arguments can only make a port that hears itself, so its library is asked to make ports of given rings.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ionian_dpdk_sys as sys;

use super::eal::Inner;
use super::mbufs::Mbufs;
use super::{errno, log::Capture, words};
use crate::error::OpenError;
use crate::preflight;

/// The driver.
pub(super) const DRIVER: &str = "net_ring";

/// Makes a port of rings: name, receive rings and their number, transmit rings and their number, memory node.
/// *Source*: `rte_eth_ring.h`.
type FromRings = unsafe extern "C" fn(
    *const libc::c_char,
    *const *mut sys::rte_ring,
    libc::c_uint,
    *const *mut sys::rte_ring,
    libc::c_uint,
    libc::c_uint,
) -> libc::c_int;

/// The rings between two ports, one per queue and direction. Outlives both ports.
#[derive(Debug)]
pub(super) struct Rings {
    rings: Vec<NonNull<sys::rte_ring>>,
    /// What lies in the rings is of this pool.
    _mbufs: Arc<Mbufs>,
    _eal: Arc<Inner>,
}

// SAFETY: rings for many producers and consumers, used by DPDK's ports only; here they are made and removed.
unsafe impl Send for Rings {}
// SAFETY: as above.
unsafe impl Sync for Rings {}

/// Numbers rings and ports, whose names must differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Rings {
    /// Makes two rings of `frames` places for each of `queues`. The control lock is held.
    pub(super) fn new(
        eal: &Arc<Inner>,
        mbufs: &Arc<Mbufs>,
        queues: u16,
        frames: u16,
    ) -> Result<Self, OpenError> {
        let mut rings = Self {
            rings: Vec::new(),
            _mbufs: Arc::clone(mbufs),
            _eal: Arc::clone(eal),
        };
        for _ in 0..2 * queues {
            let name = format!("ionian{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let name = CString::new(name).unwrap_or_default();
            let places = u32::from(frames).next_power_of_two();
            // SAFETY: DPDK runs (`eal`); the name ends in a zero and is copied; the number of places is a power of two. Without
            // flags any number of threads may use both ends.
            let ring = unsafe { sys::rte_ring_create(name.as_ptr(), places, -1, 0) };
            let Some(ring) = NonNull::new(ring) else {
                return Err(OpenError::Memory {
                    mbufs: places,
                    bytes_each: 8,
                    memory_mib: eal.memory_mib,
                });
            };
            rings.rings.push(ring);
        }
        Ok(rings)
    }

    /// Makes the port of one end (0 or 1). Returns its number and the name of its device. The control lock is held.
    pub(super) fn port(
        &self,
        eal: &Inner,
        end: usize,
        capture: &Capture,
    ) -> Result<(u16, String), OpenError> {
        let refused = |call, why| OpenError::Refused {
            call,
            device: DRIVER.to_owned(),
            why,
            said: capture.last_words(),
        };
        let from_rings = from_rings(eal).map_err(|why| refused("loading", why))?;
        let half = self.rings.len() / 2;
        let pointers: Vec<*mut sys::rte_ring> = self.rings.iter().map(|r| r.as_ptr()).collect();
        let (mut rx, mut tx) = pointers.split_at(half);
        if end == 1 {
            std::mem::swap(&mut rx, &mut tx);
        }
        let name = format!("ionian{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let text = CString::new(name.as_str()).unwrap_or_default();
        let queues = u32::try_from(half).unwrap_or(0);
        // SAFETY: the function is that of the loaded driver; both arrays have `queues` rings, which outlive the port; the name ends
        // in a zero and is copied.
        let port =
            unsafe { from_rings(text.as_ptr(), rx.as_ptr(), queues, tx.as_ptr(), queues, 0) };
        match u16::try_from(port) {
            Ok(port) => Ok((port, format!("net_ring_{name}"))),
            Err(_) => Err(refused("making a port", words(errno()))),
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        for ring in &self.rings {
            // SAFETY: both ports are closed, so nobody else uses the ring; what is in it are buffers of a pool that still lives.
            unsafe { sys::ionian_drain(ring.as_ptr()) };
            // SAFETY: as above; it is freed once.
            unsafe { sys::rte_ring_free(ring.as_ptr()) };
        }
    }
}

/// Finds the driver's function. Its library was loaded by DPDK, so that this finds what is there already.
fn from_rings(eal: &Inner) -> Result<FromRings, String> {
    let path = preflight::driver_library(&eal.drivers, DRIVER)
        .ok_or_else(|| "its library is gone".to_owned())?;
    let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: the path ends in a zero. Loading runs the library's constructors, which DPDK has had done.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    let symbol: *mut c_void = if library.is_null() {
        library
    } else {
        // SAFETY: the library is loaded and stays so, because it is never closed here.
        unsafe { libc::dlsym(library, c"rte_eth_from_rings".as_ptr()) }
    };
    if symbol.is_null() {
        // SAFETY: the call answers a text, or nothing.
        let why = unsafe { libc::dlerror() };
        if why.is_null() {
            return Err("its library does not load".to_owned());
        }
        // SAFETY: a text that ends in a zero and stays until the next such call of this thread.
        let why = unsafe { CStr::from_ptr(why) };
        return Err(why.to_string_lossy().into_owned());
    }
    // SAFETY: the symbol is the function that `rte_eth_ring.h` declares with this type, unchanged since DPDK 2.
    Ok(unsafe { std::mem::transmute::<*mut c_void, FromRings>(symbol) })
}
