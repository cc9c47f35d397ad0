//! Messages of a packet, back to back, with the tails that carry records, entries and the shards of a tree's edge.
//!
//! Holds: no input panics; a walk consumes what it accepts and ends after the first bad message.
#![no_main]

use ionian_wire::codec::Reader;
use ionian_wire::entry::{Changes, ShardEntry};
use ionian_wire::frame::{Message, Messages, ShardStart};
use ionian_wire::record::Records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bad = 0;
    for message in Messages::new(data) {
        match message {
            Ok(Message::Append(_, tail)) => assert!(Records::unplaced(tail).count() <= data.len()),
            Ok(Message::Replicate(_, tail) | Message::CopyData(_, tail)) => {
                assert!(Records::sealed(tail).count() <= data.len());
            }
            Ok(Message::Entries(_, tail)) => {
                let mut reader = Reader::new(tail);
                while ShardEntry::read(&mut reader).is_ok() {}
            }
            Ok(Message::Intent(_, tail)) => {
                if Changes::check(tail).is_ok() {
                    assert!(Changes::new(tail).count() <= tail.len());
                }
            }
            Ok(Message::EdgeStart(_, tail)) => {
                let mut reader = Reader::new(tail);
                while let Ok(start) = ShardStart::read(&mut reader) {
                    assert_eq!(start.members().count(), start.segments().count());
                }
            }
            Ok(other) => assert!(!other.name().is_empty()),
            Err(_) => bad += 1,
        }
    }
    assert!(bad <= 1, "a walk goes on over bad bytes");
});
