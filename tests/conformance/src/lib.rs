//! The conformance suite: one list of cases, run the same way over every network backend that opens here.
//!
//! What the protocol relies on is the contract of [`Fabric`](ionian_driver_api::Fabric) and
//! [`OneSided`](ionian_driver_api::OneSided): messages whole, once and in order, backpressure that hands the buffer back,
//! closes that are told once, regions fenced by epoch, every buffer accounted for. A backend of datagrams gets there by the session
//! layer that ships ([`sessions`]), so the same cases run over it, with its losses made by the middleware and healed by the
//! sessions; what is promised of its datagrams alone has [cases of its own](cases::PACKET_CASES).
//!
//! | part | what |
//! |---|---|
//! | [`subject`] | what a backend must bring: ends, connections, faults, hostile bytes |
//! | [`backends`] | the backends by name, which of them must run, and their factories |
//! | [`ground`] | ends with their pools and counts, and how far a case may wait |
//! | [`flow`] | numbered messages from one end to another, and what came of them |
//! | [`cases`] | the cases |
//! | [`defect`] | backends broken on purpose: the suite must find each |
//! | [`run`] | runs cases over backends and compares their counts |
//!
//! Time is counted in rounds of polling, not read from a clock: sessions live in a time that moves on by the same amount with each
//! poll. So a case ends after the same number of rounds on any machine; a clock is only the last bound.
#![forbid(unsafe_code)]

pub mod backends;
pub mod cases;
pub mod defect;
pub mod flow;
pub mod ground;
pub mod long;
pub mod run;
pub mod sessions;
pub mod subject;
