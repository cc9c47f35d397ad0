//! Tests of whole sessions: two ends in a deterministic world of faults, and single behaviours one by one.

mod properties;
mod world;
