//! A chunk from a device: entries with right marks and checksums, or not, at any offset, and noise.
//!
//! The input is a list of steps that put things into the chunk. Holds: no chunk panics; one place per position; what is
//! found lies in the chunk, in order, without overlap, and checks without its mark.
#![no_main]

use ionian_store::format::{
    Framing, JOURNAL_MAGIC, JournalEntry, ScanPlan, journal_encoded_bytes, mark, scan,
};
use ionian_types::{
    ClientId, ClientSeq, GuardEpoch, LogId, Lsn, NsEpoch, SegmentId, SessionNo, ShardId, Slot,
    ViewId,
};
use ionian_wire::crc::crc32c;
use ionian_wire::record::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordView, encoded_bytes,
};
use libfuzzer_sys::fuzz_target;

const CHUNK_BYTES: usize = 4096;
const STAMP: u64 = 0x1234_5678_9abc_def0;
const SEGMENT: SegmentId = SegmentId {
    shard: ShardId::new(3),
    slot: Slot::new(1),
};

fuzz_target!(|data: &[u8]| {
    let mut steps = Steps { rest: data };
    let framing = if steps.byte().is_multiple_of(2) {
        Framing::Records
    } else {
        Framing::Journal
    };
    let first = u64::from(steps.byte());
    let limit = match steps.byte() {
        255 => u64::MAX,
        more => first + u64::from(more),
    };
    let mut bytes = vec![0u8; CHUNK_BYTES];
    while !steps.rest.is_empty() {
        put(&mut steps, framing, &mut bytes);
    }
    let plan = ScanPlan {
        framing,
        log: LogId::new(7),
        segment: SEGMENT,
        stamp: STAMP,
        from: 512,
        to: 3584,
        first,
        limit,
        complete: limit != u64::MAX,
    };
    let mut places = Vec::new();
    let found = scan(&plan, &mut bytes, &mut places);
    assert_eq!(places.len() as u64, found.end - first, "a place for each");
    assert!(found.end <= limit && found.used <= plan.to);
    let mut end = plan.from;
    for (at, place) in places.iter().enumerate() {
        assert!(place.offset() >= end || place.is_damaged(), "in order");
        if place.is_damaged() {
            continue;
        }
        let entry = &bytes[place.offset() as usize..plan.to as usize];
        let (pos, len) = match framing {
            Framing::Records => {
                let view = RecordView::new_checked(entry).expect("what is found checks");
                (view.header().position.get(), view.encoded().len())
            }
            Framing::Journal => {
                let entry = JournalEntry::new_checked(entry).expect("what is found checks");
                (entry.number, entry.encoded_bytes())
            }
        };
        assert_eq!(pos, first + at as u64, "at its position");
        end = place.offset() + len as u32;
        assert!(end <= plan.to, "inside the chunk");
    }
    assert_eq!(end.max(plan.from), found.used);
});

/// Puts one thing somewhere.
fn put(steps: &mut Steps<'_>, framing: Framing, bytes: &mut [u8]) {
    let kind = steps.byte();
    let at = usize::from(steps.byte()) * 16 + usize::from(kind >> 6) * 4;
    let pos = u64::from(steps.byte());
    let payload = usize::from(steps.byte());
    let mut entry = match (kind % 4, framing) {
        (0, _) => {
            let noise = usize::from(kind >> 2).min(steps.rest.len());
            let (head, rest) = steps.rest.split_at(noise);
            steps.rest = rest;
            head.to_vec()
        }
        (_, Framing::Records) => record(pos, payload),
        (_, Framing::Journal) => journal(pos, payload),
    };
    // Sometimes the mark of another life or place, sometimes none.
    let stamp = if kind % 4 == 2 { STAMP ^ 1 } else { STAMP };
    if kind % 4 != 3
        && let Some(word) = entry.first_chunk_mut::<8>()
    {
        *word = (u64::from_le_bytes(*word) ^ mark(stamp, at as u32)).to_le_bytes();
    }
    let room = bytes.len().saturating_sub(at).min(entry.len());
    bytes[at..at + room].copy_from_slice(&entry[..room]);
}

fn record(pos: u64, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; encoded_bytes(payload)];
    let header = RecordHeader {
        kind: RecordKind::Data,
        flags: 0,
        log: LogId::new(7),
        segment: SEGMENT,
        ns_epoch: NsEpoch::ZERO,
        generation: ViewId::new(1),
        position: Lsn::new(pos),
        guard: GuardEpoch::new(1),
        client: ClientId::new(1),
        session: SessionNo::new(1),
        seq: ClientSeq::new(pos),
        payload_bytes: payload as u32,
        payload_crc: crc32c(&bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload]),
    };
    header.emit(&mut bytes);
    bytes
}

fn journal(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; journal_encoded_bytes(len)];
    bytes[..4].copy_from_slice(&JOURNAL_MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c(&bytes[12..32 + len]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The input, byte by byte; zeros after its end.
struct Steps<'a> {
    rest: &'a [u8],
}

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }
}
