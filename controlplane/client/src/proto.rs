//! The messages of the API and of the controllers' own protocol, as `proto/*.proto` says.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::all,
    clippy::missing_errors_doc,
    clippy::unwrap_used,
    clippy::use_self
)]

/// What operators and nodes say.
pub mod control {
    tonic::include_proto!("ionian.control.v1");
}

/// What controllers say to each other and keep on disk.
pub mod raft {
    tonic::include_proto!("ionian.raft.v1");
}

/// The protocol version of this build. A peer with a newer one is refused; the refusal says so on both sides.
pub const VERSION: u32 = 1;

/// Says why `version` is refused, if it is.
///
/// # Errors
/// The sentence.
pub fn check_version(who: &str, version: u32) -> Result<(), String> {
    if version == 0 {
        return Err(format!("{who} names no protocol version"));
    }
    if version > VERSION {
        return Err(format!(
            "{who} speaks version {version} of the controllers' protocol, this one at most {VERSION}: upgrade this one first"
        ));
    }
    Ok(())
}
