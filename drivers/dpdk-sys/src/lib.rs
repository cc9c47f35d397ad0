//! Raw bindings to an installed DPDK, found by pkg-config as `libdpdk`, 22.11 or newer.
//!
//! Without the feature `link` this crate is empty and its build script does nothing, so that the workspace builds where no DPDK is.
//! With it, the functions on a short list are bound by bindgen; what DPDK has as inline functions, macros, or structures that differ
//! between releases is behind `c/shim.h`. Nothing here is safe to call: `ionian-dpdk` is the crate to use.
#![cfg_attr(
    feature = "link",
    allow(
        missing_docs,
        missing_debug_implementations,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::pedantic,
        clippy::ptr_as_ptr,
        clippy::use_self,
        clippy::undocumented_unsafe_blocks,
        clippy::multiple_unsafe_ops_per_block,
        rustdoc::all,
        reason = "written by bindgen from the installed headers"
    )
)]

#[cfg(feature = "link")]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
