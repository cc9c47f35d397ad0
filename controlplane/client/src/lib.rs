//! The way to the controllers: certificates and names, mutual TLS, the API's messages, a client that follows the leader.
//!
//! Processes of the data plane use this crate without the server's: [`identity`] says who somebody is, [`tls`] makes both ends
//! of a connection, [`proto`] holds the messages, [`Client`] calls and attaches.
#![forbid(unsafe_code)]

mod attach;
mod client;
pub mod connect;
pub mod identity;
pub mod proto;
pub mod refusal;
pub mod tls;

pub use prost::bytes::Bytes;

pub use attach::{Attachment, Incoming, SendError, Wake};
pub use client::{CONTROLLERS_MAX, Client, ClientConfig, ClientError};
pub use refusal::{Refusal, Why};
