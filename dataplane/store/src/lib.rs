//! Segment storage as a machine that emits block operations: write-once cells, group commit, recovery, trim.
