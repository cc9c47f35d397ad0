//! The header of a packet: what a session puts before messages.
