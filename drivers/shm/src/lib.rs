//! Shared-memory fabric: single-producer single-consumer rings between reactors of one machine.
