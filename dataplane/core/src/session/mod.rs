//! The session layer: reliable FIFO messages over datagrams.
