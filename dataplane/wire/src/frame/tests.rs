//! Tests of messages: golden layouts, and bytes that nobody should send.

use super::*;
use ionian_types::*;
use proptest::prelude::*;

#[test]
fn kinds_are_distinct() {
    let mut kinds: Vec<u8> = KINDS.iter().map(|(kind, _, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), KINDS.len());
}

/// The table of layouts; a change of any of them needs a new wire version.
#[test]
fn layouts_match_the_golden_table() {
    let table: String = KINDS
        .iter()
        .map(|(kind, name, len)| format!("{kind} {name} {len}\n"))
        .collect();
    let golden = include_str!("../../golden/frames.txt");
    assert_eq!(
        table, golden,
        "a layout changed: raise WIRE_VERSION and update golden/frames.txt"
    );
}

#[test]
fn golden_append_bytes() {
    let append = Append {
        log: LogId::new(1),
        segment: SegmentId {
            shard: ShardId::new(2),
            slot: Slot::new(3),
        },
        generation: ViewId::new(4),
        client: ClientId::new(5),
        session: SessionNo::new(6),
        floor: ClientSeq::new(7),
        first_seq: ClientSeq::new(8),
        count: 9,
    };
    let mut out = [0; 128];
    let len = encode(&mut out, &append, &[b"tail"]).unwrap();
    let hex: String = out[..len].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("../../golden/append.hex").trim());
    let (message, rest) = Message::new_checked(&out[..len]).unwrap();
    assert_eq!(message, Message::Append(append, b"tail"));
    assert!(rest.is_empty());
}

#[test]
fn messages_of_detection_come_back() {
    fn check<B: Body + PartialEq>(body: B, read: impl Fn(Message<'_>) -> Option<B>) {
        let mut out = [0; 64];
        let len = encode(&mut out, &body, &[]).unwrap();
        let (message, rest) = Message::new_checked(&out[..len]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(read(message), Some(body));
        for cut in 0..len {
            assert!(
                Message::new_checked(&out[..cut]).is_err(),
                "{cut} of {len} bytes"
            );
        }
    }
    let node = NodeId::new(7);
    let observe = Observe {
        node,
        suspect_after: u64::MAX,
    };
    check(observe, |message| match message {
        Message::Observe(observe, &[]) => Some(observe),
        _ => None,
    });
    check(Suspect { node, silent: 1 }, |message| match message {
        Message::Suspect(suspect, &[]) => Some(suspect),
        _ => None,
    });
    let probe = Probe {
        node,
        number: 9,
        patience: 40,
    };
    check(probe, |message| match message {
        Message::Probe(probe, &[]) => Some(probe),
        _ => None,
    });
    for code in 0..=u8::MAX {
        let mut out = [0; 64];
        let answer = ProbeAnswer {
            node,
            number: 9,
            evidence: Evidence::Here,
            silent: 3,
        };
        let len = encode(&mut out, &answer, &[]).unwrap();
        out[MESSAGE_HEADER_BYTES + 12] = code;
        let read = Message::new_checked(&out[..len]);
        let evidence = match read {
            Ok((Message::ProbeAnswer(answer, &[]), _)) => Some(answer.evidence as u8),
            _ => None,
        };
        assert_eq!(evidence, (1..=4).contains(&code).then_some(code));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(Messages::new(&bytes).count() <= bytes.len());
    }

    #[test]
    fn plausible_bytes_never_panic(kind in 0u8..96, mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.append(&mut body);
        if let Ok((Message::EdgeStart(start, tail), _)) = Message::new_checked(&bytes) {
            let mut reader = Reader::new(tail);
            for _ in 0..start.shards.min(10) {
                let Ok(shard) = ShardStart::read(&mut reader) else { break };
                prop_assert_eq!(shard.members().len(), shard.segments().len());
            }
        }
    }
}
