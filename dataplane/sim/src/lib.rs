//! The deterministic world: virtual clock, network and disk around the shipped machines.
//!
//! [`World`] runs the whole of a cluster — controller, root, leaf, two shards of two or three replicas, clients — in one thread. The
//! machines are those that ship; only the edge is made here: connections, their delays and ends, lost datagrams, crashes,
//! pauses. Everything that happens follows from a seed and a [`Plan`]; what clients see and what the machines say is judged
//! against the raw cut log as it happens, and at the end by histcheck, which shares no code with the machines.
//!
//! ```text
//! warm-up -> faults until one has hit -> heal a core, which makes progress -> heal the rest -> enough work
//!         -> no new work, everything settles -> a last reader walks the log -> checks
//! ```
#![forbid(unsafe_code)]

pub mod app;
mod atlas;
pub mod both;
mod changes;
mod checks;
pub mod clocks;
mod controllers;
mod copies;
mod devices;
pub mod disk;
mod edges;
mod faults;
pub mod grants;
pub mod history;
pub mod invariant;
pub mod legal_core;
pub mod lives;
pub mod minimise;
pub mod mutants;
pub mod net;
pub mod plan;
mod plan_text;
pub mod process;
pub mod recorder;
pub mod reference;
pub mod rng;
pub mod steps;
mod storage;
mod storms;
pub mod swarm;
mod trace;
mod tree_faults;
mod trees;
pub mod weather;
mod wires;
pub mod world;
mod zombies;

pub use invariant::{Invariant, Violation};
pub use plan::{FAULTS, Fault, FaultCounts, Network, Plan};
pub use trees::VertexPlan;
pub use world::{Failure, Report, World};
