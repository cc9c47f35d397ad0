//! The deterministic world: virtual clock, network and disk around the shipped machines.
#![forbid(unsafe_code)]
