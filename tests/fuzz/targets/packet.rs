//! One packet of a session.
//!
//! Holds: no input panics; an accepted packet, written again from what was read, is the same bytes. The checksum is made
//! right first, so that the search gets behind it.
#![no_main]

use ionian_wire::crc::crc32c;
use ionian_wire::packet::{PacketPrefix, PacketView};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = PacketView::new_checked(data);
    let mut bytes = data.to_vec();
    bytes.extend(crc32c(data).to_le_bytes());
    let Ok(view) = PacketView::new_checked(&bytes) else {
        return;
    };
    let prefix = PacketPrefix::peek(&bytes).expect("an accepted packet has a prefix");
    let (first, second) = view.payload().split_at(view.payload().len() / 2);
    let mut again = vec![0; bytes.len()];
    let len = view
        .header()
        .emit(&prefix.to_bytes(), [first, second], &mut again);
    assert_eq!(len, Ok(bytes.len()));
    assert_eq!(again, bytes, "what is written is what was read");
});
