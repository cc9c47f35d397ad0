//! The rules, one file per subject. Each returns what it found; an empty list is a pass.

pub mod banned;
pub mod dependencies;
pub mod documents;
pub mod edges;
pub mod faults;
pub mod files;
pub mod fuzz;
pub mod leaks;
pub mod licences;
pub mod purity;
pub mod unsafety;
