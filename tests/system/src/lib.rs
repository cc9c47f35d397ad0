//! System tests over real processes.
