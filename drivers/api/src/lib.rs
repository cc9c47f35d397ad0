//! Driver traits: packet devices, fabrics, one-sided writes, block queues, clocks, and their middleware.
