//! One entry of the cut log, as a peer or a disk supplies it.
//!
//! Holds: no input panics; everything behind an accepted entry can be iterated; the records that a cut's growths count are
//! those between its two positions; a row counts no more than its cut. The checksum is made right first, so that the search gets behind it.
#![no_main]

use ionian_wire::Reader;
use ionian_wire::crc::crc32c_parts;
use ionian_wire::entry::{ENTRY_HEADER_BYTES, EntryBody, EntryView, ShardEntry};
use libfuzzer_sys::fuzz_target;

/// Where the checksum stands in the header.
const CRC_AT: usize = 28;

fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = EntryView::new_checked(data) {
        walk(entry);
    }
    if let Ok(ShardEntry::Cut(row)) = ShardEntry::read(&mut Reader::new(data)) {
        let ordered: u64 = row.items().map(|item| item.count()).sum();
        assert!(ordered > 0 && row.base.get() + ordered <= row.end_gsn.get());
    }
    let mut bytes = data.to_vec();
    if seal(&mut bytes).is_some()
        && let Ok(entry) = EntryView::new_checked(&bytes)
    {
        walk(entry);
    }
});

/// Writes the checksum over the length that the header claims.
fn seal(bytes: &mut [u8]) -> Option<()> {
    let len = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let entry = bytes.get_mut(..len as usize)?;
    let crc = crc32c_parts(entry.get(..CRC_AT)?, entry.get(ENTRY_HEADER_BYTES..)?);
    entry
        .get_mut(CRC_AT..ENTRY_HEADER_BYTES)?
        .copy_from_slice(&crc.to_le_bytes());
    Some(())
}

fn walk(entry: EntryView<'_>) {
    match entry.body {
        EntryBody::Cut(cut) => {
            let ordered: u64 = cut.growths().iter().map(|(_, growth)| growth).sum();
            assert_eq!(cut.end_gsn.checked_since(cut.start_gsn), Some(ordered));
            assert_eq!(entry.shards().count(), 0);
            assert!(cut.rounds().count() <= entry.encoded().len());
        }
        EntryBody::View(view) => {
            assert!(
                view.changes()
                    .filter_map(|change| change.shard())
                    .all(|shard| entry.names(shard))
            );
        }
        EntryBody::RootEpoch(epoch) => assert!(epoch.members().count() <= usize::from(u8::MAX)),
        EntryBody::Loss(loss) => assert!(loss.from <= loss.to && loss.to <= loss.end_gsn),
        EntryBody::Trim { .. } | EntryBody::Ceiling { .. } => {}
    }
}
