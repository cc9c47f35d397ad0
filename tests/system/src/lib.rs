//! System tests over real processes.
#![forbid(unsafe_code)]
