//! What vertices of the ordering tree have in common (ORDERING.md, LEAF, AGGREGATOR, ROOT LEADER): an edge has a parent's side
//! (`link`) and a child's side (`uplink`, `rounds`). The root has links, a leaf has an uplink, an aggregator has both.

pub(crate) mod link;
pub(crate) mod marks;
pub(crate) mod rounds;
#[cfg(test)]
mod tests;
pub(crate) mod uplink;

pub use link::ChildStatus;
