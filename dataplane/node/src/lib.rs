//! Roles wired to reactors, transports and devices.
