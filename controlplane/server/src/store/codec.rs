//! A value on disk: a format byte, a CRC-32C of the rest, the message. Damage is found whatever the database checks.

use crc_fast::{CrcAlgorithm, Digest};
use prost::Message;

const FORMAT: u8 = 1;
const HEAD: usize = 5;

/// The CRC-32C of some parts, as if they lay back to back.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize() & u64::from(u32::MAX)).unwrap_or_default()
}

/// The value of `message` under `key`. The key is part of the checksum, so that a value in another's place is found.
pub(super) fn seal(key: &[u8], message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut value = Vec::with_capacity(HEAD + body.len());
    value.push(FORMAT);
    value.extend_from_slice(&crc32c(&[key, &[FORMAT], &body]).to_le_bytes());
    value.extend_from_slice(&body);
    value
}

/// The message in `value`.
///
/// # Errors
/// What is wrong with it, to follow the name of the value.
pub(super) fn unseal<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, String> {
    let Some((head, body)) = value.split_at_checked(HEAD) else {
        return Err(format!("is cut after {} bytes", value.len()));
    };
    if head[0] != FORMAT {
        return Err(format!("has the unknown format {}", head[0]));
    }
    let crc = crc32c(&[key, &head[..1], body]).to_le_bytes();
    if head[1..] != crc {
        return Err("has a wrong checksum".to_owned());
    }
    M::decode(body).map_err(|e| format!("cannot be read: {e}"))
}
