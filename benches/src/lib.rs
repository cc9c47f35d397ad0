//! Microbenchmarks.
#![forbid(unsafe_code)]
