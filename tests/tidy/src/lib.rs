//! Checks on the shape of the repository.
