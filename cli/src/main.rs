//! The `ionian` command.

fn main() {}
