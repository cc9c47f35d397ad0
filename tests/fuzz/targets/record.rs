//! One record, as a client sends it and as a disk returns it.
//!
//! Holds: no input panics; a header that parses is written back as the same bytes but for what is reserved; and a record
//! whose two checksums are made right is accepted, so that the search gets behind them.
#![no_main]

use ionian_wire::crc::crc32c;
use ionian_wire::record::{RECORD_HEADER_BYTES, RecordHeader, RecordView, Records, parse_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let untouched =
        Records::sealed(data).flatten().count() + Records::unplaced(data).flatten().count();
    assert!(untouched <= data.len());
    let Ok(parsed) = parse_header(data) else {
        return;
    };
    let Some(payload) =
        data.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + parsed.payload_bytes as usize)
    else {
        assert!(
            RecordView::new_unsealed(data).is_err(),
            "a record longer than its bytes"
        );
        return;
    };
    let header = RecordHeader {
        payload_crc: crc32c(payload),
        ..parsed
    };
    let mut bytes = data.to_vec();
    header.emit(&mut bytes);
    assert_eq!(
        parse_header(&bytes),
        Ok(header),
        "what is written is what is read"
    );
    if bytes.len() < header.encoded_bytes() {
        assert!(
            RecordView::new_checked(&bytes).is_err(),
            "the padding is missing"
        );
        return;
    }
    let view = RecordView::new_checked(&bytes).expect("a sealed record is accepted");
    assert_eq!((view.header(), view.payload()), (&header, payload));
});
