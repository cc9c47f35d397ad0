//! Raw bindings of libibverbs: what bindgen makes of `infiniband/verbs.h`, and nothing else.
//!
//! Empty without the feature `link`, so that a build of the whole workspace needs no C library. With it, the machine that
//! builds needs libibverbs, libclang and pkg-config, and the build fails with the command that installs them. The library
//! that is linked loads its providers (`mlx5`, `rxe`, ...) when the list of devices is asked for.
//!
//! Safety model: every function here is foreign and unsafe; `ionian-verbs` is the only user, and says at each call why the
//! call is sound.

#[cfg(feature = "link")]
#[allow(
    missing_docs,
    missing_debug_implementations,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::restriction
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

#[cfg(feature = "link")]
pub use bindings::*;
