//! Frames and records on the wire and on disk: checked views, values, CRC-32C, versions.
//!
//! Every format has two faces. A *view* ([`frame`], [`record::RecordView`], [`entry::EntryView`]) borrows bytes that a
//! peer or a disk supplied; making one checks every length and every enumeration, so that no accessor can panic. A
//! *value* holds the fields decoded. Views are for untrusted input; emitting goes from values and never re-checks.
//!
//! All integers are little-endian. Nothing here allocates.
#![forbid(unsafe_code)]

pub mod codec;
pub mod crc;
pub mod directory;
pub mod entry;
pub mod frame;
pub mod grant;
pub mod growth;
pub mod packet;
pub mod record;
pub mod tree;

pub use codec::{Reader, WireError, Writer};

/// The version of the frame formats. A peer with another one is refused at the handshake.
pub const WIRE_VERSION: u16 = 2;
/// The version of the record, entry and superblock formats. A data directory with a newer one is refused.
pub const DISK_VERSION: u16 = 2;
