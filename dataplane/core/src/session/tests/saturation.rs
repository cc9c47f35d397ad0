//! A bottleneck with a short queue that drops what does not fit: a socket buffer, a switch port. The window has to settle
//! near what the queue bears, or most of what is sent is sent in vain.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{Nanos, Time};

use super::pair::Pair;

/// The time that the bottleneck takes per packet.
const SERVICE: Nanos = Nanos::from_us(5);
/// The time that an ack takes back, in services.
const RETURN: usize = 4;

/// What came of a transfer: the share of the bottleneck's time that it used, and of its packets that were dropped.
struct Outcome {
    used_percent: u64,
    dropped_percent: u64,
}

/// Sends `packets` full packets through a queue of `queue_packets`.
fn transfer(packets: u64, queue_packets: usize) -> Outcome {
    let mut pair = Pair::fresh(|config| {
        config.window_packets = 256;
        config.send_bytes_max = 256 << 10;
        config.receive_bytes_max = 256 << 10;
        config.rto_min = Nanos::from_us(500);
    });
    let payload = pair.ends[0].payload_bytes_max;
    let mut queue = VecDeque::new();
    let mut back: VecDeque<Vec<Vec<u8>>> = (0..RETURN).map(|_| Vec::new()).collect();
    let (mut pushed, mut steps, mut dropped) = (0, 0, 0);
    while (pair.got[1].len() as u64) < packets {
        while pushed < packets && pair.ends[0].room_bytes() >= payload {
            pair.push(0, pushed as u8, payload - 8);
            pushed += 1;
        }
        for datagram in pair.transmit(0) {
            if queue.len() < queue_packets {
                queue.push_back(datagram);
            } else {
                dropped += 1;
            }
        }
        if let Some(datagram) = queue.pop_front() {
            pair.give(1, &datagram);
        }
        back.push_back(pair.transmit(1));
        for ack in back.pop_front().expect("as long as the way back") {
            pair.give(0, &ack);
        }
        pair.pass(SERVICE);
        for end in &mut pair.ends {
            if end.next_deadline() <= pair.now {
                end.on_deadline(pair.now);
            }
        }
        steps += 1;
        assert!(
            pair.now < Time::from_ns(packets * SERVICE.0 * 20),
            "a collapse"
        );
    }
    Outcome {
        used_percent: packets * 100 / steps,
        dropped_percent: dropped * 100 / (packets + dropped),
    }
}

#[test]
fn a_saturated_buffer_does_not_collapse() {
    for queue_packets in [8, 16, 32, 64, 200] {
        let outcome = transfer(20_000, queue_packets);
        assert!(
            outcome.used_percent >= 90 && outcome.dropped_percent <= 10,
            "queue of {queue_packets}: {} % used, {} % dropped",
            outcome.used_percent,
            outcome.dropped_percent
        );
    }
}
