//! The network profile that a configuration names: one that comes with the program, or a file of one's own.

use std::net::SocketAddr;
use std::path::Path;

use ionian_runtime::{Backend, NicProfile, nearest};

use super::NetworkConfig;
use crate::udp::PortOptions;

/// The largest IP packet where both ends are on one machine.
const LOOPBACK_MTU: u32 = 65_535;
/// The profile without which nothing works.
pub(super) const DEFAULT: &str = "udp";

/// What a backend does in this build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendUse {
    /// It joins processes.
    Processes,
    /// It joins the threads of one process, whatever the profile is.
    Threads,
    /// It is not part of this build.
    Absent,
}

/// What a backend does in this build.
#[must_use]
pub const fn backend_use(backend: Backend) -> BackendUse {
    match backend {
        Backend::Udp => BackendUse::Processes,
        Backend::Shm => BackendUse::Threads,
        _ => BackendUse::Absent,
    }
}

/// Finds a profile by what a configuration calls it: the name of one that comes with the program, or the path of a file
/// that ends with `.toml`, from `folder`.
///
/// # Errors
/// A sentence that goes on after the name of the option: what is wrong, and where in the profile's file.
pub fn find_profile(name: &str, folder: &Path) -> Result<NicProfile, String> {
    if name.ends_with(".toml") {
        let file = folder.join(name);
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("names {shown}, which cannot be read: {error}"))?;
        return NicProfile::parse(&shown, &text)
            .map_err(|error| format!("names a profile that is wrong: {error}"));
    }
    NicProfile::builtin(name).ok_or_else(|| {
        let known: Vec<&str> = NicProfile::builtin_names().collect();
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map_or_else(String::new, |hint| format!(" (did you mean {hint}?)"));
        format!(
            "is {name:?}: there is no such profile{hint}; use one of {}, or the path of a file that ends with .toml",
            known.join(", ")
        )
    })
}

/// Finds a profile, and what to use in its place where this build does not have its backend.
///
/// # Errors
/// A sentence that says what is wrong, and where in the profile's file.
pub(super) fn load(name: &str, folder: &Path) -> Result<NetworkConfig, String> {
    let wanted = find_profile(name, folder)?;
    if joins_processes(&wanted) {
        return Ok(NetworkConfig {
            profile: wanted,
            fallback_from: None,
            mtu: None,
        });
    }
    let fallbacks = wanted
        .fallback
        .iter()
        .filter_map(|name| NicProfile::builtin(name));
    let usable = fallbacks.into_iter().find(joins_processes);
    let (name, backend) = (&wanted.name, &wanted.backend);
    match usable {
        Some(profile) => Ok(NetworkConfig {
            profile,
            fallback_from: Some(wanted.name),
            mtu: None,
        }),
        None => Err(format!(
            "is {name}, whose backend {backend} joins no processes in this build: use {DEFAULT}, or allow it in the profile's `fallback`"
        )),
    }
}

fn joins_processes(profile: &NicProfile) -> bool {
    backend_use(profile.backend) == BackendUse::Processes
}

impl Default for NetworkConfig {
    /// The profile that works everywhere.
    fn default() -> Self {
        Self {
            profile: NicProfile::builtin(DEFAULT).expect("built-in profiles are tested"),
            fallback_from: None,
            mtu: None,
        }
    }
}

impl NetworkConfig {
    /// A port at an address, as the profile has it.
    #[must_use]
    pub fn port(&self, bind: SocketAddr) -> PortOptions {
        let path = if bind.ip().is_loopback() {
            LOOPBACK_MTU
        } else {
            u32::try_from(self.profile.mtu_bytes.value.min(u64::from(LOOPBACK_MTU)))
                .unwrap_or(LOOPBACK_MTU)
        };
        let mut port = PortOptions::new(bind, self.mtu.unwrap_or(path), &self.profile);
        if let Some(wanted) = &self.fallback_from {
            port.profile = format!("{}, the fallback of {wanted}", port.profile);
        }
        port
    }
}
