//! Each invariant with the smallest history that violates it and one close to it that does not, written by hand.

mod lines;
mod order;
mod seen;
mod streams;
mod world;
