//! The Ionian client library: blocking and async faces over the client machine.
#![forbid(unsafe_code)]
