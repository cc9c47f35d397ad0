//! One shard's stream of a subscription: where it stands, its credit, and what came before it could be delivered.
//!
//! Credit is a running total of bytes of records, so that repeating it does no harm. The total granted is what has been
//! consumed since the stream (re)started plus the room that was free then. A server may use its last byte of credit for a
//! whole record; what it may still send always fits.

use ionian_types::{EntryNo, GapKind, Gsn, Nanos, ShardId, Time};
use ionian_wire::codec::{Reader, Writer};
use ionian_wire::record::{RECORD_ENCODED_BYTES_MAX, RECORD_HEADER_BYTES};

use super::peers::PeerIx;
use super::ring::ByteQueue;

/// The encoded length of an [`Item`]'s head in the queue.
const HEAD_BYTES: usize = 33;
/// Heads kept beside those of runs of the smallest records: gaps carry no bytes that credit could bound.
const SPARE_HEADS: usize = 256;

/// What waits at the front of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub(super) first: Gsn,
    /// The position after the last.
    pub(super) end: Gsn,
    /// Bytes of records; 0 for a gap.
    pub(super) bytes: u64,
    pub(super) entry: EntryNo,
    pub(super) gap: Option<GapKind>,
}

/// Where the stream comes from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) peer: PeerIx,
    /// The subscription's name on the wire; another one for every start.
    pub(super) wire: u32,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) shard: ShardId,
    pub(super) source: Option<Source>,
    /// A source left behind that was not told so yet.
    pub(super) leave: Option<Source>,
    pub(super) cursor: u32,
    pub(super) retry_at: Time,
    pub(super) backoff: Nanos,
    /// Positions of this shard below were received, or are not wanted.
    pub(super) received: Gsn,
    /// The newest entry seen in this stream.
    pub(super) entry: EntryNo,
    /// Bytes of records received, consumed and granted since the start.
    pub(super) taken_in: u64,
    pub(super) granted: u64,
    /// Bytes of records in the queue.
    pub(super) waiting: u64,
    /// Whether the merge's heap names the stream.
    pub(super) in_heap: bool,
    credit: u64,
    queue: ByteQueue,
}

impl Stream {
    pub(super) fn new(
        shard: ShardId,
        from: Gsn,
        credit: usize,
        cursor: u32,
        backoff: Nanos,
    ) -> Self {
        let heads = credit / RECORD_HEADER_BYTES + SPARE_HEADS;
        Self {
            shard,
            source: None,
            leave: None,
            cursor,
            retry_at: Time::ZERO,
            backoff,
            received: from,
            entry: EntryNo::ZERO,
            taken_in: 0,
            granted: 0,
            waiting: 0,
            in_heap: false,
            credit: credit as u64,
            queue: ByteQueue::new(2 * (credit + RECORD_ENCODED_BYTES_MAX + heads * HEAD_BYTES)),
        }
    }

    /// Takes a new source and returns the credit that it starts with.
    pub(super) fn start(&mut self, source: Source) -> u64 {
        self.source = Some(source);
        self.taken_in = 0;
        self.granted = self.credit.saturating_sub(self.waiting);
        self.granted
    }

    /// The total that the server may have sent by now.
    pub(super) fn allowance(&self) -> u64 {
        self.taken_in + self.credit.saturating_sub(self.waiting)
    }

    /// Whether enough was consumed that the server should be told.
    pub(super) fn credit_due(&self) -> bool {
        self.source.is_some() && self.allowance().saturating_sub(self.granted) >= self.credit / 4
    }

    /// Whether `bytes` more are within what was granted, but for the end of one record.
    pub(super) fn admits(&self, bytes: u64) -> bool {
        let limit = self.granted.saturating_add(RECORD_ENCODED_BYTES_MAX as u64);
        self.taken_in < self.granted
            && self
                .taken_in
                .checked_add(bytes)
                .is_some_and(|total| total <= limit)
    }

    /// Keeps an item for later; `false` when there is no room for it, which only a server that ignores its credit, or
    /// that sends gaps without end, can bring about.
    pub(super) fn push(&mut self, item: &Item, records: &[u8]) -> bool {
        let kept = self.queue.push(&[&encode(item), records]);
        if kept {
            self.waiting += item.bytes;
        }
        kept
    }

    /// What waits at the front, and its records.
    pub(super) fn front(&self) -> Option<(Item, &[u8])> {
        let bytes = self.queue.front();
        let item = decode(bytes)?;
        bytes
            .get(HEAD_BYTES..HEAD_BYTES + item.bytes as usize)
            .map(|records| (item, records))
    }

    /// Drops the front.
    pub(super) fn pop(&mut self) {
        if let Some((item, _)) = self.front() {
            self.queue.pop(HEAD_BYTES + item.bytes as usize);
            self.waiting -= item.bytes;
        }
    }

    /// Drops what lies before position `to` from the front, which is `bytes` of records.
    pub(super) fn shorten(&mut self, to: Gsn, bytes: u64) {
        let Some((item, _)) = self.front() else {
            return;
        };
        // The head goes back in front of what is left: its old place, and that of the records dropped, are free.
        self.queue.pop(HEAD_BYTES + bytes as usize);
        self.waiting -= bytes;
        self.queue.unpop(&encode(&Item {
            first: to,
            bytes: item.bytes - bytes,
            ..item
        }));
    }
}

fn encode(item: &Item) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let mut writer = Writer::new(&mut head);
    let fields = [
        item.first.get(),
        item.end.get(),
        item.bytes,
        item.entry.get(),
    ];
    for field in fields {
        writer
            .field(field)
            .expect("the head has room for four numbers and a byte");
    }
    head[HEAD_BYTES - 1] = item.gap.map_or(0, GapKind::code);
    head
}

fn decode(bytes: &[u8]) -> Option<Item> {
    let mut reader = Reader::new(bytes);
    Some(Item {
        first: reader.field().ok()?,
        end: reader.field().ok()?,
        bytes: reader.field().ok()?,
        entry: reader.field().ok()?,
        gap: GapKind::from_code(reader.field().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(ShardId::new(1), Gsn::ZERO, 1000, 0, Nanos(1))
    }

    fn item(first: u64, end: u64, bytes: u64) -> Item {
        Item {
            first: Gsn::new(first),
            end: Gsn::new(end),
            bytes,
            entry: EntryNo::new(3),
            gap: (bytes == 0).then_some(GapKind::Loss),
        }
    }

    #[test]
    fn a_shortened_front_keeps_its_tail() {
        let mut stream = stream();
        let records: Vec<u8> = (0..200).collect();
        assert!(stream.push(&item(5, 7, 200), &records));
        assert!(stream.push(&item(7, 9, 0), &[]));
        stream.shorten(Gsn::new(6), 100);
        assert_eq!(stream.front(), Some((item(6, 7, 100), &records[100..])));
        stream.pop();
        stream.shorten(Gsn::new(8), 0);
        assert_eq!(stream.front(), Some((item(8, 9, 0), &[][..])));
        stream.pop();
        assert_eq!((stream.front(), stream.waiting), (None, 0));
    }

    #[test]
    fn credit_never_exceeds_the_room() {
        let mut stream = stream();
        assert_eq!(stream.start(Source { peer: 1, wire: 1 }), 1000);
        let record = RECORD_ENCODED_BYTES_MAX as u64;
        assert!(stream.admits(1000 + record) && !stream.admits(1001 + record));
        stream.taken_in += 600;
        assert!(stream.push(&item(0, 1, 600), &[0; 600]));
        assert_eq!(stream.allowance(), 1000, "what waits is not granted again");
        assert!(!stream.credit_due());
        stream.pop();
        assert_eq!(stream.allowance(), 1600);
        assert!(stream.credit_due());
        assert!(stream.push(&item(0, 1, 600), &[0; 600]));
        assert_eq!(
            stream.start(Source { peer: 2, wire: 2 }),
            400,
            "a new start knows what still waits"
        );
    }
}
