//! Roles wired to reactors, transports and devices.
#![forbid(unsafe_code)]
