//! The part that calls DPDK.

mod eal;
mod events;
mod gate;
mod link;
mod log;
mod mbufs;
mod open;
mod port;
mod rings;

pub use eal::{Eal, RegisteredThread};
pub use link::DpdkLink;
pub use port::PortStats;

use std::ffi::CStr;

use ionian_dpdk_sys as sys;

/// DPDK's words for an error number, its sign taken away.
fn words(errno: i32) -> String {
    let errno = errno.unsigned_abs();
    // SAFETY: the call takes a number; it answers for every number.
    let text = unsafe { sys::rte_strerror(i32::try_from(errno).unwrap_or(0)) };
    if text.is_null() {
        return format!("error {errno}");
    }
    // SAFETY: a text that ends in a zero, in memory of this thread that the next such call reuses; it is copied at once.
    let text = unsafe { CStr::from_ptr(text) };
    format!("{} (error {errno})", text.to_string_lossy())
}

/// The error of the last call of this thread.
fn errno() -> i32 {
    // SAFETY: the call reads a variable of this thread.
    unsafe { sys::ionian_errno() }
}
