//! Pinned reactors, timers, idle ladder, buffer arenas, mailboxes, topology.
