//! Groups of controllers in one process, on loopback, with real certificates, files and connections.

mod certificates;
mod client;
mod group;
mod harness;
mod processes;
mod toy;
