//! What many seeds in one process do to memory: each makes and frees buffers of megabytes, and the allocator keeps them.
//!
//! The GNU allocator raises the size from which it takes memory from the system, and gives it back, as soon as something
//! large is freed. From then on large and small lie mixed in the heap of each thread, which grows to several times what the
//! largest seed needs, and every buffer is filled with zeros by hand. A size that is set stays.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The allocator's setting.
const SETTING: &str = "MALLOC_MMAP_THRESHOLD_";
/// Its value: bytes from which memory is taken from the system and given back to it.
const BYTES: &str = "131072";

/// Starts this program again in its own place with the setting, unless it has one. Without a new start the seeds run as
/// well, in more memory.
pub(crate) fn give_back_what_is_large() {
    if cfg!(not(target_env = "gnu")) || std::env::var_os(SETTING).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let arguments = std::env::args_os().skip(1);
    let error = Command::new(program)
        .args(arguments)
        .env(SETTING, BYTES)
        .exec();
    eprintln!("ionian-sim: it needs more memory, for it cannot be started again: {error}");
}
