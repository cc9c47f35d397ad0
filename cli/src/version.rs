//! What this build is: version, commit, features, and the formats that it speaks and writes.

use std::sync::LazyLock;

use ionian_wire::{DISK_VERSION, WIRE_VERSION};

/// The version alone.
pub(crate) const SHORT: &str = env!("CARGO_PKG_VERSION");
/// The commit, or "unknown".
pub(crate) const COMMIT: &str = env!("IONIAN_COMMIT");

static LONG: LazyLock<String> = LazyLock::new(|| {
    let features = features();
    format!(
        "{SHORT}\ncommit {COMMIT}\nfeatures {features}\nwire version {WIRE_VERSION}\ndisk version {DISK_VERSION}"
    )
});

/// Everything that `--version` prints after the name.
pub(crate) fn long() -> &'static str {
    &LONG
}

/// The features that were switched on when this was built.
const fn features() -> &'static str {
    "default"
}
