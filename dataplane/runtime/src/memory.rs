//! Large blocks of memory come from the kernel and go back to it.
//!
//! A session has megabytes of buffers, most of which it never touches. Fresh from the kernel they cost nothing until they are
//! written. But once a large block was freed, the C library serves blocks of its size from the heap, where they are cleared by
//! hand: a process through which many sessions pass would spend a millisecond on each, and hold what they might use.
//!
//! # Safety model
//!
//! One call of the C library with two constants.

/// Blocks of at least this many bytes are mapped by themselves.
const LARGE_BYTES: i32 = 128 << 10;

/// Has large blocks mapped by themselves from now on, whatever was freed before. For a program to call when it begins; a library
/// has no say in how its process gets memory. Without effect where the C library is not glibc.
///
/// Source: mallopt(3), `M_MMAP_THRESHOLD`.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes plain numbers, and may be made at any time.
    unsafe {
        // 0 says that the value is not taken: then memory is as it would be without.
        let _ = libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
