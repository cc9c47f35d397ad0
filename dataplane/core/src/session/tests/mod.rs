//! Tests of whole sessions: two ends in a deterministic world of faults, and single behaviours one by one.

mod acks;
mod hostile;
mod liveness;
mod pair;
mod properties;
mod recovery;
mod saturation;
mod world;
