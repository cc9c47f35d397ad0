//! System tests over real processes, and what they are made of: the built `ionian` binary, clusters of its processes on
//! loopback, and a load that checks itself while they are killed.
//!
//! * [`Binary`] — the command under test; runs it with a limit of time.
//! * [`Process`] — one long-lived process: started, killed as by a crash, or asked to end.
//! * [`Cluster`] — the nodes of a cluster on loopback, each a process.
//! * [`governed::Governed`] — a cluster with three controllers, and the operators' commands.
//! * [`chaos`] — writers, kills and restarts, and the verdict on what was acknowledged.
//! * [`hostile`] — datagrams of strangers, and what they cost.
//!
//! Only processes started here are ever signalled, each by its own number. Waiting is for a condition with a deadline.
#![forbid(unsafe_code)]

mod binary;
pub mod chaos;
mod cluster;
mod disk;
pub mod governed;
pub mod hostile;
mod net;
mod process;
mod tool;

pub use binary::{Binary, Output};
pub use cluster::{Cluster, Durability};
pub use disk::{DiskKind, SmallDisk, flip_bits};
pub use net::{Cut, LossBy, Net};
pub use process::{Process, wait_until};
