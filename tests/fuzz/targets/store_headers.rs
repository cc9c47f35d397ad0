//! The fixed blocks of a store: superblock, chunk header, checkpoint header, journal entry.
//!
//! Holds: no input panics; what parses is written back as the same value; and checksums that are made right are accepted
//! or refused for the fields, so that the search gets behind them.
#![no_main]

use ionian_store::format::{
    CHECKPOINT_HEADER_BYTES, CHUNK_HEADER_BYTES, CheckpointHeader, CheckpointPlan, ChunkHeader,
    JournalEntry, SUPERBLOCK_BYTES, Superblock,
};
use ionian_wire::crc::crc32c;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    let _ = Superblock::parse(*kind, &bytes);
    let _ = ChunkHeader::parse(&bytes);
    let _ = CheckpointHeader::parse(&bytes);
    let _ = JournalEntry::new_checked(&bytes);
    match kind % 3 {
        0 => superblock(&mut bytes),
        1 => chunk(&mut bytes),
        _ => checkpoint(&mut bytes),
    }
});

/// Puts magic and checksum into the first `len` bytes; false if there are not so many.
fn seal(bytes: &mut [u8], magic: &[u8; 8], len: usize) -> bool {
    let Some(bytes) = bytes.get_mut(..len) else {
        return false;
    };
    bytes[..8].copy_from_slice(magic);
    let crc = crc32c(&bytes[..len - 4]);
    bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
    true
}

fn superblock(bytes: &mut [u8]) {
    if !seal(bytes, b"IonSuper", SUPERBLOCK_BYTES) {
        return;
    }
    let copy = bytes[10];
    if let Ok(superblock) = Superblock::parse(copy, bytes) {
        let mut written = [0; SUPERBLOCK_BYTES];
        superblock.emit(copy, &mut written);
        assert_eq!(Superblock::parse(copy, &written), Ok(superblock));
    }
}

fn chunk(bytes: &mut [u8]) {
    if !seal(bytes, b"IonChunk", CHUNK_HEADER_BYTES) {
        return;
    }
    if let Ok(header) = ChunkHeader::parse(bytes) {
        let mut written = [0; CHUNK_HEADER_BYTES];
        header.emit(&mut written);
        assert_eq!(ChunkHeader::parse(&written), Ok(header));
    }
}

fn checkpoint(bytes: &mut [u8]) {
    if !seal(bytes, b"IonCheck", CHECKPOINT_HEADER_BYTES) {
        return;
    }
    if let Ok(header) = CheckpointHeader::parse(bytes) {
        let mut written = [0; CHECKPOINT_HEADER_BYTES];
        header.emit(&mut written);
        assert_eq!(CheckpointHeader::parse(&written), Ok(header));
        let plan = CheckpointPlan {
            block_bytes: 4096,
            body_bytes: header.body_bytes.min(1 << 40),
        };
        assert!(plan.file_bytes() >= plan.body_at(1));
    }
}
