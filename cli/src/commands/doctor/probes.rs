//! Asks the kernel of this machine for what drivers need, and gives it back at once.

use std::fs::OpenOptions;
use std::io;

use ionian_runtime::{probe_io_uring, probe_packet_socket, probe_xdp_socket};

use super::facts::Probe;

fn answer<T>(result: io::Result<T>) -> Probe {
    match result {
        Ok(_) => Probe::Works,
        Err(error) => Probe::Refused(error.to_string()),
    }
}

/// Opening it makes no interface yet.
pub(super) fn tun() -> Probe {
    answer(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun"),
    )
}

pub(super) fn packet_socket() -> Probe {
    answer(probe_packet_socket())
}

pub(super) fn xdp_socket() -> Probe {
    answer(probe_xdp_socket())
}

pub(super) fn io_uring() -> Probe {
    answer(probe_io_uring())
}
