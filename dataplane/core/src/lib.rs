//! Sans-IO state machines of the ordering protocols.
