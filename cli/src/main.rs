//! The `ionian` command.
#![forbid(unsafe_code)]

fn main() {}
