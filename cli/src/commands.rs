//! The commands, one file each. `run` does what the command line says; what it does with a log stands apart, generic over
//! the link, so that tests run it against a cluster in memory.

pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod ca;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod controller;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod node;
pub(crate) mod read;
pub(crate) mod shard;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod transaction;
pub(crate) mod tree;
pub(crate) mod trim;
pub(crate) mod user;
pub(crate) mod view;
