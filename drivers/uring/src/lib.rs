//! Block queues over files: io_uring with O_DIRECT, a pwrite fallback, and memory.
