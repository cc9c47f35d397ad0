//! The end of a process by a device that failed: what is said of it, and a switch that brings it about.
//!
//! A store whose device refused a write, a flush, a new file or the removal of one is used no more: what its files hold is
//! known only to a new start, which reads them. So the process ends, as in a crash, before anything else is acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ionian_driver_api::BlockError;
use ionian_store::StoreFailure;

use crate::role::Place;

/// Why a process ended by itself: the store of a place has failed for good. Effect on what was not acknowledged: unknown, as
/// after a crash; what was acknowledged is where it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{place}: {failure} ({}{error}). Nothing was acknowledged after that, and the process ends as in a crash. If the device is \
     good, start it again: it goes on with what {} holds. If not, replace the device and {remedy}",
    at(.file.as_deref()),
    .folder.display()
)]
pub struct DeviceFailure {
    /// Whose store it is.
    pub place: Place,
    /// Where its files are.
    pub folder: PathBuf,
    /// The file that the operation was for; none for a flush, which is of all files.
    pub file: Option<String>,
    /// What the store says.
    pub failure: StoreFailure,
    /// What the device said.
    pub error: BlockError,
    /// What there is to do where nothing can be read any more.
    pub remedy: &'static str,
}

fn at(file: Option<&str>) -> String {
    file.map_or_else(String::new, |file| format!("file {file}: "))
}

/// What to do about a device from which nothing can be read any more. `copies` of the shard there are, this one included; 0
/// for the root.
pub(super) const fn remedy(copies: u8) -> &'static str {
    match copies {
        0 => {
            "put back what it held: nothing else holds the order of the log (with an empty folder all that the log holds is \
             declared lost)"
        }
        1 => {
            "put back what it held: the shard has no other replica (with an empty folder its records are lost)"
        }
        _ => {
            "start with an empty folder while another replica of the shard runs: all of it comes from there again"
        }
    }
}

/// Makes one flush of a process's devices fail. Clones are the same switch; it is off until [`Self::arm`].
#[derive(Clone, Debug, Default)]
pub struct FlushFault {
    /// Flushes until the one that fails, that one included; 0 for none.
    left: Arc<AtomicU64>,
}

impl FlushFault {
    /// The `count`-th flush that ends from now on fails; 1 is the next one, 0 is none.
    pub fn arm(&self, count: u64) {
        self.left.store(count, Ordering::Relaxed);
    }

    /// Whether the flush that has just ended is the one that failed.
    pub(super) fn takes(&self) -> bool {
        let next = |left: u64| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken == Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flush_that_was_chosen_fails_and_no_other() {
        let fault = FlushFault::default();
        let taken = |count: usize| (0..count).map(|_| fault.takes()).collect::<Vec<_>>();
        assert_eq!(taken(2), [false, false], "off");
        fault.clone().arm(3);
        assert_eq!(taken(5), [false, false, true, false, false]);
    }
}
